//! Growing a queue, live and in a rebuild: the same code, which in a rebuild writes only what differs.

use std::ops::Range;

use super::entry_files::{Kind, is_missing};
use super::extension::Extension;
use super::queue::{ConsumeQueue, Extent, Writer};
use crate::disk::File;
use crate::error::{Error, Result};
use crate::format::queue_entry::{BatchEntry, QueueEntry};
use crate::offset::QueueOffset;

/// No queue is as long as this: positions of its entries must fit 63 bits.
const MAX_ENTRIES: u64 = i64::MAX as u64 / 64;

/// The longest gap that is filled: a damaged record must not fill the disk.
const MAX_GAP: u64 = 1 << 20;

impl ConsumeQueue {
    /// Appends a run of entries for the messages from `from` on, and returns how many of them were new.
    ///
    /// Entries that the queue has already are skipped. A queue without messages may begin anywhere at or behind its
    /// end; RocketMQ's fillers are then written in front. When this returns, readers see the entries; they are not
    /// durable. After an error a beginning of the run may have been appended, and the same run may be given again.
    ///
    /// # Errors
    ///
    /// - [`Error::Unsupported`] in a batch queue
    /// - [`Error::OutOfRange`] if the offsets are beyond what files can hold
    /// - [`Error::OutOfOrder`] if `from` leaves a gap, or an entry differs from the one the queue has
    /// - [`Error::DiskFull`] and [`Error::Io`] if writing fails
    pub fn append(&self, from: QueueOffset, entries: &[QueueEntry]) -> Result<u64> {
        let from = from.get();
        let mut writer = self.writer();
        self.check_kind(Kind::Plain)?;
        check_range(from, entries.len() as u64)?;
        if entries.is_empty() {
            return Ok(0);
        }
        self.begin_at(&mut writer, from, from)?;
        let extent = self.extent();
        let known = extent.next.checked_sub(from).ok_or_else(|| self.out_of_order(&extent, from))?;
        let (old, new) = entries.split_at(entries.len().min(known as usize));
        self.compare(&extent, from, old)?;
        let mut rest = new;
        while !rest.is_empty() {
            let first = self.extent().next;
            let room = self.files.per_file() - first % self.files.per_file();
            let (now, later) = rest.split_at(rest.len().min(room as usize));
            let bytes: Vec<u8> = now.iter().flat_map(QueueEntry::encode).collect();
            self.put(&mut writer, first, bytes)?;
            self.publish(|extent| {
                extent.next += now.len() as u64;
                extent.end_entry = extent.next;
            });
            rest = later;
        }
        Ok(new.len() as u64)
    }

    /// Appends the entry of one record to a batch queue; one that is there already is skipped.
    pub(crate) fn append_batch(&self, entry: &BatchEntry) -> Result<()> {
        let mut writer = self.writer();
        self.check_kind(Kind::Batch)?;
        check_range(entry.base, entry.count.into())?;
        if self.starts(&writer, entry.base) {
            let place = match &writer.rebuild {
                Some(rebuild) => self.place_of_base(rebuild.first_entry, entry.base)?,
                None => self.extent().end_entry,
            };
            self.begin_at(&mut writer, entry.base, place)?;
        }
        let extent = self.extent();
        if entry.base < extent.next {
            return self.compare_batch(&extent, entry);
        }
        if entry.base > extent.next {
            return Err(self.out_of_order(&extent, entry.base));
        }
        self.put(&mut writer, extent.end_entry, entry.encode().to_vec())?;
        self.publish(|extent| {
            extent.next += u64::from(entry.count);
            extent.end_entry += 1;
        });
        Ok(())
    }

    /// Lets the queue go on at `to`, where the messages between its end and there were lost with their records.
    ///
    /// A plain queue gets fillers, which readers skip; also where an entry of a lost record was left, so that the queue
    /// is what a rebuild from the log alone makes of it.
    pub(crate) fn skip_to(&self, to: QueueOffset) -> Result<()> {
        let mut writer = self.writer();
        let (to, extent) = (to.get(), self.extent());
        if to <= extent.next || self.starts(&writer, to) {
            return Ok(());
        }
        if to - extent.next > MAX_GAP {
            return Err(self.out_of_order(&extent, to));
        }
        check_range(to, 0)?;
        if self.files.kind() == Kind::Plain {
            self.fill(&mut writer, extent.next..to, |_| false)?;
        }
        self.publish(|extent| {
            extent.next = to;
            if self.files.kind() == Kind::Plain {
                extent.end_entry = to;
            }
        });
        Ok(())
    }

