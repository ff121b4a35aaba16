//! Files of a closed or killed store are damaged, lost, or replaced by older ones; after the next opening queues, index
//! and content are right again.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failure, with what led to it, is what a test is for")]

#[path = "../common/mod.rs"]
mod common;
mod killed_opening;
mod log_damage;
mod log_files;
mod old_copies;
mod side_files;
mod stores;
mod use_time;
#[path = "../common/watched_disk.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod watched_disk;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use common::{check_content, check_store, copy_dir, copy_file, fast_dir, files_below, inner_batch};
use mqlog::{Drive, Message, MessageStore, QueueOffset, RecoveryReport};
use stores::{Base, End, Patient, options};

/// What happens to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    Deleted,
    Emptied,
    Zeroed,
    Cut,
    Longer,
    /// One bit, at this part of 16 of the length.
    Flipped(u64),
    /// Replaced by the copy from after an earlier session.
    Older,
}

const EVERY_HARM: [Harm; 12] = [
    Harm::Deleted,
    Harm::Emptied,
    Harm::Zeroed,
    Harm::Cut,
    Harm::Longer,
    Harm::Older,
    Harm::Flipped(0),
    Harm::Flipped(1),
    Harm::Flipped(4),
    Harm::Flipped(8),
    Harm::Flipped(12),
    Harm::Flipped(15),
];

/// Cuts a file.
fn shorten(path: &Path, bytes: u64) {
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(bytes).unwrap();
}

/// Changes one bit of a file.
fn flip(path: &Path, at: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at as usize] ^= 1;
    fs::write(path, bytes).unwrap();
}

impl Harm {
    /// Does it to a file; `false` if it changes nothing.
    fn apply(self, base: &Base, patient: &Patient, name: &Path) -> bool {
        let path = patient.path(name);
        let mut bytes = fs::read(&path).unwrap();
        match self {
            Self::Deleted => return fs::remove_file(&path).is_ok(),
            Self::Emptied => bytes.clear(),
            Self::Zeroed => bytes.fill(0),
            Self::Cut => bytes.truncate(bytes.len() / 2),
            Self::Longer => bytes.extend([7; 33]),
            Self::Flipped(part) => {
                let at = bytes.len() * part as usize / 16;
                bytes[at] ^= 1 << (at % 8);
            }
            Self::Older => {
                let older = base.older().join(name);
                let differs = fs::read(&older).is_ok_and(|older| older != bytes);
                if differs {
                    copy_file(&older, &path);
                }
                return differs;
            }
        }
        fs::write(&path, bytes).unwrap();
        true
    }
}

/// The topic and number of the queue that a file belongs to.
fn queue_of(file: &Path) -> (String, i32) {
    let parts: Vec<_> = file.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    (parts[1].clone(), parts[2].parse().unwrap())
}

/// Damages files one by one, each in a copy of its own, and looks at what opening makes of it.
fn harm_each(base: &Base, files: &[PathBuf], harms: &[Harm], check: impl Fn(&Path, Harm, &RecoveryReport)) -> usize {
    let mut count = 0;
    for (number, file) in files.iter().enumerate() {
        // Of many files each gets some harms; the first and the last few get all.
        let is_edge = number < 3 || number + 3 >= files.len();
        let some = harms.iter().enumerate().filter(|(at, _)| is_edge || (at + number) % 3 == 0);
        for (_, harm) in some {
            let patient = base.patient();
            if !harm.apply(base, &patient, file) {
                continue;
            }
            println!("{:?} {file:?} {harm:?}", base.end);
            let store = patient.open();
            check(file, *harm, store.recovery_report());
            if base.end == End::Closed {
                assert!(check_content(&store) == base.content, "the content is not what it was");
            } else {
                // Without a word of the last session on every entry, some are only found wrong by who reads them.
                for (topic, id) in store.queues().unwrap() {
                    let error = store.queue(topic, id).iter_from(QueueOffset::ZERO).find_map(Result::err);
                    assert!(error.is_none(), "{error:?}");
                }
                assert!(check_content(&store) == base.content, "the content is not what it was");
            }
            patient.check_after(store, &base.content);
            count += 1;
        }
    }
    count
}

#[test]
fn each_queue_file_of_a_closed_store_may_be_damaged() {
    let base = Base::make(End::Closed);
    let files = [base.files("consumequeue"), base.files("batchconsumequeue")].concat();
    let harms = [Harm::Deleted, Harm::Emptied, Harm::Zeroed, Harm::Cut, Harm::Longer, Harm::Older, Harm::Flipped(1)];
    let count = harm_each(&base, &files, &harms, |file, _, report| {
        assert!(report.clean && !report.index_rebuilt, "{report:?}");
        assert_eq!((report.queues_compared, &report.queues_repaired), (1, &vec![queue_of(file)]));
    });
    println!("{count} damaged queue files of a closed store");
    assert!(count > 30);
}

