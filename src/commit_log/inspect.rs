//! Opening, first half: what is in the log's files. Reads only, with positioned reads into private memory.
//!
//! The scan begins at the watermark, or at the log's beginning where that is unknown, and ends in one of the verdicts
//! of the table in `ARCHITECTURE.md`: a torn tail, corruption, or nothing wrong. What to do about it is decided, and
//! done, in the second half (`settle`).

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::known::{Known, LogOptions, MOST_RECORD_BYTES, Visit, file_bytes_on_disk};
use super::read::{Checks, Found, PIECE_BYTES, Reader, Rules, describe, for_each_piece};
use crate::disk::{File, OpenMode};
use crate::error::{Corruption, Error, Result};
use crate::format::names::log_file_name;
use crate::format::properties::{NAME_END, VALUE_END};
use crate::format::record::{BLANK_BYTES, CrcProperty, RecordView, Transaction, encode_blank};
use crate::mapped_file::{MappedFile, MappedFiles, list_log_files};
use crate::offset::LogOffset;
use crate::side::{LastRecord, StoreFormat, Watermark, create_abort};

/// Records are written back in pieces of about this size.
const WRITE_BACK_BYTES: usize = 256 * 1024;

/// A gap of more files than this is a wrong name, not missing files.
const MOST_MISSING: u64 = 1024;

/// What is in the log.
#[derive(Debug, Default)]
pub(crate) struct Inspection {
    pub(super) dir: PathBuf,
    pub(super) file_bytes: u64,
    /// The files, not mapped; what is published of each is what it has on disk.
    pub(super) files: MappedFiles,
    pub(crate) strays: Vec<PathBuf>,
    /// Files without a byte behind the last one: left by a kill while they were made.
    pub(crate) empty: Vec<PathBuf>,
    /// Files that are longer than a log file here, and their lengths.
    pub(super) long: Vec<(Arc<MappedFile>, u64)>,
    /// Where appends go on.
    pub(crate) tail: LogOffset,
    pub(super) last: Option<(u64, u32)>,
    pub(super) last_ms: i64,
    /// Bytes behind the tail that are not zero, up to the last one of them.
    pub(crate) torn: Option<Range<LogOffset>>,
    pub(crate) corruptions: Vec<Corruption>,
    /// Records that are not as they were written though nothing in their bytes says so, now and in earlier openings: the one
    /// below the watermark if it is not as described, and such as were cut within their properties by a short file, which look
    /// like others, at least where no record CRC is asked for, when that is filled up with zeros.
    pub(super) changed: Vec<Range<u64>>,
    /// End-of-file blanks with a wrong field.
    pub(crate) blanks: Vec<LogOffset>,
    pub(crate) scanned_bytes: u64,
    /// From here on every record has the record CRC, as far as was known and is so.
    pub(super) crc_from: Option<LogOffset>,
    /// Zeros are put from the tail up to here: all that the last session may have written to, or what is not zero
    /// where nobody knows that.
    pub(super) zero_end: u64,
}

/// Lists and scans the log; `visit` sees every whole record that the derived files do not cover. What `known` says of
/// another life of this log is forgotten.
pub(super) fn inspect(
    options: &LogOptions,
    known: &mut Known,
    format: &StoreFormat,
    visit: Visit<'_>,
) -> Result<Inspection> {
    let mut found = list(options, format.log_file_bytes, known.watermark.as_ref())?;
    found.changed.clone_from(&format.damaged);
    let crc_from = known.format.as_ref().and_then(|format| format.record_crc_from);
    // One of the two may be an older copy, from before records without a CRC.
    let crc_from = match &known.watermark {
        Some(watermark) => crc_from.zip(watermark.crc_from).map(|(one, other)| one.max(other)),
        None => crc_from,
    };
    let mut inspector = Inspector {
        doubted_from: known.watermark.map_or(0, |watermark| watermark.durable.get()),
        writes_back: known.watermark.is_some() && !options.read_only,
        known,
        visit,
        reader: Reader::new(Rules { crc_from, checks: Checks::All, mapped_from: 0, piece_bytes: PIECE_BYTES }),
        order: Order::default(),
        back: WriteBack::default(),
        found,
        is_across: false,
    };
    inspector.check_frame()?;
    inspector.scan()?;
    let mut found = inspector.found;
    // Lowest first, each place once: the watermark's own record may be met twice.
    found.corruptions.sort_by_key(|corruption| corruption.range.start);
    found.corruptions.dedup_by(|next, kept| {
        let same = next.range.start < kept.range.end || next.range == kept.range;
        if same {
            kept.range.end = kept.range.end.max(next.range.end);
        }
        same
    });
    found.crc_from = inspector.reader.rules.crc_from;
    Ok(found)
}

