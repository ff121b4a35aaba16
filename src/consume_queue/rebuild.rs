//! Comparing a queue with the log: between `begin_rebuild` and `finish_rebuild` every entry of the log is appended, and
//! what the files hold otherwise is rewritten. Also finding the extent of a queue from its files alone.

use std::ops::Range;
use std::sync::atomic::Ordering;

use super::cut::Look;
use super::entry_files::Kind;
use super::queue::{ConsumeQueue, Extent};
use crate::error::Result;
use crate::format::queue_entry::{BatchEntry, QueueEntry};

/// A rebuild under way.
#[derive(Debug, Default)]
pub(super) struct Rebuild {
    /// Has an entry been appended? The first one decides where the queue begins.
    pub(super) started: bool,
    /// Did a file differ from the log?
    pub(super) changed: bool,
    /// The first entry of the lowest file: batch entries are placed from there on.
    pub(super) first_entry: u64,
}

impl ConsumeQueue {
    /// Begins to compare the queue with the log: until [`finish_rebuild`](Self::finish_rebuild), readers see what was
    /// appended since. Files of a wrong length get the right one, files in a wrong place go.
    pub(crate) fn begin_rebuild(&self) -> Result<()> {
        let mut writer = self.writer();
        writer.rebuild = Some(Box::default());
        self.publish(|extent| {
            extent.next = extent.min;
            extent.end_entry = extent.first_entry;
            extent.generation += 1;
        });
        for file in self.files.list()? {
            if self.files.number_of(&file).is_some() {
                continue;
            }
            writer.changed();
            writer.renamed();
            let number = file.base / self.files.file_bytes();
            if file.base.is_multiple_of(self.files.file_bytes()) {
                self.files.open(number)?.set_len(self.files.file_bytes())?;
                writer.wrote(number);
            } else {
                self.files.remove_odd(file.base)?;
            }
        }
        let first_entry = self.files.numbers()?.first().map_or(0, |file| file * self.files.per_file());
        if let Some(rebuild) = &mut writer.rebuild {
            rebuild.first_entry = first_entry;
        }
        Ok(())
    }

    /// Ends a rebuild: nothing stays behind the last entry appended. Returns whether anything was repaired.
    ///
    /// A queue that got no entry has no record in the log; it keeps the end of its files, so that no offset comes back.
    pub(crate) fn finish_rebuild(&self) -> Result<bool> {
        let mut writer = self.writer();
        let Some(rebuild) = writer.rebuild.as_ref() else { return Ok(false) };
        if !rebuild.started {
            let found = self.find_extent()?;
            self.publish(|extent| {
                let generation = extent.generation + 1;
                *extent = Extent { min: found.next, generation, ..found };
                if self.files.kind() == Kind::Plain {
                    extent.first_entry = extent.min;
                }
            });
        }
        self.clear_above(&mut writer, self.extent().end_entry, Look::Everywhere)?;
        self.damaged.store(false, Ordering::Release);
        Ok(writer.rebuild.take().is_some_and(|rebuild| rebuild.changed))
    }

    /// Must the queue be rebuilt before it can be used?
    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Acquire)
    }

    /// Reads the files from the lowest one to the first entry that is none, or the first file that is missing.
    pub(super) fn find_extent(&self) -> Result<Extent> {
        let Some(lowest) = self.files.numbers()?.first().copied() else { return Ok(Extent::default()) };
        let first_entry = lowest * self.files.per_file();
        let mut end_entry = first_entry;
        let mut messages = None;
        self.scan(first_entry, |bytes| {
            let Some(found) = self.messages_of(end_entry, bytes) else { return false };
            match &mut messages {
                _ if found.is_empty() => {}
                None => messages = Some(found),
                Some(all) if found.start >= all.end => all.end = found.end,
                Some(_) => return false,
            }
            end_entry += 1;
            true
        })?;
        let generation = 0;
        if self.files.kind() == Kind::Plain {
            let min = messages.map_or(end_entry, |messages| messages.start);
            return Ok(Extent { min, next: end_entry, first_entry: min, end_entry, generation });
        }
        let messages = messages.unwrap_or_default();
        Ok(Extent { min: messages.start, next: messages.end, first_entry, end_entry, generation })
    }

    /// Returns which messages an entry names: none if it is a filler, `None` if it is no entry.
    fn messages_of(&self, index: u64, bytes: &[u8]) -> Option<Range<u64>> {
        match self.files.kind() {
            Kind::Plain => {
                let entry = QueueEntry::decode(bytes).ok().flatten()?;
                Some(index..index + u64::from(!entry.is_filler()))
            }
            Kind::Batch => {
                let entry = BatchEntry::decode(bytes).ok().flatten()?;
                Some(entry.base..entry.base + u64::from(entry.count))
            }
        }
    }

    /// Hands out the bytes of the entries from `first` on, until `each` returns false or a whole file is missing.
    pub(super) fn scan(&self, first: u64, mut each: impl FnMut(&[u8]) -> bool) -> Result<()> {
        let present = self.files.numbers()?;
        let mut index = first;
        while present.binary_search(&self.files.place(index).0).is_ok() {
            let bytes = self.files.read(index, self.files.piece())?;
            if !bytes.chunks_exact(self.files.entry_bytes()).all(&mut each) {
                break;
            }
            index += (bytes.len() / self.files.entry_bytes()) as u64;
        }
        Ok(())
    }
}
