//! Reading an open log: one record by its offset, or record after record with whatever damage lies between.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use super::log::CommitLog;
use super::read::{Found, candidates};
use crate::error::{Corruption, Error, Result};
use crate::format::record::{BLANK_BYTES, RecordView};
use crate::mapped_file::{MappedFile, Slice};
use crate::offset::LogOffset;
use crate::view::MessageView;

/// Where a file is not mapped it is read in pieces of this size.
const PIECE_BYTES: u64 = 1024 * 1024;
/// A single record is looked for in a piece of this size.
const SINGLE_BYTES: u64 = 4096;

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

/// What [`CommitLog::walk`] meets.
#[derive(Debug)]
pub(crate) enum Walked<'a> {
    Record(RecordView<'a>),
    Damaged(Corruption),
}

/// An iterator over the log from some offset on; see [`CommitLog::scan`].
#[derive(Debug)]
pub struct LogScan {
    log: CommitLog,
    at: LogOffset,
}

impl Iterator for LogScan {
    type Item = Result<ScanItem>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.log.item_at(self.at) {
            Ok(Some((item, next))) => {
                self.at = next;
                Some(Ok(item))
            }
            Ok(None) => None,
            Err(error) => {
                // There is nowhere to go on from.
                self.at = LogOffset::MAX;
                Some(Err(error))
            }
        }
    }
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
        let range = self.range();
        let out_of_range = || Error::OutOfRange { offset: offset.get(), available: range.start.get()..range.end.get() };
        if !range.contains(&offset) {
            return Err(out_of_range());
        }
        let file = self.shared.files.find(offset.get()).ok_or_else(out_of_range)?;
        if let Some(known) = self.known_damage(offset.get()) {
            return Err(Error::Corrupt(known));
        }
        let window = self.window(&file, offset.get(), SINGLE_BYTES)?;
        match self.shared.rules.judge(&window, offset.get(), file.end() - offset.get()) {
            Found::Record(_) => MessageView::new(&window).map_err(|error| {
                let range = offset.get()..offset.get() + 8;
                damage(&file, range, &error.to_string())
            }),
            Found::Blank | Found::Nothing => {
                Err(damage(&file, offset.get()..offset.get() + 8, "no record begins here"))
            }
            Found::Bad(reason) => Err(damage(&file, offset.get()..offset.get() + 8, &reason)),
        }
    }

    /// Iterates over the log in order, from a record's offset on, to the end that is readable now at each step.
    ///
    /// Damage is an item, not the end: the scan goes on with the next whole record.
    #[must_use]
    pub fn scan(&self, from: LogOffset) -> LogScan {
        LogScan { log: self.clone(), at: from.max(self.range().start) }
    }

    fn item_at(&self, at: LogOffset) -> Result<Option<(ScanItem, LogOffset)>> {
        let end = self.range().end;
        if at >= end {
            return Ok(None);
        }
        let Some(file) = self.shared.files.find(at.get()) else { return Ok(None) };
        if let Some(known) = self.known_damage(at.get()) {
            let next = LogOffset::new(known.range.end).min(end);
            return Ok(Some((ScanItem::Damaged(known), next)));
        }
        let window = self.window(&file, at.get(), SINGLE_BYTES)?;
        match self.shared.rules.judge(&window, at.get(), file.end() - at.get()) {
            Found::Record(record) => {
                let next = at + u64::from(record.record_bytes());
                let view = MessageView::new(&window).expect("the record was judged whole");
                Ok(Some((ScanItem::Record(view), next)))
            }
            Found::Blank => {
                let next = LogOffset::new(file.end());
                Ok(Some((ScanItem::Blank(at..next), next)))
            }
            Found::Nothing => self.damaged_item(&file, at, "nothing stands where a record should begin"),
            Found::Bad(reason) => self.damaged_item(&file, at, &reason),
        }
    }

    /// The rest of the damage that opening found at an offset.
    pub(crate) fn known_damage(&self, at: u64) -> Option<Corruption> {
        let known = self.shared.damaged.iter().find(|known| known.range.contains(&at))?;
        Some(Corruption { range: at..known.range.end, ..known.clone() })
    }

    /// The damage that has the byte at an offset: found by a scan of its file, which always begins with a record.
    pub(crate) fn damage_at(&self, at: LogOffset) -> Result<Option<Corruption>> {
        let Some(file) = self.shared.files.find(at.get()) else { return Ok(None) };
        let mut found = None;
        self.walk(LogOffset::new(file.base()), at + 1, u64::MAX, &mut |walked| {
            match walked {
                Walked::Damaged(corruption) if corruption.range.contains(&at.get()) => found = Some(corruption),
                _ => return Ok(ControlFlow::Continue(())),
            }
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    fn damaged_item(
        &self,
        file: &Arc<MappedFile>,
        at: LogOffset,
        reason: &str,
    ) -> Result<Option<(ScanItem, LogOffset)>> {
        let next = self.resync(file, at.get())?;
        let corruption = Corruption { path: file.path().into(), range: at.get()..next, reason: reason.to_owned() };
        Ok(Some((ScanItem::Damaged(corruption), LogOffset::new(next))))
    }

    /// Calls `visit` for the records in `from..end`, in order, until about `max_bytes` are done; returns where to go
    /// on. This is the dispatcher's way: a piece of the log at a time, without a handle for each record.
    pub(crate) fn walk(
        &self,
        from: LogOffset,
        end: LogOffset,
        max_bytes: u64,
        visit: &mut dyn FnMut(Walked<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<LogOffset> {
        let stop = end.get().min(from.get().saturating_add(max_bytes));
        let mut at = from.get().max(self.range().start.get());
        while at < stop {
            let Some(file) = self.shared.files.find(at) else { break };
            let window = self.window(&file, at, PIECE_BYTES)?;
            let (next, flow) = self.walk_window(&file, &window, at..stop, visit)?;
            at = next;
            if flow.is_break() {
                break;
            }
        }
        Ok(LogOffset::new(at.min(end.get())))
    }

    fn walk_window(
        &self,
        file: &Arc<MappedFile>,
        window: &Slice,
        range: Range<u64>,
        visit: &mut dyn FnMut(Walked<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<(u64, ControlFlow<()>)> {
        let mut used = 0;
        loop {
            let at = range.start + used as u64;
            let rest = &window[used..];
            // The first record of a window is whole; a later one may be cut by the window's end.
            let cut = used > 0 && !holds_item(rest);
            if at >= range.end || cut {
                return Ok((at, ControlFlow::Continue(())));
            }
            if let Some(known) = self.known_damage(at) {
                return Ok((known.range.end, visit(Walked::Damaged(known))?));
            }
            let flow = match self.shared.rules.judge(rest, at, file.end() - at) {
                Found::Record(record) => {
                    used += record.record_bytes() as usize;
                    visit(Walked::Record(record))?
                }
                Found::Blank => return Ok((file.end(), ControlFlow::Continue(()))),
                Found::Nothing => {
                    return self.walk_damage(file, at, "nothing stands where a record should begin", visit);
                }
                Found::Bad(reason) => return self.walk_damage(file, at, &reason, visit),
            };
            if flow.is_break() {
                return Ok((range.start + used as u64, flow));
            }
        }
    }

    fn walk_damage(
        &self,
        file: &Arc<MappedFile>,
        at: u64,
        reason: &str,
        visit: &mut dyn FnMut(Walked<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<(u64, ControlFlow<()>)> {
        let next = self.resync(file, at)?;
        let corruption = Corruption { path: file.path().into(), range: at..next, reason: reason.to_owned() };
        Ok((next, visit(Walked::Damaged(corruption))?))
    }

    /// The next whole record behind `at` in its file, else the end of what can be read there.
    fn resync(&self, file: &Arc<MappedFile>, at: u64) -> Result<u64> {
        let mut from = at + 1;
        // A part is published a moment before it counts as written.
        let published = (file.base() + file.published()).min(self.range().end.get());
        while from < published {
            let window = self.window(file, from, PIECE_BYTES)?;
            for distance in candidates(&window) {
                let start = from + distance as u64;
                let record = self.window(file, start, SINGLE_BYTES)?;
                if start < published
                    && let Found::Record(_) = self.shared.rules.judge(&record, start, file.end() - start)
                {
                    return Ok(start);
                }
            }
            from += (window.len().saturating_sub(BLANK_BYTES - 1)).max(1) as u64;
        }
        Ok(published)
    }

    /// Published bytes from `at` on: all of them where the file is mapped, else a piece that has the record at `at`.
    fn window(&self, file: &Arc<MappedFile>, at: u64, piece_bytes: u64) -> Result<Slice> {
        let (position, published) = (at - file.base(), file.published());
        if file.is_mapped() {
            return file.slice(position.min(published)..published);
        }
        let piece = file.slice(position..published.min(position + piece_bytes))?;
        let size = piece.first_chunk().map_or(0, |word| u64::from(u32::from_be_bytes(*word)));
        if size <= piece.len() as u64 || size > published - position {
            return Ok(piece);
        }
        file.slice(position..position + size)
    }
}

/// Does a piece of a window hold all of the item it begins with?
fn holds_item(rest: &[u8]) -> bool {
    let size = rest.first_chunk().map_or(usize::MAX, |word| u32::from_be_bytes(*word) as usize);
    let is_blank = rest.get(4..BLANK_BYTES) == Some(&[0xCB, 0xD4, 0x31, 0x94]);
    is_blank || size <= rest.len()
}

fn damage(file: &MappedFile, range: Range<u64>, reason: &str) -> Error {
    Error::Corrupt(Corruption { path: file.path().into(), range, reason: reason.to_owned() })
}
