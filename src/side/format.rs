//! `mqlog/format`: the sizes a store was made with, and whether it was closed.

use super::{FORMAT, SideFolder};
use crate::error::Result;
use crate::format::index::IndexLayout;
use crate::format::queue_entry::{BatchEntry, QueueEntry};
use crate::offset::LogOffset;

/// The first line: what this is, and its version.
const TITLE: &str = "mqlog 1";
/// No format file is as long as this.
const LIMIT_BYTES: usize = 4096;

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
    /// Did the last session close the store? Taken back before a session's first change.
    pub(crate) clean: bool,
}

impl Default for StoreFormat {
    /// A small store's sizes: a queue file of 20,000 bytes, an index file of about 1.4 MiB.
    fn default() -> Self {
        Self {
            log_file_bytes: 64 * 1024 * 1024,
            queue_file_entries: 1_000,
            batch_queue_file_entries: 1_000,
            index_slots: 16_384,
            index_entries: 65_536,
            record_crc_from: None,
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
        let Self { log_file_bytes, queue_file_entries, batch_queue_file_entries, index_slots, index_entries, .. } =
            self;
        let text = format!(
            "{TITLE}\nlog_file_bytes {log_file_bytes}\nqueue_file_entries {queue_file_entries}\n\
             batch_queue_file_entries {batch_queue_file_entries}\nindex_slots {index_slots}\n\
             index_entries {index_entries}\nrecord_crc_from {from}\nclean {clean}\n"
        );
        let crc = crc32c::crc32c(text.as_bytes());
        format!("{text}crc32c {crc:08x}\n")
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let text = str::from_utf8(bytes).ok()?;
        let mut values = text.lines().skip(1).filter_map(|line| Some(line.split_once(' ')?.1));
        let format = Self {
            log_file_bytes: values.next()?.parse().ok()?,
            queue_file_entries: values.next()?.parse().ok()?,
            batch_queue_file_entries: values.next()?.parse().ok()?,
            index_slots: values.next()?.parse().ok()?,
            index_entries: values.next()?.parse().ok()?,
            record_crc_from: values.next()?.parse().ok().map(LogOffset::new),
            clean: values.next()? == "yes",
        };
        // There is one way to write each state, so this compares everything at once: title, names and checksum too.
        (format.encode() == text && format.is_possible()).then_some(format)
    }

    /// Could a store have these sizes? Whoever divides by one relies on it, and no file has more than 31 bits of length.
    fn is_possible(&self) -> bool {
        let Self { log_file_bytes, queue_file_entries, batch_queue_file_entries, index_slots, index_entries, .. } =
            *self;
        let queue_bytes = u64::from(queue_file_entries) * QueueEntry::BYTES as u64;
        let batch_bytes = u64::from(batch_queue_file_entries) * BatchEntry::BYTES as u64;
        let index_bytes = IndexLayout { slots: index_slots, entries: index_entries }.file_bytes();
        let is_length = |bytes: u64| (1..=i32::MAX as u64).contains(&bytes);
        let lengths = [log_file_bytes, queue_bytes, batch_bytes, index_bytes];
        log_file_bytes >= 1024 && index_slots > 0 && index_entries > 1 && lengths.into_iter().all(is_length)
    }
}
