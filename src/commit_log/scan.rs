//! Reading an open log: one record by its offset, or record after record with whatever damage lies between.

use std::ops::Range;
use std::sync::PoisonError;

use super::log::CommitLog;
use super::read::{Checks, Found, PIECE_BYTES, Reader, Rules, SINGLE_BYTES};
use crate::error::{Corruption, Error, Result};
use crate::format::record::RecordView;
use crate::offset::LogOffset;
use crate::view::MessageView;

/// Of so many files the damage that readers met is remembered: it is met again with every message that lay in it.
const MOST_MET: usize = 4;

/// What a scan meets.
///
/// # Examples
/// ```
/// use mqlog::{CommitLog, LogOffset, Message, QueueCursor, ScanItem};
/// # let dir = tempfile::tempdir()?;
/// let log = CommitLog::open(dir.path(), 64 * 1024)?;
/// log.append(&Message::new("orders").body(b"1"), &QueueCursor::default())?;
/// for item in log.scan(LogOffset::ZERO) {
///     match item? {
///         ScanItem::Record(message) => println!("{} at {}", message.topic(), message.log_offset()),
///         ScanItem::Blank(range) => println!("nothing up to the end of the file, {}", range.end),
///         ScanItem::Damaged(corruption) => println!("lost: {corruption}"),
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub enum ScanItem {
    /// A whole record.
    Record(MessageView),
    /// The unused end of a file.
    Blank(Range<LogOffset>),
    /// Bytes that are no record, up to the next whole one.
    Damaged(Corruption),
}

/// The same, as [`CommitLog::walk`] meets it: without a handle for each record.
#[derive(Debug)]
pub(crate) enum Walked<'a> {
    Record(RecordView<'a>),
    Blank(Range<LogOffset>),
    Damaged(Corruption),
}

/// An iterator over the log from some offset on; see [`CommitLog::scan`].
#[derive(Debug)]
pub struct LogScan {
    log: CommitLog,
    reader: Reader,
    at: LogOffset,
}

impl Iterator for LogScan {
    type Item = Result<ScanItem>;

    fn next(&mut self) -> Option<Self::Item> {
        let (item, next) = loop {
            let range = self.log.range();
            // A deletion may have overtaken the scan.
            self.at = self.at.max(range.start);
            if self.at >= range.end {
                return None;
            }
            match self.log.item(&mut self.reader, self.at.get()) {
                Ok(Some(found)) => break found,
                // Deleted in this moment.
                Ok(None) => {}
                Err(error) => {
                    // There is nowhere to go on from.
                    self.at = LogOffset::MAX;
                    return Some(Err(error));
                }
            }
        };
        let item = match item {
            Walked::Record(record) => {
                let shape = record.shape();
                ScanItem::Record(self.reader.view(self.at.get(), shape))
            }
            Walked::Blank(range) => ScanItem::Blank(range),
            Walked::Damaged(corruption) => ScanItem::Damaged(corruption),
        };
        self.at = LogOffset::new(next);
        Some(Ok(item))
    }
}

/// The damage that has a byte, of some that are in order.
fn holding(damages: &[Corruption], at: LogOffset) -> Option<Corruption> {
    let index = damages.partition_point(|damage| damage.range.end <= at.get());
    damages.get(index).filter(|damage| damage.range.contains(&at.get())).cloned()
}

impl CommitLog {
    /// Reads the record that begins at an offset, with its checksums compared.
    ///
    /// # Errors
    /// - [`Error::OutOfRange`] if the log has nothing readable there
    /// - [`Error::Corrupt`] if what is there is no whole record
    /// - [`Error::Io`] if the file cannot be read
    ///
    /// # Panics
    /// Never: what was judged to be a record is one.
    pub fn read(&self, offset: LogOffset) -> Result<MessageView> {
        let mut reader = self.reader();
        match self.read_with(&mut reader, offset) {
            // How far the damage goes says a scan of the file, which is too much for a wrong offset.
            Err(Error::Corrupt(wrong)) if reader.is_record_like(offset.get()) => {
                // Nor is it done each time for an offset that only looks like a record's.
                let damage = self.met_at(offset).map_or_else(|| self.find_damage(offset), Ok)?;
                Err(damage.unwrap_or(wrong).into())
            }
            found => found,
        }
    }

    /// What [`read_with`](Self::read_with) reads with: a record beside the last one costs less then.
    pub(crate) fn reader(&self) -> Reader {
        Reader::new(self.shared.rules(Checks::One, SINGLE_BYTES))
    }

    /// As [`read`](Self::read), but of damage it names the beginning only.
    pub(crate) fn read_with(&self, reader: &mut Reader, offset: LogOffset) -> Result<MessageView> {
        let at = offset.get();
        if !reader.has(at) || offset >= self.shared.progress.written() {
            let range = self.range();
            if !range.contains(&offset) || !reader.load(&self.shared.files, at)? {
                return Err(Error::OutOfRange { offset: at, available: range.start.get()..range.end.get() });
            }
        }
        if let Some(known) = self.known_damage(at) {
            return Err(Error::Corrupt(known));
        }
        let reason = match reader.judge(at) {
            Found::Record(record) => {
                let shape = record.shape();
                return Ok(reader.view(at, shape));
            }
            Found::Blank => "no record begins here".to_owned(),
            Found::Bad(reason) => reason,
        };
        Err(Error::Corrupt(Corruption { path: reader.file().path().into(), range: at..at + 8, reason }))
    }

