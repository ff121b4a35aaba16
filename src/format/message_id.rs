//! The two ids of a message, as hexadecimal text: where it is stored, and what its producer calls it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use byteorder::{BigEndian, ByteOrder};

use super::fields::{DecodeError, Number, read_address, write_address};

/// Why a text is not a message id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageIdError {
    /// The text has neither 32 nor 56 bytes.
    #[error("a message id has 32 or 56 digits, not {0}")]
    Length(usize),
    /// A byte is not a hexadecimal digit.
    #[error("no hexadecimal digit at {0}")]
    Digit(usize),
    /// The port is more than 65,535 or negative, or the log offset is negative.
    #[error(transparent)]
    Field(#[from] DecodeError),
}

/// The offset message id: the host of the store, and the record's place in its log.
///
/// # Layout
///
/// | bytes | field |
/// |---|---|
/// | 4 or 16 | address |
/// | 4 | port |
/// | 8 | log offset |
///
/// Written as 32 or 56 upper-case hexadecimal digits; lower case is read too.
///
/// # Examples
///
/// ```
/// use mqlog::format::message_id::OffsetMessageId;
/// let id = OffsetMessageId { host: "10.0.0.1:10911".parse()?, log_offset: 167 };
/// assert_eq!(id.to_string(), "0A00000100002A9F00000000000000A7");
/// assert_eq!("0A00000100002A9F00000000000000A7".parse(), Ok(id));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Source
///
/// RocketMQ's `MessageDecoder.createMessageId`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[doc(alias = "offsetMsgId")]
pub struct OffsetMessageId {
    /// The host of the store.
    pub host: SocketAddr,
    /// The record's position in the log.
    pub log_offset: u64,
}

impl fmt::Display for OffsetMessageId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; 28];
        let host_bytes = self.host.write(&mut bytes);
        BigEndian::write_u64(&mut bytes[host_bytes..], self.log_offset);
        write_hex(formatter, &bytes[..host_bytes + 8])
    }
}

impl FromStr for OffsetMessageId {
    type Err = MessageIdError;

    fn from_str(text: &str) -> Result<Self, MessageIdError> {
        let bytes = parse_hex(text)?;
        let (mut host, mut log_offset) = bytes.split_at(bytes.len() - 8);
        let host = SocketAddr::take(&mut host, "port")?;
        Ok(Self { host, log_offset: u64::take(&mut log_offset, "log offset")? })
    }
}

/// The id that a producer gives a message, the property UNIQ_KEY.
///
/// # Layout
///
/// | bytes | field | meaning |
/// |---|---|---|
/// | 4 or 16 | `address` | of the producer |
/// | 2 | `process` | lower bits of its process id |
/// | 4 | `loader_hash` | hash of its class loader |
/// | 4 | `time_ms` | since the beginning of the month, local time |
/// | 2 | `counter` | counts the producer's messages |
///
/// Written as 32 or 56 upper-case hexadecimal digits; lower case is read too.
///
/// # Examples
///
/// ```
/// use mqlog::format::message_id::UniqueId;
/// let id: UniqueId = "7F00000100002A139A5518B4AAC20000".parse()?;
/// assert_eq!(id.address.to_string(), "127.0.0.1");
/// assert_eq!((id.loader_hash, id.counter), (0x2A13_9A55, 0));
/// assert_eq!(id.to_string(), "7F00000100002A139A5518B4AAC20000");
/// # Ok::<(), mqlog::format::message_id::MessageIdError>(())
/// ```
///
/// # Source
///
/// RocketMQ's `MessageClientIDSetter`; ours only reads and writes the text and gives no ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[doc(alias = "UNIQ_KEY")]
pub struct UniqueId {
    /// The producer's address.
    pub address: IpAddr,
    /// The lower 16 bits of the producer's process id.
    pub process: u16,
    /// A hash of the producer's class loader.
    pub loader_hash: u32,
    /// When the message was made, in ms since the beginning of the month.
    pub time_ms: u32,
    /// Counts the producer's messages.
    pub counter: u16,
}

impl fmt::Display for UniqueId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; 16];
        let address_bytes = write_address(&mut bytes, self.address);
        write_hex(formatter, &bytes[..address_bytes])?;
        let Self { process, loader_hash, time_ms, counter, .. } = self;
        write!(formatter, "{process:04X}{loader_hash:08X}{time_ms:08X}{counter:04X}")
    }
}

impl FromStr for UniqueId {
    type Err = MessageIdError;

    fn from_str(text: &str) -> Result<Self, MessageIdError> {
        let bytes = parse_hex(text)?;
        let (address, rest) = bytes.split_last_chunk::<12>().expect("an id is longer");
        Ok(Self {
            address: read_address(address),
            process: BigEndian::read_u16(rest),
            loader_hash: BigEndian::read_u32(&rest[2..]),
            time_ms: BigEndian::read_u32(&rest[6..]),
            counter: BigEndian::read_u16(&rest[10..]),
        })
    }
}

fn write_hex(formatter: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(formatter, "{byte:02X}"))
}

/// Reads the digits of an id with an IPv4 or IPv6 address: 16 or 28 bytes.
fn parse_hex(text: &str) -> Result<Vec<u8>, MessageIdError> {
    if !matches!(text.len(), 32 | 56) {
        return Err(MessageIdError::Length(text.len()));
    }
    let digit = |(at, digit)| char::from(digit).to_digit(16).ok_or(MessageIdError::Digit(at));
    let digits: Vec<u32> = text.bytes().enumerate().map(digit).collect::<Result<_, _>>()?;
    Ok(digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UNIQUE: &str = "7F00000100002A139A5518B4AAC20000";

    #[test]
    fn lower_case_is_read() {
        assert_eq!(UNIQUE.to_lowercase().parse::<UniqueId>().unwrap().to_string(), UNIQUE);
    }

    #[test]
    fn other_texts_are_no_ids() {
        let parse = str::parse::<OffsetMessageId>;
        for have in 0..UNIQUE.len() {
            assert_eq!(parse(&UNIQUE[..have]), Err(MessageIdError::Length(have)));
        }
        assert_eq!(parse("0A00000100002A9F00000000000000G7"), Err(MessageIdError::Digit(30)));
        assert_eq!(
            parse("0A00000100012A9F00000000000000A7"),
            Err(DecodeError::Length { field: "port", value: 0x1_2A9F, limit: 65_535 }.into())
        );
        assert_eq!(
            parse("0A00000100002A9FFFFFFFFFFFFFFFFF"),
            Err(DecodeError::Negative { field: "log offset", value: -1 }.into())
        );
    }

    proptest! {
        #[test]
        fn ids_come_back(octets: [u8; 16], is_v4: bool, port: u16, log_offset in 0..=i64::MAX as u64, time_ms: u32) {
            let address = if is_v4 { IpAddr::from([octets[0], octets[1], octets[2], octets[3]]) } else { octets.into() };
            let id = OffsetMessageId { host: SocketAddr::new(address, port), log_offset };
            prop_assert_eq!(id.to_string().parse(), Ok(id));
            let id = UniqueId { address, process: port, loader_hash: !time_ms, time_ms, counter: !port };
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn any_text_never_panics(text in "\\PC{0,60}", digits in "[0-9a-gA-G]{32}|[0-9a-f]{56}") {
            let _ = (text.parse::<OffsetMessageId>(), text.parse::<UniqueId>());
            let _ = (digits.parse::<OffsetMessageId>(), digits.parse::<UniqueId>());
        }
    }
}
