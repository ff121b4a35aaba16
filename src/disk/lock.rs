//! The `lock` file: one process, and in it one store, writes a directory.
//!
//! A POSIX record lock on byte 0 keeps Java and mqlog apart. It belongs to the process, so a second open here would be
//! granted, and closing any descriptor of the file drops it: a table of this process's open stores answers instead, and
//! nothing else in this process opens the file while the table has it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use super::{File, OpenMode, Storage};
use crate::error::{Error, Result};

/// The first four bytes that mqlog writes; RocketMQ writes `lock`.
const OURS: [u8; 4] = *b"mqlg";

static OPEN_HERE: LazyLock<Mutex<HashSet<PathBuf>>> = LazyLock::new(Mutex::default);

/// The exclusive right to write a store's directory, given back when dropped.
#[derive(Debug)]
pub(crate) struct StoreLock {
    // The descriptor goes first: after the table forgets the store, somebody may open it here and hold the lock.
    file: File,
    _entry: Entry,
    ours: bool,
}

/// A store's place in the table.
#[derive(Debug)]
struct Entry(PathBuf);

impl StoreLock {
    /// Takes the lock of the store in `root`.
    pub(crate) fn take(storage: &Storage, root: &Path) -> Result<Self> {
        let path = root.join("lock");
        let key = root.canonicalize().unwrap_or_else(|_| root.to_path_buf());
        if !table().insert(key.clone()) {
            return Err(Error::Locked { path, holder: "this process has the store open already" });
        }
        let entry = Entry(key);
        let mode = if storage.info(&path)?.is_some() { OpenMode::ReadWrite } else { OpenMode::Create };
        let file = storage.open(&path, mode)?;
        if !file.try_lock()? {
            return Err(Error::Locked { path, holder: "another process has the store open" });
        }
        let mut first = [0; 4];
        let ours = file.read_at(&mut first, 0)? == first.len() && first == OURS;
        Ok(Self { file, _entry: entry, ours })
    }

    /// Was mqlog the last program that wrote this store?
    pub(crate) fn was_ours(&self) -> bool {
        self.ours
    }

    /// Marks the store as mqlog's, durably. Called before any other file changes.
    pub(crate) fn mark(&self) -> Result<()> {
        self.file.write_at(&OURS, 0)?;
        self.file.sync()
    }

    /// Was mqlog the last program that wrote the store in `root`? Asks without taking the lock; and without touching
    /// its file if this process has the store open, since closing a second descriptor would drop the lock.
    pub(crate) fn is_ours(storage: &Storage, root: &Path) -> Result<bool> {
        // Held until the file is closed again: nobody here may take the lock meanwhile.
        let table = table();
        if root.canonicalize().is_ok_and(|key| table.contains(&key)) {
            return Ok(true);
        }
        let first = storage.read_whole(&root.join("lock"), OURS.len())?;
        Ok(first.is_some_and(|first| first == OURS))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        table().remove(&self.0);
    }
}

fn table() -> MutexGuard<'static, HashSet<PathBuf>> {
    OPEN_HERE.lock().unwrap_or_else(PoisonError::into_inner)
}
