//! Java's `String.hashCode`, which queue entries and the index store.
//!
//! It runs over UTF-16 units, although every text on disk is UTF-8: a character beyond U+FFFF counts as two.

/// Computes Java's `String.hashCode`.
///
/// # Examples
///
/// ```
/// use mqlog::format::java_hash::java_hash;
/// assert_eq!(java_hash("TagA"), 2_598_919);
/// assert_eq!(java_hash("polygenelubricants"), i32::MIN);
/// ```
#[doc(alias = "hashCode")]
pub fn java_hash(text: &str) -> i32 {
    extend(0, text)
}

/// Computes what a queue entry stores for `tags`: the hash with its sign kept, 0 for no tags.
///
/// # Examples
///
/// ```
/// use mqlog::format::java_hash::tags_code;
/// assert_eq!(tags_code("TagA"), 0x27_A807);
/// assert_eq!(tags_code("polygenelubricants"), -2_147_483_648);
/// assert_eq!(tags_code(""), 0);
/// ```
#[doc(alias = "tagsString2tagsCode")]
pub fn tags_code(tags: &str) -> i64 {
    java_hash(tags).into()
}

/// Computes the hash that the index stores for a whole key: without sign, and 0 for `i32::MIN`, which has no positive.
///
/// # Examples
///
/// ```
/// use mqlog::format::java_hash::index_hash;
/// assert_eq!(index_hash("TopicTest#Key1"), 0x62C2_DD2C);
/// assert_eq!(index_hash("polygenelubricants"), 0);
/// ```
#[doc(alias = "indexKeyHashMethod")]
pub fn index_hash(key: &str) -> u32 {
    without_sign(java_hash(key))
}

/// Computes the index hash of a message's key: that of `topic#key`, without making that text.
///
/// # Examples
///
/// ```
/// use mqlog::format::java_hash::{index_hash, index_key_hash};
/// assert_eq!(index_key_hash("TopicTest", "Key1"), index_hash("TopicTest#Key1"));
/// ```
pub fn index_key_hash(topic: &str, key: &str) -> u32 {
    without_sign(extend(extend(java_hash(topic), "#"), key))
}

fn without_sign(hash: i32) -> u32 {
    if hash == i32::MIN { 0 } else { hash.unsigned_abs() }
}

/// Continues a hash over more text.
fn extend(hash: i32, text: &str) -> i32 {
    let step = |hash: i32, unit: u16| hash.wrapping_mul(31).wrapping_add(unit.into());
    if text.is_ascii() { text.bytes().map(u16::from).fold(hash, step) } else { text.encode_utf16().fold(hash, step) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_java() {
        for (text, hash) in [
            ("", 0),
            ("TagA", 2_598_919),
            ("TagB", 2_598_920),
            ("*", 42),
            ("d", 100),
            ("polygenelubricants", i32::MIN),
            ("\u{1F600}", 1_772_899),
            ("中文标签", 622_041_809),
            ("TagA || TagB", 1_359_775_119),
            ("TopicTest#Key1", -1_656_937_772),
        ] {
            assert_eq!(java_hash(text), hash, "{text}");
            assert_eq!(tags_code(text), i64::from(hash), "{text}");
        }
    }

    #[test]
    fn index_hashes_are_those_of_a_real_index() {
        assert_eq!(index_key_hash("TopicTest", "Key1"), 1_656_937_772);
        assert_eq!(index_key_hash("TopicTest", "7F00000100002A139A5518B4AAC20000"), 452_913_485);
        assert_eq!(index_key_hash("主题", "\u{1F600}"), index_hash("主题#\u{1F600}"));
    }
}
