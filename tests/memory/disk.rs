//! A disk in memory: no file, no system call, so that loom and Miri can run what is above it.
//!
//! Under loom every mapped byte belongs to a cell, and loom reports two threads that use one cell, one of them to write,
//! without an order between them. Whether a mapping still exists is known too.

use std::cell::UnsafeCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::disk::{Disk, DiskFile, FileInfo, Listed, Mapping, OpenMode, Storage, StoreObserver};

#[cfg(loom)]
use super::kit::CELL_BYTES;

/// The bytes of a file of one length. Whoever uses them has to see to it that nobody else does; that is what is tested.
#[derive(Debug)]
pub(crate) struct Block {
    bytes: Box<[UnsafeCell<u8>]>,
    is_gone: AtomicBool,
    #[cfg(loom)]
    cells: std::sync::OnceLock<Vec<loom::cell::UnsafeCell<()>>>,
}

// SAFETY: bytes are used through raw pointers only; that no two uses of one byte race is the duty of the code above the
// disk, as it is with a file.
unsafe impl Sync for Block {}
// SAFETY: as for `Sync`; nothing belongs to a thread.
unsafe impl Send for Block {}

impl Block {
    fn new(len: usize, from: Option<&Self>) -> Arc<Self> {
        let block = Self {
            bytes: (0..len).map(|_| UnsafeCell::new(0)).collect(),
            is_gone: AtomicBool::default(),
            #[cfg(loom)]
            cells: std::sync::OnceLock::new(),
        };
        if let Some(from) = from {
            let mut kept = vec![0; from.bytes.len().min(len)];
            from.read(&mut kept, 0);
            block.write(&kept, 0);
        }
        Arc::new(block)
    }

    fn as_mut_ptr(&self) -> *mut u8 {
        UnsafeCell::raw_get(self.bytes.as_ptr())
    }

    fn read(&self, buffer: &mut [u8], at: usize) -> usize {
        let count = self.bytes.len().saturating_sub(at).min(buffer.len());
        if count > 0 {
            self.looks_at(at..at + count);
            // SAFETY: `at < len`, so the result is inside of the block.
            let source = unsafe { self.as_mut_ptr().add(at) };
            // SAFETY: `count` bytes from there are inside; `buffer` is the caller's own.
            unsafe { source.copy_to_nonoverlapping(buffer.as_mut_ptr(), count) };
        }
        count
    }

    fn write(&self, bytes: &[u8], at: usize) {
        if !bytes.is_empty() {
            assert!(at + bytes.len() <= self.bytes.len(), "a write stays inside of its block");
            self.changes(at..at + bytes.len());
            // SAFETY: `at < len`, so the result is inside of the block.
            let target = unsafe { self.as_mut_ptr().add(at) };
            // SAFETY: the range is inside, as was just asserted; `bytes` is the caller's own.
            unsafe { target.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        }
    }

    /// Somebody reads a range: that must come behind its last change, and the mapping must be there.
    pub(crate) fn looks_at(&self, range: Range<usize>) {
        #[cfg(loom)]
        self.each_cell(range, |cell| cell.with(|_| ()));
        #[cfg(not(loom))]
        let _ = range;
    }

    fn changes(&self, range: Range<usize>) {
        #[cfg(loom)]
        self.each_cell(range, |cell| cell.with_mut(|_| ()));
        #[cfg(not(loom))]
        let _ = range;
    }

    #[cfg(loom)]
    fn each_cell(&self, range: Range<usize>, used: impl Fn(&loom::cell::UnsafeCell<()>)) {
        let cells = range.start / CELL_BYTES..range.end.div_ceil(CELL_BYTES);
        self.cells.get().into_iter().for_each(|all| all[cells.clone()].iter().for_each(&used));
    }

    /// Is the mapping gone?
    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<PathBuf, Arc<Content>>,
    dirs: BTreeSet<PathBuf>,
}

#[derive(Debug)]
struct Content(Mutex<Arc<Block>>);

impl Content {
    fn block(&self) -> Arc<Block> {
        Arc::clone(&self.0.lock().unwrap())
    }
}

/// The disk; clones are the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryDisk(Arc<Mutex<State>>);

impl MemoryDisk {
    pub(crate) fn storage(&self) -> Storage {
        Storage::new(Arc::new(self.clone()))
    }

