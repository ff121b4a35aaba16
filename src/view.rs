//! What a caller gets: a record in a pinned slice.

use std::borrow::Cow;
use std::net::SocketAddr;

use crate::format::properties::Properties;
use crate::format::record::{RecordError, RecordView, SysFlag, Version};
use crate::mapped_file::Slice;
use crate::offset::{LogOffset, QueueOffset};

/// A message as it is stored: the whole record, checked when it was read, without a copy.
///
/// It keeps its bytes readable for as long as it lives, whatever happens to the store.
///
/// # Examples
/// ```
/// use mqlog::{Message, MessageStore, StoreOptions};
/// # let dir = tempfile::tempdir()?;
/// let store = MessageStore::open(StoreOptions::new(dir.path()))?;
/// let put = store.put(Message::new("orders").tags("paid").keys(["o-17", "c-4"]).property("region", "eu").body(b"42"))?;
/// let message = store.read(put.log_offset)?;
/// drop(store);
/// assert_eq!((message.topic().as_ref(), message.body()), ("orders", &b"42"[..]));
/// assert_eq!(message.keys().collect::<Vec<_>>(), ["o-17", "c-4"]);
/// assert_eq!(message.property("region").as_deref(), Some("eu"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct MessageView {
    record: Slice,
}

impl MessageView {
    /// Takes a slice that begins with a record; what follows is cut off.
    pub(crate) fn new(bytes: &Slice) -> Result<Self, RecordError> {
        let len = RecordView::decode(bytes)?.bytes().len();
        Ok(Self { record: bytes.slice(0..len) })
    }

    /// The borrowed view of the same record, for everything that has no getter here.
    ///
    /// # Panics
    /// Never: the record was decoded when this value was made, and its bytes do not change.
    #[must_use]
    pub fn record(&self) -> RecordView<'_> {
        RecordView::decode(&self.record).expect("a view is made of a whole record, which never changes")
    }

    /// The whole record as it stands in the log.
    #[must_use]
    pub fn bytes(&self) -> &Slice {
        &self.record
    }

    /// Length of the record in bytes.
    #[must_use]
    pub fn record_bytes(&self) -> u32 {
        self.record().record_bytes()
    }

    /// Where the record begins in the log.
    #[must_use]
    pub fn log_offset(&self) -> LogOffset {
        LogOffset::new(self.record().log_offset())
    }

    /// Where the record ends in the log.
    #[must_use]
    pub fn end(&self) -> LogOffset {
        self.log_offset() + u64::from(self.record_bytes())
    }

    /// The message's number in its queue; 0 for a prepared or rolled-back message.
    #[must_use]
    pub fn queue_offset(&self) -> QueueOffset {
        QueueOffset::new(self.record().queue_offset())
    }

    /// The topic; bytes that are no UTF-8 come as replacement characters.
    #[must_use]
    pub fn topic(&self) -> Cow<'_, str> {
        self.record().topic()
    }

    /// The queue of the topic.
    #[must_use]
    pub fn queue_id(&self) -> i32 {
        self.record().queue_id()
    }

    /// The body as stored: a compressed one is not expanded.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.record().body()
    }

    /// All properties, in stored order.
    #[must_use]
    pub fn properties(&self) -> Properties<'_> {
        self.record().properties()
    }

    /// One property's value.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<Cow<'_, str>> {
        self.record().properties().get_str(name)
    }

    /// The tags, as one text.
    #[must_use]
    pub fn tags(&self) -> Option<Cow<'_, str>> {
        self.record().tags()
    }

    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.record().keys()
    }

    /// The key that the producer's client made, unique by itself.
    #[must_use]
    pub fn unique_key(&self) -> Option<Cow<'_, str>> {
        self.record().unique_key()
    }

    /// The producer's own flag.
    #[must_use]
    pub fn flag(&self) -> i32 {
        self.record().flag()
    }

    /// The system flag.
    #[must_use]
    pub fn sys_flag(&self) -> SysFlag {
        self.record().sys_flag()
    }

    /// The record's version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.record().version()
    }

    /// The body's CRC as stored.
    #[must_use]
    pub fn body_crc(&self) -> u32 {
        self.record().body_crc()
    }

    /// When the producer made the message, in milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub fn born_ms(&self) -> i64 {
        self.record().born_ms()
    }

    /// Where the producer was.
    #[must_use]
    pub fn born_host(&self) -> SocketAddr {
        self.record().born_host()
    }

    /// When the message was stored, in milliseconds since 1970-01-01 UTC; never less than that of the record before.
    #[must_use]
    pub fn store_ms(&self) -> i64 {
        self.record().store_ms()
    }

    /// Where the message was stored.
    #[must_use]
    pub fn store_host(&self) -> SocketAddr {
        self.record().store_host()
    }

    /// How often consumers gave the message back.
    #[must_use]
    pub fn reconsume_times(&self) -> i32 {
        self.record().reconsume_times()
    }

    /// The log offset of the prepared message that this one completes, else 0.
    #[must_use]
    pub fn prepared_transaction_offset(&self) -> i64 {
        self.record().prepared_transaction_offset()
    }

    /// The offset message id: store host and log offset in hexadecimal.
    #[must_use]
    pub fn message_id(&self) -> String {
        self.record().message_id()
    }
}
