//! Entries of a fixed size over files of a fixed length: file `n` holds the entries `n * per_file ..`, and its name is
//! the position of its first byte.
//!
//! Always: a file has its full length before it has its name; nothing is mapped; files stay sparse.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::handles::Handles;
use crate::disk::{File, OpenMode, Storage};
use crate::error::{Corruption, Error, Result};
use crate::format::names::{log_file_name, parse_log_file_name};
use crate::format::queue_entry::{BatchEntry, QueueEntry};
use crate::side::FileState;

/// Entries are read and compared in pieces of about this many bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// What all queues of a table share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) storage: Storage,
    pub(super) root: PathBuf,
    /// The folder for files in the making, on the same disk.
    pub(super) new_dir: PathBuf,
    pub(super) plain_entries: u32,
    pub(super) batch_entries: u32,
    pub(super) handles: Handles,
    /// Lets one caller sync at a time, so that nobody returns while another still syncs what both wait for.
    pub(super) sync_turn: Mutex<()>,
    numbers: AtomicU32,
}

impl Shared {
    pub(super) fn new(storage: Storage, root: PathBuf, new_dir: PathBuf, sizes: super::QueueSizes) -> Arc<Self> {
        Arc::new(Self {
            storage,
            root,
            new_dir,
            plain_entries: sizes.queue_file_entries,
            batch_entries: sizes.batch_queue_file_entries,
            handles: Handles::new(sizes.max_open_files),
            sync_turn: Mutex::new(()),
            numbers: AtomicU32::new(0),
        })
    }
}

/// The two kinds of queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An entry for each message; the number of an entry is its queue offset.
    Plain,
    /// An entry for each record, which holds one or more messages; entries name their queue offsets.
    Batch,
}

impl Kind {
    pub(super) const fn folder(self) -> &'static str {
        match self {
            Self::Plain => "consumequeue",
            Self::Batch => "batchconsumequeue",
        }
    }
}

/// The files of one queue.
#[derive(Debug)]
pub(super) struct EntryFiles {
    shared: Arc<Shared>,
    topic: Arc<str>,
    queue_id: i32,
    number: u32,
    kind: Kind,
}

impl EntryFiles {
    pub(super) fn new(shared: &Arc<Shared>, topic: Arc<str>, queue_id: i32, kind: Kind) -> Self {
        let number = shared.numbers.fetch_add(1, Ordering::Relaxed);
        Self { shared: Arc::clone(shared), topic, queue_id, number, kind }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) fn topic(&self) -> &str {
        &self.topic
    }

    pub(super) const fn queue_id(&self) -> i32 {
        self.queue_id
    }

