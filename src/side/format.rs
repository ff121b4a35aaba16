//! `mqlog/format`: the sizes a store was made with, and whether it was closed.

use std::fmt::Write;

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
        let record_crc_from = self.record_crc_from.map_or_else(|| "none".to_owned(), |from| from.to_string());
        let mut text = format!("{TITLE}\nlog_file_bytes {}\n", self.log_file_bytes);
        let lines = [
            ("queue_file_entries", self.queue_file_entries.to_string()),
            ("batch_queue_file_entries", self.batch_queue_file_entries.to_string()),
            ("index_slots", self.index_slots.to_string()),
            ("index_entries", self.index_entries.to_string()),
            ("record_crc_from", record_crc_from),
            ("clean", if self.clean { "yes" } else { "no" }.to_owned()),
        ];
        for (name, value) in lines {
            writeln!(text, "{name} {value}").expect("text in memory takes any line");
        }
        let crc = crc32c::crc32c(text.as_bytes());
        writeln!(text, "crc32c {crc:08x}").expect("text in memory takes any line");
        text
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
