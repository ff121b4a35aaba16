//! A unit: what is placed in the log in one piece, one message or a batch, encoded outside of the log lock.
//!
//! Everything that may fail or take long happens in [`Unit::encode`]. What is known only under the lock (offsets, store
//! time, the digits of the record CRC) is written by [`Unit::place`], which cannot fail. The text of light-queue and
//! inner-batch messages depends on their offsets, so those are encoded once more under the lock.

use std::net::SocketAddr;

use crate::error::{Error, Result};
use crate::format::message_id::OffsetMessageId;
use crate::format::properties::{DELAY, INNER_BASE, INNER_MULTI_QUEUE_OFFSET, push};
use crate::format::record::{
    CRC_PROPERTY_BYTES, MAX_PROPERTIES_BYTES, RecordCrc, RecordFields, SysFlag, Transaction, Version, canonical, place,
    settled_from, write_crc_digits,
};
use crate::message::Message;
use crate::offset::{LogOffset, QueueCursor, QueueOffset};

/// From this length on the CRC of what does not change is computed outside of the lock and combined.
const COMBINE_FROM_BYTES: usize = 2048;
/// The longest decimal text of an offset.
const OFFSET_DIGITS: usize = 19;

/// What an append did.
///
/// # Examples
/// ```
/// use mqlog::{Message, MessageStore, StoreOptions};
/// # let dir = tempfile::tempdir()?;
/// let store = MessageStore::open(StoreOptions::new(dir.path()))?;
/// let put = store.put(Message::new("orders"))?;
/// assert_eq!(store.read(put.log_offset)?.end(), put.end());
/// assert_eq!(store.read_by_id(&put.message_id())?.log_offset(), put.log_offset);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Where the record begins in the log.
    pub log_offset: LogOffset,
    /// The message's number in its queue; 0 for a prepared or rolled-back message.
    pub queue_offset: QueueOffset,
    /// The record's length.
    pub record_bytes: u32,
    /// Where the message is stored: a part of its id.
    pub store_host: SocketAddr,
}

impl Appended {
    /// The offset message id: store host and log offset in hexadecimal.
    #[must_use]
    pub fn message_id(&self) -> String {
        OffsetMessageId { host: self.store_host, log_offset: self.log_offset.get() }.to_string()
    }

    /// Where the record ends: the message is durable when the log is, up to here.
    #[must_use]
    pub fn end(&self) -> LogOffset {
        self.log_offset + u64::from(self.record_bytes)
    }
}

/// How a log encodes messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encoding {
    pub(crate) crc: RecordCrc,
    /// Stands for a host that a message does not name.
    pub(crate) host: SocketAddr,
    pub(crate) now_ms: i64,
}

/// The queues that a unit goes to: its own, and the light queues it names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursors<'a> {
    pub(crate) queue: &'a QueueCursor,
    pub(crate) light: &'a [&'a QueueCursor],
}

/// One record of a unit.
#[derive(Debug, Clone, Copy)]
struct Piece {
    start: usize,
    end: usize,
    /// How many queue offsets the record takes: 0 for prepared and rolled-back messages.
    offsets: u64,
    /// The CRC of what lies between the store time and the CRC property, where that pays.
    rest_crc: Option<u32>,
    store_host: SocketAddr,
}

/// The memory of a unit, for the next one: encoding a message takes less time than allocating does.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    bytes: Vec<u8>,
    pieces: Vec<Piece>,
    properties: Vec<u8>,
}

/// Encoded messages that wait for their place.
#[derive(Debug)]
pub(crate) struct Unit<'m> {
    buffers: Buffers,
    encoding: Encoding,
    /// The message whose text depends on its offsets.
    late: Option<&'m Message<'m>>,
}

impl<'m> Unit<'m> {
    /// Encodes messages of one queue, in order.
    pub(crate) fn encode(messages: &[&'m Message<'m>], encoding: Encoding, buffers: Buffers) -> Result<Self> {
        let mut unit = Self { buffers, encoding, late: None };
        unit.buffers.clear();
        for &message in messages {
            let late = has_late_text(message);
            assert!(!late || messages.len() == 1, "a message whose text depends on its offsets is put alone");
            if late {
                unit.late = Some(message);
            }
            unit.push(message, &LateText::widest(message))?;
        }
        Ok(unit)
    }

