//! Entries of queues: the plain one, its extension, and the one of batch queues.

use byteorder::{BigEndian, ByteOrder};

use super::fields::{DecodeError, expect, first_bytes, structure};

structure! {
    /// One message in a queue: where its record is.
    ///
    /// # Layout
    ///
    /// | at | bytes | field | meaning |
    /// |---|---|---|---|
    /// | 0 | 8 | `log_offset` | the record's position in the log |
    /// | 8 | 4 | `record_bytes` | the record's length |
    /// | 12 | 8 | `tags_code` | hash of the tags; or the deliver time of a delayed message, or an [`ExtensionAddress`] |
    ///
    /// # Examples
    ///
    /// ```
    /// use mqlog::format::queue_entry::QueueEntry;
    /// let entry = QueueEntry { log_offset: 167, record_bytes: 167, tags_code: 0x27_A807 };
    /// assert_eq!(QueueEntry::decode(&entry.encode()), Ok(Some(entry)));
    /// assert_eq!(QueueEntry::decode(&[0; 20]), Ok(None));
    /// ```
    ///
    /// # Source
    ///
    /// RocketMQ's `ConsumeQueue.putMessagePositionInfo`.
    #[doc(alias = "CQ_STORE_UNIT")]
    pub struct QueueEntry: 20, read {
        /// The record's position in the log.
        pub log_offset: u64 = "log offset",
        /// The record's length.
        pub record_bytes: u32 = "record length",
        /// The hash of the message's tags, or one of the other two meanings.
        pub tags_code: i64,
    }
}

impl QueueEntry {
    /// What RocketMQ writes in front of the first message of a queue that does not begin with a file.
    #[doc(alias = "fillPreBlank")]
    pub const FILLER: [u8; Self::BYTES] = [0, 0, 0, 0, 0, 0, 0, 0, 0x7F, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0];

    /// What mqlog's fillers have in place of the hash of tags: no hash is so large, and no time.
    const FILLER_TAGS: i64 = i64::from_be_bytes(*b"mqlogfil");

    /// mqlog's filler in place of a lost message: it names the bytes of a message beside it, which RocketMQ gives once more.
    ///
    /// RocketMQ's own [`FILLER`](Self::FILLER) would hide messages from it. Behind an entry that cannot be read it leaves out
    /// what lies in the same log file, for that filler the first one. It takes for dispatched what lies before the end of what a
    /// queue's last entry names, the first 2 GiB; and for deleted what stands in front of the last entry of a file, if that
    /// names what was deleted.
    pub const fn filler_at(log_offset: u64, record_bytes: u32) -> Self {
        Self { log_offset, record_bytes, tags_code: Self::FILLER_TAGS }
    }

    /// mqlog's filler in a queue without messages: two bytes on both sides of the border of two log files, which can never be
    /// read as a message.
    pub(crate) const fn filler_across(border: u64) -> Self {
        Self::filler_at(border - 1, 2)
    }

    /// Is this a [`filler_across`](Self::filler_across) of some border?
    pub(crate) const fn is_filler_across(&self, file_bytes: u64) -> bool {
        self.is_filler() && self.record_bytes == 2 && file_bytes > 0 && (self.log_offset + 1).is_multiple_of(file_bytes)
    }

    /// The filler that follows an entry.
    pub(crate) const fn again(&self) -> Self {
        Self::filler_at(self.log_offset, self.record_bytes)
    }

    /// Decodes the entry at the first byte of `bytes`; `None` if no record is named: its length is 0.
    ///
    /// # Errors
    ///
    /// - [`DecodeError::TooShort`] if there are less than [`BYTES`](Self::BYTES)
    /// - [`DecodeError::Negative`] if the offset or the length is
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, DecodeError> {
        let entry = Self::read(bytes)?;
        Ok((entry.record_bytes != 0).then_some(entry))
    }

    /// Where the record ends in the log.
    pub(crate) fn end(&self) -> u64 {
        self.log_offset.saturating_add(self.record_bytes.into())
    }

    /// Tells whether this is a [`FILLER`](Self::FILLER) or a [`filler_at`](Self::filler_at): it looks like an entry, but stands
    /// for no message.
    pub const fn is_filler(&self) -> bool {
        let is_rocketmqs = self.log_offset == 0 && self.record_bytes == i32::MAX as u32 && self.tags_code == 0;
        is_rocketmqs || self.tags_code == Self::FILLER_TAGS
    }
}