impl Inspection {
    /// The offsets of the first byte, and behind the last one.
    pub(super) fn range(&self) -> Range<u64> {
        let files = self.files.snapshot();
        files.first().map_or(0, |file| file.base())..files.last().map_or(0, |file| file.end())
    }

    fn corrupt(&mut self, range: Range<u64>, reason: impl Into<String>) {
        let files = self.files.snapshot();
        let file = files.iter().rfind(|file| file.base() <= range.start).or(files.first());
        let path = file.map_or(&*self.dir, |file| file.path()).to_path_buf();
        self.corruptions.push(Corruption { path, range, reason: reason.into() });
    }

    /// A whole record was met, the last one so far unless it is known to be changed.
    fn note_last(&mut self, at: u64, record: &RecordView<'_>) {
        if self.changed.iter().all(|changed| !changed.contains(&at)) {
            (self.last, self.last_ms) = (Some((at, record.record_bytes())), record.store_ms());
        }
    }

    fn push(&self, file: File, base: u64, bytes: u64) -> Result<Arc<MappedFile>> {
        let file = Arc::new(MappedFile::new(file, base, self.file_bytes, false)?);
        file.publish(bytes.min(self.file_bytes));
        self.files.push(Arc::clone(&file));
        Ok(file)
    }
}

/// So many files have a descriptor while the log is opened; the others are opened for each use. A session that made many
/// files in a moment must not leave a log that cannot be opened again.
const MOST_OPEN: usize = 64;

fn list(options: &LogOptions, file_bytes: u64, watermark: Option<&Watermark>) -> Result<Inspection> {
    let dir = options.root.join("commitlog");
    let (listed, strays) = list_log_files(&options.storage, &dir)?;
    let mut found = Inspection { dir, file_bytes, strays, ..Inspection::default() };
    // What may be written back has its descriptor from here on; and, where nothing is written, the oldest files, which a
    // writer beside this may delete.
    let (durable, mut open) = (watermark.map_or(u64::MAX, |known| known.durable.get()), 0);
    // Where a name is no place for a file, it may be the length of the files that is wrong: their lengths and names tell.
    let are_odd = listed.iter().any(|(base, _)| !base.is_multiple_of(file_bytes))
        && file_bytes_on_disk(options)? != Some(file_bytes);
    // The first file stays even if it is empty: its name says where the log begins.
    let filled = listed.iter().rposition(|(_, bytes)| *bytes > 0).map_or(1, |index| index + 1);
    for (index, (base, bytes)) in listed.into_iter().enumerate() {
        let path = found.dir.join(log_file_name(base));
        if index >= filled {
            found.empty.push(path);
            continue;
        }
        if let Some(gap) = gap_before(&found, base, &path) {
            let is_far = gap.range.end - gap.range.start > MOST_MISSING * file_bytes;
            if !options.salvage || is_far || are_odd {
                return Err(Error::Corrupt(gap));
            }
            let missing = gap.range.clone();
            found.corruptions.push(gap);
            if missing.is_empty() {
                found.strays.push(path);
                continue;
            }
            stand_in(options, &mut found, missing.end)?;
        }
        let wants_open = options.read_only || base + file_bytes > durable;
        let file = if wants_open && open < MOST_OPEN {
            open += 1;
            options.storage.open(&path, if options.read_only { OpenMode::Read } else { OpenMode::ReadWrite })?
        } else {
            options.storage.resting(&path)
        };
        let file = found.push(file, base, bytes)?;
        if bytes > file_bytes {
            found.long.push((file, bytes));
            let reason = format!("the file has {bytes} bytes, more than the {file_bytes} of a log file here");
            // What is behind a file has no place in the log, and so no offset.
            found.corruptions.push(Corruption { path, range: base + file_bytes..base + file_bytes, reason });
        }
    }
    Ok(found)
}

