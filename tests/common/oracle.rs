//! The one judge of what a store shows after a crash: the promise, word by word.
//!
//! - **Sync flush**: what `put` acknowledged survives a kill and a power loss.
//! - **Async flush**: it survives a kill. After a power loss an unbroken beginning of the log survives, at least
//!   everything below the durable watermark that the caller had seen.
//! - Nothing that nobody put is shown; nothing that was cut comes back; order and bytes are exact; queues and index
//!   equal a rebuild from the log.
//! - A message whose put failed, or had not returned, may be there or not; it is whole either way. So is a batch after
//!   a kill; a power loss may leave its beginning.
//!
//! An [`Oracle`] is told what a workload did, as it does it: [`starts`](Oracle::starts) before each put, then what came
//! of it. After a crash, [`check_opened`](Oracle::check_opened) compares an opened store with that. What an opening
//! showed counts as acknowledged, and what it did not show must never be seen again; so the same oracle goes on with
//! the store through any number of openings. It uses the public API only.
//!
//! Bodies tell messages apart: no two may be equal.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use mqlog::format::record::RecordView;
use mqlog::{Appended, LogOffset, Message, MessageStore};

use super::{Content, same};

/// What the flush policy of the store promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promise {
    /// A put that returned is durable.
    Sync,
    /// A put that returned survives a kill.
    Async,
}

/// What happened before a store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    /// The process ended; the operating system went on.
    Kill,
    /// Everything that was not synced may be gone.
    PowerLoss,
}

/// A message that was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) topic: String,
    pub(crate) queue_id: i32,
    pub(crate) tags: Option<String>,
    pub(crate) keys: Vec<String>,
    pub(crate) body: Vec<u8>,
}

impl Sent {
    pub(crate) fn message(&self) -> Message<'_> {
        let message = Message::new(&*self.topic).queue(self.queue_id).body(&self.body);
        let message = self.tags.iter().fold(message, |message, tags| message.tags(&**tags));
        message.keys(self.keys.iter().map(|key| &**key))
    }
}

/// What the store did that it must not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation(pub(crate) String);

impl From<String> for Violation {
    fn from(text: String) -> Self {
        Self(text)
    }
}

type Verdict<T = ()> = Result<T, Violation>;

fn violation<T>(text: String) -> Verdict<T> {
    Err(Violation(text))
}

/// Names a put of an [`Oracle`]: one message, or those of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Put(Range<usize>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Fate {
    /// Its put has not returned, or failed.
    #[default]
    Open,
    /// Its put has returned, or an opening showed it.
    Acknowledged,
    /// An opening did not show it.
    Gone,
}

#[derive(Debug, Clone, Default)]
struct Known {
    fate: Fate,
    /// Log offset, end and queue offset.
    place: Option<(u64, u64, u64)>,
    /// The record, once an opening showed it.
    bytes: Option<Arc<[u8]>>,
}

/// Everything that was ever put, which only grows.
#[derive(Debug, Clone, Default)]
struct Log {
    /// With the source, and the put that each was part of.
    sent: Vec<(u64, Range<usize>, Arc<Sent>)>,
    by_body: HashMap<Vec<u8>, usize>,
}

/// Knows what a store was told, and judges what it shows.
#[derive(Debug, Clone)]
pub(crate) struct Oracle {
    promise: Promise,
    log: Arc<Log>,
    known: Vec<Known>,
    /// Seen by the caller.
    durable: u64,
    /// The log may begin anywhere up to here, since somebody asked for that.
    may_start: u64,
    /// The log begins here or later, since a deletion has returned.
    must_start: u64,
    /// Queues may be mended when they are read: a sync of them has failed.
    queues_may_be_wrong: bool,
}

impl Oracle {
    pub(crate) fn new(promise: Promise) -> Self {
        Self {
            promise,
            log: Arc::default(),
            known: Vec::new(),
            durable: 0,
            may_start: 0,
            must_start: 0,
            queues_may_be_wrong: false,
        }
    }

    /// The disk fails: what a checkpoint took for written may be lost, which is noticed when it is used.
    pub(crate) fn with_failing_disk(self) -> Self {
        Self { queues_may_be_wrong: true, ..self }
    }

    /// A put of one message, or of a batch, begins. The puts of one source come one after the other.
    pub(crate) fn starts(&mut self, source: u64, messages: impl IntoIterator<Item = Sent>) -> Put {
        let log = Arc::make_mut(&mut self.log);
        let messages: Vec<Sent> = messages.into_iter().collect();
        let put = log.sent.len()..log.sent.len() + messages.len();
        for message in messages {
            let before = log.by_body.insert(message.body.clone(), log.sent.len());
            assert!(before.is_none(), "a body tells messages apart");
            log.sent.push((source, put.clone(), Arc::new(message)));
            self.known.push(Known::default());
        }
        Put(put)
    }

