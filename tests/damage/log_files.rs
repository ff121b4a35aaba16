//! The log is shorter than its queues and its index say.

use std::fs;
use std::path::Path;

use crate::common::{Content, check_content, check_store};
use crate::stores::{Base, End, Patient, options};
use mqlog::{MessageStore, QueueOffset};

/// Takes the log's end from a record on: its bytes become zero, later files go.
fn cut_log(patient: &Patient, at: u64, shorten: bool) {
    for file in crate::common::files_below(&patient.path("commitlog")) {
        let base: u64 = file.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let mut bytes = fs::read(&file).unwrap();
        if base >= at && base > 0 {
            fs::remove_file(&file).unwrap();
        } else if base + bytes.len() as u64 > at {
            let keep = (at - base) as usize;
            if shorten {
                bytes.truncate(keep);
            } else {
                bytes[keep..].fill(0);
            }
            fs::write(&file, bytes).unwrap();
        }
    }
}

/// What the store held when its first `count` records were all.
fn beginning(base: &Base, root: &Path, count: usize) -> Content {
    let store = MessageStore::open(options(root).read_only(true)).unwrap();
    let content = Content::of_log(&store);
    assert_eq!(content.records, base.content.records[..count]);
    content
}

#[test]
fn queues_and_index_ahead_of_the_log_are_cut_with_it() {
    for end in [End::Closed, End::Killed] {
        let base = Base::make(end);
        let all = base.content.records.len();
        for count in [1, 7, all / 3, all / 2, all - 40, all - 1] {
            // A short file, be it alone, does not tell how long a file is.
            for (shorten, torn) in [(false, 0), (true, 0), (true, 7), (true, 60)] {
                println!("{end:?} cut to {count} records, {shorten} {torn}");
                let patient = base.patient();
                cut_log(&patient, base.content.records[count].0 + torn, shorten);
                fs::remove_dir_all(patient.path("mqlog")).unwrap();
                let content = beginning(&base, &patient.root, count);
                let store = patient.open();
                assert_eq!(store.log_file_bytes(), 16 * 1024);
                assert_eq!(store.recovery_report().corruptions, []);
                assert!(check_content(&store) == content);
                store.close().unwrap();
                let again = patient.open();
                assert!(again.recovery_report().clean);
                assert!(check_store(&again) == content);
            }
        }
    }
}

#[test]
fn a_log_that_ends_before_what_was_durable_is_refused() {
    let base = Base::make(End::Closed);
    let patient = base.patient();
    let half = base.content.records.len() / 2;
    cut_log(&patient, base.content.records[half].0, false);
    let before = crate::common::files_below(&patient.root).into_iter().map(|file| (fs::read(&file).unwrap(), file));
    let before: Vec<_> = before.collect();
    assert!(matches!(MessageStore::open(options(&patient.root)), Err(mqlog::Error::Corrupt(_))));
    let after = crate::common::files_below(&patient.root).into_iter().map(|file| (fs::read(&file).unwrap(), file));
    assert!(before == after.collect::<Vec<_>>(), "a refused opening wrote");
    let store = MessageStore::open(options(&patient.root).recovery(mqlog::RecoveryMode::ReadOnly)).unwrap();
    assert!(!store.recovery_report().corruptions.is_empty());
    assert!(store.queue("orders", 0).iter_from(QueueOffset::ZERO).all(|message| message.is_ok()));
    assert!(matches!(store.put(mqlog::Message::new("t")), Err(mqlog::Error::ReadOnly)));
}

#[test]
fn a_torn_record_is_cut_and_kept_aside() {
    let base = Base::make(End::Killed);
    let patient = base.patient();
    let (last_at, last) = base.content.records.last().unwrap().clone();
    let file = crate::common::files_below(&patient.path("commitlog"))
        .into_iter()
        .rev()
        .find(|file| file.file_name().unwrap().to_str().unwrap().parse::<u64>().unwrap() <= last_at);
    let file = file.unwrap();
    let start: u64 = file.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let end = (last_at - start) as usize + last.len();
    assert!(end + last.len() + 8 <= bytes.len(), "the last record leaves no room behind it: change the messages");
    bytes[end..end + last.len() / 2].copy_from_slice(&last[..last.len() / 2]);
    fs::write(&file, bytes).unwrap();
    let store = patient.open();
    let torn = store.recovery_report().torn.clone().unwrap();
    assert_eq!(torn.start.get(), last_at + last.len() as u64);
    assert!(check_store(&store) == base.content);
    let kept = fs::read(patient.path(format!("mqlog/cut/{:020}", torn.start.get()))).unwrap();
    assert_eq!(kept[..8], last[..8]);
    patient.check_after(store, &base.content);
}