/// What is missing before a file; nothing if its name is no place for it.
fn gap_before(found: &Inspection, base: u64, path: &Path) -> Option<Corruption> {
    let last = if found.files.snapshot().is_empty() { base } else { found.range().end };
    let is_place = base.is_multiple_of(found.file_bytes);
    let reason = "the log has a gap: a file is missing, or its name is wrong".to_owned();
    let range = if is_place { last..base } else { base..base };
    (!is_place || last != base).then(|| Corruption { path: path.to_path_buf(), range, reason })
}

/// Puts empty files in the place of those that are missing up to `end`.
fn stand_in(options: &LogOptions, found: &mut Inspection, end: u64) -> Result<()> {
    create_abort(&options.storage, &options.root)?;
    while found.range().end < end {
        let base = found.range().end;
        let file = options.storage.open(&found.dir.join(log_file_name(base)), OpenMode::Create)?;
        file.set_len(found.file_bytes)?;
        found.push(file, base, found.file_bytes)?;
    }
    Ok(())
}

/// The scan of one opening.
struct Inspector<'a> {
    /// What mqlog knows of this log.
    known: &'a mut Known,
    visit: Visit<'a>,
    /// What asks for record CRCs may be older than the records from here on.
    doubted_from: u64,
    writes_back: bool,
    reader: Reader,
    order: Order,
    back: WriteBack,
    found: Inspection,
    /// A whole record goes on behind the watermark.
    is_across: bool,
}

/// What the scan accepted behind the watermark is written once more, from the memory in which it was checked: its pages
/// may be left over from a sync that failed, and would then never reach the disk by themselves.
#[derive(Debug, Default)]
struct WriteBack {
    file: Option<Arc<MappedFile>>,
    start: u64,
    bytes: Vec<u8>,
}

impl WriteBack {
    fn push(&mut self, file: &Arc<MappedFile>, at: u64, bytes: &[u8]) -> Result<()> {
        let is_same = self.file.as_ref().is_some_and(|same| Arc::ptr_eq(same, file));
        if !is_same || self.start + self.bytes.len() as u64 != at || self.bytes.len() > WRITE_BACK_BYTES {
            self.finish()?;
            (self.file, self.start) = (Some(Arc::clone(file)), at);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        if let Some(file) = self.file.take() {
            file.file().write_at(&self.bytes, self.start - file.base())?;
        }
        self.bytes.clear();
        Ok(())
    }
}

impl Inspector<'_> {
    fn scan(&mut self) -> Result<()> {
        let log = self.found.range();
        let visit_from = self.known.derived.as_ref().map_or(0, |derived| derived.log_offset.get());
        let start = match self.known.watermark {
            Some(known) => {
                let end = self.check_watermark(&known, &log)?;
                end.min(visit_from).min(self.doubted_from).clamp(log.start, log.end)
            }
            None => log.start,
        };
        let mut at = start;
        while let Some(next) = self.step(at)? {
            at = next;
        }
        self.back.finish()?;
        // The blocks behind the watermark's end were never written, unless the scan went beyond it.
        let is_end = |allocated: &u64| at <= *allocated && !self.is_used_from(*allocated);
        let allocated = self.known.watermark.map(|known| known.allocated.get()).filter(is_end);
        let unused = at..allocated.unwrap_or(log.end).min(log.end);
        let mut written_end = None;
        for_each_piece(&self.found.files, unused, 1 << 20, &mut |at, bytes| {
            let last = bytes.iter().rposition(|byte| *byte != 0);
            written_end = last.map(|last| at + last as u64 + 1).or(written_end);
            Ok(())
        })?;
        let found = &mut self.found;
        (found.tail, found.scanned_bytes) = (LogOffset::new(at), at - start);
        found.torn = written_end.map(|end| found.tail..LogOffset::new(end));
        found.zero_end = allocated.map_or(written_end.unwrap_or(0), |allocated| allocated.min(log.end));
        Ok(())
    }

