//! The way out: bytes become a borrowed view of a record, or a typed reason why they are none.

use std::borrow::Cow;
use std::net::SocketAddr;

use byteorder::{BigEndian, ByteOrder};

use super::message_id::OffsetMessageId;
use super::properties::{KEYS, Properties, TAGS, UNIQ_KEY, VALUE_END};
use super::record_layout::{
    BLANK_BYTES, BLANK_MAGIC, BODY_CRC_AT, BORN_HOST_AT, BORN_MS_AT, CRC_DIGITS, CRC_PROPERTY, CRC_PROPERTY_BYTES,
    FLAG_AT, LOG_OFFSET_AT, Layout, MAGIC_AT, QUEUE_ID_AT, QUEUE_OFFSET_AT, SYS_FLAG_AT, SysFlag, Version, mask_crc,
    read_host,
};

/// From this length on, combining two CRCs costs less than reading the body twice.
const COMBINE_FROM_BYTES: usize = 2048;

/// Why bytes are not a whole record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Length and magic number are both 0: nothing was written here.
    #[error("nothing was written here")]
    Zero,
    /// The bytes end before the record does.
    #[error("{have} bytes where a record needs {need}")]
    TooShort {
        /// The bytes that the record says it has, or that its beginning has.
        need: usize,
        /// The bytes that were given.
        have: usize,
    },
    /// The magic number is none of the three.
    #[error("unknown magic number {0:#010X}")]
    Magic(u32),
    /// An end-of-file blank stands where a record was expected.
    #[error("an end-of-file blank, not a record")]
    Blank,
    /// A number that is never negative is negative.
    #[error("{field} is negative: {value}")]
    Negative {
        /// The field's name in this crate.
        field: &'static str,
        /// What is stored.
        value: i64,
    },
    /// A length does not fit into the record, or a port is none.
    #[error("{field} is {value}, more than {limit}")]
    Length {
        /// The field's name in this crate.
        field: &'static str,
        /// What is stored.
        value: u64,
        /// The largest possible value.
        limit: u64,
    },
    /// The record's length is not what its fields add up to.
    #[error("the record's length is {stored}, its fields have {computed}")]
    TotalSize {
        /// The length that is stored.
        stored: u32,
        /// The length that the fields have, or have at least.
        computed: u32,
    },
    /// The body's CRC is not the stored one.
    #[error("the body's CRC is {computed:#010X}, stored is {stored:#010X}")]
    BodyCrc {
        /// The CRC in the record's header.
        stored: u32,
        /// The CRC of the body.
        computed: u32,
    },
    /// The record's CRC is not the stored one.
    #[error("the record's CRC is {computed:#010X}, stored is {stored:#010X}")]
    RecordCrc {
        /// The CRC in the record's last property.
        stored: u32,
        /// The CRC of the record without that property.
        computed: u32,
    },
    /// The CRC property itself is damaged.
    #[error("the record's CRC property is damaged")]
    CrcProperty,
}

/// What a record's last property says about its CRC.
///
/// # Examples
///
/// ```
/// use mqlog::format::record::CrcProperty;
/// assert_eq!(CrcProperty::of(b"__CRC32#\x016950376781\x02"), CrcProperty::Present(1_876_730_596));
/// assert_eq!(CrcProperty::of(b"__CRB32#\x016950376781\x02"), CrcProperty::Damaged);
/// assert_eq!(CrcProperty::of(b"TAGS\x01TagA\x02"), CrcProperty::Absent);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CrcProperty {
    /// There is none.
    Absent,
    /// There is one, with this value.
    Present(u32),
    /// There was one: its fixed bytes differ in one or two places, or its digits are not a CRC.
    Damaged,
}

impl CrcProperty {
    /// Looks at the last 20 bytes of encoded properties.
    ///
    /// Bytes that are right in every fixed place count whatever stands before them, so that no flipped bit before them
    /// takes the CRC away from a record. Bytes that are nearly right count if they are a property of their own.
    pub fn of(properties: &[u8]) -> Self {
        let Some((before, property)) = properties.split_last_chunk::<CRC_PROPERTY_BYTES>() else {
            return Self::Absent;
        };
        let differs = |at: &usize| property[*at] != CRC_PROPERTY[*at];
        let wrong = (0..CRC_DIGITS.start).chain(CRC_DIGITS.end..CRC_PROPERTY_BYTES).filter(differs).count();
        let is_own = before.last().is_none_or(|last| *last == VALUE_END);
        match wrong {
            0 => digits_value(&property[CRC_DIGITS]).map_or(Self::Damaged, Self::Present),
            1 | 2 if is_own => Self::Damaged,
            _ => Self::Absent,
        }
    }
}

