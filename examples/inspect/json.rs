//! One JSON object a line, its fields in the order they were given.

use std::fmt;

use mqlog::format::record::Version;
use mqlog::{Corruption, MessageView, QueueItem};
use serde_json::{Map, Value};

/// An object in the making.
#[derive(Debug, Default)]
pub(crate) struct Object(String);

impl Object {
    /// Adds a field.
    pub(crate) fn field(mut self, name: &str, value: impl Into<Value>) -> Self {
        let separator = if self.0.is_empty() { "" } else { "," };
        self.0.push_str(separator);
        self.0.push_str(&Value::from(name).to_string());
        self.0.push(':');
        self.0.push_str(&value.into().to_string());
        self
    }
}

impl fmt::Display for Object {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{{{}}}", self.0)
    }
}

/// All fields of a record. Hosts are `ip:port`, an IPv6 address in brackets and shortened as in RFC 5952.
pub(crate) fn record(view: &MessageView) -> Object {
    Object::default()
        .field("log_offset", view.log_offset().get())
        .field("record_bytes", view.record_bytes())
        .field("magic", version(view))
        .field("body_crc", view.body_crc())
        .field("queue_id", view.queue_id())
        .field("flag", view.flag())
        .field("queue_offset", view.queue_offset().get())
        .field("sys_flag", view.sys_flag().0)
        .field("born_ms", view.born_ms())
        .field("born_host", view.born_host().to_string())
        .field("store_ms", view.store_ms())
        .field("store_host", view.store_host().to_string())
        .field("reconsume_times", view.reconsume_times())
        .field("prepared_transaction_offset", view.prepared_transaction_offset())
        .field("body_hex", hex(view.body()))
        .field("topic", view.topic())
        .field("properties", properties(view))
        .field("message_id", view.message_id())
}

/// The properties as RocketMQ reads them: of two with one name the later counts.
fn properties(view: &MessageView) -> Map<String, Value> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    view.properties().iter().map(|(name, value)| (text(name), Value::from(text(value)))).collect()
}

pub(crate) fn version(view: &MessageView) -> &'static str {
    match view.version() {
        Version::V1 => "v1",
        Version::V2 => "v2",
    }
}

/// An entry of a queue.
pub(crate) fn entry(item: &QueueItem) -> Object {
    Object::default()
        .field("queue_offset", item.queue_offset.get())
        .field("log_offset", item.entry.log_offset)
        .field("record_bytes", item.entry.record_bytes)
        .field("tags_code", item.entry.tags_code)
}

/// A place that is damaged: log offsets for a log file, positions in the file for any other.
pub(crate) fn damage(damage: &Corruption) -> Object {
    Object::default()
        .field("path", damage.path.display().to_string())
        .field("start", damage.range.start)
        .field("end", damage.range.end)
        .field("reason", damage.reason.as_str())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
