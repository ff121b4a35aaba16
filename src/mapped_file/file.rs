//! One mapped file: the only place where memory is written or read through a pointer.
//!
//! - `published <= bytes`, and it only grows: what lies below it never changes again and may be read by anybody.
//! - What lies at or above it belongs to the one [`Writer`] that the file hands out, or to positioned writes that the
//!   holder of the log's lead makes; nobody has a reference into it.
//! - The mapping lives as long as the file's value, and every [`Slice`] holds that.
//! - A file that is full and durable rests: it has no descriptor of its own any more, and no sync comes after.

use std::fmt;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;
use std::ptr;
use std::slice;
use std::sync::atomic::AtomicPtr;
use std::sync::{Arc, PoisonError};

use crate::disk::{File, Mapping, OpenMode, Storage, StoreObserver};
use crate::error::{Error, Result};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

/// One file of a log (elsewhere: a segment), named for the offset of its first byte.
#[derive(Debug)]
pub(crate) struct MappedFile {
    base: u64,
    bytes: u64,
    path: Arc<Path>,
    file: Mutex<File>,
    /// `None` where the file is only read, with positioned reads.
    map: Option<Box<dyn Mapping>>,
    memory: AtomicPtr<u8>,
    published: AtomicU64,
    has_writer: AtomicBool,
    /// Has a sync failed? Held while one is under way: the system tells each failure to one caller only, so two at a
    /// time could take each other's.
    sync_failed: Mutex<bool>,
    observer: Option<Arc<dyn StoreObserver>>,
}

impl MappedFile {
    /// Takes a file that has its full length: mapped, or to be read with positioned reads only. Nothing is published.
    pub(crate) fn new(file: File, base: u64, bytes: u64, mapped: bool) -> Result<Self> {
        let map = if mapped { Some(file.map(bytes, OpenMode::ReadWrite)?) } else { None };
        let is_whole = map.as_ref().is_none_or(|map| map.bytes() as u64 == bytes);
        assert!(is_whole, "a mapping has the length that was asked for");
        Ok(Self {
            base,
            bytes,
            path: file.path().into(),
            file: Mutex::new(file),
            memory: AtomicPtr::new(map.as_ref().map_or(ptr::null_mut(), |map| map.as_mut_ptr())),
            observer: map.as_ref().and_then(|map| map.observer()),
            map,
            published: AtomicU64::default(),
            has_writer: AtomicBool::default(),
            sync_failed: Mutex::new(false),
        })
    }

    /// The offset of the first byte.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// The offset behind the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.base + self.bytes
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file(&self) -> File {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives the descriptor back; for a file that nobody writes any more and that is durable.
    pub(crate) fn rest(&self, storage: &Storage) {
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = storage.resting(&self.path);
    }

    /// Sees to it that all writes that follow, and their sync, have one descriptor.
    pub(crate) fn wake(&self, storage: &Storage) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if file.is_resting() {
            *file = storage.open(&self.path, OpenMode::ReadWrite)?;
        }
        Ok(())
    }

    /// The position below which bytes never change again.
    pub(crate) fn published(&self) -> u64 {
        self.published.load(Ordering::Acquire)
    }

    pub(crate) fn is_mapped(&self) -> bool {
        self.map.is_some()
    }

    /// Publishes everything below a position: recovery found it whole, or the leader wrote it.
    pub(crate) fn publish(&self, position: u64) {
        assert!(position <= self.bytes, "nothing is published behind the end of a file");
        self.published.fetch_max(position, Ordering::Release);
    }

    /// Hands out a piece of the published part; a file without mapping copies it.
    ///
    /// # Panics
    /// If the range is not published.
    pub(crate) fn slice(self: &Arc<Self>, range: Range<u64>) -> Result<Slice> {
        assert!(range.start <= range.end && range.end <= self.published(), "only published bytes are handed out");
        if self.map.is_some() {
            return Ok(Slice { owner: Owner::Mapped(Arc::clone(self)), range: in_memory(&range) });
        }
        self.copy(range)
    }

    /// Copies a piece of the published part with a positioned read, so that a bad sector is an error.
    pub(crate) fn copy(&self, range: Range<u64>) -> Result<Slice> {
        assert!(range.end <= self.published(), "only published bytes are handed out");
        let mut bytes = vec![0; in_memory(&range).len()];
        let count = self.file().read_at(&mut bytes, range.start)?;
        bytes.truncate(count);
        Ok(bytes.into())
    }

