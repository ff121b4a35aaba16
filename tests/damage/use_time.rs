//! Damage that opening cannot see: it is found by whoever reads, and repaired before the answer.

use std::fs;
use std::path::Path;

use mqlog::{
    FlushPolicy, GetLimits, GetStatus, LogOffset, Message, MessageStore, QueueOffset, StoreOptions, TagFilter,
};

use crate::common::{check_store, fast_dir};
use crate::stores::{Base, End, options};

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

/// Changes the fourth entry of a file, and gives it back its time.
fn change(path: &Path, damage: fn(&mut [u8])) {
    change_at(path, 3, damage);
}

/// Changes an entry of a file, and gives it back its time.
fn change_at(path: &Path, index: usize, damage: fn(&mut [u8])) {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    let mut bytes = fs::read(path).unwrap();
    damage(&mut bytes[20 * index..20 * (index + 1)]);
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

/// Old files of the log had been deleted, and an entry whose log offset lost a bit pointed to where they had been. Its message
/// counted as one that had just been deleted, and was skipped without a word; then only beside somebody who verified.
#[test]
fn an_entry_that_points_to_what_was_deleted_is_repaired_when_it_is_used() {
    let reads: [fn(&MessageStore) -> Vec<u64>; 2] = [
        |store| {
            let (mut found, mut next) = (Vec::new(), store.queue("t", 0).range().unwrap().start);
            while next < QueueOffset::new(60) {
                let got = store.get("t", 0, next, GetLimits::default(), &TagFilter::all()).unwrap();
                assert_eq!(got.status, GetStatus::Found);
                found.extend(got.messages.iter().map(|message| message.queue_offset().get()));
                next = got.next;
            }
            found
        },
        |store| {
            let messages = store.queue("t", 0).iter_from(QueueOffset::ZERO);
            messages.map(|message| message.unwrap().queue_offset().get()).collect()
        },
    ];
    for (read, is_first) in reads.into_iter().flat_map(|read| [(read, false), (read, true)]) {
        let dir = fast_dir();
        let options = || StoreOptions::new(dir.path()).log_file_bytes(4096).flush(FlushPolicy::Manual);
        let store = MessageStore::open(options()).unwrap();
        let puts: Vec<_> = (0..60).map(|_| store.put(Message::new("t").body(&[7; 300])).unwrap()).collect();
        store.flush().unwrap();
        assert_eq!(store.delete_before(LogOffset::new(8192)).unwrap(), 2);
        let start = store.queue("t", 0).range().unwrap().start.get();
        store.close().unwrap();
        assert!((16_384..16_384 + 8192).contains(&puts[50].log_offset.get()), "{:?}", puts[50]);
        let changed = if is_first { usize::try_from(start).unwrap() } else { 50 };
        let file = dir.path().join("consumequeue/t/0/00000000000000000000");
        change_at(&file, changed, |entry| entry[..8].fill(0));
        let store = MessageStore::open(options()).unwrap();
        assert!(store.recovery_report().queues_repaired.is_empty());
        assert_eq!(read(&store), (start..60).collect::<Vec<_>>());
        assert_eq!(store.stats().rebuilt_queues, 1);
        check_store(&store);
    }
}

/// Damage of queues and index that an opening had found by a file's time, and repaired, was named by `verify` with an empty
/// range.
#[test]
fn verify_names_where_the_damage_is_that_the_opening_repaired() {
    let base = Base::make(End::Closed);
    let queue = &base.content.queues[&("orders".to_owned(), 0)];
    let messages = queue[0].0..queue[queue.len() - 1].0 + 1;
    let log = 0..base.content.records.last().map(|(at, bytes)| at + bytes.len() as u64).unwrap();
    let index = base.files("index").remove(0);
    for (name, damaged, range) in [(Path::new(FILE), "consumequeue/orders/0", messages), (&index, "index", log)] {
        for read_only in [true, false] {
            let patient = base.patient();
            let mut bytes = fs::read(patient.path(name)).unwrap();
            bytes[60..80].fill(0);
            fs::write(patient.path(name), bytes).unwrap();
            let store = MessageStore::open(options(&patient.root).read_only(read_only)).unwrap();
            let damages = store.verify().unwrap().damages;
            assert!(damages.len() == 1 && damages[0].path.ends_with(damaged), "{damages:?}");
            assert_eq!(damages[0].range, range, "{damages:?}");
        }
    }
}