    /// Does the log go on behind an offset?
    fn is_used_from(&self, offset: u64) -> bool {
        let goes_on = |file: &Arc<MappedFile>| {
            // A file begins with a record's first bytes; elsewhere a body of zeros may come first.
            let most = if file.base() < offset { MOST_RECORD_BYTES.into() } else { BLANK_BYTES as u64 };
            let start = offset.saturating_sub(file.base()).min(file.published());
            let bytes = file.slice(start..file.published().min(start + most));
            bytes.is_ok_and(|bytes| bytes.iter().any(|byte| *byte != 0))
        };
        self.found.files.snapshot().iter().filter(|file| file.end() > offset).any(goes_on)
    }

    /// Looks at what stands at `at`; returns where to go on, or `None` where the log ends.
    fn step(&mut self, at: u64) -> Result<Option<u64>> {
        if !self.reader.load(&self.found.files, at)? {
            return Ok(None);
        }
        let file = self.reader.file();
        let durable = self.known.watermark.map_or(0, |known| known.durable.get());
        let (next, bytes) = match self.reader.judge(at) {
            Found::Record(record)
                if !self.is_across && at < durable && durable < at + u64::from(record.record_bytes()) =>
            {
                return self.across(at, durable..at + u64::from(record.record_bytes()));
            }
            Found::Record(record) => {
                self.found.note_last(at, &record);
                self.order.note(&record);
                let derived = self.known.derived.as_ref();
                if derived.is_none_or(|derived| at >= derived.log_offset.get()) {
                    (self.visit)(derived, &record);
                }
                (at + u64::from(record.record_bytes()), record.bytes())
            }
            Found::Blank => {
                if at < durable && durable < file.end() {
                    self.found.corrupt(durable..durable, "what was durable does not end in a blank");
                }
                (file.end(), &self.reader.bytes(at)[..BLANK_BYTES])
            }
            Found::Bad(reason) => return if self.lacks_only_crc(at) { self.step(at) } else { self.bad(at, reason) },
        };
        // Is what stands here not known to be durable, and may it be written?
        let is_unsure = self.known.watermark.is_some_and(|known| at >= known.durable.get());
        if self.writes_back && is_unsure && self.found.corruptions.is_empty() {
            self.back.push(file, at, bytes)?;
        }
        Ok(Some(next))
    }

    /// A record goes on behind the watermark, by `rest`. Either it was cut there once, or the watermark cannot be right.
    fn across(&mut self, at: u64, rest: Range<u64>) -> Result<Option<u64>> {
        let (files, end) = (&self.found.files, self.found.range().end);
        let goes_on = self.reader.load(files, rest.start)?
            && matches!(self.reader.judge(rest.start), Found::Record(_) | Found::Blank);
        if goes_on || (is_zero(files, rest.clone())? && self.reader.find(files, rest.end..end, &|_| true)?.is_none()) {
            return self.bad(at, "the record goes on behind what was durable, where it was cut".to_owned());
        }
        self.found.corrupt(rest.start..rest.start, "what was durable does not end with a record");
        self.is_across = true;
        self.step(at)
    }

