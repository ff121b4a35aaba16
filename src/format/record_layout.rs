//! Where the fields of a record are, what its flags mean, and its CRCs.

use std::ops::{BitOr, Range};

use byteorder::{BigEndian, ByteOrder};

use super::fields::{DecodeError, Number};
use super::properties::VALUE_END;

/// Bytes of an end-of-file blank that mean something, and what must stay free behind the last record of a file.
#[doc(alias = "END_FILE_MIN_BLANK_LENGTH")]
pub const BLANK_BYTES: usize = 8;
/// The magic number of an end-of-file blank.
#[doc(alias = "BLANK_MAGIC_CODE")]
pub const BLANK_MAGIC: u32 = 0xCBD4_3194;
/// The longest encoded properties of a record, the CRC property included.
pub const MAX_PROPERTIES_BYTES: usize = i16::MAX as usize;
/// Bytes of the CRC property: its name of 8, a separator, 10 digits, a separator.
#[doc(alias = "CRC32_RESERVED_LEN")]
pub const CRC_PROPERTY_BYTES: usize = 20;
/// The CRC property of 0, from which the others differ in the [`CRC_DIGITS`].
pub(super) const CRC_PROPERTY: [u8; CRC_PROPERTY_BYTES] = *b"__CRC32#\x010000000000\x02";
/// Stands for a CRC property that was lost: it is damaged, whatever stands before it.
pub(crate) const LOST_CRC_PROPERTY: [u8; CRC_PROPERTY_BYTES] = *b"__CRC32#\x01----------\x02";
const CRC_DIGITS: Range<usize> = 9..19;

// Positions of fields that are used by themselves; `Layout` has those behind the first host.
pub(super) const MAGIC_AT: usize = 4;
pub(super) const BODY_CRC_AT: usize = 8;
pub(super) const QUEUE_OFFSET_AT: usize = 20;
pub(super) const LOG_OFFSET_AT: usize = 28;
pub(super) const SYS_FLAG_AT: usize = 36;
pub(super) const BORN_HOST_AT: usize = 48;

/// The two kinds of record, told apart by their magic number.
///
/// # Examples
///
/// ```
/// use mqlog::format::record::Version;
/// assert_eq!(Version::V1.magic(), 0xDAA3_20A7);
/// assert_eq!(Version::from_magic(0xDAA3_20AB), Some(Version::V2));
/// assert_eq!(Version::from_magic(0), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[doc(alias = "MessageVersion")]
#[repr(u32)]
pub enum Version {
    /// The topic's length is one byte. RocketMQ 4 knows only this one.
    V1 = 0xDAA3_20A7,
    /// The topic's length is two bytes.
    V2 = 0xDAA3_20AB,
}

impl Version {
    /// Returns the magic number.
    pub const fn magic(self) -> u32 {
        self as u32
    }

    /// Returns the version with this magic number.
    pub const fn from_magic(magic: u32) -> Option<Self> {
        match magic {
            0xDAA3_20A7 => Some(Self::V1),
            0xDAA3_20AB => Some(Self::V2),
            _ => None,
        }
    }

    /// Returns the longest topic that the (signed) length field holds.
    pub const fn max_topic_bytes(self) -> usize {
        (1 << (8 * self.topic_length_bytes() - 1)) - 1
    }

    /// Returns the bytes of the topic's length field.
    pub const fn topic_length_bytes(self) -> usize {
        if matches!(self, Self::V1) { 1 } else { 2 }
    }
}

/// What a record's transaction bits say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transaction {
    /// An ordinary message.
    None,
    /// The first half of a transaction, not to be shown.
    Prepared,
    /// A message whose transaction was committed.
    Commit,
    /// A transaction that was rolled back.
    Rollback,
}

