//! Walking chains: from a slot's newest entry to its oldest, from the newest file to the oldest.

use std::collections::HashSet;
use std::io;
use std::ops::{Deref, RangeInclusive};
use std::sync::Arc;

use super::file::IndexFile;
use super::state::below;
use crate::disk::File;
use crate::error::{Error, Result};
use crate::format::index::{IndexEntry, IndexHeader, SLOT_BYTES};
use crate::format::java_hash::index_key_hash;
use crate::offset::LogOffset;

/// How far times in a foreign log may go back before a file's first and last time no longer tell what it holds.
const CLOCK_SLACK_MS: i64 = 60 * 60 * 1000;

/// What is searched for.
#[derive(Debug)]
struct Wanted {
    hash: u32,
    times: RangeInclusive<i64>,
}

impl Wanted {
    /// Can a file with this header hold something wanted?
    fn may_be_in(&self, header: &IndexHeader) -> bool {
        let is_behind = *self.times.end() < header.begin_ms.saturating_sub(CLOCK_SLACK_MS);
        let is_before = *self.times.start() > header.end_ms.saturating_add(CLOCK_SLACK_MS);
        header.begin_ms <= 0 || header.end_ms < header.begin_ms || !(is_before || is_behind)
    }

    /// Can this entry be of the wanted time? Only its record knows the millisecond.
    ///
    /// A file's first entry has the file's begin time; its seconds count from the end of the file before. Otherwise 0
    /// also stands for any time before the file's first, the largest number for any time after it.
    fn may_be(&self, number: u32, entry: &IndexEntry, header: &IndexHeader) -> bool {
        if header.begin_ms <= 0 || entry.seconds < 0 {
            return true;
        }
        if number == 1 {
            return self.times.contains(&header.begin_ms);
        }
        let earliest = header.begin_ms.saturating_add(i64::from(entry.seconds) * 1000);
        let is_before = entry.seconds < i32::MAX && earliest.saturating_add(999) < *self.times.start();
        let is_behind = entry.seconds > 0 && earliest > *self.times.end();
        !is_before && !is_behind
    }
}

/// A place in a chain. It ends where numbers do not fall or an entry is not of this slot, so damage cannot loop.
#[derive(Debug)]
struct Chain {
    handle: File,
    header: IndexHeader,
    /// The number of the entry that comes next, 0 for none.
    next: u32,
}

impl Chain {
    /// Begins at the newest entry of a hash; `None` if there is nothing to find, or the file was deleted.
    fn begin(file: &IndexFile, wanted: &Wanted) -> Result<Option<Self>> {
        let slot = file.layout.slot_of(wanted.hash);
        loop {
            let (header, newest) = {
                let state = file.state();
                (state.header, state.in_use.as_ref().map(|in_use| in_use.newest(slot, state.header.next_entry)))
            };
            if header.next_entry <= 1 || !wanted.may_be_in(&header) {
                return Ok(None);
            }
            let handle = match file.handle() {
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
                handle => handle?,
            };
            if let Some(next) = newest {
                return Ok(Some(Self { handle, header, next }));
            }
            let mut number = [0; SLOT_BYTES];
            handle.read_at(&mut number, file.layout.slot_at(slot))?;
            // Who put something meanwhile may have written the slot back: then it belongs to another header.
            if file.state().header.next_entry == header.next_entry {
                let next = below(u32::from_be_bytes(number), header.next_entry);
                return Ok(Some(Self { handle, header, next }));
            }
        }
    }

    /// Returns the next log offset whose entry fits what is wanted, as far as the index knows.
    fn next_wanted(&mut self, file: &IndexFile, wanted: &Wanted) -> Result<Option<u64>> {
        while self.next > 0 {
            let number = self.next;
            let entry = file.entry(&self.handle, number)?;
            let slot = file.layout.slot_of(wanted.hash);
            let entry = entry.filter(|entry| file.layout.slot_of(entry.hash) == slot);
            self.next = entry.map_or(0, |entry| below(entry.previous, number));
            let fits = |entry: &IndexEntry| entry.hash == wanted.hash && wanted.may_be(number, entry, &self.header);
            if let Some(entry) = entry.filter(fits) {
                return Ok(Some(entry.log_offset));
            }
        }
        Ok(None)
    }
}

/// Log offsets of records that may have a key, newest first, each once: the caller looks at the record.
#[derive(Debug)]
pub(crate) struct Candidates<F = Arc<IndexFile>> {
    wanted: Wanted,
    /// Files still to search, the newest last.
    files: Vec<F>,
    chain: Option<Chain>,
    seen: HashSet<u64>,
}

impl<F: Deref<Target = IndexFile>> Candidates<F> {
    pub(super) fn new(topic: &str, key: &str, times: RangeInclusive<i64>, files: Vec<F>) -> Self {
        let wanted = Wanted { hash: index_key_hash(topic, key), times };
        Self { wanted, files, chain: None, seen: HashSet::new() }
    }

    /// Collects those that `matches` says yes to.
    pub(super) fn select(self, mut matches: impl FnMut(LogOffset) -> Result<bool>) -> Result<Vec<LogOffset>> {
        let mut select = |offset| Ok(matches(offset)?.then_some(offset));
        self.filter_map(|offset| offset.and_then(&mut select).transpose()).collect()
    }

    fn next_offset(&mut self) -> Result<Option<LogOffset>> {
        while let Some(file) = self.files.last() {
            if self.chain.is_none() {
                self.chain = Chain::begin(file, &self.wanted)?;
            }
            match self.chain.as_mut().map_or(Ok(None), |chain| chain.next_wanted(file, &self.wanted))? {
                Some(offset) if self.seen.insert(offset) => return Ok(Some(LogOffset::new(offset))),
                Some(_) => {}
                None => (self.chain, _) = (None, self.files.pop()),
            }
        }
        Ok(None)
    }
}

impl<F: Deref<Target = IndexFile>> Iterator for Candidates<F> {
    type Item = Result<LogOffset>;

    fn next(&mut self) -> Option<Self::Item> {
        // A file that cannot be read ends the search, so that whoever goes on after the error stops.
        self.next_offset().inspect_err(|_| self.files.clear()).transpose()
    }
}

impl IndexFile {
    /// Returns the records that have a key and a store time in `times`, in ms, newest first, each once.
    ///
    /// `matches` decides: the index knows a key only by its hash and a time only by the second. It is called without
    /// any lock held, for as few records as the index can tell.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read, and what `matches` returns. Damage in the file is no error: its
    /// entries are not found.
    #[doc(alias = "selectPhyOffset")]
    pub fn query(
        &self,
        topic: &str,
        key: &str,
        times: RangeInclusive<i64>,
        matches: impl FnMut(LogOffset) -> Result<bool>,
    ) -> Result<Vec<LogOffset>> {
        Candidates::new(topic, key, times, vec![self]).select(matches)
    }
}
