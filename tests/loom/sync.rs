//! loom's types with what the library needs of std's, each place of use known by name, so that it can be weakened.
//!
//! - `Arc` stays std's: its count is not what is in question, and loom's cannot be a receiver or a trait object. That a
//!   value lives as long as it is used is still checked in every order, by the test disk.
//! - `park` never wakes for nothing and a timeout never passes: a lost wake-up is a deadlock, which loom reports.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::panic::Location;
use std::sync::{Arc, LockResult};
use std::time::Duration;

pub(crate) use loom::sync::{Mutex, MutexGuard, RwLock};
pub(crate) use loom::thread_local;

/// What a place loses when it is weakened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Loses {
    /// The ordering becomes `Relaxed`, a fence or a wake-up is left out.
    Everything,
    /// `AcqRel` becomes `Release`.
    Acquire,
    /// `AcqRel` becomes `Acquire`.
    Release,
}

/// A place in the source, and how it is weakened.
pub(crate) type Weakening = (&'static str, u32, u32, Loses);

std::thread_local! {
    static SEEN: RefCell<BTreeSet<Weakening>> = const { RefCell::new(BTreeSet::new()) };
    static ACTIVE: Cell<Option<(u32, u32, Loses)>> = const { Cell::new(None) };
    static ACTIVE_FILE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Takes the weakenings of the places that this thread's models came by since the last call.
pub(crate) fn take_seen() -> BTreeSet<Weakening> {
    SEEN.take()
}

/// From now on weakens one place in the models of this thread.
pub(crate) fn weaken(file: &str, line: u32, column: u32, loses: Loses) {
    ACTIVE_FILE.set(file.to_owned());
    ACTIVE.set(Some((line, column, loses)));
}

fn is_weakened(at: &'static Location<'static>, loses: Loses) -> bool {
    // A test's own places are not what is checked.
    if at.file().starts_with("src/") && !at.file().contains("..") {
        SEEN.with_borrow_mut(|seen| seen.insert((at.file(), at.line(), at.column(), loses)));
    }
    ACTIVE.get() == Some((at.line(), at.column(), loses)) && ACTIVE_FILE.with_borrow(|file| file == at.file())
}

#[track_caller]
fn order(ordering: atomic::Ordering) -> atomic::Ordering {
    use atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
    let at = Location::caller();
    match ordering {
        Relaxed => Relaxed,
        _ if is_weakened(at, Loses::Everything) => Relaxed,
        AcqRel if is_weakened(at, Loses::Acquire) => Release,
        AcqRel if is_weakened(at, Loses::Release) => Acquire,
        ordering => ordering,
    }
}

pub(crate) mod atomic {
    use std::panic::Location;

    use super::{Loses, order};
    pub(crate) use std::sync::atomic::Ordering;

    #[track_caller]
    pub(crate) fn fence(ordering: Ordering) {
        if !super::is_weakened(Location::caller(), Loses::Everything) {
            loom::sync::atomic::fence(ordering);
        }
    }

    macro_rules! atomic {
        ($name:ident, $value:ty) => {
            /// The second part is touched by every use. loom looks only at the last use of a value to find what may come
            /// in another order, so a thread's own load would hide the one of another thread before it.
            #[derive(Debug)]
            pub(crate) struct $name(loom::sync::atomic::$name, loom::sync::atomic::AtomicBool);

            #[allow(dead_code, reason = "not every type is used in every way")]
            impl $name {
                #[track_caller]
                pub(crate) fn new(value: $value) -> Self {
                    Self(loom::sync::atomic::$name::new(value), loom::sync::atomic::AtomicBool::new(false))
                }
                fn touched(&self) -> &loom::sync::atomic::$name {
                    self.1.swap(true, Ordering::Relaxed);
                    &self.0
                }
                #[track_caller]
                pub(crate) fn load(&self, ordering: Ordering) -> $value {
                    self.touched().load(order(ordering))
                }
                #[track_caller]
                pub(crate) fn swap(&self, value: $value, ordering: Ordering) -> $value {
                    self.touched().swap(value, order(ordering))
                }
            }

            impl Default for $name {
                fn default() -> Self {
                    Self::new(Default::default())
                }
            }
        };
        ($name:ident, $value:ty, number) => {
            atomic!($name, $value);

            #[allow(dead_code, reason = "not every type is used in every way")]
            impl $name {
                #[track_caller]
                pub(crate) fn fetch_add(&self, value: $value, ordering: Ordering) -> $value {
                    self.touched().fetch_add(value, order(ordering))
                }
                #[track_caller]
                pub(crate) fn fetch_sub(&self, value: $value, ordering: Ordering) -> $value {
                    self.touched().fetch_sub(value, order(ordering))
                }
                #[track_caller]
                pub(crate) fn fetch_max(&self, value: $value, ordering: Ordering) -> $value {
                    self.touched().fetch_max(value, order(ordering))
                }
            }
        };
    }

    macro_rules! stores {
        ($name:ident, $value:ty, $store:ident) => {
            impl $name {
                #[track_caller]
                pub(crate) fn store(&self, value: $value, ordering: Ordering) {
                    self.touched().$store(value, order(ordering));
                }
            }
        };
    }

    // loom gives no order to a store and an exchange that meet, and then lets a later load see either. Flags have both.
    stores!(AtomicBool, bool, swap);
    stores!(AtomicU8, u8, store);
    stores!(AtomicU64, u64, store);

    atomic!(AtomicBool, bool);
    atomic!(AtomicU8, u8, number);
    atomic!(AtomicU64, u64, number);
    atomic!(AtomicUsize, usize, number);
}

/// A lock of either kind: modules that no model runs keep std's.
pub(crate) trait Lock {
    type Guard<'a>
    where
        Self: 'a;
    fn guard(&self) -> Self::Guard<'_>;
}

impl<T: ?Sized> Lock for Mutex<T> {
    type Guard<'a>
        = MutexGuard<'a, T>
    where
        T: 'a;

    fn guard(&self) -> MutexGuard<'_, T> {
        self.lock().expect("loom has no poisoned locks")
    }
}

impl<T: ?Sized> Lock for std::sync::Mutex<T> {
    type Guard<'a>
        = std::sync::MutexGuard<'a, T>
    where
        T: 'a;

    fn guard(&self) -> std::sync::MutexGuard<'_, T> {
        self.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

pub(crate) fn lock<M: Lock + ?Sized>(mutex: &M) -> M::Guard<'_> {
    mutex.guard()
}

#[derive(Debug, Default)]
pub(crate) struct Condvar(loom::sync::Condvar);

#[derive(Debug)]
pub(crate) struct WaitTimeoutResult;

impl WaitTimeoutResult {
    pub(crate) fn timed_out(&self) -> bool {
        false
    }
}

impl Condvar {
    pub(crate) fn wait_timeout_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        _limit: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        while condition(&mut guard) {
            guard = self.0.wait(guard).expect("loom has no poisoned locks");
        }
        Ok((guard, WaitTimeoutResult))
    }

    #[track_caller]
    pub(crate) fn notify_all(&self) {
        if !is_weakened(Location::caller(), Loses::Everything) {
            self.0.notify_all();
        }
    }
}

