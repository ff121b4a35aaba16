//! A batch as clients send it: messages of one topic and queue, one after the other in one body.
//!
//! An ordinary batch is stored as one record for each message; an inner batch (RocketMQ 5) is stored as it is, as the
//! body of one record.

use byteorder::{BigEndian, ByteOrder};

use super::properties::VALUE_END;

const FLAG_AT: usize = 12;
const BODY_LENGTH_AT: usize = 16;
const BODY_AT: usize = 20;
/// Bytes of an item without body and properties.
const MIN_ITEM_BYTES: usize = BODY_AT + 2;

/// Why bytes are not a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// The batch ends before its last message does.
    #[error("the message at {at} needs {need} bytes, the batch has {have} more")]
    TooShort {
        /// The position of the message in the batch.
        at: usize,
        /// The bytes that the message needs.
        need: usize,
        /// The bytes from its first to the batch's end.
        have: usize,
    },
    /// A length is negative, or larger than its message.
    #[error("the {field} of the message at {at} is {value}")]
    Length {
        /// The position of the message in the batch.
        at: usize,
        /// The field's name in this crate.
        field: &'static str,
        /// What is stored.
        value: i64,
    },
    /// There are more messages than allowed.
    #[error("the batch has more than {limit} messages")]
    TooMany {
        /// The most messages that are allowed.
        limit: usize,
    },
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
    let mut at = 0;
    std::iter::from_fn(move || {
        if at == body.len() {
            return None;
        }
        let item = decode_item(body, at);
        at = item.as_ref().map_or(body.len(), |item| at + item.item_bytes());
        Some(item)
    })
}

/// Returns how many messages a batch has.
///
/// # Errors
///
/// - [`BatchError::TooShort`] or [`BatchError::Length`] if the bytes are not a batch
/// - [`BatchError::TooMany`] if there are more than `limit`
pub fn batch_count(body: &[u8], limit: usize) -> Result<usize, BatchError> {
    batch_items(body).try_fold(0, |count, item| {
        item?;
        if count < limit { Ok(count + 1) } else { Err(BatchError::TooMany { limit }) }
    })
}

fn decode_item(batch: &[u8], at: usize) -> Result<BatchItem<'_>, BatchError> {
    let bytes = &batch[at..];
    let too_short = |need| BatchError::TooShort { at, need, have: bytes.len() };
    if bytes.len() < MIN_ITEM_BYTES {
        return Err(too_short(MIN_ITEM_BYTES));
    }
    let total = BigEndian::read_i32(bytes);
    let item_bytes = length(at, "length", total, i32::MAX as usize)?;
    if item_bytes > bytes.len() {
        return Err(too_short(item_bytes));
    }
    let wrong_length = BatchError::Length { at, field: "length", value: total.into() };
    let free = item_bytes.checked_sub(MIN_ITEM_BYTES).ok_or(wrong_length)?;
    let body_bytes = length(at, "body length", BigEndian::read_i32(&bytes[BODY_LENGTH_AT..]), free)?;
    let body_end = BODY_AT + body_bytes;
    let stored = BigEndian::read_i16(&bytes[body_end..]).into();
    if length(at, "properties length", stored, free - body_bytes)? != free - body_bytes {
        return Err(wrong_length);
    }
    Ok(BatchItem {
        flag: BigEndian::read_i32(&bytes[FLAG_AT..]),
        body: &bytes[BODY_AT..body_end],
        properties: &bytes[body_end + 2..item_bytes],
    })
}

fn length(at: usize, field: &'static str, stored: i32, limit: usize) -> Result<usize, BatchError> {
    let length = usize::try_from(stored).ok().filter(|length| *length <= limit);
    length.ok_or(BatchError::Length { at, field, value: stored.into() })
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
