//! Damage that opening cannot see: it is found by whoever reads, and repaired before the answer.

use std::fs;
use std::path::Path;

use mqlog::{GetLimits, GetStatus, MessageStore, QueueOffset, TagFilter};

use crate::common::check_store;
use crate::stores::{Base, End};

const FILE: &str = "consumequeue/orders/0/00000000000000000000";

/// What becomes of the fourth entry of the file.
const DAMAGES: [fn(&mut [u8]); 6] = [
    |entry| entry[7] ^= 0x10,
    |entry| entry[1] ^= 0x10,
    |entry| entry[10] ^= 1,
    |entry| entry[0] = 0x80,
    |entry| entry.fill(0),
    |entry| entry.fill(0xFF),
];

/// Changes bytes of a file, and gives it back its time.
fn change(path: &Path, damage: fn(&mut [u8])) {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    let mut bytes = fs::read(path).unwrap();
    damage(&mut bytes[60..80]);
    fs::write(path, bytes).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_times(fs::FileTimes::new().set_modified(modified)).unwrap();
}

fn get_all(store: &MessageStore) -> Vec<u64> {
    let (mut found, mut next) = (Vec::new(), QueueOffset::ZERO);
    loop {
        let got = store.get("orders", 0, next, GetLimits::default(), &TagFilter::all()).unwrap();
        found.extend(got.messages.iter().map(|message| message.log_offset().get()));
        next = got.next;
        if got.status != GetStatus::Found {
            assert_eq!(got.status, GetStatus::OffsetOverflowOne);
            return found;
        }
    }
}

fn check_use(store: &MessageStore, base: &Base, read: fn(&MessageStore) -> Vec<u64>) {
    let wanted: Vec<_> = base.content.queues[&("orders".to_owned(), 0)].iter().map(|entry| entry.2).collect();
    assert_eq!(read(store), wanted);
    assert_eq!(store.stats().rebuilt_queues, 1);
    assert_eq!(read(store), wanted);
    assert_eq!(store.stats().rebuilt_queues, 1, "it was repaired already");
    assert!(check_store(store) == base.content);
}

const READS: [fn(&MessageStore) -> Vec<u64>; 2] = [get_all, |store| {
    let messages = store.queue("orders", 0).iter_from(QueueOffset::ZERO);
    messages.map(|message| message.unwrap().log_offset().get()).collect()
}];

#[test]
fn an_entry_of_an_open_store_is_repaired_when_it_is_used() {
    let base = Base::make(End::Closed);
    for damage in DAMAGES {
        for read in READS {
            let patient = base.patient();
            let store = patient.open();
            change(&patient.path(FILE), damage);
            check_use(&store, &base, read);
            patient.check_after(store, &base.content);
        }
    }
}

#[test]
fn an_entry_of_a_closed_store_is_repaired_when_it_is_used() {
    let base = Base::make(End::Closed);
    for damage in DAMAGES {
        for read in READS {
            let patient = base.patient();
            change(&patient.path(FILE), damage);
            let store = patient.open();
            assert!(store.recovery_report().clean && store.recovery_report().queues_repaired.is_empty());
            check_use(&store, &base, read);
            patient.check_after(store, &base.content);
        }
    }
}

#[test]
fn verify_names_a_damaged_entry() {
    let base = Base::make(End::Closed);
    for damage in DAMAGES {
        let patient = base.patient();
        let store = patient.open();
        change(&patient.path(FILE), damage);
        let report = store.verify().unwrap();
        assert!(!report.damages.is_empty());
        assert!(report.damages[0].path.ends_with("consumequeue/orders/0"), "{:?}", report.damages);
    }
}
