//! L4: several producers whose records become durable in groups.
//!
//! ```text
//! put     place the record in the group's buffer under the lock; nobody leads? lead. else stand in the queue and park
//! lead    take the buffer; one pwrite, one fdatasync; hand the lead to the first who still waits; wake exactly who is done
//! ```
//! A helper writes the next file with zeros, and syncs it, while the one before it is in use.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::Instant;

use tempfile::TempDir;

use super::{BLANK_BYTES, Budget, Measured, Template, WRITTEN_BYTES, create_written, write_at};

const WAITS: u8 = 0;
const LEADS: u8 = 1;
const DONE: u8 = 2;

/// One log, whose files are removed in the end; the first one is made at once.
#[derive(Debug)]
pub(crate) struct GroupCommit {
    log: Log,
    producers: u64,
    /// Where the files are.
    _folder: TempDir,
}

impl GroupCommit {
    pub(crate) fn new(folder: &Path, file_bytes: u64, producers: u64) -> io::Result<Self> {
        let folder = tempfile::tempdir_in(folder)?;
        let log = Log::new(folder.path(), file_bytes.min(WRITTEN_BYTES))?;
        Ok(Self { log, producers, _folder: folder })
    }

    /// Runs all producers until they have done the budget together.
    pub(crate) fn run(&self, template: &Template, budget: Budget) -> io::Result<Measured> {
        self.log.files.set_stopped(false);
        thread::scope(|scope| {
            let helper = thread::Builder::new().spawn_scoped(scope, || self.log.files.prepare())?;
            let measured = self.produce(template, budget);
            self.log.files.set_stopped(true);
            let prepared = helper.join().unwrap_or_else(|_| Err(io::Error::other("the helper panicked")));
            prepared.and(measured)
        })
    }

    fn produce(&self, template: &Template, budget: Budget) -> io::Result<Measured> {
        let start = Instant::now();
        let mut measured = thread::scope(|scope| {
            let mut producers = Vec::new();
            let mut outcome = Ok(());
            for number in 0..self.producers {
                let share = budget.messages / self.producers + u64::from(number < budget.messages % self.producers);
                let share = Budget { messages: share, time: budget.time };
                let template = template.clone();
                match thread::Builder::new().spawn_scoped(scope, move || self.log.produce(template, share, start)) {
                    Ok(producer) => producers.push(producer),
                    Err(error) => outcome = Err(error),
                }
            }
            let mut measured = Measured::default();
            for producer in producers {
                match producer.join().unwrap_or_else(|_| Err(io::Error::other("a producer panicked"))) {
                    Ok(messages) => measured.messages += messages,
                    Err(error) => outcome = outcome.and(Err(error)),
                }
            }
            outcome.map(|()| measured)
        })?;
        measured.took = start.elapsed();
        Ok(measured)
    }
}

/// Where records are placed, and who waits for them.
#[derive(Debug)]
struct Log {
    file_bytes: u64,
    placed: Mutex<Placed>,
    files: Files,
}

#[derive(Debug, Default)]
struct Placed {
    /// What no leader has taken yet; it ends at `tail`.
    buffer: Vec<u8>,
    /// The memory that the last leader has brought back.
    spare: Vec<u8>,
    tail: u64,
    messages: u64,
    has_leader: bool,
    queue: Vec<Arc<Waiter>>,
    /// A write or sync failed: nobody leads any more.
    failed: Option<String>,
}

/// A producer that is parked until it is done or leads.
#[derive(Debug)]
struct Waiter {
    end: u64,
    thread: Thread,
    state: AtomicU8,
}

impl Waiter {
    fn wake(&self, state: u8) {
        self.state.store(state, Ordering::Release);
        self.thread.unpark();
    }
}

impl Log {
    fn new(folder: &Path, file_bytes: u64) -> io::Result<Self> {
        let files = Files { folder: folder.to_owned(), file_bytes, state: Mutex::default(), changed: Condvar::new() };
        files.make(0)?;
        Ok(Self { file_bytes, placed: Mutex::default(), files })
    }

    fn produce(&self, mut template: Template, budget: Budget, start: Instant) -> io::Result<u64> {
        let mut done = 0;
        while done < budget.messages && start.elapsed() < budget.time {
            self.put(&mut template)?;
            done += 1;
        }
        Ok(done)
    }

