//! All index files of a store.

use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::vec;

use super::chain::Candidates;
use super::file::IndexFile;
use super::name;
use super::state::{has_slots_of_entries, read_pieces};
use crate::clock::Clock;
use crate::disk::{FileInfo, Storage};
use crate::error::{Corruption, Error, Result};
use crate::format::index::{IndexEntry, IndexLayout};
use crate::format::names::index_file_name;
use crate::offset::LogOffset;
use crate::progress::lock;
use crate::side::IndexState;

/// The name of a file in the making: always the same, so that a failed creation leaves one file at most.
const NEW_NAME: &str = "index";

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
    files: Mutex<Vec<Arc<IndexFile>>>,
    /// Held by whoever puts, adds or removes files.
    writer: Mutex<()>,
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
        let (files, writer) = (Mutex::new(files), Mutex::new(()));
        Ok((Self { storage, dir, new_dir, layout, clock, files, writer }, strays))
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
        let _writer = lock(&self.writer);
        let Some(present) = self.entries_of(log_offset)? else { return Ok(()) };
        for key in keys.into_iter().skip(present) {
            let add = |file: &IndexFile| file.put(topic, key.as_ref(), log_offset, store_ms);
            let newest = lock(&self.files).last().cloned();
            if !newest.as_deref().map_or(Ok(false), add)? {
                assert!(add(&*self.roll(newest.as_deref())?)?, "a new index file has room");
            }
        }
        Ok(())
    }

    /// Counts the entries of a record that are there already; `None` if a newer record has some, so all are there.
    fn entries_of(&self, log_offset: LogOffset) -> Result<Option<usize>> {
        let mut count = 0;
        for file in lock(&self.files).iter().rev() {
            let Some(header) = file.header().filter(|header| header.end_offset >= log_offset.get()) else { break };
            if header.end_offset > log_offset.get() {
                return Ok(None);
            }
            let handle = file.handle()?;
            for number in (1..header.next_entry).rev() {
                if file.entry(&handle, number)?.is_none_or(|entry| entry.log_offset != log_offset.get()) {
                    return Ok(Some(count));
                }
                count += 1;
            }
        }
        Ok(Some(count))
    }

    /// Makes the next file.
    fn roll(&self, newest: Option<&IndexFile>) -> Result<Arc<IndexFile>> {
        // RocketMQ's checkpoint counts on full files, and recovery makes only the newest anew.
        newest.map_or(Ok(()), IndexFile::finish)?;
        let name = index_file_name(name::next(self.clock.now_ms(), newest.map(name_of)));
        self.storage.create_dir_durably(&self.dir)?;
        self.storage.create_dir_durably(&self.new_dir)?;
        let paths = [&*self.new_dir.join(NEW_NAME), &self.dir.join(name)];
        let before = newest.and_then(IndexFile::header);
        let file = Arc::new(IndexFile::make(self.storage.clone(), paths, self.layout, before)?);
        lock(&self.files).push(Arc::clone(&file));
        Ok(file)
    }

    /// Returns log offsets of records that may have the key and a store time in `times`, newest first, each once.
    /// Nothing is read before it is asked for.
    pub(crate) fn candidates(&self, topic: &str, key: &str, times: RangeInclusive<i64>) -> Candidates {
        Candidates::new(topic, key, times, self.snapshot())
    }

    /// Makes everything put so far durable, names included.
    pub(crate) fn sync(&self) -> Result<()> {
        let files = self.snapshot();
        files.iter().try_for_each(|file| file.flush())?;
        if files.is_empty() { Ok(()) } else { self.storage.sync_dir(&self.dir) }
    }

    /// Goes through all entries: log offset and hash. `may_go`: another process may delete files meanwhile.
    pub(crate) fn entries(&self, may_go: bool) -> Result<Entries> {
        self.sync()?;
        let (files, current) = (self.snapshot().into_iter(), Vec::new().into_iter());
        Ok(Entries { files, current, may_go, gone: LogOffset::ZERO, damages: Vec::new() })
    }

    /// Describes what is durable since the last [`sync`](Self::sync): a file or entry that is newer is not in it.
    pub(crate) fn states(&self) -> Result<Vec<IndexState>> {
        let describe_synced = |file: &Arc<IndexFile>| Some(describe(file, file.state().synced?));
        self.snapshot().iter().filter_map(describe_synced).collect()
    }

    /// Returns the end time of the newest file that is full and durable: RocketMQ drops every newer one after a kill.
    pub(crate) fn newest_full_end_ms(&self) -> Option<i64> {
        let is_full = |file: &&Arc<IndexFile>| file.state().synced >= Some(self.layout.entries);
        lock(&self.files).iter().rev().filter(is_full).find_map(|file| Some(file.header()?.end_ms))
    }

    /// Is everything as `states` describes it? After a clean stop it must be.
    pub(crate) fn matches_states(&self, states: &[IndexState]) -> Result<bool> {
        let describe_whole =
            |file: &Arc<IndexFile>| file.whole_header()?.map(|header| describe(file, header.next_entry)).transpose();
        let found = self.snapshot().iter().map(describe_whole).collect::<Result<Vec<_>>>()?;
        Ok(found.into_iter().eq(states.iter().copied().map(Some)))
    }

    /// Goes back to what `states` and the log offset `end` describe, after an unclean stop: files that are not named or
    /// begin behind `end` are removed, the newest one left gets slots and header anew from its entries. `store_ms` tells
    /// the store time of a record, `None` if it is gone.
    ///
    /// Returns `false` if a file is missing or damaged: the index has to be cleared and built anew.
    pub(crate) fn restore(
        &self,
        states: &[IndexState],
        end: LogOffset,
        store_ms: impl FnMut(LogOffset) -> Result<Option<i64>>,
    ) -> Result<bool> {
        let _writer = lock(&self.writer);
        let files = self.snapshot();
        let of_name = |name| files.iter().find(|file| name_of(file) == name);
        let kept: Option<Vec<_>> = states.iter().map(|state| Some((of_name(state.name)?, state))).collect();
        let Some(mut kept) = kept else { return Ok(false) };
        // Entries may have come between a sync and the frame that names it.
        while kept.pop_if(|(file, _)| file.header().is_some_and(|header| header.begin_offset >= end.get())).is_some() {}
        if let Some(((newest, state), full)) = kept.split_last() {
            let mut before = None;
            for (file, state) in full {
                before = file.whole_header()?.filter(|header| header.next_entry == state.next_entry);
                if before.is_none() {
                    return Ok(false);
                }
            }
            if !newest.restore((state.next_entry, end), before, store_ms)? {
                return Ok(false);
            }
        }
        let is_kept = |file: &Arc<IndexFile>| kept.iter().any(|(kept, _)| Arc::ptr_eq(kept, file));
        self.remove(files.iter().rev().filter(|file| !is_kept(file)))?;
        Ok(true)
    }

    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.files).is_empty()
    }

    /// Removes every index file.
    pub(crate) fn clear(&self) -> Result<()> {
        let _writer = lock(&self.writer);
        self.remove(self.snapshot().iter().rev()).map(drop)
    }

    /// Removes the oldest files as long as all their records are below the start of the log; never the newest file.
    /// Returns how many went.
    pub(crate) fn delete_before(&self, log_start: LogOffset) -> Result<usize> {
        let _writer = lock(&self.writer);
        let mut files = self.snapshot();
        files.pop();
        let is_below = |file: &&Arc<IndexFile>| file.header().is_some_and(|it| it.end_offset < log_start.get());
        self.remove(files.iter().take_while(is_below))
    }

    /// Removes files in the given order, and their names durably. Returns how many there were.
    fn remove<'a>(&self, files: impl Iterator<Item = &'a Arc<IndexFile>>) -> Result<usize> {
        let mut count = 0;
        for file in files {
            self.storage.remove_file(&file.path)?;
            lock(&self.files).retain(|other| !Arc::ptr_eq(other, file));
            count += 1;
        }
        if count > 0 {
            self.storage.sync_dir(&self.dir)?;
        }
        Ok(count)
    }

    pub(super) fn snapshot(&self) -> Vec<Arc<IndexFile>> {
        lock(&self.files).clone()
    }
}

