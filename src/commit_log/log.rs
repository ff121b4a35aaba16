//! The log itself: appends, and what provides files and blocks for them.
//!
//! - `flushed <= written <= tail <= allocated <= H`, the end of the blocks that the watermark names.
//! - Many threads append through `&self`; their order is the order of the lock in [`Place`].
//! - The next file is prepared, and blocks are allocated, before they are needed where a background task runs; an
//!   append that comes earlier does it itself, without the lock.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, PoisonError, TryLockError, Weak};
use std::thread;

use super::place::{Group, Place, Placing, Sink};
use super::read::{Checks, ReadMode, Rules};
use super::unit::{Appended, Cursors, Encoding, Unit};
use crate::clock::{Clock, StoreClock};
use crate::disk::StoreLock;
use crate::drive::{Drive, Pumped, Task};
use crate::error::{Corruption, Error, Result};
use crate::format::record::{BLANK_BYTES, RecordCrc};
use crate::mapped_file::{Creation, MappedFile, MappedFiles};
use crate::offset::LogOffset;
use crate::progress::Progress;
use crate::side::WatermarkFile;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard, OnceLock};

/// The first blocks of a new log; each later step is twice as large.
pub(super) const FIRST_STEP_BYTES: u64 = 1024 * 1024;
/// The step where there is hardly any room left.
const LEAST_STEP_BYTES: u64 = 64 * 1024;
/// The largest step of a log that allocates without writing.
const LAST_STEP_BYTES: u64 = 64 * 1024 * 1024;
/// The largest step of a log that writes zeros first: an append may have to wait for it.
const LAST_ZEROED_STEP_BYTES: u64 = 4 * 1024 * 1024;
/// How often the lock is tried before the thread sleeps for it.
const LOCK_TRIES: u32 = if cfg!(loom) { 1 } else { 40 };
/// The longest pause between two tries. Who has the lock for longer than that has lost its core, and is left one.
const LONGEST_PAUSE: u32 = 1024;
/// Pages are touched this far ahead of the writer, a piece at a time.
const POPULATE_BYTES: u64 = 4 * 1024 * 1024;
const POPULATE_PIECE_BYTES: u64 = 256 * 1024;
/// Where the pages that were touched end this close to the tail, the preparing task was not fast enough.
const POPULATE_LEAST_BYTES: u64 = 64 * 1024;

/// Files that are no longer part of the log.
#[derive(Debug, Default)]
pub(super) struct Deleted {
    /// Still on disk, lowest first. One that cannot be removed keeps those behind it: the log must not get a gap.
    pub(super) waiting: VecDeque<Arc<MappedFile>>,
    /// Removed, for as long as somebody holds them.
    pub(super) pinned: Vec<Weak<MappedFile>>,
}

/// What all handles of one log share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) creation: Creation,
    pub(super) files: MappedFiles,
    pub(super) place: Mutex<Place>,
    pub(super) progress: Arc<Progress>,
    pub(super) watermark: Option<WatermarkFile>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) stamps: StoreClock,
    /// From this offset on every record carries the record CRC.
    pub(super) crc_from: Option<LogOffset>,
    /// Where the log ended when it was opened.
    pub(super) opened_at: LogOffset,
    pub(super) read_mode: ReadMode,
    /// What opening found damaged, lowest first: nothing in there is a record, whatever it looks like.
    pub(super) damaged: Vec<Corruption>,
    /// The damage of files in which readers looked for some, by what they looked through, the last one first.
    pub(super) met: Mutex<Vec<(Range<u64>, Vec<Corruption>)>>,
    pub(super) crc: RecordCrc,
    /// Appends go through a group buffer and positioned writes.
    pub(super) grouped: bool,
    pub(super) closed: AtomicBool,
    /// Held by whoever provides files or blocks.
    pub(super) growing: Mutex<u64>,
    /// Held by whoever writes and syncs; what it has is the group buffer that is not in use.
    pub(super) leading: Mutex<Group>,
    /// The last flush: its end, and the last record below it.
    pub(super) flushed: Mutex<(LogOffset, Option<(u64, u32)>)>,
    pub(super) populated: AtomicU64,
    /// Held by whoever deletes.
    pub(super) deleted: Mutex<Deleted>,
    pub(super) preparer: OnceLock<Task>,
    /// The store's lock, until the log or its store is closed.
    pub(super) lock: Mutex<Option<StoreLock>>,
}

