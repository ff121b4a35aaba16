//! A disk in memory whose crashes are chosen: for tests.
//!
//! - Nothing is certain until it is synced: bytes, lengths, names. What may come out of a crash is in
//!   [`Moment::kill`] and [`Moment::power_loss`].
//! - Every call is counted. With [`SimulatedDisk::record`] each call that changes something leaves a [`Moment`], so that
//!   one run of a workload gives the crash states of all its calls; with [`SimulatedDisk::fail`] one call fails.
//! - Mapped files are one piece of memory for all who have them open, also for positioned reads and writes; stores
//!   through a mapping come in by its observer.
//! - A store through a mapping into a part without blocks is kept in [`SimulatedDisk::broken_rules`].
//!
//! Times are a counter, so two runs with the same calls are the same.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::simulated_crash::Moment;
use super::simulated_state::{Id, State};
use super::{Disk, DiskFile, FileInfo, Listed, Mapping, OpenMode, StoreObserver};

/// What a call does instead of its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Fails with this number of the operating system, with nothing done; a sync freezes the sectors it was to write:
    /// the next one succeeds, and the disk keeps their old copies.
    Error(i32),
    /// A write does this many bytes and then fails for want of space; other calls fail at once.
    ShortWrite(usize),
}

/// A call that was made: its number, what it is, and the path it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) number: u64,
    pub(crate) operation: &'static str,
    pub(crate) path: PathBuf,
}

/// A disk in memory; clones are the same disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct SimulatedDisk(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    state: State,
    /// What processes see of files that were written to or mapped since the disk was started.
    live: HashMap<Id, Live>,
    calls: u64,
    is_off: bool,
    moments: Option<Vec<Moment>>,
    trace: Option<Vec<Call>>,
    /// Files that were renamed since they were opened, for the trace.
    renamed: HashMap<Id, PathBuf>,
    faults: HashMap<u64, Fault>,
    broken: Vec<String>,
}

#[derive(Debug)]
enum Live {
    Plain(Vec<u8>),
    Mapped(Arc<Memory>),
}

/// Memory at one place, which nobody has a reference into.
#[derive(Debug)]
struct Memory {
    first: *mut u8,
    bytes: usize,
}

// SAFETY: the memory belongs to this value alone, and is reached through raw pointers only. Who stores through a mapping
// keeps the promise of `Mapping`; reads and writes of the disk itself happen under its lock.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    fn new(mut content: Vec<u8>, bytes: usize) -> Self {
        content.resize(bytes, 0);
        Self { first: Box::into_raw(content.into_boxed_slice()).cast(), bytes }
    }

    fn read(&self, at: usize, target: &mut [u8]) {
        assert!(at + target.len() <= self.bytes, "a read stays inside");
        // SAFETY: the range lies inside of the memory, as just checked.
        let source = unsafe { self.first.add(at) };
        // SAFETY: as above, and `target` is somebody else's memory, since nobody has a reference into this one.
        unsafe { ptr::copy_nonoverlapping(source, target.as_mut_ptr(), target.len()) };
    }

    fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.bytes, "a write stays inside");
        // SAFETY: the range lies inside of the memory, as just checked.
        let target = unsafe { self.first.add(at) };
        // SAFETY: as above, and `bytes` is somebody else's memory, since nobody has a reference into unpublished parts.
        unsafe { ptr::copy(bytes.as_ptr(), target, bytes.len()) };
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let all = ptr::slice_from_raw_parts_mut(self.first, self.bytes);
        // SAFETY: it came from `Box::into_raw` with this length, and is given back once.
        drop(unsafe { Box::from_raw(all) });
    }
}