    /// Was a record that the watermark as it was read does not cover written without record CRC? Then what asks for one is an
    /// older copy, and does so no longer. One that a crash tore is not taken for it: what is missing of its properties
    /// reads as zeros.
    fn lacks_only_crc(&mut self, at: u64) -> bool {
        let Some(from) = self.reader.rules.crc_from.take_if(|_| at >= self.doubted_from) else { return false };
        let is_whole =
            matches!(self.reader.judge(at), Found::Record(record) if are_whole(record.properties().as_bytes()));
        if !is_whole {
            self.reader.rules.crc_from = Some(from);
        }
        is_whole
    }

    /// The table of the design: what the first bad byte at `at` means.
    fn bad(&mut self, at: u64, reason: String) -> Result<Option<u64>> {
        let file = Arc::clone(self.reader.file());
        let (file_end, end) = (file.end(), self.found.range().end);
        if self.is_damaged_blank(at, file_end)? {
            self.found.blanks.push(LogOffset::new(at));
            return Ok(Some(file_end));
        }
        let files = &self.found.files;
        let next = match self.known.watermark.map(|known| known.durable.get()) {
            // Nobody says how far the log was durable: what follows decides, unless it is stale.
            None => {
                let next = self.reader.find(files, at + 1..end, &|record| self.order.may_follow(record))?;
                self.reader.forget();
                if next.is_some() && self.reader.load(files, at)? && !matches!(self.reader.judge(at), Found::Bad(_)) {
                    // A program that writes beside this opening was just there.
                    return self.step(at);
                }
                next
            }
            Some(durable) if at < durable => {
                let durable = durable.min(end);
                Some(self.reader.find(files, at + 1..durable, &|_| true)?.unwrap_or(durable))
            }
            Some(_) => None,
        };
        if let Some(next) = next {
            let lost = file.base() + file.published()..next.min(file_end);
            if self.known.watermark.is_none() && at < lost.start && !lost.is_empty() {
                self.found.changed.push(at..lost.end);
            }
            // Below the frame that raised the watermark only the promise of checksums is looked at.
            let is_passed =
                self.known.watermark.is_some_and(|known| at < known.durable.get()) && at >= self.doubted_from;
            if !is_passed {
                self.found.corrupt(at..next, reason);
            }
        }
        Ok(next)
    }

    /// Is this an end-of-file blank with one wrong field, with nothing behind it in its file, and the log goes on?
    fn is_damaged_blank(&mut self, at: u64, file_end: u64) -> Result<bool> {
        let Some(bytes) = self.reader.bytes(at).get(..BLANK_BYTES) else { return Ok(false) };
        let blank = encode_blank(u32::try_from(file_end - at).expect("a log file has 31 bits of length"));
        let files = &self.found.files;
        Ok((bytes[..4] == blank[..4]) != (bytes[4..] == blank[4..])
            && self.reader.find(files, at + 1..file_end, &|_| true)?.is_none()
            && self.reader.load(files, file_end)?
            && matches!(self.reader.judge(file_end), Found::Record(_)))
    }

    /// Forgets the last frame of queues and index if it is about another life of this log, or about less of it: files that
    /// were deleted may have been put back. Where its record is there, or what damage made of it, the log is durable at least
    /// as far as it says, and a watermark that says less is an older copy, or was not written in time.
    fn check_frame(&mut self) -> Result<()> {
        let (log, Some(derived)) = (self.found.range(), &self.known.derived) else { return Ok(()) };
        let (last, frame_end, store_ms) = (derived.last, derived.log_offset, derived.store_ms);
        let is_in_log = frame_end.get() <= log.end && derived.log_start.get() <= log.start;
        let below = last.filter(|last| last.offset.get() >= log.start);
        let is_there = self.is_there(below)?;
        if !is_in_log || (!is_there && self.is_another(below, store_ms)?) {
            self.known.derived = None;
            return Ok(());
        }
        // A record that is damaged now was durable all the same; one that was cut is zero.
        let was_there =
            is_there || below.map_or(Ok(false), |last| is_zero(&self.found.files, last.place()).map(|is| !is))?;
        if let Some(known) = self.known.watermark.filter(|known| was_there && known.durable < frame_end) {
            if !self.is_there(known.last)? {
                // Nobody knows where the records begin that it does not cover.
                (self.doubted_from, self.reader.rules.crc_from) = (frame_end.get(), None);
            }
            let allocated = known.allocated.max(frame_end);
            self.known.watermark = Some(Watermark { durable: frame_end, allocated, last, ..known });
        }
        Ok(())
    }

