//! Real threads on a disk in memory. Under Miri: no use of memory that Rust forbids, and no race.

use std::sync::Arc;
use std::thread;

use super::{Kit, mapped_file, put};
use crate::drive::Drive;
use crate::error::Error;
use crate::flush::FlushPolicy;
use crate::offset::LogOffset;

const ROUNDS: u64 = if cfg!(miri) { 6 } else { 200 };

#[test]
fn what_is_published_is_read_while_more_is_stored() {
    let (file, _) = mapped_file(16 * ROUNDS);
    let mut writer = file.writer();
    thread::scope(|scope| {
        scope.spawn(move || {
            for round in 0..ROUNDS {
                writer.store(16 * round, &[7; 16]);
                writer.file().publish(16 * (round + 1));
            }
        });
        let mut slices = Vec::new();
        while slices.last().is_none_or(|last: &crate::Slice| (last.len() as u64) < 16 * ROUNDS) {
            slices.push(file.slice(0..file.published()).unwrap());
            thread::yield_now();
        }
        assert!(slices.iter().all(|slice| slice.iter().all(|byte| *byte == 7)));
    });
}

#[test]
fn two_append_and_roll_while_a_third_reads_and_the_log_is_flushed() {
    for grouped in [false, true] {
        let kit = Kit::new(grouped);
        kit.log.start_preparing(Drive::Threads).unwrap();
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..ROUNDS).for_each(|_| drop(put(&kit.log, &kit.cursor, Kit::HALF).map(drop))));
            }
            scope.spawn(|| (0..ROUNDS).for_each(|_| assert!(kit.log.flush().is_ok())));
            let mut seen = LogOffset::ZERO;
            while kit.log.scan(seen).count() > 0 || seen == LogOffset::ZERO {
                seen = kit.log.range().end;
                thread::yield_now();
            }
        });
        kit.check(2 * ROUNDS);
        kit.log.clone().close().unwrap();
        kit.check(2 * ROUNDS);
    }
}

#[test]
fn a_slice_is_whole_when_its_file_has_gone() {
    let kit = Kit::with_records(3);
    let (first, block) = (kit.log.read(LogOffset::ZERO).unwrap(), kit.block(0));
    thread::scope(|scope| {
        scope.spawn(|| kit.log.delete_before(LogOffset::new(2 * Kit::FILE)).unwrap());
        scope.spawn(|| put(&kit.log, &kit.cursor, Kit::BODY).unwrap());
        match kit.log.read(LogOffset::new(Kit::FILE)) {
            Ok(view) => assert_eq!(view.body(), Kit::BODY),
            Err(error) => assert!(matches!(error, Error::OutOfRange { .. }), "{error}"),
        }
    });
    assert_eq!((first.body(), block.is_gone()), (Kit::BODY, false));
    drop(first);
    assert!(block.is_gone());
    assert_eq!(kit.log.range(), LogOffset::new(2 * Kit::FILE)..LogOffset::new(Kit::place(3).1));
}

#[test]
fn many_commit_at_once_on_a_log() {
    let kit = Kit::new(true);
    let target = Arc::new(Target(kit.log.clone()));
    let service = crate::FlushService::start(target, FlushPolicy::Sync, Drive::Threads).unwrap();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    let end = put(&kit.log, &kit.cursor, Kit::HALF).unwrap().end();
                    service.wait_durable(end).unwrap();
                    assert!(kit.log.durable_offset() >= end);
                }
            });
        }
    });
    service.close().unwrap();
    kit.check(3 * ROUNDS);
}

/// The log, as a target of the flush service.
struct Target(crate::CommitLog);

impl crate::FlushTarget for Target {
    fn tail(&self) -> LogOffset {
        self.0.tail()
    }

    fn flush(&self) -> crate::Result<LogOffset> {
        self.0.flush()
    }
}
