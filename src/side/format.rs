//! `mqlog/format`: the sizes a store was made with, and whether it was closed.

use std::ops::{Range, RangeInclusive};

use super::{FORMAT, SideFolder};
use crate::error::{Error, Result};
use crate::format::index::IndexLayout;
use crate::format::queue_entry::{BatchEntry, QueueEntry};
use crate::offset::LogOffset;

/// The first line: what this is, and its version.
const TITLE: &str = "mqlog 1";
/// A line that is there only where it has something to say.
const DAMAGED: &str = "damaged";
/// So many ranges are kept, the highest.
pub(crate) const MOST_DAMAGED: usize = 64;
/// No format file is as long as this.
const LIMIT_BYTES: usize = 4096;

/// The smallest and largest length of a log file.
pub(crate) const LOG_FILE_BYTES: RangeInclusive<u64> = 1024..=i32::MAX as u64;

/// What the file `format` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoreFormat {
    pub(crate) log_file_bytes: u64,
    pub(crate) queue_file_entries: u32,
    pub(crate) batch_queue_file_entries: u32,
    pub(crate) index_slots: u32,
    pub(crate) index_entries: u32,
    /// From here on every record carries the record CRC; `None`: nobody promises that of any.
    pub(crate) record_crc_from: Option<LogOffset>,
    /// What a salvage knew to be damaged although nothing in the bytes says so, lowest first.
    pub(crate) damaged: Vec<Range<u64>>,
    /// Did the last session close the store? Taken back before queues, index or log change.
    pub(crate) clean: bool,
}

fn parse_range(text: &str) -> Option<Range<u64>> {
    let (start, end) = text.split_once("..")?;
    Some(start.parse().ok()?..end.parse().ok()?)
}

impl Default for StoreFormat {
    /// A small store's sizes: a queue file of 400,000 bytes, of which the disk holds what is written, an index file of about 1.4 MiB.
    fn default() -> Self {
        Self {
            log_file_bytes: 64 * 1024 * 1024,
            queue_file_entries: 20_000,
            batch_queue_file_entries: 20_000,
            index_slots: 16_384,
            index_entries: 65_536,
            record_crc_from: None,
            damaged: Vec::new(),
            clean: false,
        }
    }
}

impl StoreFormat {
    /// Reads the file; `None` if there is none that can be believed.
    pub(crate) fn load(side: &SideFolder) -> Result<Option<Self>> {
        Ok(side.read(FORMAT, LIMIT_BYTES)?.and_then(|bytes| Self::decode(&bytes)))
    }

    /// Replaces the file, durably.
    pub(crate) fn save(&self, side: &SideFolder) -> Result<()> {
        side.replace(FORMAT, self.encode().as_bytes())
    }

    pub(super) fn encode(&self) -> String {
        let from = self.record_crc_from.map_or("none".to_owned(), |from| from.to_string());
        let clean = if self.clean { "yes" } else { "no" };
        let ranges: String = self.damaged.iter().map(|range| format!(" {}..{}", range.start, range.end)).collect();
        let damaged = if ranges.is_empty() { ranges } else { format!("{DAMAGED}{ranges}\n") };
        let Self { log_file_bytes, queue_file_entries, batch_queue_file_entries, index_slots, index_entries, .. } =
            self;
        let text = format!(
            "{TITLE}\nlog_file_bytes {log_file_bytes}\nqueue_file_entries {queue_file_entries}\n\
             batch_queue_file_entries {batch_queue_file_entries}\nindex_slots {index_slots}\n\
             index_entries {index_entries}\nrecord_crc_from {from}\n{damaged}clean {clean}\n"
        );
        let crc = crc32c::crc32c(text.as_bytes());
        format!("{text}crc32c {crc:08x}\n")
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let text = str::from_utf8(bytes).ok()?;
        let lines = text.lines().skip(1).filter_map(|line| line.split_once(' '));
        let damaged = lines.clone().find(|(name, _)| *name == DAMAGED).map(|(_, ranges)| ranges);
        let mut values = lines.filter(|(name, _)| *name != DAMAGED).map(|(_, value)| value);
        let format = Self {
            log_file_bytes: values.next()?.parse().ok()?,
            queue_file_entries: values.next()?.parse().ok()?,
            batch_queue_file_entries: values.next()?.parse().ok()?,
            index_slots: values.next()?.parse().ok()?,
            index_entries: values.next()?.parse().ok()?,
            record_crc_from: values.next()?.parse().ok().map(LogOffset::new),
            clean: values.next()? == "yes",
            damaged: damaged.map_or(Some(Vec::new()), |ranges| ranges.split(' ').map(parse_range).collect())?,
        };
        // There is one way to write each state, so this compares everything at once: title, names and checksum too.
        (format.encode() == text && format.check().is_ok()).then_some(format)
    }

    /// Checks that a store can have these sizes: whoever divides by one relies on it, and RocketMQ maps no file of more
    /// than 31 bits.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] names the first that it cannot have.
    pub(crate) fn check(&self) -> Result<()> {
        if !LOG_FILE_BYTES.contains(&self.log_file_bytes) {
            let (value, least, most) = (self.log_file_bytes, LOG_FILE_BYTES.start(), LOG_FILE_BYTES.end());
            let reason = format!("{value} is not in {least} to {most}");
            return Err(Error::InvalidOption { option: "log_file_bytes", reason });
        }
        let limit = *LOG_FILE_BYTES.end();
        let bytes = |count: u32, each: usize| u64::from(count) * each as u64;
        let (queue, batch) = (self.queue_file_entries, self.batch_queue_file_entries);
        let (slots, entries) = (self.index_slots, self.index_entries);
        let index_bytes = |entries| IndexLayout { slots, entries }.file_bytes();
        for (option, value, least, file_bytes) in [
            ("queue_file_entries", queue, 1, bytes(queue, QueueEntry::BYTES)),
            ("batch_queue_file_entries", batch, 1, bytes(batch, BatchEntry::BYTES)),
            ("index_slots", slots, 1, index_bytes(2)),
            ("index_entries", entries, 2, index_bytes(entries)),
        ] {
            let reason = match value {
                _ if value < least => format!("{value} is less than {least}"),
                _ if file_bytes > limit => format!("{value} asks for a file of {file_bytes} bytes, more than {limit}"),
                _ => continue,
            };
            return Err(Error::InvalidOption { option, reason });
        }
        Ok(())
    }
}
