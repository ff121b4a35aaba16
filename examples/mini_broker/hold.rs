//! Held pulls: questions that are answered when a message comes, or when their time is over.
//!
//! A held pull is an entry of a table, and one thread serves all of them. The store tells of arrivals by queue
//! (`StoreOptions::on_arrival`). The thread compares the tags of what came with what each pull of the queue wants, and
//! looks only for those that may get something. Queues take turns, so that none waits for all pulls of another one.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use mqlog::format::java_hash::tags_code;
use mqlog::{QueueItem, QueueOffset};

use crate::broker::Broker;
use crate::hold_table::{Table, Work};
use crate::peer::{Peer, lock};
use crate::pull::{Pull, Pulled, busy, fitting, nothing};
use crate::request::Refusal;

/// So many new messages of a queue are compared at once.
const NEWS_MESSAGES: usize = 32;

/// A pull that waits.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) peer: Arc<Peer>,
    pub(crate) opaque: i32,
    pub(crate) deadline: Instant,
    pub(crate) pull: Pull,
    /// The codes of the tags that are wanted, sorted; `None`: everything.
    codes: Option<Box<[i64]>>,
}

impl Held {
    pub(crate) fn new(peer: &Arc<Peer>, opaque: i32, deadline: Instant, pull: Pull) -> Self {
        let words = pull.expression.split("||").map(str::trim).filter(|tag| !tag.is_empty());
        let is_all = words.clone().next().is_none() || words.clone().any(|tag| tag == "*");
        let codes = (!is_all).then(|| {
            let mut codes: Vec<i64> = words.map(tags_code).collect();
            codes.sort_unstable();
            codes.into()
        });
        Self { peer: Arc::clone(peer), opaque, deadline, pull, codes }
    }

    /// If nothing of a queue's new messages passes the filter: where they end. `None`: look.
    pub(crate) fn passed_by(&self, news: &[QueueItem]) -> Option<QueueOffset> {
        let (codes, first) = (self.codes.as_ref()?, news.first()?);
        // What is not among them was not compared.
        let is_gapless = news.windows(2).all(|pair| end_of(&pair[0]) == pair[1].queue_offset);
        if first.queue_offset > self.pull.at || !is_gapless {
            return None;
        }
        let mut new = news.iter().filter(|item| item.queue_offset >= self.pull.at);
        if new.any(|item| codes.binary_search(&item.entry.tags_code).is_ok()) {
            return None;
        }
        news.last().map(|last| end_of(last).max(self.pull.at))
    }
}

/// The offset behind an entry.
fn end_of(item: &QueueItem) -> QueueOffset {
    item.queue_offset + u64::from(item.count)
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    table: Mutex<Table>,
    changed: Condvar,
}

impl Holds {
    /// A queue has new messages.
    pub(crate) fn arrived(&self, topic: &str, queue_id: i32) {
        if lock(&self.table).note_news(topic, queue_id) {
            self.changed.notify_one();
        }
    }

    /// Takes a pull in, unless there are too many.
    fn add(&self, held: Held, (max, max_each): (usize, usize)) -> Result<(), Refusal> {
        let mut table = lock(&self.table);
        if table.count >= max || held.peer.held.load(Ordering::Relaxed) >= max_each {
            return Err(busy("too many pulls are waiting"));
        }
        table.count += 1;
        held.peer.held.fetch_add(1, Ordering::Relaxed);
        let is_first = table.first_deadline().is_none_or(|first| held.deadline < first);
        table.insert(held);
        drop(table);
        if is_first {
            self.changed.notify_one();
        }
        Ok(())
    }

    fn put_back(&self, held: Held) {
        lock(&self.table).insert(held);
    }

    /// Puts a pull aside until its client has read what it got.
    fn park(&self, held: Held) {
        let peer = Arc::clone(&held.peer);
        let mut table = lock(&self.table);
        table.park(held);
        peer.is_parked.store(true, Ordering::Relaxed);
        drop(table);
        // The loop may have been there a moment ago.
        if !peer.is_full() {
            self.unpark(&peer);
        }
    }