/// Set once: whoever sees the value sees what was written before it was set.
#[derive(Debug)]
pub(crate) struct OnceLock<T> {
    value: std::sync::OnceLock<T>,
    is_set: atomic::AtomicBool,
}

impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        Self { value: std::sync::OnceLock::new(), is_set: atomic::AtomicBool::new(false) }
    }
}

impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn get(&self) -> Option<&T> {
        self.value.get().filter(|_| self.is_set.load(atomic::Ordering::Acquire))
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        let set = self.value.set(value);
        self.is_set.store(true, atomic::Ordering::Release);
        set
    }

    /// `make` must not use loom's types: loom would not know of who waits for it.
    pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        let value = self.value.get_or_init(make);
        self.is_set.store(true, atomic::Ordering::Release);
        value
    }
}

/// Threads with a token each. loom's own `unpark` also wakes a thread that waits for a lock, which it then takes for an
/// error of its own.
pub(crate) mod thread {
    use super::{Arc, Cell, Duration, Location, Loses, Mutex, RefCell, is_weakened};
    use std::io;

    #[derive(Debug, Clone)]
    pub(crate) struct Thread(Arc<Token>);

    #[derive(Debug, Default)]
    struct Token {
        is_there: Mutex<bool>,
        arrived: loom::sync::Condvar,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct ThreadId(usize);

    loom::thread_local!(static CURRENT: RefCell<Option<Thread>> = RefCell::new(None));

    pub(crate) fn current() -> Thread {
        CURRENT.with(|current| current.borrow_mut().get_or_insert_with(|| Thread(Arc::default())).clone())
    }

    impl Thread {
        pub(crate) fn id(&self) -> ThreadId {
            ThreadId(Arc::as_ptr(&self.0).addr())
        }

        #[track_caller]
        pub(crate) fn unpark(&self) {
            if !is_weakened(Location::caller(), Loses::Everything) {
                *super::lock(&self.0.is_there) = true;
                self.0.arrived.notify_one();
            }
        }
    }

    pub(crate) fn park() {
        let token = current().0;
        let mut is_there = super::lock(&token.is_there);
        while !*is_there {
            is_there = token.arrived.wait(is_there).expect("loom has no poisoned locks");
        }
        *is_there = false;
    }

    pub(crate) fn park_timeout(_limit: Duration) {
        park();
    }

    #[cfg(test)]
    pub(crate) fn yield_now() {
        loom::thread::yield_now();
    }

    #[derive(Debug)]
    pub(crate) struct JoinHandle<T> {
        handle: loom::thread::JoinHandle<T>,
        thread: Thread,
    }

    impl<T> JoinHandle<T> {
        pub(crate) fn thread(&self) -> &Thread {
            &self.thread
        }

        pub(crate) fn join(self) -> std::thread::Result<T> {
            self.handle.join()
        }
    }

    #[cfg(test)]
    pub(crate) fn spawn<T: 'static>(work: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
        Builder::new().spawn(work).expect("a thread of loom starts")
    }

    #[derive(Debug)]
    pub(crate) struct Builder(Cell<()>);

    impl Builder {
        pub(crate) fn new() -> Self {
            Self(Cell::new(()))
        }

        pub(crate) fn name(self, _name: String) -> Self {
            self
        }

        pub(crate) fn spawn<T: 'static>(self, work: impl FnOnce() -> T + 'static) -> io::Result<JoinHandle<T>> {
            let thread = Thread(Arc::default());
            let own = thread.clone();
            let handle = loom::thread::spawn(move || {
                CURRENT.with(|current| *current.borrow_mut() = Some(own));
                work()
            });
            Ok(JoinHandle { handle, thread })
        }
    }
}
