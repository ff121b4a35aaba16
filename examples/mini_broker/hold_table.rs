//! The table of held pulls: which wait for which queue, until when, and which can go on.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::mem;
use std::time::Instant;

use mio::Token;
use mqlog::{QueueItem, QueueOffset};

use crate::hold::Held;

/// So many pulls of one queue are looked at before another queue has its turn.
const TURN_PULLS: usize = 16;

/// What the thread does next.
#[derive(Debug)]
pub(crate) enum Work {
    /// A queue has messages that its pulls have not seen; the first that one of them waits for.
    News(String, i32, QueueOffset),
    /// There may be something for these, or their time is over.
    Look(Vec<Held>),
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    next_id: u64,
    held: HashMap<u64, Held>,
    queues: HashMap<String, HashMap<i32, Queue>>,
    by_deadline: BTreeSet<(Instant, u64)>,
    /// Queues with news, in the order in which it came.
    news: VecDeque<(String, i32)>,
    /// Pulls to look at, those of one queue together. The queues take turns.
    due: VecDeque<Vec<Held>>,
    /// Pulls whose clients have to read first.
    parked: HashMap<Token, Vec<Held>>,
    /// News and looks take turns, so that neither waits for all of the other.
    was_news: bool,
    /// All that are in the table, or in the thread's hands.
    pub(crate) count: usize,
    pub(crate) is_ended: bool,
}

/// The pulls of one queue.
#[derive(Debug, Default)]
struct Queue {
    ids: BTreeSet<u64>,
    /// It is in the list of news.
    has_news: bool,
}

impl Table {
    pub(crate) fn first_deadline(&self) -> Option<Instant> {
        self.by_deadline.first().map(|(deadline, _)| *deadline)
    }

    pub(crate) fn insert(&mut self, held: Held) {
        let id = self.next_id;
        self.next_id += 1;
        let queues = match self.queues.get_mut(&held.pull.topic) {
            Some(queues) => queues,
            None => self.queues.entry(held.pull.topic.clone()).or_default(),
        };
        queues.entry(held.pull.queue_id).or_default().ids.insert(id);
        self.by_deadline.insert((held.deadline, id));
        self.held.insert(id, held);
    }

    fn remove(&mut self, id: u64) -> Option<Held> {
        let held = self.held.remove(&id)?;
        self.by_deadline.remove(&(held.deadline, id));
        if let Some(queues) = self.queues.get_mut(&held.pull.topic) {
            if let Some(queue) = queues.get_mut(&held.pull.queue_id) {
                queue.ids.remove(&id);
                if queue.ids.is_empty() {
                    queues.remove(&held.pull.queue_id);
                }
            }
            if queues.is_empty() {
                self.queues.remove(&held.pull.topic);
            }
        }
        Some(held)
    }

    /// Removes all of one connection.
    pub(crate) fn forget(&mut self, token: Token) -> usize {
        let of_peer = self.held.iter().filter(|(_, held)| held.peer.token == token);
        let ids: Vec<u64> = of_peer.map(|(id, _)| *id).collect();
        let removed = ids.into_iter().filter_map(|id| self.remove(id)).count();
        removed + self.parked.remove(&token).map_or(0, |parked| parked.len())
    }

    /// Notes that a queue has new messages. Says whether anybody waits for them.
    pub(crate) fn note_news(&mut self, topic: &str, queue_id: i32) -> bool {
        let queue = self.queues.get_mut(topic).and_then(|queues| queues.get_mut(&queue_id));
        let is_new = queue.is_some_and(|queue| !mem::replace(&mut queue.has_news, true));
        if is_new {
            self.news.push_back((topic.to_owned(), queue_id));
        }
        is_new
    }

    /// Takes out the pulls of a queue for which something is among its new messages; for the others these are done.
    pub(crate) fn sift(&mut self, topic: &str, queue_id: i32, news: &[QueueItem]) {
        let queue = self.queues.get(topic).and_then(|queues| queues.get(&queue_id));
        let ids: Vec<u64> = queue.into_iter().flat_map(|queue| &queue.ids).copied().collect();
        let mut due = Vec::new();
        for id in ids {
            let Some(held) = self.held.get_mut(&id) else { continue };
            match held.passed_by(news) {
                Some(at) => held.pull.at = at,
                None => due.extend(self.remove(id)),
            }
        }
        self.make_due(due);
    }

    pub(crate) fn make_due(&mut self, held: Vec<Held>) {
        if !held.is_empty() {
            self.due.push_back(held);
        }
    }

    /// Puts a pull aside until its client has read what it got.
    pub(crate) fn park(&mut self, held: Held) {
        self.parked.entry(held.peer.token).or_default().push(held);
    }

    pub(crate) fn unpark(&mut self, token: Token) {
        let parked = self.parked.remove(&token).unwrap_or_default();
        self.make_due(parked);
    }

    /// Takes what is to be done next.
    pub(crate) fn take_work(&mut self, now: Instant) -> Option<Work> {
        self.take_expired(now);
        if !mem::replace(&mut self.was_news, false) || self.due.is_empty() {
            let news = self.take_news();
            self.was_news = news.is_some();
            if news.is_some() {
                return news;
            }
        }
        let mut first = self.due.pop_front()?;
        if first.len() > TURN_PULLS {
            self.due.push_back(first.split_off(TURN_PULLS));
        }
        Some(Work::Look(first))
    }

    fn take_news(&mut self) -> Option<Work> {
        while let Some((topic, queue_id)) = self.news.pop_front() {
            // All who waited for it may be gone.
            let Some(queue) = self.queues.get_mut(&topic).and_then(|queues| queues.get_mut(&queue_id)) else {
                continue;
            };
            queue.has_news = false;
            let places = queue.ids.iter().filter_map(|id| self.held.get(id)).map(|held| held.pull.at);
            if let Some(first) = places.min() {
                return Some(Work::News(topic, queue_id, first));
            }
        }
        None
    }

    /// Takes out those whose time is over.
    fn take_expired(&mut self, now: Instant) {
        let mut expired = Vec::new();
        while let Some(&(deadline, id)) = self.by_deadline.first()
            && deadline <= now
        {
            expired.extend(self.remove(id));
        }
        self.make_due(expired);
    }
}
