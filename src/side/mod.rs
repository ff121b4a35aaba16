//! The files beside the log: what mqlog keeps for itself in `<root>/mqlog/`, and RocketMQ's `checkpoint` and `abort`.
//!
//! Nothing here is needed to read a store: the log is the truth, and what is missing is found again by scanning it.
//! So these files are read with one rule. **Whatever is missing, empty, cut, changed in any bit, or of a version that
//! this one does not know, counts as missing** (or as the state before it, where a file holds two): `Ok(None)`, never
//! an error and never a wrong answer. Only a disk that cannot be read is an error. In the binary files
//! every number has 8 bytes, big-endian; checksums are CRC32C.
//!
//! ```text
//! <root>/
//!   checkpoint        RocketMQ's time stamps                        written in place
//!   abort             there while a store is open or was killed     made and removed, the folder synced
//!   mqlog/
//!     format          sizes, since when records have a CRC, clean?  replaced as a whole
//!     watermark       how far the log is durable                    two slots, written in turn
//!     derived         how far queues and index are durable          frames, appended
//!     new/<name>      files in the making; emptied at open          renamed away when they are ready
//!     cut/<offset>    bytes that a recovery cut from the log        never removed, never written again
//! ```
//!
//! # `format`
//!
//! Text, so that `cat` answers the first question about an unknown store; each line ends with a line feed and there
//! is one way to write each state. The checksum covers all lines above it.
//!
//! ```text
//! mqlog 1
//! log_file_bytes 67108864
//! queue_file_entries 20000
//! batch_queue_file_entries 20000
//! index_slots 100000
//! index_entries 400000
//! record_crc_from 0               the log offset from which every record has the record CRC, or `none`
//! damaged 107..214 500..612      only after a salvage: was not as W had it, though nothing in the bytes says so
//! clean yes                       `yes` or `no`: did the last session close the store?
//! crc32c e10b0f93
//! ```
//!
//! # `watermark`
//!
//! 8192 bytes: two slots, each at the start of a 4096-byte block of its own. Sequence number `n` stands in slot
//! `n % 2`; the valid slot with the higher number counts. A slot is synced before the other one is touched, so a
//! torn write costs only the newest state, which nobody has relied on yet.
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 8 | `mqlogWM1` |
//! | 8 | 8 | sequence number |
//! | 16 | 8 | W: the log is durable below it |
//! | 24 | 8 | H: the end of the blocks that appends may use, at least W; above it the log is zero |
//! | 32 | 8 | log offset of the last record below W |
//! | 40 | 8 | its length; 0: no record is named |
//! | 48 | 8 | CRC32C of its bytes |
//! | 56 | 8 | since when records have a CRC, as `format` says it; all ones: none |
//! | 64 | 8 | CRC32C of bytes 0..64 |
//!
//! That records have a CRC is believed where both files say so: an older copy of one of them asks for nothing. Where
//! only `format` is there, the first whole record without one shows that it is such a copy.
//!
//! # `derived`
//!
//! `mqlogDR1`, then frames. The first frame names all queues, each later one those that changed since; both name all
//! index files. Sequence numbers go up by one. A bad frame with nothing whole behind it was being appended when the
//! power went: it is ignored. A bad one with a whole one behind it is damage, and the file counts as missing.
//!
//! ```text
//! frame    "mqfr", payload length, sequence number, payload, CRC32C of all before it in this frame
//! payload  log offset, store time ms, the last record below: log offset, length, CRC32C (zeros: none),
//!          log offset where the log began
//!          count, each queue:       topic length, topic, queue id, batch (0 or 1), min, next, entries,
//!                                   count, each of its files: base, length, mtime ns
//!          count, each index file:  name, next entry, length, mtime ns
//! ```
//!
//! # Why three files
//!
//! They change at different times and break in different ways. `format` changes a few times a session and must be
//! the old or the new state; `watermark` changes with every flush, where a rename and its two syncs would cost more
//! than the flush itself; `derived` grows with the number of queues, so a checkpoint writes only what it touched.

mod derived;
mod fields;
mod format;
mod rocketmq;
#[cfg(test)]
mod tests;
mod watermark;

use std::path::{Path, PathBuf};

use crate::disk::Storage;
use crate::error::Result;
use crate::offset::LogOffset;

pub(crate) use derived::{Derived, DerivedFile, FileState, Frame, IndexState, MAX_QUEUE_ENTRIES, QueueState};
pub(crate) use format::{LOG_FILE_BYTES, MOST_DAMAGED, StoreFormat};
pub(crate) use rocketmq::{create_abort, has_abort, load_checkpoint, lower_checkpoint, remove_abort, store_checkpoint};
pub(crate) use watermark::{LastRecord, Watermark, WatermarkFile};

