//! A stand-in for the crate's error type: only what `message` needs.

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A part of a message is longer than its limit.
    #[error("{field} has {value} bytes, more than the limit of {limit}")]
    TooLarge {
        /// The part of the message.
        field: &'static str,
        /// Its length in bytes.
        value: u64,
        /// The longest allowed length in bytes.
        limit: u64,
    },
    /// A message cannot be stored as it is.
    #[error("invalid {field}: {reason}")]
    InvalidMessage {
        /// The part of the message.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}
