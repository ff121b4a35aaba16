//! Reading signed fields that must not be negative, for the structures of a fixed size.

use byteorder::{BigEndian, ByteOrder};

/// Why bytes are not a queue entry, an index header, or another structure of a fixed size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// The bytes end before the structure does.
    #[error("{have} bytes where {need} are needed")]
    TooShort {
        /// The bytes that the structure has.
        need: usize,
        /// The bytes that were given.
        have: usize,
    },
    /// A number that is never negative is negative.
    #[error("{field} is negative: {value}")]
    Negative {
        /// The field's name in this crate.
        field: &'static str,
        /// What is stored.
        value: i64,
    },
    /// A length or count that contradicts the rest of the structure.
    #[error("{field} is {value} where {expected} is expected")]
    Mismatch {
        /// The field's name in this crate.
        field: &'static str,
        /// What is stored.
        value: u64,
        /// What the rest of the structure asks for, or the smallest possible value.
        expected: u64,
    },
}

/// Takes the first `N` bytes.
pub(super) fn first<const N: usize>(bytes: &[u8]) -> Result<&[u8; N], EntryError> {
    bytes.first_chunk().ok_or(EntryError::TooShort { need: N, have: bytes.len() })
}

/// Reads a 64-bit number that is never negative.
pub(super) fn unsigned_64(bytes: &[u8], field: &'static str) -> Result<u64, EntryError> {
    let value = BigEndian::read_i64(bytes);
    u64::try_from(value).map_err(|_| EntryError::Negative { field, value })
}

/// Reads a 32-bit number that is never negative.
pub(super) fn unsigned_32(bytes: &[u8], field: &'static str) -> Result<u32, EntryError> {
    let value = BigEndian::read_i32(bytes);
    u32::try_from(value).map_err(|_| EntryError::Negative { field, value: value.into() })
}

/// Writes a 64-bit number that the file's signed field has to hold.
pub(super) fn write_64(bytes: &mut [u8], value: u64) {
    assert!(value <= i64::MAX as u64, "a stored number has 63 bits");
    BigEndian::write_u64(bytes, value);
}

/// Writes a 32-bit number that the file's signed field has to hold.
pub(super) fn write_32(bytes: &mut [u8], value: u32) {
    assert!(value <= i32::MAX as u32, "a stored number has 31 bits");
    BigEndian::write_u32(bytes, value);
}