    /// Does the queue begin with a message at `from`?
    fn starts(&self, writer: &Writer, from: u64) -> bool {
        let extent = self.extent();
        match &writer.rebuild {
            Some(rebuild) => !rebuild.started,
            None => extent.min == extent.next && from >= extent.next && from > 0,
        }
    }

    /// Begins an empty queue, or a rebuild, at queue offset `from` and entry `place`; does nothing in any other.
    fn begin_at(&self, writer: &mut Writer, from: u64, place: u64) -> Result<()> {
        if !self.starts(writer, from) {
            return Ok(());
        }
        if self.files.kind() == Kind::Plain {
            self.fill_front(writer, from)?;
        }
        self.publish(|extent| {
            let generation = extent.generation + 1;
            let first_entry = match (self.files.kind(), &writer.rebuild) {
                (Kind::Plain, _) => place,
                // What the extent says may be about files that are gone.
                (Kind::Batch, Some(rebuild)) => rebuild.first_entry.min(place),
                (Kind::Batch, None) => extent.first_entry.min(place),
            };
            *extent = Extent { min: from, next: from, first_entry, end_entry: place, generation };
        });
        if let Some(rebuild) = &mut writer.rebuild {
            rebuild.started = true;
        }
        Ok(())
    }

    /// Makes whatever is in front of the queue's first entry look like entries to RocketMQ, which would stop at an
    /// empty one; files before a missing one go.
    fn fill_front(&self, writer: &mut Writer, from: u64) -> Result<()> {
        let present = self.files.numbers()?;
        let mut lowest = from / self.files.per_file();
        while lowest > 0 && present.binary_search(&(lowest - 1)).is_ok() {
            lowest -= 1;
        }
        let stale: Vec<_> = present.into_iter().filter(|file| *file < lowest).collect();
        if !stale.is_empty() {
            self.remove_files(writer, &stale)?;
        }
        let is_entry = |entry: &[u8]| matches!(QueueEntry::decode(entry), Ok(Some(_)));
        self.fill(writer, lowest * self.files.per_file()..from, is_entry)
    }

    /// Replaces the entries of a range by fillers, but for those to be kept.
    fn fill(&self, writer: &mut Writer, entries: Range<u64>, is_kept: impl Fn(&[u8]) -> bool) -> Result<()> {
        let mut first = entries.start;
        while first < entries.end {
            let (file, position) = self.files.place(first);
            let open = self.open_or_create(writer, file, true)?;
            let mut bytes = self.files.read(first, entries.end - first)?;
            let mut changed = false;
            for entry in bytes.chunks_exact_mut(QueueEntry::BYTES) {
                if *entry != QueueEntry::FILLER && !is_kept(entry) {
                    entry.copy_from_slice(&QueueEntry::FILLER);
                    changed = true;
                }
            }
            if changed {
                self.write(writer, &open, (file, position), &bytes)?;
            }
            first += (bytes.len() / QueueEntry::BYTES) as u64;
        }
        Ok(())
    }

    /// Writes entries, all of one file; in a rebuild only if they differ from what is there.
    fn put(&self, writer: &mut Writer, first: u64, mut bytes: Vec<u8>) -> Result<()> {
        let (file, position) = self.files.place(first);
        let open = self.open_or_create(writer, file, position == 0)?;
        if writer.rebuild.is_some() {
            let mut stored = vec![0; bytes.len()];
            open.read_at(&mut stored, position)?;
            self.keep_addresses(&stored, &mut bytes)?;
            if stored == bytes {
                return Ok(());
            }
        }
        self.write(writer, &open, (file, position), &bytes)
    }

