//! RocketMQ's `checkpoint` file: how far its flushing had come.

use byteorder::{BigEndian, ByteOrder};

pub use super::fields::EntryError;
use super::fields::first;

const LOG_MS_AT: usize = 0;
const QUEUE_MS_AT: usize = LOG_MS_AT + 8;
const INDEX_MS_AT: usize = QUEUE_MS_AT + 8;
const MASTER_FLUSHED_OFFSET_AT: usize = INDEX_MS_AT + 8;
const CONFIRM_OFFSET_AT: usize = MASTER_FLUSHED_OFFSET_AT + 8;

/// What the checkpoint file holds.
///
/// # Layout
///
/// | at | bytes | field | meaning |
/// |---|---|---|---|
/// | 0 | 8 | `log_ms` | store time of the last flushed record |
/// | 8 | 8 | `queue_ms` | store time of the last flushed queue entry |
/// | 16 | 8 | `index_ms` | end time of the last full index file |
/// | 24 | 8 | `master_flushed_offset` | RocketMQ 5 only, else 0 |
/// | 32 | 8 | `confirm_offset` | RocketMQ 5 only, else 0 |
///
/// The file has [`FILE_BYTES`](Self::FILE_BYTES), the rest is 0.
///
/// # Examples
///
/// ```
/// use mqlog::format::checkpoint::Checkpoint;
/// let checkpoint = Checkpoint { log_ms: 1_700_000_000_000, ..Checkpoint::default() };
/// assert_eq!(Checkpoint::decode(&checkpoint.encode()), Ok(checkpoint));
/// ```
///
/// # Source
///
/// RocketMQ's `StoreCheckpoint`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[doc(alias = "StoreCheckpoint")]
pub struct Checkpoint {
    /// Store time of the last flushed record, in ms since 1970.
    #[doc(alias = "physicMsgTimestamp")]
    pub log_ms: i64,
    /// Store time of the last flushed queue entry, in ms since 1970.
    #[doc(alias = "logicsMsgTimestamp")]
    pub queue_ms: i64,
    /// End time of the last full index file, in ms since 1970.
    #[doc(alias = "indexMsgTimestamp")]
    pub index_ms: i64,
    /// How far the master's log is flushed, as a slave knows it.
    #[doc(alias = "masterFlushedOffset")]
    pub master_flushed_offset: i64,
    /// How far the log is confirmed by its replicas.
    #[doc(alias = "confirmPhyOffset")]
    pub confirm_offset: i64,
}

impl Checkpoint {
    /// Bytes of the five fields.
    pub const BYTES: usize = CONFIRM_OFFSET_AT + 8;
    /// Bytes of the file.
    pub const FILE_BYTES: usize = 4096;

    /// Returns the five fields' bytes, the beginning of the file.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        BigEndian::write_i64(&mut bytes[LOG_MS_AT..], self.log_ms);
        BigEndian::write_i64(&mut bytes[QUEUE_MS_AT..], self.queue_ms);
        BigEndian::write_i64(&mut bytes[INDEX_MS_AT..], self.index_ms);
        BigEndian::write_i64(&mut bytes[MASTER_FLUSHED_OFFSET_AT..], self.master_flushed_offset);
        BigEndian::write_i64(&mut bytes[CONFIRM_OFFSET_AT..], self.confirm_offset);
        bytes
    }

    /// Reads the fields from the beginning of the file; any numbers are taken.
    ///
    /// # Errors
    ///
    /// [`EntryError::TooShort`] if there are less than [`BYTES`](Self::BYTES).
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        let bytes = first::<{ Self::BYTES }>(bytes)?;
        Ok(Self {
            log_ms: BigEndian::read_i64(&bytes[LOG_MS_AT..]),
            queue_ms: BigEndian::read_i64(&bytes[QUEUE_MS_AT..]),
            index_ms: BigEndian::read_i64(&bytes[INDEX_MS_AT..]),
            master_flushed_offset: BigEndian::read_i64(&bytes[MASTER_FLUSHED_OFFSET_AT..]),
            confirm_offset: BigEndian::read_i64(&bytes[CONFIRM_OFFSET_AT..]),
        })
    }
}

const _: () = assert!(Checkpoint::BYTES == 40);
