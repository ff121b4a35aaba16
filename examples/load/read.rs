//! The reader.

use std::hint::black_box;
use std::time::{Duration, Instant};

use mqlog::{GetLimits, MessageStore, QueueOffset, TagFilter};

use crate::Failure;
use crate::args::Args;
use crate::limits::{Order, Random, TOPIC};
use crate::progress::Progress;
use crate::report::{Report, histogram, nanoseconds};

/// In sequence the clock is read once for so many messages: it would take a fifth of each.
const RUN: u64 = 32;
/// The bar moves after so many messages.
const LOOK: u64 = 1 << 16;

/// A queue and what it has.
#[derive(Debug)]
pub(crate) struct Queue {
    id: i32,
    start: QueueOffset,
    end: QueueOffset,
    /// Messages of the queues before it.
    before: u64,
}

impl Queue {
    pub(crate) fn len(&self) -> u64 {
        self.end - self.start
    }
}

/// The queues of the topic that have messages.
pub(crate) fn queues(store: &MessageStore) -> mqlog::Result<Vec<Queue>> {
    let (mut queues, mut before) = (Vec::new(), 0);
    for (_, id) in store.queues()?.into_iter().filter(|(topic, _)| topic == TOPIC) {
        let range = store.queue(TOPIC, id).range()?;
        let queue = Queue { id, start: range.start, end: range.end, before };
        before += queue.len();
        if queue.len() > 0 {
            queues.push(queue);
        }
    }
    Ok(queues)
}

/// Reads everything once, so that pages are in memory; returns the mean length of a body.
pub(crate) fn warm_up(store: &MessageStore, queues: &[Queue], progress: &Progress) -> Result<usize, Failure> {
    progress.say("reading everything once");
    let (mut messages, mut bytes) = (0, 0);
    for queue in queues {
        for message in store.queue(TOPIC, queue.id).iter_from(queue.start) {
            messages += 1;
            bytes += message?.body().len();
        }
    }
    Ok(bytes.checked_div(messages).ok_or("there is no message to read")?)
}

/// Reads what the command line asks for; again from the first message if that is more than there is.
pub(crate) fn run(
    store: &MessageStore,
    queues: &[Queue],
    order: Order,
    args: &Args,
    progress: &Progress,
) -> Result<Report, Failure> {
    let mut reader = Reader { store, queues, args, progress, report: empty(), start: Instant::now() };
    match order {
        Order::Sequence => reader.in_sequence()?,
        Order::Random => reader.at_random()?,
    }
    reader.report.took = reader.start.elapsed();
    Ok(reader.report)
}

fn empty() -> Report {
    Report { messages: 0, took: Duration::ZERO, body_bytes: 0, latency: histogram(), syncs: 0, limit: None }
}

struct Reader<'a> {
    store: &'a MessageStore,
    queues: &'a [Queue],
    args: &'a Args,
    progress: &'a Progress,
    report: Report,
    start: Instant,
}

impl Reader<'_> {
    fn in_sequence(&mut self) -> Result<(), Failure> {
        let (budget, mut before) = (self.args.budget(), self.start);
        loop {
            for queue in self.queues {
                for message in self.store.queue(TOPIC, queue.id).iter_from(queue.start) {
                    self.report.body_bytes = black_box(message?.body()).len();
                    self.report.messages += 1;
                    let is_last = self.report.messages == budget.messages;
                    let run = self.report.messages % RUN;
                    if run == 0 || is_last {
                        before = self.record(before, if run == 0 { RUN } else { run });
                        if is_last || before - self.start >= budget.time {
                            return Ok(());
                        }
                    }
                }
            }
        }
    }

    fn at_random(&mut self) -> Result<(), Failure> {
        let (budget, mut before, mut random) = (self.args.budget(), self.start, Random::new());
        let total = self.queues.iter().map(Queue::len).sum();
        let (limits, all) = (GetLimits { max_messages: 1, ..GetLimits::default() }, TagFilter::all());
        while self.report.messages < budget.messages && before - self.start < budget.time {
            let number = random.below(total);
            let queue = &self.queues[self.queues.partition_point(|queue| queue.before <= number) - 1];
            let offset = queue.start + (number - queue.before);
            let got = self.store.get(TOPIC, queue.id, offset, limits, &all)?;
            let message = got.messages.first().filter(|message| message.queue_offset() == offset);
            let message = message.ok_or_else(|| format!("message {offset} of queue {} is not there", queue.id))?;
            self.report.body_bytes = black_box(message.body()).len();
            self.report.messages += 1;
            before = self.record(before, 1);
        }
        Ok(())
    }

    /// Records how long the last `run` messages took, each the same part of it, and returns the time.
    fn record(&mut self, before: Instant, run: u64) -> Instant {
        let now = Instant::now();
        self.report.latency.saturating_record(nanoseconds(now - before) / run);
        if self.report.messages.is_multiple_of(LOOK) {
            self.progress.show("read", self.report.messages, self.args.budget(), self.start);
        }
        now
    }
}