    /// The bytes that the unit takes, at most.
    pub(crate) fn len(&self) -> usize {
        self.buffers.bytes.len()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffers.bytes
    }

    pub(crate) fn into_buffers(self) -> Buffers {
        self.buffers
    }

    /// Encodes what depends on the offsets that the cursors give out now. Called under the log lock.
    pub(crate) fn settle(&mut self, cursors: Cursors<'_>) {
        let Some(message) = self.late else { return };
        self.buffers.clear();
        let text = LateText {
            base: QueueOffset::new(cursors.queue.next().get()),
            light: cursors.light.iter().map(|cursor| cursor.next()).collect(),
        };
        self.push(message, &text).expect("the widest text was encoded before");
    }

    /// Writes offsets, store time and CRC into every record and moves the cursors. Called under the log lock, once.
    /// `placed` gets each record's log offset, queue offset and length.
    pub(crate) fn place(
        &mut self,
        log_offset: u64,
        store_ms: i64,
        cursors: Cursors<'_>,
        placed: &mut dyn FnMut(Appended),
    ) {
        for piece in &self.buffers.pieces {
            let record = &mut self.buffers.bytes[piece.start..piece.end];
            let at = log_offset + piece.start as u64;
            let next = cursors.queue.next();
            let queue_offset = if piece.offsets == 0 { 0 } else { next.get() };
            place(record, queue_offset, at, store_ms);
            if self.encoding.crc == RecordCrc::On {
                seal_with(record, piece.rest_crc);
            }
            cursors.queue.set(next + piece.offsets);
            let record_bytes = u32::try_from(record.len()).expect("a record has 31 bits of length");
            let (log_offset, queue_offset) = (LogOffset::new(at), QueueOffset::new(queue_offset));
            placed(Appended { log_offset, queue_offset, record_bytes, store_host: piece.store_host });
        }
        // Prepared and rolled-back messages are in no queue, and so in no light one.
        if self.buffers.pieces.iter().any(|piece| piece.offsets > 0) {
            for cursor in cursors.light {
                cursor.set(cursor.next() + 1);
            }
        }
    }

    fn push(&mut self, message: &Message<'_>, text: &LateText) -> Result<()> {
        let Buffers { bytes, pieces, properties } = &mut self.buffers;
        let start = bytes.len();
        properties.clear();
        message.encode_properties(properties);
        text.append(message, properties);
        let added = if self.encoding.crc == RecordCrc::On { CRC_PROPERTY_BYTES } else { 0 };
        if properties.len() + added > MAX_PROPERTIES_BYTES {
            let limit = (MAX_PROPERTIES_BYTES - added) as u64;
            return Err(Error::TooLarge { field: "properties", value: properties.len() as u64, limit });
        }
        let long = message.topic.len() > Version::V1.max_topic_bytes();
        let fields = RecordFields {
            version: if long { Version::V2 } else { Version::V1 },
            queue_id: message.queue_id,
            flag: message.flag,
            queue_offset: 0,
            log_offset: 0,
            sys_flag: message.sys_flag,
            born_ms: message.born_ms.unwrap_or(self.encoding.now_ms),
            born_host: message.born_host.unwrap_or(self.encoding.host),
            store_ms: 0,
            store_host: canonical(message.store_host.unwrap_or(self.encoding.host)),
            reconsume_times: message.reconsume_times,
            prepared_transaction_offset: message.prepared_transaction_offset,
            body: &message.body,
            topic: message.topic.as_bytes(),
            properties,
        };
        fields.encode_unsealed(self.encoding.crc, bytes);
        let record = &bytes[start..];
        let rest_crc = (self.encoding.crc == RecordCrc::On && record.len() >= COMBINE_FROM_BYTES).then(|| {
            let rest = settled_from(record)..record.len() - CRC_PROPERTY_BYTES;
            crc32fast::hash(&record[rest])
        });
        pieces.push(Piece {
            start,
            end: bytes.len(),
            offsets: offsets_of(message),
            rest_crc,
            store_host: fields.store_host,
        });
        Ok(())
    }
}

