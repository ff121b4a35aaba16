//! An opening that finds damage is killed before the damage is mended.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mqlog::disk::OpenMode;
use mqlog::{CommitLog, MessageStore};

use crate::Harm;
use crate::common::check_content;
use crate::stores::{Base, End, options};
use crate::watched_disk::{Answer, Call, Watch, WatchedDisk};

/// A disk on which nothing changes any more after so many changes.
#[derive(Debug)]
struct Ends {
    left: AtomicUsize,
}

impl Watch for Ends {
    fn answer(&self, call: &Call<'_>, _path: &Path) -> Answer {
        let changes = match call {
            Call::Open(mode) => *mode == OpenMode::Create,
            Call::Rename | Call::RemoveFile | Call::SetLen | Call::Allocate(_) | Call::WriteAt(_) => true,
            _ => false,
        };
        let may = |left: usize| left.checked_sub(1);
        if changes && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, may).is_err() {
            return Answer::Fail(io::Error::other("the process has ended"));
        }
        Answer::Go
    }
}

/// The opening said that the store was in use before it looked at the files: what it would have found, the next one, after
/// a kill, took for right.
#[test]
fn the_opening_after_one_that_was_killed_finds_the_same_damage() {
    let base = Base::make(End::Closed);
    let index = base.files("index").pop().unwrap();
    for name in [Path::new("consumequeue/orders/0/00000000000000000000"), &index] {
        let mut killed = 0;
        for changes in 0.. {
            let patient = base.patient();
            assert!(Harm::Flipped(1).apply(&base, &patient, name));
            let ends = Arc::new(Ends { left: AtomicUsize::new(changes) });
            let opened = MessageStore::open(options(&patient.root).disk(Arc::new(WatchedDisk(Arc::clone(&ends)))));
            if opened.is_ok() {
                break;
            }
            killed += 1;
            let store = patient.open();
            assert!(check_content(&store) == base.content, "{} after {changes} changes", name.display());
            patient.check_after(store, &base.content);
        }
        println!("{}: {killed} openings killed", name.display());
        assert!(killed > 5);
    }
}

/// A log that is opened alone took the clean stop back, and nobody had looked at queues and index.
#[test]
fn after_a_log_was_opened_alone_everything_is_looked_at() {
    let base = Base::make(End::Closed);
    let index = base.files("index").pop().unwrap();
    for name in [Path::new("consumequeue/orders/0/00000000000000000000"), &index] {
        let patient = base.patient();
        assert!(Harm::Flipped(1).apply(&base, &patient, name));
        drop(CommitLog::open(&patient.root, 64 * 1024).unwrap());
        let store = patient.open();
        assert!(check_content(&store) == base.content, "{}", name.display());
        patient.check_after(store, &base.content);
    }
}
