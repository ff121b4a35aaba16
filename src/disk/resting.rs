//! A file without a descriptor.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::{Disk, DiskFile, FileInfo, Mapping, OpenMode};

/// Opens its file for each call. A log has more full files than a process may have descriptors; nobody writes to them
/// any more, and hardly anybody reads them but through their mapping.
#[derive(Debug)]
pub(super) struct RestingFile {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) path: Arc<Path>,
}

impl RestingFile {
    fn open(&self, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(&self.path, mode)
    }
}

impl DiskFile for RestingFile {
    fn info(&self) -> io::Result<FileInfo> {
        self.disk.info(&self.path)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.open(OpenMode::ReadWrite)?.set_len(bytes)
    }

    fn allocate(&self, range: Range<u64>) -> io::Result<()> {
        self.open(OpenMode::ReadWrite)?.allocate(range)
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.open(OpenMode::Read)?.read_at(buffer, position)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.open(OpenMode::ReadWrite)?.write_at(bytes, position)
    }

    fn sync(&self) -> io::Result<()> {
        self.open(OpenMode::ReadWrite)?.sync()
    }

    fn map(&self, bytes: usize, mode: OpenMode) -> io::Result<Box<dyn Mapping>> {
        self.open(mode)?.map(bytes, mode)
    }

    fn try_lock(&self) -> io::Result<bool> {
        // The lock would go with the descriptor.
        Err(io::ErrorKind::Unsupported.into())
    }
}
