//! Background work as tasks: each with a thread of its own, or pumped by hand.
//!
//! A task is a closure, its pump, that does a piece of work and says whether there is more. It may be called at any
//! time, also when there is nothing to do, and never by two threads at once. It ends for good when it fails or panics;
//! a full disk, or a lack of descriptors, only makes it pause.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::progress::lock;
use crate::sync::atomic::{AtomicBool, Ordering, fence};
use crate::sync::thread::{self, JoinHandle, Thread};
use crate::sync::{Mutex, OnceLock};

/// How long a task waits until it tries again what may pass by itself.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Who does the work in the background: flushing, dispatching, preparing files and so on.
///
/// With [`Drive::Manual`] nothing happens until somebody pumps: a simulation decides what happens when, and an embedder
/// keeps control of its threads. Calls that have to wait for background work then do it themselves.
///
/// # Examples
///
/// ```
/// use mqlog::Drive;
/// assert_eq!(Drive::default(), Drive::Threads);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Drive {
    /// Named threads, started with what they work for and joined when it is closed.
    #[default]
    Threads,
    /// The caller, through the `pump` methods.
    Manual,
}

/// What a pump answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pumped {
    /// There is more to do at once.
    Again,
    /// There is nothing to do until somebody wakes the task, or this much time has passed.
    Idle(Option<Duration>),
}

/// Wakes a task's thread if it sleeps; does nothing where there is no thread.
#[derive(Debug, Default)]
pub(crate) struct Waker {
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Waker {
    /// Wakes the thread: a fence and one relaxed load while it is awake.
    ///
    /// The fence stands against the one in [`Work::run`]: either the task sees what its caller published
    /// before, or the caller sees that the task sleeps.
    pub(crate) fn wake(&self) {
        fence(Ordering::SeqCst);
        let wakes = self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel);
        if let Some(thread) = self.thread.get().filter(|_| wakes) {
            thread.unpark();
        }
    }
}

/// A piece of background work: a named thread, or pumped by hand.
pub(crate) struct Task {
    work: Arc<Work>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Task {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Task").finish_non_exhaustive()
    }
}

impl Task {
    /// Starts a task; with [`Drive::Manual`] it does nothing until it is pumped.
    ///
    /// # Errors
    /// [`Error::Io`] if the thread cannot be started.
    pub(crate) fn start(
        name: &'static str,
        drive: Drive,
        pump: impl FnMut() -> Result<Pumped> + Send + 'static,
    ) -> Result<Self> {
        let work = Arc::new(Work {
            name,
            pump: Mutex::new(Box::new(pump)),
            waker: Arc::default(),
            stopping: AtomicBool::default(),
            failure: OnceLock::new(),
            is_stalled: AtomicBool::default(),
            stall: Mutex::default(),
        });
        let task = Self { work: Arc::clone(&work), thread: Mutex::default() };
        if drive == Drive::Threads {
            let started = thread::Builder::new().name(format!("mqlog-{name}")).spawn(move || work.run());
            let thread = started.map_err(|source| Error::io("start the thread of", Path::new(name), None, source))?;
            task.work.waker.thread.get_or_init(|| thread.thread().clone());
            *lock(&task.thread) = Some(thread);
        }
        Ok(task)
    }

    /// Wakes the thread if it sleeps.
    pub(crate) fn wake(&self) {
        self.work.waker.wake();
    }

