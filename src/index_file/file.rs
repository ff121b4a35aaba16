//! One index file.

use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::chain::{Candidates, Chain, Wanted};
use super::head::Head;
use super::rebuild::Rebuilt;
use super::state::{InUse, State, Synced};
use crate::disk::{File, FileInfo, OpenMode, Storage};
use crate::error::{Corruption, Error, Result};
use crate::format::index::{IndexEntry, IndexHeader, IndexLayout};
use crate::format::java_hash::index_key_hash;
use crate::offset::LogOffset;

/// New entries are written when there are this many bytes of them.
const RUN_BYTES: usize = 64 * 1024;

/// A file that finds the records that have a key.
///
/// It knows a key only by its hash, so it answers with candidates: whoever asks looks at the record. Any number of
/// threads may put and query at the same time; an entry is found as soon as [`put`](Self::put) has returned, and is
/// durable when [`flush`](Self::flush) has.
///
/// # Examples
///
/// ```
/// use mqlog::format::index::IndexLayout;
/// use mqlog::{IndexFile, LogOffset};
///
/// let dir = tempfile::tempdir()?;
/// let layout = IndexLayout { slots: 100, entries: 400 };
/// let index = IndexFile::create(dir.path().join("20250919130559007"), layout)?;
/// index.put("Orders", "Aa", LogOffset::new(0), 1_000)?;
/// index.put("Orders", "BB", LogOffset::new(300), 2_000)?; // the same hash
///
/// let has_key = |offset| Ok(offset == LogOffset::new(300));
/// assert_eq!(index.query("Orders", "BB", 0..=i64::MAX, has_key)?, [LogOffset::new(300)]);
/// index.flush()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Source
///
/// RocketMQ's `IndexFile`. Ours writes with positioned writes instead of through a mapping, keeps header and slots in
/// memory until they are flushed, and ends a damaged chain.
#[derive(Debug)]
pub struct IndexFile {
    storage: Storage,
    path: PathBuf,
    layout: IndexLayout,
    state: Mutex<State>,
}

impl IndexFile {
    /// Makes an empty index file of the full length; `path` must not exist.
    ///
    /// # Errors
    ///
    /// - [`Error::Io`] if the file exists
    /// - [`Error::InvalidOption`] if the layout has no slot, fewer than two entries, or more than `i32::MAX` of either
    /// - [`Error::DiskFull`] if there is no room for its slots, [`Error::Io`] if it cannot be made
    pub fn create(path: impl AsRef<Path>, layout: IndexLayout) -> Result<Self> {
        let (storage, path) = (Storage::real(), path.as_ref());
        if storage.info(path)?.is_some() {
            return Err(Error::io("create", path, None, io::ErrorKind::AlreadyExists.into()));
        }
        Self::make(storage, path, path, layout, IndexHeader::default())
    }

    /// Opens an index file. Its layout is not stored in it: it must be the one that the file was made with.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidOption`] as for [`create`](Self::create)
    /// - [`Error::Io`] if the file cannot be opened or read
    /// - [`Error::Corrupt`] if the file has another length or its header is damaged
    pub fn open(path: impl AsRef<Path>, layout: IndexLayout) -> Result<Self> {
        let file = Self::open_any(Storage::real(), path.as_ref(), layout)?;
        if file.is_whole()? {
            return Ok(file);
        }
        let reason = format!("it is no index file with {} slots and {} entries", layout.slots, layout.entries);
        Err(Corruption { range: 0..file.info()?.bytes, path: file.path, reason }.into())
    }

