//! Bugs that the suite found, each with its story.

use super::common::oracle::{Crash, Oracle, Promise};
use super::workloads::{Place, Shape, sent};
use crate::disk::Disk;
use crate::disk::simulated::SimulatedDisk;

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
