//! The memory that unfinished frames may take, all together.
//!
//! A connection may hold [`FREE_BYTES`] at any time: the rest of what it sent in one go. What it holds beyond that is
//! counted. Where the sum would exceed the limit, the connections whose frames began first are closed, one after the
//! other until it fits: who sends its frame without a stop is finished before it is the first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use mio::Token;

use crate::home::Home;
use crate::peer::{Peer, lock};

/// As much as a connection is read from at once.
pub(crate) const FREE_BYTES: usize = 64 * 1024;

/// How many bytes of unfinished frames there are, and may be.
#[derive(Debug)]
pub(crate) struct InputBudget {
    table: Mutex<Table>,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct Table {
    /// The sum of all holders.
    bytes: usize,
    holders: HashMap<Token, Holder>,
}

#[derive(Debug)]
struct Holder {
    home: Arc<Home>,
    begun: Instant,
    /// What is counted.
    bytes: usize,
}

impl Table {
    fn remove(&mut self, token: Token) -> Option<Holder> {
        let holder = self.holders.remove(&token)?;
        self.bytes -= holder.bytes;
        Some(holder)
    }
}

impl InputBudget {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { table: Mutex::default(), max_bytes }
    }

    /// Notes that a connection holds `held` bytes of a frame that began then; others may have to go. `false`: it has
    /// to go itself.
    pub(crate) fn hold(&self, peer: &Peer, begun: Instant, held: usize) -> bool {
        let bytes = held.saturating_sub(FREE_BYTES);
        if bytes == 0 {
            return true;
        }
        let mut table = lock(&self.table);
        table.remove(peer.token);
        if bytes > self.max_bytes {
            return false;
        }
        table.bytes += bytes;
        table.holders.insert(peer.token, Holder { home: Arc::clone(&peer.home), begun, bytes });
        while table.bytes > self.max_bytes {
            let first = table.holders.iter().min_by_key(|(token, holder)| (holder.begun, **token));
            let Some(first) = first.map(|(token, _)| *token) else { break };
            let holder = table.remove(first);
            if first == peer.token {
                return false;
            }
            holder.inspect(|holder| holder.home.has_unwanted(first));
        }
        true
    }

    /// A connection holds nothing any more.
    pub(crate) fn release(&self, peer: &Peer) {
        lock(&self.table).remove(peer.token);
    }
}
