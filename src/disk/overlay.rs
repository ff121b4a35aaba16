//! A disk over another one: reads come from the base, changes stay in memory.
//!
//! A store that is opened for reading only runs its whole recovery here, and the files below do not change by a byte.
//!
//! - The base is listed, asked about and opened for reading, each on demand; nothing else is ever done to it.
//! - A file that nobody changed here is the base's, as it is at the time of a read. The first change, or a new name,
//!   takes its length; from then on the base's bytes show only below `shown`, in pages that were not written.
//! - Folders are there as soon as a file stands in them: making one does nothing.
//! - Memory holds what was written, and a small node for each file that is open or changed.
//!
//! Paths are compared as they are given: links and `..` are not followed. A file may be written through every handle,
//! whatever mode it was opened with: there is nothing to protect.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::ops::{Bound, Range};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::storage::is_missing;
use super::{Disk, DiskFile, FileInfo, Listed, Mapping, OpenMode};

const PAGE: usize = 4096;
const PAGE_BYTES: u64 = PAGE as u64;

/// Reads from a base disk and keeps every change in memory.
#[derive(Debug)]
pub(crate) struct OverlayDisk {
    base: Arc<dyn Disk>,
    names: Mutex<Names>,
}

#[derive(Debug, Default)]
struct Names {
    /// Files that are open or changed, `None` where one was removed. As long as a file is unchanged, its name is the
    /// one it has on the base.
    nodes: BTreeMap<PathBuf, Option<Arc<Content>>>,
    /// With more nodes than this, those of files that are neither open nor changed go.
    limit: usize,
}

impl Names {
    fn put(&mut self, path: &Path, node: Option<Arc<Content>>) {
        self.nodes.insert(path.to_path_buf(), node);
        if self.nodes.len() > self.limit {
            // Handles are made under the lock of the names: a content that only its node holds is open nowhere.
            let is_needed = |content: &Arc<Content>| Arc::strong_count(content) > 1 || content.changed_info().is_some();
            self.nodes.retain(|_, node| node.as_ref().is_none_or(is_needed));
            self.limit = 2 * self.nodes.len() + 64;
        }
    }

    /// All nodes in a folder and in those below it.
    fn below(&self, dir: &Path) -> impl Iterator<Item = (&PathBuf, &Option<Arc<Content>>)> {
        let behind = self.nodes.range::<Path, _>((Bound::Excluded(dir), Bound::Unbounded));
        behind.take_while(move |(path, _)| path.starts_with(dir))
    }

    fn has_files_in(&self, dir: &Path) -> bool {
        self.below(dir).any(|(_, node)| node.is_some())
    }
}

impl OverlayDisk {
    pub(crate) fn new(base: Arc<dyn Disk>) -> Self {
        Self { base, names: Mutex::default() }
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, names: &Names, path: &Path) -> io::Result<Arc<Content>> {
        match names.nodes.get(path) {
            Some(node) => node.clone().ok_or(ErrorKind::NotFound.into()),
            None if self.info_of(names, path)?.is_dir => Err(ErrorKind::IsADirectory.into()),
            None => Ok(Content::new(path)),
        }
    }

    fn info_of(&self, names: &Names, path: &Path) -> io::Result<FileInfo> {
        match names.nodes.get(path) {
            Some(None) => Err(ErrorKind::NotFound.into()),
            Some(Some(content)) => content.changed_info().map_or_else(|| self.base.info(path), Ok),
            None if names.has_files_in(path) => Ok(FileInfo { bytes: 0, modified_ns: 0, is_dir: true }),
            None => self.base.info(path),
        }
    }
}

