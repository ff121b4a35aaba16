//! What a caller gets: a record in a pinned slice.

use std::borrow::Cow;
use std::net::SocketAddr;

use crate::format::properties::Properties;
use crate::format::record::{RecordView, Shape, SysFlag, Version};
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
    shape: Shape,
}

impl MessageView {
    /// Takes a slice that is a record, which was decoded with this shape.
    pub(crate) fn of_shape(record: Slice, shape: Shape) -> Self {
        Self { record, shape }
    }

    /// The borrowed view of the same record, for everything that has no getter here.
    pub fn record(&self) -> RecordView<'_> {
        RecordView::of_shape(&self.record, self.shape)
    }

    /// The whole record as it stands in the log.
    pub fn bytes(&self) -> &Slice {
        &self.record
    }

    /// Where the record begins in the log.
    pub fn log_offset(&self) -> LogOffset {
        LogOffset::new(self.record().log_offset())
    }

    /// Where the record ends in the log.
    pub fn end(&self) -> LogOffset {
        self.log_offset() + u64::from(self.record_bytes())
    }

    /// The message's number in its queue; 0 for a prepared or rolled-back message.
    pub fn queue_offset(&self) -> QueueOffset {
        QueueOffset::new(self.record().queue_offset())
    }

    /// One property's value.
    pub fn property(&self, name: &str) -> Option<Cow<'_, str>> {
        self.properties().get_str(name)
    }

    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.record().keys()
    }
}

/// Defines getters that are those of the record.
macro_rules! of_record {
    ($($(#[$doc:meta])* $name:ident: $kind:ty;)*) => {
        impl MessageView {
            $($(#[$doc])*
            #[must_use]
            pub fn $name(&self) -> $kind {
                self.record().$name()
            })*
        }
    };
}

of_record! {
    /// Length of the record in bytes.
    record_bytes: u32;
    /// The topic; bytes that are no UTF-8 come as replacement characters.
    topic: Cow<'_, str>;
    /// The queue of the topic.
    queue_id: i32;
    /// The body as stored: a compressed one is not expanded.
    body: &[u8];
    /// All properties, in stored order.
    properties: Properties<'_>;
    /// The tags, as one text.
    tags: Option<Cow<'_, str>>;
    /// The key that the producer's client made, unique by itself.
    unique_key: Option<Cow<'_, str>>;
    /// The producer's own flag.
    flag: i32;
    /// The system flag.
    sys_flag: SysFlag;
    /// The record's version.
    version: Version;
    /// The body's CRC as stored.
    body_crc: u32;
    /// When the producer made the message, in milliseconds since 1970-01-01 UTC.
    born_ms: i64;
    /// Where the producer was.
    born_host: SocketAddr;
    /// When the message was stored, in milliseconds since 1970-01-01 UTC; never less than that of the record before.
    store_ms: i64;
    /// Where the message was stored.
    store_host: SocketAddr;
    /// How often consumers gave the message back.
    reconsume_times: i32;
    /// The log offset of the prepared message that this one completes, else 0.
    prepared_transaction_offset: i64;
    /// The offset message id: store host and log offset in hexadecimal.
    message_id: String;
}
