//! How everything here is decoded: numbers one after the other, of which those that are never negative leave the sign
//! bit free; and why bytes are not what they should be.

use std::net::{IpAddr, SocketAddr};

/// Why bytes are not a whole record, a queue entry, or another structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Length and magic number of a record are both 0: nothing was written here.
    #[error("nothing was written here")]
    Zero,
    /// The bytes end before the structure does.
    #[error("{have} bytes where {need} are needed")]
    TooShort {
        /// The bytes that the structure says it has, or that its beginning has.
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
    /// A length does not fit into its structure, there are more items than allowed, or a port is none.
    #[error("{field} is {value}, more than {limit}")]
    Length {
        /// The field's name in this crate.
        field: &'static str,
        /// What is stored.
        value: u64,
        /// The largest possible value.
        limit: u64,
    },
    /// A length or count that contradicts the rest of the structure.
    #[error("{field} is {stored} where {computed} is expected")]
    Mismatch {
        /// The field's name in this crate.
        field: &'static str,
        /// What is stored.
        stored: u64,
        /// What the rest of the structure adds up to, or the smallest possible value.
        computed: u64,
    },
    /// A CRC is not the stored one.
    #[error("the {of}'s CRC is {computed:#010X}, stored is {stored:#010X}")]
    Crc {
        /// What it covers: `body`, or `record` for all but the CRC property.
        of: &'static str,
        /// The CRC in the record's header, or in its last property.
        stored: u32,
        /// The CRC of the bytes.
        computed: u32,
    },
    /// The CRC property itself is damaged.
    #[error("the record's CRC property is damaged")]
    CrcProperty,
}

/// Takes the first `need` bytes.
pub(super) fn first_bytes(bytes: &[u8], need: usize) -> Result<&[u8], DecodeError> {
    bytes.get(..need).ok_or(DecodeError::TooShort { need, have: bytes.len() })
}

/// Turns a stored length into one that is not negative and at most `limit`.
pub(super) fn length(field: &'static str, stored: i32, limit: usize) -> Result<usize, DecodeError> {
    let length = usize::try_from(stored).map_err(|_| DecodeError::Negative { field, value: stored.into() })?;
    let too_long = DecodeError::Length { field, value: length as u64, limit: limit as u64 };
    if length > limit { Err(too_long) } else { Ok(length) }
}

/// Makes an error of two numbers that should be the same, or the first not less.
pub(super) fn expect(holds: bool, field: &'static str, stored: usize, computed: usize) -> Result<(), DecodeError> {
    let mismatch = DecodeError::Mismatch { field, stored: stored as u64, computed: computed as u64 };
    if holds { Ok(()) } else { Err(mismatch) }
}

/// A number, or what is made of numbers, as a structure holds it.
pub(super) trait Number: Sized {
    /// Reads the number at the first byte of `bytes`, and moves behind it.
    fn take(bytes: &mut &[u8], field: &'static str) -> Result<Self, DecodeError>;

    /// Writes the number over the first of `bytes`, and returns how many it took.
    fn write(self, bytes: &mut [u8]) -> usize;
}

macro_rules! numbers {
    ($($kind:ident as $stored:ident),*) => {$(
        impl Number for $kind {
            fn take(bytes: &mut &[u8], field: &'static str) -> Result<Self, DecodeError> {
                let have = bytes.len();
                let (taken, rest) =
                    bytes.split_first_chunk().ok_or(DecodeError::TooShort { need: size_of::<Self>(), have })?;
                *bytes = rest;
                let value = $stored::from_be_bytes(*taken);
                Self::try_from(value).map_err(|_| DecodeError::Negative { field, value: value.into() })
            }

            fn write(self, bytes: &mut [u8]) -> usize {
                let stored = $stored::try_from(self).expect("a stored number leaves the sign bit free");
                bytes[..size_of::<Self>()].copy_from_slice(&stored.to_be_bytes());
                size_of::<Self>()
            }
        }
    )*};
}

numbers!(i32 as i32, i64 as i64, u16 as i16, u32 as i32, u64 as i64);

impl Number for SocketAddr {
    /// Reads the host that is all of `bytes`.
    fn take(bytes: &mut &[u8], field: &'static str) -> Result<Self, DecodeError> {
        let (address, mut port) = bytes.split_at(bytes.len() - 4);
        let port = length(field, i32::take(&mut port, field)?, u16::MAX.into())?;
        Ok(Self::new(read_address(address), port as u16))
    }

    fn write(self, bytes: &mut [u8]) -> usize {
        let address_bytes = write_address(bytes, self.ip());
        address_bytes + u32::from(self.port()).write(&mut bytes[address_bytes..])
    }
}

/// Writes an address over the first of `bytes`, and returns how many it took.
pub(super) fn write_address(bytes: &mut [u8], address: IpAddr) -> usize {
    let mut write = |octets: &[u8]| {
        bytes[..octets.len()].copy_from_slice(octets);
        octets.len()
    };
    match address {
        IpAddr::V4(address) => write(&address.octets()),
        IpAddr::V6(address) => write(&address.octets()),
    }
}

/// Reads the address that is all of `bytes`.
pub(super) fn read_address(bytes: &[u8]) -> IpAddr {
    let v6 = bytes.first_chunk::<16>().map(|octets| IpAddr::from(*octets));
    v6.unwrap_or_else(|| IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// Defines a structure of numbers in their order and its bytes, each number with the name that an error gives it; `..`
/// and an array stand for bytes at the end that are always the same. It is read by the function that is named.
macro_rules! structure {
    ($(#[$meta:meta])* pub struct $name:ident: $bytes:literal, $vis:vis $read:ident {
        $($(#[$doc:meta])* pub $field:ident: $kind:ty $(= $text:literal)?,)* $(.. $end:expr)?
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name {
            $($(#[$doc])* pub $field: $kind,)*
        }

        const _: () = assert!($bytes == 0 $(+ size_of::<$kind>())* $(+ $end.len())?);

        impl $name {
            /// Bytes of the fields.
            pub const BYTES: usize = $bytes;

            /// Returns the bytes of the fields.
            ///
            /// # Panics
            ///
            /// If a number does not fit its signed field.
            pub fn encode(&self) -> [u8; Self::BYTES] {
                let mut bytes = [0; Self::BYTES];
                let mut at = 0;
                $(at += super::fields::Number::write(self.$field, &mut bytes[at..]);)*
                $(bytes[at..].copy_from_slice(&$end);)?
                bytes
            }

            /// Decodes the fields at the first of `bytes`.
            ///
            /// # Errors
            ///
            /// - [`DecodeError::TooShort`] if there are less than [`BYTES`](Self::BYTES)
            /// - [`DecodeError::Negative`] if a number is that never is
            $vis fn $read(bytes: &[u8]) -> Result<Self, DecodeError> {
                let mut rest = super::fields::first_bytes(bytes, Self::BYTES)?;
                Ok(Self { $($field: super::fields::Number::take(&mut rest, concat!($($text)?))?,)* })
            }
        }
    };
}

pub(super) use structure;