/// Reads the digits, the last one first; `None` if they are no digits or no CRC of 31 bits.
fn digits_value(digits: &[u8]) -> Option<u32> {
    let append = |value: u64, digit: &u8| Some(value * 10 + u64::from(char::from(*digit).to_digit(10)?));
    let value = digits.iter().rev().try_fold(0, append)?;
    u32::try_from(value).ok().filter(|value| *value == mask_crc(*value))
}

/// What stands at a place in a log file.
#[derive(Debug, Clone, Copy)]
pub enum Item<'a> {
    /// A record.
    Record(RecordView<'a>),
    /// The end of the file's records.
    Blank {
        /// The bytes from the blank's first to the file's end, as stored. RocketMQ does not look at them.
        bytes: u32,
    },
}

impl<'a> Item<'a> {
    /// Decodes what begins at the first byte of `bytes`, which may go beyond the item's end.
    ///
    /// Checks the structure: magic number, signs, lengths, and that they add up to the record's length. Not the CRCs:
    /// [`RecordView::verify`] does.
    ///
    /// # Errors
    ///
    /// - [`RecordError::TooShort`] if `bytes` has less than 8 bytes
    /// - [`RecordError::Zero`] if the length and the magic number are 0
    /// - [`RecordError::Magic`] if the magic number is unknown
    /// - [`RecordError::Negative`] if the length is
    /// - [`RecordError::TotalSize`] if a blank is shorter than itself
    /// - those of a record's fields, in the order of the fields: `TooShort`, `TotalSize`, `Negative`, `Length`
    pub fn decode(bytes: &'a [u8]) -> Result<Self, RecordError> {
        if bytes.len() < BLANK_BYTES {
            return Err(RecordError::TooShort { need: BLANK_BYTES, have: bytes.len() });
        }
        let total = BigEndian::read_i32(bytes);
        let magic = BigEndian::read_u32(&bytes[MAGIC_AT..]);
        let version = Version::from_magic(magic);
        if version.is_none() && magic != BLANK_MAGIC {
            return Err(if (total, magic) == (0, 0) { RecordError::Zero } else { RecordError::Magic(magic) });
        }
        let total = length("total size", total, i32::MAX as usize)?;
        match version {
            Some(version) => RecordView::of_version(version, total, bytes).map(Self::Record),
            None => at_least(total, BLANK_BYTES).map(|()| Self::Blank { bytes: total as u32 }),
        }
    }
}

/// A record in borrowed bytes whose structure was checked.
///
/// Every getter reads the bytes; none allocates but those that return a `String`.
#[derive(Debug, Clone, Copy)]
#[doc(alias("TOTALSIZE", "MAGICCODE", "BODYCRC", "QUEUEID", "QUEUEOFFSET", "PHYSICALOFFSET", "SYSFLAG"))]
#[doc(alias("BORNTIMESTAMP", "BORNHOST", "STORETIMESTAMP", "STOREHOST"))]
pub struct RecordView<'a> {
    /// Exactly the record.
    bytes: &'a [u8],
    version: Version,
    layout: Layout,
    /// The body's end, where the topic's length is.
    body_end: u32,
    /// The properties' first byte; their length is in the two bytes before.
    properties_at: u32,
}

