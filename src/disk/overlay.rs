//! A disk over another one: reads come from the base, changes stay in memory.
//!
//! A store that is opened for reading only runs its whole recovery here, and the files below do not change by a byte.
//!
//! - The base is listed, asked about and opened for reading, each on demand; nothing else is ever done to it.
//! - A file that nobody changed here is the base's, as it is at the time of a read. The first change, or a new name,
//!   takes its length; from then on the base's bytes show only below `shown`, in pages that were not written.
//! - A name that has a node here hides the base's name, and all that stands below it.
//! - Memory holds what was written, and a small node for each file that is open or changed.
//!
//! Paths are compared as they are given: links and `..` are not followed. A file may be written through every handle,
//! whatever mode it was opened with: there is nothing to protect.

use std::collections::BTreeMap;
use std::io;
use std::ops::{Bound, Range};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use super::{Disk, DiskFile, FileInfo, Listed, Mapping, OpenMode};

const PAGE: usize = 4096;
const PAGE_BYTES: u64 = PAGE as u64;

/// Stands for the time of a change.
static STAMP: AtomicU64 = AtomicU64::new(1);

/// Reads from a base disk and keeps every change in memory.
#[derive(Debug)]
pub(crate) struct OverlayDisk {
    base: Arc<dyn Disk>,
    names: Mutex<Names>,
}

#[derive(Debug, Default)]
struct Names {
    nodes: BTreeMap<PathBuf, Node>,
    /// With more nodes than this, those of files that are neither open nor changed go.
    limit: usize,
}

#[derive(Debug)]
enum Node {
    /// As long as it is unchanged, its name is the one it has on the base.
    File(Arc<Content>),
    /// A folder that was made here: nothing of the base shows in it.
    Dir,
    Removed,
}

impl OverlayDisk {
    pub(crate) fn new(base: Arc<dyn Disk>) -> Self {
        Self { base, names: Mutex::default() }
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a path means: the nearest node decides, else the base. A file has a content, a folder has none.
    fn find(&self, names: &Names, path: &Path) -> io::Result<(FileInfo, Option<Arc<Content>>)> {
        let known = match names.nodes.get(path) {
            Some(Node::File(content)) => Some(Arc::clone(content)),
            Some(Node::Dir) => return Ok((FileInfo { bytes: 0, modified_ns: 0, is_dir: true }, None)),
            Some(Node::Removed) => return Err(io::ErrorKind::NotFound.into()),
            None => match path.ancestors().find_map(|parent| names.nodes.get(parent)) {
                Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                Some(Node::Dir | Node::Removed) => return Err(io::ErrorKind::NotFound.into()),
                None => None,
            },
        };
        if let Some(info) = known.as_ref().and_then(|content| content.changed_info()) {
            return Ok((info, known));
        }
        let info = self.base.info(path)?;
        let content = known.unwrap_or_else(|| Arc::new(Content::new(path)));
        Ok((info, Some(content).filter(|_| !info.is_dir)))
    }

    /// A new name needs a folder to stand in.
    fn check_parent(&self, names: &Names, path: &Path) -> io::Result<()> {
        match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) if self.find(names, parent)?.1.is_some() => Err(io::ErrorKind::NotADirectory.into()),
            _ => Ok(()),
        }
    }

    fn list_named(&self, names: &Names, dir: &Path) -> io::Result<Vec<Listed>> {
        let mut found: BTreeMap<String, FileInfo> = BTreeMap::new();
        if self.find(names, dir)?.1.is_some() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        if !names.nodes.contains_key(dir) {
            found.extend(self.base.list(dir)?.into_iter().map(|listed| (listed.name, listed.info)));
        }
        let below = names.nodes.range::<Path, _>((Bound::Excluded(dir), Bound::Unbounded));
        for (path, _) in below.take_while(|(path, _)| path.starts_with(dir)) {
            let Some(name) = path.file_name().filter(|_| path.parent() == Some(dir)) else { continue };
            let name = name.to_string_lossy().into_owned();
            match self.find(names, path) {
                Ok((info, _)) => found.insert(name, info),
                // Removed here, or by the program that writes the base.
                Err(_) => found.remove(&name),
            };
        }
        Ok(found.into_iter().map(|(name, info)| Listed { name, info }).collect())
    }
}

impl Names {
    fn put(&mut self, path: &Path, node: Node) {
        self.nodes.insert(path.to_path_buf(), node);
        if self.nodes.len() <= self.limit {
            return;
        }
        // Handles are made under the lock of the names: a content that only its node holds is open nowhere.
        self.nodes.retain(|_, node| match node {
            Node::File(content) => Arc::strong_count(content) > 1 || content.changed_info().is_some(),
            Node::Dir | Node::Removed => true,
        });
        self.limit = 2 * self.nodes.len() + 64;
    }
}

