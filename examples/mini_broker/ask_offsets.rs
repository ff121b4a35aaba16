//! What is asked about offsets, and told: how far groups are, where queues begin and end, and what was stored when.

use mqlog::{QueueHandle, QueueOffset, TimeBound};

use crate::answer::Answer;
use crate::broker::{Broker, Call, Outcome};
use crate::codes::say;
use crate::request::Refusal;
use crate::topics::missing;

/// As long as a queue's first message is within this much of the log's end, a group that is new starts with it. RocketMQ
/// takes two fifths of the machine's memory.
const YOUNG_BYTES: u64 = 1 << 30;

fn offset_answer(offset: impl std::fmt::Display) -> Outcome {
    Ok(Answer::ok().field("offset", offset).into())
}

impl Broker {
    /// The queue that a call names, of a topic that there is.
    fn queue_of(&self, call: Call<'_>) -> Result<QueueHandle, Refusal> {
        let fields = &call.request.fields;
        let topic = fields.required("topic")?;
        self.topics.with(topic, |_| ()).ok_or_else(|| missing(topic))?;
        Ok(self.store.queue(topic, fields.number("queueId")?))
    }

    /// How far is a group? A new one begins with the first message of a young queue; where to begin in another one, or in
    /// one that has no message, is up to the client.
    pub(crate) fn query_offset(&self, call: Call<'_>) -> Outcome {
        let fields = &call.request.fields;
        let (topic, group) = (fields.required("topic")?, fields.group()?);
        if let Some(offset) = self.offsets.get(topic, group, fields.number("queueId")?) {
            return offset_answer(offset);
        }
        let may_be_zero = fields.text("setZeroIfNotFound") != Some("false");
        if may_be_zero && self.is_young(&self.queue_of(call)?)? {
            return offset_answer(0);
        }
        Err(Refusal::new(say::QUERY_NOT_FOUND, "Not found, maybe this group consumer boot first"))
    }

    fn is_young(&self, queue: &QueueHandle) -> Result<bool, Refusal> {
        if queue.range()?.start > QueueOffset::ZERO {
            return Ok(false);
        }
        let first = queue.entries(QueueOffset::ZERO, 1)?;
        let tail = self.store.log_range().end.get();
        Ok(first.first().is_some_and(|first| tail.saturating_sub(first.entry.log_offset) < YOUNG_BYTES))
    }

    pub(crate) fn update_offset(&self, call: Call<'_>) -> Outcome {
        let fields = &call.request.fields;
        let (topic, group) = (fields.required("topic")?, fields.group()?);
        let (queue_id, offset) = (fields.number("queueId")?, fields.number("commitOffset")?);
        self.commit_offset(topic, group, queue_id, offset)?;
        Ok(Answer::ok().into())
    }

    /// Notes how far a group is in a queue that its topic has.
    pub(crate) fn commit_offset(&self, topic: &str, group: &str, queue_id: i32, offset: i64) -> Result<(), Refusal> {
        let queues = self.topics.with(topic, |topic| topic.queues()).ok_or_else(|| missing(topic))?;
        if !(0..queues).contains(&queue_id) || offset < 0 {
            let remark = format!("there is no offset {offset} in queue {queue_id} of {topic}");
            return Err(Refusal::new(say::INVALID_PARAMETER, remark));
        }
        self.offsets.commit(topic, group, queue_id, offset)
    }

    pub(crate) fn max_offset(&self, call: Call<'_>) -> Outcome {
        offset_answer(self.queue_of(call)?.range()?.end)
    }

    pub(crate) fn min_offset(&self, call: Call<'_>) -> Outcome {
        offset_answer(self.queue_of(call)?.range()?.start)
    }

    pub(crate) fn offset_by_time(&self, call: Call<'_>) -> Outcome {
        let fields = &call.request.fields;
        let is_upper = fields.text("boundaryType").is_some_and(|bound| bound.eq_ignore_ascii_case("upper"));
        let bound = if is_upper { TimeBound::Upper } else { TimeBound::Lower };
        offset_answer(self.queue_of(call)?.offset_by_time(fields.number("timestamp")?, bound)?)
    }

    pub(crate) fn earliest_time(&self, call: Call<'_>) -> Outcome {
        let earliest = self.queue_of(call)?.earliest_ms()?.unwrap_or(-1);
        Ok(Answer::ok().field("timestamp", earliest).into())
    }
}
