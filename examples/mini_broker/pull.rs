//! Pulls: an answer is the records as they stand in the log, whole and one after the other.

use std::ops::Range;
use std::time::{Duration, Instant};

use mqlog::{GetLimits, GetStatus, QueueOffset, TagFilter};

use crate::answer::{Answer, Body};
use crate::broker::{Broker, Call, Outcome, Reply};
use crate::codes::say;
use crate::consumers::check_subscription;
use crate::event_loop::MAX_IDLE;
use crate::hold::Held;
use crate::peer::Peer;
use crate::request::{Refusal, too_much};
use crate::topics::missing;

/// Bits of a pull's `sysFlag`.
const COMMITS: i32 = 1;
const MAY_WAIT: i32 = 2;
const HAS_SUBSCRIPTION: i32 = 4;
/// As many as RocketMQ gives at once.
const MAX_MESSAGES: usize = 32;
/// Behind every message.
const BEYOND_ALL: QueueOffset = QueueOffset::new(i64::MAX as u64 - 1);
/// Nobody waits longer for an answer: before its connection is closed as idle, it comes.
const MAX_WAIT_MS: u64 = MAX_IDLE.as_millis() as u64 * 9 / 10;

/// What a consumer wants of a queue.
#[derive(Debug)]
pub(crate) struct Pull {
    pub(crate) topic: String,
    pub(crate) queue_id: i32,
    /// Where the consumer is.
    pub(crate) from: QueueOffset,
    /// Where to look: what lies between does not pass the filter.
    pub(crate) at: QueueOffset,
    limits: GetLimits,
    /// The tags that are wanted, as text: a held pull is small that way.
    pub(crate) expression: String,
}

/// What is in a queue for a pull.
pub(crate) enum Pulled {
    Answer(Answer),
    /// Nothing yet. What was looked at ends at the first offset.
    Nothing(QueueOffset, Range<QueueOffset>),
}

impl Broker {
    /// Answers a pull, or holds it until there is something.
    pub(crate) fn pull(&self, call: Call<'_>) -> Outcome {
        let fields = &call.request.fields;
        let sys_flag: i32 = fields.number("sysFlag")?;
        let pull = self.read_pull(call, sys_flag)?;
        if sys_flag & COMMITS != 0 {
            let offset = fields.number_or("commitOffset", 0)?;
            // A pull is good even if what it tells by the way is not.
            let _ = self.commit_offset(&pull.topic, fields.group()?, pull.queue_id, offset);
        }
        let (at, range) = match self.look(&pull)? {
            Pulled::Answer(answer) => return Ok(fitting(call.peer, answer).into()),
            Pulled::Nothing(at, range) => (at, range),
        };
        let wait_ms = fields.number_or("suspendTimeoutMillis", 0_u64)?.min(MAX_WAIT_MS);
        if sys_flag & MAY_WAIT == 0 || wait_ms == 0 || at > pull.from || call.request.is_one_way() {
            return Ok(nothing(pull.from, at, &range).into());
        }
        let deadline = Instant::now() + Duration::from_millis(wait_ms);
        self.hold(Held::new(call.peer, call.request.opaque, deadline, pull)).map(|()| Reply::Later)
    }

    fn read_pull(&self, call: Call<'_>, sys_flag: i32) -> Result<Pull, Refusal> {
        let fields = &call.request.fields;
        let (topic, queue_id) = (fields.required("topic")?, fields.number("queueId")?);
        let known = self.topics.with(topic, |topic| (topic.may_read(), topic.read_queues));
        let (may_read, queues) = known.ok_or_else(|| missing(topic))?;
        if !may_read {
            return Err(Refusal::new(say::NO_PERMISSION, format!("the topic[{topic}] pulling message is forbidden")));
        }
        if !(0..queues).contains(&queue_id) {
            let remark =
                format!("queueId[{queue_id}] is illegal, topic:[{topic}] topicConfig.readQueueNums:[{queues}]");
            return Err(Refusal::new(say::INVALID_PARAMETER, remark));
        }
        let offset: i64 = fields.number("queueOffset")?;
        // A negative offset is before the first message; it goes as the largest one, which no queue reaches.
        let from = u64::try_from(offset).map_or(QueueOffset::MAX, |offset| BEYOND_ALL.min(QueueOffset::new(offset)));
        let wanted = fields.number_or("maxMsgNums", MAX_MESSAGES)?.clamp(1, MAX_MESSAGES);
        let limits = GetLimits { max_messages: wanted, ..GetLimits::default() };
        let expression = self.expression(call, topic, sys_flag)?;
        Ok(Pull { topic: topic.to_owned(), queue_id, from, at: from, limits, expression })
    }

