//! The far end of a connection, as everybody else in the broker sees it: a place to leave answers.
//!
//! Any thread may leave something; only the event loop that owns the connection writes to it. What is left while that
//! loop serves the connection anyway is written in the same turn; otherwise the loop is woken, once for many answers.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mio::Token;
use mqlog::Slice;

use crate::answer::{Answer, Body};
use crate::home::Home;

/// Heads are put together into pieces of about this size.
const PIECE_BYTES: usize = 16 * 1024;

/// Takes a lock that a panic cannot leave in disorder.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes on their way out.
#[derive(Debug)]
pub(crate) enum Piece {
    Bytes(Vec<u8>),
    /// A record where it stands in the log.
    Record(Slice),
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Record(record) => record,
        }
    }
}

/// How many bytes all connections have on their way out, and may have.
///
/// Above half of it a connection gets one answer at a time: who reads goes on with what the others leave. Above all of it
/// nobody gets a large one, until those who do not read are closed.
#[derive(Debug)]
pub(crate) struct OutputBudget {
    queued: AtomicUsize,
    max_bytes: usize,
}

impl OutputBudget {
    /// An answer that is not longer is small.
    const SMALL_BYTES: usize = 16 * 1024;

    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { queued: AtomicUsize::new(0), max_bytes }
    }

    fn is_scarce(&self) -> bool {
        self.queued.load(Ordering::Relaxed) > self.max_bytes / 2
    }

    fn has_room_for(&self, bytes: usize) -> bool {
        bytes <= Self::SMALL_BYTES || self.queued.load(Ordering::Relaxed).saturating_add(bytes) <= self.max_bytes
    }
}

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) token: Token,
    pub(crate) address: SocketAddr,
    pub(crate) home: Arc<Home>,
    /// Above this many bytes on their way out, nothing more is read from the connection.
    max_queued_bytes: usize,
    budget: Arc<OutputBudget>,
    queued: Mutex<Queued>,
    /// How many of its pulls are held.
    pub(crate) held: AtomicUsize,
    /// Held pulls wait until it has read what it got.
    pub(crate) is_parked: AtomicBool,
    /// How many of its answers wait for the disk, and how long they are together.
    pending: AtomicUsize,
    pending_bytes: AtomicUsize,
    /// How long its sends are that are with the thread that may wait for the disk.
    appending_bytes: AtomicUsize,
    /// A send of it waits to get there.
    awaits_appender: AtomicBool,
}

#[derive(Debug, Default)]
struct Queued {
    pieces: VecDeque<Piece>,
    /// The pieces that were left and are not wholly written yet, those that the loop has taken included.
    bytes: usize,
    /// The loop will come without being woken.
    is_awaited: bool,
    is_closed: bool,
}

impl Peer {
    /// So many answers of one connection may wait for the disk before nothing more is read from it.
    const MAX_PENDING: usize = 16 * 1024;
    /// Above so many bytes of its sends at the appending thread nothing more is read from a connection.
    const MAX_APPENDING_BYTES: usize = 4 << 20;

    pub(crate) fn new(
        (token, address): (Token, SocketAddr),
        home: Arc<Home>,
        max_queued_bytes: usize,
        budget: Arc<OutputBudget>,
    ) -> Self {
        Self {
            token,
            address,
            home,
            max_queued_bytes,
            budget,
            queued: Mutex::default(),
            held: AtomicUsize::new(0),
            is_parked: AtomicBool::new(false),
            pending: AtomicUsize::new(0),
            pending_bytes: AtomicUsize::new(0),
            appending_bytes: AtomicUsize::new(0),
            awaits_appender: AtomicBool::new(false),
        }
    }

    /// Leaves an answer to the request with a number.
    pub(crate) fn answer(&self, opaque: i32, answer: Answer) {
        let head = answer.head(opaque);
        match answer.body {
            Body::Bytes(bytes) => {
                self.leave(head, [bytes].into_iter().filter(|body| !body.is_empty()).map(Piece::Bytes));
            }
            Body::Records(records) => {
                self.leave(head, records.iter().map(|record| Piece::Record(record.bytes().clone())));
            }
        }
    }

    /// Leaves a frame: its head, and what follows.
    pub(crate) fn leave(&self, head: Vec<u8>, body: impl Iterator<Item = Piece>) {
        let mut queued = lock(&self.queued);
        if queued.is_closed {
            return;
        }
        let before = queued.bytes;
        queued.bytes += head.len();
        match queued.pieces.back_mut() {
            Some(Piece::Bytes(last)) if last.len() + head.len() <= PIECE_BYTES => last.extend_from_slice(&head),
            _ => queued.pieces.push_back(Piece::Bytes(head)),
        }
        for piece in body {
            queued.bytes += piece.as_ref().len();
            queued.pieces.push_back(piece);
        }
        self.budget.queued.fetch_add(queued.bytes - before, Ordering::Relaxed);
        if !std::mem::replace(&mut queued.is_awaited, true) {
            drop(queued);
            self.home.has_output(self.token);
        }
    }