/// A queue file under a name far behind the others made the range of files to be synced as long as the way to it: each
/// number of it was looked for at close, which took years. Now only files that exist are. Found by fuzzing.
#[test]
fn a_queue_file_far_behind_the_others_does_not_keep_a_store_from_closing() {
    for end in [End::Closed, End::Killed] {
        let base = Base::make(end);
        let patient = base.patient();
        let folder = patient.path("consumequeue/orders/0");
        let far = format!("{:020}", i64::MAX as u64 / 320 * 320);
        copy_file(&folder.join(format!("{:020}", 0)), &folder.join(far));
        let store = patient.open();
        assert!(check_content(&store) == base.content);
        patient.check_after(store, &base.content);
    }
}

/// A queue whose file was not there, although the store had it in its list, gave an I/O error at each read, and went on doing
/// so: nothing took it for damage. Now a missing file is damage like any other, and whoever meets it has the queue built
/// anew. Found by fuzzing.
#[test]
fn a_queue_whose_file_is_missing_is_built_anew_by_whoever_reads_it() {
    let base = Base::make(End::Closed);
    for file in [base.files("consumequeue"), base.files("batchconsumequeue")].concat() {
        let patient = base.patient();
        let store = patient.open();
        fs::remove_file(patient.path(&file)).unwrap();
        assert!(check_content(&store) == base.content, "{file:?}");
        assert_eq!(store.stats().rebuilt_queues, 1, "{file:?}");
        patient.check_after(store, &base.content);
    }
}

/// All files of a queue were removed while the store was open, and nobody read the queue before the close: the checkpoint
/// then named its messages and no file, and the next opening believed it. A batch queue was empty for its readers without
/// a word; with another one they met a broken assertion, in builds that have it. Now messages without a file are not
/// believed.
#[test]
fn a_queue_that_a_checkpoint_names_without_a_file_is_built_anew() {
    let dir = fast_dir();
    let store = MessageStore::open(options(dir.path())).unwrap();
    for number in 0..10_u64 {
        store.put(Message::new("t").body(&[1; 10])).unwrap();
        store.put(inner_batch("b", 1 + number % 3, b"inner")).unwrap();
    }
    let content = check_content(&store);
    fs::remove_dir_all(dir.path().join("consumequeue/t")).unwrap();
    fs::remove_dir_all(dir.path().join("batchconsumequeue/b")).unwrap();
    store.close().unwrap();
    let store = MessageStore::open(options(dir.path())).unwrap();
    let repaired = ["b", "t"].map(|topic| (topic.to_owned(), 0));
    assert_eq!(store.recovery_report().queues_repaired, repaired);
    assert!(check_content(&store) == content);
}

#[test]
fn each_queue_file_of_a_killed_store_may_be_damaged() {
    let base = Base::make(End::Killed);
    let files = [base.files("consumequeue"), base.files("batchconsumequeue")].concat();
    let harms = [Harm::Deleted, Harm::Emptied, Harm::Zeroed, Harm::Cut, Harm::Longer, Harm::Older, Harm::Flipped(1)];
    let count = harm_each(&base, &files, &harms, |file, harm, report| {
        assert!(!report.clean && !report.index_rebuilt, "{report:?}");
        let others = report.queues_repaired.iter().filter(|queue| **queue != queue_of(file)).count();
        assert_eq!(others, 0, "{harm:?}: {report:?}");
    });
    println!("{count} damaged queue files of a killed store");
    assert!(count > 30);
}

/// The files of a killed store that was copied have other times than its checkpoint says. The queues were believed, and the
/// checkpoint of the close repeated the old times: the opening after a clean stop compared those queues with the log.
#[test]
fn a_killed_store_that_was_copied_is_compared_no_later() {
    let dir = fast_dir();
    let (root, killed) = (dir.path().join("store"), dir.path().join("killed"));
    let store = MessageStore::open(options(&root)).unwrap();
    (0..5).for_each(|_| _ = store.put(Message::new("t")).unwrap());
    store.close().unwrap();
    let store = MessageStore::open(options(&root).drive(Drive::Manual)).unwrap();
    store.put(Message::new("u")).unwrap();
    store.flush().unwrap();
    let content = check_content(&store);
    copy_dir(&root, &killed);
    let queue = fs::File::options().write(true).open(killed.join("consumequeue/t/0/00000000000000000000")).unwrap();
    queue.set_times(fs::FileTimes::new().set_modified(SystemTime::UNIX_EPOCH)).unwrap();
    let again = MessageStore::open(options(&killed)).unwrap();
    assert!(!again.recovery_report().clean);
    again.close().unwrap();
    let again = MessageStore::open(options(&killed)).unwrap();
    assert_eq!((again.recovery_report().clean, again.recovery_report().queues_compared), (true, 0));
    assert!(check_store(&again) == content);
}