impl Disk for OverlayDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut names = self.names();
        let content = match self.find(&names, path) {
            // A file may stand on the base where a folder does here.
            Err(error) if mode == OpenMode::Create && is_missing(&error) => Content::new(path),
            found => found?,
        };
        if mode == OpenMode::Create {
            *content.write() = Some(Changed::default());
        }
        let file = content.open(&*self.base)?;
        names.put(path, Some(content));
        Ok(Arc::new(file))
    }

    fn create_dir_all(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut names = self.names();
        let content = self.find(&names, from)?;
        content.open(&*self.base)?.change(|_| Ok(()))?;
        names.put(from, None);
        names.put(to, Some(content));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut names = self.names();
        self.find(&names, path)?;
        names.put(path, None);
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        let names = self.names();
        let shown = self.base.list(dir);
        let shown = shown.or_else(|error| if names.has_files_in(dir) { Ok(Vec::new()) } else { Err(error) })?;
        let mut found: BTreeMap<_, _> = shown.into_iter().map(|listed| (listed.name, listed.info)).collect();
        for (path, _) in names.below(dir) {
            // What stands deeper shows its folder.
            let Some(name) = path.iter().nth(dir.iter().count()) else { continue };
            match self.info_of(&names, &dir.join(name)) {
                Ok(info) => found.insert(name.to_string_lossy().into_owned(), info),
                // Removed here, or by the program that writes the base.
                Err(_) => found.remove(&*name.to_string_lossy()),
            };
        }
        Ok(found.into_iter().map(|(name, info)| Listed { name, info }).collect())
    }

    fn info(&self, path: &Path) -> io::Result<FileInfo> {
        self.info_of(&self.names(), path)
    }

    fn maps_safely(&self, _dir: &Path) -> bool {
        false
    }
}

/// One file's bytes, shared by its name and its handles.
#[derive(Debug)]
struct Content {
    /// The base's file behind it, if there is one.
    base_path: PathBuf,
    /// `None` as long as it is as on the base.
    changed: RwLock<Option<Changed>>,
}

#[derive(Debug, Default)]
struct Changed {
    bytes: u64,
    /// The base's bytes below this position show where no page was written.
    shown: u64,
    /// Counts the changes, and stands for the time of the last one.
    changes: u64,
    /// A page without bytes is all zeros.
    pages: BTreeMap<u64, Option<Box<[u8; PAGE]>>>,
}

impl Content {
    fn new(path: &Path) -> Arc<Self> {
        Arc::new(Self { base_path: path.to_path_buf(), changed: RwLock::default() })
    }

    fn read(&self) -> RwLockReadGuard<'_, Option<Changed>> {
        self.changed.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Option<Changed>> {
        self.changed.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed_info(&self) -> Option<FileInfo> {
        let changed = self.read();
        changed.as_ref().map(|now| FileInfo { bytes: now.bytes, modified_ns: now.changes, is_dir: false })
    }

    fn open(self: &Arc<Self>, disk: &dyn Disk) -> io::Result<OverlayFile> {
        let shows_base = self.read().as_ref().is_none_or(|changed| changed.shown > 0);
        let base = if shows_base { Some(disk.open(&self.base_path, OpenMode::Read)?) } else { None };
        Ok(OverlayFile { content: Arc::clone(self), base })
    }
}

/// A handle; it keeps the base's file open, so a file that the base loses stays readable here.
#[derive(Debug)]
struct OverlayFile {
    content: Arc<Content>,
    /// `None` where no byte of the base shows, which stays so.
    base: Option<Arc<dyn DiskFile>>,
}

impl OverlayFile {
    fn base(&self) -> io::Result<&dyn DiskFile> {
        Ok(&**self.base.as_ref().ok_or(ErrorKind::NotFound)?)
    }

    /// Reads what shows of the base; everything else becomes zero.
    fn read_base(&self, buffer: &mut [u8], position: u64, shown: u64) -> io::Result<()> {
        let wanted = length_in(buffer.len(), shown.saturating_sub(position));
        let count = if wanted > 0 { self.base()?.read_at(&mut buffer[..wanted], position)? } else { 0 };
        buffer[count..].fill(0);
        Ok(())
    }

    fn change(&self, edit: impl FnOnce(&mut Changed) -> io::Result<()>) -> io::Result<()> {
        let mut changed = self.content.write();
        if changed.is_none() {
            let bytes = self.base()?.info()?.bytes;
            *changed = Some(Changed { bytes, shown: bytes, ..Changed::default() });
        }
        changed.as_mut().map_or(Ok(()), |changed| {
            changed.changes += 1;
            edit(changed)
        })
    }

