//! The index file: a header, slots, and entries chained from the slots.

use super::fields::{DecodeError, structure};

/// Bytes of a slot: the number of its newest entry, 0 for none.
pub const SLOT_BYTES: usize = 4;

structure! {
    /// The header of an index file.
    ///
    /// # Layout
    ///
    /// | at | bytes | field | meaning |
    /// |---|---|---|---|
    /// | 0 | 8 | `begin_ms` | store time of the first entry's record |
    /// | 8 | 8 | `end_ms` | store time of the last entry's record |
    /// | 16 | 8 | `begin_offset` | log offset of the first entry's record |
    /// | 24 | 8 | `end_offset` | log offset of the last entry's record |
    /// | 32 | 4 | `slot_count` | slots in use |
    /// | 36 | 4 | `next_entry` | number of the next entry, from 1 |
    ///
    /// # Examples
    ///
    /// ```
    /// use mqlog::format::index::IndexHeader;
    /// let header = IndexHeader { begin_ms: 5, end_ms: 6, ..IndexHeader::default() };
    /// assert_eq!(IndexHeader::decode(&header.encode()), Ok(header));
    /// assert_eq!(IndexHeader::decode(&[0; 40]).map(|header| header.next_entry), Ok(1));
    /// ```
    ///
    /// # Source
    ///
    /// RocketMQ's `IndexHeader`.
    #[doc(alias("INDEX_HEADER_SIZE", "beginTimestamp", "endTimestamp", "beginPhyOffset", "endPhyOffset"))]
    #[doc(alias("hashSlotCount", "indexCount"))]
    pub struct IndexHeader: 40, read {
        /// Store time of the first entry's record, in ms since 1970.
        pub begin_ms: i64,
        /// Store time of the last entry's record, in ms since 1970.
        pub end_ms: i64,
        /// Log offset of the first entry's record.
        pub begin_offset: u64 = "begin offset",
        /// Log offset of the last entry's record.
        pub end_offset: u64 = "end offset",
        /// Slots in use.
        pub slot_count: u32 = "slot count",
        /// Number of the next entry.
        pub next_entry: u32 = "next entry",
    }
}

impl Default for IndexHeader {
    /// Returns the header of a file without entries.
    fn default() -> Self {
        Self { begin_ms: 0, end_ms: 0, begin_offset: 0, end_offset: 0, slot_count: 0, next_entry: 1 }
    }
}

impl IndexHeader {
    /// Decodes the header at the first byte of `bytes`. A next entry of 0, as in a file of zeros, is read as 1.
    ///
    /// # Errors
    ///
    /// - [`DecodeError::TooShort`] if there are less than [`BYTES`](Self::BYTES)
    /// - [`DecodeError::Negative`] if an offset or a number of entries or slots is
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let header = Self::read(bytes)?;
        Ok(Self { next_entry: header.next_entry.max(1), ..header })
    }
}

structure! {
    /// An entry of an index file: one key of one message.
    ///
    /// # Layout
    ///
    /// | at | bytes | field | meaning |
    /// |---|---|---|---|
    /// | 0 | 4 | `hash` | [`index_key_hash`](super::java_hash::index_key_hash) of the key |
    /// | 4 | 8 | `log_offset` | the record's position in the log |
    /// | 12 | 4 | `seconds` | from the file's begin time to the record's store time |
    /// | 16 | 4 | `previous` | number of the slot's entry before this one, 0 for none |
    ///
    /// # Examples
    ///
    /// ```
    /// use mqlog::format::index::IndexEntry;
    /// let entry = IndexEntry { hash: 0x62C2_DD2C, log_offset: 167, seconds: 3, previous: 1 };
    /// assert_eq!(IndexEntry::decode(&entry.encode()), Ok(entry));
    /// ```
    ///
    /// # Source
    ///
    /// RocketMQ's `IndexFile.putKey`.
    #[doc(alias("timeDiff", "prevIndex"))]
    pub struct IndexEntry: 20, pub decode {
        /// The key's hash.
        pub hash: u32 = "hash",
        /// The record's position in the log.
        pub log_offset: u64 = "log offset",
        /// Seconds from the file's begin time to the record's store time.
        pub seconds: i32,
        /// The number of the slot's entry before this one, 0 for none.
        pub previous: u32 = "previous entry",
    }
}

/// Where slots and entries are in an index file: its two numbers are not stored in it.
///
/// Entry 0 is never used, so the file takes `entries - 1` of them.
///
/// # Examples
///
/// ```
/// use mqlog::format::index::IndexLayout;
/// let layout = IndexLayout { slots: 5_000_000, entries: 20_000_000 };
/// assert_eq!(layout.file_bytes(), 420_000_040);
/// assert_eq!(layout.slot_of(0x62C2_DD2C), 1_937_772);
/// assert_eq!(layout.slot_at(1_937_772), 7_751_128);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[doc(alias("maxHashSlotNum", "maxIndexNum"))]
pub struct IndexLayout {
    /// Slots of the file.
    pub slots: u32,
    /// Entries of the file, the unused number 0 included.
    pub entries: u32,
}

impl IndexLayout {
    /// Returns the slot of a hash.
    ///
    /// # Panics
    ///
    /// If the file has no slots.
    pub const fn slot_of(self, hash: u32) -> u32 {
        assert!(self.slots > 0, "an index file has slots");
        hash % self.slots
    }

    /// Returns the position of a slot in the file.
    pub const fn slot_at(self, slot: u32) -> u64 {
        IndexHeader::BYTES as u64 + slot as u64 * SLOT_BYTES as u64
    }

    /// Returns the position of an entry in the file.
    pub const fn entry_at(self, number: u32) -> u64 {
        self.slot_at(self.slots) + number as u64 * IndexEntry::BYTES as u64
    }

    /// Returns the file's length.
    pub const fn file_bytes(self) -> u64 {
        self.entry_at(self.entries)
    }
}

/// Returns an entry's seconds: whole ones from the file's begin time to the record's store time.
///
/// They are 0 if the file has no begin time yet or the record is older, and end at `i32::MAX`.
///
/// # Examples
///
/// ```
/// use mqlog::format::index::time_diff_seconds;
/// assert_eq!(time_diff_seconds(1_999, 1), 1);
/// assert_eq!(time_diff_seconds(1_999, 0), 0);
/// assert_eq!(time_diff_seconds(1, 1_999), 0);
/// ```
///
/// # Source
///
/// RocketMQ's `IndexFile.putKey`.
pub fn time_diff_seconds(store_ms: i64, begin_ms: i64) -> i32 {
    if begin_ms <= 0 {
        return 0;
    }
    let seconds = store_ms.saturating_sub(begin_ms) / 1000;
    seconds.clamp(0, i32::MAX.into()) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_follow_the_slots() {
        let layout = IndexLayout { slots: 10, entries: 12 };
        assert_eq!((layout.slot_at(0), layout.slot_at(9)), (40, 76));
        assert_eq!((layout.entry_at(0), layout.entry_at(1)), (80, 100));
        assert_eq!(layout.file_bytes(), 320);
        let largest = IndexLayout { slots: u32::MAX, entries: u32::MAX };
        assert_eq!(largest.file_bytes(), 40 + 24 * u64::from(u32::MAX));
    }

    #[test]
    fn seconds_are_whole_and_bounded() {
        assert_eq!(time_diff_seconds(i64::MAX, 1), i32::MAX);
        assert_eq!(time_diff_seconds(i64::MIN, 1), 0);
        assert_eq!(time_diff_seconds(5_000, -1), 0);
        assert_eq!(time_diff_seconds(12_345, 345), 12);
    }
}