    /// Makes what was written in a range durable. The mapped way is for bytes stored through the mapping.
    ///
    /// A file whose sync failed once is never synced again: the next answer would be "done" for lost pages.
    pub(crate) fn sync(&self, range: Range<u64>, mapped: bool) -> Result<()> {
        let named = |error| Error::io("sync", self.path(), Some(range.clone()), error);
        let mut failed = self.sync_failed.lock().unwrap_or_else(PoisonError::into_inner);
        if *failed {
            return Err(named(io::Error::other("an earlier sync of this file failed")));
        }
        let sync = || match &self.map {
            Some(map) if mapped => map.flush(in_memory(&range)).map_err(named),
            _ => self.file().sync(),
        };
        #[cfg(test)]
        let sync = || match sync() {
            Err(_) if crate::planted::is(crate::planted::Planted::FailedSyncIgnored) => Ok(()),
            Err(_) if crate::planted::is(crate::planted::Planted::FailedSyncRetried) => sync(),
            synced => synced,
        };
        let synced = sync();
        *failed = synced.is_err();
        synced
    }

    /// Brings pages ahead of the writer into memory; a hint.
    pub(crate) fn populate(&self, range: Range<u64>) {
        let range = range.start..range.end.min(self.bytes);
        if let Some(map) = self.map.as_ref().filter(|_| !range.is_empty()) {
            map.populate(in_memory(&range));
        }
    }

    /// Hands out the right to store behind the published part, once at a time.
    ///
    /// # Panics
    /// If somebody has it, or the file is not mapped.
    pub(crate) fn writer(self: &Arc<Self>) -> Writer {
        assert!(self.map.is_some(), "only a mapped file is written through its mapping");
        let taken = self.has_writer.swap(true, Ordering::AcqRel);
        assert!(!taken, "a file has one writer at a time");
        Writer { file: Arc::clone(self) }
    }
}

/// Positions of a mapped file, or of bytes to read, as positions in memory.
fn in_memory(range: &Range<u64>) -> Range<usize> {
    let position = |position| usize::try_from(position).expect("a mapped range fits into memory");
    position(range.start)..position(range.end)
}

/// The right to store into the unpublished part of a file.
#[derive(Debug)]
pub(crate) struct Writer {
    file: Arc<MappedFile>,
}

impl Writer {
    pub(crate) fn file(&self) -> &Arc<MappedFile> {
        &self.file
    }

    /// Stores records so that a reader of the file after a crash sees all of the first one or a size of zero:
    /// everything but the first four bytes, then those.
    ///
    /// # Panics
    /// If the range begins in the published part or ends behind the file.
    pub(crate) fn store(&mut self, position: u64, bytes: &[u8]) {
        let (size_word, rest) = bytes.split_at(bytes.len().min(4));
        self.copy(position + size_word.len() as u64, rest, false);
        fence(Ordering::Release);
        self.copy(position, size_word, true);
    }

    fn copy(&mut self, position: u64, bytes: &[u8], publishes: bool) {
        let file = &*self.file;
        let end = position.checked_add(bytes.len() as u64).expect("positions are far below the limit of the type");
        assert!(position >= file.published.load(Ordering::Relaxed), "published bytes never change");
        assert!(end <= file.bytes, "a store stays inside its file");
        let at = usize::try_from(position).expect("a mapped position fits into memory");
        // SAFETY: `at + bytes.len() <= file.bytes`, which is the length of the mapping, so the result is inside of it.
        let target = unsafe { file.memory.load(Ordering::Relaxed).add(at) };
        // SAFETY: the target range is inside the mapping, which lives as long as `self.file`. Nobody else touches it:
        // it is at or above `published`, references exist only below that, and `&mut self` of the only writer is held.
        // `bytes` is memory of the caller and cannot overlap an unpublished part that no reference points into.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
        if let Some(observer) = &file.observer {
            observer.stored(file.path(), position, bytes, publishes);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.file.has_writer.store(false, Ordering::Release);
    }
}

/// Published bytes of a store, kept readable for as long as this value lives: after its file was deleted, after the log
/// rolled on, after the store was closed.
///
/// Cloning shares the bytes. `bytes::Bytes::from_owner` takes it without a copy.
///
/// # Examples
/// ```
/// use mqlog::{Message, MessageStore, StoreOptions};
/// # let dir = tempfile::tempdir()?;
/// let store = MessageStore::open(StoreOptions::new(dir.path()))?;
/// let put = store.put(Message::new("orders").body(b"42"))?;
/// let bytes = store.read(put.log_offset)?.bytes().clone();
/// store.close()?;
/// // Still there, and on its way to another thread.
/// let length = std::thread::spawn(move || bytes.as_ref().len()).join().expect("the thread ends well");
/// assert_eq!(length, put.record_bytes as usize);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Slice {
    owner: Owner,
    /// Where in the owner's bytes it is.
    range: Range<usize>,
}