    fn put(&self, template: &mut Template) -> io::Result<()> {
        let mut placed = lock(&self.placed);
        let left = self.file_bytes - placed.tail % self.file_bytes;
        if template.record_bytes() + BLANK_BYTES > left {
            let padded = placed.buffer.len() + left as usize;
            placed.buffer.resize(padded, 0);
            placed.tail += left;
        }
        let record = template.make(placed.messages, placed.tail);
        placed.buffer.extend_from_slice(record);
        placed.messages += 1;
        placed.tail += record.len() as u64;
        if !placed.has_leader {
            placed.has_leader = true;
            drop(placed);
            return self.lead();
        }
        let waiter = Arc::new(Waiter { end: placed.tail, thread: thread::current(), state: AtomicU8::new(WAITS) });
        placed.queue.push(Arc::clone(&waiter));
        drop(placed);
        loop {
            match waiter.state.load(Ordering::Acquire) {
                WAITS => thread::park(),
                LEADS => return self.lead(),
                _ => return lock(&self.placed).outcome(),
            }
        }
    }

    /// Writes and syncs what was placed so far, the caller's record among it.
    fn lead(&self) -> io::Result<()> {
        let mut placed = lock(&self.placed);
        let spare = std::mem::take(&mut placed.spare);
        let mut group = std::mem::replace(&mut placed.buffer, spare);
        let end = placed.tail;
        drop(placed);
        let written = self.write(&group, end - group.len() as u64);
        group.clear();
        let mut placed = lock(&self.placed);
        placed.spare = group;
        placed.failed = written.err().map(|error| error.to_string());
        let reaches = if placed.failed.is_some() { u64::MAX } else { end };
        let first_left = placed.queue.partition_point(|waiter| waiter.end <= reaches);
        let mut left = placed.queue.split_off(first_left);
        let next = if left.is_empty() { None } else { Some(left.remove(0)) };
        placed.has_leader = next.is_some() || placed.failed.is_some();
        let done = std::mem::replace(&mut placed.queue, left);
        let outcome = placed.outcome();
        drop(placed);
        if let Some(next) = next {
            next.wake(LEADS);
        }
        for waiter in done {
            waiter.wake(DONE);
        }
        outcome
    }

    fn write(&self, mut group: &[u8], mut at: u64) -> io::Result<()> {
        while !group.is_empty() {
            let inside = at % self.file_bytes;
            let len = usize::try_from(self.file_bytes - inside).map_or(group.len(), |left| left.min(group.len()));
            let file = self.files.get(at / self.file_bytes)?;
            write_at(&file, &group[..len], inside)?;
            file.sync_data()?;
            (group, at) = (&group[len..], at + len as u64);
        }
        Ok(())
    }
}

impl Placed {
    fn outcome(&self) -> io::Result<()> {
        self.failed.as_ref().map_or(Ok(()), |failure| Err(io::Error::other(failure.clone())))
    }
}

/// The files that were written with zeros, and the one in the making.
#[derive(Debug)]
struct Files {
    folder: PathBuf,
    file_bytes: u64,
    state: Mutex<Made>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Made {
    files: Vec<Arc<File>>,
    /// How many have been asked for.
    used: usize,
    /// No more are needed, or can be had.
    stopped: bool,
}

impl Files {
    fn make(&self, number: usize) -> io::Result<()> {
        let file = create_written(&self.folder.join(number.to_string()), self.file_bytes)?;
        lock(&self.state).files.push(Arc::new(file));
        self.changed.notify_all();
        Ok(())
    }

    /// Keeps one file more ready than are in use.
    fn prepare(&self) -> io::Result<()> {
        loop {
            let made = self.wait(|made| made.stopped || made.files.len() <= made.used);
            let (stopped, number) = (made.stopped, made.files.len());
            drop(made);
            if stopped {
                return Ok(());
            }
            if let Err(error) = self.make(number) {
                self.set_stopped(true);
                return Err(error);
            }
        }
    }

    /// Gives a file, as soon as it is ready.
    fn get(&self, number: u64) -> io::Result<Arc<File>> {
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        let mut made = lock(&self.state);
        if made.used <= number {
            made.used = number + 1;
            self.changed.notify_all();
        }
        drop(made);
        let made = self.wait(|made| made.stopped || made.files.len() > number);
        made.files.get(number).cloned().ok_or_else(|| io::Error::other("the next file could not be made"))
    }

    fn set_stopped(&self, stopped: bool) {
        lock(&self.state).stopped = stopped;
        self.changed.notify_all();
    }

    fn wait(&self, is_so: impl Fn(&Made) -> bool) -> MutexGuard<'_, Made> {
        let made = lock(&self.state);
        self.changed.wait_while(made, |made| !is_so(made)).unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
