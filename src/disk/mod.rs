//! The storage seam: everything that touches the disk goes through [`Disk`], [`DiskFile`] and [`Mapping`].
//!
//! The traits are small on purpose: a test puts its own disk behind them and decides what survives. They are used as
//! `dyn` on cold paths; the hot path asks a [`Mapping`] for its pointer once. `Storage` and `File` put names on
//! errors and hold the few sequences of operations that must always go together.

mod lock;
mod overlay;
mod real;
mod resting;
#[cfg(test)]
pub(crate) mod simulated;
#[cfg(test)]
pub(crate) mod simulated_crash;
#[cfg(test)]
mod simulated_state;
mod storage;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

pub(crate) use lock::StoreLock;
pub(crate) use overlay::OverlayDisk;
pub use real::RealDisk;
pub(crate) use real::descriptor_limit;
pub(crate) use storage::{File, Storage};

/// How [`Disk::open`] opens a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Reading only; the file must exist.
    Read,
    /// Reading and writing; the file must exist.
    ReadWrite,
    /// Reading and writing; the file is made, or emptied if it exists.
    Create,
}

/// What a file's directory entry tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileInfo {
    /// Length in bytes.
    pub bytes: u64,
    /// Time of the last change, in nanoseconds since 1970-01-01 UTC; 0 where unknown.
    pub modified_ns: u64,
    /// Is it a folder?
    pub is_dir: bool,
}

/// A name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The name, without its folder.
    pub name: String,
    /// Length, time and kind.
    pub info: FileInfo,
}

/// A disk: folders and files by path.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Opens a file.
    ///
    /// # Errors
    /// What the operating system says.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Makes a folder and those above it.
    ///
    /// # Errors
    /// What the operating system says.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// What the operating system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Gives a file another name, replacing what had it.
    ///
    /// # Errors
    /// What the operating system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// What the operating system says.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Lists a folder, sorted by name; a missing one is an error of kind `NotFound`.
    ///
    /// # Errors
    /// What the operating system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>>;
    /// Tells about a file or folder.
    ///
    /// # Errors
    /// What the operating system says.
    fn info(&self, path: &Path) -> io::Result<FileInfo>;
    /// Is a store through a mapping into allocated blocks of this folder's file system certain not to fail?
    fn maps_safely(&self, dir: &Path) -> bool;
}

/// An open file. All methods may be called from many threads.
pub trait DiskFile: fmt::Debug + Send + Sync + 'static {
    /// Tells length and time.
    ///
    /// # Errors
    /// What the operating system says.
    fn info(&self) -> io::Result<FileInfo>;
    /// Sets the length; new bytes are zero and have no blocks.
    ///
    /// # Errors
    /// What the operating system says.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// Gives blocks to a range, without changing any byte of it, so that writing there needs no more space.
    ///
    /// # Errors
    /// What the operating system says; `StorageFull` when there is no room.
    fn allocate(&self, range: Range<u64>) -> io::Result<()>;
    /// Reads until `buffer` is full or the file ends; returns how many bytes there were.
    ///
    /// # Errors
    /// What the operating system says.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;
    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// What the operating system says; a part may have been written.
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;
    /// Makes data and length durable.
    ///
    /// # Errors
    /// What the operating system says. After an error the file's unsynced bytes are in doubt for good.
    fn sync(&self) -> io::Result<()>;
    /// Lets the system begin with what a sync will wait for. Only a hint.
    fn begin_sync(&self) {}
    /// Maps the first `bytes` bytes, shared with everybody who has the file open.
    ///
    /// # Errors
    /// What the operating system says.
    fn map(&self, bytes: usize, mode: OpenMode) -> io::Result<Box<dyn Mapping>>;
    /// Takes the exclusive lock on byte 0 of this file, open for writing; `false` if another process has it.
    ///
    /// # Errors
    /// What the operating system says.
    fn try_lock(&self) -> io::Result<bool>;
}

/// A mapped file.
///
/// # Safety
/// - [`as_mut_ptr`](Self::as_mut_ptr) returns the same pointer for as long as the value lives, and the
///   [`bytes`](Self::bytes) bytes behind it are mapped, readable and initialised for that time; they are writable if
///   the mapping was made with another mode than [`OpenMode::Read`].
/// - The implementation never makes a reference into that memory, and writes to it only what somebody wrote to the
///   same file.
pub unsafe trait Mapping: fmt::Debug + Send + Sync + 'static {
    /// The first byte.
    fn as_mut_ptr(&self) -> *mut u8;
    /// Length in bytes.
    fn bytes(&self) -> usize;
    /// Writes back and syncs a range.
    ///
    /// # Errors
    /// What the operating system says.
    fn flush(&self, range: Range<usize>) -> io::Result<()>;
    /// Brings the pages of a range into memory, writable, where the system can do that ahead of use.
    fn populate(&self, range: Range<usize>);
    /// Who wants to see the stores through this mapping; asked once, and nobody unless the disk says otherwise.
    fn observer(&self) -> Option<Arc<dyn StoreObserver>> {
        None
    }
}

/// Sees every store through a mapping, in order: the simulated disk's door. There is none in production.
pub trait StoreObserver: fmt::Debug + Send + Sync {
    /// `bytes` were stored at `position` of the file `path`; `publishes` tells the size word of a record.
    fn stored(&self, path: &Path, position: u64, bytes: &[u8], publishes: bool);
}
