//! The way in: fields become the bytes of a record.

use std::net::SocketAddr;

use byteorder::{BigEndian, ByteOrder};

use super::properties::VALUE_END;
use super::record_layout::{
    BLANK_BYTES, BLANK_MAGIC, BODY_CRC_AT, BORN_HOST_AT, BORN_MS_AT, CRC_DIGITS, CRC_PROPERTY, CRC_PROPERTY_BYTES,
    FLAG_AT, LOG_OFFSET_AT, Layout, MAGIC_AT, MAX_HEADER_BYTES, MAX_PROPERTIES_BYTES, QUEUE_ID_AT, QUEUE_OFFSET_AT,
    SYS_FLAG_AT, SysFlag, Version, body_crc, mask_crc, write_host,
};

/// Whether a record carries the CRC property, which covers the whole record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[doc(alias = "enabledAppendPropCRC")]
pub enum RecordCrc {
    /// The last 20 bytes of the properties are the CRC property.
    On,
    /// The properties are stored as given.
    Off,
}

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
pub struct RecordFields<'a> {
    /// The kind of record: decides how long the topic may be.
    pub version: Version,
    /// The queue of the topic.
    pub queue_id: i32,
    /// The user's flag.
    pub flag: i32,
    /// The message's number in its queue.
    pub queue_offset: u64,
    /// The record's position in the log.
    pub log_offset: u64,
    /// The system flag; its two host bits are set from the hosts.
    pub sys_flag: SysFlag,
    /// When the producer made the message, in ms since 1970.
    pub born_ms: i64,
    /// Where the producer is.
    pub born_host: SocketAddr,
    /// When the message was stored, in ms since 1970.
    pub store_ms: i64,
    /// Where the store is.
    pub store_host: SocketAddr,
    /// How often a consumer gave the message back.
    pub reconsume_times: i32,
    /// The log offset of the transaction's prepared record, else 0.
    pub prepared_transaction_offset: i64,
    /// The body as stored.
    pub body: &'a [u8],
    /// The topic in UTF-8.
    pub topic: &'a [u8],
    /// The encoded properties.
    pub properties: &'a [u8],
}

impl RecordFields<'_> {
    /// Returns the length of the record that [`encode`](Self::encode) makes.
    pub fn record_bytes(&self, crc: RecordCrc) -> usize {
        Layout::of(self.stored_flag()).body()
            + self.body.len()
            + self.version.topic_length_bytes()
            + self.topic.len()
            + 2
            + self.properties_bytes(crc)
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
        let record_bytes = self.record_bytes(crc);
        let properties_bytes = self.properties_bytes(crc);
        assert!(self.topic.len() <= self.version.max_topic_bytes(), "the topic fits its length field");
        assert!(properties_bytes <= MAX_PROPERTIES_BYTES, "the properties fit their length field");

        out.reserve(record_bytes);
        self.encode_header(record_bytes, out);
        out.extend_from_slice(self.body);
        match self.version {
            Version::V1 => out.push(self.topic.len() as u8),
            Version::V2 => out.extend_from_slice(&(self.topic.len() as u16).to_be_bytes()),
        }
        out.extend_from_slice(self.topic);
        out.extend_from_slice(&(properties_bytes as u16).to_be_bytes());
        out.extend_from_slice(self.properties);
        if crc == RecordCrc::On {
            if self.needs_separator() {
                out.push(VALUE_END);
            }
            out.extend_from_slice(&CRC_PROPERTY);
        }
    }

    /// Appends everything in front of the body.
    fn encode_header(&self, record_bytes: usize, out: &mut Vec<u8>) {
        let total = i32::try_from(record_bytes).expect("a record fits its length field");
        let sys_flag = self.stored_flag();
        let layout = Layout::of(sys_flag);
        let mut header = [0; MAX_HEADER_BYTES];
        BigEndian::write_i32(&mut header, total);
        BigEndian::write_u32(&mut header[MAGIC_AT..], self.version.magic());
        BigEndian::write_u32(&mut header[BODY_CRC_AT..], body_crc(self.body));
        BigEndian::write_i32(&mut header[QUEUE_ID_AT..], self.queue_id);
        BigEndian::write_i32(&mut header[FLAG_AT..], self.flag);
        BigEndian::write_i32(&mut header[SYS_FLAG_AT..], sys_flag.0);
        BigEndian::write_i64(&mut header[BORN_MS_AT..], self.born_ms);
        write_host(&mut header[BORN_HOST_AT..], canonical(self.born_host));
        write_host(&mut header[layout.store_host()..], canonical(self.store_host));
        BigEndian::write_i32(&mut header[layout.reconsume_times()..], self.reconsume_times);
        BigEndian::write_i64(&mut header[layout.prepared_transaction_offset()..], self.prepared_transaction_offset);
        BigEndian::write_u32(&mut header[layout.body_length()..], self.body.len() as u32);
        place(&mut header, self.queue_offset, self.log_offset, self.store_ms);
        out.extend_from_slice(&header[..layout.body()]);
    }

    /// Returns the flag with the host bits that the hosts ask for.
    fn stored_flag(&self) -> SysFlag {
        self.sys_flag
            .with(SysFlag::BORN_HOST_V6, canonical(self.born_host).is_ipv6())
            .with(SysFlag::STORE_HOST_V6, canonical(self.store_host).is_ipv6())
    }

    fn properties_bytes(&self, crc: RecordCrc) -> usize {
        let crc_property = usize::from(self.needs_separator()) + CRC_PROPERTY_BYTES;
        self.properties.len() + if crc == RecordCrc::On { crc_property } else { 0 }
    }

    /// Tells whether the CRC property needs a separator in front of it.
    fn needs_separator(&self) -> bool {
        self.properties.last().is_some_and(|last| *last != VALUE_END)
    }
}

/// Unwraps an IPv4 address in an IPv6 one: Java would read it back as IPv4, and the record's length would change.
fn canonical(host: SocketAddr) -> SocketAddr {
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
    assert!(queue_offset <= i64::MAX as u64 && log_offset <= i64::MAX as u64, "a stored offset has 63 bits");
    BigEndian::write_u64(&mut record[QUEUE_OFFSET_AT..], queue_offset);
    BigEndian::write_u64(&mut record[LOG_OFFSET_AT..], log_offset);
    let store_ms_at = Layout::of(SysFlag(BigEndian::read_i32(&record[SYS_FLAG_AT..]))).store_ms();
    BigEndian::write_i64(&mut record[store_ms_at..], store_ms);
}

/// Returns the position behind the store time, from which on a record does not depend on its place but for its CRC.
///
/// # Panics
///
/// If `record` ends before its born time.
pub fn settled_from(record: &[u8]) -> usize {
    Layout::of(SysFlag(BigEndian::read_i32(&record[SYS_FLAG_AT..]))).store_host()
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

/// Writes the ten digits of `crc` into a CRC property.
///
/// `crc` is the CRC-32 of the record without its last 20 bytes; what is written are its lower 31 bits, the last digit
/// first.
///
/// # Examples
///
/// ```
/// let mut property = *b"__CRC32#\x010000000000\x02";
/// mqlog::format::record::write_crc_digits(&mut property, 1_876_730_596);
/// assert_eq!(&property, b"__CRC32#\x016950376781\x02");
/// ```
pub fn write_crc_digits(property: &mut [u8; CRC_PROPERTY_BYTES], crc: u32) {
    let mut rest = mask_crc(crc);
    for digit in &mut property[CRC_DIGITS] {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
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
