//! One index file.

use std::collections::HashSet;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::chain::{Chain, Wanted};
use super::head::Head;
use super::rebuild::Rebuilt;
use crate::disk::{File, FileInfo, OpenMode, Storage};
use crate::error::{Corruption, Error, Result};
use crate::format::index::{IndexEntry, IndexHeader, IndexLayout, time_diff_seconds};
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

#[derive(Debug)]
struct State {
    header: IndexHeader,
    is_damaged: bool,
    /// Open while the file is in use; a full one is opened for each query.
    file: Option<File>,
    /// There from the first put on, until the file is full and synced.
    head: Option<Head>,
    /// Entries from number `written` on.
    pending: Vec<u8>,
    written: u32,
    /// The first entry of the newest record, or any before it.
    newest_record: u32,
    /// Grows with each change; `synced` is what the last sync covered, `None` before the first one of a new file.
    changes: u64,
    synced: Option<Synced>,
    /// After a failed sync nobody knows what is on the disk, so none is tried again.
    sync_failure: Option<Error>,
}

#[derive(Debug, Clone, Copy)]
struct Synced {
    changes: u64,
    next_entry: u32,
}

impl IndexFile {
    /// Makes an empty index file of the full length; `path` must not exist.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidOption`] if the layout has no slot, fewer than two entries, or more than `i32::MAX` of either
    /// - [`Error::Io`] if the file exists or cannot be made, [`Error::DiskFull`] if there is no room for its slots
    pub fn create(path: impl AsRef<Path>, layout: IndexLayout) -> Result<Self> {
        let (storage, path) = (Storage::real(), path.as_ref());
        if storage.info(path)?.is_some() {
            return Err(Error::io("create", path, None, io::ErrorKind::AlreadyExists.into()));
        }
        Self::make(storage, path, layout, IndexHeader::default())
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
        let bytes = file.info()?.bytes;
        if bytes != layout.file_bytes() {
            let reason = format!("it has {bytes} bytes instead of {}", layout.file_bytes());
            return Err(Corruption { path: file.path, range: 0..bytes, reason }.into());
        }
        if file.is_damaged() {
            let reason = "its header is none".into();
            return Err(Corruption { path: file.path, range: 0..IndexHeader::BYTES as u64, reason }.into());
        }
        Ok(file)
    }

    /// Makes a file with the given header and opens it for putting.
    pub(super) fn make(storage: Storage, path: &Path, layout: IndexLayout, header: IndexHeader) -> Result<Self> {
        check_layout(layout)?;
        let mut head = Head::empty(layout);
        let made = storage.open(path, OpenMode::Create).and_then(|file| {
            file.set_len(layout.file_bytes())?;
            // With blocks for all of its slots, a full disk can only meet the entries.
            file.allocate(0..layout.slot_at(layout.slots))?;
            head.write(&file, &header)?;
            Ok(file)
        });
        let file = match made {
            Ok(file) => file,
            Err(error) => {
                // The first error is the one to tell; what is left of the file may stay.
                let _ = storage.remove_file(path);
                return Err(error);
            }
        };
        let mut state = State::of_file(header);
        (state.head, state.file, state.changes, state.synced) = (Some(head), Some(file), 1, None);
        Ok(Self { storage, path: path.into(), layout, state: Mutex::new(state) })
    }

    /// Opens a file for reading, whatever is in it. One with a damaged header is searched, but takes no entries.
    pub(super) fn open_any(storage: Storage, path: &Path, layout: IndexLayout) -> Result<Self> {
        check_layout(layout)?;
        let header = read_header(&storage.open(path, OpenMode::Read)?)?;
        let header = header.filter(|header| header.next_entry <= layout.entries);
        let all = IndexHeader { next_entry: layout.entries, ..IndexHeader::default() };
        let state = State { is_damaged: header.is_none(), ..State::of_file(header.unwrap_or(all)) };
        Ok(Self { storage, path: path.into(), layout, state: Mutex::new(state) })
    }

