//! Going through all entries of an index, to compare it with the log.

use std::sync::Arc;
use std::vec;

use super::file::IndexFile;
use super::set::IndexSet;
use super::state::{InUse, read_pieces};
use crate::error::{Corruption, Result};
use crate::format::index::IndexEntry;
use crate::offset::LogOffset;

/// Every entry of an index in the order in which they were put: a file at a time is in memory.
#[derive(Debug)]
pub(crate) struct Entries {
    files: vec::IntoIter<Arc<IndexFile>>,
    current: vec::IntoIter<(LogOffset, u32)>,
    /// Files whose slots or chains are not those of their entries.
    pub(crate) damages: Vec<Corruption>,
}

impl IndexSet {
    /// Goes through all entries: log offset and hash.
    pub(crate) fn entries(&self) -> Result<Entries> {
        self.sync()?;
        Ok(Entries { files: self.snapshot().into_iter(), current: Vec::new().into_iter(), damages: Vec::new() })
    }
}

impl Entries {
    /// Returns the next entry of a record at or below `at`, if there is one.
    pub(crate) fn next_until(&mut self, at: LogOffset) -> Result<Option<(LogOffset, u32)>> {
        loop {
            if let Some(entry) = self.current.as_slice().first() {
                return Ok(if entry.0 <= at { self.current.next() } else { None });
            }
            let Some(file) = self.files.next() else { return Ok(None) };
            self.current = self.load(&file)?.into_iter();
        }
    }
    fn load(&mut self, index: &IndexFile) -> Result<Vec<(LogOffset, u32)>> {
        let (file, layout) = (index.handle()?, index.layout());
        let header = index.whole_header()?;
        let next_entry = header.map_or(layout.entries, |header| header.next_entry);
        let sound = match header {
            Some(_) => InUse::rebuild(file.clone(), layout, next_entry, LogOffset::MAX)?,
            None => None,
        };
        if !sound.map_or(Ok(false), |(rebuilt, _)| rebuilt.has_slots_of_file())? {
            let range = 0..layout.file_bytes();
            let reason = "header, slots and chains are not those of the entries".to_owned();
            self.damages.push(Corruption { path: file.path().into(), range, reason });
        }
        let mut entries = Vec::new();
        read_pieces(&file, layout.entry_at(1)..layout.entry_at(next_entry.max(1)), |_, piece| {
            let decoded = piece.chunks(IndexEntry::BYTES).map(IndexEntry::decode);
            entries.extend(decoded.flatten().map(|entry| (LogOffset::new(entry.log_offset), entry.hash)));
            Ok(true)
        })?;
        Ok(entries)
    }
}
