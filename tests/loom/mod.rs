//! The concurrency models, and the proof that they would notice: each ordering, fence and wake-up that a model comes by
//! is weakened, one at a time, and one of the models has to fail.

mod flushing;
mod log;
mod parts;
mod weakened;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use loom::sync::{Condvar, Mutex};

use crate::sync::lock;

/// A model: what its threads do, and what must hold in every order in which they can.
struct Model {
    name: &'static str,
    /// How often a thread may lose its turn where it could go on.
    bound: usize,
    /// There are at least so many orders, a bit under what there were: fewer, and it does not model what it did.
    floor: u64,
    run: fn(),
}

/// All models, the cheap ones first.
const MODELS: &[Model] = &[
    Model { name: "publish and read", bound: 3, floor: 120, run: parts::publish_and_read },
    Model { name: "a writer is handed over", bound: 3, floor: 9, run: parts::a_writer_is_handed_over },
    Model { name: "watermarks carry what is below", bound: 3, floor: 160, run: parts::watermarks_carry_what_is_below },
    Model { name: "arrivals are not missed", bound: 3, floor: 1_500, run: parts::arrivals_are_not_missed },
    Model { name: "poison ends a wait", bound: 3, floor: 170, run: parts::poison_ends_a_wait },
    Model { name: "a task hears every wake", bound: 3, floor: 2_600, run: parts::a_task_hears_every_wake },
    Model { name: "a task hears that it must stop", bound: 3, floor: 120, run: parts::a_task_hears_that_it_must_stop },
    Model { name: "group commit", bound: 3, floor: 10_000, run: flushing::group_commit },
    Model { name: "group commit with poison", bound: 2, floor: 2_300, run: flushing::group_commit_with_poison },
    Model { name: "group commit of three", bound: 2, floor: 50_000, run: flushing::group_commit_of_three },
    Model { name: "nobody waits for an append", bound: 2, floor: 78_000, run: flushing::nobody_waits_for_an_append },
    Model { name: "flush against close", bound: 3, floor: 14_000, run: flushing::flush_against_close },
    Model { name: "a callback against close", bound: 2, floor: 7_800, run: flushing::a_callback_against_close },
    Model { name: "append and read", bound: 2, floor: 130, run: log::append_and_read },
    Model { name: "roll", bound: 2, floor: 7_600, run: log::roll },
    Model { name: "slice against delete", bound: 2, floor: 8, run: log::slice_against_delete },
    Model { name: "delete against roll", bound: 2, floor: 36, run: log::delete_against_roll },
    Model { name: "append in groups and read", bound: 2, floor: 16_000, run: log::append_in_groups_and_read },
    Model { name: "append against close", bound: 2, floor: 160, run: log::append_against_close },
    Model { name: "append in groups against close", bound: 2, floor: 150, run: log::append_in_groups_against_close },
];

impl Model {
    fn named(name: &str) -> &'static Self {
        MODELS.iter().find(|model| model.name == name).expect("a model of that name")
    }

    /// Runs it in every order, and returns how many there were.
    fn check(&self) -> u64 {
        let count = Arc::new(AtomicU64::new(0));
        let (run, counted) = (self.run, Arc::clone(&count));
        let mut loom = loom::model::Builder::new();
        loom.preemption_bound = Some(self.bound);
        loom.max_branches = 20_000;
        loom.check(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            run();
        });
        count.load(Ordering::Relaxed)
    }
}

/// Something one thread waits for, in a way that is not in question: if it never comes, loom reports a deadlock.
#[derive(Debug, Default)]
struct Signal {
    is_there: Mutex<bool>,
    arrived: Condvar,
}

impl Signal {
    fn give(&self) {
        *lock(&self.is_there) = true;
        self.arrived.notify_all();
    }

    fn wait(&self) {
        let mut is_there = lock(&self.is_there);
        while !*is_there {
            is_there = self.arrived.wait(is_there).expect("loom has no poisoned locks");
        }
    }
}

/// Memory without any protection of its own: loom reports uses without an order between them.
#[derive(Debug, Default)]
struct Plain(loom::cell::UnsafeCell<()>);

// SAFETY: that there is an order between its uses is what loom checks, with a cell that holds nothing.
unsafe impl Sync for Plain {}

impl Plain {
    fn look(&self) {
        self.0.with(|_| ());
    }

    fn change(&self) {
        self.0.with_mut(|_| ());
    }
}
