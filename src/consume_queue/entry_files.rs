//! Entries of a fixed size over files of a fixed length: file `n` holds the entries `n * per_file ..`, and its name is
//! the position of its first byte. Also RocketMQ's extension files, which are only read.
//!
//! Always: a file has its full length before it has its name; nothing is mapped; files stay sparse; a bounded number of
//! files is open, of all queues together.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use crate::disk::{File, Listed, OpenMode, Storage};
use crate::error::{Corruption, Error, Result};
use crate::format::names::{log_file_name, parse_log_file_name};
use crate::format::properties::SCHEDULE_TOPIC;
use crate::format::queue_entry::{BatchEntry, ExtensionAddress, ExtensionUnit, QueueEntry};
use crate::progress::lock;
use crate::side::{FileState, MAX_QUEUE_ENTRIES};

/// Entries are read and compared in pieces of about this many bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// The sizes of the queues' files, and how many of them are kept open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueSizes {
    pub(crate) queue_file_entries: u32,
    pub(crate) batch_queue_file_entries: u32,
    pub(crate) max_open_files: usize,
    /// The length of a log file; 0 for a queue alone.
    pub(crate) log_file_bytes: u64,
}

/// What all queues of a table share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) storage: Storage,
    pub(super) root: PathBuf,
    /// The folder for files in the making, on the same disk.
    new_dir: PathBuf,
    pub(super) sizes: QueueSizes,
    handles: Mutex<Handles>,
    /// Lets one caller sync at a time, so that nobody returns while another still syncs what both wait for.
    pub(super) sync_turn: Mutex<()>,
    numbers: AtomicU32,
}

impl Shared {
    pub(super) fn new(storage: Storage, root: &Path, new_dir: &Path, sizes: QueueSizes) -> Result<Arc<Self>> {
        if sizes.queue_file_entries == 0 || sizes.batch_queue_file_entries == 0 {
            let reason = "a file holds at least one entry".into();
            return Err(Error::InvalidOption { option: "queue_file_entries", reason });
        }
        let (root, new_dir, handles) = (root.into(), new_dir.into(), Mutex::default());
        let (sync_turn, numbers) = (Mutex::default(), AtomicU32::default());
        Ok(Arc::new(Self { storage, root, new_dir, sizes, handles, sync_turn, numbers }))
    }

    /// Opens something; where no descriptor is left, those of the queues are given up first.
    fn with_descriptor(&self, open: impl Fn() -> Result<File>) -> Result<File> {
        match open() {
            Err(error) if error.lacks_descriptor() => {
                lock(&self.handles).files.clear();
                open()
            }
            opened => opened,
        }
    }
}

/// Open files; when there are too many, the one used longest ago is closed.
#[derive(Debug, Default)]
struct Handles {
    /// By the number of a queue in its table and that of a file in its queue; each with the time of its last use.
    files: HashMap<(u32, u64), (File, u64)>,
    /// Counts uses.
    time: u64,
    /// Counts removals: what was opened before one may be a file that is gone.
    removed: u64,
}

/// The folder of all queues of a kind.
pub(super) const fn folder(is_batch: bool) -> &'static str {
    if is_batch { "batchconsumequeue" } else { "consumequeue" }
}

/// The files of one queue.
#[derive(Debug)]
pub(super) struct EntryFiles {
    pub(super) shared: Arc<Shared>,
    pub(super) topic: Arc<str>,
    pub(super) queue_id: i32,
    /// A batch queue has an entry for each record, which holds one or more messages; entries name their queue offsets.
    /// A plain queue has an entry for each message; the number of an entry is its queue offset.
    pub(super) is_batch: bool,
    number: u32,
}

impl EntryFiles {
    pub(super) fn new(shared: &Arc<Shared>, topic: Arc<str>, queue_id: i32, is_batch: bool) -> Self {
        let number = shared.numbers.fetch_add(1, Ordering::Relaxed);
        Self { shared: Arc::clone(shared), topic, queue_id, is_batch, number }
    }

    /// How many entries a file holds.
    pub(super) fn per_file(&self) -> u64 {
        let sizes = &self.shared.sizes;
        if self.is_batch { sizes.batch_queue_file_entries } else { sizes.queue_file_entries }.into()
    }

    pub(super) const fn entry_bytes(&self) -> usize {
        if self.is_batch { BatchEntry::BYTES } else { QueueEntry::BYTES }
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.per_file() * self.entry_bytes() as u64
    }

