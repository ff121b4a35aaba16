//! The whole commit log, opened on a disk in memory.

use std::sync::Arc;

use crate::error::Error;
use crate::memory::{Kit, put};
use crate::offset::LogOffset;
use crate::sync::thread;

fn putting(kit: &Kit, bodies: &'static [&'static [u8]]) -> thread::JoinHandle<()> {
    let (log, cursor) = (kit.log.clone(), Arc::clone(&kit.cursor));
    thread::spawn(move || {
        for body in bodies {
            put(&log, &cursor, body).unwrap();
        }
    })
}

/// One appends while another reads whatever may be read.
pub(super) fn append_and_read() {
    let kit = Kit::new(false);
    put(&kit.log, &kit.cursor, Kit::HALF).unwrap();
    let writing = putting(&kit, &[Kit::HALF]);
    if kit.log.range().end.get() > Kit::RECORD / 2 {
        kit.look(Kit::RECORD / 2);
    }
    kit.look(0);
    writing.join().unwrap();
    kit.check(2);
}

/// Two append more than a file holds, and a third reads: each makes the next file, if the other has not.
pub(super) fn roll() {
    let kit = Kit::with_records(1);
    let writing = [putting(&kit, &[Kit::BODY]), putting(&kit, &[Kit::BODY])];
    let end = kit.log.range().end.get();
    (0..end).step_by(Kit::FILE as usize).for_each(|at| kit.look(at));
    writing.into_iter().for_each(|writing| writing.join().unwrap());
    kit.check(3);
}

/// A file goes while it is read: the reader has it whole, for as long as he likes, or hears that it is gone.
pub(super) fn slice_against_delete() {
    let kit = Kit::with_records(2);
    let block = kit.block(0);
    let deleting = thread::spawn({
        let log = kit.log.clone();
        move || assert_eq!(log.delete_before(LogOffset::new(Kit::FILE)).unwrap(), 1)
    });
    match kit.log.read(LogOffset::ZERO) {
        Ok(view) => {
            let slice = view.bytes().slice(0..Kit::RECORD as usize);
            drop(view);
            deleting.join().unwrap();
            block.looks_at(0..slice.len());
            assert!(!block.is_gone() && slice.ends_with(&slice[slice.len() - 1..]));
            assert_eq!(kit.log.pinned_deleted_bytes(), Kit::FILE);
            drop(slice);
        }
        Err(Error::OutOfRange { available, .. }) => {
            assert!(available.start <= available.end);
            deleting.join().unwrap();
        }
        Err(other) => panic!("{other}"),
    }
    assert!(block.is_gone(), "nobody has it any more");
    assert_eq!(kit.log.range().start.get(), Kit::FILE);
    kit.look(Kit::FILE);
}

/// The oldest file goes while the next one is made: neither is lost.
pub(super) fn delete_against_roll() {
    let kit = Kit::with_records(2);
    let writing = putting(&kit, &[Kit::BODY]);
    assert_eq!(kit.log.delete_before(LogOffset::new(Kit::FILE)).unwrap(), 1);
    writing.join().unwrap();
    assert_eq!(kit.log.range(), LogOffset::new(Kit::FILE)..LogOffset::new(2 * Kit::FILE + Kit::RECORD));
    kit.look(Kit::FILE);
    kit.look(2 * Kit::FILE);
}

/// Looks at each record that may be read, in a log of records of half a file; what is durable is among them.
fn look_at_all(kit: &Kit) {
    let (durable, end) = (kit.log.durable_offset(), kit.log.range().end);
    assert!(durable <= end && end.get().is_multiple_of(Kit::RECORD / 2));
    (0..end.get()).step_by(Kit::RECORD as usize / 2).for_each(|at| kit.look(at));
}

/// Two append to a group and flush it, and a third reads: what is written, or even durable, is in its file and whole.
pub(super) fn append_in_groups_and_read() {
    let kit = Arc::new(Kit::new(true));
    let committing = [0, 1].map(|_| {
        let kit = Arc::clone(&kit);
        thread::spawn(move || {
            let end = put(&kit.log, &kit.cursor, Kit::HALF).unwrap().end();
            assert!(kit.log.flush().unwrap() >= end && kit.log.durable_offset() >= end);
            look_at_all(&kit);
        })
    });
    look_at_all(&kit);
    committing.into_iter().for_each(|committing| committing.join().unwrap());
    kit.check(2);
}

fn against_close(grouped: bool) {
    let kit = Kit::new(grouped);
    let before = put(&kit.log, &kit.cursor, Kit::HALF).unwrap();
    let writing = thread::spawn({
        let (log, cursor) = (kit.log.clone(), Arc::clone(&kit.cursor));
        move || put(&log, &cursor, Kit::HALF)
    });
    kit.log.clone().close().unwrap();
    let outcome = writing.join().unwrap();
    let end = match &outcome {
        Ok(appended) => appended.end(),
        Err(error) => {
            assert!(matches!(error, Error::Closed), "{error}");
            before.end()
        }
    };
    assert_eq!((kit.log.durable_offset(), kit.log.range().end), (end, end), "whatever was accepted is durable");
    assert!(matches!(put(&kit.log, &kit.cursor, Kit::HALF), Err(Error::Closed)));
    kit.look(0);
    kit.check(1 + u64::from(outcome.is_ok()));
}

/// The log closes while another appends through the mapping.
pub(super) fn append_against_close() {
    against_close(false);
}

/// The log closes while another appends to a group.
pub(super) fn append_in_groups_against_close() {
    against_close(true);
}
