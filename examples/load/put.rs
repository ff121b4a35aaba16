//! The producers.

use std::ops::Range;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mqlog::{Message, MessageStore};

use crate::Failure;
use crate::args::Args;
use crate::limits::{Budget, KEY_BYTES, TOPIC, body, write_key};
use crate::progress::Progress;
use crate::report::{Report, histogram, nanoseconds};

/// The bar moves so often.
const LOOK: Duration = Duration::from_millis(50);

/// How far a producer is; alone in its cache lines, since others write beside it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Done(AtomicU64);

/// What one producer does.
#[derive(Debug)]
struct Producer<'a> {
    store: &'a MessageStore,
    args: &'a Args,
    body: &'a [u8],
    number: u64,
    share: Budget,
    done: &'a Done,
    /// Set when one of them failed.
    stop: &'a AtomicBool,
}

/// Puts what the command line asks for.
pub(crate) fn run(store: &MessageStore, args: &Args, progress: &Progress) -> Result<Report, Failure> {
    let (budget, body, syncs) = (args.budget(), body(args.body_bytes), store.stats().syncs);
    let done: Vec<Done> = (0..args.producers).map(|_| Done::default()).collect();
    let stop = AtomicBool::new(false);
    let started = RwLock::new(());
    let mut latency = histogram();
    let mut runs = Vec::new();
    thread::scope(|scope| -> Result<(), Failure> {
        let gate = started.write();
        let mut threads = Vec::new();
        let mut outcome = Ok(());
        for (number, done) in (0..).zip(&done) {
            let share = share(budget, number, args.producers);
            let producer = Producer { store, args, body: &body, number, share, done, stop: &stop };
            let started = &started;
            let thread = thread::Builder::new().spawn_scoped(scope, move || {
                // All at once; not at all if one of them cannot be started.
                drop(started.read());
                producer.run().inspect_err(|_| producer.stop.store(true, Ordering::Relaxed))
            });
            threads.push(thread.inspect_err(|_| stop.store(true, Ordering::Relaxed))?);
        }
        drop(gate);
        let start = Instant::now();
        while !threads.iter().all(thread::ScopedJoinHandle::is_finished) {
            let sum = done.iter().map(|done| done.0.load(Ordering::Relaxed)).sum();
            progress.show("put", sum, budget, start);
            thread::sleep(LOOK);
        }
        for producer in threads {
            match producer.join() {
                Ok(Ok((run, its))) => {
                    runs.push(run);
                    latency.add(its)?;
                }
                Ok(Err(error)) => outcome = outcome.and(Err(error.into())),
                Err(_) => outcome = outcome.and(Err("a producer panicked".into())),
            }
        }
        outcome
    })?;
    // From the first to start to the last to end: this thread may look at the clock much later than they do.
    let (start, end) = (runs.iter().map(|run| run.start).min(), runs.iter().map(|run| run.end).max());
    Ok(Report {
        messages: done.iter().map(|done| done.0.load(Ordering::Relaxed)).sum(),
        took: start.zip(end).map_or(Duration::ZERO, |(start, end)| end - start),
        body_bytes: args.body_bytes,
        latency,
        syncs: store.stats().syncs - syncs,
        limit: None,
    })
}

fn share(budget: Budget, number: u64, producers: u64) -> Budget {
    let more = u64::from(number < budget.messages % producers);
    Budget { messages: budget.messages / producers + more, time: budget.time }
}

impl Producer<'_> {
    /// Puts one message after the other; the end of one is the start of the next.
    fn run(&self) -> mqlog::Result<(Range<Instant>, Histogram<u64>)> {
        let mut latency = histogram();
        let mut key = [0; KEY_BYTES];
        let start = Instant::now();
        let (mut before, mut count) = (start, 0);
        while count < self.share.messages && before - start < self.share.time && !self.stop.load(Ordering::Relaxed) {
            let queue = (count % self.args.queues as u64) as i32;
            let mut message = Message::new(TOPIC).queue(queue).body(self.body);
            if self.args.keys {
                write_key(&mut key, self.number << 48 | count);
                message = message.key(std::str::from_utf8(&key).expect("hex digits are text"));
            }
            self.store.put(message)?;
            let now = Instant::now();
            latency.saturating_record(nanoseconds(now - before));
            count += 1;
            before = now;
            self.done.0.store(count, Ordering::Relaxed);
        }
        Ok((start..before, latency))
    }
}
