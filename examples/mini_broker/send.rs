//! Sends: what a client sends becomes a message of the store. Delayed messages, transactions and retries come later;
//! until then they are refused, so that none is delivered as what it is not.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};
use std::process;

use mqlog::format::batch::batch_items;
use mqlog::format::message_id::UniqueId;
use mqlog::format::properties::{CLUSTER, DELAY, INNER_MULTI_DISPATCH, Properties, UNIQ_KEY};
use mqlog::format::record::SysFlag;
use mqlog::{Appended, Error, Message};

use crate::answer::{Answer, escaped_bytes};
use crate::broker::{Broker, CLUSTER_NAME, Call, Outcome, Reply, Turn, now_ms};
use crate::codes::{ask, say};
use crate::request::{Fields, Refusal, Request, too_much};
use crate::topics::{AUTO_CREATE, RETRY_PREFIX, Topic, check_name};

/// What the broker adds to every message.
const REGION: (&str, &str) = ("MSG_REGION", "DefaultRegion");
const TRACE: (&str, &str) = ("TRACE_ON", "true");
/// Left over on a message that was consumed in another way and is sent again.
const POP_CHECK: &str = "POP_CK";
/// Longest encoded properties that a client may send.
const MAX_PROPERTIES_BYTES: usize = i16::MAX as usize;
/// Nobody needs so many, and finding one among them must stay cheap.
const MAX_PROPERTIES: usize = 1000;
/// Longest body, of a message or a batch, as RocketMQ's and the store's.
const MAX_BODY_BYTES: usize = 4 << 20;
const MAX_BATCH_MESSAGES: usize = 32 * 1024;
/// The answer to a send, beside what it repeats.
const ANSWER_BYTES: usize = 256;
/// Where a longer one is made, there has to be room for it.
const MAX_ANSWER_BYTES: usize = 17 * 1024;
/// A message's id in the answer to a batch, at most: 28 bytes as digits, and a comma.
const BATCH_ID_BYTES: usize = 57;
/// What of a client's system flag is stored: how the body is compressed, and whether there are several tags.
const KEPT_FLAGS: i32 = SysFlag::COMPRESSED.0 | SysFlag::MULTI_TAGS.0 | SysFlag::COMPRESSION_MASK.0;
/// Topics that the broker writes itself.
const CLOSED_TOPICS: [&str; 4] =
    [AUTO_CREATE, "SCHEDULE_TOPIC_XXXX", "RMQ_SYS_TRANS_HALF_TOPIC", "RMQ_SYS_TRANS_OP_HALF_TOPIC"];

/// The typed header of a send, with long names or with the letters of the second form.
#[derive(Debug)]
struct SendHeader<'a> {
    topic: &'a str,
    default_topic: Option<&'a str>,
    default_queues: i32,
    queue_id: i32,
    sys_flag: i32,
    born_ms: i64,
    flag: i32,
    properties: &'a str,
    reconsume_times: i32,
    is_batch: bool,
}

impl<'a> SendHeader<'a> {
    fn read(code: i32, fields: &'a Fields<'_>) -> Result<Self, Refusal> {
        let is_long = code == ask::SEND_MESSAGE;
        let name = |long, short| if is_long { long } else { short };
        Ok(Self {
            topic: fields.required(name("topic", "b"))?,
            default_topic: fields.text(name("defaultTopic", "c")),
            default_queues: fields.number_or(name("defaultTopicQueueNums", "d"), 4)?,
            queue_id: fields.number(name("queueId", "e"))?,
            sys_flag: fields.number_or(name("sysFlag", "f"), 0)?,
            born_ms: fields.number(name("bornTimestamp", "g"))?,
            flag: fields.number_or(name("flag", "h"), 0)?,
            properties: fields.text(name("properties", "i")).unwrap_or_default(),
            reconsume_times: fields.number_or(name("reconsumeTimes", "j"), 0)?,
            is_batch: is_batch(code, fields),
        })
    }
}

