//! A batch as clients send it: messages of one topic and queue, one after the other in one body.
//!
//! An ordinary batch is stored as one record for each message; an inner batch (RocketMQ 5) is stored as it is, as the
//! body of one record.

use byteorder::{BigEndian, ByteOrder};

use super::fields::{DecodeError, expect, first_bytes, length};
use super::properties::VALUE_END;

const FLAG_AT: usize = 12;
const BODY_LENGTH_AT: usize = 16;
const BODY_AT: usize = 20;
/// Bytes of an item without body and properties.
const MIN_ITEM_BYTES: usize = BODY_AT + 2;

/// Why bytes are not a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message at {at}: {source}")]
pub struct BatchError {
    /// The position of the message in the batch.
    pub at: usize,
    /// What is wrong with it.
    pub source: DecodeError,
}

/// One message of a batch.
///
/// # Layout
///
/// | at | bytes | field | meaning |
/// |---|---|---|---|
/// | 0 | 4 | | length of the item, this field included |
/// | 4 | 4 | | magic number, written as 0, not read |
/// | 8 | 4 | | CRC of the body, written as 0, not read |
/// | 12 | 4 | `flag` | the user's flag |
/// | 16 | 4 | | length of the body |
/// | 20 | | `body` | |
/// | 20 + body | 2 | | length of the properties |
/// | 22 + body | | `properties` | encoded properties |
///
/// # Examples
///
/// ```
/// use mqlog::format::batch::{BatchItem, batch_items, push_batch_item};
/// let item = BatchItem { flag: 0, body: b"b0", properties: b"KEYS\x01k0\x02" };
/// let mut body = Vec::new();
/// push_batch_item(&mut body, &item);
/// assert_eq!(batch_items(&body).collect::<Vec<_>>(), [Ok(item)]);
/// ```
///
/// # Source
///
/// RocketMQ's `MessageDecoder.encodeMessage`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BatchItem<'a> {
    /// The user's flag.
    pub flag: i32,
    /// The body.
    pub body: &'a [u8],
    /// The encoded properties.
    pub properties: &'a [u8],
}

impl BatchItem<'_> {
    fn item_bytes(&self) -> usize {
        MIN_ITEM_BYTES + self.body.len() + self.properties.len()
    }
}

/// Returns the messages of a batch; nothing follows an error.
pub fn batch_items(body: &[u8]) -> impl Iterator<Item = Result<BatchItem<'_>, BatchError>> {
    let mut next = 0;
    std::iter::from_fn(move || {
        let at = next;
        let item = (at < body.len()).then(|| decode_item(&body[at..]))?;
        next = item.as_ref().map_or(body.len(), |item| at + item.item_bytes());
        Some(item.map_err(|source| BatchError { at, source }))
    })
}

/// Returns how many messages a batch has.
///
/// # Errors
///
/// - [`BatchError`] if the bytes are not a batch
/// - [`BatchError`] with [`DecodeError::Length`] if there are more than `limit`; it names the first one too many
pub fn batch_count(body: &[u8], limit: usize) -> Result<usize, BatchError> {
    let (mut count, mut at) = (0, 0);
    for item in batch_items(body) {
        let item = item?;
        count += 1;
        length("number of messages", count, limit).map_err(|source| BatchError { at, source })?;
        at += item.item_bytes();
    }
    Ok(count as usize)
}

fn decode_item(bytes: &[u8]) -> Result<BatchItem<'_>, DecodeError> {
    let total = length("length", BigEndian::read_i32(first_bytes(bytes, MIN_ITEM_BYTES)?), i32::MAX as usize)?;
    let item = first_bytes(bytes, total)?;
    expect(total >= MIN_ITEM_BYTES, "length", total, MIN_ITEM_BYTES)?;
    let free = total - MIN_ITEM_BYTES;
    let body_bytes = length("body length", BigEndian::read_i32(&item[BODY_LENGTH_AT..]), free)?;
    let (body, properties) = item[BODY_AT..].split_at(body_bytes);
    let properties_bytes = length("properties length", BigEndian::read_i16(properties).into(), free - body_bytes)?;
    expect(properties_bytes == free - body_bytes, "length", total, MIN_ITEM_BYTES + body_bytes + properties_bytes)?;
    Ok(BatchItem { flag: BigEndian::read_i32(&item[FLAG_AT..]), body, properties: &properties[2..] })
}

/// Appends a message to a batch.
///
/// # Panics
///
/// If the properties have more than 32,767 bytes or the item more than `i32::MAX`.
pub fn push_batch_item(out: &mut Vec<u8>, item: &BatchItem<'_>) {
    let total = i32::try_from(item.item_bytes()).expect("an item fits its length field");
    let properties_bytes = i16::try_from(item.properties.len()).expect("the properties fit their length field");
    out.reserve(item.item_bytes());
    for word in [total, 0, 0, item.flag, item.body.len() as i32] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    out.extend_from_slice(item.body);
    out.extend_from_slice(&properties_bytes.to_be_bytes());
    out.extend_from_slice(item.properties);
}

/// Appends the properties of a batch's message as its record stores them: its own, then those of the batch.
///
/// # Examples
///
/// ```
/// use mqlog::format::batch::stored_properties;
/// let mut properties = Vec::new();
/// stored_properties(b"TAGS\x01TagA", b"CLUSTER\x01C1\x02", &mut properties);
/// assert_eq!(properties, b"TAGS\x01TagA\x02CLUSTER\x01C1\x02");
/// ```
///
/// # Source
///
/// RocketMQ's `MessageExtEncoder.encode` for a batch.
pub fn stored_properties(item: &[u8], batch: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(item);
    if !batch.is_empty() && item.last().is_some_and(|last| *last != VALUE_END) {
        out.push(VALUE_END);
    }
    out.extend_from_slice(batch);
}