/// RocketMQ's commit log: the one sequence of all messages of all topics, in files of one length.
///
/// A handle; clones share the log. See [`CommitLog::open`] for its use without a store.
#[derive(Debug, Clone)]
pub struct CommitLog {
    pub(super) shared: Arc<Shared>,
}

impl CommitLog {
    /// The log's lowest and highest offset: what may be read now.
    #[must_use]
    pub fn range(&self) -> Range<LogOffset> {
        let end = self.shared.progress.written();
        let start = self.shared.files.snapshot().first().map_or(end, |file| LogOffset::new(file.base()));
        start.min(end)..end
    }

    /// The end of what was appended; it may not be written, and so not be readable, yet.
    #[must_use]
    pub fn tail(&self) -> LogOffset {
        self.shared.progress.tail()
    }

    /// Everything below is durable.
    #[must_use]
    pub fn durable_offset(&self) -> LogOffset {
        self.shared.progress.flushed()
    }

    /// Length of a log file in bytes.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.shared.creation.file_bytes
    }

    /// Are appends written in groups, with positioned writes?
    pub(crate) fn is_grouped(&self) -> bool {
        self.shared.grouped
    }

    /// The end of what readers may see: in a log that is written in groups a record is visible when it is durable.
    pub(crate) fn visible_end(&self) -> LogOffset {
        let progress = self.progress();
        if self.is_grouped() { progress.flushed() } else { progress.written() }
    }

    /// The store time of the last record.
    pub(crate) fn last_store_ms(&self) -> i64 {
        self.shared.stamps.last_ms()
    }

    pub(crate) fn progress(&self) -> &Arc<Progress> {
        &self.shared.progress
    }

    /// How messages are encoded now.
    pub(crate) fn encoding(&self, host: SocketAddr) -> Encoding {
        Encoding { crc: self.shared.crc, host, now_ms: self.shared.clock.now_ms() }
    }

    /// How often the wall clock jumped by more than an hour, forward or back.
    pub(crate) fn clock_jumps(&self) -> u64 {
        self.shared.stamps.jumps()
    }

    /// Places a unit; if it may not wait for the disk, only where there is room. `placed` gets each record in order.
    pub(crate) fn append_unit(
        &self,
        unit: &mut Unit<'_>,
        cursors: Cursors<'_>,
        may_wait: bool,
        placed: &mut dyn FnMut(Appended),
    ) -> Result<()> {
        let shared = &*self.shared;
        let limit = shared.creation.file_bytes - BLANK_BYTES as u64;
        if unit.len() as u64 > limit {
            return Err(Error::TooLarge { field: "record", value: unit.len() as u64, limit });
        }
        shared.help_populate()?;
        loop {
            let mut place = shared.lock_place()?;
            shared.check()?;
            let stamp = || shared.stamps.stamp(shared.clock.now_ms());
            match place.try_place(unit, cursors, stamp, placed) {
                Placing::Done => {
                    let wants = shared.published(&place);
                    drop(place);
                    if wants && let Some(task) = shared.preparer.get() {
                        task.wake();
                    }
                    return Ok(());
                }
                _ if !may_wait => return Err(Error::WouldWait),
                Placing::NeedsFile => {
                    drop(place);
                    self.prepare_file()?;
                }
                Placing::NeedsBlocks(end) => {
                    drop(place);
                    shared.grow(end)?;
                }
                Placing::GroupIsFull => {
                    drop(place);
                    self.flush()?;
                }
            }
        }
    }

    /// Makes the next file. Where there is no descriptor for it, the full files give theirs back when they are durable.
    fn prepare_file(&self) -> Result<()> {
        let prepared = self.shared.prepare_file();
        if !prepared.as_ref().is_err_and(Error::lacks_descriptor) {
            return prepared;
        }
        self.flush()?;
        self.shared.prepare_file()
    }

    /// Has files and blocks prepared by a task of its own.
    pub(crate) fn start_preparing(&self, drive: Drive) -> Result<()> {
        let shared = Arc::downgrade(&self.shared);
        let pump = move || match shared.upgrade() {
            Some(shared) => shared.prepare_ahead(),
            None => Ok(Pumped::Idle(None)),
        };
        let task = Task::start("prepare", drive, pump)?;
        let _ = self.shared.preparer.set(task);
        Ok(())
    }

    pub(crate) fn preparer(&self) -> Option<&Task> {
        self.shared.preparer.get()
    }
}