/// Is a request a send, and not so long that it is refused anyway?
pub(crate) fn is_send(request: &Request<'_>) -> bool {
    matches!(request.code, ask::SEND_MESSAGE | ask::SEND_MESSAGE_V2 | ask::SEND_BATCH_MESSAGE)
        && request.body.len() <= MAX_BODY_BYTES
}

/// How long the answer to a send may be: it may repeat what is in the header, and names each message of a batch.
pub(crate) fn answer_bytes(request: &Request<'_>) -> usize {
    let header = request.frame.len() - request.body.len();
    let properties = request.fields.text("properties").or_else(|| request.fields.text("i")).unwrap_or_default();
    // As JSON a control character has six bytes.
    let controls = properties.bytes().filter(|byte| *byte < b' ').count();
    let ids = if is_batch(request.code, &request.fields) { 3 * request.body.len() } else { 0 };
    (ANSWER_BYTES + header + 5 * controls + ids).min(MAX_ANSWER_BYTES)
}

/// Is a send, of whichever code, one of several messages?
fn is_batch(code: i32, fields: &Fields<'_>) -> bool {
    code == ask::SEND_BATCH_MESSAGE || fields.is_true(if code == ask::SEND_MESSAGE { "batch" } else { "m" })
}

impl Broker {
    /// Puts a message or a batch; under sync flush the answer comes when it is durable.
    pub(crate) fn send(&self, call: Call<'_>, turn: &mut Turn) -> Outcome {
        let header = SendHeader::read(call.request.code, &call.request.fields)?;
        if CLOSED_TOPICS.contains(&header.topic) {
            let remark = format!("Sending message to topic[{}] is forbidden.", header.topic);
            return Err(Refusal::new(say::NO_PERMISSION, remark));
        }
        check_name(header.topic)?;
        let (topic, is_new) = self.topics.for_send(header.topic, header.default_topic, header.default_queues)?;
        if is_new {
            self.saver.save_soon();
        }
        let queue_id = self.queue_for(&header, &topic)?;
        let sys_flag = SysFlag(header.sys_flag);
        if sys_flag.0 & SysFlag::TRANSACTION_MASK.0 != 0 || sys_flag.has(SysFlag::INNER_BATCH) {
            return Err(unsupported("a message of a transaction, or an inner batch"));
        }
        if header.is_batch {
            self.send_batch(call, &header, queue_id, turn)
        } else {
            self.send_one(call, &header, queue_id, turn)
        }
    }

    fn queue_for(&self, header: &SendHeader<'_>, topic: &Topic) -> Result<i32, Refusal> {
        if header.queue_id < 0 {
            let none = || Refusal::new(say::SYSTEM_ERROR, format!("topic {} has no queue to write to", header.topic));
            return topic.any_queue(self.next_number()).ok_or_else(none);
        }
        if header.queue_id >= topic.queues() {
            let remark =
                format!("request queueId[{}] is illegal, {} has {}", header.queue_id, header.topic, topic.queues());
            return Err(Refusal::new(say::INVALID_PARAMETER, remark));
        }
        Ok(header.queue_id)
    }

    fn send_one(&self, call: Call<'_>, header: &SendHeader<'_>, queue_id: i32, turn: &mut Turn) -> Outcome {
        let unique = screen(header.properties)?.map_or_else(|| self.new_unique_id(call).into(), Cow::Borrowed);
        // Before anything is appended: a send that was refused is sent again.
        if !call.peer.has_room_for(escaped_bytes(&unique)) {
            return Err(too_much());
        }
        let message = self.message(call, header, queue_id);
        let message = with_properties(message, header.properties, &unique).flag(header.flag).body(call.request.body);
        let appended = if call.may_wait { self.store.append(&message) } else { self.store.try_append(&message) };
        let appended = match appended {
            Err(Error::WouldWait) => return Ok(Reply::WouldWait),
            appended => appended?,
        };
        let answer = send_answer(&appended.message_id(), queue_id, &appended, &unique);
        Ok(self.settle(call, turn, &appended, answer))
    }

