//! A message's properties: pairs of texts, `name 0x01 value 0x02` one after the other.
//!
//! The last `0x02` may be missing: RocketMQ 4.9.1 to 5.1 do not write it, the versions before and after do.

use std::borrow::Cow;

/// Ends a name.
#[doc(alias = "NAME_VALUE_SEPARATOR")]
pub const NAME_END: u8 = 1;
/// Ends a value.
#[doc(alias = "PROPERTY_SEPARATOR")]
pub const VALUE_END: u8 = 2;

/// The message's keys, separated by spaces.
pub const KEYS: &str = "KEYS";
/// The message's tag.
pub const TAGS: &str = "TAGS";
/// The id that the producer gave the message.
pub const UNIQ_KEY: &str = "UNIQ_KEY";
/// The delay level.
pub const DELAY: &str = "DELAY";
/// The topic in which delayed messages wait. With a [`DELAY`] that is no Java int there, a record is invalid to RocketMQ, which
/// cuts its log before it.
#[doc(alias = "RMQ_SYS_SCHEDULE_TOPIC")]
pub const SCHEDULE_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";
/// The name of the broker's cluster, which the broker adds.
pub const CLUSTER: &str = "CLUSTER";
/// The number of messages in an inner batch.
pub const INNER_NUM: &str = "INNER_NUM";
/// The queue offset of an inner batch's first message, which the store adds.
pub const INNER_BASE: &str = "INNER_BASE";
/// The names of the light queues that get the message too, separated by commas.
pub const INNER_MULTI_DISPATCH: &str = "INNER_MULTI_DISPATCH";
/// The message's offsets in those queues, which the store adds.
pub const INNER_MULTI_QUEUE_OFFSET: &str = "INNER_MULTI_QUEUE_OFFSET";
/// The record's CRC, which the store adds as the last property.
pub const CRC32: &str = "__CRC32#";

/// Encoded properties.
///
/// A pair counts if its name and its value are not empty; of pairs with the same name the last one does.
///
/// # Examples
///
/// ```
/// use mqlog::format::properties::Properties;
/// let properties = Properties::new(b"KEYS\x01a b\x02TAGS\x01TagA");
/// assert_eq!(properties.get("TAGS"), Some(&b"TagA"[..]));
/// assert_eq!(properties.get_str("KEYS").as_deref(), Some("a b"));
/// assert_eq!(properties.iter().count(), 2);
/// ```
///
/// # Source
///
/// RocketMQ's `MessageDecoder.string2messageProperties`; ours makes no map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Properties<'a>(&'a [u8]);

impl<'a> Properties<'a> {
    /// Takes encoded properties; any bytes will do.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Returns the encoded properties.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// Returns the pairs, names and values, in the order they are stored.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            while !rest.is_empty() {
                let end = find(rest, VALUE_END).unwrap_or(rest.len());
                let (pair, behind) = (&rest[..end], &rest[rest.len().min(end + 1)..]);
                rest = behind;
                if let Some(name_end) = find(pair, NAME_END)
                    && name_end > 0
                    && name_end + 1 < pair.len()
                {
                    return Some((&pair[..name_end], &pair[name_end + 1..]));
                }
            }
            None
        })
    }

    /// Returns the value of `name`.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.iter().filter(|(found, _)| *found == name.as_bytes()).last().map(|(_, value)| value)
    }

    /// Returns the value of `name` as text; bytes that are not UTF-8 are replaced.
    pub fn get_str(&self, name: &str) -> Option<Cow<'a, str>> {
        self.get(name).map(String::from_utf8_lossy)
    }
}

/// Finds the first `byte`, eight bytes at a time: a record's properties are searched for every queue and key.
fn find(bytes: &[u8], byte: u8) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let pattern = ONES * u64::from(byte);
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        // A byte of `differing` is 0 where `byte` is; the lowest high bit that this leaves set marks the first of them.
        let differing = u64::from_le_bytes(*word) ^ pattern;
        let zeros = differing.wrapping_sub(ONES) & !differing & HIGH;
        if zeros != 0 {
            return Some(index * 8 + (zeros.trailing_zeros() / 8) as usize);
        }
    }
    let searched = words.len() * 8;
    rest.iter().position(|found| *found == byte).map(|at| searched + at)
}

/// Appends one pair to encoded properties that are empty or end with a separator.
///
/// # Examples
///
/// ```
/// use mqlog::format::properties::push;
/// let mut properties = Vec::new();
/// push(&mut properties, "TAGS", "TagA");
/// assert_eq!(properties, b"TAGS\x01TagA\x02");
/// ```
pub fn push(out: &mut Vec<u8>, name: &str, value: &str) {
    out.reserve(name.len() + value.len() + 2);
    out.extend_from_slice(name.as_bytes());
    out.push(NAME_END);
    out.extend_from_slice(value.as_bytes());
    out.push(VALUE_END);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RocketMQ's rule, a byte at a time.
    fn pairs(bytes: &[u8]) -> Vec<(&[u8], &[u8])> {
        let pair = |segment: &'_ [u8]| segment.iter().position(|byte| *byte == NAME_END);
        let segments = bytes.split(|byte| *byte == VALUE_END);
        segments
            .filter_map(|segment| pair(segment).map(|at| (&segment[..at], &segment[at + 1..])))
            .filter(|(name, value)| !name.is_empty() && !value.is_empty())
            .collect()
    }

    #[test]
    fn both_endings_are_read() {
        for bytes in [&b"a\x01b\x02c\x01d\x02"[..], b"a\x01b\x02c\x01d"] {
            let found: Vec<_> = Properties::new(bytes).iter().collect();
            assert_eq!(found, [(&b"a"[..], &b"b"[..]), (b"c", b"d")]);
        }
    }

    #[test]
    fn pairs_without_name_or_value_do_not_count() {
        let properties = Properties::new(b"\x01v\x02n\x01\x02nothing\x02\x02a\x01b\x01c\x02");
        assert_eq!(properties.iter().collect::<Vec<_>>(), [(&b"a"[..], &b"b\x01c"[..])]);
        assert_eq!(properties.get("n"), None);
    }

    #[test]
    fn the_last_of_equal_names_counts() {
        assert_eq!(Properties::new(b"a\x01b\x02a\x01c\x02").get("a"), Some(&b"c"[..]));
        assert_eq!(Properties::default().get("a"), None);
    }

    proptest! {
        #[test]
        fn the_pairs_are_those_of_a_plain_split(bytes in proptest::collection::vec(prop_oneof![0_u8..4, any::<u8>()], 0..80)) {
            prop_assert_eq!(Properties::new(&bytes).iter().collect::<Vec<_>>(), pairs(&bytes));
        }

        #[test]
        fn a_byte_is_found_where_it_is(bytes in proptest::collection::vec(any::<u8>(), 0..40), byte: u8) {
            prop_assert_eq!(find(&bytes, byte), bytes.iter().position(|found| *found == byte));
            prop_assert_eq!(find(&bytes, 0), bytes.iter().position(|found| *found == 0));
        }
    }
}