impl Buffers {
    /// A buffer that grew larger than this for one message is not kept.
    const MAX_KEPT_BYTES: usize = 1 << 20;

    /// Is it worth to keep them?
    pub(crate) fn are_small(&self) -> bool {
        self.bytes.capacity() <= Self::MAX_KEPT_BYTES
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.pieces.clear();
    }
}

/// RocketMQ's rules for a batch.
pub(crate) fn check_batch(messages: &[&Message<'_>], max_bytes: usize) -> Result<()> {
    for message in messages {
        let (flag, delay) = (message.sys_flag, message.property_value(DELAY));
        let is_delayed = delay.is_some_and(|level| level.parse().is_ok_and(|level: i64| level > 0));
        let reason = if message.topic != messages[0].topic || message.queue_id != messages[0].queue_id {
            "its messages have different topics or queues"
        } else if flag.transaction() != Transaction::None || flag.has(SysFlag::INNER_BATCH) {
            "a message of a transaction, or an inner batch, is put alone"
        } else if light_queues(message).next().is_some() {
            "a message for light queues is put alone"
        } else if is_delayed || offsets_of(message) != 1 {
            "a delayed message is put alone"
        } else {
            continue;
        };
        return Err(Error::InvalidMessage { field: "batch", reason: reason.to_owned() });
    }
    let bytes: usize = messages.iter().map(|message| message.body_bytes().len()).sum();
    if bytes > max_bytes {
        return Err(Error::TooLarge { field: "batch", value: bytes as u64, limit: max_bytes as u64 });
    }
    Ok(())
}

/// How many queue offsets a message takes.
pub(crate) fn offsets_of(message: &Message<'_>) -> u64 {
    match message.sys_flag.transaction() {
        Transaction::Prepared | Transaction::Rollback => 0,
        Transaction::None | Transaction::Commit => inner_count(message).unwrap_or(1),
    }
}

/// The number of messages in an inner batch.
pub(crate) fn inner_count(message: &Message<'_>) -> Option<u64> {
    let inner = message.sys_flag.has(SysFlag::INNER_BATCH);
    inner.then(|| message.property_value(crate::format::properties::INNER_NUM)?.parse().ok()).flatten()
}

/// The light queues that a message names, in order.
pub(crate) fn light_queues<'a>(message: &'a Message<'_>) -> impl Iterator<Item = &'a str> {
    let named = message.property_value(crate::format::properties::INNER_MULTI_DISPATCH);
    named.into_iter().flat_map(|names| names.split(',')).filter(|name| !name.is_empty())
}

fn has_late_text(message: &Message<'_>) -> bool {
    offsets_of(message) > 0 && (inner_count(message).is_some() || light_queues(message).next().is_some())
}

/// The offsets that become text.
struct LateText {
    base: QueueOffset,
    light: Vec<QueueOffset>,
}

impl LateText {
    /// The longest text that offsets can have, for the space that a unit needs at most.
    fn widest(message: &Message<'_>) -> Self {
        const _: () = assert!(i64::MAX.ilog10() as usize + 1 == OFFSET_DIGITS);
        let light = light_queues(message).map(|_| QueueOffset::MAX).collect();
        Self { base: QueueOffset::MAX, light }
    }

    fn append(&self, message: &Message<'_>, properties: &mut Vec<u8>) {
        if offsets_of(message) == 0 {
            return;
        }
        if inner_count(message).is_some() {
            push(properties, INNER_BASE, &self.base.to_string());
        }
        if !self.light.is_empty() {
            let offsets: Vec<_> = self.light.iter().map(ToString::to_string).collect();
            push(properties, INNER_MULTI_QUEUE_OFFSET, &offsets.join(","));
        }
    }
}

fn seal_with(record: &mut [u8], rest_crc: Option<u32>) {
    let Some(rest_crc) = rest_crc else { return crate::format::record::seal(record) };
    let head_bytes = settled_from(record);
    let rest_bytes = record.len() - CRC_PROPERTY_BYTES - head_bytes;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&record[..head_bytes]);
    hasher.combine(&crc32fast::Hasher::new_with_initial_len(rest_crc, rest_bytes as u64));
    let property = record.last_chunk_mut().expect("a record with the property is longer than it");
    write_crc_digits(property, hasher.finalize());
}
