//! The far end of a connection, as everybody else in the broker sees it: a place to leave answers.
//!
//! Any thread may leave something; only the event loop that owns the connection writes to it. What is left while that
//! loop serves the connection anyway is written in the same turn; otherwise the loop is woken, once for many answers.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mio::Token;
use mqlog::Slice;

use crate::answer::{Answer, Body};
use crate::event_loop::Home;

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

/// How many bytes all connections have on their way out, and may have before each has no more than a small part.
#[derive(Debug)]
pub(crate) struct OutputBudget {
    queued: AtomicUsize,
    max_bytes: usize,
}

impl OutputBudget {
    /// A connection may have so much at any time.
    const FREE_BYTES: usize = 64 * 1024;

    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { queued: AtomicUsize::new(0), max_bytes }
    }
}

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) token: Token,
    pub(crate) address: SocketAddr,
    home: Arc<Home>,
    /// Above this many bytes on their way out, nothing more is read from the connection.
    max_queued_bytes: usize,
    budget: Arc<OutputBudget>,
    queued: Mutex<Queued>,
    /// How many of its pulls are held.
    pub(crate) held: AtomicUsize,
    /// How many of its sends wait for the disk.
    undurable: AtomicUsize,
}

#[derive(Debug, Default)]
struct Queued {
    pieces: VecDeque<Piece>,
    /// What was left and is not written yet, the part that the loop has taken included.
    bytes: usize,
    /// The loop will come without being woken.
    is_awaited: bool,
    is_closed: bool,
}

impl Peer {
    /// So many sends of one connection may wait for the disk before nothing more is read from it.
    const MAX_UNDURABLE: usize = 16 * 1024;

    pub(crate) fn new(
        (token, address): (Token, SocketAddr),
        home: Arc<Home>,
        max_queued_bytes: usize,
        budget: Arc<OutputBudget>,
    ) -> Self {
        let (queued, held, undurable) = (Mutex::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        Self { token, address, home, max_queued_bytes, budget, queued, held, undurable }
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

    /// Has it so much on its way out that nothing more should be made for it?
    pub(crate) fn is_full(&self) -> bool {
        self.has_full_queue() || self.undurable.load(Ordering::Relaxed) > Self::MAX_UNDURABLE
    }

    /// Are there answers enough that are not read?
    pub(crate) fn has_full_queue(&self) -> bool {
        let bytes = lock(&self.queued).bytes;
        let is_scarce = self.budget.queued.load(Ordering::Relaxed) > self.budget.max_bytes;
        bytes > if is_scarce { OutputBudget::FREE_BYTES.min(self.max_queued_bytes) } else { self.max_queued_bytes }
    }

    /// One more send waits for the disk.
    pub(crate) fn begin_undurable(&self) {
        self.undurable.fetch_add(1, Ordering::Relaxed);
    }

    /// One of the sends has its answer.
    pub(crate) fn end_undurable(&self) {
        self.undurable.fetch_sub(1, Ordering::Relaxed);
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

    /// The loop has written some of what it took.
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
