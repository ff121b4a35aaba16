//! Finding messages by key.

use std::ops::{Bound, RangeBounds, RangeInclusive};

use super::MessageStore;
use crate::commit_log::CommitLog;
use crate::error::{Error, Result};
use crate::index_file::Candidates;
use crate::view::MessageView;

/// The messages with a key, newest first; see [`MessageStore::query`].
#[derive(Debug)]
pub struct Query {
    log: CommitLog,
    candidates: Candidates,
    topic: String,
    key: String,
    times: RangeInclusive<i64>,
}

impl MessageStore {
    /// Finds the messages of a topic that have a key, or this unique key, and a store time in a range of milliseconds
    /// since 1970-01-01 UTC: newest first, each once. `take` limits how many are read.
    ///
    /// # Errors
    /// [`Error::Io`] if an index file cannot be read; the items have those of [`CommitLog::read`].
    ///
    /// # Examples
    /// ```
    /// use mqlog::{Message, MessageStore, StoreOptions};
    /// # let dir = tempfile::tempdir()?;
    /// let store = MessageStore::open(StoreOptions::new(dir.path()))?;
    /// store.put(Message::new("orders").key("Aa").body(b"1"))?;
    /// store.put(Message::new("orders").key("BB").body(b"2"))?; // the same hash as "Aa"
    /// let found: Vec<_> = store.query("orders", "Aa", ..)?.collect::<Result<_, _>>()?;
    /// assert_eq!((found.len(), found[0].body()), (1, &b"1"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Source
    /// RocketMQ's `DefaultMessageStore.queryMessage`, which compares hashes and seconds; this compares the key itself
    /// and the record's time.
    pub fn query(&self, topic: &str, key: &str, times: impl RangeBounds<i64>) -> Result<Query> {
        self.shared.dispatch_for_reading()?;
        let start = match times.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => i64::MIN,
        };
        let end = match times.end_bound() {
            Bound::Included(end) => *end,
            Bound::Excluded(end) => end.saturating_sub(1),
            Bound::Unbounded => i64::MAX,
        };
        let candidates = self.shared.index.candidates(topic, key, start..=end);
        let (topic, key) = (topic.to_owned(), key.to_owned());
        Ok(Query { log: self.shared.log.clone(), candidates, topic, key, times: start..=end })
    }
}

impl Query {
    fn matches(&self, message: &MessageView) -> bool {
        let has_key =
            || message.unique_key().is_some_and(|key| key == self.key) || message.keys().any(|key| key == self.key);
        message.topic() == self.topic && self.times.contains(&message.store_ms()) && has_key()
    }
}

impl Iterator for Query {
    type Item = Result<MessageView>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let offset = match self.candidates.next()? {
                Ok(offset) => offset,
                Err(error) => return Some(Err(error)),
            };
            match self.log.read(offset) {
                Ok(message) if self.matches(&message) => return Some(Ok(message)),
                // An entry of a deleted record, or of another key with this hash, or a damaged one.
                Ok(_) | Err(Error::OutOfRange { .. } | Error::Corrupt(_)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