    /// A put has returned; a put that fails is not reported at all.
    pub(crate) fn acknowledges(&mut self, put: &Put, appended: &[Appended]) {
        assert_eq!(appended.len(), put.0.len(), "each message has its place");
        for (index, place) in put.0.clone().zip(appended) {
            let place = (place.log_offset.get(), place.end().get(), place.queue_offset.get());
            self.acknowledges_one(index, place);
        }
    }

    /// The caller has read what it put: the records are these bytes, and stay so.
    pub(crate) fn saw_bytes(&mut self, put: &Put, records: impl IntoIterator<Item = Vec<u8>>) {
        for (index, bytes) in put.0.clone().zip(records) {
            self.known[index].bytes = Some(bytes.into());
        }
    }

    /// A message with this body was acknowledged at a log offset, up to an end, with a queue offset.
    pub(crate) fn acknowledges_body(&mut self, body: &[u8], place: (u64, u64, u64)) {
        self.acknowledges_one(self.log.by_body[body], place);
    }

    fn acknowledges_one(&mut self, index: usize, place: (u64, u64, u64)) {
        self.known[index].place = Some(place);
        self.known[index].fate = Fate::Acknowledged;
    }

    /// The caller has seen that everything below is durable.
    pub(crate) fn saw_durable(&mut self, offset: LogOffset) {
        self.durable = self.durable.max(offset.get());
    }

    /// A deletion of what is below an offset begins.
    pub(crate) fn deletes_before(&mut self, offset: LogOffset) {
        self.may_start = self.may_start.max(offset.get());
    }

    /// A deletion has returned, and the log begins here.
    pub(crate) fn deleted(&mut self, start: LogOffset) {
        self.must_start = self.must_start.max(start.get());
    }

    /// Where the highest known message ends, whether it is still there or not.
    pub(crate) fn highest_end(&self) -> u64 {
        self.known.iter().filter_map(|known| known.place).map(|place| place.1).max().unwrap_or(0)
    }

    /// The length of the body of the message that was acknowledged at an offset.
    pub(crate) fn body_bytes_at(&self, offset: LogOffset) -> Option<usize> {
        let mut all = self.known.iter().zip(&self.log.sent);
        all.find_map(|(known, sent)| {
            Some(sent.2.body.len()).filter(|_| known.place.is_some_and(|place| place.0 == offset.get()))
        })
    }

    /// Judges a store that was opened after a crash.
    pub(crate) fn check_opened(&mut self, store: &MessageStore, crash: Crash) -> Verdict<Content> {
        let report = store.recovery_report();
        if !report.corruptions.is_empty() || !report.strays.is_empty() {
            return violation(format!("a crash is no damage and leaves no strays: {report:?}"));
        }
        let content = Content::read_log(store)?;
        let range = store.log_range();
        let range = range.start.get()..range.end.get();
        if range.start > self.may_start || range.start < self.must_start {
            let wanted = self.must_start..=self.may_start;
            return violation(format!("the log begins at {}, and should in {wanted:?}", range.start));
        }
        let shown = self.check_records(&content)?;
        self.check_missing(&shown, &range, crash)?;
        content.compare(store)?;
        if store.stats().rebuilt_queues > 0 && !self.queues_may_be_wrong {
            return violation("what opening left of the queues had to be mended while they were read".to_owned());
        }
        self.check_ends(store)?;
        // Whatever an opening shows it has made durable.
        self.saw_durable(store.durable_offset());
        Ok(content)
    }

    /// Every record is one that was put, as it was put, where it was put, and once.
    fn check_records(&mut self, content: &Content) -> Verdict<Vec<bool>> {
        let log = Arc::clone(&self.log);
        let mut shown = vec![false; log.sent.len()];
        let mut last: BTreeMap<u64, usize> = BTreeMap::new();
        for (at, bytes) in &content.records {
            let record = RecordView::decode(bytes).map_err(|error| format!("the record at {at}: {error}"))?;
            let Some(index) = log.by_body.get(record.body()).copied() else {
                return violation(format!("nobody put the message at {at}"));
            };
            let (source, _, sent) = &log.sent[index];
            check_fields(&record, sent).map_err(|text| format!("the message at {at}: {text}"))?;
            let place = (*at, at + bytes.len() as u64, record.queue_offset());
            let known = &mut self.known[index];
            if known.fate == Fate::Gone {
                return violation(format!("the message at {at} was cut or deleted and came back"));
            }
            same(&place, &known.place.unwrap_or(place), || "the place of a message".to_owned())?;
            if known.bytes.as_ref().is_some_and(|before| **before != **bytes) {
                return violation(format!("the record at {at} has changed"));
            }
            if std::mem::replace(&mut shown[index], true) {
                return violation(format!("the message at {at} is there twice"));
            }
            if last.insert(*source, index).is_some_and(|before| before >= index) {
                return violation(format!("the message at {at} was put before the one before it"));
            }
            *known = Known { fate: Fate::Acknowledged, place: Some(place), bytes: Some(bytes.as_slice().into()) };
        }
        Ok(shown)
    }

