//! The operating system's disk.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use memmap2::{MmapOptions, MmapRaw};

use super::{Disk, DiskFile, FileInfo, Listed, Mapping, OpenMode};

/// Zeros are written in pieces of this size where blocks cannot be had without writing.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// The files of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(mode != OpenMode::Read);
        if mode == OpenMode::Create {
            options.create(true).truncate(true);
        }
        Ok(Arc::new(RealFile { file: options.open(path)? }))
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        // Only Unix has directories that can be opened and synced; elsewhere the file system journals names itself.
        if cfg!(unix) { fs::File::open(dir)?.sync_all() } else { Ok(()) }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // A file that another process removed meanwhile is not there; a name that is no text is nobody's we know.
            let Ok(metadata) = fs::metadata(entry.path()) else { continue };
            names.push(Listed { name: entry.file_name().to_string_lossy().into_owned(), info: file_info(&metadata) });
        }
        names.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(names)
    }

    fn info(&self, path: &Path) -> io::Result<FileInfo> {
        Ok(file_info(&fs::metadata(path)?))
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        system::free_bytes(dir)
    }

    fn maps_safely(&self, dir: &Path) -> bool {
        system::maps_safely(dir)
    }

    fn try_lock(&self, _path: &Path, file: &dyn DiskFile) -> io::Result<bool> {
        let file = file.as_std().expect("the real disk hands out the operating system's files");
        system::try_lock(file)
    }
}

fn file_info(metadata: &fs::Metadata) -> FileInfo {
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let modified_ns = modified.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
    FileInfo { bytes: metadata.len(), modified_ns, is_dir: metadata.is_dir() }
}

#[derive(Debug)]
struct RealFile {
    file: fs::File,
}

impl DiskFile for RealFile {
    fn info(&self) -> io::Result<FileInfo> {
        Ok(file_info(&self.file.metadata()?))
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        system::check_size_limit(bytes)?;
        self.file.set_len(bytes)
    }

    fn allocate(&self, range: Range<u64>) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        system::check_size_limit(range.end)?;
        if system::allocate(&self.file, &range)? {
            return Ok(());
        }
        // No such call here: read what is there and write it back, which gives blocks to every part of the range.
        let mut buffer = ZEROS;
        let mut position = range.start;
        while position < range.end {
            let wanted = usize::try_from(range.end - position).map_or(buffer.len(), |left| left.min(buffer.len()));
            let piece = &mut buffer[..wanted];
            let present = self.read_at(piece, position)?;
            piece[present..].fill(0);
            self.write_at(piece, position)?;
            position += wanted as u64;
        }
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match system::read_at(&self.file, &mut buffer[done..], position + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        system::check_size_limit(position + bytes.len() as u64)?;
        let mut done = 0;
        while done < bytes.len() {
            match system::write_at(&self.file, &bytes[done..], position + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn map(&self, bytes: usize, mode: OpenMode) -> io::Result<Box<dyn Mapping>> {
        let mut options = MmapOptions::new();
        options.len(bytes);
        let map = match mode {
            OpenMode::Read => options.map_raw_read_only(&self.file)?,
            OpenMode::ReadWrite | OpenMode::Create => options.map_raw(&self.file)?,
        };
        Ok(Box::new(RealMapping { map }))
    }

    fn as_std(&self) -> Option<&fs::File> {
        Some(&self.file)
    }
}

#[derive(Debug)]
struct RealMapping {
    map: MmapRaw,
}

// SAFETY: `MmapRaw` keeps its mapping at one place until it is dropped, makes no reference into it, and was made
// writable unless the mode was `Read`. That the file is not cut short by another program is a condition of the crate.
unsafe impl Mapping for RealMapping {
    fn as_mut_ptr(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    fn bytes(&self) -> usize {
        self.map.len()
    }

    fn flush(&self, range: Range<usize>) -> io::Result<()> {
        self.map.flush_range(range.start, range.end - range.start)
    }

    fn populate(&self, range: Range<usize>) {
        #[cfg(target_os = "linux")]
        // Only a hint: the pages come at their first use where the system does not know this call.
        let _ = self.map.advise_range(memmap2::Advice::PopulateWrite, range.start, range.end - range.start);
        #[cfg(not(target_os = "linux"))]
        let _ = range;
    }
}

#[cfg(unix)]
mod system {
    use std::fs::File;
    use std::io;
    use std::ops::Range;
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    use rustix::fs::FlockOperation;

    pub(super) fn read_at(file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        file.read_at(buffer, position)
    }

    pub(super) fn write_at(file: &File, bytes: &[u8], position: u64) -> io::Result<usize> {
        file.write_at(bytes, position)
    }

    /// Takes a POSIX record lock over the whole file, and so over byte 0, which is what RocketMQ locks.
    pub(super) fn try_lock(file: &File) -> io::Result<bool> {
        match rustix::fs::fcntl_lock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn free_bytes(dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Without this check the kernel ends the process by a signal.
    pub(super) fn check_size_limit(bytes: u64) -> io::Result<()> {
        match rustix::process::getrlimit(rustix::process::Resource::Fsize).current {
            Some(limit) if bytes > limit => Err(io::ErrorKind::FileTooLarge.into()),
            _ => Ok(()),
        }
    }

    #[cfg(target_os = "linux")]
    pub(super) fn allocate(file: &File, range: &Range<u64>) -> io::Result<bool> {
        loop {
            let length = range.end - range.start;
            match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::KEEP_SIZE, range.start, length) {
                Ok(()) => return Ok(true),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn allocate(_file: &File, _range: &Range<u64>) -> io::Result<bool> {
        Ok(false)
    }

    /// ext4, xfs and tmpfs keep their promise that an allocated block can be written.
    #[cfg(target_os = "linux")]
    pub(super) fn maps_safely(dir: &Path) -> bool {
        const KNOWN: [u64; 3] = [0xEF53, 0x5846_5342, 0x0102_1994];
        rustix::fs::statfs(dir).is_ok_and(|stat| u64::try_from(stat.f_type).is_ok_and(|kind| KNOWN.contains(&kind)))
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn maps_safely(_dir: &Path) -> bool {
        false
    }
}

#[cfg(windows)]
mod system {
    use std::fs::{File, TryLockError};
    use std::io;
    use std::ops::Range;
    use std::os::windows::fs::FileExt;
    use std::path::Path;

    pub(super) fn read_at(file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        file.seek_read(buffer, position)
    }

    pub(super) fn write_at(file: &File, bytes: &[u8], position: u64) -> io::Result<usize> {
        file.seek_write(bytes, position)
    }

    pub(super) fn try_lock(file: &File) -> io::Result<bool> {
        match file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    pub(super) fn free_bytes(_dir: &Path) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn check_size_limit(_bytes: u64) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn allocate(_file: &File, _range: &Range<u64>) -> io::Result<bool> {
        Ok(false)
    }

    pub(super) fn maps_safely(_dir: &Path) -> bool {
        false
    }
}