    pub(super) const fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) const fn entry_bytes(&self) -> usize {
        match self.kind {
            Kind::Plain => QueueEntry::BYTES,
            Kind::Batch => BatchEntry::BYTES,
        }
    }

    /// How many entries a file holds.
    pub(super) fn per_file(&self) -> u64 {
        u64::from(match self.kind {
            Kind::Plain => self.shared.plain_entries,
            Kind::Batch => self.shared.batch_entries,
        })
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.per_file() * self.entry_bytes() as u64
    }

    /// How many entries are read at once.
    pub(super) const fn piece(&self) -> u64 {
        (PIECE_BYTES / self.entry_bytes()) as u64
    }

    pub(super) fn dir(&self) -> PathBuf {
        self.dir_in(self.kind.folder())
    }

    /// The queue's folder in one of the store's folders.
    pub(super) fn dir_in(&self, folder: &str) -> PathBuf {
        let mut dir = self.shared.root.join(folder);
        dir.push(&*self.topic);
        dir.push(self.queue_id.to_string());
        dir
    }

    pub(super) fn path(&self, file: u64) -> PathBuf {
        self.dir().join(log_file_name(file * self.file_bytes()))
    }

    /// Lists the files whose names are positions, in order; any other name is not ours.
    pub(super) fn list(&self) -> Result<Vec<FileState>> {
        let listed = self.shared.storage.list(&self.dir())?;
        let mut files: Vec<_> = listed
            .iter()
            .filter(|listed| !listed.info.is_dir)
            .filter_map(|listed| {
                let base = parse_log_file_name(&listed.name)?;
                Some(FileState { base, bytes: listed.info.bytes, modified_ns: listed.info.modified_ns })
            })
            .collect();
        files.sort_unstable_by_key(|file| file.base);
        Ok(files)
    }

    /// The number of a listed file, if its name and length are those of a whole file.
    pub(super) fn number_of(&self, file: &FileState) -> Option<u64> {
        let bytes = self.file_bytes();
        (file.bytes == bytes && file.base.is_multiple_of(bytes)).then(|| file.base / bytes)
    }

    /// Lists the numbers of the whole files.
    pub(super) fn numbers(&self) -> Result<Vec<u64>> {
        Ok(self.list()?.iter().filter_map(|file| self.number_of(file)).collect())
    }

    pub(super) fn open(&self, file: u64) -> Result<File> {
        self.shared.handles.get_or_open((self.number, file), || {
            let path = self.path(file);
            match self.shared.storage.open(&path, OpenMode::ReadWrite) {
                Err(error) if is_forbidden(&error) => self.shared.storage.open(&path, OpenMode::Read),
                opened => opened,
            }
        })
    }

    /// Makes a file of full length, all zero. Its name is durable only after the folder was synced.
    pub(super) fn create(&self, file: u64) -> Result<File> {
        let storage = &self.shared.storage;
        storage.create_dir_all(&self.shared.new_dir)?;
        let temporary = self.shared.new_dir.join(format!("queue-{}-{file}", self.number));
        let made = storage.open(&temporary, OpenMode::Create)?;
        made.set_len(self.file_bytes())?;
        let path = self.path(file);
        storage.create_dir_all(&self.dir())?;
        storage.rename(&temporary, &path)?;
        let made = made.renamed(&path);
        self.shared.handles.insert((self.number, file), made.clone());
        Ok(made)
    }

    /// Removes files in the given order. A power loss in between leaves a beginning of that order removed, so that no
    /// gap can appear between files: each removal is durable before the next.
    pub(super) fn remove(&self, files: &[u64]) -> Result<()> {
        for (count, file) in files.iter().enumerate() {
            if count > 0 {
                self.shared.storage.sync_dir(&self.dir())?;
            }
            self.shared.storage.remove_file(&self.path(*file))?;
            self.shared.handles.forget((self.number, *file));
        }
        Ok(())
    }

    /// Removes a file that a listing showed, whatever its name says.
    pub(super) fn remove_odd(&self, base: u64) -> Result<()> {
        self.shared.storage.remove_file(&self.dir().join(log_file_name(base)))?;
        self.shared.handles.forget((self.number, base / self.file_bytes()));
        Ok(())
    }

    /// Where an entry is: its file and the position in it.
    pub(super) fn place(&self, entry: u64) -> (u64, u64) {
        (entry / self.per_file(), entry % self.per_file() * self.entry_bytes() as u64)
    }

    /// Reads entries from `first` on: at most `count`, at most a piece, and none of the next file.
    pub(super) fn read(&self, first: u64, count: u64) -> Result<Vec<u8>> {
        let (file, position) = self.place(first);
        let count = count.min(self.per_file() - first % self.per_file()).min(self.piece());
        let mut bytes = vec![0; count as usize * self.entry_bytes()];
        let present = self.open(file)?.read_at(&mut bytes, position)?;
        if present < bytes.len() {
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

/// Does the operating system refuse to write here at all?
fn is_forbidden(error: &Error) -> bool {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    matches!(error, Error::Io { source, .. } if matches!(source.kind(), PermissionDenied | ReadOnlyFilesystem))
}

/// Is there no such file?
pub(super) fn is_missing(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}
