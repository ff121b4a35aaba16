//! The operating system's disk.
#![cfg_attr(not(target_os = "linux"), allow(unused_variables, reason = "only Linux has all of these calls"))]

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::ops::Range;
#[cfg(unix)]
use std::os::unix::fs::FileExt;
#[cfg(windows)]
use std::os::windows::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

#[cfg(target_os = "linux")]
use memmap2::UncheckedAdvice;
use memmap2::{MmapOptions, MmapRaw};

use super::{Disk, DiskFile, FileInfo, Listed, Mapping, OpenMode};

/// The files of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let (writes, creates) = (mode != OpenMode::Read, mode == OpenMode::Create);
        let mut options = fs::OpenOptions::new();
        Ok(Arc::new(RealFile(options.read(true).write(writes).create(creates).truncate(creates).open(path)?)))
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        // Only Unix has directories that can be opened and synced; elsewhere the file system journals names itself.
        if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // A file that another process removed meanwhile is not there; a name that is no text is nobody's we know.
            let Ok(info) = self.info(&entry.path()) else { continue };
            names.push(Listed { name: entry.file_name().to_string_lossy().into_owned(), info });
        }
        names.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(names)
    }

    fn info(&self, path: &Path) -> io::Result<FileInfo> {
        Ok(file_info(&fs::metadata(path)?))
    }

    fn maps_safely(&self, dir: &Path) -> bool {
        // ext4, xfs and tmpfs keep their promise that an allocated block can be written.
        #[cfg(target_os = "linux")]
        let known = rustix::fs::statfs(dir).map(|stat| [0xEF53, 0x5846_5342, 0x0102_1994].contains(&stat.f_type));
        #[cfg(not(target_os = "linux"))]
        let known = io::Result::Ok(false);
        known.unwrap_or(false)
    }
}

fn file_info(metadata: &fs::Metadata) -> FileInfo {
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let modified_ns = modified.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
    FileInfo { bytes: metadata.len(), modified_ns, is_dir: metadata.is_dir() }
}

/// Without this check the kernel of Unix ends the process by a signal.
fn check_size_limit(bytes: u64) -> io::Result<()> {
    #[cfg(unix)]
    if rustix::process::getrlimit(rustix::process::Resource::Fsize).current.is_some_and(|limit| bytes > limit) {
        return Err(ErrorKind::FileTooLarge.into());
    }
    Ok(())
}

/// How many files the process may have open.
pub(crate) fn descriptor_limit() -> usize {
    #[cfg(all(unix, not(miri)))]
    if let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        return usize::try_from(limit).unwrap_or(usize::MAX);
    }
    usize::MAX
}

/// Goes on with a step, which is told how many bytes are done and does some, until all are done or it does none.
fn repeat(bytes: usize, mut step: impl FnMut(usize) -> io::Result<usize>) -> io::Result<usize> {
    let mut done = 0;
    while done < bytes {
        match step(done) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn info(&self) -> io::Result<FileInfo> {
        Ok(file_info(&self.0.metadata()?))
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        check_size_limit(bytes)?;
        self.0.set_len(bytes)
    }

    fn allocate(&self, range: Range<u64>) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        check_size_limit(range.end)?;
        #[cfg(target_os = "linux")]
        {
            use rustix::{fs::FallocateFlags, io::Errno};
            let give =
                || rustix::fs::fallocate(&self.0, FallocateFlags::KEEP_SIZE, range.start, range.end - range.start);
            match rustix::io::retry_on_intr(give) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
                given => return Ok(given?),
            }
        }
        // No such call here: read what is there and write it back, which gives blocks to every part of the range.
        let mut buffer = [0; 64 * 1024];
        for position in range.clone().step_by(buffer.len()) {
            let piece = &mut buffer[..(range.end - position).min(64 * 1024) as usize];
            let present = self.read_at(piece, position)?;
            piece[present..].fill(0);
            self.write_at(piece, position)?;
        }
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        #[cfg(unix)]
        let read = File::read_at;
        #[cfg(windows)]
        let read = File::seek_read;
        repeat(buffer.len(), |done| read(&self.0, &mut buffer[done..], position + done as u64))
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        check_size_limit(position + bytes.len() as u64)?;
        #[cfg(unix)]
        let write = File::write_at;
        #[cfg(windows)]
        let write = File::seek_write;
        let done = repeat(bytes.len(), |done| write(&self.0, &bytes[done..], position + done as u64))?;
        if done < bytes.len() { Err(ErrorKind::WriteZero.into()) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn begin_sync(&self) {
        // What is dirty is written before it can be left out of memory, and the call does not wait for it.
        #[cfg(target_os = "linux")]
        let _ = rustix::fs::fadvise(&self.0, 0, None, rustix::fs::Advice::DontNeed);
    }

    fn map(&self, bytes: usize, mode: OpenMode) -> io::Result<Box<dyn Mapping>> {
        let mut options = MmapOptions::new();
        let (options, file) = (options.len(bytes), &self.0);
        let map = if mode == OpenMode::Read { options.map_raw_read_only(file)? } else { options.map_raw(file)? };
        Ok(Box::new(RealMapping(map)))
    }

    /// On Unix a POSIX record lock over the whole file, and so over byte 0, which is what RocketMQ locks.
    fn try_lock(&self) -> io::Result<bool> {
        #[cfg(unix)]
        let locked = rustix::fs::fcntl_lock(&self.0, rustix::fs::FlockOperation::NonBlockingLockExclusive);
        #[cfg(windows)]
        let locked = self.0.try_lock();
        match locked.map_err(io::Error::from) {
            // The two answers of Unix to the second one who asks.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::PermissionDenied) => Ok(false),
            locked => locked.map(|()| true),
        }
    }
}

#[derive(Debug)]
struct RealMapping(MmapRaw);

/// Where pages are larger the system refuses what is no multiple of them, and the hint has no effect.
#[cfg(target_os = "linux")]
const PAGE_BYTES: usize = 4096;

impl RealMapping {
    /// Takes whole pages out of the page tables, where they come back at their next use. Writing back a page that is
    /// mapped interrupts every core that uses the mapping, once for each page; this does so once for all of them.
    fn forget(&self, range: &Range<usize>) {
        #[cfg(target_os = "linux")]
        {
            let (start, end) = (range.start.next_multiple_of(PAGE_BYTES), range.end / PAGE_BYTES * PAGE_BYTES);
            if start < end {
                // SAFETY: the mapping is shared and of a file, so its bytes stay in the page cache, and whoever reads
                // or writes the range finds them there. Only a hint: what it does not reach is written back too.
                let _ = unsafe { self.0.unchecked_advise_range(UncheckedAdvice::DontNeed, start, end - start) };
            }
        }
    }
}

// SAFETY: `MmapRaw` keeps its mapping at one place until it is dropped, makes no reference into it, and was made
// writable unless the mode was `Read`. That the file is not cut short by another program is a condition of the crate.
unsafe impl Mapping for RealMapping {
    fn as_mut_ptr(&self) -> *mut u8 {
        self.0.as_mut_ptr()
    }

    fn bytes(&self) -> usize {
        self.0.len()
    }

    fn flush(&self, range: Range<usize>) -> io::Result<()> {
        self.forget(&range);
        self.0.flush_range(range.start, range.len())
    }

    fn populate(&self, range: Range<usize>) {
        #[cfg(target_os = "linux")]
        // Only a hint: the pages come at their first use where the system does not know this call.
        let _ = self.0.advise_range(memmap2::Advice::PopulateWrite, range.start, range.len());
    }
}