    pub(super) fn dir(&self) -> PathBuf {
        self.dir_in(folder(self.is_batch))
    }

    /// The queue's folder in one of the store's folders.
    pub(super) fn dir_in(&self, folder: &str) -> PathBuf {
        self.shared.root.join(folder).join(&*self.topic).join(self.queue_id.to_string())
    }

    fn path(&self, file: u64) -> PathBuf {
        self.dir().join(log_file_name(file * self.file_bytes()))
    }

    /// Lists the files whose names are positions, in order, and the paths of what else is there.
    pub(super) fn list(&self) -> Result<(Vec<FileState>, Vec<PathBuf>)> {
        let (mut files, mut strays) = (Vec::new(), Vec::new());
        let dir = self.dir();
        for Listed { name, info } in self.shared.storage.list(&dir)? {
            match parse_log_file_name(&name).filter(|_| !info.is_dir) {
                Some(base) => files.push(FileState { base, bytes: info.bytes, modified_ns: info.modified_ns }),
                None => strays.push(dir.join(name)),
            }
        }
        Ok((files, strays))
    }

    /// Is this a file of the right length in a right place?
    pub(super) fn is_whole(&self, file: &FileState) -> bool {
        file.bytes == self.file_bytes() && self.is_placed(file)
    }

    /// Can a file of the queue begin there?
    pub(super) fn is_placed(&self, file: &FileState) -> bool {
        file.base.is_multiple_of(self.file_bytes())
            && file.base / self.entry_bytes() as u64 <= MAX_QUEUE_ENTRIES - self.per_file()
    }

    /// Lists the numbers of the whole files.
    pub(super) fn numbers(&self) -> Result<Vec<u64>> {
        let whole = self.list()?.0.into_iter().filter(|file| self.is_whole(file));
        Ok(whole.map(|file| file.base / self.file_bytes()).collect())
    }

    /// Returns the open file, or opens it without holding the lock.
    pub(super) fn open(&self, file: u64) -> Result<File> {
        let key = (self.number, file);
        let removed = {
            let handles = &mut *lock(&self.shared.handles);
            handles.time += 1;
            if let Some((file, used)) = handles.files.get_mut(&key) {
                *used = handles.time;
                return Ok(file.clone());
            }
            handles.removed
        };
        let open = |mode| self.shared.with_descriptor(|| self.shared.storage.open(&self.path(file), mode));
        let file = match open(OpenMode::ReadWrite) {
            Err(error) if is_forbidden(&error) => open(OpenMode::Read)?,
            opened => opened?,
        };
        let handles = &mut *lock(&self.shared.handles);
        if handles.removed == removed {
            if handles.files.len() >= self.shared.sizes.max_open_files.max(1) {
                let oldest = handles.files.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| *key);
                oldest.and_then(|oldest| handles.files.remove(&oldest));
            }
            handles.files.insert(key, (file.clone(), handles.time));
        }
        Ok(file)
    }

    /// Makes a file of full length, all zero. Its name is durable only after the folder was synced.
    pub(super) fn create(&self, file: u64) -> Result<()> {
        let storage = &self.shared.storage;
        storage.create_dir_all(&self.shared.new_dir)?;
        let temporary = self.shared.new_dir.join(format!("queue-{}-{file}", self.number));
        self.shared.with_descriptor(|| storage.open(&temporary, OpenMode::Create))?.set_len(self.file_bytes())?;
        storage.create_dir_all(&self.dir())?;
        storage.rename(&temporary, &self.path(file))
    }

    /// Removes the file whose name is a position.
    pub(super) fn remove(&self, base: u64) -> Result<()> {
        self.shared.storage.remove_file(&self.dir().join(log_file_name(base)))?;
        let mut handles = lock(&self.shared.handles);
        handles.removed += 1;
        handles.files.remove(&(self.number, base / self.file_bytes()));
        Ok(())
    }

    /// What stands in front of a queue's first message, whose record has this place.
    pub(super) fn filler_in_front(&self, (log_offset, record_bytes): (u64, u32)) -> [u8; QueueEntry::BYTES] {
        self.filler_alone(log_offset).unwrap_or_else(|| {
            // Who delivers delayed messages leaves none out, but takes a filler for one that is due.
            let is_hidden = self.shared.sizes.log_file_bytes > 0 && &*self.topic != SCHEDULE_TOPIC;
            if is_hidden { QueueEntry::filler_at(log_offset, record_bytes).encode() } else { QueueEntry::FILLER }
        })
    }

    /// What stands in a queue without messages, in a log that goes up to `log_offset`; `None` if that has one file.
    pub(super) fn filler_alone(&self, log_offset: u64) -> Option<[u8; QueueEntry::BYTES]> {
        let border = self.shared.sizes.log_file_bytes;
        (0 < border && border < log_offset).then(|| QueueEntry::filler_across(border).encode())
    }

    /// Where an entry is: its file and the position in it.
    pub(super) fn place(&self, entry: u64) -> (u64, u64) {
        (entry / self.per_file(), entry % self.per_file() * self.entry_bytes() as u64)
    }

    /// Reads entries from `first` on: at most `count`, at most a piece, and none of the next file.
    pub(super) fn read(&self, first: u64, count: u64) -> Result<Vec<u8>> {
        let (file, position) = self.place(first);
        let piece = (PIECE_BYTES / self.entry_bytes()) as u64;
        let count = count.min(self.per_file() - first % self.per_file()).min(piece);
        let mut bytes = vec![0; count as usize * self.entry_bytes()];
        let handle = match self.open(file) {
            Err(error) if error.is_missing() => {
                return Err(self.corrupt(first, count, "the file is missing"));
            }
            handle => handle?,
        };
        if handle.read_at(&mut bytes, position)? < bytes.len() {
            return Err(self.corrupt(first, count, "the file ends early"));
        }
        Ok(bytes)
    }

    /// Names damage of `count` entries.
    pub(super) fn corrupt(&self, first: u64, count: u64, reason: impl Into<String>) -> Error {
        let (file, position) = self.place(first);
        let range = position..position + count * self.entry_bytes() as u64;
        Corruption { path: self.path(file), range, reason: reason.into() }.into()
    }
}

