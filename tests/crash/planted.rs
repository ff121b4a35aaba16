//! Proof that the suite can fail: each planted bug is found, in a workload that shows nothing without it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::common::oracle::{Promise, Violation};
use super::enumerate::{Counts, Depth, Explorer};
use super::workloads::{Shape, Step, Workload, run};
use crate::planted::{self, Planted};

const THOROUGH: Depth =
    Depth { exhaustive: 20_000, samples: 500, cuts: 64, crash_one_opening_of: 0, opening_crashes: 0, ways_on: 4 };

/// Slots and entries of an index file do not share a sector.
const SHAPE: Shape = Shape { log_file_bytes: 2048, queue_file_entries: 4, index_slots: 130, index_entries: 8 };

fn explore(workload: &Workload, bug: Option<Planted>) -> (Counts, Result<(), Violation>) {
    planted::with(bug, || {
        let mut is_new = |_| true;
        let mut explorer = Explorer::new(THOROUGH, 1, u64::MAX, &mut is_new);
        let judged = match catch_unwind(AssertUnwindSafe(|| run(workload))) {
            Ok(run) => explorer.explore(&run),
            Err(_) => panic!("a planted bug shows after a crash, not before"),
        };
        (explorer.counts, judged)
    })
}

/// The bug is found, and nothing without it.
fn is_found(bug: Planted, promise: Promise, steps: &[Step]) {
    let workload = Workload { seed: 0, promise, shape: SHAPE, steps: steps.to_vec() };
    let (counts, judged) = explore(&workload, None);
    println!("planted {bug:?}: without it {counts:?}");
    assert_eq!(judged, Ok(()), "{bug:?}: without the bug");
    let (counts, judged) = explore(&workload, Some(bug));
    println!("planted {bug:?}: found after {} states: {judged:?}", counts.judged);
    assert!(judged.is_err(), "{bug:?} was not found");
}

fn puts(count: usize) -> Vec<Step> {
    (0..count).map(|queue| Step::Put(queue, 30)).collect()
}

#[test]
fn an_acknowledgement_before_the_sync_is_found() {
    is_found(Planted::AckBeforeSync, Promise::Sync, &puts(2));
}

#[test]
fn a_folder_that_is_not_synced_after_a_rename_is_found() {
    is_found(Planted::NoDirSyncAfterRename, Promise::Sync, &puts(1));
}

#[test]
fn a_cut_without_zeros_is_found() {
    is_found(Planted::NoZeroingOnTruncate, Promise::Async, &puts(5));
}

#[test]
fn blocks_that_count_before_their_zeros_are_written_are_found() {
    is_found(Planted::AllocatedBeforeZeros, Promise::Sync, &[Step::Put(0, 30), Step::Put(0, 30), Step::Pump]);
}

#[test]
fn a_watermark_that_is_not_synced_is_found() {
    // What is lost has to be the first record, and fill a sector, so that the second one stays.
    is_found(Planted::WatermarkNotSynced, Promise::Async, &[Step::Put(0, 470), Step::Put(1, 470)]);
}

#[test]
fn a_frame_before_its_log_is_found() {
    let steps = [Step::Put(0, 30), Step::Put(0, 30), Step::Pump];
    is_found(Planted::FrameBeforeLog, Promise::Async, &steps);
}

#[test]
fn an_index_that_is_not_repaired_is_found() {
    let steps = [Step::Put(0, 30), Step::Pump, Step::Put(0, 30), Step::Pump];
    is_found(Planted::IndexNotRepaired, Promise::Async, &steps);
}

#[test]
fn a_record_whose_checksum_is_nearly_there_is_found() {
    is_found(Planted::NearMissAccepted, Promise::Async, &puts(4));
}
