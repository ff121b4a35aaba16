//! One index file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use super::state::{InUse, State, fits, has_slots_of_entries, read_entry, read_header};
use crate::disk::{File, FileInfo, OpenMode, Storage};
use crate::error::{Corruption, Error, Result};
use crate::format::index::{IndexEntry, IndexHeader, IndexLayout};
use crate::format::java_hash::index_key_hash;
use crate::offset::LogOffset;
use crate::progress::lock;

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
    pub(super) path: PathBuf,
    pub(super) layout: IndexLayout,
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
        Self::make(storage, [path, path], layout, None)
    }

    /// Opens an index file. Its layout is not stored in it: it must be the one that the file was made with. Nothing keeps
    /// another opening of the same file from putting too; then one of them loses entries.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidOption`] as for [`create`](Self::create)
    /// - [`Error::Io`] if the file cannot be opened or read
    /// - [`Error::Corrupt`] if the file has another length or its header is damaged
    pub fn open(path: impl AsRef<Path>, layout: IndexLayout) -> Result<Self> {
        let file = Self::open_any(Storage::real(), path.as_ref(), layout)?;
        if file.whole_header()?.is_some() {
            return Ok(file);
        }
        let reason = format!("it is no index file with {} slots and {} entries", layout.slots, layout.entries);
        Err(Corruption { range: 0..file.info()?.bytes, path: file.path, reason }.into())
    }

    /// Makes a file under the first path, moves it to the second and opens it for putting. `before` is the header of the
    /// file before this one.
    pub(super) fn make(
        storage: Storage,
        [new_path, path]: [&Path; 2],
        layout: IndexLayout,
        before: Option<IndexHeader>,
    ) -> Result<Self> {
        check_layout(layout)?;
        let header = seeded(before);
        let made = storage.open(new_path, OpenMode::Create).and_then(|file| {
            file.set_len(layout.file_bytes())?;
            // With blocks for all of its slots, a full disk can only meet the entries.
            file.allocate(0..layout.slot_at(layout.slots))?;
            let mut in_use = InUse::empty(file, layout);
            in_use.write_head(&header)?;
            storage.rename(new_path, path)?;
            in_use.file = in_use.file.renamed(path);
            Ok(in_use)
        });
        let in_use = made.inspect_err(|_| {
            // The first error is the one to tell; what is left of the file may stay.
            let _ = storage.remove_file(new_path);
        })?;
        Ok(Self { storage, path: path.into(), layout, state: Mutex::new(State::of_new(header, in_use)) })
    }

    /// Opens a file for reading, whatever is in it. One with a damaged header is searched, but takes no entries.
    pub(super) fn open_any(storage: Storage, path: &Path, layout: IndexLayout) -> Result<Self> {
        check_layout(layout)?;
        let file = storage.open(path, OpenMode::Read)?;
        let header = match read_header(&file)? {
            Some(found) if fits(&file, layout, &found)? => Some(found),
            _ => None,
        };
        Ok(Self { storage, path: path.into(), layout, state: Mutex::new(State::of_file(header, layout)) })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The header; `None` if it is damaged.
    pub(super) fn header(&self) -> Option<IndexHeader> {
        let state = self.state();
        (!state.is_damaged).then_some(state.header)
    }

    /// The header of a file that has the length of its layout; `None` if it is damaged.
    pub(super) fn whole_header(&self) -> Result<Option<IndexHeader>> {
        let bytes = self.info()?.bytes;
        Ok(self.header().filter(|_| bytes == self.layout.file_bytes()))
    }

    /// Length and time on the disk.
    pub(super) fn info(&self) -> Result<FileInfo> {
        self.storage.open(&self.path, OpenMode::Read)?.info()
    }

    /// The file, open for reading.
    pub(super) fn handle(&self) -> Result<File> {
        let open = self.state().in_use.as_ref().map(|in_use| in_use.file.clone());
        open.map_or_else(|| self.storage.open(&self.path, OpenMode::Read), Ok)
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
        let State { header, in_use, .. } = &mut *self.state();
        if header.next_entry >= self.layout.entries {
            return Ok(false);
        }
        let in_use = match in_use {
            Some(in_use) => in_use,
            None => {
                let file = self.storage.open(&self.path, OpenMode::ReadWrite)?;
                in_use.insert(InUse::load(file, self.layout, header.next_entry)?)
            }
        };
        if in_use.pending.len() >= RUN_BYTES {
            in_use.write_entries()?;
        }
        in_use.add(header, index_key_hash(topic, key), log_offset.get(), store_ms);
        Ok(true)
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
            let State { header, in_use, synced, sync_failure, .. } = &mut *self.state();
            if let Some(error) = sync_failure {
                return Err(error.clone());
            }
            let is_new = *synced != Some(header.next_entry);
            let Some(in_use) = in_use.as_mut().filter(|_| is_new) else { return Ok(()) };
            in_use.write_entries()?;
            in_use.write_head(header)?;
            (in_use.file.clone(), header.next_entry)
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

    /// Are slots and chains those of the entries? Nobody puts meanwhile, and what was put before is written first.
    pub(super) fn is_sound(&self) -> Result<bool> {
        let mut state = self.state();
        let State { header, in_use, .. } = &mut *state;
        let file = match in_use {
            Some(in_use) => {
                in_use.write_entries()?;
                in_use.write_head(header)?;
                in_use.file.clone()
            }
            None => self.storage.open(&self.path, OpenMode::Read)?,
        };
        has_slots_of_entries(&file, self.layout, header.next_entry)
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
        before: Option<IndexHeader>,
        mut store_ms: impl FnMut(LogOffset) -> Result<Option<i64>>,
    ) -> Result<bool> {
        let file = self.storage.open(&self.path, OpenMode::ReadWrite)?;
        if file.info()?.bytes != self.layout.file_bytes() || !(1..=self.layout.entries).contains(&next_entry) {
            return Ok(false);
        }
        let rebuilt = InUse::rebuild(file.clone(), self.layout, next_entry, end)?;
        let Some((in_use, mut header, left_out)) = rebuilt else { return Ok(false) };
        let old = read_header(&file)?.unwrap_or_default();
        // The header that was synced with the entries counts them. And one entry alone of a record that is nowhere is rather
        // damage than what came between the sync and the frame.
        let is_lost = left_out.0 == 1 && store_ms(LogOffset::new(left_out.1))?.is_none();
        if is_lost || old.next_entry < next_entry {
            return Ok(false);
        }
        if header.next_entry == 1 {
            header = seeded(before);
        } else {
            // The times of the header on the disk hold if they are of these two records.
            let mut time_of = |offset, old_offset, old_ms| {
                Ok::<_, Error>(store_ms(LogOffset::new(offset))?.or((offset == old_offset).then_some(old_ms)))
            };
            let begin_ms = time_of(header.begin_offset, old.begin_offset, old.begin_ms)?;
            let Some(begin_ms) = begin_ms else { return Ok(false) };
            let end_ms = time_of(header.end_offset, old.end_offset, old.end_ms)?;
            // Without its record, the last entry's time is known to the second.
            let seconds = read_entry(&file, self.layout, header.next_entry - 1)?.map_or(0, |last| last.seconds);
            let latest_ms = begin_ms.saturating_add(i64::from(seconds) * 1000 + 999);
            header = IndexHeader { begin_ms, end_ms: end_ms.unwrap_or(latest_ms), ..header };
        }
        // Cutting and extending zeroes what is behind, and gives its blocks back.
        file.set_len(self.layout.entry_at(header.next_entry))?;
        file.set_len(self.layout.file_bytes())?;
        *self.state() = State::of_new(header, in_use);
        Ok(true)
    }
}

/// The header of a file that follows a full one, as RocketMQ begins it.
fn seeded(before: Option<IndexHeader>) -> IndexHeader {
    let (ms, offset) = before.map_or((0, 0), |before| (before.end_ms.max(0), before.end_offset));
    IndexHeader { begin_ms: ms, end_ms: ms, begin_offset: offset, end_offset: offset, ..IndexHeader::default() }
}

fn check_layout(layout: IndexLayout) -> Result<()> {
    let limits = 1..=i32::MAX.unsigned_abs();
    if limits.contains(&layout.slots) && limits.contains(&layout.entries) && layout.entries > 1 {
        return Ok(());
    }
    let reason = format!("{layout:?} needs a slot and two entries, and at most {} of each", limits.end());
    Err(Error::InvalidOption { option: "index layout", reason })
}