#[test]
fn each_index_file_of_a_closed_store_may_be_damaged() {
    let base = Base::make(End::Closed);
    let count = harm_each(&base, &base.files("index"), &EVERY_HARM, |_, _, report| {
        assert!(report.clean && report.index_rebuilt, "{report:?}");
        assert_eq!((report.queues_compared, report.queues_repaired.len()), (0, 0));
    });
    println!("{count} damaged index files of a closed store");
    assert!(count > 30);
}

#[test]
fn each_index_file_of_a_killed_store_may_be_lost_cut_or_older() {
    let base = Base::make(End::Killed);
    let harms = [Harm::Deleted, Harm::Emptied, Harm::Cut, Harm::Zeroed, Harm::Longer, Harm::Older];
    let count = harm_each(&base, &base.files("index"), &harms, |_, _, report| assert!(!report.clean));
    assert!(count > 10);
}

#[test]
fn folders_may_be_missing() {
    for end in [End::Closed, End::Killed] {
        let base = Base::make(end);
        for name in
            ["consumequeue", "consumequeue/orders", "consumequeue/orders/1", "batchconsumequeue", "index", "mqlog"]
        {
            println!("{end:?} without {name}");
            let patient = base.patient();
            fs::remove_dir_all(patient.path(name)).unwrap();
            let store = patient.open();
            assert!(!store.recovery_report().foreign_writer);
            assert!(check_content(&store) == base.content);
            patient.check_after(store, &base.content);
        }
    }
}

#[test]
fn everything_derived_may_be_missing_at_once() {
    for end in [End::Closed, End::Killed] {
        let base = Base::make(end);
        let patient = base.patient();
        for name in ["consumequeue", "batchconsumequeue", "index", "mqlog"] {
            fs::remove_dir_all(patient.path(name)).unwrap();
        }
        for name in ["checkpoint", "lock"] {
            fs::remove_file(patient.path(name)).unwrap();
        }
        let store = patient.open();
        assert!(check_store(&store) == base.content);
        patient.check_after(store, &base.content);
    }
}

#[test]
fn an_empty_file_behind_the_last_is_reported_and_goes() {
    for end in [End::Closed, End::Killed] {
        let base = Base::make(end);
        let patient = base.patient();
        let last = files_below(&patient.path("commitlog")).pop().unwrap();
        let base_of_last: u64 = last.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let empty = last.with_file_name(format!("{:020}", base_of_last + 16 * 1024));
        fs::write(&empty, "").unwrap();
        let reading = MessageStore::open(options(&patient.root).read_only(true)).unwrap();
        assert_eq!(reading.recovery_report().empty_files, std::slice::from_ref(&empty));
        assert!(empty.exists(), "reading changes nothing");
        drop(reading);
        let store = patient.open();
        assert_eq!(store.recovery_report().empty_files, std::slice::from_ref(&empty));
        // The next file may be in its place by now.
        assert!(fs::metadata(&empty).map_or(true, |file| file.len() > 0));
        assert!(check_store(&store) == base.content);
        patient.check_after(store, &base.content);
    }
}

#[test]
fn stray_files_stay_and_are_reported() {
    for end in [End::Closed, End::Killed] {
        let base = Base::make(end);
        let patient = base.patient();
        let strays = [
            "commitlog/stray",
            "commitlog/0000000000000000000x",
            "consumequeue/stray",
            "consumequeue/orders/stray",
            "consumequeue/orders/0/stray",
            "index/stray",
        ];
        for name in strays {
            fs::write(patient.path(name), "mine").unwrap();
        }
        for name in ["commitlog/stray_dir", "consumequeue/orders/00", "consumequeue/orders/x", "index/stray_dir"] {
            fs::create_dir(patient.path(name)).unwrap();
        }
        let store = patient.open();
        let reported = store.recovery_report().strays.clone();
        for name in strays {
            assert!(reported.contains(&patient.path(name)), "{name} of {reported:?}");
            assert_eq!(fs::read(patient.path(name)).unwrap(), b"mine");
        }
        assert_eq!(reported.len(), 10, "{reported:?}");
        assert!(check_store(&store) == base.content);
        store.close().unwrap();
        let again = patient.open();
        assert!(again.recovery_report().clean && again.recovery_report().queues_repaired.is_empty());
    }
}