    /// Iterates over the log in order, from a record's offset on, to the end that is readable now at each step.
    ///
    /// Damage is an item, not the end: the scan goes on with the next whole record. What is deleted before the scan gets
    /// there is left out.
    #[must_use]
    pub fn scan(&self, from: LogOffset) -> LogScan {
        self.scan_with(self.reader(), from)
    }

    /// As [`scan`](Self::scan), with positioned reads, and all checksums compared.
    pub(crate) fn scan_thoroughly(&self, from: LogOffset) -> LogScan {
        let rules = Rules { mapped_from: u64::MAX, ..self.shared.rules(Checks::All, PIECE_BYTES) };
        self.scan_with(Reader::new(rules), from)
    }

    fn scan_with(&self, reader: Reader, from: LogOffset) -> LogScan {
        LogScan { log: self.clone(), reader, at: from.max(self.range().start) }
    }

    /// The rest of the damage that opening found at an offset.
    pub(crate) fn known_damage(&self, at: u64) -> Option<Corruption> {
        let known = self.shared.damaged.iter().find(|known| known.range.contains(&at))?;
        Some(Corruption { range: at..known.range.end, ..known.clone() })
    }

    /// The damage that has the byte at an offset: found by a scan of its file, which always begins with a record.
    pub(crate) fn damage_at(&self, at: LogOffset) -> Result<Option<Corruption>> {
        self.met_at(at).flatten().map_or_else(|| self.find_damage(at), |known| Ok(Some(known)))
    }

    /// What is remembered of the damage at an offset, or of there having been none; `None` if nothing is.
    fn met_at(&self, at: LogOffset) -> Option<Option<Corruption>> {
        let met = self.shared.met.lock().unwrap_or_else(PoisonError::into_inner);
        met.iter().find(|(scanned, _)| scanned.contains(&at.get())).map(|(_, damages)| holding(damages, at))
    }

    fn find_damage(&self, at: LogOffset) -> Result<Option<Corruption>> {
        let Some(file) = self.shared.files.find(at.get()) else { return Ok(None) };
        // Each other damage of the file will be asked for as well.
        let mut reader = Reader::new(self.shared.rules(Checks::All, PIECE_BYTES));
        let (mut next, mut damages) = (file.base(), Vec::new());
        while next < file.end()
            && let Some((item, behind)) = self.item(&mut reader, next)?
            && behind > next
        {
            if let Walked::Damaged(corruption) = item {
                damages.push(corruption);
            }
            next = behind;
        }
        let found = holding(&damages, at);
        let mut met = self.shared.met.lock().unwrap_or_else(PoisonError::into_inner);
        met.retain(|(scanned, _)| scanned.start != file.base());
        met.insert(0, (file.base()..next, damages));
        met.truncate(MOST_MET);
        Ok(found)
    }

    /// Calls `visit` for what stands in `from..end`, in order, until about `max_bytes` are done; returns where to go
    /// on. This is the dispatcher's way: a piece of the log at a time. The checksums of what this session placed are
    /// not computed once more, and what was there before is read with positioned reads.
    pub(crate) fn walk(
        &self,
        from: LogOffset,
        end: LogOffset,
        max_bytes: u64,
        visit: &mut dyn FnMut(Walked<'_>) -> Result<()>,
    ) -> Result<LogOffset> {
        let stop = end.get().min(from.get().saturating_add(max_bytes));
        let opened_at = self.shared.opened_at.get();
        let rules = self.shared.rules(Checks::NoneFrom(opened_at), PIECE_BYTES);
        let mut reader = Reader::new(Rules { mapped_from: opened_at.max(rules.mapped_from), ..rules });
        let mut at = from.get().max(self.range().start.get());
        while at < stop
            && let Some((item, next)) = self.item(&mut reader, at)?
        {
            visit(item)?;
            at = next;
        }
        Ok(LogOffset::new(at.min(end.get())))
    }

    /// What stands at `at`, and where the next item begins; `None` if no file has the offset.
    fn item<'a>(&self, reader: &'a mut Reader, at: u64) -> Result<Option<(Walked<'a>, u64)>> {
        if let Some(known) = self.known_damage(at) {
            let next = known.range.end.min(self.range().end.get());
            return Ok(Some((Walked::Damaged(known), next)));
        }
        if !reader.load(&self.shared.files, at)? {
            return Ok(None);
        }
        let (reader, file) = (&*reader, reader.file());
        let item = match reader.judge(at) {
            Found::Record(record) => {
                let next = at + u64::from(record.record_bytes());
                (Walked::Record(record), next)
            }
            Found::Blank => (Walked::Blank(LogOffset::new(at)..LogOffset::new(file.end())), file.end()),
            Found::Bad(reason) => {
                // A part is published a moment before it counts as written.
                let end = (file.base() + file.published()).min(self.range().end.get());
                let next = reader.find(&self.shared.files, at + 1..end, &|_| true)?.unwrap_or(end);
                (Walked::Damaged(Corruption { path: file.path().into(), range: at..next, reason }), next)
            }
        };
        Ok(Some(item))
    }
}