/// The extension files of one queue, as they are when the first of them is needed: a unit holds the tags code of the
/// message whose entry has its address.
#[derive(Debug)]
pub(super) struct Extension<'a> {
    queue: &'a EntryFiles,
    files: Option<Vec<(u64, File)>>,
}

impl<'a> Extension<'a> {
    pub(super) const fn new(queue: &'a EntryFiles) -> Self {
        Self { queue, files: None }
    }

    /// Returns an entry's tags code, `None` if it is in a unit that is missing or damaged.
    pub(super) fn tags_code(&mut self, entry: &QueueEntry) -> Result<Option<i64>> {
        let address = ExtensionAddress::from_tags_code(entry.tags_code).filter(|_| !self.queue.is_batch);
        let Some(address) = address.map(ExtensionAddress::offset) else { return Ok(Some(entry.tags_code)) };
        if self.files.is_none() {
            self.files = Some(self.open()?);
        }
        let at_or_before = self.files.iter().flatten().rev().find(|(base, _)| *base <= address);
        let Some((base, file)) = at_or_before else { return Ok(None) };
        let mut bytes = vec![0; i16::MAX as usize];
        let present = file.read_at(&mut bytes, address - base)?;
        Ok(ExtensionUnit::decode(&bytes[..present]).ok().flatten().map(|unit| unit.tags_code))
    }

    /// Does a stored entry say what a given one says, be it by the address of a unit?
    pub(super) fn says_the_same(&mut self, stored: &[u8], given: &[u8]) -> Result<bool> {
        if stored == given || self.queue.is_batch {
            return Ok(stored == given);
        }
        let (Ok(Some(stored)), Ok(Some(given))) = (QueueEntry::decode(stored), QueueEntry::decode(given)) else {
            return Ok(false);
        };
        let same_place = stored.log_offset == given.log_offset && stored.record_bytes == given.record_bytes;
        Ok(same_place && self.tags_code(&stored)? == Some(given.tags_code))
    }

    fn open(&self) -> Result<Vec<(u64, File)>> {
        let (dir, storage) = (self.queue.dir_in("consumequeue_ext"), &self.queue.shared.storage);
        let files = storage.list(&dir)?.into_iter().filter_map(|Listed { name, info }| {
            let base = parse_log_file_name(&name).filter(|_| !info.is_dir)?;
            Some(storage.open(&dir.join(&name), OpenMode::Read).map(|file| (base, file)))
        });
        files.collect()
    }
}

/// Does the operating system refuse to write here at all?
fn is_forbidden(error: &Error) -> bool {
    use ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    matches!(error, Error::Io { source, .. } if matches!(source.kind(), PermissionDenied | ReadOnlyFilesystem))
}
