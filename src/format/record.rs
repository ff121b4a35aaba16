//! The record: one message in the commit log, header included.
//!
//! [`RecordFields`] goes in, [`RecordView`] comes out: borrowed bytes, or a typed reason why they are no record.

use std::borrow::Cow;
use std::net::SocketAddr;

use byteorder::{BigEndian, ByteOrder};

use super::fields::{DecodeError, Number, expect, first_bytes, length};
use super::message_id::OffsetMessageId;
use super::properties::{KEYS, Properties, TAGS, UNIQ_KEY, VALUE_END};
pub(crate) use super::record_layout::LOST_CRC_PROPERTY;
pub use super::record_layout::{
    BLANK_BYTES, BLANK_MAGIC, CRC_PROPERTY_BYTES, CrcProperty, MAX_PROPERTIES_BYTES, SysFlag, Transaction, Version,
    body_crc, write_crc_digits,
};
use super::record_layout::{
    BODY_CRC_AT, BORN_HOST_AT, CRC_PROPERTY, LOG_OFFSET_AT, Layout, MAGIC_AT, MAX_HEADER_BYTES, QUEUE_OFFSET_AT,
    SYS_FLAG_AT, mask_crc,
};

/// From this length on, combining two CRCs costs less than reading the body twice.
const COMBINE_FROM_BYTES: usize = 2048;

/// Whether a record carries the CRC property, which covers the whole record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[doc(alias = "enabledAppendPropCRC")]
pub enum RecordCrc {
    /// The last 20 bytes of the properties are the CRC property.
    On,
    /// The properties are stored as given.
    Off,
}