#[derive(Clone)]
enum Owner {
    Mapped(Arc<MappedFile>),
    Copied(Arc<Vec<u8>>),
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.owner {
            Owner::Copied(bytes) => &bytes[self.range.clone()],
            Owner::Mapped(file) => {
                // SAFETY: the range was checked against the published part of the mapping, so it is inside of it.
                let first = unsafe { file.memory.load(Ordering::Relaxed).add(self.range.start) };
                // SAFETY: the range is inside the mapping, which `file` keeps alive for longer than the reference; it
                // is initialised, published bytes are never written again, and `published` was read with Acquire
                // after the writer released it.
                unsafe { slice::from_raw_parts(first, self.range.len()) }
            }
        }
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Vec<u8>> for Slice {
    fn from(bytes: Vec<u8>) -> Self {
        Self { range: 0..bytes.len(), owner: Owner::Copied(Arc::new(bytes)) }
    }
}

impl Slice {
    /// A part of this piece, which shares its bytes.
    ///
    /// # Panics
    /// If the range is not inside.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len(), "a part lies inside its whole");
        let start = self.range.start;
        Self { owner: self.owner.clone(), range: start + range.start..start + range.end }
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Slice({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Storage;

    fn mapped(dir: &Path, bytes: u64) -> Arc<MappedFile> {
        let storage = Storage::real();
        let file = storage.open(&dir.join("f"), OpenMode::Create).expect("a new file");
        file.set_len(bytes).expect("length");
        file.allocate(0..bytes).expect("blocks");
        Arc::new(MappedFile::new(file, 4096, bytes, true).expect("map"))
    }

    #[test]
    fn a_slice_outlives_its_file_on_disk() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = mapped(dir.path(), 4096);
        file.writer().store(0, b"0123456789");
        file.publish(10);
        let slice = file.slice(2..6).expect("published");
        std::fs::remove_file(file.path()).expect("remove");
        drop(file);
        assert_eq!((&*slice, &*slice.slice(1..3)), (&b"2345"[..], &b"34"[..]));
    }

    #[test]
    #[should_panic(expected = "published bytes never change")]
    fn published_bytes_cannot_be_stored_over() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = mapped(dir.path(), 4096);
        file.publish(10);
        file.writer().store(9, b"x");
    }

    #[test]
    #[should_panic(expected = "one writer")]
    fn there_is_one_writer() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = mapped(dir.path(), 4096);
        let _first = file.writer();
        let _second = file.writer();
    }

    #[test]
    fn a_file_without_mapping_copies() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = mapped(dir.path(), 4096);
        file.writer().store(0, b"abcdef");
        let copy = Arc::new(MappedFile::new(file.file().clone(), 4096, 4096, false).expect("no mapping"));
        copy.publish(6);
        assert_eq!(&*copy.slice(1..4).expect("published"), b"bcd");
    }

    #[test]
    fn a_mapping_and_its_file_are_the_same_bytes() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = mapped(dir.path(), 10_000);
        file.populate(0..20_000);
        file.writer().store(5000, b"stored");
        let mut seen = [0; 6];
        file.file().read_at(&mut seen, 5000).expect("read");
        assert_eq!(seen, *b"stored");
        file.file().write_at(b"written", 0).expect("write");
        file.publish(5006);
        assert_eq!(*file.slice(0..7).expect("published"), *b"written");
        file.sync(4096..8192, true).and_then(|()| file.sync(0..10_000, false)).expect("sync");
    }
}
