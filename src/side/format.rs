//! `mqlog/format`: the sizes a store was made with, and whether it was closed.

use super::{FORMAT, SideFolder};
use crate::error::Result;
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
        let lines = [
            TITLE.to_owned(),
            format!("log_file_bytes {}", self.log_file_bytes),
            format!("queue_file_entries {}", self.queue_file_entries),
            format!("batch_queue_file_entries {}", self.batch_queue_file_entries),
            format!("index_slots {}", self.index_slots),
            format!("index_entries {}", self.index_entries),
            self.record_crc_from.map_or("record_crc_from none".to_owned(), |from| format!("record_crc_from {from}")),
            format!("clean {}\n", if self.clean { "yes" } else { "no" }),
        ];
        let text = lines.join("\n");
        let crc = crc32c::crc32c(text.as_bytes());
        format!("{text}crc32c {crc:08x}\n")
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let text = str::from_utf8(bytes).ok()?;
        let mut lines = text.lines();
        if lines.next()? != TITLE {
            return None;
        }
        let mut value = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let format = Self {
            log_file_bytes: value("log_file_bytes")?.parse().ok()?,
            queue_file_entries: value("queue_file_entries")?.parse().ok()?,
            batch_queue_file_entries: value("batch_queue_file_entries")?.parse().ok()?,
            index_slots: value("index_slots")?.parse().ok()?,
            index_entries: value("index_entries")?.parse().ok()?,
            record_crc_from: match value("record_crc_from")? {
                "none" => None,
                offset => Some(offset.parse().map(LogOffset::new).ok()?),
            },
            clean: value("clean")? == "yes",
        };
        // There is one way to write each state, checksum included, so this compares everything at once.
        (format.encode() == text).then_some(format)
    }
}
