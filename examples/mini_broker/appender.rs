//! Sends that would wait for the disk: one thread takes them, so that no event loop stands still.
//!
//! As long as the log has room a loop appends by itself. When an append would wait, for a sync or for space in a file, the
//! request goes to this thread, and so do the sends that its connection has behind it until the thread is through with
//! them: they keep their order. Whatever else comes over the connection is done meanwhile. Nothing more is read from it
//! only when it has too much here, or all connections together have.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::broker::{Broker, Call, Handled, Turn};
use crate::frame::decode;
use crate::peer::{Peer, lock};
use crate::request::Request;
use crate::send::answer_bytes;

/// So many bytes of requests wait at the thread; more of them wait at their connections.
const MAX_BYTES: usize = 64 << 20;
/// What a request takes beside its frame.
const BESIDE_BYTES: usize = 128;
/// Answers to so many requests are worth a callback of the store.
const TURN: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Appender {
    queue: Mutex<Queue>,
    changed: Condvar,
    /// Of all frames, as last seen.
    backlog: AtomicUsize,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Waiting>,
    /// Of all frames, the one that the thread works on included.
    bytes: usize,
    /// Connections that come again when there is room.
    waiting: Vec<Arc<Peer>>,
    is_ended: bool,
}

#[derive(Debug)]
struct Waiting {
    peer: Arc<Peer>,
    frame: Vec<u8>,
    /// What it counts for here, and its answer at its connection.
    bytes: usize,
    answer_bytes: usize,
}

impl Appender {
    /// Is there so much here that it is not worth trying whether a send would wait?
    pub(crate) fn is_busy(&self) -> bool {
        self.backlog.load(Ordering::Relaxed) > MAX_BYTES / 2
    }

    /// Takes a send over, if there is room. If there is none its connection waits until it is told.
    pub(crate) fn take(&self, peer: &Arc<Peer>, request: &Request<'_>) -> Handled {
        let (bytes, answer_bytes) = (request.frame.len() + BESIDE_BYTES, answer_bytes(request));
        let mut queue = lock(&self.queue);
        if queue.bytes > 0 && queue.bytes + bytes > MAX_BYTES {
            peer.await_appender();
            queue.waiting.push(Arc::clone(peer));
            return Handled::NotYet;
        }
        peer.begin_append(bytes, answer_bytes);
        queue.bytes += bytes;
        self.backlog.store(queue.bytes, Ordering::Relaxed);
        queue.frames.push_back(Waiting { peer: Arc::clone(peer), frame: request.frame.to_vec(), bytes, answer_bytes });
        drop(queue);
        self.changed.notify_one();
        Handled::Done
    }

    /// Waits for a request; `None` at the end, when all are done.
    fn next(&self) -> Option<Waiting> {
        let queue = lock(&self.queue);
        let idle = |queue: &mut Queue| queue.frames.is_empty() && !queue.is_ended;
        self.changed.wait_while(queue, idle).unwrap_or_else(PoisonError::into_inner).frames.pop_front()
    }

    /// A request is done: its connection goes on, and those that wait for room. Returns whether there is another one.
    fn finish(&self, done: &Waiting) -> bool {
        let mut queue = lock(&self.queue);
        queue.bytes -= done.bytes;
        self.backlog.store(queue.bytes, Ordering::Relaxed);
        let waiting = std::mem::take(&mut queue.waiting);
        let is_idle = queue.frames.is_empty();
        if is_idle {
            queue.frames.shrink_to(TURN);
        }
        drop(queue);
        done.peer.end_append(done.bytes, done.answer_bytes);
        waiting.iter().for_each(|peer| peer.appender_has_room());
        !is_idle
    }