const FORMAT: &str = "format";
const WATERMARK: &str = "watermark";
const DERIVED: &str = "derived";
const NEW: &str = "new";
const CUT: &str = "cut";

/// The folder `<root>/mqlog`.
#[derive(Clone, Debug)]
pub(crate) struct SideFolder {
    storage: Storage,
    root: PathBuf,
    path: PathBuf,
}

impl SideFolder {
    /// Names the folder; touches nothing.
    pub(crate) fn new(storage: Storage, root: &Path) -> Self {
        Self { storage, root: root.to_path_buf(), path: root.join("mqlog") }
    }

    /// The store's own folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Makes the folder and those in it, if they do not exist, and their names durable.
    pub(crate) fn create(&self) -> Result<()> {
        self.storage.create_dir_durably(&self.root)?;
        for dir in [&self.path, &self.path.join(NEW), &self.path.join(CUT)] {
            self.set_aside(dir, true)?;
            self.storage.create_dir_all(dir)?;
        }
        // Synced even if they existed: a session that was killed may have made them without getting here.
        self.storage.sync_dir(&self.path)?;
        self.storage.sync_dir(&self.root)
    }

    /// Removes what we know in the folder except `cut/`, durably: another program wrote to the store, and nothing
    /// said here is true any more. Must be done before the `lock` file is claimed, or a kill in between leaves a part
    /// of it to be believed.
    pub(crate) fn clear(&self) -> Result<()> {
        for name in [DERIVED, WATERMARK, FORMAT] {
            self.remove(name)?;
            self.remove(&format!("{name}.tmp"))?;
        }
        self.empty_new()?;
        if self.storage.info(&self.path)?.is_some() { self.storage.sync_dir(&self.path) } else { Ok(()) }
    }

    /// Removes the files that an earlier session did not finish.
    pub(crate) fn empty_new(&self) -> Result<()> {
        let dir = self.path.join(NEW);
        for file in self.storage.list(&dir)?.into_iter().filter(|file| !file.info.is_dir) {
            self.storage.remove_file(&dir.join(file.name))?;
        }
        Ok(())
    }

    /// Where a file is made before it gets its place.
    pub(crate) fn new_path(&self, name: &str) -> PathBuf {
        self.path.join(NEW).join(name)
    }

    /// Keeps `bytes`, which a recovery is about to cut from the log at `at`, and returns the file that holds them.
    ///
    /// The file is durable. An earlier one stays as it is; it is the answer if it holds the same bytes, which is so
    /// when a recovery was killed and does its work again.
    pub(crate) fn keep_cut(&self, at: LogOffset, bytes: &[u8]) -> Result<PathBuf> {
        let dir = self.path.join(CUT);
        let mut path = dir.join(format!("{:020}", at.get()));
        for copy in 1.. {
            match self.storage.read_whole(&path, bytes.len().saturating_add(1))? {
                Some(kept) if kept == bytes => return self.storage.sync_dir(&dir).map(|()| path),
                None if self.storage.info(&path)?.is_none() => break,
                _ => path = dir.join(format!("{:020}.{copy}", at.get())),
            }
        }
        self.storage.write_and_rename(&self.new_path("cut"), &path, bytes).map(|()| path)
    }

    fn read(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>> {
        self.storage.read_whole(&self.path.join(name), limit)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path.join(name);
        self.set_aside(&path, false)?;
        self.set_aside(&self.path.join(format!("{name}.tmp")), false)?;
        self.storage.replace(&path, bytes)
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.path.join(name);
        self.set_aside(&path, false)?;
        // A folder that could not be set aside is no file of ours.
        let is_file = self.storage.info(&path)?.is_some_and(|info| !info.is_dir);
        if is_file { self.storage.remove_file(&path) } else { Ok(()) }
    }

    /// Gives a folder that has the name of a file of ours, or a file that has a folder's, another name: it is none of
    /// ours, so it counts as missing, and it is not removed.
    fn set_aside(&self, path: &Path, is_dir: bool) -> Result<()> {
        if self.storage.info(path)?.is_none_or(|info| info.is_dir == is_dir) {
            return Ok(());
        }
        let mut other = path.to_path_buf();
        while self.storage.info(&other)?.is_some() {
            other.as_mut_os_string().push(".stray");
        }
        // Where this does not go, what comes next names the reason; an opening for reading only needs no room.
        let _ = self.storage.rename(path, &other);
        Ok(())
    }
}