    /// The same file under the name it has now. Nobody else knows the file yet.
    pub(super) fn renamed(mut self, path: &Path) -> Self {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.file = state.file.take().map(|file| file.renamed(path));
        self.path = path.into();
        self
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

    /// Length and time on the disk.
    pub(super) fn info(&self) -> Result<FileInfo> {
        let missing = || Error::io("stat", &self.path, None, io::ErrorKind::NotFound.into());
        self.storage.info(&self.path)?.ok_or_else(missing)
    }

    /// Is its header none?
    pub(super) fn is_damaged(&self) -> bool {
        self.state().is_damaged
    }

    /// Is there no room for another entry?
    pub(super) fn is_full(&self) -> bool {
        self.header().next_entry >= self.layout.entries
    }

    /// The number of entries that are durable, plus 1; `None` if not even the file is.
    pub(super) fn synced_entries(&self) -> Option<u32> {
        self.state().synced.map(|synced| synced.next_entry)
    }

    /// Adds an entry for one key of the record at `log_offset`; returns `false`, and adds nothing, if the file is full.
    ///
    /// An entry that is there already is not added again. The entry is not durable yet.
    ///
    /// # Errors
    ///
    /// [`Error::DiskFull`] or [`Error::Io`] if earlier entries could not be written or the file not be read. Nothing
    /// is lost or changed then, and the call can be repeated.
    ///
    /// # Panics
    ///
    /// If `log_offset` is above [`LogOffset::MAX`].
    ///
    /// # Source
    ///
    /// RocketMQ's `IndexFile.putKey`, which adds an entry twice when it is put twice.
    #[doc(alias = "putKey")]
    pub fn put(&self, topic: &str, key: &str, log_offset: LogOffset, store_ms: i64) -> Result<bool> {
        self.put_hash(index_key_hash(topic, key), log_offset, store_ms)
    }

    pub(super) fn put_hash(&self, hash: u32, log_offset: LogOffset, store_ms: i64) -> Result<bool> {
        assert!(log_offset <= LogOffset::MAX, "a log offset fits its field");
        let mut state = self.state();
        if state.header.next_entry >= self.layout.entries {
            return Ok(false);
        }
        self.use_for_puts(&mut state)?;
        if state.has(self.layout, hash, log_offset.get())? {
            return Ok(true);
        }
        if state.pending.len() >= RUN_BYTES {
            state.write_entries(self.layout)?;
        }
        state.add(self.layout, hash, log_offset.get(), store_ms);
        Ok(true)
    }

    fn use_for_puts(&self, state: &mut State) -> Result<()> {
        if state.head.is_none() {
            let file = self.storage.open(&self.path, OpenMode::ReadWrite)?;
            (state.head, state.file) = (Some(Head::load(&file, self.layout)?), Some(file));
        }
        Ok(())
    }

    /// Is there an entry for this hash and record?
    pub(super) fn has(&self, hash: u32, log_offset: LogOffset) -> Result<bool> {
        let Some(mut chain) = self.chain(&Wanted { hash, times: i64::MIN..=i64::MAX })? else { return Ok(false) };
        while let Some((_, entry)) = chain.next(self)? {
            if entry.log_offset <= log_offset.get() && entry.hash == hash {
                return Ok(entry.log_offset == log_offset.get());
            }
        }
        Ok(false)
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
        mut matches: impl FnMut(LogOffset) -> Result<bool>,
    ) -> Result<Vec<LogOffset>> {
        let wanted = Wanted { hash: index_key_hash(topic, key), times };
        let (mut seen, mut found) = (HashSet::new(), Vec::new());
        let Some(mut chain) = self.chain(&wanted)? else { return Ok(found) };
        while let Some(offset) = chain.next_wanted(self, &wanted)?.map(LogOffset::new) {
            if seen.insert(offset) && matches(offset)? {
                found.push(offset);
            }
        }
        Ok(found)
    }

    /// Begins at the newest entry of a hash; `None` if there is nothing to find, or the file was deleted.
    pub(super) fn chain(&self, wanted: &Wanted) -> Result<Option<Chain>> {
        let slot = self.layout.slot_of(wanted.hash);
        let state = self.state();
        let header = state.header;
        if header.next_entry <= 1 || !wanted.may_be_in(&header) {
            return Ok(None);
        }
        if let (Some(handle), Some(head)) = (state.file.clone(), &state.head) {
            return Ok(Some(Chain { handle, header, slot, next: head.newest(slot, header.next_entry) }));
        }
        drop(state);
        let handle = match self.storage.open(&self.path, OpenMode::Read) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut number = [0; 4];
        let present = handle.read_at(&mut number, self.layout.slot_at(slot))?;
        let number = if present == number.len() { u32::from_be_bytes(number) } else { 0 };
        let next = if number < header.next_entry { number } else { 0 };
        Ok(Some(Chain { handle, header, slot, next }))
    }

    /// Reads an entry; `None` if it is damaged.
    pub(super) fn entry(&self, handle: &File, number: u32) -> Result<Option<IndexEntry>> {
        let pending = self.state().pending_entry(number);
        if pending.is_some() { Ok(pending) } else { read_entry(handle, self.layout, number) }
    }

    /// Makes everything put so far durable.
    ///
    /// # Errors
    ///
    /// [`Error::DiskFull`] if there is no room for the entries: they are kept, and the call can be repeated.
    /// [`Error::Io`] if they could not be written or synced; after a failed sync each later call gets the same error.
    pub fn flush(&self) -> Result<()> {
        let (file, covered) = {
            let mut state = self.state();
            if let Some(error) = &state.sync_failure {
                return Err(error.clone());
            }
            if state.synced.is_some_and(|synced| synced.changes == state.changes) {
                return Ok(());
            }
            state.write(self.layout)?;
            let file = state.file.clone().expect("a file that changed is open");
            (file, Synced { changes: state.changes, next_entry: state.header.next_entry })
        };
        let result = file.sync();
        let mut state = self.state();
        match &result {
            Err(error) => state.sync_failure = Some(error.clone()),
            // Another flush may have begun later and ended earlier.
            Ok(()) if state.synced.is_none_or(|synced| synced.changes < covered.changes) => {
                state.synced = Some(covered);
            }
            Ok(()) => {}
        }
        result
    }

    /// Hands everything put so far to the operating system: safe from the end of this process, not from a power loss.
    pub(super) fn write_out(&self) -> Result<()> {
        self.state().write(self.layout)
    }

    /// Makes a full file durable and gives its memory and descriptor back.
    pub(super) fn finish(&self) -> Result<()> {
        self.flush()?;
        let mut state = self.state();
        (state.head, state.file, state.pending) = (None, None, Vec::new());
        Ok(())
    }

    /// Goes back to the entries below `next_entry`: slots and header are made anew from them, the rest is zeroed.
    ///
    /// `before` is the header of the file before this one, `store_ms` tells the store time of a record that is still
    /// there. Returns `false`, with nothing changed, if the entries are damaged. Nobody puts meanwhile.
    pub(super) fn restore(
        &self,
        next_entry: u32,
        before: Option<&IndexHeader>,
        mut store_ms: impl FnMut(LogOffset) -> Result<Option<i64>>,
    ) -> Result<bool> {
        let file = self.storage.open(&self.path, OpenMode::ReadWrite)?;
        let is_whole =
            file.info()?.bytes == self.layout.file_bytes() && (1..=self.layout.entries).contains(&next_entry);
        let Some(rebuilt) = is_whole.then(|| Rebuilt::read(&file, self.layout, next_entry)).transpose()?.flatten()
        else {
            return Ok(false);
        };
        let old = read_header(&file)?.unwrap_or_default();
        let mut header = seeded(before);
        if let (Some(first), Some(last)) = (rebuilt.first, rebuilt.last) {
            let known =
                |time: Option<i64>, kept_for: u64, kept: i64, of: u64| time.or((kept_for == of).then_some(kept));
            let begin = store_ms(LogOffset::new(first.log_offset))?;
            let Some(begin_ms) = known(begin, old.begin_offset, old.begin_ms, first.log_offset) else {
                return Ok(false);
            };
            let end = store_ms(LogOffset::new(last.log_offset))?;
            let end_ms = known(end, old.end_offset, old.end_ms, last.log_offset);
            // Without its record, the last entry's time is known to the second.
            let end_ms = end_ms.unwrap_or_else(|| begin_ms.saturating_add(i64::from(last.seconds) * 1000 + 999));
            let (begin_offset, end_offset, slot_count) = (first.log_offset, last.log_offset, rebuilt.slot_count);
            header = IndexHeader { begin_ms, end_ms, begin_offset, end_offset, slot_count, next_entry };
        }
        // Cutting and extending zeroes what is behind, and gives its blocks back.
        file.set_len(self.layout.entry_at(next_entry))?;
        file.set_len(self.layout.file_bytes())?;
        let head = Head::rebuilt(&file, self.layout, rebuilt.image)?;
        let mut state = self.state();
        let changes = state.changes + 1;
        *state = State { head: Some(head), file: Some(file), changes, ..State::of_file(header) };
        Ok(true)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The state of a file nobody puts into yet.
    fn of_file(header: IndexHeader) -> Self {
        let next_entry = header.next_entry;
        Self {
            header,
            is_damaged: false,
            file: None,
            head: None,
            pending: Vec::new(),
            written: next_entry,
            newest_record: 1,
            changes: 0,
            synced: Some(Synced { changes: 0, next_entry }),
            sync_failure: None,
        }
    }

    /// Is the entry there already? Only a record that is not newer than the newest one can have it, and its other
    /// entries are the newest: no old entry is read when records come in order.
    fn has(&self, layout: IndexLayout, hash: u32, log_offset: u64) -> Result<bool> {
        let (Some(head), Some(file)) = (&self.head, &self.file) else { return Ok(false) };
        if log_offset > self.header.end_offset {
            return Ok(false);
        }
        let lowest = if log_offset == self.header.end_offset { self.newest_record } else { 1 };
        let mut number = head.newest(layout.slot_of(hash), self.header.next_entry);
        while number >= lowest {
            let entry = match self.pending_entry(number) {
                Some(entry) => Some(entry),
                None => read_entry(file, layout, number)?,
            };
            match entry {
                Some(entry) if (entry.hash, entry.log_offset) == (hash, log_offset) => return Ok(true),
                Some(entry) if entry.log_offset >= log_offset && entry.previous < number => number = entry.previous,
                _ => return Ok(false),
            }
        }
        Ok(false)
    }

    fn add(&mut self, layout: IndexLayout, hash: u32, log_offset: u64, store_ms: i64) {
        let head = self.head.as_mut().expect("a file that is put into has its head in memory");
        let (number, slot) = (self.header.next_entry, layout.slot_of(hash));
        let header = &mut self.header;
        let previous = head.newest(slot, number);
        // RocketMQ takes the seconds before it sets a new file's begin time, so the first entry's count from the end
        // of the file before.
        let seconds = time_diff_seconds(store_ms, header.begin_ms);
        self.pending.extend_from_slice(&IndexEntry { hash, log_offset, seconds, previous }.encode());
        head.link(slot, number);
        if number == 1 {
            (header.begin_ms, header.begin_offset) = (store_ms, log_offset);
        }
        if number == 1 || log_offset != header.end_offset {
            self.newest_record = number;
        }
        header.slot_count += u32::from(previous == 0);
        header.next_entry += 1;
        (header.end_ms, header.end_offset) = (store_ms, log_offset);
        self.changes += 1;
    }

    fn pending_entry(&self, number: u32) -> Option<IndexEntry> {
        let at = number.checked_sub(self.written)? as usize * IndexEntry::BYTES;
        IndexEntry::decode(self.pending.get(at..)?).ok()
    }

    fn write(&mut self, layout: IndexLayout) -> Result<()> {
        self.write_entries(layout)?;
        match (&mut self.head, &self.file) {
            (Some(head), Some(file)) => head.write(file, &self.header),
            _ => Ok(()),
        }
    }

    /// Writes the entries that are in memory only; after an error they are still there.
    fn write_entries(&mut self, layout: IndexLayout) -> Result<()> {
        if let Some(file) = self.file.as_ref().filter(|_| !self.pending.is_empty()) {
            file.write_at(&self.pending, layout.entry_at(self.written))?;
            self.pending.clear();
            self.written = self.header.next_entry;
        }
        Ok(())
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
