//! What stands at a place of the log: the one reading of bytes that opening, dispatch and readers share.
//!
//! - A record counts as whole if its structure and checksums are right, its stored offset is its position, and it has
//!   the record CRC where every record has one.
//! - Files that are not mapped are read with positioned reads into private memory: while a log is opened a bad sector
//!   must be an error, and nothing may change between being checked and being used.

use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;
use crate::format::DecodeError;
use crate::format::record::{BLANK_BYTES, BLANK_MAGIC, CrcProperty, Item, RecordView, Shape, covered_by_crc};
use crate::mapped_file::{MappedFile, MappedFiles, Slice};
use crate::offset::LogOffset;
use crate::side::LastRecord;
use crate::view::MessageView;

/// Where many records are read one after the other, a file that is not mapped is read in pieces of this size.
pub(super) const PIECE_BYTES: u64 = 1024 * 1024;
/// A single record is looked for in a piece of this size.
pub(super) const SINGLE_BYTES: u64 = 4096;
/// The CRC of a record of at most this length is computed before the record is decoded.
const AHEAD_BYTES: usize = 64 * 1024;
/// Every magic number of a record begins with these three bytes, four bytes behind the record's first.
const MAGIC_START: [u8; 3] = [0xDA, 0xA3, 0x20];

/// What stands at an offset.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// A whole record.
    Record(RecordView<'a>),
    /// The end of the file's records.
    Blank,
    /// Bytes that are no whole record.
    Bad(String),
}

/// How [`get`](crate::MessageStore::get), [`read`](crate::MessageStore::read) and iterators come by the bytes of a
/// message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadMode {
    /// As a slice of the mapped file: nothing is copied, but an I/O error while a page is brought in from the disk ends
    /// the process with a signal.
    #[default]
    Mapped,
    /// With positioned reads into memory of their own: an I/O error is [`Error::Io`](crate::Error::Io), and so is the lack
    /// of a descriptor for the moment of reading.
    Copy,
}

/// Which checksums of a record a reader computes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Checks {
    /// All.
    All,
    /// The one that covers most.
    One,
    /// None from this offset on, where the bytes are this session's own; all below.
    NoneFrom(u64),
}

/// How bytes are read and judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// From this offset on every record carries the record CRC.
    pub(super) crc_from: Option<LogOffset>,
    pub(super) checks: Checks,
    /// Below this offset a mapped file is read with positioned reads too.
    pub(super) mapped_from: u64,
    /// Positioned reads fetch this much at least.
    pub(super) piece_bytes: u64,
}

/// A window on the bytes of a log's files.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(super) rules: Rules,
    window: Option<Window>,
}

/// A piece of a file.
#[derive(Debug)]
struct Window {
    file: Arc<MappedFile>,
    at: u64,
    bytes: Slice,
}

impl Reader {
    pub(super) fn new(rules: Rules) -> Self {
        Self { rules, window: None }
    }

    /// Is the magic number of a record where one that begins at `at` has it?
    pub(super) fn is_record_like(&self, at: u64) -> bool {
        self.window.as_ref().is_some_and(|window| window.from(at).get(4..7) == Some(&MAGIC_START))
    }

    /// Has what is looked at next read anew.
    pub(super) fn forget(&mut self) {
        self.window = None;
    }

    /// Does the window have all of the item at `at`?
    pub(super) fn has(&self, at: u64) -> bool {
        let has = |window: &Window| holds_item(window.from(at), window.file.end().saturating_sub(at));
        self.window.as_ref().is_some_and(has)
    }

    /// Moves the window to `at`, unless it has all of the item there; `false` if no file has the offset.
    pub(super) fn load(&mut self, files: &MappedFiles, at: u64) -> Result<bool> {
        if !self.has(at) {
            let Some(file) = files.find(at) else { return Ok(false) };
            let bytes = match self.piece(&file, at) {
                // Removed by a deletion in this moment.
                Err(error) if error.is_missing() && files.find(at).is_none() => return Ok(false),
                bytes => bytes?,
            };
            self.window = Some(Window { file, at, bytes });
        }
        Ok(true)
    }

