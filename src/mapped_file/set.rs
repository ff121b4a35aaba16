//! The files of one log in the order of their offsets.
//!
//! - Neighbours touch: each file's base is the end of the one before it.
//! - Readers take a snapshot: a file that is dropped from the set stays readable for those who have it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use crate::disk::{File, OpenMode, Storage};
use crate::error::Result;
use crate::format::names::log_file_name;

use super::MappedFile;

/// Zeros are written in pieces of this size.
static ZEROS: [u8; 256 * 1024] = [0; 256 * 1024];

/// How files of a set are made: under a name that RocketMQ does not look at, complete, then renamed into place.
#[derive(Debug, Clone)]
pub(crate) struct Creation {
    pub(crate) storage: Storage,
    /// Where the files of the set live.
    pub(crate) dir: PathBuf,
    /// Where a file is while it is made.
    pub(crate) new_dir: PathBuf,
    pub(crate) file_bytes: u64,
    /// Write zeros into new blocks: a later sync of the same blocks is then cheaper.
    pub(crate) zeros: bool,
}

impl Creation {
    /// Makes the file for `base` with blocks for its first bytes, durably.
    pub(crate) fn create(&self, base: u64, first_bytes: u64) -> Result<Arc<MappedFile>> {
        let name = log_file_name(base);
        let (temporary, path) = (self.new_dir.join(&name), self.dir.join(&name));
        let file = self.storage.open(&temporary, OpenMode::Create)?;
        let give = || self.give_blocks(&file, 0..first_bytes.min(self.file_bytes));
        let made = file.set_len(self.file_bytes).and_then(|()| give()).and_then(|()| file.sync());
        if let Err(error) = made {
            // Nothing may be left of it: a full disk would never get its space back.
            self.storage.remove_file(&temporary)?;
            return Err(error);
        }
        self.storage.rename(&temporary, &path)?;
        self.storage.sync_dir(&self.dir)?;
        self.storage.sync_dir(&self.new_dir)?;
        let file = file.renamed(&path);
        Ok(Arc::new(MappedFile::map(&self.storage, file, base, self.file_bytes)?))
    }

    /// Gives blocks to a range of positions; with `zeros`, written, and to be synced by the caller.
    pub(crate) fn give_blocks(&self, file: &File, range: std::ops::Range<u64>) -> Result<()> {
        file.allocate(range.clone())?;
        if self.zeros { write_zeros(file, range) } else { Ok(()) }
    }
}

/// Writes zeros over a range of positions.
pub(crate) fn write_zeros(file: &File, range: std::ops::Range<u64>) -> Result<()> {
    let mut position = range.start;
    while position < range.end {
        let wanted = usize::try_from(range.end - position).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
        file.write_at(&ZEROS[..wanted], position)?;
        position += wanted as u64;
    }
    Ok(())
}

/// The files, lowest first.
#[derive(Debug)]
pub(crate) struct MappedFiles {
    files: RwLock<Arc<Vec<Arc<MappedFile>>>>,
}

impl MappedFiles {
    /// Takes files in the order of their bases.
    pub(crate) fn new(files: Vec<Arc<MappedFile>>) -> Self {
        assert!(files.windows(2).all(|pair| pair[0].end() == pair[1].base()), "files of a log touch each other");
        Self { files: RwLock::new(Arc::new(files)) }
    }

    /// All files as they are now.
    pub(crate) fn snapshot(&self) -> Arc<Vec<Arc<MappedFile>>> {
        Arc::clone(&self.files.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The file that has the byte at `offset`.
    pub(crate) fn find(&self, offset: u64) -> Option<Arc<MappedFile>> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        let index = files.partition_point(|file| file.end() <= offset);
        files.get(index).filter(|file| file.base() <= offset).cloned()
    }

    /// Puts the next file behind the last.
    pub(crate) fn push(&self, file: Arc<MappedFile>) {
        self.change(|files| {
            assert!(files.last().is_none_or(|last| last.end() == file.base()), "files of a log touch each other");
            files.push(file);
        });
    }

    /// Drops every file that ends at or below `offset`, but never the last one; returns them, lowest first.
    pub(crate) fn delete_before(&self, offset: u64) -> Vec<Arc<MappedFile>> {
        let mut dropped = Vec::new();
        self.change(|files| {
            let below = files.partition_point(|file| file.end() <= offset).min(files.len().saturating_sub(1));
            dropped = files.drain(..below).collect();
        });
        dropped
    }

    /// Drops the last file, which holds nothing.
    pub(crate) fn drop_last(&self, file: &Arc<MappedFile>) {
        self.change(|files| {
            if files.last().is_some_and(|last| Arc::ptr_eq(last, file)) {
                files.pop();
            }
        });
    }

    fn change(&self, edit: impl FnOnce(&mut Vec<Arc<MappedFile>>)) {
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        edit(Arc::make_mut(&mut files));
    }
}

/// The base offset and length of each file, lowest first, and the paths of what is no log file.
pub(crate) type LogFileList = (Vec<(u64, u64)>, Vec<PathBuf>);

/// Lists the log files in a folder.
pub(crate) fn list_log_files(storage: &Storage, dir: &Path) -> Result<LogFileList> {
    let (mut files, mut strays) = (Vec::new(), Vec::new());
    for listed in storage.list(dir)? {
        match crate::format::names::parse_log_file_name(&listed.name).filter(|_| !listed.info.is_dir) {
            Some(base) => files.push((base, listed.info.bytes)),
            None => strays.push(dir.join(&listed.name)),
        }
    }
    files.sort_unstable();
    Ok((files, strays))
}