impl Shared {
    pub(super) fn rules(&self, checks: Checks, piece_bytes: u64) -> Rules {
        let mapped_from = if self.read_mode == ReadMode::Mapped { 0 } else { u64::MAX };
        Rules { crc_from: self.crc_from, checks, mapped_from, piece_bytes }
    }

    /// Takes the log lock, which is held for less than a microsecond: tries with growing pauses, then with its core
    /// left to others, then sleeps.
    pub(super) fn lock_place(&self) -> Result<MutexGuard<'_, Place>> {
        let mut pause = 16;
        for _ in 0..LOCK_TRIES {
            match self.place.try_lock() {
                Ok(place) => return Ok(place),
                Err(TryLockError::Poisoned(_)) => return Err(self.poison_after_panic()),
                Err(TryLockError::WouldBlock) if pause > LONGEST_PAUSE => thread::yield_now(),
                Err(TryLockError::WouldBlock) => {
                    for _ in 0..pause {
                        std::hint::spin_loop();
                    }
                    pause *= 2;
                }
            }
        }
        self.place.lock().map_err(|_| self.poison_after_panic())
    }

    fn poison_after_panic(&self) -> Error {
        self.progress.poison(Error::Panicked { message: "while a record was being placed".to_owned() })
    }

    /// A watermark that could not be synced stops the log; one that could not be written is written again.
    pub(super) fn poison_if_unsynced(&self, error: Error) -> Error {
        if matches!(error, Error::Poisoned { .. }) { self.progress.poison(error) } else { error }
    }

    /// Does the log take appends?
    pub(super) fn check(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        if self.watermark.is_none() {
            return Err(Error::ReadOnly);
        }
        self.progress.check()
    }

    /// Tells the world of a new tail; returns whether the preparing task has something to do.
    fn published(&self, place: &Place) -> bool {
        let tail = LogOffset::new(place.tail);
        self.progress.set_tail(tail);
        if matches!(place.sink, Sink::Mapping(_)) {
            self.progress.set_written(tail);
            // What has no blocks yet cannot be touched, so it is nothing to wake the task for.
            let wanted = (place.tail + POPULATE_BYTES / 2).min(place.allocated);
            if wanted > self.populated.load(Ordering::Relaxed) {
                return true;
            }
        }
        place.tail + place.ahead > place.allocated || (place.next.is_none() && self.is_half_full(place))
    }

    fn is_half_full(&self, place: &Place) -> bool {
        place.active.as_ref().is_some_and(|file| place.tail - file.base() > self.creation.file_bytes / 2)
    }

    /// Provides what appends will need soon: the preparing task.
    fn prepare_ahead(&self) -> Result<Pumped> {
        if self.check().is_err() {
            return Ok(Pumped::Idle(None));
        }
        let (tail, allocated, ahead, end, wants_file) = {
            let place = self.lock_place()?;
            let end = place.next.as_ref().or(place.active.as_ref()).map_or(place.tail, |file| file.end());
            let wants_file = place.next.is_none() && self.is_half_full(&place);
            (place.tail, place.allocated, place.ahead, end, wants_file)
        };
        if tail + ahead > allocated && allocated < end {
            self.grow((allocated + ahead).min(end))?;
        }
        if wants_file {
            self.prepare_file()?;
        }
        for _ in 0..POPULATE_BYTES / POPULATE_PIECE_BYTES {
            self.populate(POPULATE_BYTES)?;
        }
        Ok(Pumped::Idle(None))
    }

    /// Touches the next piece of pages, unless those are touched that lie less than `ahead` before the writer: under
    /// the log lock an append would wait for each, and all others with it.
    fn populate(&self, ahead: u64) -> Result<()> {
        if self.grouped {
            return Ok(());
        }
        let (tail, allocated) = {
            let place = self.lock_place()?;
            (place.tail, place.allocated)
        };
        let start = self.populated.load(Ordering::Relaxed).max(tail);
        let Some(file) = self.files.find(start).filter(|_| start < allocated.min(tail + ahead)) else { return Ok(()) };
        let end = (start + POPULATE_PIECE_BYTES).min(allocated).min(file.end());
        // The piece is this thread's now: another one that comes meanwhile takes the next.
        if self.populated.fetch_max(end, Ordering::Relaxed) < end {
            file.populate(start - file.base()..end - file.base());
        }
        Ok(())
    }

    /// An appending thread's share of the preparing task's work, where that is behind: with more producers than cores
    /// it gets too little time.
    fn help_populate(&self) -> Result<()> {
        let near = self.progress.tail().get() + POPULATE_LEAST_BYTES > self.populated.load(Ordering::Relaxed);
        if !near {
            return Ok(());
        }
        // A log that is closed leaves its files alone.
        self.check()?;
        self.populate(POPULATE_LEAST_BYTES)
    }

    /// Makes the file behind the active one, if nobody did meanwhile.
    pub(super) fn prepare_file(&self) -> Result<()> {
        let _growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let base = {
            let place = self.lock_place()?;
            // Once the log is shut, its files may be somebody else's.
            self.check()?;
            if place.next.is_some() {
                return Ok(());
            }
            place.active.as_ref().map_or(place.tail, |file| file.end())
        };
        let first = FIRST_STEP_BYTES.min(self.creation.file_bytes);
        let file = self.creation.create(base, first)?;
        self.files.push(Arc::clone(&file));
        self.lock_place()?.next = Some(file);
        Ok(())
    }

    /// Allocates blocks from where they end now, at least up to `end` or the end of the file that is there.
    pub(super) fn grow(&self, end: u64) -> Result<()> {
        let mut step = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let (allocated, file) = {
                let place = self.lock_place()?;
                self.check()?;
                if place.allocated >= end {
                    return Ok(());
                }
                let at = place.allocated.max(place.tail);
                let files = [&place.active, &place.next];
                let file = files.into_iter().flatten().find(|file| file.base() <= at && at < file.end()).cloned();
                (at, file)
            };
            // No file there yet: the append finds that out by itself.
            let Some(file) = file else { return Ok(()) };
            let target = (allocated + *step).max(end).min(file.end());
            match self.allocate(&file, allocated, target) {
                // There may be room for what is needed now, if not for the whole step.
                Err(error) if error.is_disk_full() && *step > LEAST_STEP_BYTES => {
                    *step = LEAST_STEP_BYTES;
                    continue;
                }
                result => result?,
            }
            let last_step = if self.grouped { LAST_ZEROED_STEP_BYTES } else { LAST_STEP_BYTES };
            *step = (*step * 2).min(last_step);
        }
    }

    fn allocate(&self, file: &MappedFile, from: u64, to: u64) -> Result<()> {
        let range = from - file.base()..to - file.base();
        #[cfg(test)]
        if crate::planted::is(crate::planted::Planted::AllocatedBeforeZeros) {
            let (creation, file) = (self.creation.clone(), file.file());
            crate::planted::later(move || drop(creation.give_blocks(&file, range)));
            return self.set_allocated(to);
        }
        self.creation.give_blocks(&file.file(), range.clone())?;
        if self.creation.zeros {
            file.sync(range, false).map_err(|error| self.progress.poison(error))?;
        }
        self.set_allocated(to)
    }

    /// Lets appends use the blocks up to `to`, after the watermark says so.
    fn set_allocated(&self, to: u64) -> Result<()> {
        let watermark = self.watermark.as_ref().ok_or(Error::ReadOnly)?;
        let stored = watermark.update(|known| known.allocated = LogOffset::new(to));
        stored.map_err(|error| self.poison_if_unsynced(error))?;
        let mut place = self.lock_place()?;
        let step = to - place.allocated.min(to);
        place.allocated = to;
        // The faster the log grows the earlier the next step has to begin: a log that fills a large one in the time of
        // a sync would wait for each.
        place.ahead = place.ahead.max(step / 2);
        Ok(())
    }
}
