//! What stands at a place of the log: the one reading of bytes that appends, recovery and readers share.
//!
//! A record counts as whole if its structure and checksums are right, its stored offset is its position, and it has
//! the record CRC where every record has one.

use crate::format::DecodeError;
use crate::format::record::{BLANK_BYTES, CrcProperty, Item, RecordView};
use crate::offset::LogOffset;

/// What a reader of one log has to know to judge a record.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rules {
    /// From this offset on every record carries the record CRC.
    pub(crate) crc_from: Option<LogOffset>,
}

/// What stands at an offset.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    /// A whole record.
    Record(RecordView<'a>),
    /// The end of the file's records.
    Blank,
    /// Nothing was written here.
    Nothing,
    /// Bytes that are no whole record.
    Bad(String),
}

impl Rules {
    /// Judges what begins at `at`, of whose bytes `window` holds those up to the file's end, or up to the end of what
    /// is written. `left` is the distance to the file's end.
    pub(crate) fn judge<'a>(&self, window: &'a [u8], at: u64, left: u64) -> Found<'a> {
        match Item::decode(window) {
            Ok(Item::Record(record)) => match self.check(&record, at, left) {
                Ok(()) => Found::Record(record),
                Err(reason) => Found::Bad(reason),
            },
            Ok(Item::Blank { bytes }) if u64::from(bytes) == left => Found::Blank,
            Ok(Item::Blank { bytes }) => {
                Found::Bad(format!("an end-of-file blank says {bytes} bytes, {left} are left"))
            }
            Err(DecodeError::Zero) => Found::Nothing,
            // Less than a blank is left: either a full file without blank, or a file whose end is cut.
            Err(DecodeError::TooShort { .. }) if window.iter().all(|byte| *byte == 0) => Found::Nothing,
            Err(error) => Found::Bad(error.to_string()),
        }
    }

    fn check(&self, record: &RecordView<'_>, at: u64, left: u64) -> Result<(), String> {
        if record.log_offset() != at {
            return Err(format!("the record says that it stands at {}", record.log_offset()));
        }
        if u64::from(record.record_bytes()) + BLANK_BYTES as u64 > left {
            return Err(format!("the record has {} bytes, {left} are left in its file", record.record_bytes()));
        }
        let crc = record.verify().map_err(|error| error.to_string())?;
        let needs_crc = self.crc_from.is_some_and(|from| at >= from.get());
        if needs_crc && !matches!(crc, CrcProperty::Present(_)) {
            return Err("the record has no record CRC, where every record has one".to_owned());
        }
        Ok(())
    }
}

/// The distances at which a record may begin: those with the beginning of a record's magic number.
pub(crate) fn candidates(window: &[u8]) -> impl Iterator<Item = usize> + '_ {
    // Every magic number of a record begins with these three bytes, four bytes behind the record's first.
    const MAGIC_START: [u8; 3] = [0xDA, 0xA3, 0x20];
    let last = window.len().saturating_sub(BLANK_BYTES - 1);
    (0..last).filter(move |&distance| window[distance + 4..distance + 7] == MAGIC_START)
}
