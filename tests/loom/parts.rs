//! The small parts: a mapped file, the watermarks, a task.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::{Plain, Signal};
use crate::drive::{Drive, Pumped, Task};
use crate::error::Error;
use crate::memory::{CELL_BYTES, mapped_file};
use crate::offset::LogOffset;
use crate::progress::Progress;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::thread;

const PART: u64 = CELL_BYTES as u64;

/// Whatever is published can be read, and is whole, however far the writer is.
pub(super) fn publish_and_read() {
    let (file, block) = mapped_file(2 * PART);
    let mut writer = file.writer();
    let writing = thread::spawn(move || {
        for part in 0..2 {
            writer.store(part * PART, &[7; CELL_BYTES]);
            writer.file().publish((part + 1) * PART);
        }
    });
    let slice = file.slice(0..file.published()).unwrap();
    block.looks_at(0..slice.len());
    assert!(slice.iter().all(|byte| *byte == 7));
    writing.join().unwrap();
}

/// There is one writer at a time, and the next one's stores come after those of the one before.
pub(super) fn a_writer_is_handed_over() {
    let (file, _) = mapped_file(PART);
    let mut first = file.writer();
    let writing = thread::spawn(move || first.store(0, &[1; CELL_BYTES]));
    if let Ok(mut second) = catch_unwind(AssertUnwindSafe(|| file.writer())) {
        second.store(0, &[2; CELL_BYTES]);
    }
    writing.join().unwrap();
}

/// Who sees a watermark sees everything that was done below it.
pub(super) fn watermarks_carry_what_is_below() {
    let (progress, bytes) = (Arc::new(Progress::new(LogOffset::ZERO)), Arc::new(Plain::default()));
    let writing = thread::spawn({
        let (progress, bytes) = (Arc::clone(&progress), Arc::clone(&bytes));
        move || {
            bytes.change();
            progress.set_tail(LogOffset::new(1));
            progress.set_written(LogOffset::new(1));
            progress.set_flushed(LogOffset::new(1));
        }
    });
    let (flushed, written) = (progress.flushed(), progress.written());
    let tail = progress.tail();
    assert!(flushed <= written && written <= tail);
    if written.get() == 1 {
        bytes.look();
    }
    writing.join().unwrap();
}

/// Who waits for dispatch is woken by the arrival that he waits for, whenever he began.
pub(super) fn arrivals_are_not_missed() {
    let (progress, entries) = (Arc::new(Progress::new(LogOffset::ZERO)), Arc::new(Plain::default()));
    progress.set_tail(LogOffset::new(2));
    progress.set_written(LogOffset::new(2));
    let waiting = thread::spawn({
        let (progress, entries) = (Arc::clone(&progress), Arc::clone(&entries));
        move || {
            assert!(progress.wait_dispatched(|| progress.dispatched().get() == 2, None));
            entries.look();
        }
    });
    entries.change();
    progress.set_dispatched(LogOffset::new(1));
    progress.set_dispatched(LogOffset::new(2));
    waiting.join().unwrap();
}

/// Who waits for dispatch does not wait for a log that has stopped.
pub(super) fn poison_ends_a_wait() {
    let progress = Arc::new(Progress::new(LogOffset::ZERO));
    let waiting = thread::spawn({
        let progress = Arc::clone(&progress);
        move || assert!(!progress.wait_dispatched(|| false, None))
    });
    progress.poison(Error::ReadOnly);
    assert!(progress.check().is_err());
    waiting.join().unwrap();
}

/// What was asked for before a wake is done, whether the task sleeps, works or is about to sleep.
pub(super) fn a_task_hears_every_wake() {
    let (asked, done) = (Arc::new(AtomicBool::new(false)), Arc::new(Signal::default()));
    let task = Task::start("model", Drive::Threads, {
        let (asked, done) = (Arc::clone(&asked), Arc::clone(&done));
        move || {
            if asked.load(Ordering::Relaxed) {
                done.give();
            }
            Ok(Pumped::Idle(None))
        }
    });
    let task = task.unwrap();
    asked.store(true, Ordering::Relaxed);
    task.wake();
    done.wait();
    task.stop();
}

/// A task ends when it is told, and what it did was done before that returns.
pub(super) fn a_task_hears_that_it_must_stop() {
    let work = Arc::new(Plain::default());
    let task = Task::start("model", Drive::Threads, {
        let work = Arc::clone(&work);
        move || {
            work.change();
            Ok(Pumped::Idle(None))
        }
    });
    let task = task.unwrap();
    task.stop();
    work.change();
}
