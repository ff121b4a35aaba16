use proptest::prelude::*;

use super::super::*;
use super::kit::*;
use crate::error::Error;
use crate::offset::{LogOffset, QueueCursor};

#[derive(Debug, Clone)]
enum Op {
    /// Messages of these body lengths as one unit, to a queue.
    Append(i32, Vec<u16>),
    Flush,
    SaveWatermark,
    Prepare,
    Grow,
    /// Deletes below this share of the log, in 1/256.
    Delete(u8),
    /// The disk is full for the next append.
    FullFor(i32, u16),
    CloseAndOpen,
    KillAndOpen,
    /// As kill, with what mqlog knows lost.
    ForgetAndOpen,
    /// As kill, by the other way of writing.
    ChangeWayAndOpen,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let sizes = prop::collection::vec(prop_oneof![0..40_u16, 0..900_u16, Just(904), 880..910_u16], 1..4);
    let op = prop_oneof![
        12 => (0..3_i32, sizes).prop_map(|(queue, sizes)| Op::Append(queue, sizes)),
        3 => Just(Op::Flush),
        1 => Just(Op::SaveWatermark),
        1 => Just(Op::Prepare),
        1 => Just(Op::Grow),
        1 => any::<u8>().prop_map(Op::Delete),
        1 => (0..3_i32, 0..904_u16).prop_map(|(queue, size)| Op::FullFor(queue, size)),
        1 => Just(Op::CloseAndOpen),
        2 => Just(Op::KillAndOpen),
        1 => Just(Op::ForgetAndOpen),
        1 => Just(Op::ChangeWayAndOpen),
    ];
    prop::collection::vec(op, 1..60)
}

/// What the log must hold.
struct Model {
    kit: Kit,
    opened: Option<OpenedLog>,
    records: Vec<Seen>,
    cursors: [QueueCursor; 3],
    count: u8,
}

impl Model {
    fn new(grouped: bool) -> Self {
        let kit = Kit::new(1024, grouped);
        let opened = Some(kit.open());
        Self { kit, opened, records: Vec::new(), cursors: [cursor(0), cursor(0), cursor(0)], count: 0 }
    }

    fn log(&self) -> &CommitLog {
        &self.opened.as_ref().unwrap().log
    }

    fn append(&mut self, queue: i32, sizes: &[u16]) -> Result<(), Error> {
        let bodies: Vec<_> = sizes.iter().map(|size| vec![self.count; usize::from(*size)]).collect();
        let slices: Vec<_> = bodies.iter().map(Vec::as_slice).collect();
        let cursor = &self.cursors[queue as usize];
        let (tail, next) = (self.log().tail(), cursor.next());
        self.kit.clock.0.fetch_add(i64::from(self.count % 3), std::sync::atomic::Ordering::Relaxed);
        self.count = self.count.wrapping_add(1);
        let result = try_put(self.log(), queue, cursor, &slices);
        let bytes: usize = sizes.iter().map(|size| usize::from(*size) + RECORD).sum();
        match &result {
            Ok(placed) => {
                assert_eq!(cursor.next(), next + sizes.len() as u64);
                let mut at = placed[0].log_offset.get();
                assert!(
                    at == tail.get()
                        || (at == tail.get().next_multiple_of(1024) && tail.get() % 1024 + bytes as u64 > 1016)
                );
                for (number, body) in bodies.into_iter().enumerate() {
                    let len = (body.len() + RECORD) as u64;
                    assert_eq!(placed[number].log_offset.get(), at);
                    self.records.push((at, queue, next.get() + number as u64, body));
                    at += len;
                }
            }
            Err(error) => {
                assert!(matches!(error, Error::TooLarge { .. }) == (bytes > 1016), "{error}");
                assert_eq!((self.log().tail(), cursor.next()), (tail, next));
            }
        }
        result.map(drop)
    }

