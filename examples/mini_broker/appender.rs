//! Sends that would wait for the disk: one thread takes them, so that no event loop stands still.
//!
//! As long as the log has room a loop appends by itself. When an append would wait, for a sync or for space in a file, the
//! request goes to this thread, and nothing more is done for its connection until the thread is through with it: so sends
//! of one connection keep their order, and all other connections go on.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::broker::{Broker, Handled, Turn};
use crate::frame::decode;
use crate::peer::{Peer, lock};

/// So many bytes of requests wait at the thread; more of them wait at their connections.
const MAX_BYTES: usize = 64 << 20;

#[derive(Debug, Default)]
pub(crate) struct Appender {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<(Arc<Peer>, Vec<u8>)>,
    /// Of all frames, the one that the thread works on included.
    bytes: usize,
    /// Connections that come again when there is room.
    waiting: Vec<Arc<Peer>>,
    is_ended: bool,
}

impl Appender {
    /// Takes a request over, if there is room. In either case its connection waits until it is told.
    pub(crate) fn take(&self, peer: &Arc<Peer>, frame: &[u8]) -> Handled {
        peer.begin_append();
        let mut queue = lock(&self.queue);
        if queue.bytes > 0 && queue.bytes + frame.len() > MAX_BYTES {
            queue.waiting.push(Arc::clone(peer));
            return Handled::NotYet;
        }
        queue.bytes += frame.len();
        queue.frames.push_back((Arc::clone(peer), frame.to_vec()));
        drop(queue);
        self.changed.notify_one();
        Handled::Done
    }

    /// Waits for a request; `None` at the end, when all are done.
    fn next(&self) -> Option<(Arc<Peer>, Vec<u8>)> {
        let queue = lock(&self.queue);
        let idle = |queue: &mut Queue| queue.frames.is_empty() && !queue.is_ended;
        self.changed.wait_while(queue, idle).unwrap_or_else(PoisonError::into_inner).frames.pop_front()
    }

    /// A request is done: its connection goes on, and those that wait for room.
    fn finish(&self, peer: &Peer, bytes: usize) {
        let mut queue = lock(&self.queue);
        queue.bytes -= bytes;
        let waiting = std::mem::take(&mut queue.waiting);
        drop(queue);
        peer.end_append();
        waiting.iter().for_each(|peer| peer.end_append());
    }

    /// Starts the thread.
    pub(crate) fn start(broker: &Arc<Broker>) -> io::Result<JoinHandle<()>> {
        let broker = Arc::clone(broker);
        thread::Builder::new().name("broker-appender".to_owned()).spawn(move || {
            while let Some((peer, frame)) = broker.appender.next() {
                // The loop has decoded it before.
                if let Ok(request) = decode(&frame) {
                    let mut turn = Turn::default();
                    broker.answer(&request, &peer, &mut turn);
                    turn.end(&broker);
                }
                broker.appender.finish(&peer, frame.len());
            }
        })
    }

    /// Lets it do what it has, and ends the thread.
    pub(crate) fn end(&self, thread: JoinHandle<()>) {
        lock(&self.queue).is_ended = true;
        self.changed.notify_one();
        // A thread that panicked has said so.
        let _ = thread.join();
    }
}
