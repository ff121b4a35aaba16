//! What changes entries, and what makes the changes durable.
//!
//! A queue grows live and in a rebuild by the same code, which in a rebuild writes only what differs.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::Ordering;

use super::entry_files::{Extension, Shared};
use super::queue::{ConsumeQueue, Extent, Unsynced, Writer};
use crate::disk::File;
use crate::error::{Error, Result};
use crate::format::queue_entry::{BatchEntry, QueueEntry};
use crate::offset::QueueOffset;
use crate::progress::lock;
use crate::side::MAX_QUEUE_ENTRIES;

/// The longest gap that is filled: a damaged record must not fill the disk.
const MAX_GAP: u64 = 1 << 24;
/// No record is shorter.
const LEAST_RECORD_BYTES: u64 = 91;

/// Two of the blocks that a system writes at once.
const NEARBY_BYTES: usize = 2 * 4096;

/// An entry of any kind that is none.
const ZEROS: [u8; BatchEntry::BYTES] = [0; BatchEntry::BYTES];

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
    /// - [`Error::OutOfRange`] if the offsets are beyond what files can hold, or an entry names what no log can
    /// - [`Error::OutOfOrder`] if `from` leaves a gap, or an entry differs from the one the queue has
    /// - [`Error::DiskFull`] and [`Error::Io`] if writing fails
    pub fn append(&self, from: QueueOffset, entries: &[QueueEntry]) -> Result<u64> {
        check_range(from.get(), entries.len() as u64)?;
        // Stored numbers leave the sign bit free.
        for entry in entries {
            let limits = [(entry.log_offset, i64::MAX as u64), (entry.record_bytes.into(), i32::MAX as u64)];
            if let Some((offset, limit)) = limits.into_iter().find(|(value, limit)| value > limit) {
                return Err(Error::OutOfRange { offset, available: 0..limit + 1 });
            }
        }
        let bytes = entries.iter().flat_map(QueueEntry::encode).collect();
        self.append_run(false, from.get(), 1, bytes)
    }

    /// Appends the entry of one record to a batch queue; one that is there already is skipped.
    pub(crate) fn append_batch(&self, entry: &BatchEntry) -> Result<()> {
        check_range(entry.base, entry.count.into())?;
        self.append_run(true, entry.base, entry.count.into(), entry.encode().to_vec()).map(drop)
    }

    /// Appends entries for the messages from `from` on, each for `count` of them; returns how many entries were new.
    fn append_run(&self, is_batch: bool, from: u64, count: u64, mut entries: Vec<u8>) -> Result<u64> {
        let mut writer = lock(&self.writer);
        if self.files.is_batch != is_batch {
            let reason = format!("{} queue {} is of the other kind", self.topic(), self.queue_id());
            return Err(Error::Unsupported { what: "this kind of entry", reason });
        }
        let entry_bytes = self.files.entry_bytes();
        let given = (entries.len() / entry_bytes) as u64;
        if given == 0 {
            return Ok(0);
        }
        if self.starts(&writer, from) {
            let first = QueueEntry::decode(&entries).ok().flatten();
            let place = first.map_or((0, 0), |first| (first.log_offset, first.record_bytes));
            self.begin_at(&mut writer, from, place)?;
        }
        let mut extent = self.extent();
        let known = extent.next.checked_sub(from).ok_or_else(|| self.out_of_order(&extent, from))?;
        let known = known.div_ceil(count).min(given);
        // What is below the start of the queue is not looked at.
        let hidden = extent.min.saturating_sub(from).div_ceil(count).min(known);
        let mut new = entries.split_off(known as usize * entry_bytes);
        if hidden < known {
            self.compare(&extent, from + hidden * count, count, &entries[hidden as usize * entry_bytes..])?;
        }
        while !new.is_empty() {
            let room = (self.files.file_bytes() - self.files.place(extent.end_entry).1) as usize;
            let later = new.split_off(room.min(new.len()));
            self.put(&mut writer, extent.end_entry, &new)?;
            let put = (new.len() / entry_bytes) as u64;
            extent.next += put * count;
            extent.end_entry += put;
            self.publish(extent);
            new = later;
        }
        Ok(given - known)
    }

    /// Lets the queue go on at `to`, with the record at `log_offset`, where the messages between its end and there were
    /// lost with their records.
    ///
    /// A plain queue gets fillers, which readers skip; in a rebuild an entry of a damaged record stays, so that readers hear of
    /// the damage.
    pub(crate) fn skip_to(&self, to: QueueOffset, log_offset: u64) -> Result<()> {
        let mut writer = lock(&self.writer);
        if to.get() <= self.extent().next || self.starts(&writer, to.get()) {
            return Ok(());
        }
        self.skip(&mut writer, to.get(), log_offset, Some(QueueEntry::FILLER))
    }

    /// `otherwise` is the filler where nothing better is known.
    fn skip(
        &self,
        writer: &mut Writer,
        to: u64,
        log_offset: u64,
        otherwise: Option<[u8; QueueEntry::BYTES]>,
    ) -> Result<()> {
        let mut extent = self.extent();
        let stored = match extent.end_entry.checked_sub(1).map(|last| self.files.read(last, 1)) {
            // Whoever reads it has the queue rebuilt.
            Some(Err(Error::Corrupt(_))) | None => Vec::new(),
            Some(stored) => stored?,
        };
        let last = QueueEntry::decode(&stored).ok().flatten().filter(|last| last.end() <= log_offset);
        let lost_bytes = log_offset - last.map_or(0, |last| last.log_offset);
        let messages = to - extent.next;
        // Another program may have cut the log where messages were lost, and gone on behind the fillers.
        let is_stored = || messages <= MAX_GAP && writer.rebuild.is_some() && self.names(to, log_offset);
        if !can_be_lost(messages, lost_bytes, self.files.is_batch) && !is_stored() {
            return Err(self.out_of_order(&extent, to));
        }
        check_range(to, 0)?;
        if !self.files.is_batch {
            let again = last.map(|last| last.again().encode());
            let filler = again.or_else(|| self.files.filler_alone(log_offset)).or(otherwise);
            let filler = filler.ok_or_else(|| self.out_of_order(&extent, to))?;
            let between = last.map_or(0, |last| last.end())..=log_offset;
            let lost = writer.rebuild.as_ref().map(|rebuild| rebuild.lost.clone());
            self.fill(writer, extent.next..to, &filler, |entry| {
                let is_between = between.contains(&entry.log_offset) && between.contains(&entry.end());
                is_between && lost.as_ref().is_some_and(|lost| lost.has(entry))
            })?;
            extent.end_entry = to;
        }
        self.publish(Extent { next: to, ..extent });
        Ok(())
    }

    /// Is the record at `log_offset` what a file has an entry of, in this place?
    fn names(&self, index: u64, log_offset: u64) -> bool {
        let stored = self.files.read(index, 1).unwrap_or_default();
        !self.files.is_batch && matches!(QueueEntry::decode(&stored), Ok(Some(entry)) if entry.log_offset == log_offset)
    }

    /// Lets the queue end at `to` at least, so that no offset below is given out again: a checkpoint at `log_offset` knew
    /// of messages up to there, whose records are gone. Returns whether that changed anything.
    pub(crate) fn keep_end(&self, to: QueueOffset, log_offset: u64) -> Result<bool> {
        let mut writer = lock(&self.writer);
        let to = to.get();
        if self.extent().next >= to {
            return Ok(false);
        }
        let starts = self.starts(&writer, to);
        if starts && !self.files.is_batch && self.files.filler_alone(log_offset).is_some() {
            self.begin_at(&mut writer, to, (log_offset, 0))?;
            // Its name says the end, if nothing in it does.
            self.open_or_create(&mut writer, to)?;
            return Ok(true);
        }
        let extent = self.extent();
        let has_entries = extent.first_entry < extent.end_entry;
        let skipped = if has_entries { self.skip(&mut writer, to, log_offset, None) } else { Ok(()) };
        match skipped {
            // Not a word of ours: no checkpoint is so far from the log.
            Err(Error::OutOfOrder { .. } | Error::OutOfRange { .. }) if !starts => return Ok(false),
            Err(Error::OutOfOrder { .. } | Error::OutOfRange { .. }) => {}
            skipped => skipped?,
        }
        if starts {
            // Without entries only the next checkpoint says it.
            let extent = self.extent();
            let end_entry = if self.files.is_batch { extent.end_entry } else { to };
            self.replace(Extent { min: to, next: to, end_entry, ..extent });
        }
        Ok(true)
    }

    /// Takes the messages from `end` on out of the queue: whole files are removed, the rest is zeroed.
    ///
    /// A batch that reaches beyond `end` goes as a whole. The cursor stays. Durable after [`sync`](Self::sync).
    ///
    /// # Errors
    ///
    /// - [`Error::Corrupt`] if an entry does not decode
    /// - [`Error::Io`] if reading or writing fails
    #[doc(alias = "truncateDirtyLogicFiles")]
    pub fn truncate_to(&self, end: QueueOffset) -> Result<()> {
        let mut writer = lock(&self.writer);
        let (end, extent) = (end.get(), self.extent());
        if end >= extent.next {
            return Ok(());
        }
        let entry = self.index_of(&extent, end)?;
        let batch = if self.files.is_batch { self.first_real(entry..extent.end_entry)? } else { None };
        let next = batch.map_or(end, |(_, batch)| end.min(batch.queue_offset.get()));
        let (min, first_entry) = (extent.min.min(next), extent.first_entry.min(entry));
        // Readers first lose sight of the entries, then these go.
        self.replace(Extent { min, next, first_entry, end_entry: entry, ..extent });
        self.clear_above(&mut writer, entry, false)
    }

    /// Removes the files in which all messages are before `start`, but never the last file; returns how many.
    ///
    /// # Errors
    ///
    /// - [`Error::Corrupt`] if an entry does not decode
    /// - [`Error::Io`] if listing or removing fails
    pub fn delete_before(&self, start: QueueOffset) -> Result<u64> {
        let mut writer = lock(&self.writer);
        let extent = self.extent();
        let first_kept = self.index_of(&extent, start.get().max(extent.min))?;
        let mut gone = self.files.numbers()?;
        gone.pop();
        gone.retain(|file| (file + 1) * self.files.per_file() <= first_kept);
        let Some(last) = gone.last() else { return Ok(0) };
        let first_left = (last + 1) * self.files.per_file();
        let min = self.offset_at(&extent, first_left)?;
        self.replace(Extent { min, first_entry: extent.first_entry.max(first_left), ..extent });
        self.remove_files(&mut writer, gone.iter().map(|file| file * self.files.file_bytes()))?;
        Ok(gone.len() as u64)
    }

    /// Makes durable what was written before the call: entries, and names of new or removed files and folders.
    ///
    /// # Errors
    ///
    /// - [`Error::Io`] if a sync fails; what was to be synced stays to be synced
    pub fn sync(&self) -> Result<()> {
        sync_queues(&[self])
    }

    /// Checks that the queue's numbers are not at their end: only a damaged or forged record can bring them there.
    ///
    /// # Errors
    ///
    /// - [`Error::OutOfRange`] if they are
    pub(crate) fn check_room(&self) -> Result<()> {
        check_range(self.cursor().next().get(), u32::MAX.into())
    }

    /// Does the queue begin with a message at `from`?
    fn starts(&self, writer: &Writer, from: u64) -> bool {
        let extent = self.extent();
        match &writer.rebuild {
            Some(rebuild) => !rebuild.started,
            None => extent.min == extent.next && from >= extent.next && from > 0,
        }
    }

    /// Begins an empty queue, or a rebuild, at queue offset `from`, with a record that has this place, or none where the log
    /// is at its offset.
    fn begin_at(&self, writer: &mut Writer, from: u64, place: (u64, u32)) -> Result<()> {
        let extent = self.extent();
        let (mut first_entry, mut end_entry) = (extent.first_entry, extent.end_entry);
        if !self.files.is_batch {
            self.fill_front(writer, from, place)?;
            (first_entry, end_entry) = (first_entry.min(from), from);
        } else if writer.rebuild.is_some() {
            // If all entries are behind it, files are missing in front, and the queue begins anew.
            let found = self.find_extent(from)?;
            let first = self.first_real(found.first_entry..found.first_entry + 1);
            let is_behind = matches!(first, Ok(Some((_, item))) if item.queue_offset.get() > from);
            (first_entry, end_entry) = if is_behind { (0, 0) } else { (found.first_entry, found.end_entry) };
        }
        self.replace(Extent { min: from, next: from, first_entry, end_entry, ..extent });
        if let Some(rebuild) = &mut writer.rebuild {
            rebuild.started = true;
        }
        Ok(())
    }

    /// Makes whatever is in front of the queue's first entry look like entries to RocketMQ, which would stop at an
    /// empty one; files before a missing one go.
    fn fill_front(&self, writer: &mut Writer, from: u64, place: (u64, u32)) -> Result<()> {
        let present = self.files.numbers()?;
        let first = from / self.files.per_file();
        let lowest = (0..first).rev().take_while(|file| present.binary_search(file).is_ok()).last().unwrap_or(first);
        let stale = present.into_iter().filter(|file| *file < lowest);
        self.remove_files(writer, stale.map(|file| file * self.files.file_bytes()))?;
        let lost = writer.rebuild.as_ref().map(|rebuild| rebuild.lost.clone());
        let file_bytes = self.files.shared.sizes.log_file_bytes;
        // Behind the first log file RocketMQ's own filler hides nothing.
        let does = |entry: &QueueEntry| {
            let is_across = || entry.is_filler_across(file_bytes) && entry.end() <= place.0;
            place.0 > file_bytes && (entry.encode() == QueueEntry::FILLER || is_across())
        };
        let keeps =
            |entry: &QueueEntry| does(entry) || lost.as_ref().map_or(!entry.is_filler(), |lost| lost.has(entry));
        self.fill(writer, lowest * self.files.per_file()..from, &self.files.filler_in_front(place), keeps)
    }

    /// Writes fillers in place of the entries of a range that are not to be kept.
    fn fill(
        &self,
        writer: &mut Writer,
        entries: Range<u64>,
        filler: &[u8; QueueEntry::BYTES],
        keeps: impl Fn(&QueueEntry) -> bool,
    ) -> Result<()> {
        let is_kept = |stored: &[u8]| QueueEntry::decode(stored).ok().flatten().is_some_and(|entry| keeps(&entry));
        self.rewrite(writer, entries, |stored| Ok((!is_kept(stored)).then_some(filler))).map(drop)
    }

    /// Writes entries, all of one file; in a rebuild only if they differ from what is there.
    fn put(&self, writer: &mut Writer, first: u64, entries: &[u8]) -> Result<()> {
        if writer.rebuild.is_none() {
            return self.write(writer, first, entries);
        }
        let mut extension = Extension::new(&self.files);
        let mut given = entries.chunks_exact(self.files.entry_bytes());
        self.rewrite(writer, first..first + given.len() as u64, |stored| match given.next() {
            Some(given) if !extension.says_the_same(stored, given)? => Ok(Some(given)),
            _ => Ok(None),
        })
        .map(drop)
    }

    /// Puts what `edit` returns, if anything, in place of each stored entry of a range; returns whether any differed.
    pub(super) fn rewrite<'a>(
        &self,
        writer: &mut Writer,
        entries: Range<u64>,
        mut edit: impl FnMut(&[u8]) -> Result<Option<&'a [u8]>>,
    ) -> Result<bool> {
        let (mut first, mut changed) = (entries.start, false);
        while first < entries.end {
            self.open_or_create(writer, first)?;
            let stored = self.files.read(first, entries.end - first)?;
            let mut edited = Vec::with_capacity(stored.len());
            for entry in stored.chunks_exact(self.files.entry_bytes()) {
                edited.extend_from_slice(edit(entry)?.unwrap_or(entry));
            }
            if edited != stored {
                self.write(writer, first, &edited)?;
                changed = true;
            }
            first += (stored.len() / self.files.entry_bytes()) as u64;
        }
        Ok(changed)
    }

    /// Compares entries that the queue should have already.
    fn compare(&self, extent: &Extent, mut from: u64, count: u64, entries: &[u8]) -> Result<()> {
        let mut extension = Extension::new(&self.files);
        let mut index = self.index_of(extent, from)?;
        let mut entries = entries.chunks_exact(self.files.entry_bytes());
        while entries.len() > 0 {
            if index >= extent.end_entry {
                // Batches that a checkpoint counted are not there.
                return Err(self.out_of_order(extent, from));
            }
            let stored = self.files.read(index, entries.len() as u64)?;
            for (stored, given) in stored.chunks_exact(self.files.entry_bytes()).zip(entries.by_ref()) {
                if !extension.says_the_same(stored, given)? {
                    self.decode(index, stored)?;
                    return Err(self.out_of_order(extent, from));
                }
                (from, index) = (from + count, index + 1);
            }
        }
        Ok(())
    }

    /// Every byte of an entry goes through here.
    fn write(&self, writer: &mut Writer, first: u64, entries: &[u8]) -> Result<()> {
        let open = self.open_or_create(writer, first)?;
        let (file, position) = self.files.place(first);
        writer.note(Some(file));
        open.write_at(entries, position)
    }

    /// Opens the file of an entry; one that begins with it may be missing.
    fn open_or_create(&self, writer: &mut Writer, entry: u64) -> Result<File> {
        let (file, position) = self.files.place(entry);
        match self.files.open(file) {
            Err(error) if position == 0 && error.is_missing() => {
                writer.note(None);
                self.files.create(file)?;
                self.files.open(file)
            }
            opened => opened,
        }
    }

    /// Removes the files above an entry, last first, and zeroes what is behind it in its file. Only what is not zero is
    /// written, so that the file stays sparse. If it is as it was when all behind `end` was zero, only the blocks that
    /// follow are looked at, and further only if there is something in them.
    ///
    /// A file that is the only one and begins exactly there stays, zeroed: its name is the only thing that says how far
    /// the queue has come.
    pub(super) fn clear_above(&self, writer: &mut Writer, end: u64, is_as_it_was: bool) -> Result<()> {
        let (per_file, present) = (self.files.per_file(), self.files.numbers()?);
        let (file, file_end) = (end / per_file, end - end % per_file + per_file);
        let stays = !end.is_multiple_of(per_file) || end > 0 && present.first() == Some(&file);
        let above = present.iter().rev().take_while(|above| **above >= file + u64::from(stays));
        self.remove_files(writer, above.map(|above| above * self.files.file_bytes()))?;
        if stays && present.contains(&file) {
            let near = file_end.min(end + NEARBY_BYTES.div_ceil(self.files.entry_bytes()) as u64);
            let mut zero = |entries| self.rewrite(writer, entries, |entry| Ok(Some(&ZEROS[..entry.len()])));
            if zero(end..near)? || !is_as_it_was {
                zero(near..file_end)?;
            }
        }
        Ok(())
    }

    /// Removes files in the given order. A power loss in between leaves a beginning of that order removed, so that no
    /// gap can appear between files: each removal is durable before the next.
    pub(super) fn remove_files(&self, writer: &mut Writer, bases: impl IntoIterator<Item = u64>) -> Result<()> {
        for (count, base) in bases.into_iter().enumerate() {
            if count > 0 {
                self.files.shared.storage.sync_dir(&self.files.dir())?;
            }
            writer.note(None);
            self.files.remove(base)?;
        }
        Ok(())
    }

    fn out_of_order(&self, extent: &Extent, given: u64) -> Error {
        Error::OutOfOrder { path: self.files.dir(), expected: extent.next, given }
    }
}