/// The system flag: a set of bits.
///
/// # Layout
///
/// | bit | constant | meaning |
/// |---|---|---|
/// | 0 | [`COMPRESSED`](Self::COMPRESSED) | the body is compressed |
/// | 1 | [`MULTI_TAGS`](Self::MULTI_TAGS) | TAGS holds several |
/// | 2-3 | [`TRANSACTION_MASK`](Self::TRANSACTION_MASK) | 0 none, 1 prepared, 2 commit, 3 rollback |
/// | 4 | [`BORN_HOST_V6`](Self::BORN_HOST_V6) | the born host has 20 bytes |
/// | 5 | [`STORE_HOST_V6`](Self::STORE_HOST_V6) | the store host has 20 bytes |
/// | 6 | [`NEED_UNWRAP`](Self::NEED_UNWRAP) | a consumer must unwrap the body |
/// | 7 | [`INNER_BATCH`](Self::INNER_BATCH) | the body is a batch of messages |
/// | 8-10 | [`COMPRESSION_MASK`](Self::COMPRESSION_MASK) | 0 and 3 zlib, 1 LZ4, 2 zstd |
///
/// # Examples
///
/// ```
/// use mqlog::format::record::{SysFlag, Transaction};
/// let flag = SysFlag::PREPARED | SysFlag::BORN_HOST_V6;
/// assert!(flag.has(SysFlag::BORN_HOST_V6) && !flag.has(SysFlag::STORE_HOST_V6));
/// assert_eq!(flag.transaction(), Transaction::Prepared);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[doc(alias = "MessageSysFlag")]
pub struct SysFlag(pub i32);

impl SysFlag {
    /// The body is compressed.
    pub const COMPRESSED: Self = Self(0x1);
    /// TAGS holds several tags.
    pub const MULTI_TAGS: Self = Self(0x2);
    /// The two bits of the transaction.
    pub const TRANSACTION_MASK: Self = Self(0xC);
    /// The first half of a transaction.
    pub const PREPARED: Self = Self(0x4);
    /// A committed transaction.
    pub const COMMIT: Self = Self(0x8);
    /// A transaction that was rolled back.
    pub const ROLLBACK: Self = Self(0xC);
    /// The born host is an IPv6 address.
    pub const BORN_HOST_V6: Self = Self(0x10);
    /// The store host is an IPv6 address.
    pub const STORE_HOST_V6: Self = Self(0x20);
    /// A consumer must unwrap the inner batch.
    pub const NEED_UNWRAP: Self = Self(0x40);
    /// The body is a batch of messages.
    pub const INNER_BATCH: Self = Self(0x80);
    /// The three bits of the compression's kind.
    pub const COMPRESSION_MASK: Self = Self(0x700);

    /// Tells whether all bits of `bits` are set.
    pub const fn has(self, bits: Self) -> bool {
        self.0 & bits.0 == bits.0
    }

    /// Returns this flag with the bits of `bits` set, or cleared.
    pub const fn with(self, bits: Self, set: bool) -> Self {
        if set { Self(self.0 | bits.0) } else { Self(self.0 & !bits.0) }
    }

    /// Returns what the transaction bits say.
    pub const fn transaction(self) -> Transaction {
        match (self.has(Self::PREPARED), self.has(Self::COMMIT)) {
            (false, false) => Transaction::None,
            (true, false) => Transaction::Prepared,
            (false, true) => Transaction::Commit,
            (true, true) => Transaction::Rollback,
        }
    }
}

impl BitOr for SysFlag {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Number for SysFlag {
    fn take(bytes: &mut &[u8], field: &'static str) -> Result<Self, DecodeError> {
        i32::take(bytes, field).map(Self)
    }

    fn write(self, bytes: &mut [u8]) -> usize {
        self.0.write(bytes)
    }
}

/// The positions that depend on the sizes of the two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    born_host_bytes: u8,
    store_host_bytes: u8,
}

impl Layout {
    /// The layout of two IPv4 hosts.
    pub(super) const MIN: Self = Self::of(SysFlag(0));

    /// Returns the layout that the flag's two host bits ask for.
    pub(super) const fn of(sys_flag: SysFlag) -> Self {
        let born_host_bytes = if sys_flag.has(SysFlag::BORN_HOST_V6) { 20 } else { 8 };
        let store_host_bytes = if sys_flag.has(SysFlag::STORE_HOST_V6) { 20 } else { 8 };
        Self { born_host_bytes, store_host_bytes }
    }

