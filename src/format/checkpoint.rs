//! RocketMQ's `checkpoint` file: how far its flushing had come.

use super::fields::{DecodeError, structure};

structure! {
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
    #[derive(Default)]
    #[doc(alias("StoreCheckpoint", "physicMsgTimestamp", "logicsMsgTimestamp", "indexMsgTimestamp", "confirmPhyOffset"))]
    pub struct Checkpoint: 40, pub decode {
        /// Store time of the last flushed record, in ms since 1970.
        pub log_ms: i64,
        /// Store time of the last flushed queue entry, in ms since 1970.
        pub queue_ms: i64,
        /// End time of the last full index file, in ms since 1970.
        pub index_ms: i64,
        /// How far the master's log is flushed, as a slave knows it.
        pub master_flushed_offset: i64,
        /// How far the log is confirmed by its replicas.
        pub confirm_offset: i64,
    }
}

impl Checkpoint {
    /// Bytes of the file.
    pub const FILE_BYTES: usize = 4096;
}
