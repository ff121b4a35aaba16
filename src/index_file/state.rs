//! What an index file has in memory: header, slots, and the entries that are not yet written.

use super::head::Head;
use crate::disk::File;
use crate::error::{Error, Result};
use crate::format::index::{IndexEntry, IndexHeader, IndexLayout, time_diff_seconds};

#[derive(Debug)]
pub(super) struct State {
    pub header: IndexHeader,
    /// Could the header not be read? Then the file takes no entries, and all that its chains hold is found.
    pub is_damaged: bool,
    /// There from the first put on, until the file is full and synced.
    pub in_use: Option<InUse>,
    /// Grows with each change.
    pub changes: u64,
    /// What the last sync covered, `None` before the first one of a new file.
    pub synced: Option<Synced>,
    /// After a failed sync nobody knows what is on the disk, so none is tried again.
    pub sync_failure: Option<Error>,
}

#[derive(Debug)]
pub(super) struct InUse {
    pub file: File,
    pub head: Head,
    /// Entries from number `written` on.
    pending: Vec<u8>,
    written: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Synced {
    pub changes: u64,
    pub next_entry: u32,
}

impl State {
    /// The state of a durable file nobody puts into yet; without a header if that is damaged.
    pub(super) fn of_file(header: Option<IndexHeader>, layout: IndexLayout) -> Self {
        let is_damaged = header.is_none();
        let header = header.unwrap_or(IndexHeader { next_entry: layout.entries, ..IndexHeader::default() });
        let synced = Some(Synced { changes: 0, next_entry: header.next_entry });
        Self { header, is_damaged, in_use: None, changes: 0, synced, sync_failure: None }
    }

    pub(super) fn add(&mut self, layout: IndexLayout, hash: u32, log_offset: u64, store_ms: i64) {
        let InUse { head, pending, .. } = self.in_use.as_mut().expect("a file that is put into is in use");
        let header = &mut self.header;
        let (number, slot) = (header.next_entry, layout.slot_of(hash));
        let previous = head.newest(slot, number);
        // RocketMQ takes the seconds before it sets a new file's begin time, so the first entry's count from the end
        // of the file before.
        let seconds = time_diff_seconds(store_ms, header.begin_ms);
        pending.extend_from_slice(&IndexEntry { hash, log_offset, seconds, previous }.encode());
        head.link(slot, number);
        if number == 1 {
            (header.begin_ms, header.begin_offset) = (store_ms, log_offset);
        }
        header.slot_count += u32::from(previous == 0);
        header.next_entry += 1;
        (header.end_ms, header.end_offset) = (store_ms, log_offset);
        self.changes += 1;
    }
}

impl InUse {
    pub(super) fn new(file: File, head: Head, next_entry: u32) -> Self {
        Self { file, head, pending: Vec::new(), written: next_entry }
    }

    pub(super) fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// Returns an entry that is in memory only.
    pub(super) fn pending_entry(&self, number: u32) -> Option<IndexEntry> {
        let at = number.checked_sub(self.written)? as usize * IndexEntry::BYTES;
        IndexEntry::decode(self.pending.get(at..)?).ok()
    }

    /// Writes the entries that are in memory only; after an error they are still there.
    pub(super) fn write_entries(&mut self, layout: IndexLayout) -> Result<()> {
        if !self.pending.is_empty() {
            self.file.write_at(&self.pending, layout.entry_at(self.written))?;
            self.written += (self.pending.len() / IndexEntry::BYTES) as u32;
            self.pending.clear();
        }
        Ok(())
    }
}
