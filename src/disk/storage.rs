//! [`Storage`] and [`File`]: the disk with names on its errors, and the sequences that must always go together.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::resting::RestingFile;
use super::{Disk, DiskFile, FileInfo, Listed, Mapping, OpenMode};
use crate::error::{Error, Result};

/// A disk, shared by everything that works in one store.
#[derive(Debug, Clone)]
pub(crate) struct Storage {
    disk: Arc<dyn Disk>,
}

impl Storage {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk }
    }

    /// The operating system's disk.
    pub(crate) fn real() -> Self {
        Self::new(Arc::new(super::RealDisk))
    }

    pub(crate) fn open(&self, path: &Path, mode: OpenMode) -> Result<File> {
        let inner = self.disk.open(path, mode).map_err(|error| Error::io("open", path, None, error))?;
        Ok(File { path: path.into(), inner, is_resting: false })
    }

    /// A file that is opened for each use anew: it takes no descriptor.
    pub(crate) fn resting(&self, path: &Path) -> File {
        let path: Arc<Path> = path.into();
        let inner = Arc::new(RestingFile { disk: Arc::clone(&self.disk), path: Arc::clone(&path) });
        File { path, inner, is_resting: true }
    }

    /// Tells about a file or folder; `None` if there is none.
    pub(crate) fn info(&self, path: &Path) -> Result<Option<FileInfo>> {
        unless_missing("stat", path, self.disk.info(path))
    }

    /// Lists a folder, sorted by name; a missing one is empty.
    pub(crate) fn list(&self, dir: &Path) -> Result<Vec<Listed>> {
        unless_missing("list", dir, self.disk.list(dir)).map(Option::unwrap_or_default)
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
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        parent.map_or(Ok(()), |parent| self.create_dir_durably(parent))?;
        self.create_dir_all(dir)?;
        parent.map_or(Ok(()), |parent| self.sync_dir(parent))
    }

    /// Makes the name of a folder durable, unless the folder above is one that this process may not read: then somebody
    /// else made it.
    pub(crate) fn sync_name(&self, dir: &Path) -> Result<()> {
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        match parent.map_or(Ok(()), |parent| self.disk.sync_dir(parent)) {
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => Err(Error::io("sync", dir, None, error)),
            _ => Ok(()),
        }
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.disk.rename(from, to).map_err(|error| Error::io("rename", from, None, error))
    }

    /// Removes a file; one that is not there is fine.
    pub(crate) fn remove_file(&self, path: &Path) -> Result<()> {
        unless_missing("remove", path, self.disk.remove_file(path)).map(drop)
    }

    pub(crate) fn maps_safely(&self, dir: &Path) -> bool {
        self.disk.maps_safely(dir)
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
        let mut temporary = path.to_path_buf();
        temporary.as_mut_os_string().push(".tmp");
        self.write_and_rename(&temporary, path, bytes)
    }

    /// Writes a file durably under the first name, then gives it the second one, durably.
    pub(crate) fn write_and_rename(&self, temporary: &Path, path: &Path, bytes: &[u8]) -> Result<()> {
        let file = self.open(temporary, OpenMode::Create)?;
        file.write_at(bytes, 0)?;
        file.sync()?;
        self.rename(temporary, path)?;
        path.parent().map_or(Ok(()), |parent| self.sync_dir(parent))
    }
}

/// Is there no such thing, or no such folder?
pub(super) fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// `None` where the disk says that there is no such thing.
fn unless_missing<T>(operation: &'static str, path: &Path, answer: io::Result<T>) -> Result<Option<T>> {
    match answer {
        Err(error) if is_missing(&error) => Ok(None),
        answer => answer.map(Some).map_err(|error| Error::io(operation, path, None, error)),
    }
}

/// An open file that knows its name.
#[derive(Debug, Clone)]
pub(crate) struct File {
    path: Arc<Path>,
    inner: Arc<dyn DiskFile>,
    is_resting: bool,
}

impl File {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Is it without a descriptor?
    pub(crate) fn is_resting(&self) -> bool {
        self.is_resting
    }

    /// The same open file under the name it has now.
    pub(crate) fn renamed(&self, path: &Path) -> Self {
        Self { path: path.into(), ..self.clone() }
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

    pub(crate) fn begin_sync(&self) {
        self.inner.begin_sync();
    }

    pub(super) fn try_lock(&self) -> Result<bool> {
        self.inner.try_lock().map_err(|error| Error::io("lock", &self.path, None, error))
    }

    pub(crate) fn map(&self, bytes: u64, mode: OpenMode) -> Result<Box<dyn Mapping>> {
        let named = |error| Error::io("map", &self.path, Some(0..bytes), error);
        let bytes = usize::try_from(bytes).map_err(|_| named(io::ErrorKind::OutOfMemory.into()))?;
        self.inner.map(bytes, mode).map_err(named)
    }
}