    /// Writes into the page `number`, from `start` on.
    fn write_page(&self, changed: &mut Changed, number: u64, start: usize, bytes: &[u8]) -> io::Result<()> {
        let mut page = Box::new([0; PAGE]);
        match changed.pages.remove(&number) {
            Some(written) => page = written.unwrap_or(page),
            None => self.read_base(&mut page[..], number * PAGE_BYTES, changed.shown)?,
        }
        page[start..start + bytes.len()].copy_from_slice(bytes);
        changed.pages.insert(number, page.iter().any(|byte| *byte != 0).then_some(page));
        Ok(())
    }
}

/// The smaller of a buffer's length and a number of bytes.
fn length_in(len: usize, bytes: u64) -> usize {
    usize::try_from(bytes).map_or(len, |bytes| bytes.min(len))
}

impl DiskFile for OverlayFile {
    fn info(&self) -> io::Result<FileInfo> {
        self.content.changed_info().map_or_else(|| self.base()?.info(), Ok)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.change(|changed| {
            changed.pages.split_off(&bytes.div_ceil(PAGE_BYTES));
            if let Some(Some(page)) = changed.pages.get_mut(&(bytes / PAGE_BYTES)) {
                page[length_in(PAGE, bytes % PAGE_BYTES)..].fill(0);
            }
            (changed.bytes, changed.shown) = (bytes, changed.shown.min(bytes));
            Ok(())
        })
    }

