//! Bugs that the suite found, each with its story.

use mqlog::LogOffset;

use super::common::oracle::{Crash, Oracle, Promise};
use super::workloads::{Place, Shape, sent};
use crate::disk::Disk;
use crate::disk::simulated::{Fault, SimulatedDisk};

const SHAPE: Shape = Shape { log_file_bytes: 2048, queue_file_entries: 4, index_slots: 4, index_entries: 8 };

/// The first session of a store made its folder and was killed before the folder's name was durable. The next one found
/// the folder and took the name for durable, so that a power loss could take the whole store, with everything that was
/// acknowledged. Now a session that finds no `mqlog/format` syncs the name.
#[test]
fn the_name_of_a_store_whose_first_session_was_killed_is_durable() {
    let (place, disk) = (Place::new(Promise::Sync, SHAPE), SimulatedDisk::default());
    disk.create_dir_all(&place.root).unwrap();
    let store = place.open(&disk, 0).unwrap();
    let mut oracle = Oracle::new(Promise::Sync);
    oracle.put_and_get(&store, 0, sent(0, 0, 30)).unwrap();
    let moment = disk.moment();
    disk.switch_off();
    drop(store);
    let chances = moment.chances();
    let nothing_unsynced = moment.power_loss(&chances, &vec![0; chances.options.len()]);
    let disk = nothing_unsynced.disk();
    let store = place.open(&disk, 1).unwrap();
    oracle.check_opened(&store, Crash::PowerLoss).unwrap();
    disk.switch_off();
}

/// A session wrote a queue's first entries and ended, by a kill or a failing call, before a checkpoint. The next one
/// compared the queue with the log, found it right, and so had nothing to sync: its checkpoint counted on files whose
/// bytes and names were nowhere but in memory. Once the log's files were deleted, a power loss took the queue, and it
/// gave its numbers out a second time. Now a comparison takes all files that it finds for unsynced.
#[test]
fn a_queue_that_an_earlier_session_wrote_and_did_not_sync_is_synced() {
    let shape = Shape { log_file_bytes: 1024, ..SHAPE };
    let (place, disk) = (Place::new(Promise::Sync, shape), SimulatedDisk::default());
    let store = place.open(&disk, 0).unwrap();
    let mut oracle = Oracle::new(Promise::Sync);
    oracle.put_and_get(&store, 0, sent(0, 4, 380)).unwrap();
    let killed = disk.moment().kill(0);
    disk.switch_off();
    drop(store);
    let disk = killed.disk();
    let store = place.open(&disk, 1).unwrap();
    oracle.check_opened(&store, Crash::Kill).unwrap();
    for number in 1..4 {
        oracle.put_and_get(&store, 0, sent(number, 0, 380)).unwrap();
    }
    store.pump().unwrap();
    oracle.deletes_before(LogOffset::new(1024));
    assert_eq!(store.delete_before(LogOffset::new(1024)).unwrap(), 1);
    oracle.deleted(store.log_range().start);
    let moment = disk.moment();
    disk.switch_off();
    drop(store);
    let chances = moment.chances();
    let disk = moment.power_loss(&chances, &vec![0; chances.options.len()]).disk();
    let store = place.open(&disk, 2).unwrap();
    oracle.check_opened(&store, Crash::PowerLoss).unwrap();
    disk.switch_off();
}

/// A flush of an async store synced the log and then had no room for the watermark. The flush service took that for a
/// failed sync and stopped the log until it was opened again, although nothing was lost and space might return. Now
/// the watermark stays behind until a later flush.
#[test]
fn a_full_disk_at_the_watermark_does_not_stop_an_async_store() {
    const ENOSPC: i32 = 28;
    let run = |fails_at: Option<u64>| {
        let (place, disk) = (Place::new(Promise::Async, SHAPE), SimulatedDisk::default());
        let store = place.open(&disk, 0).unwrap();
        let mut oracle = Oracle::new(Promise::Async);
        oracle.put_and_get(&store, 0, sent(0, 0, 30)).unwrap();
        disk.trace();
        fails_at.into_iter().for_each(|call| disk.fail(call, Fault::Error(ENOSPC)));
        let durable = store.flush().unwrap();
        let calls = disk.take_trace();
        assert_eq!(durable, store.log_range().end);
        oracle.saw_durable(durable);
        oracle.put_and_get(&store, 0, sent(1, 0, 30)).unwrap();
        let moment = disk.moment();
        disk.switch_off();
        drop(store);
        let chances = moment.chances();
        let disk = moment.power_loss(&chances, &vec![0; chances.options.len()]).disk();
        let store = place.open(&disk, 1).unwrap();
        oracle.check_opened(&store, Crash::PowerLoss).unwrap();
        disk.switch_off();
        let written = calls.iter().find(|call| call.operation == "write" && call.path.ends_with("watermark"));
        written.map(|call| call.number)
    };
    let write = run(None);
    assert!(write.is_some(), "a flush writes the watermark");
    run(write);
}