    /// Starts the thread.
    pub(crate) fn start(broker: &Arc<Broker>) -> io::Result<JoinHandle<()>> {
        let broker = Arc::clone(broker);
        thread::Builder::new().name("broker-appender".to_owned()).spawn(move || {
            let (mut turn, mut in_turn) = (Turn::default(), 0);
            while let Some(waiting) = broker.appender.next() {
                // The loop has decoded it before.
                if let Ok(request) = decode(&waiting.frame) {
                    let call = Call { request: &request, peer: &waiting.peer, may_wait: false };
                    // The answers to those before it are not kept up by its wait.
                    if in_turn >= TURN || !broker.answer(call, &mut turn) {
                        std::mem::take(&mut turn).end(&broker);
                        in_turn = 0;
                        broker.answer(Call { may_wait: true, ..call }, &mut turn);
                    }
                    in_turn += 1;
                }
                if !broker.appender.finish(&waiting) {
                    std::mem::take(&mut turn).end(&broker);
                    in_turn = 0;
                }
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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Instant;

    use mqlog::{FlushPolicy, MessageStore, StoreOptions};
    use serde_json::{Value, json};

    use super::*;
    use crate::args::Args;
    use crate::codes::ask;
    use crate::hold::Holds;
    use crate::offsets::{Offsets, OffsetsFile};
    use crate::peer::tests::peers;
    use crate::topics::Topics;
    use crate::watched_disk::{self, Call, Watch, WatchedDisk};

    /// Nothing becomes durable while it is shut.
    #[derive(Debug, Default)]
    struct Gate {
        is_shut: Mutex<bool>,
        opened: Condvar,
    }

    impl Gate {
        fn set(&self, is_shut: bool) {
            *lock(&self.is_shut) = is_shut;
            self.opened.notify_all();
        }
    }

    impl Watch for Gate {
        fn answer(&self, call: &Call<'_>, _path: &Path) -> watched_disk::Answer {
            if matches!(call, Call::Sync) {
                drop(self.opened.wait_while(lock(&self.is_shut), |is_shut| *is_shut));
            }
            watched_disk::Answer::Go
        }
    }

    fn broker(gate: &Arc<Gate>, dir: &Path) -> Arc<Broker> {
        let disk = Arc::new(WatchedDisk(Arc::clone(gate)));
        let options = StoreOptions::new(dir).flush(FlushPolicy::Sync).disk(disk);
        let limits = Args::parse([].into_iter()).unwrap().unwrap().limits;
        let (topics, offsets) = (Topics::new(100), Offsets::new(OffsetsFile::default(), 100));
        let (limits, store) = ((limits, FlushPolicy::Sync), MessageStore::open(options).unwrap());
        Arc::new(Broker::new(store, limits, "b:1".to_owned(), (topics, offsets), Arc::new(Holds::default())))
    }

    fn frame(code: i32, opaque: usize, fields: &Value, body: &[u8]) -> Vec<u8> {
        let header =
            json!({"code": code, "opaque": opaque, "flag": 0, "language": "JAVA", "version": 479, "extFields": fields});
        let header = serde_json::to_vec(&header).unwrap();
        let lengths = [4 + header.len() + body.len(), header.len()].map(|length| (length as u32).to_be_bytes());
        [&lengths.concat(), &*header, body].concat()
    }

    /// What was left for a peer: numbers and queue offsets of the answers.
    fn answers(peer: &Peer) -> Vec<(usize, Option<usize>)> {
        let mut pieces = VecDeque::new();
        peer.take_output(&mut pieces);
        let bytes = pieces.iter().flat_map(|piece| piece.as_ref().to_vec()).collect::<Vec<_>>();
        let (mut rest, mut answers) = (&*bytes, Vec::new());
        while !rest.is_empty() {
            let [length, header] = [0, 4].map(|at| u32::from_be_bytes(rest[at..at + 4].try_into().unwrap()) as usize);
            let value: Value = serde_json::from_slice(&rest[8..8 + header]).unwrap();
            let offset = value["extFields"]["queueOffset"].as_str().map(|text| text.parse().unwrap());
            answers.push((value["opaque"].as_u64().unwrap() as usize, offset));
            rest = &rest[4 + length..];
        }
        answers
    }

    /// As long as the disk did nothing, what a client sent behind its sends was not looked at once the store's group was
    /// full, not even a heartbeat.
    #[test]
    fn sends_that_wait_for_the_disk_keep_up_nothing_else_of_their_connection() {
        const BODY_BYTES: usize = 512 << 10;
        let (gate, folder, peer) = (Arc::new(Gate::default()), tempfile::tempdir().unwrap(), peers(1).remove(0));
        let broker = broker(&gate, folder.path());
        let thread = Appender::start(&broker).unwrap();
        let mut count = 0;
        let mut send = || {
            let fields =
                json!({"a": "g", "b": "T", "c": "TBW102", "d": "4", "e": "0", "f": "0", "g": "1", "h": "0", "i": ""});
            let frame = frame(ask::SEND_MESSAGE_V2, count, &fields, &[0; BODY_BYTES]);
            let mut turn = Turn::default();
            assert_eq!(broker.handle(&decode(&frame).unwrap(), &peer, &mut turn), Handled::Done);
            turn.end(&broker);
            count += 1;
        };
        let mut found = Vec::new();
        let mut find = |count| {
            let start = Instant::now();
            while found.len() < count {
                assert!(start.elapsed().as_secs() < 60, "{} answers of {count}", found.len());
                found.extend(answers(&peer));
                thread::yield_now();
            }
            std::mem::take(&mut found)
        };
        send();
        assert_eq!(find(1), [(0, Some(0))]);

        gate.set(true);
        while !peer.is_appending() {
            send();
        }
        let heartbeat = frame(ask::GET_MAX_OFFSET, 1_000_000, &json!({"topic": "T", "queueId": "0"}), &[]);
        let mut behind = 0;
        while !peer.must_wait() {
            send();
            behind += BODY_BYTES;
            broker.handle(&decode(&heartbeat).unwrap(), &peer, &mut Turn::default());
            assert_eq!(find(1).first().map(|(opaque, _)| *opaque), Some(1_000_000), "{behind} bytes behind");
        }
        assert!((3 << 20..5 << 20).contains(&behind), "{behind}");

        gate.set(false);
        let expected: Vec<_> = (1..count).map(|number| (number, Some(number))).collect();
        assert_eq!(find(expected.len()), expected);
        while peer.is_appending() {
            thread::yield_now();
        }
        assert!(!peer.must_wait());
        assert_eq!(broker.appender.take(&peer, &decode(&heartbeat).unwrap()), Handled::Done);
        broker.appender.end(thread);
        assert!(!peer.is_appending(), "at the end all is done");
    }

    /// Requests of a few bytes have answers of hundreds: these counted nowhere while the requests waited, so 16 connections
    /// had half a GiB of them when the disk went on.
    #[test]
    fn the_answers_to_waiting_sends_count() {
        let (gate, folder, peers) = (Arc::new(Gate::default()), tempfile::tempdir().unwrap(), peers(2));
        let broker = broker(&gate, folder.path());
        let thread = Appender::start(&broker).unwrap();
        let large =
            frame(ask::SEND_MESSAGE_V2, 0, &json!({"b": "T", "c": "TBW102", "e": "0", "g": "1"}), &[0; 1 << 20]);
        let request = decode(&large).unwrap();
        broker.answer(crate::broker::Call { request: &request, peer: &peers[0], may_wait: true }, &mut Turn::default());
        gate.set(true);
        while !peers[0].must_wait() {
            broker.handle(&decode(&large).unwrap(), &peers[0], &mut Turn::default());
        }
        let refused = frame(ask::SEND_MESSAGE_V2, 1, &json!({}), &[]);
        let mut count = 0;
        while !peers[1].must_wait() {
            assert_eq!(broker.appender.take(&peers[1], &decode(&refused).unwrap()), Handled::Done);
            count += 1;
        }
        assert!((1_000..20_000).contains(&count), "{count}");
        gate.set(false);
        broker.appender.end(thread);
        assert_eq!(answers(&peers[1]).len(), count);
        assert!(!peers[1].is_appending());
    }
}
