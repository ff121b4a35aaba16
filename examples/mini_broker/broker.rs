//! The broker: what all requests share, and which part answers which request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mqlog::{FlushPolicy, LogOffset, MessageStore};

use crate::answer::Answer;
use crate::appender::Appender;
use crate::args::Limits;
use crate::codes::{ask, say};
use crate::consumers::Consumers;
use crate::hold::Holds;
use crate::offsets::Offsets;
use crate::peer::Peer;
use crate::request::{Refusal, Request};
use crate::saver::Saver;
use crate::send::is_send;
use crate::topics::Topics;

/// The names that one broker alone has.
pub(crate) const BROKER_NAME: &str = "broker-a";
pub(crate) const CLUSTER_NAME: &str = "DefaultCluster";
/// Clients that were silent for this long are members no more.
const MAX_SILENCE: Duration = Duration::from_secs(120);

/// How a handler ended well.
pub(crate) enum Reply {
    Now(Answer),
    /// The answer comes by itself: the disk, a message or a file is waited for.
    Later,
    /// Nothing was done: it would have waited for the disk.
    WouldWait,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handled {
    Done,
    /// It has to come again.
    NotYet,
}

/// What a handler ends with.
pub(crate) type Outcome = Result<Reply, Refusal>;

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self::Now(answer)
    }
}

/// A request, and who asks.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) request: &'a Request<'a>,
    pub(crate) peer: &'a Arc<Peer>,
    /// May the thread wait for the disk?
    pub(crate) may_wait: bool,
}

/// All parts. Each keeps its own lock, and none calls another while it holds one.
pub(crate) struct Broker {
    pub(crate) store: MessageStore,
    pub(crate) limits: Limits,
    /// What routes tell clients to connect to.
    pub(crate) advertised: String,
    pub(crate) topics: Topics,
    pub(crate) consumers: Consumers,
    pub(crate) offsets: Offsets,
    pub(crate) holds: Arc<Holds>,
    pub(crate) saver: Saver,
    pub(crate) appender: Appender,
    pub(crate) is_sync: bool,
    /// Counts the ids and the queues that the broker chooses itself.
    counter: AtomicU32,
}

impl Broker {
    pub(crate) fn new(
        store: MessageStore,
        (limits, flush): (Limits, FlushPolicy),
        advertised: String,
        (topics, offsets): (Topics, Offsets),
        holds: Arc<Holds>,
    ) -> Self {
        Self {
            store,
            limits,
            advertised,
            topics,
            consumers: Consumers::default(),
            offsets,
            holds,
            saver: Saver::default(),
            appender: Appender::default(),
            is_sync: flush == FlushPolicy::Sync,
            counter: AtomicU32::new(0),
        }
    }

    /// Does what a request asks for, without waiting for the disk.
    pub(crate) fn handle(&self, request: &Request<'_>, peer: &Arc<Peer>, turn: &mut Turn) -> Handled {
        if request.is_answer() {
            return Handled::Done;
        }
        // Sends keep their order: none overtakes one that waits.
        let is_behind = is_send(request) && (peer.is_appending() || self.appender.is_busy());
        if is_behind || !self.answer(Call { request, peer, may_wait: false }, turn) {
            return self.appender.take(peer, request);
        }
        Handled::Done
    }

    /// Answers a request, now or later. `false`: it would wait for the disk, and may not.
    pub(crate) fn answer(&self, call: Call<'_>, turn: &mut Turn) -> bool {
        let answer = match self.dispatch(call, turn) {
            Ok(Reply::Now(answer)) => answer,
            Ok(Reply::Later) => return true,
            Ok(Reply::WouldWait) => return false,
            Err(refusal) => refusal.into(),
        };
        if !call.request.is_one_way() {
            call.peer.answer(call.request.opaque, answer);
        }
        true
    }

    fn dispatch(&self, call: Call<'_>, turn: &mut Turn) -> Outcome {
        match call.request.code {
            ask::GET_ROUTEINFO_BY_TOPIC => self.route(call),
            ask::UPDATE_AND_CREATE_TOPIC => self.create_topic(call),
            ask::HEART_BEAT => self.heartbeat(call),
            ask::UNREGISTER_CLIENT => self.unregister(call),
            ask::GET_CONSUMER_LIST_BY_GROUP => self.list_consumers(call),
            ask::SEND_MESSAGE | ask::SEND_MESSAGE_V2 | ask::SEND_BATCH_MESSAGE => self.send(call, turn),
            ask::PULL_MESSAGE | ask::LITE_PULL_MESSAGE => self.pull(call),
            ask::QUERY_CONSUMER_OFFSET => self.query_offset(call),
            ask::UPDATE_CONSUMER_OFFSET => self.update_offset(call),
            ask::GET_MAX_OFFSET => self.max_offset(call),
            ask::GET_MIN_OFFSET => self.min_offset(call),
            ask::SEARCH_OFFSET_BY_TIMESTAMP => self.offset_by_time(call),
            ask::GET_EARLIEST_MSG_STORETIME => self.earliest_time(call),
            // Give-backs (36), transactions (37), locks (41, 42), queries (12, 33) and administration have their place
            // here, each in a file of its own.
            code => Err(Refusal::new(say::REQUEST_CODE_NOT_SUPPORTED, format!(" request type {code} not supported"))),
        }
    }

    /// Connections are gone, with everything that hung on them.
    pub(crate) fn disconnected(&self, peers: &[Arc<Peer>]) {
        peers.iter().for_each(|peer| self.holds.forget(peer));
        self.consumers.forget(peers);
    }

    /// What has to be looked at from time to time.
    pub(crate) fn look_after(&self) {
        self.consumers.forget_silent(MAX_SILENCE);
    }

    pub(crate) fn next_number(&self) -> u32 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }
}

pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What one turn of an event loop has appended: all of it is waited for at once.
#[derive(Default)]
pub(crate) struct Turn {
    end: LogOffset,
    answers: Vec<(Arc<Peer>, i32, Answer)>,
}

impl Turn {
    /// Gives the answer to a call when everything below `end` is durable.
    pub(crate) fn answer_when_durable(&mut self, call: Call<'_>, end: LogOffset, answer: Answer) {
        self.end = self.end.max(end);
        if !call.request.is_one_way() {
            call.peer.begin_pending(answer.bytes());
            self.answers.push((Arc::clone(call.peer), call.request.opaque, answer));
        }
    }

    /// Hands the answers to the store's flush thread.
    pub(crate) fn end(self, broker: &Broker) {
        if self.answers.is_empty() {
            return;
        }
        broker.store.on_durable(self.end, move |outcome| {
            for (peer, opaque, answer) in self.answers {
                peer.end_pending(answer.bytes());
                let answer = match &outcome {
                    Ok(()) => answer,
                    Err(error) => Refusal::from(error.clone()).into(),
                };
                peer.answer(opaque, answer);
            }
        });
    }
}
