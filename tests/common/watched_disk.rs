//! The real disk, with somebody who is asked before each call, and may have it fail.

use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mqlog::disk::{Disk, DiskFile, FileInfo, Listed, Mapping, OpenMode, RealDisk};

/// What is about to be done.
#[derive(Debug, Clone)]
pub(crate) enum Call<'a> {
    Open(OpenMode),
    CreateDirAll,
    SyncDir,
    Rename,
    RemoveFile,
    List,
    Info,
    FileInfo,
    SetLen,
    Allocate(Range<u64>),
    ReadAt,
    WriteAt(&'a [u8]),
    /// Of a file or, as far as it is mapped, of the mapping.
    Sync,
    Map,
    TryLock,
}

/// What becomes of a call.
pub(crate) enum Answer {
    Go,
    Fail(io::Error),
    /// A write does so many bytes, then it fails.
    Tear(usize, io::Error),
}

impl From<io::Result<()>> for Answer {
    fn from(result: io::Result<()>) -> Self {
        result.map_or_else(Self::Fail, |()| Self::Go)
    }
}

/// Who is asked. A file is known by the path that it was opened under.
pub(crate) trait Watch: Debug + Send + Sync + 'static {
    fn answer(&self, call: &Call<'_>, path: &Path) -> Answer;
}

#[derive(Debug, Default)]
pub(crate) struct WatchedDisk<W>(pub(crate) Arc<W>);

#[derive(Debug)]
struct Watched<W, T: ?Sized> {
    watch: Arc<W>,
    path: PathBuf,
    inner: Box<T>,
}

fn ask<W: Watch>(watch: &W, call: &Call<'_>, path: &Path) -> io::Result<()> {
    match watch.answer(call, path) {
        Answer::Go => Ok(()),
        Answer::Fail(error) | Answer::Tear(_, error) => Err(error),
    }
}

impl<W: Watch> Disk for WatchedDisk<W> {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        ask(&*self.0, &Call::Open(mode), path)?;
        let inner = Box::new(RealDisk.open(path, mode)?);
        Ok(Arc::new(Watched { watch: Arc::clone(&self.0), path: path.to_owned(), inner }))
    }
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        ask(&*self.0, &Call::CreateDirAll, dir).and_then(|()| RealDisk.create_dir_all(dir))
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        ask(&*self.0, &Call::SyncDir, dir).and_then(|()| RealDisk.sync_dir(dir))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        ask(&*self.0, &Call::Rename, from).and_then(|()| RealDisk.rename(from, to))
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        ask(&*self.0, &Call::RemoveFile, path).and_then(|()| RealDisk.remove_file(path))
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        ask(&*self.0, &Call::List, dir).and_then(|()| RealDisk.list(dir))
    }
    fn info(&self, path: &Path) -> io::Result<FileInfo> {
        ask(&*self.0, &Call::Info, path).and_then(|()| RealDisk.info(path))
    }
    fn maps_safely(&self, dir: &Path) -> bool {
        RealDisk.maps_safely(dir)
    }
}

impl<W: Watch, T: ?Sized> Watched<W, T> {
    fn ask(&self, call: &Call<'_>) -> io::Result<()> {
        ask(&*self.watch, call, &self.path)
    }
}

impl<W: Watch> DiskFile for Watched<W, Arc<dyn DiskFile>> {
    fn info(&self) -> io::Result<FileInfo> {
        self.ask(&Call::FileInfo).and_then(|()| self.inner.info())
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.ask(&Call::SetLen).and_then(|()| self.inner.set_len(bytes))
    }
    fn allocate(&self, range: Range<u64>) -> io::Result<()> {
        self.ask(&Call::Allocate(range.clone())).and_then(|()| self.inner.allocate(range))
    }
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.ask(&Call::ReadAt).and_then(|()| self.inner.read_at(buffer, position))
    }
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        match self.watch.answer(&Call::WriteAt(bytes), &self.path) {
            Answer::Go => self.inner.write_at(bytes, position),
            Answer::Fail(error) => Err(error),
            Answer::Tear(done, error) => self.inner.write_at(&bytes[..done], position).and(Err(error)),
        }
    }
    fn sync(&self) -> io::Result<()> {
        self.ask(&Call::Sync).and_then(|()| self.inner.sync())
    }
    fn map(&self, bytes: usize, mode: OpenMode) -> io::Result<Box<dyn Mapping>> {
        self.ask(&Call::Map)?;
        let inner = self.inner.map(bytes, mode)?;
        Ok(Box::new(Watched { watch: Arc::clone(&self.watch), path: self.path.clone(), inner }))
    }
    fn try_lock(&self) -> io::Result<bool> {
        self.ask(&Call::TryLock).and_then(|()| self.inner.try_lock())
    }
}

// SAFETY: pointer, length and what is written are those of the mapping inside, which keeps the promise.
unsafe impl<W: Watch> Mapping for Watched<W, dyn Mapping> {
    fn as_mut_ptr(&self) -> *mut u8 {
        self.inner.as_mut_ptr()
    }
    fn bytes(&self) -> usize {
        self.inner.bytes()
    }
    fn flush(&self, range: Range<usize>) -> io::Result<()> {
        self.ask(&Call::Sync).and_then(|()| self.inner.flush(range))
    }
    fn populate(&self, range: Range<usize>) {
        self.inner.populate(range);
    }
}