    /// Makes a file as `new_path`, with the given header, moves it to `path` and opens it for putting.
    pub(super) fn make(
        storage: Storage,
        new_path: &Path,
        path: &Path,
        layout: IndexLayout,
        header: IndexHeader,
    ) -> Result<Self> {
        check_layout(layout)?;
        let mut head = Head::empty(layout);
        let made = storage.open(new_path, OpenMode::Create).and_then(|file| {
            file.set_len(layout.file_bytes())?;
            // With blocks for all of its slots, a full disk can only meet the entries.
            file.allocate(0..layout.slot_at(layout.slots))?;
            head.write(&file, &header)?;
            storage.rename(new_path, path)?;
            Ok(file.renamed(path))
        });
        let file = made.inspect_err(|_| {
            // The first error is the one to tell; what is left of the file may stay.
            let _ = storage.remove_file(new_path);
        })?;
        let in_use = Some(InUse::new(file, head, header.next_entry));
        let state = State { in_use, changes: 1, synced: None, ..State::of_file(Some(header), layout) };
        Ok(Self { storage, path: path.into(), layout, state: Mutex::new(state) })
    }

    /// Opens a file for reading, whatever is in it. One with a damaged header is searched, but takes no entries.
    pub(super) fn open_any(storage: Storage, path: &Path, layout: IndexLayout) -> Result<Self> {
        check_layout(layout)?;
        let file = storage.open(path, OpenMode::Read)?;
        let header = match read_header(&file)? {
            Some(header) if header.next_entry <= layout.entries && has_ends(&file, layout, &header)? => Some(header),
            _ => None,
        };
        Ok(Self { storage, path: path.into(), layout, state: Mutex::new(State::of_file(header, layout)) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn layout(&self) -> IndexLayout {
        self.layout
    }

    pub(super) fn header(&self) -> IndexHeader {
        self.state().header
    }

    pub(super) fn is_damaged(&self) -> bool {
        self.state().is_damaged
    }

    /// The number of the first entry that is not durable; `None` if not even the file is.
    pub(super) fn synced_entries(&self) -> Option<u32> {
        self.state().synced.map(|synced| synced.next_entry)
    }

    /// Length and time on the disk.
    pub(super) fn info(&self) -> Result<FileInfo> {
        let missing = || Error::io("stat", &self.path, None, io::ErrorKind::NotFound.into());
        self.storage.info(&self.path)?.ok_or_else(missing)
    }

    /// Has it the length of its layout, and a header?
    pub(super) fn is_whole(&self) -> Result<bool> {
        Ok(!self.is_damaged() && self.info()?.bytes == self.layout.file_bytes())
    }

    /// Adds an entry for one key of the record at `log_offset`; returns `false`, and adds nothing, if the file is full.
    ///
    /// The entry is not durable yet.
    ///
    /// # Errors
    ///
    /// [`Error::DiskFull`] or [`Error::Io`] if earlier entries could not be written or the file not be read. Nothing
    /// is lost or changed then, and the call can be repeated.
    ///
    /// # Panics
    ///
    /// If `log_offset` is above [`LogOffset::MAX`].
    #[doc(alias = "putKey")]
    pub fn put(&self, topic: &str, key: &str, log_offset: LogOffset, store_ms: i64) -> Result<bool> {
        assert!(log_offset <= LogOffset::MAX, "a log offset fits its field");
        let mut state = self.state();
        let next_entry = state.header.next_entry;
        if next_entry >= self.layout.entries {
            return Ok(false);
        }
        if state.in_use.is_none() {
            let file = self.storage.open(&self.path, OpenMode::ReadWrite)?;
            let head = Head::load(&file, self.layout)?;
            state.in_use = Some(InUse::new(file, head, next_entry));
        }
        if let Some(in_use) = state.in_use.as_mut().filter(|in_use| in_use.pending_bytes() >= RUN_BYTES) {
            in_use.write_entries(self.layout)?;
        }
        state.add(self.layout, index_key_hash(topic, key), log_offset.get(), store_ms);
        Ok(true)
    }

    /// Counts the file's last entries that are of one record.
    pub(super) fn last_entries_of(&self, log_offset: LogOffset) -> Result<u32> {
        let (next_entry, in_use) = {
            let state = self.state();
            (state.header.next_entry, state.in_use.as_ref().map(|in_use| in_use.file.clone()))
        };
        let handle = in_use.map_or_else(|| self.storage.open(&self.path, OpenMode::Read), Ok)?;
        let mut count = 0;
        while count + 1 < next_entry
            && self.entry(&handle, next_entry - 1 - count)?.is_some_and(|entry| entry.log_offset == log_offset.get())
        {
            count += 1;
        }
        Ok(count)
    }

    /// Returns the records that have a key and a store time in `times`, in ms, newest first, each once.
    ///
    /// `matches` decides: the index knows a key only by its hash and a time only by the second. It is called without
    /// any lock held, for as few records as the index can tell.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read, and what `matches` returns. Damage in the file is no error: its
    /// entries are not found.
    #[doc(alias = "selectPhyOffset")]
    pub fn query(
        &self,
        topic: &str,
        key: &str,
        times: RangeInclusive<i64>,
        matches: impl FnMut(LogOffset) -> Result<bool>,
    ) -> Result<Vec<LogOffset>> {
        Candidates::new(Wanted { hash: index_key_hash(topic, key), times }, vec![self]).select(matches)
    }

    /// Begins at the newest entry of a hash; `None` if there is nothing to find, or the file was deleted.
    pub(super) fn chain(&self, wanted: &Wanted) -> Result<Option<Chain>> {
        let slot = self.layout.slot_of(wanted.hash);
        let state = self.state();
        let header = state.header;
        if header.next_entry <= 1 || !wanted.may_be_in(&header) {
            return Ok(None);
        }
        if let Some(InUse { file, head, .. }) = &state.in_use {
            let next = head.newest(slot, header.next_entry);
            return Ok(Some(Chain { handle: file.clone(), header, slot, next }));
        }
        drop(state);
        let handle = match self.storage.open(&self.path, OpenMode::Read) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut number = [0; 4];
        handle.read_at(&mut number, self.layout.slot_at(slot))?;
        let next = Some(u32::from_be_bytes(number)).filter(|number| *number < header.next_entry).unwrap_or(0);
        Ok(Some(Chain { handle, header, slot, next }))
    }

    /// Reads an entry; `None` if it is damaged.
    pub(super) fn entry(&self, handle: &File, number: u32) -> Result<Option<IndexEntry>> {
        let pending = self.state().in_use.as_ref().and_then(|in_use| in_use.pending_entry(number));
        if pending.is_some() { Ok(pending) } else { read_entry(handle, self.layout, number) }
    }

    /// Makes everything put so far durable.
    ///
    /// # Errors
    ///
    /// - [`Error::DiskFull`] if there is no room for the entries: they are kept, and the call can be repeated
    /// - [`Error::Io`] if they could not be written or synced; after a failed sync each later call gets the same error
    pub fn flush(&self) -> Result<()> {
        let (file, covered) = {
            let mut guard = self.state();
            let state = &mut *guard;
            if let Some(error) = &state.sync_failure {
                return Err(error.clone());
            }
            let Some(in_use) = &mut state.in_use else { return Ok(()) };
            if state.synced.is_some_and(|synced| synced.changes == state.changes) {
                return Ok(());
            }
            in_use.write_entries(self.layout)?;
            in_use.head.write(&in_use.file, &state.header)?;
            (in_use.file.clone(), Synced { changes: state.changes, next_entry: state.header.next_entry })
        };
        let result = file.sync();
        let mut state = self.state();
        match &result {
            // Another flush may have begun later and ended earlier.
            Ok(()) => state.synced = state.synced.max(Some(covered)),
            Err(error) => state.sync_failure = Some(error.clone()),
        }
        result
    }

    /// Makes a full file durable and gives its memory and descriptor back.
    pub(super) fn finish(&self) -> Result<()> {
        self.flush()?;
        self.state().in_use = None;
        Ok(())
    }

    /// Goes back to the entries below number `next_entry` and log offset `end`: slots and header are made anew from
    /// them, the rest is zeroed.
    ///
    /// `before` is the header of the file before this one, `store_ms` tells the store time of a record that is still
    /// there. Returns `false`, with nothing changed, if the entries are damaged. Nobody puts meanwhile.
    pub(super) fn restore(
        &self,
        (next_entry, end): (u32, LogOffset),
        before: Option<&IndexHeader>,
        mut store_ms: impl FnMut(LogOffset) -> Result<Option<i64>>,
    ) -> Result<bool> {
        let file = self.storage.open(&self.path, OpenMode::ReadWrite)?;
        if file.info()?.bytes != self.layout.file_bytes() || !(1..=self.layout.entries).contains(&next_entry) {
            return Ok(false);
        }
        let Some(rebuilt) = Rebuilt::read(&file, self.layout, next_entry, end)? else { return Ok(false) };
        let (mut header, next_entry) = (seeded(before), rebuilt.next_entry);
        if let (Some(first), Some(last)) = (rebuilt.first, rebuilt.last) {
            // The times of the header on the disk hold if they are of these two records.
            let old = read_header(&file)?.unwrap_or_default();
            let begin_ms = store_ms(LogOffset::new(first.log_offset))?;
            let old_begin_ms = (old.begin_offset == first.log_offset).then_some(old.begin_ms);
            let Some(begin_ms) = begin_ms.or(old_begin_ms) else { return Ok(false) };
            let old_end_ms = (old.end_offset == last.log_offset).then_some(old.end_ms);
            // Without its record, the last entry's time is known to the second.
            let end_ms = store_ms(LogOffset::new(last.log_offset))?.or(old_end_ms);
            let end_ms = end_ms.unwrap_or_else(|| begin_ms.saturating_add(i64::from(last.seconds) * 1000 + 999));
            let (begin_offset, end_offset, slot_count) = (first.log_offset, last.log_offset, rebuilt.slot_count);
            header = IndexHeader { begin_ms, end_ms, begin_offset, end_offset, slot_count, next_entry };
        }
        // Cutting and extending zeroes what is behind, and gives its blocks back.
        file.set_len(self.layout.entry_at(next_entry))?;
        file.set_len(self.layout.file_bytes())?;
        let in_use = Some(InUse::new(file, Head::rebuilt(self.layout, rebuilt.image), next_entry));
        *self.state() = State { in_use, changes: 1, ..State::of_file(Some(header), self.layout) };
        Ok(true)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The header of a file that follows a full one, as RocketMQ begins it.
pub(super) fn seeded(before: Option<&IndexHeader>) -> IndexHeader {
    let (ms, offset) = before.map_or((0, 0), |before| (before.end_ms.max(0), before.end_offset));
    IndexHeader { begin_ms: ms, end_ms: ms, begin_offset: offset, end_offset: offset, ..IndexHeader::default() }
}

/// Reads a file's header; `None` if it is damaged.
pub(super) fn read_header(file: &File) -> Result<Option<IndexHeader>> {
    let mut bytes = [0; IndexHeader::BYTES];
    let present = file.read_at(&mut bytes, 0)?;
    Ok(IndexHeader::decode(&bytes[..present]).ok())
}

/// Are the header's first and last record those of the entries?
pub(super) fn has_ends(file: &File, layout: IndexLayout, header: &IndexHeader) -> Result<bool> {
    let offset_of = |number| Ok::<_, Error>(read_entry(file, layout, number)?.map(|entry| entry.log_offset));
    Ok(header.next_entry == 1
        || (offset_of(1)? == Some(header.begin_offset) && offset_of(header.next_entry - 1)? == Some(header.end_offset)))
}

/// Reads an entry of a file; `None` if it is damaged.
fn read_entry(file: &File, layout: IndexLayout, number: u32) -> Result<Option<IndexEntry>> {
    let mut bytes = [0; IndexEntry::BYTES];
    let present = file.read_at(&mut bytes, layout.entry_at(number))?;
    Ok(IndexEntry::decode(&bytes[..present]).ok())
}

fn check_layout(layout: IndexLayout) -> Result<()> {
    let limits = 1..=i32::MAX.unsigned_abs();
    if limits.contains(&layout.slots) && limits.contains(&layout.entries) && layout.entries > 1 {
        return Ok(());
    }
    let reason = format!("{layout:?} needs a slot and two entries, and at most {} of each", limits.end());
    Err(Error::InvalidOption { option: "index layout", reason })
}
