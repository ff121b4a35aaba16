//! All index files of a store.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::chain::{Candidates, Wanted};
use super::file::{IndexFile, seeded};
use super::name;
use crate::clock::Clock;
use crate::disk::{FileInfo, Storage};
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
    files: RwLock<Vec<Arc<IndexFile>>>,
    /// Held by whoever puts, adds or removes files.
    writer: Mutex<()>,
    /// Has a file come whose name is not durable yet?
    has_new_name: AtomicBool,
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
        let (dir, new_dir) = (root.join("index"), new_dir.into());
        let (mut files, mut strays) = (Vec::new(), Vec::new());
        for listed in storage.list(&dir)? {
            let path = dir.join(&listed.name);
            if listed.info.is_dir || name::parse(&listed.name).is_none() {
                strays.push(path);
            } else {
                files.push(Arc::new(IndexFile::open_any(storage.clone(), &path, layout)?));
            }
        }
        let (files, writer, has_new_name) = (RwLock::new(files), Mutex::new(()), AtomicBool::new(false));
        Ok((Self { storage, dir, new_dir, layout, clock, files, writer, has_new_name }, strays))
    }

    /// Adds an entry for one key of a record; one that is there already is not added again.
    ///
    /// After an error, a full disk for example, everything is as it was, and the call can be repeated.
    pub(crate) fn put(&self, topic: &str, key: &str, log_offset: LogOffset, store_ms: i64) -> Result<()> {
        let hash = index_key_hash(topic, key);
        let _writer = self.writer();
        // No file at all may have the entry when records come in order, and only the newest for a record's second key.
        let may_have = |file: &&Arc<IndexFile>| file.header().end_offset >= log_offset.get();
        let candidates: Vec<_> = self.files().iter().rev().take_while(may_have).cloned().collect();
        for file in candidates {
            if file.has(hash, log_offset)? {
                return Ok(());
            }
        }
        let newest = self.files().last().cloned();
        if let Some(newest) = &newest {
            if newest.put_new(hash, log_offset, store_ms)? {
                return Ok(());
            }
            // RocketMQ's checkpoint counts on full files, and recovery makes only the newest anew.
            newest.finish()?;
        }
        let is_put = self.roll(newest.as_deref())?.put_new(hash, log_offset, store_ms)?;
        assert!(is_put, "a new index file has room");
        Ok(())
    }

    /// Makes the next file.
    fn roll(&self, newest: Option<&IndexFile>) -> Result<Arc<IndexFile>> {
        let before = newest.filter(|newest| !newest.is_damaged()).map(IndexFile::header);
        let name = index_file_name(name::next(self.clock.now_ms(), newest.map(name_of)));
        self.storage.create_dir_durably(&self.dir)?;
        self.storage.create_dir_durably(&self.new_dir)?;
        let (new_path, path) = (self.new_dir.join(NEW_NAME), self.dir.join(name));
        let file = IndexFile::make(self.storage.clone(), &new_path, &path, self.layout, seeded(before.as_ref()))?;
        let file = Arc::new(file);
        self.files_mut().push(Arc::clone(&file));
        self.has_new_name.store(true, Ordering::Release);
        Ok(file)
    }

    /// Returns log offsets of records that may have the key and a store time in `times`, newest first, each once.
    /// Nothing is read before it is asked for.
    pub(crate) fn candidates(&self, topic: &str, key: &str, times: RangeInclusive<i64>) -> Candidates<Arc<IndexFile>> {
        Candidates::new(Wanted { hash: index_key_hash(topic, key), times }, self.snapshot())
    }

    /// Returns the records that have a key and a store time in `times`, newest first, each once: of the candidates
    /// those that `matches` says yes to.
    pub(crate) fn query(
        &self,
        topic: &str,
        key: &str,
        times: RangeInclusive<i64>,
        matches: impl FnMut(LogOffset) -> Result<bool>,
    ) -> Result<Vec<LogOffset>> {
        self.candidates(topic, key, times).select(matches)
    }

    /// Makes everything put so far durable, names included.
    pub(crate) fn sync(&self) -> Result<()> {
        self.snapshot().iter().try_for_each(|file| file.flush())?;
        if self.has_new_name.swap(false, Ordering::AcqRel) {
            self.storage.sync_dir(&self.dir).inspect_err(|_| self.has_new_name.store(true, Ordering::Release))?;
        }
        Ok(())
    }

    /// Describes what is durable since the last [`sync`](Self::sync): a file or entry that is newer is not in it.
    pub(crate) fn states(&self) -> Result<Vec<IndexState>> {
        let describe = |file: &Arc<IndexFile>| {
            let (name, next_entry) = (name_of(file), file.synced_entries()?);
            Some(file.info().map(|FileInfo { bytes, modified_ns, .. }| IndexState {
                name,
                next_entry,
                bytes,
                modified_ns,
            }))
        };
        self.snapshot().iter().filter_map(describe).collect()
    }

    /// Returns the end time of the newest file that is full and durable: RocketMQ drops every newer one after a kill.
    pub(crate) fn newest_full_end_ms(&self) -> Option<i64> {
        let is_durable =
            |file: &&Arc<IndexFile>| file.synced_entries() >= Some(self.layout.entries) && !file.is_damaged();
        self.files().iter().rev().find(is_durable).map(|file| file.header().end_ms)
    }

    /// Is everything as `states` describes it? After a clean stop it must be.
    pub(crate) fn matches_states(&self, states: &[IndexState]) -> Result<bool> {
        let files = self.snapshot();
        for (state, file) in states.iter().zip(&files) {
            let info = file.info()?;
            let found = (name_of(file), file.header().next_entry, info.bytes, info.modified_ns);
            let named = (state.name, state.next_entry, state.bytes, state.modified_ns);
            if found != named || !file.is_whole()? {
                return Ok(false);
            }
        }
        Ok(states.len() == files.len())
    }

    /// Goes back to `states`, after an unclean stop: files that they do not name are removed, the newest one gets slots
    /// and header anew from its entries. `store_ms` tells the store time of a record, `None` if it is gone.
    pub(crate) fn restore(
        &self,
        states: &[IndexState],
        store_ms: impl FnMut(LogOffset) -> Result<Option<i64>>,
    ) -> Result<Restored> {
        let _writer = self.writer();
        let is_named = |file: &Arc<IndexFile>| states.iter().any(|state| state.name == name_of(file));
        let (kept, removed): (Vec<_>, Vec<_>) = self.snapshot().into_iter().partition(is_named);
        if !kept.iter().map(|file| name_of(file)).eq(states.iter().map(|state| state.name)) {
            return Ok(Restored::Mismatch);
        }
        if let (Some((newest, full)), Some(state)) = (kept.split_last(), states.last()) {
            for (state, file) in states.iter().zip(full) {
                if !file.is_whole()? || file.header().next_entry != state.next_entry {
                    return Ok(Restored::Mismatch);
                }
            }
            let before = full.last().map(|file| file.header());
            if !newest.restore(state.next_entry, before.as_ref(), store_ms)? {
                return Ok(Restored::Mismatch);
            }
        }
        self.remove(removed.iter().rev())?;
        Ok(Restored::Done)
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
        let is_below = |file: &&Arc<IndexFile>| !file.is_damaged() && file.header().end_offset < log_start.get();
        let count = files.iter().take_while(is_below).count();
        self.remove(files[..count].iter())?;
        Ok(count)
    }

    /// Removes files in the given order, and their names durably.
    fn remove<'a>(&self, files: impl ExactSizeIterator<Item = &'a Arc<IndexFile>>) -> Result<()> {
        if files.len() == 0 {
            return Ok(());
        }
        for file in files {
            self.storage.remove_file(file.path())?;
            self.files_mut().retain(|other| !Arc::ptr_eq(other, file));
        }
        self.storage.sync_dir(&self.dir)
    }

    fn snapshot(&self) -> Vec<Arc<IndexFile>> {
        self.files().clone()
    }

    fn files(&self) -> RwLockReadGuard<'_, Vec<Arc<IndexFile>>> {
        self.files.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn files_mut(&self) -> RwLockWriteGuard<'_, Vec<Arc<IndexFile>>> {
        self.files.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name_of(file: &IndexFile) -> u64 {
    let name = file.path().file_name().and_then(|name| name.to_str()).and_then(name::parse);
    name.expect("the set opens and makes only files with such names")
}
