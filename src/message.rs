//! What a caller puts: a message, built by value.

use std::borrow::Cow;
use std::net::SocketAddr;

use crate::error::Error;
use crate::format::batch::batch_count;
use crate::format::names::is_folder_name;
use crate::format::properties::{self, Properties};
use crate::format::record::{CRC_PROPERTY_BYTES, CrcProperty, MAX_PROPERTIES_BYTES, RecordCrc, SysFlag};

/// Digits of the largest offset, which the store writes into some properties.
const OFFSET_DIGITS: usize = 19;

/// A message to be put.
///
/// The topic and the queue decide where it goes; everything else is optional. What is left out, the store fills in: the
/// born time with the time of the put, the hosts with its own.
///
/// # Examples
///
/// ```
/// use mqlog::Message;
/// let message = Message::new("orders").queue(3).body(b"4711 paid").tags("paid").key("4711");
/// assert_eq!(message.topic(), "orders");
/// assert_eq!(message.body_bytes(), b"4711 paid");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
#[doc(alias = "MessageExtBrokerInner")]
pub struct Message<'a> {
    pub(crate) topic: Cow<'a, str>,
    pub(crate) queue_id: i32,
    pub(crate) body: Cow<'a, [u8]>,
    /// Names and values in the order they are stored; no name twice.
    pub(crate) properties: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    pub(crate) flag: i32,
    pub(crate) sys_flag: SysFlag,
    pub(crate) born_ms: Option<i64>,
    pub(crate) born_host: Option<SocketAddr>,
    pub(crate) store_host: Option<SocketAddr>,
    pub(crate) reconsume_times: i32,
    pub(crate) prepared_transaction_offset: i64,
    /// What is wrong with a key that was added: once it is among the others its limits cannot be told.
    key_fault: Option<String>,
}

/// Defines the methods that set one field.
macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident => $field:ident: $kind:ty;)*) => {
        impl Message<'_> {
            $($(#[$doc])*
            pub fn $name(mut self, $field: $kind) -> Self {
                self.$field = $field.into();
                self
            })*
        }
    };
}

setters! {
    /// Chooses the queue of the topic.
    queue => queue_id: i32;
    /// Sets the user's flag.
    flag => flag: i32;
    /// Sets the system flag; its two host bits are set by the store.
    sys_flag => sys_flag: SysFlag;
    /// Sets when the message was made, in ms since 1970.
    born_ms => born_ms: i64;
    /// Sets where the message was made. As in Java an IPv4 address in an IPv6 one is stored as IPv4, and no scope is stored.
    born_host => born_host: SocketAddr;
    /// Sets where the message is stored, in the same way.
    store_host => store_host: SocketAddr;
    /// Sets how often a consumer gave the message back.
    reconsume_times => reconsume_times: i32;
    /// Sets the log offset of the transaction's prepared record.
    prepared_transaction_offset => prepared_transaction_offset: i64;
}

/// The limits that depend on the store's options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MessageLimits {
    pub(crate) max_body_bytes: usize,
    pub(crate) max_topic_bytes: usize,
    /// Whether the store adds its CRC to the properties.
    pub(crate) crc: RecordCrc,
}

impl<'a> Message<'a> {
    /// Makes a message of a topic, for queue 0, with an empty body.
    pub fn new(topic: impl Into<Cow<'a, str>>) -> Self {
        Self { topic: topic.into(), ..Self::default() }
    }

    /// Sets the body, which is borrowed.
    pub fn body(mut self, body: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.body = Cow::Borrowed(body.as_ref());
        self
    }

    /// Sets the body, which is owned by the message.
    pub fn owned_body(mut self, body: Vec<u8>) -> Self {
        self.body = Cow::Owned(body);
        self
    }

    /// Sets the tags, by which consumers choose messages.
    pub fn tags(self, tags: impl Into<Cow<'a, str>>) -> Self {
        self.property(properties::TAGS, tags)
    }

    /// Adds one key, by which the message can be queried. A key has no spaces.
    pub fn key(mut self, key: impl Into<Cow<'a, str>>) -> Self {
        let key = key.into();
        if key.is_empty() {
            self.key_fault = Some("a key is empty".to_owned());
        } else if key.contains(' ') {
            self.key_fault = Some(format!("{key:?} has a space, which separates keys"));
        }
        match self.properties.iter_mut().find(|(name, _)| name == properties::KEYS) {
            Some((_, keys)) => keys.to_mut().extend([" ", &key]),
            None => return self.property(properties::KEYS, key),
        }
        self
    }