    /// Returns the layout of a record whose system flag is there.
    pub(super) fn of_record(record: &[u8]) -> Self {
        Self::of(SysFlag(BigEndian::read_i32(&record[SYS_FLAG_AT..])))
    }

    pub(super) const fn store_ms(self) -> usize {
        BORN_HOST_AT + self.born_host_bytes as usize
    }

    pub(super) const fn store_host(self) -> usize {
        self.store_ms() + 8
    }

    pub(super) const fn reconsume_times(self) -> usize {
        self.store_host() + self.store_host_bytes as usize
    }

    /// Position of the body, behind its length. The topic's length follows the body.
    pub(super) const fn body(self) -> usize {
        self.reconsume_times() + 16
    }
}

/// The longest header: both hosts IPv6, up to the body.
pub(super) const MAX_HEADER_BYTES: usize = Layout::of(SysFlag(0x30)).body();

const _: () = assert!(Layout::MIN.body() == 88 && MAX_HEADER_BYTES == 112);

/// Computes the CRC that a record stores of its body: the lower 31 bits of CRC-32, and 0 of an empty body.
///
/// # Examples
///
/// ```
/// assert_eq!(mqlog::format::record::body_crc(b"hello0"), 0x7036_E992);
/// assert_eq!(mqlog::format::record::body_crc(b""), 0);
/// ```
pub fn body_crc(body: &[u8]) -> u32 {
    mask_crc(crc32fast::hash(body))
}

/// Drops the sign bit, as the format does with every CRC it stores.
pub(super) const fn mask_crc(crc: u32) -> u32 {
    crc & 0x7FFF_FFFF
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
    /// There was one: its fixed bytes differ in one or two places, its digits are not a CRC, or its end was lost and
    /// reads as zeros.
    Damaged,
}

impl CrcProperty {
    /// Looks at the last 20 bytes of encoded properties.
    ///
    /// Bytes that are right in every fixed place count whatever stands before them, so that no flipped bit before them
    /// takes the CRC away from a record. Bytes that are nearly right count if they are a property of their own, and so do
    /// a beginning of it and then zeros: what a crash or a cut file takes from a record's end reads as zeros.
    pub fn of(properties: &[u8]) -> Self {
        let Some((before, property)) = properties.split_last_chunk::<CRC_PROPERTY_BYTES>() else {
            return Self::Absent;
        };
        let differing =
            |at: Range<usize>| property[at.clone()].iter().zip(&CRC_PROPERTY[at]).filter(|(a, b)| a != b).count();
        let wrong = differing(0..CRC_DIGITS.start) + differing(CRC_DIGITS.end..CRC_PROPERTY_BYTES);
        let is_own = before.last().is_none_or(|last| *last == VALUE_END);
        match wrong {
            0 => digits_value(&property[CRC_DIGITS]).map_or(Self::Damaged, Self::Present),
            1 | 2 if is_own => Self::Damaged,
            _ if is_own && is_cut(property) => Self::Damaged,
            _ => Self::Absent,
        }
    }
}

/// Is this a beginning of the fixed bytes, and then nothing but zeros?
fn is_cut(property: &[u8; CRC_PROPERTY_BYTES]) -> bool {
    let kept = property.iter().zip(&CRC_PROPERTY).take_while(|(byte, fixed)| byte == fixed).count();
    property[kept..].iter().all(|byte| *byte == 0)
}

/// Reads the digits, the last one first; `None` if they are no digits or no CRC of 31 bits.
fn digits_value(digits: &[u8]) -> Option<u32> {
    let append = |value: u64, digit: &u8| Some(value * 10 + u64::from(char::from(*digit).to_digit(10)?));
    let value = digits.iter().rev().try_fold(0, append)?;
    u32::try_from(value).ok().filter(|value| *value == mask_crc(*value))
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
