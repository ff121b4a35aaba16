//! The log's end: where the next unit goes, and the one short lock in which it is put there.
//!
//! - `tail <= allocated`: nothing is placed where blocks are not certain; `allocated` may lie in the prepared next file.
//! - Under the lock there is no I/O and nothing that can fail: whatever is missing is named by [`Placing`], provided
//!   without the lock, and the append starts over.
//! - `tail` stands only at record ends or file ends.

use std::mem;
use std::sync::Arc;

use super::unit::{Appended, Cursors, Unit};
use crate::format::record::{BLANK_BYTES, encode_blank};
use crate::mapped_file::{MappedFile, Writer};

/// A group of units that wait to be written together is at most this large, or one unit.
pub(super) const GROUP_BYTES: usize = 4 * 1024 * 1024;

/// The system writes a mapped file back in folios of up to this length. An append that stores into one that is being
/// written back waits for the disk.
pub(super) const SETTLED_BYTES: u64 = 1024 * 1024;

/// Where units go.
#[derive(Debug)]
pub(super) enum Sink {
    /// Into the mapping of the active file; readable as soon as they are placed.
    Mapping(Option<Writer>),
    /// Into a buffer, which the leader writes and syncs as a group.
    Group(Group),
}

/// Units that are placed but not written.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) parts: Vec<Part>,
    pub(super) bytes: usize,
    /// Buffers of an earlier group: growing one takes long, and this is under the log lock.
    pub(super) spare: Vec<Vec<u8>>,
}

/// The units of a group that lie in one file, and so are one write.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) file: Arc<MappedFile>,
    /// Log offset of the first byte.
    pub(super) start: u64,
    pub(super) bytes: Vec<u8>,
}

/// What is known of the log's end.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) tail: u64,
    /// The end of the blocks that may be written.
    pub(super) allocated: u64,
    /// More blocks are wanted when the tail is this close to the end of those that are there.
    pub(super) ahead: u64,
    /// The file that has the tail; `None` before the first append.
    pub(super) active: Option<Arc<MappedFile>>,
    /// The file behind it, if it is prepared.
    pub(super) next: Option<Arc<MappedFile>>,
    /// Offset and length of the last record.
    pub(super) last: Option<(u64, u32)>,
    /// The last record end that is not in the piece of [`SETTLED_BYTES`] that is being filled, and the record.
    pub(super) settled: (u64, Option<(u64, u32)>),
    pub(super) sink: Sink,
}

/// What came of an attempt to place a unit.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Placing {
    /// The unit is in the log.
    Done,
    /// The next file has to be prepared first.
    NeedsFile,
    /// Blocks up to this offset have to be allocated first.
    NeedsBlocks(u64),
    /// The group has to be written first.
    GroupIsFull,
}

impl Place {
    /// The end of a log that was just opened, with its last record; nothing is allocated yet.
    pub(super) fn begin(
        settled: (u64, Option<(u64, u32)>),
        ahead: u64,
        active: Option<Arc<MappedFile>>,
        sink: Sink,
    ) -> Self {
        let (tail, last) = settled;
        Self { tail, allocated: tail, ahead, active, next: None, last, settled, sink }
    }

    /// The end of the active file; before the first append there is none, and a new file begins at the tail.
    fn active_end(&self) -> u64 {
        self.active.as_ref().map_or(self.tail, |file| file.end())
    }

    /// Puts a unit at the tail, or says what is missing for that; then nothing has changed.
    pub(super) fn try_place(
        &mut self,
        unit: &mut Unit<'_>,
        cursors: Cursors<'_>,
        stamp: impl FnOnce() -> i64,
        placed: &mut dyn FnMut(Appended),
    ) -> Placing {
        unit.settle(cursors);
        let found = self.look(unit.len() as u64);
        if found == Placing::Done {
            if self.rolls(unit.len() as u64) {
                self.roll();
            }
            self.put(unit, cursors, stamp(), placed);
        }
        found
    }

    /// Does a unit of this length go into the next file?
    fn rolls(&self, len: u64) -> bool {
        self.tail + len + BLANK_BYTES as u64 > self.active_end()
    }

    /// Says what is missing for a unit of this length; `Done` if nothing is.
    pub(super) fn look(&self, len: u64) -> Placing {
        let rolls = self.rolls(len);
        let start = if rolls { self.active_end() } else { self.tail };
        match &self.sink {
            _ if rolls && self.next.is_none() => Placing::NeedsFile,
            _ if start + len > self.allocated => Placing::NeedsBlocks(start + len),
            Sink::Group(group)
                if group.bytes > 0 && group.bytes as u64 + len + BLANK_BYTES as u64 > GROUP_BYTES as u64 =>
            {
                Placing::GroupIsFull
            }
            _ => Placing::Done,
        }
    }

    /// Ends the active file with a blank and goes on in the next one.
    fn roll(&mut self) {
        let end = self.active_end();
        if self.tail < end {
            let left = u32::try_from(end - self.tail).expect("a log file has at most 31 bits of length");
            self.store(&encode_blank(left));
        }
        if let Some(full) = &self.active
            && matches!(self.sink, Sink::Mapping(_))
        {
            full.publish(full.end() - full.base());
        }
        self.tail = end;
        self.settled = (end, self.last);
        self.active = self.next.take();
        if let Sink::Mapping(writer) = &mut self.sink {
            *writer = self.active.as_ref().map(MappedFile::writer);
        }
    }

    fn put(&mut self, unit: &mut Unit<'_>, cursors: Cursors<'_>, store_ms: i64, placed: &mut dyn FnMut(Appended)) {
        let mut last = None;
        unit.place(self.tail, store_ms, cursors, &mut |record| {
            last = Some((record.log_offset.get(), record.record_bytes));
            placed(record);
        });
        self.store(unit.bytes());
        let end = self.tail + unit.len() as u64;
        if end / SETTLED_BYTES > self.tail / SETTLED_BYTES {
            self.settled = (self.tail, self.last);
        }
        (self.tail, self.last) = (end, last);
        if let Sink::Mapping(Some(writer)) = &self.sink {
            writer.file().publish(self.tail - writer.file().base());
        }
    }

    /// Copies bytes to the tail, into the mapping or the group.
    fn store(&mut self, bytes: &[u8]) {
        let tail = self.tail;
        match &mut self.sink {
            Sink::Mapping(writer) => {
                let writer = writer.as_mut().expect("an active file has its writer");
                let position = tail - writer.file().base();
                writer.store(position, bytes);
            }
            Sink::Group(group) => {
                let file = self.active.as_ref().expect("nothing is placed without an active file");
                group.push(file, tail, bytes);
            }
        }
    }

    /// Takes the group away and leaves an empty one.
    pub(super) fn take_group(&mut self, spare: Group) -> Option<Group> {
        match &mut self.sink {
            Sink::Mapping(_) => None,
            Sink::Group(group) => Some(mem::replace(group, spare)),
        }
    }
}

impl Group {
    fn push(&mut self, file: &Arc<MappedFile>, at: u64, bytes: &[u8]) {
        self.bytes += bytes.len();
        match self.parts.last_mut() {
            Some(part) if Arc::ptr_eq(&part.file, file) => part.bytes.extend_from_slice(bytes),
            _ => {
                let mut buffer = self.spare.pop().unwrap_or_default();
                buffer.extend_from_slice(bytes);
                self.parts.push(Part { file: Arc::clone(file), start: at, bytes: buffer });
            }
        }
    }
}