    /// Adds keys.
    pub fn keys<K: Into<Cow<'a, str>>>(self, keys: impl IntoIterator<Item = K>) -> Self {
        keys.into_iter().fold(self, Self::key)
    }

    /// Sets a property; a value that the name already has is replaced.
    ///
    /// `TAGS` and `KEYS` are the properties behind [`tags`](Self::tags) and [`key`](Self::key).
    pub fn property(mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Cow<'a, str>>) -> Self {
        let (name, value) = (name.into(), value.into());
        match self.properties.iter_mut().find(|(present, _)| *present == name) {
            Some((_, present)) => *present = value,
            None => self.properties.push((name, value)),
        }
        self
    }

    /// Sets the properties of RocketMQ's encoded text, `name 0x01 value 0x02` and so on, in its order.
    pub fn properties_text(self, text: &'a str) -> Self {
        let text_of = |bytes: &'a [u8]| String::from_utf8_lossy(bytes);
        let pairs = Properties::new(text.as_bytes()).iter();
        pairs.fold(self, |message, (name, value)| message.property(text_of(name), text_of(value)))
    }

    /// Returns the topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Returns the queue of the topic.
    pub fn queue_id(&self) -> i32 {
        self.queue_id
    }

    /// Returns the body.
    pub fn body_bytes(&self) -> &[u8] {
        &self.body
    }

    /// Returns the value of a property.
    pub(crate) fn property_value(&self, name: &str) -> Option<&str> {
        self.properties.iter().find(|(present, _)| present == name).map(|(_, value)| value.as_ref())
    }

    /// Appends the encoded properties, each with its last separator, without those that the store computes.
    pub(crate) fn encode_properties(&self, out: &mut Vec<u8>) {
        for (name, value) in self.stored_properties() {
            properties::push(out, name, value);
        }
    }

    /// Returns the properties that are stored as the caller gave them.
    fn stored_properties(&self) -> impl Iterator<Item = (&str, &str)> {
        let is_light = self.property_value(properties::INNER_MULTI_DISPATCH).is_some();
        let is_batch = self.sys_flag.has(SysFlag::INNER_BATCH);
        let pairs = self.properties.iter().map(|(name, value)| (name.as_ref(), value.as_ref()));
        pairs.filter(move |(name, _)| match *name {
            properties::CRC32 => false,
            properties::INNER_MULTI_QUEUE_OFFSET => !is_light,
            properties::INNER_BASE => !is_batch,
            _ => true,
        })
    }

    /// Checks what the store relies on.
    ///
    /// # Errors
    ///
    /// - [`Error::TooLarge`] if the topic, the body or the properties are longer than allowed
    /// - [`Error::InvalidMessage`] if the message cannot be stored as it is
    pub(crate) fn check(&self, limits: &MessageLimits) -> Result<(), Error> {
        check_bytes("topic", self.topic.len(), limits.max_topic_bytes)?;
        check_bytes("body", self.body.len(), limits.max_body_bytes)?;
        check_bytes("properties", self.max_properties_bytes(limits.crc), MAX_PROPERTIES_BYTES)?;
        if !is_folder_name(&self.topic) {
            return check_that(
                "topic",
                false,
                &format!("{:?} cannot name a folder: it is empty or a path", self.topic),
            );
        }
        check_that("queue id", self.queue_id >= 0, &format!("{} is negative", self.queue_id))?;
        check_that("keys", self.key_fault.is_none(), self.key_fault.as_deref().unwrap_or_default())?;
        for (name, value) in &self.properties {
            check_property(name, value)
                .or_else(|reason| check_that("property", false, &format!("{name:?}: {reason}")))?;
        }
        let light = self.property_value(properties::INNER_MULTI_DISPATCH);
        if let Some(name) = light.and_then(|names| names.split(',').find(|name| !is_folder_name(name))) {
            let reason = format!("{name:?} cannot name a folder: it is empty, a path, or has more than 255 bytes");
            return check_that(properties::INNER_MULTI_DISPATCH, false, &reason);
        }
        let delay = self.property_value(properties::DELAY).filter(|_| self.topic == properties::SCHEDULE_TOPIC);
        check_that(
            properties::DELAY,
            delay.is_none_or(|level| level.parse::<i32>().is_ok()),
            "it is no number of 32 bits, and in this topic RocketMQ would cut its log before the message",
        )?;
        self.check_inner_batch()
    }

    /// Returns the longest that the stored properties can get with what the store adds.
    fn max_properties_bytes(&self, crc: RecordCrc) -> usize {
        let given: usize = self.stored_properties().map(|(name, value)| name.len() + value.len() + 2).sum();
        let light = self.property_value(properties::INNER_MULTI_DISPATCH).map_or(0, |names| {
            let offsets = names.split(',').count() * (OFFSET_DIGITS + 1);
            properties::INNER_MULTI_QUEUE_OFFSET.len() + 2 + offsets
        });
        let batch =
            if self.sys_flag.has(SysFlag::INNER_BATCH) { properties::INNER_BASE.len() + 2 + OFFSET_DIGITS } else { 0 };
        given + light + batch + if crc == RecordCrc::On { CRC_PROPERTY_BYTES } else { 0 }
    }

    fn check_inner_batch(&self) -> Result<(), Error> {
        let field = properties::INNER_NUM;
        let count = self.property_value(field);
        if !self.sys_flag.has(SysFlag::INNER_BATCH) {
            return check_that(field, count.is_none(), "only an inner batch has it");
        }
        let count = count.and_then(|count| count.parse::<i16>().ok()).unwrap_or_default();
        check_that(field, count > 0, "an inner batch has a number of messages from 1 to 32767")?;
        let count = count as usize;
        let found = batch_count(&self.body, count)
            .map_err(|error| Error::InvalidMessage { field: "body", reason: error.to_string() })?;
        check_that(field, found == count, "the body has fewer messages")
    }
}