/// Defines the fields in front of the body, each with where it is: as fields of [`RecordFields`] that are written, and as
/// getters of [`RecordView`] whose bytes are checked.
macro_rules! record {
    (
        $(#[$meta:meta])* pub struct RecordFields {
            $($(#[$other_doc:meta])* pub $other:ident: $other_kind:ty,)*
        }
        head of $layout:ident {
            $($(#[$doc:meta])* $name:ident: $kind:ident $(= $text:literal)? at $at:expr,)*
        }
    ) => {
        $(#[$meta])*
        pub struct RecordFields<'a> {
            $($(#[$other_doc])* pub $other: $other_kind,)*
            $($(#[$doc])* pub $name: $kind,)*
        }

        impl RecordFields<'_> {
            fn write_head(&self, $layout: Layout, head: &mut [u8]) {
                $(self.$name.write(&mut head[$at]);)*
            }
        }

        impl RecordView<'_> {
            /// Checks the fields that cannot have every value.
            fn check_head(bytes: &[u8], $layout: Layout) -> Result<(), DecodeError> {
                $(<$kind>::take(&mut &bytes[$at], concat!($($text)?))?;)*
                Ok(())
            }

            $($(#[$doc])*
            pub fn $name(&self) -> $kind {
                let $layout = self.shape.layout;
                debug_assert!($layout.body() < self.bytes.len());
                <$kind>::take(&mut &self.bytes[$at], "").expect("decode checked the field")
            })*
        }
    };
}

record! {
    /// Everything a record holds.
    ///
    /// An IPv6 host that only wraps an IPv4 address is stored as that IPv4 address, as RocketMQ would read it.
    ///
    /// # Examples
    ///
    /// ```
    /// use mqlog::format::record::{RecordCrc, RecordFields, RecordView, SysFlag, Version};
    ///
    /// let fields = RecordFields {
    ///     version: Version::V1,
    ///     queue_id: 1,
    ///     flag: 0,
    ///     queue_offset: 4,
    ///     log_offset: 8192,
    ///     sys_flag: SysFlag(0),
    ///     born_ms: 1_700_000_000_000,
    ///     born_host: "192.168.1.2:54321".parse()?,
    ///     store_ms: 1_700_000_000_001,
    ///     store_host: "10.0.0.1:10911".parse()?,
    ///     reconsume_times: 0,
    ///     prepared_transaction_offset: 0,
    ///     body: b"hello",
    ///     topic: b"TopicTest",
    ///     properties: b"TAGS\x01TagA\x02",
    /// };
    /// let mut bytes = Vec::new();
    /// fields.encode(RecordCrc::On, &mut bytes);
    /// assert_eq!(bytes.len(), fields.record_bytes(RecordCrc::On));
    ///
    /// let record = RecordView::decode(&bytes)?;
    /// record.verify()?;
    /// assert_eq!(record.tags().as_deref(), Some("TagA"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Source
    ///
    /// RocketMQ's `MessageExtEncoder.encode`; ours writes every field in one pass and takes the offsets and the store time
    /// as values, or from [`place`] later.
    #[derive(Debug, Clone, Copy)]
    pub struct RecordFields {
        /// The kind of record: decides how long the topic may be.
        pub version: Version,
        /// The body as stored.
        pub body: &'a [u8],
        /// The topic in UTF-8.
        pub topic: &'a [u8],
        /// The encoded properties.
        pub properties: &'a [u8],
    }
    head of layout {
        /// The queue of the topic.
        queue_id: i32 at 12..,
        /// The user's flag.
        flag: i32 at 16..,
        /// The message's number in its queue; 0 in prepared and rolled-back records.
        queue_offset: u64 = "queue offset" at QUEUE_OFFSET_AT..,
        /// The position in the log that the record says it has.
        log_offset: u64 = "log offset" at LOG_OFFSET_AT..,
        /// The system flag; its two host bits are set from the hosts.
        sys_flag: SysFlag at SYS_FLAG_AT..,
        /// When the producer made the message, in ms since 1970.
        born_ms: i64 at 40..,
        /// Where the producer is.
        born_host: SocketAddr = "born host's port" at BORN_HOST_AT..layout.store_ms(),
        /// When the message was stored, in ms since 1970.
        store_ms: i64 at layout.store_ms()..,
        /// Where the store is.
        store_host: SocketAddr = "store host's port" at layout.store_host()..layout.reconsume_times(),
        /// How often a consumer gave the message back.
        reconsume_times: i32 at layout.reconsume_times()..,
        /// The log offset of the transaction's prepared record, else 0.
        prepared_transaction_offset: i64 at layout.reconsume_times() + 4..,
    }
}

impl RecordFields<'_> {
    /// Returns the length of the record that [`encode`](Self::encode) makes.
    pub fn record_bytes(&self, crc: RecordCrc) -> usize {
        let head_bytes = Layout::of(self.as_stored().sys_flag).body() + self.version.topic_length_bytes() + 2;
        head_bytes + self.body.len() + self.topic.len() + self.properties_bytes(crc)
    }

    /// Appends the record to `out`, with its CRC computed.
    ///
    /// # Panics
    ///
    /// If the topic, the properties or the whole record is longer than its length field can say, or an offset has more
    /// than 63 bits.
    pub fn encode(&self, crc: RecordCrc, out: &mut Vec<u8>) {
        let start = out.len();
        self.encode_unsealed(crc, out);
        if crc == RecordCrc::On {
            seal(&mut out[start..]);
        }
    }

    /// Appends the record to `out`; the digits of the CRC property, if it has one, are ten zeros.
    ///
    /// For a caller that changes the record with [`place`] before it computes the CRC.
    ///
    /// # Panics
    ///
    /// As [`encode`](Self::encode).
    pub fn encode_unsealed(&self, crc: RecordCrc, out: &mut Vec<u8>) {
        let (record_bytes, properties_bytes) = (self.record_bytes(crc), self.properties_bytes(crc));
        assert!(record_bytes <= i32::MAX as usize, "a record fits its length field");
        assert!(self.topic.len() <= self.version.max_topic_bytes(), "the topic fits its length field");
        assert!(properties_bytes <= MAX_PROPERTIES_BYTES, "the properties fit their length field");

        let stored = self.as_stored();
        let (layout, mut head) = (Layout::of(stored.sys_flag), [0; MAX_HEADER_BYTES]);
        stored.write_head(layout, &mut head);
        BigEndian::write_u32(&mut head, record_bytes as u32);
        BigEndian::write_u32(&mut head[MAGIC_AT..], self.version.magic());
        BigEndian::write_u32(&mut head[BODY_CRC_AT..], body_crc(self.body));
        BigEndian::write_u32(&mut head[layout.body() - 4..], self.body.len() as u32);
        out.reserve(record_bytes);
        out.extend_from_slice(&head[..layout.body()]);
        out.extend_from_slice(self.body);
        let topic_bytes = (self.topic.len() as u16).to_be_bytes();
        out.extend_from_slice(&topic_bytes[2 - self.version.topic_length_bytes()..]);
        out.extend_from_slice(self.topic);
        out.extend_from_slice(&(properties_bytes as u16).to_be_bytes());
        out.extend_from_slice(self.properties);
        if crc == RecordCrc::On {
            out.extend_from_slice(&[VALUE_END][..self.separator_bytes()]);
            out.extend_from_slice(&CRC_PROPERTY);
        }
    }

    /// The hosts as [`canonical`] says, and the flag with the host bits that they ask for.
    fn as_stored(&self) -> Self {
        let (born_host, store_host) = (canonical(self.born_host), canonical(self.store_host));
        let sys_flag = self.sys_flag.with(SysFlag::BORN_HOST_V6, born_host.is_ipv6());
        let sys_flag = sys_flag.with(SysFlag::STORE_HOST_V6, store_host.is_ipv6());
        Self { sys_flag, born_host, store_host, ..*self }
    }

    fn properties_bytes(&self, crc: RecordCrc) -> usize {
        let crc_property = self.separator_bytes() + CRC_PROPERTY_BYTES;
        self.properties.len() + if crc == RecordCrc::On { crc_property } else { 0 }
    }

    /// Returns 1 if the CRC property needs a separator in front of it.
    fn separator_bytes(&self) -> usize {
        self.properties.last().is_some_and(|last| *last != VALUE_END).into()
    }
}

/// Unwraps an IPv4 address in an IPv6 one: Java would read it back as IPv4, and the record's length would change.
pub(crate) fn canonical(host: SocketAddr) -> SocketAddr {
    SocketAddr::new(host.ip().to_canonical(), host.port())
}

/// Writes what is known only when the record's place is: its offsets and its store time.
///
/// The digits of the CRC property are not touched: [`seal`] comes after this.
///
/// # Panics
///
/// If `record` ends before its store time does, or an offset has more than 63 bits.
pub fn place(record: &mut [u8], queue_offset: u64, log_offset: u64, store_ms: i64) {
    queue_offset.write(&mut record[QUEUE_OFFSET_AT..]);
    log_offset.write(&mut record[LOG_OFFSET_AT..]);
    let store_ms_at = Layout::of_record(record).store_ms();
    store_ms.write(&mut record[store_ms_at..]);
}

/// Returns the position behind the store time, from which on a record does not depend on its place but for its CRC.
///
/// # Panics
///
/// If `record` ends before its born time.
pub fn settled_from(record: &[u8]) -> usize {
    Layout::of_record(record).store_host()
}

/// Computes the CRC of a record and writes it into the record's CRC property, its last 20 bytes.
///
/// # Panics
///
/// If `record` is shorter than the property.
pub fn seal(record: &mut [u8]) {
    let (covered, property) =
        record.split_last_chunk_mut::<CRC_PROPERTY_BYTES>().expect("a record with the property is longer than it");
    write_crc_digits(property, crc32fast::hash(covered));
}

/// Returns the end-of-file blank that says the next `bytes` bytes, itself included, hold nothing.
///
/// # Panics
///
/// If `bytes` is less than [`BLANK_BYTES`] or more than `i32::MAX`.
///
/// # Examples
///
/// ```
/// use mqlog::format::record::{Item, encode_blank};
/// let blank = encode_blank(1754);
/// assert_eq!(blank, [0, 0, 0x06, 0xDA, 0xCB, 0xD4, 0x31, 0x94]);
/// assert!(matches!(Item::decode(&blank), Ok(Item::Blank { bytes: 1754 })));
/// ```
pub fn encode_blank(bytes: u32) -> [u8; BLANK_BYTES] {
    assert!(bytes >= BLANK_BYTES as u32 && bytes <= i32::MAX as u32, "a blank covers itself and has 31 bits");
    let mut blank = [0; BLANK_BYTES];
    BigEndian::write_u32_into(&[bytes, BLANK_MAGIC], &mut blank);
    blank
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
    /// - [`DecodeError::TooShort`] if `bytes` has less than 8 bytes
    /// - [`DecodeError::Zero`] if the length and the magic number are 0
    /// - [`DecodeError::Magic`] if the magic number is unknown
    /// - [`DecodeError::Negative`] if the length is
    /// - [`DecodeError::Mismatch`] if a blank is shorter than itself
    /// - those of a record's fields, in the order of the fields: `TooShort`, `Mismatch`, `Negative`, `Length`
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let total = BigEndian::read_i32(first_bytes(bytes, BLANK_BYTES)?);
        let magic = BigEndian::read_u32(&bytes[MAGIC_AT..]);
        let version = Version::from_magic(magic);
        if version.is_none() && magic != BLANK_MAGIC {
            return Err(if (total, magic) == (0, 0) { DecodeError::Zero } else { DecodeError::Magic(magic) });
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
    shape: Shape,
}

/// Where the parts of a record stand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    version: Version,
    layout: Layout,
    /// The body's end, where the topic's length is.
    body_end: u32,
    /// The properties' first byte; their length is in the two bytes before.
    properties_at: u32,
}

impl Shape {
    fn body_end(self) -> usize {
        self.body_end as usize
    }

    fn properties_at(self) -> usize {
        self.properties_at as usize
    }
}

impl<'a> RecordView<'a> {
    /// Decodes the record at the first byte of `bytes`, which may go beyond its end.
    ///
    /// # Errors
    ///
    /// Those of [`Item::decode`], and [`DecodeError::Blank`] if there is an end-of-file blank.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        match Item::decode(bytes)? {
            Item::Record(record) => Ok(record),
            Item::Blank { .. } => Err(DecodeError::Blank),
        }
    }

    fn of_version(version: Version, total: usize, bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let bytes = first_bytes(bytes, total)?;
        at_least(total, Layout::MIN.body())?;
        let layout = Layout::of_record(bytes);
        let topic_length_bytes = version.topic_length_bytes();
        let fixed_bytes = layout.body() + topic_length_bytes + 2;
        at_least(total, fixed_bytes)?;
        Self::check_head(bytes, layout)?;

        let mut free = total - fixed_bytes;
        let mut take = |field, stored| length(field, stored, free).inspect(|taken| free -= taken);
        let body_bytes = take("body length", BigEndian::read_i32(&bytes[layout.body() - 4..]))?;
        let body_end = layout.body() + body_bytes;
        let topic_length = BigEndian::read_int(&bytes[body_end..], topic_length_bytes) as i32;
        let topic_bytes = take("topic length", topic_length)?;
        let properties_at = body_end + topic_length_bytes + topic_bytes + 2;
        take("properties length", BigEndian::read_i16(&bytes[properties_at - 2..]).into())?;
        expect(free == 0, "total size", total, total - free)?;
        // No length has more than 31 bits.
        let shape = Shape { version, layout, body_end: body_end as u32, properties_at: properties_at as u32 };
        Ok(Self { bytes, shape })
    }

    /// Takes the bytes of a record that was decoded before, and the shape that it has.
    pub(crate) fn of_shape(bytes: &'a [u8], shape: Shape) -> Self {
        Self { bytes, shape }
    }

    /// The shape, and the length.
    pub(crate) fn shape(&self) -> (Shape, usize) {
        (self.shape, self.bytes.len())
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
        self.shape.version
    }

    /// Returns the stored CRC of the body.
    pub fn body_crc(&self) -> u32 {
        BigEndian::read_u32(&self.bytes[BODY_CRC_AT..])
    }

    /// Returns the body as stored.
    pub fn body(&self) -> &'a [u8] {
        &self.bytes[self.shape.layout.body()..self.shape.body_end()]
    }

    /// Returns the topic as stored.
    pub fn topic_bytes(&self) -> &'a [u8] {
        &self.bytes[self.shape.body_end() + self.version().topic_length_bytes()..self.shape.properties_at() - 2]
    }

    /// Returns the topic; bytes that are not UTF-8 are replaced.
    pub fn topic(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.topic_bytes())
    }

    /// Returns the properties.
    pub fn properties(&self) -> Properties<'a> {
        Properties::new(&self.bytes[self.shape.properties_at()..])
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
    /// - [`DecodeError::CrcProperty`] if the CRC property is damaged
    /// - [`DecodeError::Crc`] if the body's CRC is not the stored one
    /// - [`DecodeError::Crc`] if the record's CRC is not the stored one
    pub fn verify(&self) -> Result<CrcProperty, DecodeError> {
        let property = self.crc_property();
        #[cfg(test)]
        if property == CrcProperty::Damaged && crate::planted::is(crate::planted::Planted::NearMissAccepted) {
            return Ok(CrcProperty::Present(0));
        }
        let (body, record) = match property {
            CrcProperty::Damaged => return Err(DecodeError::CrcProperty),
            CrcProperty::Absent => (crc32fast::hash(self.body()), None),
            CrcProperty::Present(stored) => {
                let (body, record) = self.both_crcs();
                (body, Some((stored, record)))
            }
        };
        if !self.body().is_empty() {
            compare_crcs("body", self.body_crc(), body)?;
        }
        record.map_or(Ok(()), |(stored, record)| compare_crcs("record", stored, record))?;
        Ok(property)
    }

    /// Compares the checksum that covers most: the record's CRC if there is one, else the body's. `record` is the
    /// record's CRC if it was computed before, of the bytes that [`covered_by_crc`] says.
    ///
    /// What was stored by a writer that computes both comes out as in [`verify`](Self::verify), in half the time: the
    /// record's CRC covers the body too.
    pub(crate) fn verify_once(&self, record: Option<u32>) -> Result<CrcProperty, DecodeError> {
        let property = self.crc_property();
        let CrcProperty::Present(stored) = property else { return self.verify() };
        compare_crcs("record", stored, record.unwrap_or_else(|| crc32fast::hash(self.covered())))?;
        Ok(property)
    }

    /// What the CRC property covers; for a record that has one.
    fn covered(&self) -> &'a [u8] {
        &self.bytes[..self.bytes.len() - CRC_PROPERTY_BYTES]
    }

    /// Computes the CRC of the body and that of the record without its last property, reading a long body once.
    fn both_crcs(&self) -> (u32, u32) {
        let covered = self.covered();
        if self.body().len() < COMBINE_FROM_BYTES {
            return (crc32fast::hash(self.body()), crc32fast::hash(covered));
        }
        let mut record = crc32fast::Hasher::new();
        record.update(&covered[..self.shape.layout.body()]);
        let mut body = crc32fast::Hasher::new();
        body.update(self.body());
        record.combine(&body);
        record.update(&covered[self.shape.body_end()..]);
        (body.finalize(), record.finalize())
    }
}

/// What the CRC property of the record at the first byte of `bytes` would cover, as far as its length word says;
/// `None` if that is not there.
pub(crate) fn covered_by_crc(bytes: &[u8]) -> Option<&[u8]> {
    let total = u32::from_be_bytes(*bytes.first_chunk()?);
    bytes.get(..usize::try_from(total).ok()?.checked_sub(CRC_PROPERTY_BYTES)?)
}

/// Compares a stored CRC with a computed one.
fn compare_crcs(of: &'static str, stored: u32, computed: u32) -> Result<(), DecodeError> {
    let computed = mask_crc(computed);
    if stored == computed { Ok(()) } else { Err(DecodeError::Crc { of, stored, computed }) }
}

/// Checks that a record's or blank's length is not less than what its fields have at least.
fn at_least(total: usize, computed: usize) -> Result<(), DecodeError> {
    expect(total >= computed, "total size", total, computed)
}