    /// Is what stands in the place of the last frame's record another one, and not what damage made of it?
    fn is_another(&mut self, record: Option<LastRecord>, store_ms: i64) -> Result<bool> {
        let Some(last) = record else { return Ok(false) };
        // One of the same length without CRC has its own store time.
        Ok(self.is_misplaced(&last.place())?
            || (self.reader.load(&self.found.files, last.offset.get())?
                && matches!(self.reader.judge(last.offset.get()), Found::Record(record) if record.store_ms() != store_ms)))
    }

    /// Is a record what it is said to be?
    fn is_there(&self, record: Option<LastRecord>) -> Result<bool> {
        Ok(describe(&self.found.files, record.map(|last| (last.offset.get(), last.bytes)))? == record)
    }

    /// The watermark describes the last record below it: if that is not there, the log is not what it was. Returns where
    /// to begin: at the watermark, or at the record that goes across it.
    fn check_watermark(&mut self, known: &Watermark, log: &Range<u64>) -> Result<u64> {
        let durable = known.durable.get();
        for file in self.found.files.snapshot().iter() {
            let mut lost = file.base() + file.published()..file.end().min(durable);
            if lost.is_empty() {
                continue;
            }
            let (cut, _) = self.walk(file.base()..lost.start)?;
            let is_blank = cut < lost.start && matches!(self.reader.judge(cut), Found::Blank);
            if cut < lost.start && !is_blank {
                lost.start = cut;
                self.found.changed.push(lost.clone());
            }
            self.found.corrupt(lost, "the file ends before what was durable");
        }
        (self.found.last, self.found.last_ms) = (None, 0);
        if durable > log.end {
            self.found.corrupt(log.end..durable, "the log ends before what was durable");
        }
        let end = durable.min(log.end);
        let Some(last) = known.last else { return self.look_back(end) };
        let place = last.place();
        let is_there = place.end <= log.end && self.reader.load(&self.found.files, place.start)?;
        if place.start < log.start || !is_there {
            return self.look_back(end);
        }
        let at = place.start;
        if !self.is_there(known.last)? {
            if self.is_misplaced(&place)? {
                self.found
                    .corrupt(durable..durable, "the last durable record that was written never stood in this log");
                return self.look_back(end);
            }
            self.found.corrupt(place.clone(), "the last durable record is not the one that was written");
            self.found.changed.push(place);
            return self.look_back(end);
        }
        self.found.last = Some((at, last.bytes));
        if let Ok(record) = RecordView::decode(self.reader.bytes(at)) {
            self.found.last_ms = record.store_ms();
            let lacks_crc = record.crc_property() == CrcProperty::Absent;
            // The record is as it was written, so what asks for its CRC is out of date.
            self.reader.rules.crc_from = self.reader.rules.crc_from.filter(|from| !lacks_crc || *from > last.offset);
        }
        let (at, is_across) = self.walk(place.end..end)?;
        Ok(if is_across { at } else { end })
    }