    /// Has it so much on its way out that nothing more should be done for it? Its loop comes by when that has changed.
    pub(crate) fn is_full(&self) -> bool {
        let queued = lock(&self.queued);
        let bytes = queued.bytes + self.pending_bytes.load(Ordering::Relaxed);
        let is_full = bytes > self.max_queued_bytes
            || (bytes > 0 && self.budget.is_scarce())
            || self.pending.load(Ordering::Relaxed) > Self::MAX_PENDING;
        is_full && !queued.is_closed
    }

    /// Must its requests wait? Its loop comes by when that has changed.
    pub(crate) fn must_wait(&self) -> bool {
        self.awaits_appender.load(Ordering::Acquire)
            || self.appending_bytes.load(Ordering::Acquire) > Self::MAX_APPENDING_BYTES
            || self.is_full()
    }

    /// Are sends of it with the thread that may wait for the disk?
    pub(crate) fn is_appending(&self) -> bool {
        self.appending_bytes.load(Ordering::Acquire) > 0
    }

    /// A send goes there. Its answer counts from now on.
    pub(crate) fn begin_append(&self, bytes: usize, answer_bytes: usize) {
        self.appending_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.begin_pending(answer_bytes);
    }

    /// It is through. The loop is told when all are, or half of what a connection may have there is free again.
    pub(crate) fn end_append(&self, bytes: usize, answer_bytes: usize) {
        self.end_pending(answer_bytes);
        let before = self.appending_bytes.fetch_sub(bytes, Ordering::AcqRel);
        let half = Self::MAX_APPENDING_BYTES / 2;
        if before == bytes || (before > half && before - bytes <= half) {
            self.home.has_output(self.token);
        }
    }

    /// There is no room for a send of it.
    pub(crate) fn await_appender(&self) {
        self.awaits_appender.store(true, Ordering::Release);
    }

    /// There may be room again.
    pub(crate) fn appender_has_room(&self) {
        self.awaits_appender.store(false, Ordering::Release);
        self.home.has_output(self.token);
    }

    /// May an answer of this length be made now?
    pub(crate) fn has_room_for(&self, bytes: usize) -> bool {
        self.budget.has_room_for(bytes)
    }

    /// An answer of this length waits for the disk; it counts as if it were on its way.
    pub(crate) fn begin_pending(&self, bytes: usize) {
        self.pending.fetch_add(1, Ordering::Relaxed);
        self.pending_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.budget.queued.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The answer waits no more: the one that is left next counts by itself.
    pub(crate) fn end_pending(&self, bytes: usize) {
        self.pending.fetch_sub(1, Ordering::Relaxed);
        self.pending_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.budget.queued.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The loop says that it will take what is left from now on.
    pub(crate) fn await_output(&self) {
        lock(&self.queued).is_awaited = true;
    }

    /// The loop takes what was left, and wants to be woken for what comes next.
    pub(crate) fn take_output(&self, into: &mut VecDeque<Piece>) {
        let mut queued = lock(&self.queued);
        queued.is_awaited = false;
        into.append(&mut queued.pieces);
    }

    /// The loop has written a piece of what it took.
    pub(crate) fn has_written(&self, bytes: usize) {
        lock(&self.queued).bytes -= bytes;
        self.budget.queued.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The connection is gone: what is left, and what will be, is dropped.
    pub(crate) fn close(&self) {
        let mut queued = lock(&self.queued);
        queued.is_closed = true;
        queued.pieces.clear();
        self.budget.queued.fetch_sub(std::mem::take(&mut queued.bytes), Ordering::Relaxed);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use mio::{Poll, Waker};

    use super::*;

    /// Peers of a loop that nobody runs.
    pub(crate) fn peers(count: usize) -> Vec<Arc<Peer>> {
        let poll = Poll::new().unwrap();
        let home = Arc::new(Home::new(Waker::new(poll.registry(), Token(0)).unwrap()));
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let budget = Arc::new(OutputBudget::new(64 << 20));
        let peer = |number| Peer::new((Token(number), address), Arc::clone(&home), 8 << 20, Arc::clone(&budget));
        (0..count).map(|number| Arc::new(peer(number))).collect()
    }
}