impl<'a> RecordView<'a> {
    /// Decodes the record at the first byte of `bytes`, which may go beyond its end.
    ///
    /// # Errors
    ///
    /// Those of [`Item::decode`], and [`RecordError::Blank`] if there is an end-of-file blank.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, RecordError> {
        match Item::decode(bytes)? {
            Item::Record(record) => Ok(record),
            Item::Blank { .. } => Err(RecordError::Blank),
        }
    }

    fn of_version(version: Version, total: usize, bytes: &'a [u8]) -> Result<Self, RecordError> {
        let bytes = bytes.get(..total).ok_or(RecordError::TooShort { need: total, have: bytes.len() })?;
        at_least(total, Layout::MIN.body())?;
        let layout = Layout::of(SysFlag(BigEndian::read_i32(&bytes[SYS_FLAG_AT..])));
        let topic_length_bytes = version.topic_length_bytes();
        let fixed_bytes = layout.body() + topic_length_bytes + 2;
        at_least(total, fixed_bytes)?;
        check_header(bytes, layout)?;

        let mut free = total - fixed_bytes;
        let body_bytes = length("body length", BigEndian::read_i32(&bytes[layout.body_length()..]), free)?;
        free -= body_bytes;
        let body_end = layout.body() + body_bytes;
        let topic_length = match version {
            Version::V1 => i32::from(bytes[body_end] as i8),
            Version::V2 => i32::from(BigEndian::read_i16(&bytes[body_end..])),
        };
        let topic_bytes = length("topic length", topic_length, free)?;
        free -= topic_bytes;
        let properties_at = body_end + topic_length_bytes + topic_bytes + 2;
        let properties_length = BigEndian::read_i16(&bytes[properties_at - 2..]).into();
        free -= length("properties length", properties_length, free)?;
        if free > 0 {
            return Err(RecordError::TotalSize { stored: total as u32, computed: (total - free) as u32 });
        }
        Ok(Self { bytes, version, layout, body_end: body_end as u32, properties_at: properties_at as u32 })
    }

    /// Returns the record's bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Returns the record's length.
    pub fn record_bytes(&self) -> u32 {
        self.bytes.len() as u32
    }

    /// Returns the kind of record.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Returns the system flag.
    pub fn sys_flag(&self) -> SysFlag {
        SysFlag(BigEndian::read_i32(&self.bytes[SYS_FLAG_AT..]))
    }

    /// Returns where the producer is.
    pub fn born_host(&self) -> SocketAddr {
        checked_host(&self.bytes[BORN_HOST_AT..self.layout.store_ms()])
    }

    /// Returns where the store is.
    pub fn store_host(&self) -> SocketAddr {
        let bytes = &self.bytes[self.layout.store_host()..self.layout.reconsume_times()];
        checked_host(bytes)
    }

    /// Returns the body as stored.
    pub fn body(&self) -> &'a [u8] {
        &self.bytes[self.layout.body()..self.body_end as usize]
    }

    /// Returns the topic as stored.
    pub fn topic_bytes(&self) -> &'a [u8] {
        &self.bytes[self.body_end as usize + self.version.topic_length_bytes()..self.properties_at as usize - 2]
    }

    /// Returns the topic; bytes that are not UTF-8 are replaced.
    pub fn topic(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.topic_bytes())
    }

    /// Returns the properties.
    pub fn properties(&self) -> Properties<'a> {
        Properties::new(&self.bytes[self.properties_at as usize..])
    }

    /// Returns the offset message id: the store's host and the record's position, in hexadecimal.
    pub fn message_id(&self) -> String {
        OffsetMessageId { host: self.store_host(), log_offset: self.log_offset() }.to_string()
    }

    /// Returns the id that the producer gave the message.
    pub fn unique_key(&self) -> Option<Cow<'a, str>> {
        self.properties().get_str(UNIQ_KEY)
    }

    /// Returns the words of the property KEYS.
    pub fn keys(&self) -> impl Iterator<Item = Cow<'a, str>> + use<'a> {
        let keys = self.properties().get(KEYS).unwrap_or_default();
        keys.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).map(String::from_utf8_lossy)
    }

    /// Returns the property TAGS.
    pub fn tags(&self) -> Option<Cow<'a, str>> {
        self.properties().get_str(TAGS)
    }

    /// Returns what the last property says about the record's CRC, without computing it.
    pub fn crc_property(&self) -> CrcProperty {
        CrcProperty::of(self.properties().as_bytes())
    }

    /// Compares the checksums that the record has, and returns its CRC property.
    ///
    /// The body's CRC is compared if there is a body, the record's CRC if there is one: a record without CRC property
    /// is checked in its body only.
    ///
    /// # Errors
    ///
    /// - [`RecordError::CrcProperty`] if the CRC property is damaged
    /// - [`RecordError::BodyCrc`] if the body's CRC is not the stored one
    /// - [`RecordError::RecordCrc`] if the record's CRC is not the stored one
    pub fn verify(&self) -> Result<CrcProperty, RecordError> {
        let property = self.crc_property();
        #[cfg(test)]
        if property == CrcProperty::Damaged && crate::planted::is(crate::planted::Planted::NearMissAccepted) {
            return Ok(CrcProperty::Present(0));
        }
        match property {
            CrcProperty::Damaged => return Err(RecordError::CrcProperty),
            CrcProperty::Absent => self.check_body(crc32fast::hash(self.body()))?,
            CrcProperty::Present(stored) => {
                let (body_crc, record_crc) = self.both_crcs();
                self.check_body(body_crc)?;
                let computed = mask_crc(record_crc);
                if computed != stored {
                    return Err(RecordError::RecordCrc { stored, computed });
                }
            }
        }
        Ok(property)
    }

    fn check_body(&self, crc: u32) -> Result<(), RecordError> {
        let (stored, computed) = (self.body_crc(), mask_crc(crc));
        if !self.body().is_empty() && stored != computed {
            return Err(RecordError::BodyCrc { stored, computed });
        }
        Ok(())
    }

    /// Computes the CRC of the body and that of the record without its last property, reading a long body once.
    fn both_crcs(&self) -> (u32, u32) {
        let covered = &self.bytes[..self.bytes.len() - CRC_PROPERTY_BYTES];
        if self.body().len() < COMBINE_FROM_BYTES {
            return (crc32fast::hash(self.body()), crc32fast::hash(covered));
        }
        let mut record = crc32fast::Hasher::new();
        record.update(&covered[..self.layout.body()]);
        let mut body = crc32fast::Hasher::new();
        body.update(self.body());
        record.combine(&body);
        record.update(&covered[self.body_end as usize..]);
        (body.finalize(), record.finalize())
    }
}