    fn send_batch(&self, call: Call<'_>, header: &SendHeader<'_>, queue_id: i32, turn: &mut Turn) -> Outcome {
        if header.topic.starts_with(RETRY_PREFIX) {
            let remark = format!("batch request does not support retry group {}", header.topic);
            return Err(Refusal::new(say::MESSAGE_ILLEGAL, remark));
        }
        if call.request.body.len() > MAX_BODY_BYTES {
            return Err(Refusal::new(say::SYSTEM_ERROR, "message body size exceeded"));
        }
        let batch_unique = screen(header.properties)?.unwrap_or_default();
        let mut messages = Vec::new();
        for item in batch_items(call.request.body) {
            let item = item.map_err(|error| Refusal::new(say::MESSAGE_ILLEGAL, error.to_string()))?;
            if messages.len() == MAX_BATCH_MESSAGES {
                let remark = format!("a batch has at most {MAX_BATCH_MESSAGES} messages");
                return Err(Refusal::new(say::MESSAGE_ILLEGAL, remark));
            }
            let properties = str::from_utf8(item.properties)
                .map_err(|error| Refusal::new(say::MESSAGE_ILLEGAL, format!("properties of a message: {error}")))?;
            let unique = screen(properties)?.map_or_else(|| self.new_unique_id(call).into(), Cow::Borrowed);
            let message = self.message(call, header, queue_id).flag(item.flag).body(item.body);
            messages.push(with_properties(message, properties, &unique));
        }
        if !call.peer.has_room_for(messages.len() * BATCH_ID_BYTES + escaped_bytes(batch_unique)) {
            return Err(too_much());
        }
        let appended =
            if call.may_wait { self.store.append_batch(&messages) } else { self.store.try_append_batch(&messages) };
        let appended = match appended {
            Err(Error::WouldWait) => return Ok(Reply::WouldWait),
            Err(Error::TooLarge { field: "batch", .. }) => {
                return Err(Refusal::new(say::SYSTEM_ERROR, "message body size exceeded"));
            }
            appended => appended?,
        };
        let (Some(first), Some(last)) = (appended.first(), appended.last()) else {
            return Err(Refusal::new(say::MESSAGE_ILLEGAL, "the batch has no message"));
        };
        let ids: Vec<String> = appended.iter().map(Appended::message_id).collect();
        let answer = send_answer(&ids.join(","), queue_id, first, batch_unique);
        Ok(self.settle(call, turn, last, answer))
    }

    fn message<'m>(&self, call: Call<'_>, header: &SendHeader<'m>, queue_id: i32) -> Message<'m> {
        Message::new(header.topic)
            .queue(queue_id)
            .sys_flag(SysFlag(header.sys_flag & KEPT_FLAGS))
            .born_ms(header.born_ms)
            .born_host(call.peer.address)
            .reconsume_times(header.reconsume_times)
    }

    /// Answers now or, under sync flush, when everything up to the record's end is on disk.
    fn settle(&self, call: Call<'_>, turn: &mut Turn, last: &Appended, answer: Answer) -> Reply {
        if !self.is_sync {
            return Reply::Now(answer);
        }
        turn.answer_when_durable(call, last.end(), answer);
        Reply::Later
    }

    /// Makes the id that clients know a message by, for one that came without.
    fn new_unique_id(&self, call: Call<'_>) -> String {
        let address = match call.peer.address.ip() {
            address @ IpAddr::V4(_) => address,
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED.into(),
        };
        let number = self.next_number();
        let [_, _, high, low] = number.to_be_bytes();
        UniqueId {
            address,
            process: process::id() as u16,
            loader_hash: number,
            time_ms: now_ms() as u32,
            counter: u16::from_be_bytes([high, low]),
        }
        .to_string()
    }
}