/// The place of an [`ExtensionUnit`], as a queue entry holds it in place of the hash of the tags.
///
/// It is the unit's offset in the extension files plus `i64::MIN`: below every hash, which has 32 bits.
///
/// # Examples
///
/// ```
/// use mqlog::format::queue_entry::ExtensionAddress;
/// let address = ExtensionAddress::new(100).expect("small enough");
/// assert_eq!(address.to_tags_code(), i64::MIN + 100);
/// assert_eq!(ExtensionAddress::from_tags_code(i64::MIN + 100), Some(address));
/// assert_eq!(ExtensionAddress::from_tags_code(i32::MIN.into()), None);
/// ```
///
/// # Source
///
/// RocketMQ's `ConsumeQueueExt.decorate` and `unDecorate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExtensionAddress(u64);

impl ExtensionAddress {
    /// The largest tags code that is an address: one below the smallest hash.
    #[doc(alias = "MAX_ADDR")]
    const MAX_TAGS_CODE: i64 = i32::MIN as i64 - 1;

    /// Makes the address of an offset; `None` if it is so large that it would look like a hash.
    pub const fn new(offset: u64) -> Option<Self> {
        if offset <= Self::MAX_TAGS_CODE.wrapping_sub(i64::MIN) as u64 { Some(Self(offset)) } else { None }
    }

    /// Returns the address in an entry's tags code, or `None` if it is a hash or a time.
    pub const fn from_tags_code(tags_code: i64) -> Option<Self> {
        if tags_code <= Self::MAX_TAGS_CODE { Some(Self(tags_code.wrapping_sub(i64::MIN) as u64)) } else { None }
    }

    /// Returns what an entry holds.
    pub const fn to_tags_code(self) -> i64 {
        (self.0 as i64).wrapping_add(i64::MIN)
    }

    /// Returns the offset in the extension files.
    pub const fn offset(self) -> u64 {
        self.0
    }
}

/// What a queue keeps of a message beside its entry, if extensions are on.
///
/// # Layout
///
/// | at | bytes | field | meaning |
/// |---|---|---|---|
/// | 0 | 2 | | length of the unit, 20 and the bit map; [`END`](Self::END) behind the file's last unit |
/// | 2 | 8 | `tags_code` | hash of the tags |
/// | 10 | 8 | `store_ms` | store time |
/// | 18 | 2 | | length of the bit map |
/// | 20 | | `bit_map` | which consumers' filters match |
///
/// # Examples
///
/// ```
/// use mqlog::format::queue_entry::ExtensionUnit;
/// let unit = ExtensionUnit { tags_code: 7, store_ms: 1_700_000_000_000, bit_map: &[1, 2] };
/// let mut bytes = Vec::new();
/// unit.encode(&mut bytes);
/// assert_eq!(bytes.len(), unit.unit_bytes());
/// assert_eq!(ExtensionUnit::decode(&bytes), Ok(Some(unit)));
/// assert_eq!(ExtensionUnit::decode(&ExtensionUnit::END), Ok(None));
/// ```
///
/// # Source
///
/// RocketMQ's `ConsumeQueueExt.CqExtUnit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[doc(alias = "CqExtUnit")]
pub struct ExtensionUnit<'a> {
    /// The hash of the message's tags.
    pub tags_code: i64,
    /// The message's store time, in ms since 1970.
    pub store_ms: i64,
    /// Which consumers' filters match.
    pub bit_map: &'a [u8],
}

impl<'a> ExtensionUnit<'a> {
    /// Bytes of a unit without bit map.
    pub const MIN_BYTES: usize = 20;
    /// What stands behind the last unit of a file.
    pub const END: [u8; 2] = [0xFF; 2];

    /// Returns the unit's length.
    pub fn unit_bytes(&self) -> usize {
        Self::MIN_BYTES + self.bit_map.len()
    }

    /// Appends the unit's bytes.
    ///
    /// # Panics
    ///
    /// If the unit has more than 32,767 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let unit_bytes = i16::try_from(self.unit_bytes()).expect("a unit fits its length field");
        out.extend_from_slice(&unit_bytes.to_be_bytes());
        out.extend_from_slice(&self.tags_code.to_be_bytes());
        out.extend_from_slice(&self.store_ms.to_be_bytes());
        out.extend_from_slice(&(self.bit_map.len() as u16).to_be_bytes());
        out.extend_from_slice(self.bit_map);
    }

    /// Decodes the unit at the first byte of `bytes`; `None` if the file's units end here: the length is 0 or less.
    ///
    /// # Errors
    ///
    /// - [`DecodeError::TooShort`] if `bytes` ends before the unit does
    /// - [`DecodeError::Mismatch`] if the two lengths contradict each other
    pub fn decode(bytes: &'a [u8]) -> Result<Option<Self>, DecodeError> {
        let stored = BigEndian::read_i16(first_bytes(bytes, 2)?);
        if stored <= 0 {
            return Ok(None);
        }
        let unit = first_bytes(bytes, (stored as usize).max(Self::MIN_BYTES))?;
        let unit_bytes = Self::MIN_BYTES + usize::from(BigEndian::read_u16(&unit[Self::MIN_BYTES - 2..]));
        expect(stored as usize == unit_bytes, "unit length", stored as usize, unit_bytes)?;
        Ok(Some(Self {
            tags_code: BigEndian::read_i64(&unit[2..]),
            store_ms: BigEndian::read_i64(&unit[10..]),
            bit_map: &unit[Self::MIN_BYTES..],
        }))
    }
}

