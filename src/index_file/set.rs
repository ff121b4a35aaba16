//! All index files of a store.

use std::cmp;
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

    /// Adds the entries of one record: its keys in RocketMQ's order, unique key first. Records come in the order of the
    /// log; entries that are there already are not added again.
    ///
    /// After an error, a full disk for example, nothing is lost, and the call can be repeated.
    pub(crate) fn put(
        &self,
        topic: &str,
        keys: impl IntoIterator<Item = impl AsRef<str>>,
        log_offset: LogOffset,
        store_ms: i64,
    ) -> Result<()> {
        let _writer = self.writer();
        let Some(present) = self.entries_of(log_offset)? else { return Ok(()) };
        for key in keys.into_iter().skip(present) {
            let newest = self.files().last().cloned();
            if let Some(newest) = &newest {
                if newest.put(topic, key.as_ref(), log_offset, store_ms)? {
                    continue;
                }
                // RocketMQ's checkpoint counts on full files, and recovery makes only the newest anew.
                newest.finish()?;
            }
            let is_put = self.roll(newest.as_deref())?.put(topic, key.as_ref(), log_offset, store_ms)?;
            assert!(is_put, "a new index file has room");
        }
        Ok(())
    }

    /// Counts the entries of a record that are there already; `None` if a newer record has some, so all are there.
    fn entries_of(&self, log_offset: LogOffset) -> Result<Option<usize>> {
        let mut count = 0;
        for file in self.files().iter().rev() {
            let header = file.header();
            match header.end_offset.cmp(&log_offset.get()) {
                cmp::Ordering::Greater => return Ok(None),
                cmp::Ordering::Less => break,
                cmp::Ordering::Equal => {}
            }
            let of_file = file.last_entries_of(log_offset)?;
            count += of_file as usize;
            if of_file + 1 < header.next_entry {
                break;
            }
        }
        Ok(Some(count))
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
    pub(crate) fn candidates(&self, topic: &str, key: &str, times: RangeInclusive<i64>) -> Candidates {
        Candidates::new(Wanted { hash: index_key_hash(topic, key), times }, self.snapshot())
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

    /// Goes back to what `states` and the log offset `end` describe, after an unclean stop: files that are not named or
    /// begin behind `end` are removed, the newest one left gets slots and header anew from its entries. `store_ms` tells
    /// the store time of a record, `None` if it is gone.
    pub(crate) fn restore(
        &self,
        states: &[IndexState],
        end: LogOffset,
        store_ms: impl FnMut(LogOffset) -> Result<Option<i64>>,
    ) -> Result<Restored> {
        let _writer = self.writer();
        let files = self.snapshot();
        let (mut kept, mut before) = (Vec::new(), None);
        for state in states {
            let Some(file) = files.iter().find(|file| name_of(file) == state.name) else {
                return Ok(Restored::Mismatch);
            };
            kept.push((file, state));
        }
        // Entries may have come between a sync and the frame that names it.
        while kept.pop_if(|(file, _)| !file.is_damaged() && file.header().begin_offset >= end.get()).is_some() {}
        if let Some(((newest, state), full)) = kept.split_last() {
            for (file, state) in full {
                if !file.is_whole()? || file.header().next_entry != state.next_entry {
                    return Ok(Restored::Mismatch);
                }
                before = Some(file.header());
            }
            if !newest.restore((state.next_entry, end), before.as_ref(), store_ms)? {
                return Ok(Restored::Mismatch);
            }
        }
        let is_kept = |file: &Arc<IndexFile>| kept.iter().any(|(kept, _)| Arc::ptr_eq(kept, file));
        let removed: Vec<_> = files.iter().rev().filter(|file| !is_kept(file)).collect();
        self.remove(removed.into_iter())?;
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