impl Disk for OverlayDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut names = self.names();
        let content = match self.find(&names, path) {
            Ok((_, found)) => found.ok_or(io::ErrorKind::IsADirectory)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound && mode == OpenMode::Create => {
                self.check_parent(&names, path)?;
                Arc::new(Content::new(path))
            }
            Err(error) => return Err(error),
        };
        if mode == OpenMode::Create {
            *content.write() = Some(Changed::new(0));
        }
        let file = content.open(&*self.base)?;
        names.put(path, Node::File(content));
        Ok(Arc::new(file))
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut names = self.names();
        let mut dirs: Vec<&Path> = dir.ancestors().filter(|dir| !dir.as_os_str().is_empty()).collect();
        while let Some(next) = dirs.pop() {
            match self.find(&names, next) {
                Ok((_, None)) => {}
                Ok(_) if dirs.is_empty() => return Err(io::ErrorKind::AlreadyExists.into()),
                Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => names.put(next, Node::Dir),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut names = self.names();
        let content = self.find(&names, from)?.1.ok_or(io::ErrorKind::IsADirectory)?;
        self.check_parent(&names, to)?;
        if matches!(self.find(&names, to), Ok((_, None))) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if from != to {
            content.open(&*self.base)?.change(|_| Ok(()))?;
            names.put(from, Node::Removed);
            names.put(to, Node::File(content));
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut names = self.names();
        self.find(&names, path)?.1.ok_or(io::ErrorKind::IsADirectory)?;
        names.put(path, Node::Removed);
        Ok(())
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let mut names = self.names();
        if !self.list_named(&names, dir)?.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        // The folder's own node hides everything below it from now on.
        names.nodes.retain(|path, _| !path.starts_with(dir));
        names.put(dir, Node::Removed);
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        self.list_named(&self.names(), dir)
    }

    fn info(&self, path: &Path) -> io::Result<FileInfo> {
        Ok(self.find(&self.names(), path)?.0)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        // A folder that was made here is not on the base; one above it is.
        dir.ancestors().find_map(|dir| self.base.free_bytes(dir).ok()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn maps_safely(&self, _dir: &Path) -> bool {
        false
    }

    fn try_lock(&self, _path: &Path, _file: &dyn DiskFile) -> io::Result<bool> {
        Ok(true)
    }
}

/// One file's bytes, shared by its name and its handles.
#[derive(Debug)]
struct Content {
    /// The base's file behind it, if there is one.
    base_path: PathBuf,
    /// The base's open file while somebody has it, so that all handles read the same one.
    open: Mutex<Option<Weak<dyn DiskFile>>>,
    /// `None` as long as it is as on the base.
    changed: RwLock<Option<Changed>>,
}

#[derive(Debug)]
struct Changed {
    bytes: u64,
    /// The base's bytes below this position show where no page was written.
    shown: u64,
    stamp: u64,
    /// A page without bytes is all zeros.
    pages: BTreeMap<u64, Option<Box<[u8; PAGE]>>>,
}

impl Changed {
    /// A file of which nothing was written yet.
    fn new(bytes: u64) -> Self {
        Self { bytes, shown: bytes, stamp: STAMP.fetch_add(1, Ordering::Relaxed), pages: BTreeMap::new() }
    }
}

impl Content {
    fn new(path: &Path) -> Self {
        Self { base_path: path.to_path_buf(), open: Mutex::default(), changed: RwLock::default() }
    }

    fn read(&self) -> RwLockReadGuard<'_, Option<Changed>> {
        self.changed.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Option<Changed>> {
        self.changed.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed_info(&self) -> Option<FileInfo> {
        let changed = self.read();
        changed.as_ref().map(|now| FileInfo { bytes: now.bytes, modified_ns: now.stamp, is_dir: false })
    }

    fn open(self: &Arc<Self>, disk: &dyn Disk) -> io::Result<OverlayFile> {
        let content = Arc::clone(self);
        if self.read().as_ref().is_some_and(|changed| changed.shown == 0) {
            return Ok(OverlayFile { content, base: None });
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let base = match open.as_ref().and_then(Weak::upgrade) {
            Some(base) => base,
            None => disk.open(&self.base_path, OpenMode::Read)?,
        };
        *open = Some(Arc::downgrade(&base));
        Ok(OverlayFile { content, base: Some(base) })
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
        Ok(&**self.base.as_ref().ok_or(io::ErrorKind::NotFound)?)
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
        let before = match changed.take() {
            Some(changed) => changed,
            None => Changed::new(self.base()?.info()?.bytes),
        };
        let now = changed.insert(before);
        now.stamp = STAMP.fetch_add(1, Ordering::Relaxed);
        edit(now)
    }

    /// Writes into the page `number`, from `start` on.
    fn write_page(&self, changed: &mut Changed, number: u64, start: usize, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() == PAGE && bytes.iter().all(|byte| *byte == 0) {
            changed.pages.insert(number, None);
            return Ok(());
        }
        let mut page = Box::new([0; PAGE]);
        match changed.pages.remove(&number) {
            Some(Some(written)) => page = written,
            Some(None) => {}
            None => self.read_base(&mut page[..], number * PAGE_BYTES, changed.shown)?,
        }
        page[start..start + bytes.len()].copy_from_slice(bytes);
        changed.pages.insert(number, Some(page));
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
        if i64::try_from(bytes).is_err() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
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
        if len == 0 {
            return Ok(0);
        }
        self.read_base(&mut buffer[..len], position, changed.shown)?;
        let end = position + len as u64;
        for (number, page) in changed.pages.range(position / PAGE_BYTES..end.div_ceil(PAGE_BYTES)) {
            let start = number * PAGE_BYTES;
            let (from, to) = (position.max(start), end.min(start + PAGE_BYTES));
            let target = &mut buffer[(from - position) as usize..(to - position) as usize];
            match page {
                Some(page) => target.copy_from_slice(&page[(from - start) as usize..(to - start) as usize]),
                None => target.fill(0),
            }
        }
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let end = position.checked_add(bytes.len() as u64).filter(|end| i64::try_from(*end).is_ok());
        let Some(end) = end else { return Err(io::ErrorKind::FileTooLarge.into()) };
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
        Err(io::ErrorKind::Unsupported.into())
    }

    fn as_std(&self) -> Option<&std::fs::File> {
        None
    }
}