structure! {
    /// One record in a batch queue: where it is, and which messages of the queue it holds.
    ///
    /// # Layout
    ///
    /// | at | bytes | field | meaning |
    /// |---|---|---|---|
    /// | 0 | 8 | `log_offset` | the record's position in the log |
    /// | 8 | 4 | `record_bytes` | the record's length |
    /// | 12 | 8 | `tags_code` | hash of the tags |
    /// | 20 | 8 | `store_ms` | store time |
    /// | 28 | 8 | `base` | queue offset of the record's first message |
    /// | 36 | 2 | `count` | how many messages the record holds |
    /// | 38 | 4 | | compacted offset, always -1 |
    /// | 42 | 4 | | reserved, 0 |
    ///
    /// # Examples
    ///
    /// ```
    /// use mqlog::format::queue_entry::BatchEntry;
    /// let entry = BatchEntry { log_offset: 0, record_bytes: 268, tags_code: 7, store_ms: 9, base: 0, count: 2 };
    /// assert_eq!(BatchEntry::decode(&entry.encode()), Ok(Some(entry)));
    /// ```
    ///
    /// # Source
    ///
    /// RocketMQ's `BatchConsumeQueue.putBatchMessagePositionInfo`.
    #[doc(alias("msgBaseOffset", "batchSize"))]
    pub struct BatchEntry: 46, read {
        /// The record's position in the log.
        pub log_offset: u64 = "log offset",
        /// The record's length.
        pub record_bytes: u32 = "record length",
        /// The hash of the message's tags.
        pub tags_code: i64,
        /// The record's store time, in ms since 1970.
        pub store_ms: i64,
        /// The queue offset of the record's first message.
        pub base: u64 = "base",
        /// How many messages the record holds.
        pub count: u16 = "count",
        .. [0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0]
    }
}

impl BatchEntry {
    /// Decodes the entry at the first byte of `bytes`; `None` if no record is named: its length is 0.
    ///
    /// # Errors
    ///
    /// - [`DecodeError::TooShort`] if there are less than [`BYTES`](Self::BYTES)
    /// - [`DecodeError::Negative`] if an offset, the length or the count is
    /// - [`DecodeError::Mismatch`] if the count is 0
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, DecodeError> {
        let entry = Self::read(bytes)?;
        if entry.record_bytes == 0 {
            return Ok(None);
        }
        expect(entry.count > 0, "count", 0, 1).map(|()| Some(entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_address_is_below_the_smallest_hash() {
        let largest = 9_223_372_034_707_292_159;
        let address = ExtensionAddress::new(largest).unwrap();
        assert_eq!(address.to_tags_code(), i64::from(i32::MIN) - 1);
        assert_eq!(ExtensionAddress::from_tags_code(address.to_tags_code()), Some(address));
        assert_eq!(ExtensionAddress::new(largest + 1), None);
        assert_eq!(ExtensionAddress::from_tags_code(i32::MIN.into()), None);
        assert_eq!(ExtensionAddress::new(0).map(ExtensionAddress::to_tags_code), Some(i64::MIN));
    }

    #[test]
    fn lengths_of_an_extension_unit_that_contradict_each_other_are_an_error() {
        let mut bytes = Vec::new();
        ExtensionUnit { tags_code: 1, store_ms: 2, bit_map: &[3; 8] }.encode(&mut bytes);
        bytes[19] = 7;
        let mismatch = DecodeError::Mismatch { field: "unit length", stored: 28, computed: 27 };
        assert_eq!(ExtensionUnit::decode(&bytes), Err(mismatch));
        bytes[1] = 5;
        let mismatch = DecodeError::Mismatch { field: "unit length", stored: 5, computed: 27 };
        assert_eq!(ExtensionUnit::decode(&bytes), Err(mismatch));
    }
}