    /// Opens again; what was not written is lost, and the rest is there.
    fn open_again(&mut self, written: LogOffset) {
        self.records.retain(|(at, ..)| *at < written.get());
        self.opened = Some(self.kit.open());
        for queue in 0..3 {
            let mut of_queue = self.records.iter().filter(|(_, at, ..)| *at == queue);
            // A queue without records keeps its cursor: its entries say where it stands.
            if let Some((_, _, last, _)) = of_queue.next_back() {
                self.cursors[queue as usize].set((last + 1).into());
            } else if written == LogOffset::ZERO {
                self.cursors[queue as usize].set(0.into());
            }
        }
        let found = &self.opened.as_ref().unwrap().found;
        assert!(found.corruptions.is_empty() && found.blanks.is_empty());
        assert_eq!(self.log().durable_offset(), self.log().tail());
        self.check();
    }

    fn check(&self) {
        let written = self.log().range().end.get();
        let expected: Vec<_> = self.records.iter().filter(|(at, ..)| *at < written).cloned().collect();
        let (records, damages) = contents(self.log());
        assert_eq!(damages, Vec::new());
        assert!(records == expected, "{} records, {} expected", records.len(), expected.len());
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Append(queue, sizes) => drop(self.append(queue, &sizes)),
            Op::Flush => assert_eq!(self.log().flush().unwrap(), self.log().tail()),
            Op::SaveWatermark => self.log().save_watermark().unwrap(),
            Op::Prepare => self.log().shared.prepare_file().unwrap(),
            Op::Grow => self.log().shared.grow(self.log().tail().get() + 700).unwrap(),
            Op::Delete(share) => {
                let (start, end) = (self.log().range().start.get(), self.log().range().end.get());
                self.log().delete_before(LogOffset::new(start + (end - start) * u64::from(share) / 256)).unwrap();
                let start = self.log().range().start.get();
                self.records.retain(|(at, ..)| *at >= start);
            }
            Op::FullFor(queue, size) => {
                self.kit.faults.fail("allocate", "/0000");
                let _ = self.full(queue, size);
                self.kit.faults.mend();
            }
            Op::CloseAndOpen => {
                self.log().flush().unwrap();
                self.log().save_watermark().unwrap();
                self.log().shut().unwrap();
                let written = self.log().tail();
                self.opened = None;
                self.open_again(written);
            }
            Op::KillAndOpen | Op::ForgetAndOpen | Op::ChangeWayAndOpen => {
                let written = self.log().range().end;
                self.opened = None;
                match op {
                    Op::ForgetAndOpen => std::fs::remove_dir_all(self.kit.path("mqlog")).unwrap(),
                    Op::ChangeWayAndOpen => self.kit.grouped = !self.kit.grouped,
                    _ => {}
                }
                self.open_again(written);
            }
        }
    }

    fn full(&mut self, queue: i32, size: u16) -> Result<(), Error> {
        let cursor = &self.cursors[queue as usize];
        let before = (self.log().tail(), cursor.next());
        let body = vec![self.count; usize::from(size)];
        match try_put(self.log(), queue, cursor, &[&body]) {
            Ok(placed) => {
                self.records.push((placed[0].log_offset.get(), queue, before.1.get(), body));
                Ok(())
            }
            Err(error) => {
                assert!(error.is_disk_full(), "{error}");
                assert_eq!((self.log().tail(), self.cursors[queue as usize].next()), before);
                Err(error)
            }
        }
    }
}

/// Fewer cases than usual, since each opens many logs; `PROPTEST_CASES` asks for another number.
fn config() -> ProptestConfig {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() { config } else { ProptestConfig { cases: 48, ..config } }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_log_holds_what_was_appended_whatever_happens_to_it(grouped in any::<bool>(), ops in ops()) {
        let mut model = Model::new(grouped);
        for op in ops {
            model.run(op);
        }
        model.log().flush().unwrap();
        model.check();
    }
}