    /// What is not shown was allowed to go.
    fn check_missing(&mut self, shown: &[bool], range: &Range<u64>, crash: Crash) -> Verdict {
        for index in (0..shown.len()).filter(|index| !shown[*index]) {
            let (_, put, _) = &self.log.sent[index];
            // A power loss may cut the log in the middle of a batch, but nowhere else.
            let may_be_cut = crash == Crash::PowerLoss && !shown[index..put.end].contains(&true);
            let was_there = self.known[index].fate != Fate::Gone;
            if was_there && shown[put.clone()].contains(&true) && !may_be_cut {
                return violation(format!("a part of the batch {put:?} is missing"));
            }
            let known = &mut self.known[index];
            if known.fate == Fate::Acknowledged {
                let (at, end, _) = known.place.expect("what is acknowledged has a place");
                let survives = crash == Crash::Kill || self.promise == Promise::Sync || end <= self.durable;
                if at >= range.start && survives {
                    return violation(format!("the message at {at} should have survived the {crash:?}"));
                }
                if range.contains(&at) {
                    return violation(format!("the message at {at} is missing in the middle of {range:?}"));
                }
            }
            // A deleted message keeps its place, and its number.
            if known.place.is_none_or(|(at, ..)| at >= range.start) {
                known.place = None;
            }
            known.fate = Fate::Gone;
        }
        Ok(())
    }

    /// A queue does not give out the numbers of deleted messages again.
    fn check_ends(&self, store: &MessageStore) -> Verdict {
        let mut ends: BTreeMap<(&str, i32), u64> = BTreeMap::new();
        for ((_, _, sent), known) in self.log.sent.iter().zip(&self.known) {
            if let (Fate::Gone, Some((.., queue_offset))) = (known.fate, known.place) {
                let end = ends.entry((&sent.topic, sent.queue_id)).or_default();
                *end = (*end).max(queue_offset + 1);
            }
        }
        for ((topic, queue_id), least) in ends {
            let range = store.queue(topic, queue_id).range().map_err(|error| error.to_string())?;
            if range.end.get() < least {
                return violation(format!("queue {topic}/{queue_id} ends at {}, and reached {least}", range.end));
            }
        }
        Ok(())
    }

    /// After an opening the store goes on: a message is put, gets the next number of its queue, and is read.
    pub(crate) fn put_and_get(&mut self, store: &MessageStore, source: u64, sent: Sent) -> Verdict<Appended> {
        let queue = store.queue(&*sent.topic, sent.queue_id);
        let failed = |error: mqlog::Error| Violation(format!("the store does not go on: {error}"));
        let next = queue.range().map_err(failed)?.end;
        let put = self.starts(source, [sent.clone()]);
        let appended = store.put(sent.message()).map_err(failed)?;
        self.acknowledges(&put, &[appended]);
        same(&appended.queue_offset, &next, || format!("the number of a message of {}/{}", sent.topic, sent.queue_id))?;
        let mut read = queue.iter_from(appended.queue_offset);
        let message = read.next().transpose().map_err(failed)?;
        let Some(message) = message else { return violation(format!("what was put at {next} is not there")) };
        check_fields(&message.record(), &sent).map_err(|text| format!("the message put at {next}: {text}"))?;
        same(&(message.log_offset(), message.queue_offset()), &(appended.log_offset, appended.queue_offset), || {
            "the place of what was put".to_owned()
        })?;
        let behind = read.next().map(|message| message.map(|message| message.queue_offset()));
        match behind {
            None => Ok(appended),
            Some(behind) => violation(format!("behind the last message there is {behind:?}")),
        }
    }

    /// How many messages were acknowledged or shown and are not gone.
    pub(crate) fn alive(&self) -> usize {
        self.known.iter().filter(|known| known.fate == Fate::Acknowledged).count()
    }
}

fn check_fields(record: &RecordView<'_>, sent: &Sent) -> Result<(), String> {
    same(&record.body(), &&sent.body[..], || "body".to_owned())?;
    same(&(&*record.topic(), record.queue_id()), &(&*sent.topic, sent.queue_id), || "queue".to_owned())?;
    let keys: Vec<String> = record.keys().map(|key| key.into_owned()).collect();
    same(&keys, &sent.keys, || "keys".to_owned())?;
    same(&record.tags().map(|tags| tags.into_owned()), &sent.tags, || "tags".to_owned())
}
