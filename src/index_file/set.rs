//! All index files of a store.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::chain::{Candidates, Wanted};
use super::file::{IndexFile, seeded};
use super::name;
use crate::clock::Clock;
use crate::disk::Storage;
use crate::error::Result;
use crate::format::index::IndexLayout;
use crate::format::java_hash::index_key_hash;
use crate::format::names::index_file_name;
use crate::offset::LogOffset;
use crate::side::IndexState;

/// The name of a file in the making: always the same, so that a failed creation leaves one file at most.
const NEW_NAME: &str = "index";

/// What a restore found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restored {
    /// The index is as it was.
    Done,
    /// A file is missing or damaged: the index has to be cleared and built anew.
    Mismatch,
}

/// The index of a store: files in the order of their names, of which the newest takes new entries.
///
/// Locks are taken in this order: `writer`, `files`, the state of a file.
#[derive(Debug)]
pub(crate) struct IndexSet {
    storage: Storage,
    dir: PathBuf,
    new_dir: PathBuf,
    layout: IndexLayout,
    clock: Arc<dyn Clock>,
    files: RwLock<Vec<Named>>,
    /// Held by whoever puts, adds or removes files.
    writer: Mutex<()>,
    /// Have names come or gone that are not durable yet?
    is_dir_changed: AtomicBool,
}

#[derive(Debug, Clone)]
struct Named {
    name: u64,
    file: Arc<IndexFile>,
}

impl IndexSet {
    /// Opens the index files of the store in `root`, whatever is in them, and changes nothing. Also returns the paths
    /// in the folder that are no index files.
    pub(crate) fn open(
        storage: Storage,
        root: &Path,
        layout: IndexLayout,
        new_dir: &Path,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Vec<PathBuf>)> {
        let dir = root.join("index");
        let (mut files, mut strays) = (Vec::new(), Vec::new());
        for listed in storage.list(&dir)? {
            let path = dir.join(&listed.name);
            match name::parse(&listed.name).filter(|_| !listed.info.is_dir) {
                Some(name) => {
                    let file = Arc::new(IndexFile::open_any(storage.clone(), &path, layout)?);
                    files.push(Named { name, file });
                }
                None => strays.push(path),
            }
        }
        let (writer, is_dir_changed) = (Mutex::new(()), AtomicBool::new(false));
        let (files, new_dir) = (RwLock::new(files), new_dir.into());
        Ok((Self { storage, dir, new_dir, layout, clock, files, writer, is_dir_changed }, strays))
    }

    /// Adds an entry for one key of a record; one that is there already is not added again.
    ///
    /// After an error, a full disk for example, everything is as it was, and the call can be repeated.
    pub(crate) fn put(&self, topic: &str, key: &str, log_offset: LogOffset, store_ms: i64) -> Result<()> {
        let hash = index_key_hash(topic, key);
        let _writer = self.writer();
        if self.is_in_full_file(hash, log_offset)? {
            return Ok(());
        }
        let newest = self.files().last().map(|named| Arc::clone(&named.file));
        if let Some(newest) = newest {
            if newest.put_hash(hash, log_offset, store_ms)? || newest.has(hash, log_offset)? {
                return Ok(());
            }
            // RocketMQ's checkpoint counts on full files, and recovery makes only the newest anew.
            newest.finish()?;
        }
        let is_put = self.roll()?.put_hash(hash, log_offset, store_ms)?;
        assert!(is_put, "a new index file has room");
        Ok(())
    }

