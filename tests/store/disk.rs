//! A real disk on which chosen calls fail.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use mqlog::disk::{Disk, DiskFile, FileInfo, Listed, Mapping, OpenMode, RealDisk};

/// Which calls fail.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// `allocate` and `write_at` of files whose path contains this text find no space.
    pub(crate) full: Mutex<Option<&'static str>>,
    /// Syncs of log files fail.
    pub(crate) no_sync: AtomicBool,
    pub(crate) failed: AtomicU64,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct FaultyDisk(pub(crate) Arc<Faults>);

#[derive(Debug)]
struct FaultyFile {
    inner: Arc<dyn DiskFile>,
    path: String,
    faults: Arc<Faults>,
}

#[derive(Debug)]
struct FaultyMapping {
    inner: Box<dyn Mapping>,
    faults: Arc<Faults>,
}

/// A log file keeps the path that it was made under.
fn is_log_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    let is_offset = name.len() == 20 && name.bytes().all(|byte| byte.is_ascii_digit());
    is_offset && (path.contains("/commitlog/") || path.contains("/mqlog/new/"))
}

impl Faults {
    fn check_space(&self, path: &str) -> io::Result<()> {
        match *self.full.lock().unwrap() {
            Some(part) if path.contains(part) => self.fail(io::ErrorKind::StorageFull),
            _ => Ok(()),
        }
    }

    fn check_sync(&self, path: &str) -> io::Result<()> {
        if is_log_file(path) && self.no_sync.load(Ordering::SeqCst) {
            return self.fail(io::ErrorKind::Other);
        }
        Ok(())
    }

    fn fail(&self, kind: io::ErrorKind) -> io::Result<()> {
        self.failed.fetch_add(1, Ordering::SeqCst);
        Err(kind.into())
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let inner = RealDisk.open(path, mode)?;
        Ok(Arc::new(FaultyFile { inner, path: path.display().to_string(), faults: Arc::clone(&self.0) }))
    }
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_file(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        RealDisk.list(dir)
    }
    fn info(&self, path: &Path) -> io::Result<FileInfo> {
        RealDisk.info(path)
    }
    fn maps_safely(&self, dir: &Path) -> bool {
        RealDisk.maps_safely(dir)
    }
}

impl DiskFile for FaultyFile {
    fn info(&self) -> io::Result<FileInfo> {
        self.inner.info()
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.inner.set_len(bytes)
    }
    fn allocate(&self, range: Range<u64>) -> io::Result<()> {
        self.faults.check_space(&self.path)?;
        self.inner.allocate(range)
    }
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, position)
    }
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        // A log file's blocks are there before anything but zeros is written.
        if !is_log_file(&self.path) || bytes.iter().all(|byte| *byte == 0) {
            self.faults.check_space(&self.path)?;
        }
        self.inner.write_at(bytes, position)
    }
    fn sync(&self) -> io::Result<()> {
        self.faults.check_sync(&self.path)?;
        self.inner.sync()
    }
    fn map(&self, bytes: usize, mode: OpenMode) -> io::Result<Box<dyn Mapping>> {
        Ok(Box::new(FaultyMapping { inner: self.inner.map(bytes, mode)?, faults: Arc::clone(&self.faults) }))
    }
    fn try_lock(&self) -> io::Result<bool> {
        self.inner.try_lock()
    }
}

// SAFETY: pointer, length and what is written are those of the mapping inside, which keeps the promise.
unsafe impl Mapping for FaultyMapping {
    fn as_mut_ptr(&self) -> *mut u8 {
        self.inner.as_mut_ptr()
    }
    fn bytes(&self) -> usize {
        self.inner.bytes()
    }
    fn flush(&self, range: Range<usize>) -> io::Result<()> {
        // Only log files are mapped.
        self.faults.check_sync("/commitlog/00000000000000000000")?;
        self.inner.flush(range)
    }
    fn populate(&self, range: Range<usize>) {
        self.inner.populate(range);
    }
}