impl SimulatedDisk {
    /// A disk that holds what a crash left.
    pub(super) fn of(state: State) -> Self {
        Self(Arc::new(Mutex::new(Inner { state, ..Inner::default() })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on each change leaves a moment; the state as it is now is the first.
    pub(crate) fn record(&self) {
        let mut inner = self.inner();
        inner.moments = Some(Vec::new());
        inner.keep(None);
    }

    /// How many moments there are: what is done now is known at the next one.
    pub(crate) fn moment_count(&self) -> usize {
        self.inner().moments.as_ref().map_or(0, Vec::len)
    }

    /// Ends the recording.
    pub(crate) fn take_moments(&self) -> Vec<Moment> {
        self.inner().moments.take().unwrap_or_default()
    }

    /// The state as it is now.
    pub(crate) fn moment(&self) -> Moment {
        Moment::new(self.inner().state.clone(), None)
    }

    /// Calls since the disk was made.
    pub(crate) fn calls(&self) -> u64 {
        self.inner().calls
    }

    /// From now on keeps what is called; see [`take_trace`](Self::take_trace).
    pub(crate) fn trace(&self) {
        self.inner().trace = Some(Vec::new());
    }

    pub(crate) fn take_trace(&self) -> Vec<Call> {
        self.inner().trace.take().unwrap_or_default()
    }

    /// Has the call with this number do something else; calls are counted from 0.
    pub(crate) fn fail(&self, call: u64, fault: Fault) {
        self.inner().faults.insert(call, fault);
    }

    /// Faults that were not hit so far are none any more.
    pub(crate) fn mend(&self) {
        self.inner().faults.clear();
    }

    /// From now on every call fails and nothing reaches the disk: the process is dead and does not know it.
    pub(crate) fn switch_off(&self) {
        self.inner().is_off = true;
    }

    /// What was done that must never be.
    pub(crate) fn broken_rules(&self) -> Vec<String> {
        self.inner().broken.clone()
    }
}

impl Inner {
    /// Counts a call, and says if it does something else than its work.
    fn begin(&mut self, operation: &'static str, path: &Path) -> io::Result<Option<Fault>> {
        if self.is_off {
            return Err(io::Error::other("the disk is off"));
        }
        let number = self.calls;
        self.calls += 1;
        if let Some(trace) = &mut self.trace {
            trace.push(Call { number, operation, path: path.to_path_buf() });
        }
        Ok(self.faults.remove(&number))
    }

    /// As [`begin`](Self::begin), for a call on an open file, which may have another name by now.
    fn begin_on(&mut self, operation: &'static str, file: &SimulatedFile) -> io::Result<Option<Fault>> {
        let path = self.renamed.get(&file.id).cloned();
        self.begin(operation, path.as_deref().unwrap_or(&file.path))
    }

    fn begin_whole_on(&mut self, operation: &'static str, file: &SimulatedFile) -> io::Result<()> {
        self.begin_on(operation, file)?.map_or(Ok(()), |fault| Err(fault.error()))
    }

    /// As [`begin`](Self::begin), for a call that cannot be half done.
    fn begin_whole(&mut self, operation: &'static str, path: &Path) -> io::Result<()> {
        match self.begin(operation, path)? {
            None => Ok(()),
            Some(fault) => Err(fault.error()),
        }
    }

    /// Keeps the state after a change; `torn` is the store that may be half done in it.
    fn keep(&mut self, store: Option<(Id, u64, &[u8])>) {
        if let Some(moments) = &mut self.moments {
            let before = moments.last();
            let store = store.map(|(id, position, bytes)| (id, position, bytes.into()));
            let store = store.and_then(|store| Some((before?.state().clone(), store)));
            moments.push(Moment::new(self.state.clone(), store));
        }
    }

    fn read(&self, id: Id, target: &mut [u8], position: u64) -> usize {
        let file = self.state.file(id);
        let at = position.min(file.len()) as usize;
        let count = target.len().min(file.len() as usize - at);
        let target = &mut target[..count];
        match self.live.get(&id) {
            Some(Live::Plain(bytes)) => target.copy_from_slice(&bytes[at..at + count]),
            Some(Live::Mapped(memory)) => memory.read(at, target),
            None if file.is_settled() => target.copy_from_slice(&file.durable[at..at + count]),
            None => target.copy_from_slice(&file.seen()[at..at + count]),
        }
        count
    }

    /// What processes see of a file, to be changed.
    fn live(&mut self, id: Id) -> &mut Live {
        let state = &self.state;
        self.live.entry(id).or_insert_with(|| Live::Plain(state.file(id).seen()))
    }

    fn write(&mut self, id: Id, bytes: &[u8], position: u64) {
        let (at, end) = (position as usize, position as usize + bytes.len());
        match self.live(id) {
            Live::Plain(live) => {
                live.resize(live.len().max(end), 0);
                live[at..end].copy_from_slice(bytes);
            }
            Live::Mapped(memory) => memory.write(at, bytes),
        }
        self.state.write(id, position, bytes, false);
        self.keep(None);
    }

    fn set_len(&mut self, id: Id, bytes: u64) {
        match self.live(id) {
            Live::Plain(live) => live.resize(bytes as usize, 0),
            Live::Mapped(..) => panic!("a mapped file keeps its length"),
        }
        self.state.set_len(id, bytes);
        self.keep(None);
    }

    fn map(&mut self, id: Id, bytes: usize) -> Arc<Memory> {
        let state = &self.state;
        let live = self.live.entry(id).or_insert_with(|| Live::Plain(state.file(id).seen()));
        if let Live::Plain(content) = live {
            let bytes = bytes.max(content.len());
            *live = Live::Mapped(Arc::new(Memory::new(std::mem::take(content), bytes)));
        }
        match live {
            Live::Mapped(memory) => Arc::clone(memory),
            Live::Plain(_) => unreachable!("it was just mapped"),
        }
    }

    fn sync(&mut self, id: Id, range: Range<u64>, fault: Option<Fault>) -> io::Result<()> {
        if let Some(fault) = fault {
            self.state.freeze(id, range);
            return Err(fault.error());
        }
        self.state.sync(id, range);
        self.keep(None);
        Ok(())
    }
}

impl Fault {
    fn error(self) -> io::Error {
        match self {
            Self::Error(number) => io::Error::from_raw_os_error(number),
            Self::ShortWrite(_) => ErrorKind::StorageFull.into(),
        }
    }
}

impl Disk for SimulatedDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.inner();
        inner.begin_whole("open", path)?;
        let id = if mode == OpenMode::Create {
            let id = inner.state.create_file(path)?;
            inner.live.remove(&id);
            inner.keep(None);
            id
        } else {
            inner.state.open_file(path)?
        };
        Ok(Arc::new(SimulatedFile { disk: self.clone(), id, path: path.to_path_buf() }))
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.begin_whole("create", dir)?;
        inner.state.create_dir_all(dir)?;
        inner.keep(None);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.begin_whole("sync_dir", dir)?;
        inner.state.sync_dir(dir)?;
        inner.keep(None);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.begin_whole("rename", from)?;
        let id = inner.state.find(from)?;
        inner.state.rename(from, to)?;
        inner.renamed.insert(id, to.to_path_buf());
        inner.keep(None);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.begin_whole("remove", path)?;
        inner.state.remove_file(path)?;
        inner.keep(None);
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        let mut inner = self.inner();
        inner.begin_whole("list", dir)?;
        Ok(inner.state.names(dir)?.into_iter().map(|(name, info)| Listed { name, info }).collect())
    }

    fn info(&self, path: &Path) -> io::Result<FileInfo> {
        let mut inner = self.inner();
        inner.begin_whole("info", path)?;
        Ok(inner.state.info(inner.state.find(path)?))
    }

    fn maps_safely(&self, _dir: &Path) -> bool {
        true
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    id: Id,
    path: PathBuf,
}

impl DiskFile for SimulatedFile {
    fn info(&self) -> io::Result<FileInfo> {
        let mut inner = self.disk.inner();
        inner.begin_whole_on("info", self)?;
        Ok(inner.state.info(self.id))
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut inner = self.disk.inner();
        inner.begin_whole_on("set_len", self)?;
        inner.set_len(self.id, bytes);
        Ok(())
    }

    fn allocate(&self, range: Range<u64>) -> io::Result<()> {
        let mut inner = self.disk.inner();
        inner.begin_whole_on("allocate", self)?;
        inner.state.allocate(self.id, &range);
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut inner = self.disk.inner();
        inner.begin_whole_on("read", self)?;
        Ok(inner.read(self.id, buffer, position))
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let mut inner = self.disk.inner();
        let fault = inner.begin_on("write", self)?;
        if let Some(Fault::ShortWrite(count)) = fault {
            inner.write(self.id, &bytes[..count.min(bytes.len())], position);
        }
        if let Some(fault) = fault {
            return Err(fault.error());
        }
        inner.write(self.id, bytes, position);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.disk.inner();
        let fault = inner.begin_on("sync", self)?;
        inner.sync(self.id, 0..u64::MAX, fault)
    }

    fn map(&self, bytes: usize, _mode: OpenMode) -> io::Result<Box<dyn Mapping>> {
        let mut inner = self.disk.inner();
        inner.begin_whole_on("map", self)?;
        let memory = inner.map(self.id, bytes);
        let (disk, path) = (self.disk.clone(), self.path.clone());
        Ok(Box::new(SimulatedMapping { memory, bytes, file: Arc::new(Self { disk, id: self.id, path }) }))
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.disk.inner().begin_whole_on("lock", self)?;
        Ok(true)
    }
}

impl StoreObserver for SimulatedFile {
    fn stored(&self, _path: &Path, position: u64, bytes: &[u8], _publishes: bool) {
        let mut inner = self.disk.inner();
        if inner.is_off || bytes.is_empty() {
            return;
        }
        if !inner.state.write(self.id, position, bytes, true) {
            let rule =
                format!("{} bytes were stored at {position} of {} without blocks", bytes.len(), self.path.display());
            inner.broken.push(rule);
        }
        inner.keep(Some((self.id, position, bytes)));
    }
}

#[derive(Debug)]
struct SimulatedMapping {
    memory: Arc<Memory>,
    bytes: usize,
    file: Arc<SimulatedFile>,
}

// SAFETY: the memory stays where it is until the last who has it drops it, has at least `bytes` initialised bytes, and
// is written by the disk only with what somebody wrote to the file. Nobody makes a reference into it.
unsafe impl Mapping for SimulatedMapping {
    fn as_mut_ptr(&self) -> *mut u8 {
        self.memory.first
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn flush(&self, range: Range<usize>) -> io::Result<()> {
        let mut inner = self.file.disk.inner();
        let fault = inner.begin_on("flush", &self.file)?;
        inner.sync(self.file.id, range.start as u64..range.end as u64, fault)
    }

    fn populate(&self, _range: Range<usize>) {}

    fn observer(&self) -> Option<Arc<dyn StoreObserver>> {
        Some(Arc::clone(&self.file) as Arc<dyn StoreObserver>)
    }
}
