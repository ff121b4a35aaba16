//! Finding messages by key.

use std::ops::{Bound, RangeBounds};

use super::MessageStore;
use crate::commit_log::CommitLog;
use crate::error::{Error, Result};
use crate::index_file::Candidates;
use crate::offset::LogOffset;
use crate::view::MessageView;

/// The messages with a key, newest first; see [`MessageStore::query`].
#[derive(Debug)]
pub struct Query {
    log: CommitLog,
    candidates: Candidates,
    topic: String,
    key: String,
    times: (Bound<i64>, Bound<i64>),
}

impl MessageStore {
    /// Finds the messages of a topic that have a key, or this unique key, and a store time in a range of milliseconds
    /// since 1970-01-01 UTC: newest first, each once. `take` limits how many are read.
    ///
    /// # Errors
    /// [`Error::Io`] if an index file cannot be read. The items have those of [`CommitLog::read`]; [`Error::Corrupt`]
    /// stands for a damaged record that may have the key, and the iterator goes on behind it.
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
        let times = (times.start_bound().cloned(), times.end_bound().cloned());
        // The record's own time decides in the end.
        let or = |bound, open| match bound {
            Bound::Included(ms) | Bound::Excluded(ms) => ms,
            Bound::Unbounded => open,
        };
        let candidates = self.shared.index.candidates(topic, key, or(times.0, i64::MIN)..=or(times.1, i64::MAX));
        let (topic, key) = (topic.to_owned(), key.to_owned());
        Ok(Query { log: self.shared.log.clone(), candidates, topic, key, times })
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
            match self.candidates.next()?.map(|offset| self.log.read_with(&mut self.log.reader(), offset)) {
                Ok(Ok(message)) if self.matches(&message) => return Some(Ok(message)),
                // An entry of a deleted record, or of another key with this hash.
                Ok(Ok(_) | Err(Error::OutOfRange { .. })) => {}
                Ok(Err(Error::Corrupt(damage))) => match self.log.damage_at(LogOffset::new(damage.range.start)) {
                    // The log is whole: then the entry is wrong.
                    Ok(None) => {}
                    Ok(Some(damage)) => return Some(Err(Error::Corrupt(damage))),
                    Err(error) => return Some(Err(error)),
                },
                Ok(Err(error)) | Err(error) => return Some(Err(error)),
            }
        }
    }
}