    /// Keeps stored entries that say the same by the address of an extension unit.
    fn keep_addresses(&self, stored: &[u8], given: &mut [u8]) -> Result<()> {
        let mut extension = None;
        if self.files.kind() == Kind::Batch {
            return Ok(());
        }
        for (stored, given) in stored.chunks_exact(QueueEntry::BYTES).zip(given.chunks_exact_mut(QueueEntry::BYTES)) {
            let (Ok(Some(old)), Ok(Some(new))) = (QueueEntry::decode(stored), QueueEntry::decode(given)) else {
                continue;
            };
            if old != new && self.says_the_same(&old, &new, &mut extension)? {
                given.copy_from_slice(stored);
            }
        }
        Ok(())
    }

    fn says_the_same(
        &self,
        stored: &QueueEntry,
        given: &QueueEntry,
        extension: &mut Option<Extension>,
    ) -> Result<bool> {
        let same_place = stored.log_offset == given.log_offset && stored.record_bytes == given.record_bytes;
        Ok(same_place && self.tags_code(stored, extension)? == Some(given.tags_code))
    }

    /// Compares entries that the queue should have already; those below its start are not looked at.
    fn compare(&self, extent: &Extent, from: u64, entries: &[QueueEntry]) -> Result<()> {
        let mut extension = None;
        let mut index = from.max(extent.min);
        let end = from + entries.len() as u64;
        while index < end {
            for stored in self.files.read(index, end - index)?.chunks_exact(QueueEntry::BYTES) {
                let given = &entries[(index - from) as usize];
                match self.decode(index, stored)? {
                    Some(item) if self.says_the_same(&item.entry, given, &mut extension)? => index += 1,
                    _ => return Err(self.out_of_order(extent, index)),
                }
            }
        }
        Ok(())
    }

    fn compare_batch(&self, extent: &Extent, entry: &BatchEntry) -> Result<()> {
        let index = self.index_of(extent, entry.base)?;
        if entry.base < extent.min || self.files.read(index, 1)? == entry.encode() {
            return Ok(());
        }
        Err(self.out_of_order(extent, entry.base))
    }

    /// Returns where in the stored entries, from `first` on, the one with this base stands or belongs. If all of them
    /// are behind it, files are missing in front, and the queue begins anew.
    fn place_of_base(&self, first: u64, base: u64) -> Result<u64> {
        let mut place = first;
        let mut end = 0;
        if first > 0
            && matches!(self.first_real(first..first + 1), Ok(Some((_, item))) if item.queue_offset.get() > base)
        {
            return Ok(0);
        }
        self.scan(first, |entry| {
            let Ok(Some(entry)) = BatchEntry::decode(entry) else { return false };
            let follows = entry.base >= end && entry.base + u64::from(entry.count) <= base;
            if follows {
                end = entry.base + u64::from(entry.count);
                place += 1;
            }
            follows
        })?;
        Ok(place)
    }

    fn open_or_create(&self, writer: &mut Writer, file: u64, may_create: bool) -> Result<File> {
        match self.files.open(file) {
            Err(error) if may_create && is_missing(&error) => {
                writer.renamed();
                writer.changed();
                self.files.create(file)
            }
            opened => opened,
        }
    }

    /// Every byte of an entry goes through here.
    pub(super) fn write(&self, writer: &mut Writer, open: &File, place: (u64, u64), bytes: &[u8]) -> Result<()> {
        writer.wrote(place.0);
        writer.changed();
        open.write_at(bytes, place.1)
    }

    pub(super) fn remove_files(&self, writer: &mut Writer, files: &[u64]) -> Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        writer.renamed();
        writer.changed();
        self.files.remove(files)
    }

    fn check_kind(&self, kind: Kind) -> Result<()> {
        if self.files.kind() == kind {
            return Ok(());
        }
        let reason = format!("{} queue {} is of the other kind", self.topic(), self.queue_id());
        Err(Error::Unsupported { what: "this kind of entry", reason })
    }

    pub(super) fn out_of_order(&self, extent: &Extent, given: u64) -> Error {
        Error::OutOfOrder { path: self.files.dir(), expected: extent.next, given }
    }
}

fn check_range(from: u64, count: u64) -> Result<()> {
    if from.checked_add(count).is_some_and(|end| end <= MAX_ENTRIES) {
        return Ok(());
    }
    Err(Error::OutOfRange { offset: from, available: 0..MAX_ENTRIES })
}
