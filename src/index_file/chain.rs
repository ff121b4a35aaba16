//! Walking chains: from a slot's newest entry to its oldest, from the newest file to the oldest.

use std::collections::HashSet;
use std::ops::{Deref, RangeInclusive};
use std::sync::Arc;

use super::file::IndexFile;
use crate::disk::File;
use crate::error::Result;
use crate::format::index::{IndexEntry, IndexHeader};
use crate::offset::LogOffset;

/// How far times in a foreign log may go back before a file's first and last time no longer tell what it holds.
const CLOCK_SLACK_MS: i64 = 60 * 60 * 1000;

/// What is searched for.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub hash: u32,
    pub times: RangeInclusive<i64>,
}

impl Wanted {
    /// Can a file with this header hold something wanted?
    pub(super) fn may_be_in(&self, header: &IndexHeader) -> bool {
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
pub(super) struct Chain {
    pub handle: File,
    pub header: IndexHeader,
    pub slot: u32,
    /// The number of the entry that comes next, 0 for none.
    pub next: u32,
}

impl Chain {
    /// Returns the next log offset whose entry fits what is wanted, as far as the index knows.
    fn next_wanted(&mut self, file: &IndexFile, wanted: &Wanted) -> Result<Option<u64>> {
        while self.next > 0 {
            let number = self.next;
            let entry = file.entry(&self.handle, number)?;
            let entry = entry.filter(|entry| file.layout().slot_of(entry.hash) == self.slot);
            self.next = entry.map(|entry| entry.previous).filter(|previous| *previous < number).unwrap_or(0);
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
    pub(super) fn new(wanted: Wanted, files: Vec<F>) -> Self {
        Self { wanted, files, chain: None, seen: HashSet::new() }
    }

    /// Collects those that `matches` says yes to.
    pub(super) fn select(self, mut matches: impl FnMut(LogOffset) -> Result<bool>) -> Result<Vec<LogOffset>> {
        let mut found = Vec::new();
        for offset in self {
            let offset = offset?;
            if matches(offset)? {
                found.push(offset);
            }
        }
        Ok(found)
    }

    fn next_offset(&mut self) -> Result<Option<u64>> {
        while let Some(file) = self.files.last() {
            if self.chain.is_none() {
                self.chain = file.chain(&self.wanted)?;
            }
            if let Some(chain) = &mut self.chain
                && let Some(offset) = chain.next_wanted(file, &self.wanted)?
            {
                return Ok(Some(offset));
            }
            self.chain = None;
            self.files.pop();
        }
        Ok(None)
    }
}

impl<F: Deref<Target = IndexFile>> Iterator for Candidates<F> {
    type Item = Result<LogOffset>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_offset() {
                Ok(Some(offset)) if !self.seen.insert(offset) => {}
                Ok(offset) => return offset.map(|offset| Ok(LogOffset::new(offset))),
                Err(error) => {
                    // A file that cannot be read ends the search, so that whoever goes on after the error stops.
                    self.files.clear();
                    return Some(Err(error));
                }
            }
        }
    }
}