    fn allocate(&self, _range: Range<u64>) -> io::Result<()> {
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let changed = self.content.read();
        let Some(changed) = &*changed else { return self.base()?.read_at(buffer, position) };
        let len = length_in(buffer.len(), changed.bytes.saturating_sub(position));
        self.read_base(&mut buffer[..len], position, changed.shown)?;
        let end = position + len as u64;
        for (number, page) in changed.pages.range(position / PAGE_BYTES..end.div_ceil(PAGE_BYTES)) {
            let start = number * PAGE_BYTES;
            let (from, to) = (position.max(start), end.min(start + PAGE_BYTES));
            let target = &mut buffer[(from - position) as usize..(to - position) as usize];
            let page = page.as_deref().unwrap_or(&[0; PAGE]);
            target.copy_from_slice(&page[(from - start) as usize..(to - start) as usize]);
        }
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let end = position.saturating_add(bytes.len() as u64);
        if i64::try_from(end).is_err() {
            return Err(ErrorKind::FileTooLarge.into());
        }
        if bytes.is_empty() {
            return Ok(());
        }
        self.change(|changed| {
            let (mut at, mut rest) = (position, bytes);
            while !rest.is_empty() {
                let start = at % PAGE_BYTES;
                let (piece, behind) = rest.split_at(length_in(rest.len(), PAGE_BYTES - start));
                self.write_page(changed, at / PAGE_BYTES, start as usize, piece)?;
                (at, rest) = (at + piece.len() as u64, behind);
            }
            changed.bytes = changed.bytes.max(end);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn map(&self, _bytes: usize, _mode: OpenMode) -> io::Result<Box<dyn Mapping>> {
        Err(ErrorKind::Unsupported.into())
    }

    fn try_lock(&self) -> io::Result<bool> {
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::SystemTime;

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::super::RealDisk;
    use super::*;

    fn overlay() -> OverlayDisk {
        OverlayDisk::new(Arc::new(RealDisk))
    }

    /// A folder with a file of 10,000 bytes, an empty one, and one in a folder below.
    fn base() -> TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir(dir.path().join("d")).expect("a folder below");
        for (name, bytes) in [("f0", 10_000), ("f1", 0), ("d/f2", 4096)] {
            let bytes: Vec<u8> = (0..bytes).map(|at: u32| (at % 251) as u8 + 1).collect();
            fs::write(dir.path().join(name), bytes).expect("a file");
        }
        dir
    }

    /// Everything that a change would show in: names, bytes, times, inodes.
    fn fingerprint(dir: &Path) -> Vec<(PathBuf, SystemTime, [i64; 4], Vec<u8>)> {
        let mut all = Vec::new();
        let mut folders = vec![dir.to_path_buf()];
        while let Some(folder) = folders.pop() {
            let mut paths: Vec<_> =
                fs::read_dir(&folder).expect("list").map(|entry| entry.expect("name").path()).collect();
            paths.push(folder.clone());
            for path in paths {
                let about = fs::metadata(&path).expect("stat");
                #[cfg(unix)]
                let more = {
                    use std::os::unix::fs::MetadataExt;
                    [about.ctime(), about.ctime_nsec(), about.ino() as i64, i64::from(about.mode())]
                };
                #[cfg(not(unix))]
                let more = [0; 4];
                let bytes = if about.is_dir() { Vec::new() } else { fs::read(&path).expect("read") };
                if about.is_dir() && path != folder {
                    folders.push(path.clone());
                }
                all.push((path, about.modified().expect("time"), more, bytes));
            }
        }
        all.sort();
        all
    }

    fn read(file: &dyn DiskFile, len: usize, position: u64) -> Vec<u8> {
        let mut bytes = vec![0xAA; len];
        let count = file.read_at(&mut bytes, position).expect("read");
        bytes.truncate(count);
        bytes
    }

    fn names(disk: &OverlayDisk, dir: &Path) -> Vec<String> {
        disk.list(dir).expect("list").into_iter().map(|listed| listed.name).collect()
    }

    fn kind<T: std::fmt::Debug>(result: io::Result<T>) -> ErrorKind {
        result.expect_err("an error").kind()
    }

    #[test]
    fn no_change_reaches_the_base() {
        let (dir, disk) = (base(), overlay());
        let before = fingerprint(dir.path());
        let at = |name: &str| dir.path().join(name);
        let file = disk.open(&at("f0"), OpenMode::ReadWrite).expect("open");
        file.write_at(b"changed", 4090).expect("write");
        file.allocate(0..100_000).expect("allocate");
        file.set_len(50_000).expect("grow");
        file.set_len(5000).expect("cut");
        file.sync().expect("sync");
        disk.open(&at("f1"), OpenMode::Create).expect("empty").write_at(b"x", 0).expect("write");
        disk.open(&at("new"), OpenMode::Create).expect("create").write_at(b"y", 1 << 40).expect("write");
        disk.rename(&at("d/f2"), &at("f1")).expect("rename");
        disk.rename(&at("new"), &at("d/f2")).expect("rename");
        disk.remove_file(&at("d/f2")).expect("remove");
        disk.create_dir_all(&at("x/y")).expect("folders");
        disk.sync_dir(&at("x")).expect("sync");
        assert!(file.try_lock().expect("lock"));
        assert_eq!(names(&disk, dir.path()), ["d", "f0", "f1"]);
        assert!(names(&disk, &at("d")).is_empty());
        assert_eq!(disk.info(&at("f1")).expect("info").bytes, 4096);
        assert_eq!(fingerprint(dir.path()), before);
    }

    #[test]
    fn an_untouched_file_is_the_base_as_it_is_now() {
        let (dir, disk) = (base(), overlay());
        let path = dir.path().join("f1");
        let file = disk.open(&path, OpenMode::ReadWrite).expect("open");
        assert_eq!(read(&*file, 10, 0), b"");
        fs::write(&path, b"grown").expect("another program writes");
        assert_eq!(read(&*file, 10, 0), b"grown");
        assert_eq!(disk.info(&path).expect("info"), RealDisk.info(&path).expect("info"));
        assert_eq!(file.info().expect("info"), RealDisk.info(&path).expect("info"));
        file.write_at(b"G", 0).expect("write");
        fs::write(&path, b"grown again").expect("another program writes");
        assert_eq!(file.info().expect("info").bytes, 5);
        assert_eq!(read(&*file, 20, 0), b"Grown");
    }

    #[test]
    fn every_change_gives_a_file_another_time() {
        let (dir, disk) = (base(), overlay());
        let path = dir.path().join("f0");
        let file = disk.open(&path, OpenMode::ReadWrite).expect("open");
        let mut seen = vec![disk.info(&path).expect("info").modified_ns];
        let changes: [&dyn Fn() -> io::Result<()>; 3] =
            [&|| file.write_at(b"a", 0), &|| file.write_at(b"a", 0), &|| file.set_len(9)];
        for change in changes {
            change().expect("a change");
            let now = disk.info(&path).expect("info");
            assert_eq!(file.info().expect("info"), now);
            assert!(!seen.contains(&now.modified_ns));
            seen.push(now.modified_ns);
        }
    }

    #[test]
    fn two_handles_of_a_file_see_each_others_writes() {
        let (dir, disk) = (base(), overlay());
        let path = dir.path().join("f0");
        let (one, two) = (disk.open(&path, OpenMode::ReadWrite).expect("open"), disk.open(&path, OpenMode::Read));
        let two = two.expect("open");
        one.write_at(b"hello", 9998).expect("write");
        assert_eq!(read(&*two, 10, 9998), b"hello");
        drop((one, two));
        assert_eq!(read(&*disk.open(&path, OpenMode::Read).expect("open"), 10, 9998), b"hello");
        disk.rename(&path, &dir.path().join("g")).expect("rename");
        assert_eq!(kind(disk.open(&path, OpenMode::Read)), ErrorKind::NotFound);
        assert_eq!(read(&*disk.open(&dir.path().join("g"), OpenMode::Read).expect("open"), 10, 9998), b"hello");
    }

    #[test]
    fn a_file_that_the_base_loses_stays_readable_for_its_holder() {
        let (dir, disk) = (base(), overlay());
        let path = dir.path().join("f0");
        let before = fs::read(&path).expect("read");
        let file = disk.open(&path, OpenMode::ReadWrite).expect("open");
        fs::remove_file(&path).expect("another program removes it");
        assert_eq!(read(&*file, 20_000, 0), before);
        assert_eq!(kind(disk.open(&path, OpenMode::Read)), ErrorKind::NotFound);
        assert_eq!(kind(disk.info(&path)), ErrorKind::NotFound);
        assert_eq!(names(&disk, dir.path()), ["d", "f1"]);
        file.write_at(b"mine", 0).expect("write");
        assert_eq!(read(&*file, 6, 0)[..4], *b"mine");
        assert_eq!(read(&*file, 20_000, 4), before[4..]);
    }

    #[test]
    fn a_changed_file_whose_base_was_cut_or_lost_reads_zeros_or_an_error() {
        let (dir, disk) = (base(), overlay());
        let path = dir.path().join("f0");
        let file = disk.open(&path, OpenMode::ReadWrite).expect("open");
        file.write_at(b"mine", 0).expect("write");
        fs::OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(5000)).expect("cut below");
        assert_eq!(read(&*file, 20_000, 5000), [0; 5000]);
        drop(file);
        fs::remove_file(&path).expect("another program removes it");
        assert_eq!(kind(disk.open(&path, OpenMode::ReadWrite)), ErrorKind::NotFound);
        disk.open(&path, OpenMode::Create).expect("an emptied file needs nothing of the base");
    }

    #[test]
    fn what_was_not_written_costs_no_memory() {
        let (dir, disk) = (base(), overlay());
        let file = disk.open(&dir.path().join("new"), OpenMode::Create).expect("create");
        file.set_len(1 << 50).expect("grow");
        file.write_at(&[7], 1 << 49).expect("write");
        file.write_at(&[0; 8 * PAGE], 1 << 48).expect("write zeros");
        assert_eq!(read(&*file, 3, (1 << 49) - 1), [0, 7, 0]);
        let pages = |names: &Names| match names.nodes.get(&dir.path().join("new")) {
            Some(Some(content)) => content.read().as_ref().expect("changed").pages.values().flatten().count(),
            _ => 0,
        };
        assert_eq!(pages(&disk.names()), 1);
        assert_eq!(kind(file.write_at(&[1], u64::MAX)), ErrorKind::FileTooLarge);
        assert_eq!(read(&*file, 3, u64::MAX), b"");
    }

    #[test]
    fn closed_files_that_nobody_changed_are_forgotten() {
        let (dir, disk) = (base(), overlay());
        let kept = disk.open(&dir.path().join("f0"), OpenMode::ReadWrite).expect("open");
        for number in 0..1000 {
            let path = dir.path().join(format!("d/{number}"));
            fs::write(&path, b"x").expect("a file");
            let file = disk.open(&path, OpenMode::ReadWrite).expect("open");
            if number % 100 == 0 {
                file.write_at(b"y", 0).expect("write");
            }
        }
        assert!(disk.names().nodes.len() < 150, "{} nodes", disk.names().nodes.len());
        let again = disk.open(&dir.path().join("f0"), OpenMode::ReadWrite).expect("open");
        kept.write_at(b"kept", 0).expect("write");
        assert_eq!(read(&*again, 4, 0), b"kept");
        let changed = disk.open(&dir.path().join("d/700"), OpenMode::Read).expect("open");
        assert_eq!(read(&*changed, 4, 0), b"y");
    }

    #[test]
    fn nothing_is_mapped_or_handed_to_the_system() {
        let (dir, disk) = (base(), overlay());
        let file = disk.open(&dir.path().join("f0"), OpenMode::ReadWrite).expect("open");
        assert_eq!(kind(file.map(100, OpenMode::Read)), ErrorKind::Unsupported);
        assert!(!disk.maps_safely(dir.path()));
    }

    #[test]
    fn a_folder_is_there_as_soon_as_a_file_stands_in_it() {
        let (dir, disk) = (base(), overlay());
        let below = dir.path().join("new/deep");
        disk.create_dir_all(&below).expect("make it");
        assert_eq!(kind(disk.list(&below)), ErrorKind::NotFound);
        disk.open(&below.join("f"), OpenMode::Create).expect("create");
        assert_eq!(names(&disk, dir.path()), ["d", "f0", "f1", "new"]);
        assert_eq!(
            (names(&disk, &dir.path().join("new")), names(&disk, &below)),
            (vec!["deep".into()], vec!["f".into()])
        );
        assert!(disk.info(&below).expect("a folder").is_dir);
        assert_eq!(kind(disk.open(&below, OpenMode::Create)), ErrorKind::IsADirectory);
        assert_eq!(kind(disk.remove_file(&below)), ErrorKind::IsADirectory);
    }

    #[test]
    fn threads_write_side_by_side() {
        let (dir, disk) = (base(), overlay());
        let path = dir.path().join("f0");
        std::thread::scope(|scope| {
            for number in 0..4_u64 {
                let (disk, path) = (&disk, &path);
                scope.spawn(move || {
                    let file = disk.open(path, OpenMode::ReadWrite).expect("open");
                    (0..500).for_each(|at| file.write_at(&[number as u8; 3], (at * 4 + number) * 3).expect("write"));
                });
            }
        });
        let bytes = read(&*disk.open(&path, OpenMode::Read).expect("open"), 6000, 0);
        assert!(bytes.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at / 3 % 4));
    }

    /// One step of the model; paths are numbers of [`PATHS`], handles numbers of a small table.
    #[derive(Debug, Clone)]
    enum Step {
        Open { path: usize, mode: OpenMode, handle: usize },
        Write { handle: usize, position: u64, len: usize, fill: u8 },
        SetLen { handle: usize, bytes: u64 },
        Allocate { handle: usize, end: u64 },
        Read { handle: usize, position: u64, len: usize },
        Rename { from: usize, to: usize },
        Remove { path: usize },
    }

    const PATHS: [&str; 6] = ["f0", "f1", "d/f2", "d/f3", "d", "f4"];

    fn step() -> impl Strategy<Value = Step> {
        let (path, handle) = (0..PATHS.len(), 0..4_usize);
        let position = prop_oneof![0..20_000_u64, (0..5_u64).prop_map(|page| page * PAGE_BYTES)];
        let len = prop_oneof![0..9000_usize, (0..3_usize).prop_map(|page| page * PAGE)];
        let mode = prop_oneof![
            3 => Just(OpenMode::ReadWrite),
            1 => Just(OpenMode::Read),
            2 => Just(OpenMode::Create)
        ];
        let write = (handle.clone(), position.clone(), len.clone(), prop_oneof![Just(0), any::<u8>()]);
        prop_oneof![
            5 => (path.clone(), mode, handle.clone()).prop_map(|(path, mode, handle)| Step::Open { path, mode, handle }),
            6 => write.prop_map(|(handle, position, len, fill)| Step::Write { handle, position, len, fill }),
            3 => (handle.clone(), position.clone()).prop_map(|(handle, bytes)| Step::SetLen { handle, bytes }),
            1 => (handle.clone(), position.clone()).prop_map(|(handle, end)| Step::Allocate { handle, end }),
            6 => (handle, position, len).prop_map(|(handle, position, len)| Step::Read { handle, position, len }),
            2 => (path.clone(), path.clone()).prop_map(|(from, to)| Step::Rename { from, to }),
            2 => path.prop_map(|path| Step::Remove { path }),
        ]
    }

    type Handles = [Option<(Arc<dyn DiskFile>, OpenMode)>; 4];

    /// Takes a step on one disk and tells all that there is to see.
    fn take(disk: &dyn Disk, root: &Path, handles: &mut Handles, step: &Step) -> String {
        let at = |path: usize| root.join(PATHS[path]);
        let is_dir = |path: usize| disk.info(&at(path)).is_ok_and(|info| info.is_dir);
        let done = |result: io::Result<()>| format!("{:?}", result.map_err(|error| error.kind()));
        let writable = |handle: usize| handles[handle].as_ref().filter(|(_, mode)| *mode != OpenMode::Read);
        match *step {
            // The operating system opens a folder for reading, which nobody asks for.
            Step::Open { path, .. } if is_dir(path) => String::new(),
            // Nor does anybody move a folder, or something over one.
            Step::Rename { from, to } if is_dir(from) || is_dir(to) => String::new(),
            Step::Open { path, mode, handle } => done(disk.open(&at(path), mode).map(|file| {
                handles[handle] = Some((file, mode));
            })),
            Step::Write { handle, position, len, fill } => {
                let bytes: Vec<u8> = (0..len).map(|at| if fill == 0 { 0 } else { (at % 251) as u8 ^ fill }).collect();
                writable(handle).map_or(String::new(), |(file, _)| done(file.write_at(&bytes, position)))
            }
            Step::SetLen { handle, bytes } => {
                writable(handle).map_or(String::new(), |(file, _)| done(file.set_len(bytes)))
            }
            Step::Allocate { handle, end } => {
                writable(handle).map_or(String::new(), |(file, _)| done(file.allocate(0..end)))
            }
            Step::Read { handle, position, len } => handles[handle].as_ref().map_or(String::new(), |(file, _)| {
                format!("{:?} {:?}", file.info().expect("info").bytes, read(&**file, len, position))
            }),
            // With two reasons to refuse, which one is told is the system's choice.
            Step::Rename { from, to } => disk.rename(&at(from), &at(to)).is_ok().to_string(),
            Step::Remove { path } => disk.remove_file(&at(path)).is_ok().to_string(),
        }
    }

    /// Names, kinds, lengths and bytes of all there is, by listing and by asking.
    fn tree(disk: &dyn Disk, root: &Path) -> Vec<String> {
        let mut all = Vec::new();
        for dir in [root.to_path_buf(), root.join("d")] {
            let listed = disk.list(&dir).map_err(|error| error.kind());
            for Listed { name, info } in listed.as_ref().map_or(&[][..], |listed| listed) {
                let path = dir.join(name);
                assert_eq!(disk.info(&path).expect("what is listed is there"), *info);
                if !info.is_dir {
                    let file = disk.open(&path, OpenMode::Read).expect("what is listed opens");
                    all.push(format!("{name} {} {:?}", info.bytes, read(&*file, 40_000, 0)));
                }
            }
            all.push(format!("{:?}", listed.map(|all| all.into_iter().map(|one| one.name).collect::<Vec<_>>())));
        }
        all.extend(PATHS.iter().map(|name| {
            format!("{name} {:?}", disk.info(&root.join(name)).map(|info| info.is_dir).map_err(|error| error.kind()))
        }));
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(192))]
        #[test]
        fn it_behaves_like_a_real_folder(steps in prop::collection::vec(step(), 1..60)) {
            let (original, copy, disk) = (base(), base(), overlay());
            let before = fingerprint(original.path());
            let (mut over, mut real) = (Handles::default(), Handles::default());
            for step in &steps {
                let here = take(&disk, original.path(), &mut over, step);
                let there = take(&RealDisk, copy.path(), &mut real, step);
                prop_assert!(here == there, "{step:?}: {here} instead of {there}");
            }
            let (here, there) = (tree(&disk, original.path()), tree(&RealDisk, copy.path()));
            prop_assert!(here == there, "{here:?} instead of {there:?}");
            prop_assert_eq!(fingerprint(original.path()), before);
        }
    }
}