/// Defines getters of numbers, each with its position.
macro_rules! numbers {
    ($record:ident: $($(#[$doc:meta])* $name:ident: $kind:ident at $at:expr;)*) => {
        impl RecordView<'_> {
            $($(#[$doc])*
            pub fn $name(&$record) -> $kind {
                $kind::from_be_bytes(*$record.bytes[$at..].first_chunk().expect("decode checked the length"))
            })*
        }
    };
}

numbers! { self:
    /// Returns the stored CRC of the body.
    body_crc: u32 at BODY_CRC_AT;
    /// Returns the queue of the topic.
    queue_id: i32 at QUEUE_ID_AT;
    /// Returns the user's flag.
    flag: i32 at FLAG_AT;
    /// Returns the message's number in its queue; 0 in prepared and rolled-back records.
    queue_offset: u64 at QUEUE_OFFSET_AT;
    /// Returns the position in the log that the record says it has.
    log_offset: u64 at LOG_OFFSET_AT;
    /// Returns when the producer made the message, in ms since 1970.
    born_ms: i64 at BORN_MS_AT;
    /// Returns when the message was stored, in ms since 1970.
    store_ms: i64 at self.layout.store_ms();
    /// Returns how often a consumer gave the message back.
    reconsume_times: i32 at self.layout.reconsume_times();
    /// Returns the log offset of the transaction's prepared record, else 0.
    prepared_transaction_offset: i64 at self.layout.prepared_transaction_offset();
}

/// Checks the fields in front of the body that cannot have every value.
fn check_header(bytes: &[u8], layout: Layout) -> Result<(), RecordError> {
    for (field, at) in [("queue offset", QUEUE_OFFSET_AT), ("log offset", LOG_OFFSET_AT)] {
        let value = BigEndian::read_i64(&bytes[at..]);
        u64::try_from(value).map_err(|_| RecordError::Negative { field, value })?;
    }
    for (field, end) in [("born host's port", layout.store_ms()), ("store host's port", layout.reconsume_times())] {
        length(field, BigEndian::read_i32(&bytes[end - 4..]), u16::MAX.into())?;
    }
    Ok(())
}

/// Reads a host of a record whose header was checked.
fn checked_host(bytes: &[u8]) -> SocketAddr {
    read_host(bytes).expect("decode checked the port")
}

/// Checks that a record's or blank's length is not less than what its fields have at least.
fn at_least(total: usize, computed: usize) -> Result<(), RecordError> {
    if total < computed {
        return Err(RecordError::TotalSize { stored: total as u32, computed: computed as u32 });
    }
    Ok(())
}

/// Turns a stored length into one that is not negative and at most `limit`.
fn length(field: &'static str, stored: i32, limit: usize) -> Result<usize, RecordError> {
    let length = usize::try_from(stored).map_err(|_| RecordError::Negative { field, value: stored.into() })?;
    if length > limit {
        return Err(RecordError::Length { field, value: length as u64, limit: limit as u64 });
    }
    Ok(length)
}