    /// The filter that a pull brings along, or the one of its group's heartbeat.
    fn expression(&self, call: Call<'_>, topic: &str, sys_flag: i32) -> Result<String, Refusal> {
        let fields = &call.request.fields;
        if fields.text("expressionType").is_some_and(|kind| kind != "TAG") {
            let remark = "The broker does not support consumer to filter message by SQL92";
            return Err(Refusal::new(say::SYSTEM_ERROR, remark));
        }
        if sys_flag & HAS_SUBSCRIPTION != 0 {
            let expression = fields.text("subscription").unwrap_or("*");
            return check_subscription(expression, self.limits.max_subscription_bytes).map(|()| expression.to_owned());
        }
        let group = fields.group()?;
        let version = fields.number_or("subVersion", 0_i64)?;
        let subscription = self.consumers.subscription(group, topic).ok_or_else(|| {
            Refusal::new(say::SUBSCRIPTION_NOT_EXIST, format!("the consumer's subscription not exist: {group} {topic}"))
        })?;
        if subscription.version < version {
            let remark = format!("the consumer's subscription not latest: {group} {topic}");
            return Err(Refusal::new(say::SUBSCRIPTION_NOT_LATEST, remark));
        }
        Ok(subscription.expression)
    }

    /// Looks for something to answer.
    pub(crate) fn look(&self, pull: &Pull) -> Result<Pulled, Refusal> {
        let filter = TagFilter::parse(&pull.expression);
        let got = self.store.get(&pull.topic, pull.queue_id, pull.at, pull.limits, &filter)?;
        let moved = |to| Pulled::Answer(pull_answer(say::PULL_OFFSET_MOVED, to, &got.range));
        Ok(match got.status {
            GetStatus::Found => {
                let answer = pull_answer(say::SUCCESS, got.next, &got.range);
                Pulled::Answer(answer.body(Body::Records(got.messages)))
            }
            GetStatus::NoMatchedMessage | GetStatus::MessageWasRemoving | GetStatus::OffsetFoundNull => {
                Pulled::Nothing(got.next, got.range)
            }
            GetStatus::OffsetOverflowOne => Pulled::Nothing(pull.at, got.range),
            GetStatus::NoMatchedQueue | GetStatus::NoMessageInQueue if pull.at == QueueOffset::ZERO => {
                Pulled::Nothing(pull.at, got.range)
            }
            GetStatus::NoMatchedQueue | GetStatus::NoMessageInQueue => moved(QueueOffset::ZERO),
            GetStatus::OffsetOverflowBadly if pull.at == QueueOffset::MAX => moved(got.range.start),
            GetStatus::OffsetOverflowBadly => moved(got.range.end),
            GetStatus::OffsetTooSmall => moved(got.range.start),
        })
    }
}

/// The answer without messages: go on where the filter let nothing pass, or ask again.
pub(crate) fn nothing(from: QueueOffset, at: QueueOffset, range: &Range<QueueOffset>) -> Answer {
    let code = if at > from { say::PULL_RETRY_IMMEDIATELY } else { say::PULL_NOT_FOUND };
    pull_answer(code, at, range)
}

/// The answer, unless it is too large for now.
pub(crate) fn fitting(peer: &Peer, answer: Answer) -> Answer {
    if peer.has_room_for(answer.bytes()) { answer } else { too_much().into() }
}

pub(crate) fn busy(reason: &str) -> Refusal {
    Refusal::new(say::SYSTEM_BUSY, format!("[PULL_BUSY] {reason}, try again later"))
}

fn pull_answer(code: i32, next: QueueOffset, range: &Range<QueueOffset>) -> Answer {
    Answer::new(code)
        .field("maxOffset", range.end)
        .field("minOffset", range.start)
        .field("nextBeginOffset", next)
        .field("suggestWhichBrokerId", 0)
}
