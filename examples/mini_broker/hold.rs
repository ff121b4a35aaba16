//! Held pulls: questions that are answered when a message comes, or when their time is over.
//!
//! A held pull is an entry of a table, and one thread serves all of them. The store tells of arrivals by queue
//! (`StoreOptions::on_arrival`); that takes the queue's pulls out of the table, and the thread looks for each whether
//! there is something that passes its filter. If not, it goes back and waits for what comes behind.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;
use std::{io, mem};

use crate::broker::Broker;
use crate::peer::{Peer, lock};
use crate::pull::{Pull, Pulled, busy, nothing};
use crate::request::Refusal;

/// A pull that waits.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) peer: Arc<Peer>,
    pub(crate) opaque: i32,
    pub(crate) deadline: Instant,
    pub(crate) pull: Pull,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    table: Mutex<Table>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Table {
    next_id: u64,
    held: HashMap<u64, Held>,
    by_queue: HashMap<String, HashMap<i32, Vec<u64>>>,
    by_deadline: BTreeSet<(Instant, u64)>,
    /// Taken out, because something came or their time is over.
    due: Vec<Held>,
    /// All that are in the table, due, or in the thread's hands.
    count: usize,
    is_ended: bool,
}

impl Table {
    fn insert(&mut self, held: Held) {
        let id = self.next_id;
        self.next_id += 1;
        let queues = match self.by_queue.get_mut(&held.pull.topic) {
            Some(queues) => queues,
            None => self.by_queue.entry(held.pull.topic.clone()).or_default(),
        };
        queues.entry(held.pull.queue_id).or_default().push(id);
        self.by_deadline.insert((held.deadline, id));
        self.held.insert(id, held);
    }

    fn remove(&mut self, id: u64) -> Option<Held> {
        let held = self.held.remove(&id)?;
        self.by_deadline.remove(&(held.deadline, id));
        if let Some(queues) = self.by_queue.get_mut(&held.pull.topic) {
            if let Some(ids) = queues.get_mut(&held.pull.queue_id) {
                ids.retain(|other| *other != id);
                if ids.is_empty() {
                    queues.remove(&held.pull.queue_id);
                }
            }
            if queues.is_empty() {
                self.by_queue.remove(&held.pull.topic);
            }
        }
        Some(held)
    }

    /// Takes out all that wait for a queue.
    fn take_queue(&mut self, topic: &str, queue_id: i32) {
        let Some(queues) = self.by_queue.get_mut(topic) else { return };
        let ids = queues.remove(&queue_id).unwrap_or_default();
        if queues.is_empty() {
            self.by_queue.remove(topic);
        }
        for id in ids {
            if let Some(held) = self.held.remove(&id) {
                self.by_deadline.remove(&(held.deadline, id));
                self.due.push(held);
            }
        }
    }

    /// Takes out those whose time is over.
    fn take_expired(&mut self, now: Instant) {
        while let Some(&(deadline, id)) = self.by_deadline.first()
            && deadline <= now
        {
            let held = self.remove(id);
            self.due.extend(held);
        }
    }
}

impl Holds {
    /// A queue has new messages.
    pub(crate) fn arrived(&self, topic: &str, queue_id: i32) {
        let mut table = lock(&self.table);
        table.take_queue(topic, queue_id);
        if !table.due.is_empty() {
            drop(table);
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
        let is_first = table.by_deadline.first().is_none_or(|(first, _)| held.deadline < *first);
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

    fn forget_one(&self, peer: &Peer) {
        lock(&self.table).count -= 1;
        peer.held.fetch_sub(1, Ordering::Relaxed);
    }

    /// Drops what a connection that is gone was waiting for.
    pub(crate) fn forget(&self, peer: &Arc<Peer>) {
        if peer.held.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut table = lock(&self.table);
        let of_peer = table.held.iter().filter(|(_, held)| Arc::ptr_eq(&held.peer, peer));
        let ids: Vec<u64> = of_peer.map(|(id, _)| *id).collect();
        table.count -= ids.len();
        peer.held.fetch_sub(ids.len(), Ordering::Relaxed);
        for id in ids {
            table.remove(id);
        }
    }

    /// Waits until some are due; `None` at the end.
    fn next(&self) -> Option<Vec<Held>> {
        let mut table = lock(&self.table);
        loop {
            if table.is_ended {
                return None;
            }
            let now = Instant::now();
            table.take_expired(now);
            if !table.due.is_empty() {
                return Some(mem::take(&mut table.due));
            }
            table = match table.by_deadline.first() {
                Some((deadline, _)) => {
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
            while let Some(due) = broker.holds.next() {
                due.into_iter().for_each(|held| broker.look_again(held));
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
    fn look_behind(&self, topic: &str, queue_id: i32, at: mqlog::QueueOffset) -> Result<(), Refusal> {
        if self.store.queue(topic, queue_id).range()?.end > at {
            self.holds.arrived(topic, queue_id);
        }
        Ok(())
    }

    /// Answers a pull that is due, or holds it on.
    fn look_again(&self, mut held: Held) {
        let answer = match self.look(&held.pull) {
            _ if held.peer.is_full() => busy("the connection's answers are not read").into(),
            Err(refusal) => refusal.into(),
            Ok(Pulled::Answer(answer)) => answer,
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