fn check_bytes(field: &'static str, bytes: usize, limit: usize) -> Result<(), Error> {
    let (value, limit) = (bytes as u64, limit as u64);
    if value > limit { Err(Error::TooLarge { field, value, limit }) } else { Ok(()) }
}

/// Refuses a part of a message for which something does not hold.
pub(crate) fn check_that(field: &'static str, holds: bool, otherwise: &str) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(Error::InvalidMessage { field, reason: otherwise.to_owned() }) }
}

fn check_property(name: &str, value: &str) -> Result<(), &'static str> {
    let has_separator = |text: &str| text.contains(['\u{1}', '\u{2}']);
    let faults = [
        (name.is_empty(), "its name is empty"),
        (value.is_empty(), "its value is empty"),
        (has_separator(name), "its name has a separator"),
        (has_separator(value), "its value has a separator"),
        (is_like_record_crc(name, value), "a reader would take it for a damaged record CRC"),
    ];
    faults.into_iter().find(|(is_there, _)| *is_there).map_or(Ok(()), |(_, reason)| Err(reason))
}

/// Tells whether a property looks so much like the record's CRC that its record would be taken for damaged.
fn is_like_record_crc(name: &str, value: &str) -> bool {
    let may_be = name.len() + value.len() + 2 == CRC_PROPERTY_BYTES || name.ends_with(properties::CRC32);
    if !may_be || name == properties::CRC32 {
        return false;
    }
    let mut encoded = Vec::with_capacity(name.len() + value.len() + 2);
    properties::push(&mut encoded, name, value);
    CrcProperty::of(&encoded) != CrcProperty::Absent
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::batch::{BatchItem, push_batch_item};

    const LIMITS: MessageLimits = MessageLimits { max_body_bytes: 1000, max_topic_bytes: 127, crc: RecordCrc::On };

    fn encoded(message: &Message<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        message.encode_properties(&mut out);
        out
    }

    /// The field that an invalid message's error names.
    fn invalid(message: Message<'_>) -> Option<&'static str> {
        match message.check(&LIMITS) {
            Ok(()) => None,
            Err(Error::InvalidMessage { field, .. }) => Some(field),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn properties_keep_the_order_they_were_set_in() {
        let message = Message::new("t").key("k1").tags("TagA").keys(["k2", "k3"]).property("a", "b").tags("TagB");
        assert_eq!(encoded(&message), b"KEYS\x01k1 k2 k3\x02TAGS\x01TagB\x02a\x01b\x02");
        assert_eq!(invalid(message), None);
    }

    #[test]
    fn encoded_properties_come_back_with_their_last_separator() {
        let text = "UNIQ_KEY\u{1}U\u{2}KEYS\u{1}a b\u{2}WAIT\u{1}true";
        let message = Message::new("t").properties_text(text);
        assert_eq!(encoded(&message), [text.as_bytes(), b"\x02"].concat());
        assert_eq!(invalid(message), None);
    }

    #[test]
    fn what_the_store_computes_is_left_out() {
        let crc = Message::new("t").property("__CRC32#", "0123456789").tags("T");
        assert_eq!(encoded(&crc), b"TAGS\x01T\x02");
        assert_eq!(invalid(crc), None);
        let light = Message::new("t").property("INNER_MULTI_DISPATCH", "a").property("INNER_MULTI_QUEUE_OFFSET", "7");
        assert_eq!(encoded(&light), b"INNER_MULTI_DISPATCH\x01a\x02");
        let batch = Message::new("t").property("INNER_BASE", "7").sys_flag(SysFlag::INNER_BATCH);
        assert_eq!(encoded(&batch), b"");
    }

    #[test]
    fn a_body_is_borrowed_or_owned() {
        let text = String::from("text");
        assert_eq!(Message::new("t").body(&text).body_bytes(), b"text");
        assert_eq!(Message::new("t").body("text").body_bytes(), b"text");
        assert_eq!(Message::new(text).owned_body(vec![1]).body_bytes(), [1]);
    }

    #[test]
    fn names_that_leave_their_folder_are_refused() {
        for name in ["", ".", "..", "a/b", "a\0b"] {
            assert_eq!(invalid(Message::new(name)), Some("topic"), "{name:?}");
            let names = format!("good,{name}");
            let light = Message::new("t").property("INNER_MULTI_DISPATCH", names.as_str());
            assert_eq!(invalid(light), Some("INNER_MULTI_DISPATCH"), "{name:?}");
        }
    }

    #[test]
    fn properties_that_would_not_come_back_are_refused() {
        for (name, value) in [("", "v"), ("n", ""), ("n\u{1}", "v"), ("n", "v\u{2}"), ("n", "\u{1}v")] {
            assert_eq!(invalid(Message::new("t").property(name, value)), Some("property"), "{name:?} {value:?}");
        }
        for (name, value) in [("__CRC33#", "0123456789"), ("x__CRC32#", "0123456789")] {
            assert_eq!(invalid(Message::new("t").property(name, value)), Some("property"), "{name}");
        }
        assert_eq!(invalid(Message::new("t").property("__CRC33#", "012345678")), None);
        for key in ["", "a b"] {
            assert_eq!(invalid(Message::new("t").key("k").key(key)), Some("keys"), "{key:?}");
        }
        assert_eq!(invalid(Message::new("t").queue(-1)), Some("queue id"));
    }

    #[test]
    fn what_is_too_long_is_named_with_its_limit() {
        let text = "a".repeat(MAX_PROPERTIES_BYTES);
        for (message, named, expected) in [
            (Message::new("a".repeat(128)), "topic", (128, 127)),
            (Message::new("t").owned_body(vec![0; 1001]), "body", (1001, 1000)),
            // 3 bytes for the name and the separators, 20 for the CRC.
            (Message::new("t").property("n", &text[..32_745]), "properties", (32_768, 32_767)),
        ] {
            match message.check(&LIMITS) {
                Err(Error::TooLarge { field, value, limit }) => assert_eq!((field, (value, limit)), (named, expected)),
                other => panic!("{named}: {other:?}"),
            }
        }
        assert_eq!(invalid(Message::new("t").property("n", &text[..32_744])), None);
        assert_eq!(invalid(Message::new("a".repeat(127)).owned_body(vec![0; 1000])), None);
    }

    #[test]
    fn room_is_kept_for_the_offsets_that_the_store_adds() {
        let names = vec!["a"; 1000].join(",");
        let message = Message::new("t").property("INNER_MULTI_DISPATCH", names);
        assert_eq!(message.max_properties_bytes(RecordCrc::On), 20 + 2 + 1999 + 24 + 2 + 20_000 + CRC_PROPERTY_BYTES);
    }

    /// RocketMQ cut its log before such a message, and all that had been acknowledged behind it was lost.
    #[test]
    fn a_delayed_message_that_waits_has_a_number_as_its_level() {
        let message = |topic, level: &'static str| Message::new(topic).property("DELAY", level);
        for level in ["x", "1.5", " 1", "2147483648", "-2147483649", "999999999999"] {
            assert_eq!(invalid(message(properties::SCHEDULE_TOPIC, level)), Some("DELAY"), "{level}");
            assert_eq!(invalid(message("t", level)), None, "{level}");
        }
        for level in ["0", "1", "18", "+3", "-1", "2147483647"] {
            assert_eq!(invalid(message(properties::SCHEDULE_TOPIC, level)), None, "{level}");
        }
    }

    #[test]
    fn an_inner_batch_has_the_messages_it_says() {
        let mut body = Vec::new();
        for _ in 0..2 {
            push_batch_item(&mut body, &BatchItem { flag: 0, body: b"b", properties: b"" });
        }
        let batch = |count: &'static str| {
            Message::new("t").body(&body).property("INNER_NUM", count).sys_flag(SysFlag::INNER_BATCH)
        };
        assert_eq!(invalid(batch("2")), None);
        for count in ["0", "-1", "3", "x", "32768"] {
            assert_eq!(invalid(batch(count)), Some("INNER_NUM"), "{count}");
        }
        assert_eq!(invalid(batch("1")), Some("body"));
        assert_eq!(invalid(batch("2").sys_flag(SysFlag(0))), Some("INNER_NUM"));
        assert_eq!(invalid(Message::new("t").body(&body).sys_flag(SysFlag::INNER_BATCH)), Some("INNER_NUM"));
        assert_eq!(invalid(batch("2").body(&body[1..])), Some("body"));
    }
}
