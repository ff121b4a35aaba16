//! Structures of a fixed size: numbers one after the other, of which those that are never negative leave the sign bit
//! free.

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

/// A number as a structure holds it.
pub(super) trait Number: Sized {
    /// Reads the number at the first byte of `bytes`, and moves behind it.
    fn take(bytes: &mut &[u8], field: &'static str) -> Result<Self, EntryError>;

    /// Writes the number over the first of `bytes`, and returns how many it took.
    fn write(self, bytes: &mut [u8]) -> usize;
}

macro_rules! numbers {
    ($($kind:ident as $stored:ident),*) => {$(
        impl Number for $kind {
            fn take(bytes: &mut &[u8], field: &'static str) -> Result<Self, EntryError> {
                let value = $stored::from_be_bytes(*first(bytes)?);
                *bytes = &bytes[size_of::<Self>()..];
                Self::try_from(value).map_err(|_| EntryError::Negative { field, value: value.into() })
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

/// Defines a structure of numbers in their order, each with the name that an error gives it; `..` and an array stand for
/// bytes at the end that are always the same.
macro_rules! structure {
    ($(#[$meta:meta])* pub struct $name:ident {
        $($(#[$doc:meta])* pub $field:ident: $kind:ty $(= $text:literal)?,)* $(.. $end:expr)?
    }) => {
        $(#[$meta])*
        pub struct $name {
            $($(#[$doc])* pub $field: $kind,)*
        }

        impl $name {
            /// Bytes of the fields.
            pub const BYTES: usize = 0 $(+ size_of::<$kind>())* $(+ $end.len())?;

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

            /// Reads the fields at the first of `bytes`.
            fn read(bytes: &[u8]) -> Result<Self, EntryError> {
                let mut rest = &super::fields::first::<{ Self::BYTES }>(bytes)?[..];
                Ok(Self { $($field: super::fields::Number::take(&mut rest, concat!($($text)?))?,)* })
            }
        }
    };
}

pub(super) use structure;