    /// Does another whole record stand in a place, or across its beginning or end? Then the watermark is of another log, such
    /// as this one before it lost its end.
    fn is_misplaced(&mut self, place: &Range<u64>) -> Result<bool> {
        let base = self.found.files.find(place.start).map_or(place.start, |file| file.base());
        let (_, is_across) = self.walk(base..place.start)?;
        Ok(is_across
            || (self.reader.load(&self.found.files, place.start)?
                && matches!(self.reader.judge(place.start), Found::Record(record)
                    if place.start + u64::from(record.record_bytes()) != place.end
                        || record.crc_property() != CrcProperty::Absent)))
    }

    /// Looks for the last whole record before the watermark, after which times go on, and for one that goes across it.
    fn look_back(&mut self, end: u64) -> Result<u64> {
        for file in self.found.files.snapshot().iter().rev().filter(|file| file.base() < end) {
            let (at, is_across) = self.walk(file.base()..file.end().min(end))?;
            if is_across {
                return Ok(at);
            }
            if self.found.last.is_some() {
                break;
            }
        }
        Ok(end)
    }

    /// Goes from record to record, damage left out. Returns where nothing whole follows that ends in the range, and whether
    /// something whole does that does not.
    fn walk(&mut self, range: Range<u64>) -> Result<(u64, bool)> {
        let mut at = range.start;
        while at < range.end && self.reader.load(&self.found.files, at)? {
            let next = match self.reader.judge(at) {
                Found::Record(record) => {
                    let next = at + u64::from(record.record_bytes());
                    if next > range.end {
                        return Ok((at, true));
                    }
                    self.found.note_last(at, &record);
                    Some(next)
                }
                Found::Blank if self.reader.file().end() > range.end => return Ok((at, true)),
                Found::Blank => Some(self.reader.file().end()),
                Found::Bad(_) => self.reader.find(&self.found.files, at + 1..range.end, &|_| true)?,
            };
            let Some(next) = next else { break };
            at = next;
        }
        Ok((at, false))
    }
}

fn is_zero(files: &MappedFiles, range: Range<u64>) -> Result<bool> {
    let mut is_zero = true;
    for_each_piece(files, range, 1 << 20, &mut |_, bytes| {
        is_zero &= bytes.iter().all(|byte| *byte == 0);
        Ok(())
    })?;
    Ok(is_zero)
}

/// Are these properties as somebody wrote them: text, in which each has its value?
fn are_whole(properties: &[u8]) -> bool {
    let mut each = properties.split(|byte| *byte == VALUE_END).filter(|property| !property.is_empty());
    str::from_utf8(properties).is_ok() && !properties.contains(&0) && each.all(|each| each.contains(&NAME_END))
}

/// What the records so far say about those that may follow: RocketMQ leaves stale records behind its own cuts, and
/// those go back in time or in their queue.
#[derive(Debug, Default)]
struct Order {
    store_ms: i64,
    next: HashMap<Vec<u8>, HashMap<i32, u64>>,
}

impl Order {
    fn note(&mut self, record: &RecordView<'_>) {
        self.store_ms = record.store_ms();
        if !counts_in_queue(record) {
            return;
        }
        if !self.next.contains_key(record.topic_bytes()) {
            self.next.insert(record.topic_bytes().to_vec(), HashMap::new());
        }
        if let Some(queues) = self.next.get_mut(record.topic_bytes()) {
            queues.insert(record.queue_id(), record.queue_offset() + 1);
        }
    }

    fn may_follow(&self, record: &RecordView<'_>) -> bool {
        let queues = self.next.get(record.topic_bytes());
        let next = queues.and_then(|queues| queues.get(&record.queue_id())).copied().unwrap_or(0);
        let in_order = !counts_in_queue(record) || record.queue_offset() >= next;
        in_order && record.store_ms() >= self.store_ms
    }
}

/// Prepared and rolled-back records stand in no queue and carry 0.
fn counts_in_queue(record: &RecordView<'_>) -> bool {
    matches!(record.sys_flag().transaction(), Transaction::None | Transaction::Commit)
}