    /// Published bytes from `at` on: all of them where the file is mapped, else a piece that has the record at `at`.
    fn piece(&self, file: &Arc<MappedFile>, at: u64) -> Result<Slice> {
        let published = file.published();
        let position = (at - file.base()).min(published);
        if file.is_mapped() && at >= self.rules.mapped_from {
            return file.slice(position..published);
        }
        let piece = file.copy(position..published.min(position + self.rules.piece_bytes))?;
        let size = piece.first_chunk().map_or(0, |word| u64::from(u32::from_be_bytes(*word)));
        let is_cut = piece.get(4..7) == Some(&MAGIC_START) && size > piece.len() as u64 && size <= published - position;
        if is_cut { file.copy(position..position + size) } else { Ok(piece) }
    }

    fn window(&self) -> &Window {
        self.window.as_ref().expect("what is looked at was loaded")
    }

    /// The file of what was loaded.
    pub(super) fn file(&self) -> &Arc<MappedFile> {
        &self.window().file
    }

    /// The bytes from `at` on, which was loaded, at least to the end of the item there.
    pub(super) fn bytes(&self, at: u64) -> &[u8] {
        self.window().from(at)
    }

    /// A record that was judged whole, pinned; it begins at `at` and has this shape.
    pub(super) fn view(&self, at: u64, (shape, bytes): (Shape, usize)) -> MessageView {
        let window = self.window();
        let start = window.bytes.len() - self.bytes(at).len();
        MessageView::of_shape(window.bytes.slice(start..start + bytes), shape)
    }

    /// Judges what begins at `at`, which was loaded.
    pub(super) fn judge(&self, at: u64) -> Found<'_> {
        let (bytes, left) = (self.bytes(at), self.file().end() - at);
        let ahead = self.crc_ahead(bytes, at);
        let nothing = || Found::Bad("nothing stands where a record should begin".to_owned());
        match Item::decode(bytes) {
            Ok(Item::Record(record)) => match self.check(&record, at, left, ahead) {
                Ok(()) => Found::Record(record),
                Err(reason) => Found::Bad(reason),
            },
            Ok(Item::Blank { bytes }) if u64::from(bytes) == left => Found::Blank,
            Ok(Item::Blank { bytes }) => {
                Found::Bad(format!("an end-of-file blank says {bytes} bytes, {left} are left"))
            }
            Err(DecodeError::Zero) => nothing(),
            // Less than a blank is left: either a full file without blank, or a file whose end is cut.
            Err(DecodeError::TooShort { .. }) if bytes.iter().all(|byte| *byte == 0) => nothing(),
            Err(error) => Found::Bad(error.to_string()),
        }
    }

    /// The CRC of a record that is not decoded yet, where one checksum decides and every record has it: one pass over the
    /// bytes in their order brings them into the cache, where decoding would wait for each place that it looks at.
    fn crc_ahead(&self, bytes: &[u8], at: u64) -> Option<u32> {
        let applies = matches!(self.rules.checks, Checks::One) && self.needs_crc(at);
        let covered = applies.then(|| covered_by_crc(bytes)).flatten()?;
        (covered.len() <= AHEAD_BYTES).then(|| crc32fast::hash(covered))
    }

    fn needs_crc(&self, at: u64) -> bool {
        self.rules.crc_from.is_some_and(|from| at >= from.get())
    }

    fn check(&self, record: &RecordView<'_>, at: u64, left: u64, ahead: Option<u32>) -> Result<(), String> {
        if record.log_offset() != at {
            return Err(format!("the record says that it stands at {}", record.log_offset()));
        }
        if u64::from(record.record_bytes()) + BLANK_BYTES as u64 > left {
            return Err(format!("the record has {} bytes, {left} are left in its file", record.record_bytes()));
        }
        let verified = match self.rules.checks {
            Checks::NoneFrom(from) if at >= from => return Ok(()),
            Checks::One => record.verify_once(ahead),
            Checks::All | Checks::NoneFrom(_) => record.verify(),
        };
        let crc = verified.map_err(|error| error.to_string())?;
        if self.needs_crc(at) && !matches!(crc, CrcProperty::Present(_)) {
            return Err("the record has no record CRC, where every record has one".to_owned());
        }
        Ok(())
    }

    /// Finds the first whole record that begins in `range` and is accepted.
    pub(super) fn find(
        &self,
        files: &MappedFiles,
        range: Range<u64>,
        accept: &dyn Fn(&RecordView<'_>) -> bool,
    ) -> Result<Option<u64>> {
        // What only looks like a record is not worth a CRC before its structure is known to be one's.
        let checks = if matches!(self.rules.checks, Checks::One) { Checks::All } else { self.rules.checks };
        let mut candidates = Self::new(Rules { checks, piece_bytes: PIECE_BYTES, ..self.rules });
        let mut at = range.start;
        while at < range.end {
            let Some(file) = files.find(at) else { break };
            let bytes = candidates.piece(&file, at)?;
            let starts = bytes.windows(BLANK_BYTES - 1).enumerate().filter(|(_, window)| window[4..] == MAGIC_START);
            for start in starts.map(|(distance, _)| at + distance as u64).take_while(|start| *start < range.end) {
                if candidates.load(files, start)?
                    && let Found::Record(record) = candidates.judge(start)
                    && accept(&record)
                {
                    return Ok(Some(start));
                }
            }
            // The pieces overlap by what is needed to see a magic number that stands across their border.
            let end = at + bytes.len() as u64;
            at = if end < file.base() + file.published() { end - BLANK_BYTES as u64 + 2 } else { file.end() };
        }
        Ok(None)
    }
}

