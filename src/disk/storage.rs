//! [`Storage`] and [`File`]: the disk with names on its errors, and the sequences that must always go together.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Disk, DiskFile, FileInfo, Listed, Mapping, OpenMode, StoreObserver};
use crate::error::{Error, Result};

/// A disk, shared by everything that works in one store.
#[derive(Debug, Clone)]
pub(crate) struct Storage {
    disk: Arc<dyn Disk>,
    observer: Option<Arc<dyn StoreObserver>>,
}

impl Storage {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, observer: None }
    }

    /// The operating system's disk.
    pub(crate) fn real() -> Self {
        Self::new(Arc::new(super::RealDisk))
    }

    /// Has every store through a mapping reported to `observer`.
    pub(crate) fn with_observer(mut self, observer: Arc<dyn StoreObserver>) -> Self {
        self.observer = Some(observer);
        self
    }

    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    pub(crate) fn observer(&self) -> Option<&Arc<dyn StoreObserver>> {
        self.observer.as_ref()
    }

    pub(crate) fn open(&self, path: &Path, mode: OpenMode) -> Result<File> {
        let inner = self.disk.open(path, mode).map_err(|error| Error::io("open", path, None, error))?;
        Ok(File { path: path.into(), inner })
    }

    /// Tells about a file or folder; `None` if there is none.
    pub(crate) fn info(&self, path: &Path) -> Result<Option<FileInfo>> {
        match self.disk.info(path) {
            Ok(info) => Ok(Some(info)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(Error::io("stat", path, None, error)),
        }
    }

    /// Lists a folder, sorted by name; a missing one is empty.
    pub(crate) fn list(&self, dir: &Path) -> Result<Vec<Listed>> {
        match self.disk.list(dir) {
            Ok(names) => Ok(names),
            Err(error) if is_missing(&error) => Ok(Vec::new()),
            Err(error) => Err(Error::io("list", dir, None, error)),
        }
    }

    pub(crate) fn create_dir_all(&self, dir: &Path) -> Result<()> {
        self.disk.create_dir_all(dir).map_err(|error| Error::io("create", dir, None, error))
    }

    pub(crate) fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.disk.sync_dir(dir).map_err(|error| Error::io("sync", dir, None, error))
    }

    /// Makes a folder that does not exist yet, and its name durable.
    pub(crate) fn create_dir_durably(&self, dir: &Path) -> Result<()> {
        if self.info(dir)?.is_some() {
            return Ok(());
        }
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            self.create_dir_durably(parent)?;
            self.create_dir_all(dir)?;
            return self.sync_dir(parent);
        }
        self.create_dir_all(dir)
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.disk.rename(from, to).map_err(|error| Error::io("rename", from, None, error))
    }

    /// Removes a file; one that is not there is fine.
    pub(crate) fn remove_file(&self, path: &Path) -> Result<()> {
        match self.disk.remove_file(path) {
            Err(error) if !is_missing(&error) => Err(Error::io("remove", path, None, error)),
            _ => Ok(()),
        }
    }

    /// Removes an empty folder; one that is not there, or not empty, stays as it is.
    pub(crate) fn remove_dir_if_empty(&self, dir: &Path) {
        // A folder that is left behind is harmless, so the answer does not matter.
        let _ = self.disk.remove_dir(dir);
    }

    pub(crate) fn free_bytes(&self, dir: &Path) -> Result<u64> {
        self.disk.free_bytes(dir).map_err(|error| Error::io("stat", dir, None, error))
    }

    pub(crate) fn maps_safely(&self, dir: &Path) -> bool {
        self.disk.maps_safely(dir)
    }

    pub(super) fn try_lock(&self, file: &File) -> Result<bool> {
        self.disk.try_lock(&file.path, &*file.inner).map_err(|error| Error::io("lock", &file.path, None, error))
    }

    /// Reads a whole file of at most `limit` bytes; `None` if it is missing, cut at the limit if it is longer.
    pub(crate) fn read_whole(&self, path: &Path, limit: usize) -> Result<Option<Vec<u8>>> {
        let Some(info) = self.info(path)?.filter(|info| !info.is_dir) else { return Ok(None) };
        let mut bytes = vec![0; usize::try_from(info.bytes).map_or(limit, |bytes| bytes.min(limit))];
        let count = self.open(path, OpenMode::Read)?.read_at(&mut bytes, 0)?;
        bytes.truncate(count);
        Ok(Some(bytes))
    }

    /// Replaces a file as a whole: written beside it, synced, renamed over it, the folder synced. After a crash the
    /// file is the old one or the new one.
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let mut temporary = path.as_os_str().to_os_string();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let file = self.open(&temporary, OpenMode::Create)?;
        file.write_at(bytes, 0)?;
        file.sync()?;
        self.rename(&temporary, path)?;
        match path.parent() {
            Some(parent) => self.sync_dir(parent),
            None => Ok(()),
        }
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// An open file that knows its name.
#[derive(Debug, Clone)]
pub(crate) struct File {
    path: Arc<Path>,
    inner: Arc<dyn DiskFile>,
}

impl File {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The same open file under the name it has now.
    pub(crate) fn renamed(&self, path: &Path) -> Self {
        Self { path: path.into(), inner: Arc::clone(&self.inner) }
    }

    pub(crate) fn info(&self) -> Result<FileInfo> {
        self.inner.info().map_err(|error| Error::io("stat", &self.path, None, error))
    }

    pub(crate) fn set_len(&self, bytes: u64) -> Result<()> {
        self.inner.set_len(bytes).map_err(|error| Error::io("extend", &self.path, Some(0..bytes), error))
    }

    pub(crate) fn allocate(&self, range: Range<u64>) -> Result<()> {
        let named = range.clone();
        self.inner.allocate(range).map_err(|error| Error::io("allocate", &self.path, Some(named), error))
    }

    /// Reads until `buffer` is full or the file ends; returns how many bytes there were.
    pub(crate) fn read_at(&self, buffer: &mut [u8], position: u64) -> Result<usize> {
        let range = position..position + buffer.len() as u64;
        self.inner.read_at(buffer, position).map_err(|error| Error::io("read", &self.path, Some(range), error))
    }

    pub(crate) fn write_at(&self, bytes: &[u8], position: u64) -> Result<()> {
        let range = position..position + bytes.len() as u64;
        self.inner.write_at(bytes, position).map_err(|error| Error::io("write", &self.path, Some(range), error))
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.inner.sync().map_err(|error| Error::io("sync", &self.path, None, error))
    }

    pub(crate) fn map(&self, bytes: u64, mode: OpenMode) -> Result<Box<dyn Mapping>> {
        let named = |error| Error::io("map", &self.path, Some(0..bytes), error);
        let bytes = usize::try_from(bytes).map_err(|_| named(io::ErrorKind::OutOfMemory.into()))?;
        self.inner.map(bytes, mode).map_err(named)
    }
}