/// Looks at what a client wants to be stored with a message; returns its unique id.
fn screen(properties: &str) -> Result<Option<&str>, Refusal> {
    if properties.len() > MAX_PROPERTIES_BYTES {
        let remark = format!("message properties length over limit: {}", properties.len());
        return Err(Refusal::new(say::MESSAGE_ILLEGAL, remark));
    }
    let mut unique = None;
    for (index, (name, value)) in Properties::new(properties.as_bytes()).iter().enumerate() {
        // The separators are ASCII, so that both parts are text as well.
        let (name, value) = (str::from_utf8(name).unwrap_or_default(), str::from_utf8(value).unwrap_or_default());
        match name {
            _ if index >= MAX_PROPERTIES => {
                let remark = format!("a message has at most {MAX_PROPERTIES} properties");
                return Err(Refusal::new(say::MESSAGE_ILLEGAL, remark));
            }
            DELAY if value != "0" => return Err(unsupported("a delayed message")),
            "TIMER_DELAY_SEC" | "TIMER_DELAY_MS" | "TIMER_DELIVER_MS" => return Err(unsupported("a timed message")),
            "TRAN_MSG" if value.eq_ignore_ascii_case("true") => return Err(unsupported("a message of a transaction")),
            INNER_MULTI_DISPATCH => return Err(unsupported("a message for light queues")),
            UNIQ_KEY => unique = Some(value),
            _ => {}
        }
    }
    Ok(unique)
}

fn unsupported(what: &str) -> Refusal {
    Refusal::new(say::SYSTEM_ERROR, format!("{what} is not supported yet"))
}

/// Sets the client's properties and the broker's.
fn with_properties<'a>(message: Message<'a>, properties: &'a str, unique: &str) -> Message<'a> {
    let given = Properties::new(properties.as_bytes()).iter();
    let given = given.map(|(name, value)| (String::from_utf8_lossy(name), String::from_utf8_lossy(value)));
    let message = given
        .filter(|(name, _)| name != POP_CHECK)
        .fold(message, |message, (name, value)| message.property(name, value));
    let added = [REGION, TRACE, (CLUSTER, CLUSTER_NAME)];
    let message = added.into_iter().fold(message, |message, (name, value)| message.property(name, value));
    message.property(UNIQ_KEY, unique.to_owned())
}

/// Java's client fails without these fields.
fn send_answer(ids: &str, queue_id: i32, first: &Appended, unique: &str) -> Answer {
    Answer::ok()
        .field(REGION.0, REGION.1)
        .field(TRACE.0, TRACE.1)
        .field("msgId", ids)
        .field("queueId", queue_id)
        .field("queueOffset", first.queue_offset)
        .field("transactionId", unique)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_supported_is_refused() {
        assert_eq!(screen("A\u{1}b\u{2}UNIQ_KEY\u{1}id\u{2}DELAY\u{1}0\u{2}"), Ok(Some("id")));
        assert_eq!(screen(""), Ok(None));
        for refused in ["DELAY\u{1}3", "TRAN_MSG\u{1}true", "TIMER_DELAY_MS\u{1}1", "INNER_MULTI_DISPATCH\u{1}q"] {
            assert_eq!(screen(refused).unwrap_err().code, say::SYSTEM_ERROR);
        }
        assert_eq!(screen(&"a\u{1}b\u{2}".repeat(1001)).unwrap_err().code, say::MESSAGE_ILLEGAL);
        assert_eq!(screen(&"x".repeat(32_768)).unwrap_err().code, say::MESSAGE_ILLEGAL);
    }

    #[test]
    fn both_forms_of_the_header_are_read() {
        let long = [
            ("topic", "T"),
            ("defaultTopic", "D"),
            ("defaultTopicQueueNums", "5"),
            ("queueId", "3"),
            ("bornTimestamp", "9"),
            ("batch", "1"),
        ];
        let short = [("b", "T"), ("c", "D"), ("d", "5"), ("e", "3"), ("g", "9"), ("m", "true")];
        for (code, names) in [(ask::SEND_MESSAGE, long), (ask::SEND_MESSAGE_V2, short)] {
            let mut fields = Fields::default();
            names.into_iter().for_each(|(name, value)| fields.push(name.into(), value.into()).unwrap());
            let header = SendHeader::read(code, &fields).unwrap();
            assert_eq!((header.topic, header.default_topic, header.default_queues), ("T", Some("D"), 5));
            assert_eq!((header.queue_id, header.born_ms, header.is_batch), (3, 9, true));
        }
    }
}