    /// Returns what wakes this task, for those who must not own it.
    pub(crate) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.work.waker)
    }

    /// Does a piece of work in this thread, after the one under way elsewhere. Not from inside the task's own pump.
    ///
    /// # Errors
    /// [`Error::TaskFailed`] if this or an earlier pump failed; [`Error::DiskFull`], and then it may be tried again.
    pub(crate) fn pump(&self) -> Result<Pumped> {
        self.work.pump()
    }

    /// Returns why the task ended, if it failed or panicked.
    pub(crate) fn health(&self) -> Result<()> {
        self.work.health()
    }

    /// Returns what makes the task pause, a full disk for example, if it does.
    pub(crate) fn stalled(&self) -> Option<Error> {
        let work = &self.work;
        if work.is_stalled.load(Ordering::Acquire) { lock(&work.stall).clone() } else { None }
    }

    /// Ends the thread after the pump under way and waits for that, unless this is that thread.
    pub(crate) fn stop(&self) {
        self.work.stopping.store(true, Ordering::Release);
        let Some(thread) = self.work.waker.thread.get() else { return };
        thread.unpark();
        if thread.id() != thread::current().id()
            && let Some(running) = lock(&self.thread).take()
        {
            // The thread catches every panic of its pump, so there is nothing to learn from how it ended.
            let _ = running.join();
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What a task and its thread share.
struct Work {
    name: &'static str,
    pump: Mutex<Box<dyn FnMut() -> Result<Pumped> + Send>>,
    waker: Arc<Waker>,
    stopping: AtomicBool,
    failure: OnceLock<Error>,
    is_stalled: AtomicBool,
    stall: Mutex<Option<Error>>,
}

impl Work {
    /// The thread: pumps until told to stop, and before it sleeps once more after announcing it.
    fn run(&self) {
        let asleep = &self.waker.asleep;
        let mut announced = false;
        while !self.stopping.load(Ordering::Acquire) {
            let pumped = self.pump();
            announced = !announced && matches!(pumped, Ok(Pumped::Idle(_)));
            if announced {
                asleep.store(true, Ordering::Relaxed);
                fence(Ordering::SeqCst);
                continue;
            }
            match pumped {
                // Nobody called since sleep was announced. The wake-up itself does not tell: a pump may have parked on
                // its own account and used it up.
                Ok(Pumped::Idle(limit)) if asleep.load(Ordering::Acquire) && !self.stopping.load(Ordering::Acquire) => {
                    limit.map_or_else(thread::park, thread::park_timeout);
                }
                Ok(_) => {}
                Err(error) if error.may_pass() => self.pause(),
                Err(_) => return,
            }
            asleep.swap(false, Ordering::Acquire);
        }
    }

    fn pump(&self) -> Result<Pumped> {
        let mut pump = lock(&self.pump);
        self.health()?;
        let pumped = catch_panic(&mut *pump);
        match &pumped {
            Ok(_) => self.is_stalled.store(false, Ordering::Release),
            Err(passing) if passing.may_pass() => {
                *lock(&self.stall) = Some(passing.clone());
                self.is_stalled.store(true, Ordering::Release);
            }
            Err(error) => {
                let failure = Error::TaskFailed { task: self.name, source: Arc::new(error.clone()) };
                return Err(self.failure.get_or_init(|| failure).clone());
            }
        }
        pumped
    }

    fn health(&self) -> Result<()> {
        self.failure.get().map_or(Ok(()), |failure| Err(failure.clone()))
    }

    /// Lets time pass before the disk is tried again; only [`Task::stop`] cuts it short.
    fn pause(&self) {
        let end = Instant::now() + RETRY_PAUSE;
        while !self.stopping.load(Ordering::Acquire) && Instant::now() < end {
            thread::park_timeout(end.saturating_duration_since(Instant::now()));
        }
    }
}

/// Does something that may panic, and makes an error of that.
pub(crate) fn catch_panic<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let message = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
        Err(Error::Panicked { message: message.to_owned() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::atomic::AtomicU64;

    fn full() -> Error {
        Error::io("write", Path::new("f"), Some(0..8), io::ErrorKind::StorageFull.into())
    }

    fn spin_until(mut done: impl FnMut() -> bool) {
        while !done() {
            thread::yield_now();
        }
    }

    #[test]
    fn a_manual_task_works_only_when_pumped() {
        let mut count = 0;
        let task = Task::start("count", Drive::Manual, move || {
            count += 1;
            Ok(if count < 3 { Pumped::Again } else { Pumped::Idle(None) })
        })
        .unwrap();
        task.wake();
        assert_eq!(task.pump().unwrap(), Pumped::Again);
        assert_eq!(task.pump().unwrap(), Pumped::Again);
        assert_eq!(task.pump().unwrap(), Pumped::Idle(None));
        task.stop();
        assert_eq!(task.pump().unwrap(), Pumped::Idle(None));
    }

    #[test]
    fn no_wake_is_lost() {
        const STEPS: u64 = if cfg!(miri) { 50 } else { 20_000 };
        let asked = Arc::new(AtomicU64::new(0));
        let done = Arc::new(AtomicU64::new(0));
        let task = Task::start("echo", Drive::Threads, {
            let (asked, done) = (Arc::clone(&asked), Arc::clone(&done));
            move || {
                done.store(asked.load(Ordering::Acquire), Ordering::Release);
                Ok(Pumped::Idle(None))
            }
        })
        .unwrap();
        for step in 1..=STEPS {
            asked.store(step, Ordering::Release);
            task.wake();
            spin_until(|| done.load(Ordering::Acquire) == step);
        }
    }

    #[test]
    fn a_pump_that_parks_does_not_swallow_a_wake_or_a_stop() {
        let asked = Arc::new(AtomicU64::new(0));
        let done = Arc::new(AtomicU64::new(0));
        let task = Task::start("parks", Drive::Threads, {
            let (asked, done) = (Arc::clone(&asked), Arc::clone(&done));
            move || {
                done.store(asked.load(Ordering::Acquire), Ordering::Release);
                thread::park_timeout(Duration::from_micros(50));
                Ok(Pumped::Idle(None))
            }
        })
        .unwrap();
        for step in 1..=(if cfg!(miri) { 20 } else { 500 }) {
            asked.store(step, Ordering::Release);
            task.wake();
            spin_until(|| done.load(Ordering::Acquire) == step);
        }
        task.stop();
    }

    #[test]
    fn an_idle_limit_wakes_the_thread() {
        let count = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&count);
        let _task = Task::start("tick", Drive::Threads, move || {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(Pumped::Idle(Some(Duration::from_millis(1))))
        })
        .unwrap();
        spin_until(|| seen.load(Ordering::Relaxed) > 6);
    }

    #[test]
    fn an_error_or_a_panic_ends_the_task_and_shows() {
        let task = Task::start("reads", Drive::Threads, || Err(Error::ReadOnly)).unwrap();
        spin_until(|| task.health().is_err());
        assert_eq!(
            task.health().unwrap_err().to_string(),
            "the reads task stopped: the store is open for reading only"
        );
        assert!(matches!(task.pump(), Err(Error::TaskFailed { task: "reads", .. })));

        let task = Task::start("panics", Drive::Manual, || panic!("at {}", 7)).unwrap();
        assert_eq!(task.pump().unwrap_err().to_string(), "the panics task stopped: panicked: at 7");
        assert!(matches!(task.health(), Err(Error::TaskFailed { .. })));
    }

    #[test]
    fn a_full_disk_only_pauses_the_task() {
        let space = Arc::new(AtomicBool::new(false));
        let has_space = Arc::clone(&space);
        let task = Task::start("fills", Drive::Threads, move || {
            if has_space.load(Ordering::Acquire) { Ok(Pumped::Idle(None)) } else { Err(full()) }
        })
        .unwrap();
        spin_until(|| task.stalled().is_some());
        assert!(task.stalled().is_some_and(|error| error.is_disk_full()));
        task.health().unwrap();
        space.store(true, Ordering::Release);
        spin_until(|| task.stalled().is_none());
    }

    #[test]
    fn a_task_may_stop_itself() {
        let own: Arc<OnceLock<Task>> = Arc::default();
        let stopped = Arc::new(AtomicBool::new(false));
        let task = Task::start("stops", Drive::Threads, {
            let (own, stopped) = (Arc::downgrade(&own), Arc::clone(&stopped));
            move || {
                if let Some(task) = own.upgrade().as_ref().and_then(|own| own.get()) {
                    task.stop();
                    stopped.store(true, Ordering::Release);
                }
                Ok(Pumped::Again)
            }
        });
        assert!(own.set(task.unwrap()).is_ok());
        spin_until(|| stopped.load(Ordering::Acquire));
    }
}