/// Can so many messages of a queue have been lost with so many bytes of the log? Else the record behind them is forged, or
/// damaged where it has no checksum.
fn can_be_lost(messages: u64, bytes: u64, is_batch: bool) -> bool {
    messages <= MAX_GAP && (is_batch || messages <= bytes / LEAST_RECORD_BYTES)
}

/// Does what [`ConsumeQueue::sync`] does for queues of one store.
pub(crate) fn sync_queues(queues: &[impl Borrow<ConsumeQueue>]) -> Result<()> {
    let Some(shared) = queues.first().map(|queue| &queue.borrow().files.shared) else { return Ok(()) };
    // The turn guards no data: it makes a second caller wait for what the first one is syncing.
    let _turn = lock(&shared.sync_turn);
    let take = |queue: &ConsumeQueue| lock(&queue.writer).unsynced.take();
    let taken: Vec<_> = queues.iter().map(Borrow::borrow).filter_map(|queue| Some((queue, take(queue)?))).collect();
    sync_all(shared, &taken).inspect_err(|_| {
        for (queue, unsynced) in taken {
            lock(&queue.writer).unsynced.get_or_insert_default().0.extend(unsynced.0);
            queue.touched.store(true, Ordering::Release);
        }
    })
}

fn sync_all(shared: &Shared, queues: &[(&ConsumeQueue, Box<Unsynced>)]) -> Result<()> {
    let mut files = Vec::new();
    let mut folders = BTreeSet::new();
    for (queue, unsynced) in queues {
        files.extend(unsynced.0.iter().flatten().map(|file| (*queue, *file)));
        if unsynced.0.contains(&None) {
            // Folders are not told apart into new ones and old ones: syncing one without news costs little.
            let dir = queue.files.dir();
            folders.extend(dir.ancestors().take_while(|dir| dir.starts_with(&shared.root)).map(Path::to_path_buf));
        }
    }
    let each_file = |work: fn(&File) -> Result<()>| {
        files.iter().try_for_each(|(queue, file)| match queue.files.open(*file).and_then(|file| work(&file)) {
            // It was written and removed since.
            Err(error) if error.is_missing() => Ok(()),
            done => done,
        })
    };
    if files.len() > 1 {
        // The file system takes them all into one of its transactions instead of waiting for one a file.
        each_file(|file| {
            file.begin_sync();
            Ok(())
        })?;
    }
    each_file(File::sync)?;
    for folder in folders {
        if shared.storage.info(&folder)?.is_some() {
            shared.storage.sync_dir(&folder)?;
        }
    }
    Ok(())
}

fn check_range(from: u64, count: u64) -> Result<()> {
    if from.checked_add(count).is_some_and(|end| end <= MAX_QUEUE_ENTRIES) {
        return Ok(());
    }
    Err(Error::OutOfRange { offset: from, available: 0..MAX_QUEUE_ENTRIES })
}