    /// A client has read what it got.
    pub(crate) fn unpark(&self, peer: &Peer) {
        if peer.is_parked.load(Ordering::Relaxed) && peer.is_parked.swap(false, Ordering::Relaxed) {
            lock(&self.table).unpark(peer.token);
            self.changed.notify_one();
        }
    }

    fn forget_one(&self, peer: &Peer) {
        lock(&self.table).count -= 1;
        peer.held.fetch_sub(1, Ordering::Relaxed);
    }

    /// Drops what a connection that is gone was waiting for.
    pub(crate) fn forget(&self, peer: &Peer) {
        if peer.held.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut table = lock(&self.table);
        let forgotten = table.forget(peer.token);
        table.count -= forgotten;
        peer.held.fetch_sub(forgotten, Ordering::Relaxed);
    }

    /// Waits until there is something to do; `None` at the end.
    fn next(&self) -> Option<Work> {
        let mut table = lock(&self.table);
        loop {
            if table.is_ended {
                return None;
            }
            let now = Instant::now();
            if let Some(work) = table.take_work(now) {
                return Some(work);
            }
            table = match table.first_deadline() {
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(now);
                    self.changed.wait_timeout(table, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(table).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Starts the thread.
    pub(crate) fn start(broker: &Arc<Broker>) -> io::Result<JoinHandle<()>> {
        let broker = Arc::clone(broker);
        thread::Builder::new().name("broker-hold".to_owned()).spawn(move || {
            while let Some(work) = broker.holds.next() {
                match work {
                    Work::News(topic, queue_id, from) => broker.sift(&topic, queue_id, from),
                    Work::Look(due) => due.into_iter().for_each(|held| broker.look_again(held)),
                }
            }
        })
    }

    /// Ends the thread; what is held is not answered any more.
    pub(crate) fn end(&self, thread: JoinHandle<()>) {
        lock(&self.table).is_ended = true;
        self.changed.notify_one();
        // A thread that panicked has said so.
        let _ = thread.join();
    }
}

impl Broker {
    /// Holds a pull for which nothing was there a moment ago.
    pub(crate) fn hold(&self, held: Held) -> Result<(), Refusal> {
        let (topic, queue_id, at) = (held.pull.topic.clone(), held.pull.queue_id, held.pull.at);
        self.holds.add(held, (self.limits.max_held, self.limits.max_held_each))?;
        self.look_behind(&topic, queue_id, at)
    }

    /// What came between the look and the entry in the table was not told: look once more.
    fn look_behind(&self, topic: &str, queue_id: i32, at: QueueOffset) -> Result<(), Refusal> {
        if self.store.queue(topic, queue_id).range()?.end > at {
            self.holds.arrived(topic, queue_id);
        }
        Ok(())
    }

    /// Compares a queue's new messages with what its pulls want.
    fn sift(&self, topic: &str, queue_id: i32, from: QueueOffset) {
        // Where the store cannot tell, all look; the answer then says why.
        let news = self.store.queue(topic, queue_id).entries(from, NEWS_MESSAGES).unwrap_or_default();
        lock(&self.holds.table).sift(topic, queue_id, &news);
        if news.len() == NEWS_MESSAGES {
            self.holds.arrived(topic, queue_id);
        }
    }

    /// Answers a pull that is due, or holds it on.
    fn look_again(&self, mut held: Held) {
        if held.peer.is_full() {
            return self.holds.park(held);
        }
        let answer = match self.look(&held.pull) {
            Err(refusal) => refusal.into(),
            Ok(Pulled::Answer(answer)) => fitting(&held.peer, answer),
            Ok(Pulled::Nothing(at, range)) if Instant::now() >= held.deadline => nothing(held.pull.from, at, &range),
            Ok(Pulled::Nothing(at, _)) => {
                held.pull.at = at;
                let (topic, queue_id) = (held.pull.topic.clone(), held.pull.queue_id);
                self.holds.put_back(held);
                // If the store cannot tell, the pull is answered at its deadline.
                let _ = self.look_behind(&topic, queue_id, at);
                return;
            }
        };
        self.holds.forget_one(&held.peer);
        held.peer.answer(held.opaque, answer);
    }
}
