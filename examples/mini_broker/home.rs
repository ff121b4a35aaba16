//! What others know of an event loop: where they leave word for it.

use std::net::SocketAddr;
use std::sync::Mutex;

use mio::net::TcpStream;
use mio::{Token, Waker};

use crate::peer::lock;

/// The place of one loop.
#[derive(Debug)]
pub(crate) struct Home {
    waker: Waker,
    mail: Mutex<Mail>,
}

/// What was left since the loop looked last.
#[derive(Debug, Default)]
pub(crate) struct Mail {
    pub(crate) accepted: Vec<(TcpStream, SocketAddr)>,
    /// Connections for which something was left.
    pub(crate) outputs: Vec<Token>,
    /// Connections that have to go.
    pub(crate) unwanted: Vec<Token>,
}

impl Mail {
    fn is_empty(&self) -> bool {
        self.accepted.is_empty() && self.outputs.is_empty() && self.unwanted.is_empty()
    }
}

impl Home {
    pub(crate) fn new(waker: Waker) -> Self {
        Self { waker, mail: Mutex::default() }
    }

    /// A connection was accepted for this loop.
    pub(crate) fn has_connection(&self, stream: TcpStream, address: SocketAddr) {
        self.post(|mail| mail.accepted.push((stream, address)));
    }

    /// Something was left for a connection of this loop.
    pub(crate) fn has_output(&self, token: Token) {
        self.post(|mail| mail.outputs.push(token));
    }

    /// A connection of this loop has to be closed.
    pub(crate) fn has_unwanted(&self, token: Token) {
        self.post(|mail| mail.unwanted.push(token));
    }

    /// The loop takes what was left.
    pub(crate) fn take(&self) -> Mail {
        std::mem::take(&mut *lock(&self.mail))
    }

    fn post(&self, put: impl FnOnce(&mut Mail)) {
        let mut mail = lock(&self.mail);
        let is_first = mail.is_empty();
        put(&mut mail);
        drop(mail);
        if is_first {
            self.wake();
        }
    }

    pub(crate) fn wake(&self) {
        // It fails only when the system has no memory; the loop then comes when its poll times out.
        let _ = self.waker.wake();
    }
}