    /// The bytes of a file.
    pub(crate) fn block(&self, path: &Path) -> Arc<Block> {
        self.state().files[path].block()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

fn missing() -> io::Error {
    ErrorKind::NotFound.into()
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        if mode == OpenMode::Create {
            state.files.insert(path.to_path_buf(), Arc::new(Content(Mutex::new(Block::new(0, None)))));
        }
        state.files.get(path).map(|content| Arc::new(MemoryFile(Arc::clone(content))) as _).ok_or_else(missing)
    }
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.state().dirs.extend(dir.ancestors().map(Path::to_path_buf));
        Ok(())
    }
    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let content = state.files.remove(from).ok_or_else(missing)?;
        state.files.insert(to.to_path_buf(), content);
        Ok(())
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.state().files.remove(path).map(drop).ok_or_else(missing)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        if !self.state().dirs.contains(dir) {
            return Err(missing());
        }
        let all: Vec<PathBuf> = {
            let state = self.state();
            state.files.keys().chain(&state.dirs).filter(|path| path.parent() == Some(dir)).cloned().collect()
        };
        let listed = all.into_iter().map(|path| {
            let name = path.file_name().expect("what is in a folder has a name").to_string_lossy().into_owned();
            Ok(Listed { name, info: self.info(&path)? })
        });
        listed.collect()
    }
    fn info(&self, path: &Path) -> io::Result<FileInfo> {
        let state = self.state();
        let is_dir = state.dirs.contains(path);
        let bytes = state.files.get(path).map(|content| content.block().bytes.len() as u64);
        let bytes = bytes.or(is_dir.then_some(0)).ok_or_else(missing)?;
        Ok(FileInfo { bytes, modified_ns: 0, is_dir })
    }
    fn maps_safely(&self, _dir: &Path) -> bool {
        true
    }
}

#[derive(Debug)]
struct MemoryFile(Arc<Content>);

fn memory(position: u64) -> usize {
    usize::try_from(position).expect("a position in memory")
}

impl DiskFile for MemoryFile {
    fn info(&self) -> io::Result<FileInfo> {
        Ok(FileInfo { bytes: self.0.block().bytes.len() as u64, modified_ns: 0, is_dir: false })
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut block = self.0.0.lock().unwrap();
        *block = Block::new(memory(bytes), Some(&block));
        Ok(())
    }
    fn allocate(&self, _range: Range<u64>) -> io::Result<()> {
        Ok(())
    }
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        Ok(self.0.block().read(buffer, memory(position)))
    }
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let (start, end) = (memory(position), memory(position) + bytes.len());
        if end > self.0.block().bytes.len() {
            self.set_len(end as u64)?;
        }
        self.0.block().write(bytes, start);
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn map(&self, bytes: usize, _mode: OpenMode) -> io::Result<Box<dyn Mapping>> {
        let block = self.0.block();
        assert_eq!(block.bytes.len(), bytes, "a file has its length before it is mapped");
        #[cfg(loom)]
        block.cells.get_or_init(|| (0..bytes.div_ceil(CELL_BYTES)).map(|_| Default::default()).collect());
        Ok(Box::new(MemoryMap(block)))
    }
    fn try_lock(&self) -> io::Result<bool> {
        Ok(true)
    }
}

#[derive(Debug)]
struct MemoryMap(Arc<Block>);

// SAFETY: the block is the heap's, has its length and its place for as long as it lives, which `self` sees to, is
// initialised and writable. No reference into it is ever made, and only what is written to the file changes it.
unsafe impl Mapping for MemoryMap {
    fn as_mut_ptr(&self) -> *mut u8 {
        self.0.as_mut_ptr()
    }
    fn bytes(&self) -> usize {
        self.0.bytes.len()
    }
    fn flush(&self, _range: Range<usize>) -> io::Result<()> {
        Ok(())
    }
    fn populate(&self, _range: Range<usize>) {}
    fn observer(&self) -> Option<Arc<dyn StoreObserver>> {
        Some(Arc::new(Watch(Arc::clone(&self.0))))
    }
}

impl Drop for MemoryMap {
    fn drop(&mut self) {
        self.0.is_gone.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Watch(Arc<Block>);

impl StoreObserver for Watch {
    fn stored(&self, _path: &Path, position: u64, bytes: &[u8], _publishes: bool) {
        let at = memory(position);
        self.0.changes(at..at + bytes.len());
    }
}
