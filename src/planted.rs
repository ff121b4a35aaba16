//! Bugs that the crash suite plants, one at a time, to prove that it would see them.

use std::cell::{Cell, RefCell};

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planted {
    /// A commit is acknowledged although its sync has not happened.
    AckBeforeSync,
    /// A sync of the log that fails is taken for done.
    FailedSyncIgnored,
    /// A sync of the log that fails is tried again.
    FailedSyncRetried,
    /// A new log file gets its name, and the folder is not synced.
    NoDirSyncAfterRename,
    /// What is cut from the log is not overwritten with zeros.
    NoZeroingOnTruncate,
    /// Blocks count as ready before the zeros are written there.
    AllocatedBeforeZeros,
    /// The watermark is written and not synced.
    WatermarkNotSynced,
    /// A checkpoint describes what is not durable in the log.
    FrameBeforeLog,
    /// After an unclean stop the index is taken as it is.
    IndexNotRepaired,
    /// A record CRC property that is nearly right counts as none.
    NearMissAccepted,
}

thread_local! {
    static PLANTED: Cell<Option<Planted>> = const { Cell::new(None) };
    static LATER: RefCell<Vec<Box<dyn FnOnce()>>> = const { RefCell::new(Vec::new()) };
}

/// Is this bug there, in this thread?
pub(crate) fn is(bug: Planted) -> bool {
    PLANTED.get() == Some(bug)
}

/// Runs something with a bug.
pub(crate) fn with<T>(bug: Option<Planted>, work: impl FnOnce() -> T) -> T {
    PLANTED.set(bug);
    let done = work();
    PLANTED.set(None);
    LATER.take();
    done
}

/// Has something happen only when the background task of the bug gets its turn.
pub(crate) fn later(work: impl FnOnce() + 'static) {
    LATER.with_borrow_mut(|later| later.push(Box::new(work)));
}

/// Gives that task its turn.
pub(crate) fn catch_up() {
    LATER.take().into_iter().for_each(|work| work());
}