fn name_of(file: &IndexFile) -> u64 {
    let name = file.path.file_name().and_then(|name| name.to_str()).and_then(name::parse);
    name.expect("the set opens and makes only files with such names")
}

/// Describes a file as it is on the disk, with its entries below `next_entry`.
fn describe(file: &IndexFile, next_entry: u32) -> Result<IndexState> {
    let FileInfo { bytes, modified_ns, .. } = file.info()?;
    Ok(IndexState { name: name_of(file), next_entry, bytes, modified_ns })
}

/// Every entry of an index in the order in which they were put: a file at a time is in memory.
#[derive(Debug)]
pub(crate) struct Entries {
    files: vec::IntoIter<Arc<IndexFile>>,
    current: vec::IntoIter<(LogOffset, u32)>,
    may_go: bool,
    /// Below this the entries went with their file.
    pub(crate) gone: LogOffset,
    /// Files whose slots or chains are not those of their entries.
    pub(crate) damages: Vec<Corruption>,
}

impl Entries {
    /// Returns the next entry of a record at or below `at`, if there is one.
    pub(crate) fn next_until(&mut self, at: LogOffset) -> Result<Option<(LogOffset, u32)>> {
        loop {
            if let Some(entry) = self.current.as_slice().first() {
                return Ok(if entry.0 <= at { self.current.next() } else { None });
            }
            let Some(file) = self.files.next() else { return Ok(None) };
            self.current = match self.load(&file) {
                Err(Error::Io { source, .. }) if self.may_go && source.kind() == io::ErrorKind::NotFound => {
                    self.gone = file.header().map_or(self.gone, |header| LogOffset::new(header.end_offset + 1));
                    continue;
                }
                entries => entries?.into_iter(),
            };
        }
    }

    fn load(&mut self, index: &IndexFile) -> Result<Vec<(LogOffset, u32)>> {
        let (file, layout) = (index.handle()?, index.layout);
        let header = index.whole_header()?;
        let next_entry = header.map_or(layout.entries, |header| header.next_entry);
        // Where somebody puts, the file on the disk is behind: only then it is worth to let them wait.
        let is_sound = header.is_some() && (has_slots_of_entries(&file, layout, next_entry)? || index.is_sound()?);
        if !is_sound {
            let range = 0..layout.file_bytes();
            let reason = "header, slots and chains are not those of the entries".to_owned();
            self.damages.push(Corruption { path: file.path().into(), range, reason });
        }
        let mut entries = Vec::new();
        read_pieces(&file, layout.entry_at(1)..layout.entry_at(next_entry.max(1)), |_, piece| {
            let decoded = piece.chunks(IndexEntry::BYTES).map(IndexEntry::decode);
            entries.extend(decoded.flatten().map(|entry| (LogOffset::new(entry.log_offset), entry.hash)));
            Ok(true)
        })?;
        Ok(entries)
    }
}