    /// Is the entry in a file before the newest? No file is read when records come in order, but for a record whose
    /// keys are in two files.
    fn is_in_full_file(&self, hash: u32, log_offset: LogOffset) -> Result<bool> {
        let may_have = |named: &&Named| named.file.header().end_offset >= log_offset.get();
        let files: Vec<_> = self.files().iter().rev().skip(1).take_while(may_have).cloned().collect();
        for Named { file, .. } in files {
            if file.has(hash, log_offset)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes the next file.
    fn roll(&self) -> Result<Arc<IndexFile>> {
        let newest = self.snapshot().pop();
        let before = newest.as_ref().filter(|newest| !newest.file.is_damaged()).map(|newest| newest.file.header());
        let name = name::next(self.clock.now_ms(), newest.map(|newest| newest.name));
        self.storage.create_dir_durably(&self.dir)?;
        self.storage.create_dir_durably(&self.new_dir)?;
        let (made, path) = (self.new_dir.join(NEW_NAME), self.dir.join(index_file_name(name)));
        let file = IndexFile::make(self.storage.clone(), &made, self.layout, seeded(before.as_ref()))?;
        self.storage.rename(&made, &path)?;
        self.is_dir_changed.store(true, Ordering::Release);
        let file = Arc::new(file.renamed(&path));
        self.files_mut().push(Named { name, file: Arc::clone(&file) });
        Ok(file)
    }

    /// Returns log offsets of records that may have the key and a store time in `times`, newest first, each once.
    /// Nothing is read before it is asked for.
    pub(crate) fn candidates(&self, topic: &str, key: &str, times: RangeInclusive<i64>) -> Candidates {
        let files = self.snapshot().into_iter().map(|named| named.file).collect();
        Candidates::new(Wanted { hash: index_key_hash(topic, key), times }, files)
    }

    /// Returns the records that have a key and a store time in `times`, newest first, each once: of the candidates
    /// those that `matches` says yes to.
    pub(crate) fn query(
        &self,
        topic: &str,
        key: &str,
        times: RangeInclusive<i64>,
        mut matches: impl FnMut(LogOffset) -> Result<bool>,
    ) -> Result<Vec<LogOffset>> {
        let mut found = Vec::new();
        for offset in self.candidates(topic, key, times) {
            let offset = offset?;
            if matches(offset)? {
                found.push(offset);
            }
        }
        Ok(found)
    }

    /// Hands everything put so far to the operating system.
    pub(crate) fn write_out(&self) -> Result<()> {
        self.snapshot().iter().try_for_each(|named| named.file.write_out())
    }

    /// Makes everything put so far durable, names included.
    pub(crate) fn sync(&self) -> Result<()> {
        self.snapshot().iter().try_for_each(|named| named.file.flush())?;
        if self.is_dir_changed.swap(false, Ordering::AcqRel) {
            let result = self.storage.sync_dir(&self.dir);
            if result.is_err() {
                self.is_dir_changed.store(true, Ordering::Release);
            }
            return result;
        }
        Ok(())
    }

    /// Describes what is durable since the last [`sync`](Self::sync): a file or entry that is newer is not in it.
    pub(crate) fn states(&self) -> Result<Vec<IndexState>> {
        let mut states = Vec::new();
        for Named { name, file } in self.snapshot() {
            if let Some(next_entry) = file.synced_entries() {
                let info = file.info()?;
                states.push(IndexState { name, next_entry, bytes: info.bytes, modified_ns: info.modified_ns });
            }
        }
        Ok(states)
    }

    /// Returns the end time of the newest file that is full and durable: RocketMQ drops every newer one after a kill.
    pub(crate) fn newest_full_end_ms(&self) -> Option<i64> {
        let files = self.snapshot();
        let is_durable = |file: &IndexFile| file.synced_entries() >= Some(self.layout.entries);
        let full = files.iter().rev().find(|named| is_durable(&named.file) && !named.file.is_damaged())?;
        Some(full.file.header().end_ms)
    }

    /// Is everything as `states` describes it? After a clean stop it must be.
    pub(crate) fn matches_states(&self, states: &[IndexState]) -> Result<bool> {
        let files = self.snapshot();
        for (state, Named { name, file }) in states.iter().zip(&files) {
            let info = file.info()?;
            let same_file = (state.name, state.bytes, state.modified_ns) == (*name, info.bytes, info.modified_ns);
            if !same_file || state.next_entry != file.header().next_entry || !self.is_whole(file)? {
                return Ok(false);
            }
        }
        Ok(states.len() == files.len())
    }

    fn is_whole(&self, file: &IndexFile) -> Result<bool> {
        Ok(!file.is_damaged() && file.info()?.bytes == self.layout.file_bytes())
    }

    /// Goes back to `states`, after an unclean stop: files that they do not name are removed, the newest one gets slots
    /// and header anew from its entries. `store_ms` tells the store time of a record, `None` if it is gone.
    pub(crate) fn restore(
        &self,
        states: &[IndexState],
        store_ms: impl FnMut(LogOffset) -> Result<Option<i64>>,
    ) -> Result<Restored> {
        let _writer = self.writer();
        let named = |name: u64| states.iter().any(|state| state.name == name);
        let (kept, removed): (Vec<_>, Vec<_>) = self.snapshot().into_iter().partition(|file| named(file.name));
        let (Some((last, full)), true) = (kept.split_last(), kept.len() == states.len()) else {
            if !states.is_empty() {
                return Ok(Restored::Mismatch);
            }
            return self.remove(removed.iter().rev()).map(|()| Restored::Done);
        };
        for (state, Named { name, file }) in states.iter().zip(full) {
            if state.name != *name || !self.is_whole(file)? || file.header().next_entry != state.next_entry {
                return Ok(Restored::Mismatch);
            }
        }
        let before = full.last().map(|named| named.file.header());
        let next_entry = states.iter().map(|state| state.next_entry).next_back().unwrap_or(1);
        if !last.file.restore(next_entry, before.as_ref(), store_ms)? {
            return Ok(Restored::Mismatch);
        }
        self.remove(removed.iter().rev())?;
        Ok(Restored::Done)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.files().is_empty()
    }

    /// Removes every index file.
    pub(crate) fn clear(&self) -> Result<()> {
        let _writer = self.writer();
        self.remove(self.snapshot().iter().rev())
    }

    /// Removes the oldest files as long as all their records are below the start of the log; never the newest file.
    /// Returns how many went.
    pub(crate) fn delete_before(&self, log_start: LogOffset) -> Result<usize> {
        let _writer = self.writer();
        let mut files = self.snapshot();
        files.pop();
        let is_below = |named: &Named| !named.file.is_damaged() && named.file.header().end_offset < log_start.get();
        let count = files.iter().take_while(|named| is_below(named)).count();
        self.remove(files[..count].iter())?;
        Ok(count)
    }

    /// Removes files in the given order, and their names durably.
    fn remove<'a>(&self, files: impl ExactSizeIterator<Item = &'a Named>) -> Result<()> {
        if files.len() == 0 {
            return Ok(());
        }
        for Named { name, file } in files {
            self.storage.remove_file(file.path())?;
            self.files_mut().retain(|other| other.name != *name);
        }
        self.storage.sync_dir(&self.dir)
    }

    fn snapshot(&self) -> Vec<Named> {
        self.files().clone()
    }

    fn files(&self) -> RwLockReadGuard<'_, Vec<Named>> {
        self.files.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn files_mut(&self) -> RwLockWriteGuard<'_, Vec<Named>> {
        self.files.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