impl Window {
    fn from(&self, at: u64) -> &[u8] {
        let distance = at.checked_sub(self.at).and_then(|distance| usize::try_from(distance).ok());
        distance.and_then(|distance| self.bytes.get(distance..)).unwrap_or_default()
    }
}

/// Does a piece of a file hold all of the item it begins with, of whose file this much is `left`?
fn holds_item(bytes: &[u8], left: u64) -> bool {
    let (Some(size), Some(magic)) = (bytes.first_chunk(), bytes.get(4..BLANK_BYTES)) else { return false };
    let size = u64::from(u32::from_be_bytes(*size));
    magic == BLANK_MAGIC.to_be_bytes() || size <= bytes.len() as u64 || size > left
}

/// Calls `visit` for the bytes of a range, a piece of a file at a time, and where each begins.
pub(super) fn for_each_piece(
    files: &MappedFiles,
    range: Range<u64>,
    piece_bytes: usize,
    visit: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    for file in files.snapshot().iter() {
        let (start, end) = (range.start.max(file.base()), range.end.min(file.base() + file.published()));
        for at in (start..end).step_by(piece_bytes) {
            let piece = file.slice(at - file.base()..end.min(at + piece_bytes as u64) - file.base())?;
            visit(at, &piece)?;
        }
    }
    Ok(())
}

/// Describes a record for the watermark; of one that is cut short, what is there.
pub(super) fn describe(files: &MappedFiles, record: Option<(u64, u32)>) -> Result<Option<LastRecord>> {
    let Some((at, bytes)) = record else { return Ok(None) };
    let Some(file) = files.find(at) else { return Ok(None) };
    let position = (at - file.base()).min(file.published());
    let slice = file.slice(position..file.published().min(position + u64::from(bytes)))?;
    Ok(Some(LastRecord { offset: LogOffset::new(at), bytes, crc32c: crc32c::crc32c(&slice) }))
}
