//! Opening, first half: what is in the log's files. Reads only, with positioned reads into private memory.
//!
//! The scan begins at the watermark, or at the log's beginning where that is unknown, and ends in one of the verdicts
//! of the table in `ARCHITECTURE.md`: a torn tail, corruption, or nothing wrong. What to do about it is decided, and
//! done, in the second half (`settle`).

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::read::{Found, Rules, candidates};
use super::reader::{LogFile, Reader};
use crate::disk::{OpenMode, Storage};
use crate::error::{Corruption, Error, Result};
use crate::format::record::{BLANK_BYTES, CrcProperty, RecordView, Transaction};
use crate::mapped_file::list_log_files;
use crate::offset::LogOffset;
use crate::side::{Watermark, create_abort};

/// Records are written back in pieces of about this size.
const WRITE_BACK_BYTES: usize = 256 * 1024;

/// A gap of more files than this is a wrong name, not missing files.
const MOST_MISSING: u64 = 1024;

/// Where and how to look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Search<'a> {
    pub(crate) storage: &'a Storage,
    pub(crate) dir: &'a Path,
    pub(crate) file_bytes: u64,
    pub(crate) mode: OpenMode,
    pub(crate) rules: Rules,
    /// What mqlog knows of this log; `None` if somebody else wrote it.
    pub(crate) watermark: Option<Watermark>,
    /// Read from here on if that is before the watermark: the caller wants to see these records.
    pub(crate) visit_from: LogOffset,
    /// Put empty files in the place of missing ones, so that the others can be read.
    pub(crate) salvage: bool,
}

/// What is in the log.
#[derive(Debug)]
pub(crate) struct Inspection {
    pub(crate) dir: PathBuf,
    pub(crate) files: Vec<LogFile>,
    pub(crate) file_bytes: u64,
    pub(crate) strays: Vec<PathBuf>,
    /// Files without a byte behind the last one: left by a kill while they were made.
    pub(crate) empty: Vec<PathBuf>,
    /// Where appends go on.
    pub(crate) tail: LogOffset,
    pub(crate) last: Option<(u64, u32)>,
    pub(crate) last_ms: i64,
    /// Bytes behind the tail that are not zero, up to the last one of them.
    pub(crate) torn: Option<Range<LogOffset>>,
    pub(crate) corruptions: Vec<Corruption>,
    /// End-of-file blanks with a wrong field.
    pub(crate) blanks: Vec<LogOffset>,
    pub(crate) scanned_bytes: u64,
    /// The rules by which the log was judged.
    pub(crate) rules: Rules,
    /// Zeros are put from the tail up to here: all that the last session may have written to, or what is not zero
    /// where nobody knows that.
    pub(crate) zero_end: u64,
}

/// Lists and scans the log; `visit` sees every whole record from `visit_from` on.
pub(crate) fn inspect(search: Search<'_>, visit: &mut dyn FnMut(&RecordView<'_>)) -> Result<Inspection> {
    let mut inspection = list(&search)?;
    let reader = Reader::new(&inspection.files, search.file_bytes);
    let mut scan = LogScan { search, reader, order: Order::default(), back: WriteBack::default() };
    let start = inspection.start().get();
    let end = inspection.end();
    let durable = search.watermark.map(|known| known.durable.get());
    let mut at = durable.map_or(start, |durable| durable.min(search.visit_from.get()).max(start));
    let from = at;
    if let Some(known) = search.watermark {
        scan.check_last_record(&known, &mut inspection)?;
    }
    at = at.min(end);
    inspection.tail = LogOffset::new(at);
    while at < end {
        let step = scan.step(at, visit, &mut inspection)?;
        match step {
            Some(next) => at = next,
            None => break,
        }
        inspection.tail = LogOffset::new(at);
    }
    scan.back.finish(&scan.reader)?;
    inspection.scanned_bytes = inspection.tail.get().saturating_sub(from);
    // The blocks behind the watermark's end were never written, unless the scan went beyond it.
    let allocated = search.watermark.map(|known| known.allocated.get()).filter(|allocated| at <= *allocated);
    let unused = inspection.tail.get()..allocated.unwrap_or(end).min(end);
    inspection.torn = scan.reader.find_written(unused)?;
    let torn_end = inspection.torn.as_ref().map_or(0, |torn| torn.end.get());
    inspection.zero_end = allocated.map_or(torn_end, |allocated| allocated.min(end));
    inspection.sort_corruptions();
    inspection.rules = scan.search.rules;
    Ok(inspection)
}

impl Inspection {
    /// The offset of the first byte.
    pub(crate) fn start(&self) -> LogOffset {
        LogOffset::new(self.files.first().map_or(0, |file| file.base))
    }

    /// The end of the last file.
    pub(crate) fn end(&self) -> u64 {
        self.files.last().map_or(0, |file| file.base + self.file_bytes)
    }

    fn path_of(&self, at: u64) -> PathBuf {
        let file = self.files.iter().rfind(|file| file.base <= at).or(self.files.first());
        file.map_or_else(|| self.dir.clone(), |file| file.file.path().to_path_buf())
    }

    /// Lowest first, each place once: the watermark's own record may be met twice.
    fn sort_corruptions(&mut self) {
        self.corruptions.sort_by_key(|corruption| corruption.range.start);
        self.corruptions.dedup_by(|next, kept| {
            let same = next.range.start < kept.range.end;
            if same {
                kept.range.end = kept.range.end.max(next.range.end);
            }
            same
        });
    }

    fn corrupt(&mut self, range: Range<u64>, reason: impl Into<String>) {
        let path = self.path_of(range.start);
        self.corruptions.push(Corruption { path, range, reason: reason.into() });
    }
}

fn list(search: &Search<'_>) -> Result<Inspection> {
    let (found, strays) = list_log_files(search.storage, search.dir)?;
    let mut inspection = Inspection {
        dir: search.dir.to_path_buf(),
        files: Vec::with_capacity(found.len()),
        file_bytes: search.file_bytes,
        strays,
        empty: Vec::new(),
        tail: LogOffset::ZERO,
        last: None,
        last_ms: 0,
        torn: None,
        corruptions: Vec::new(),
        blanks: Vec::new(),
        scanned_bytes: 0,
        rules: search.rules,
        zero_end: 0,
    };
    // The first file stays even if it is empty: its name says where the log begins.
    let filled = found.iter().rposition(|(_, bytes)| *bytes > 0).map_or(1, |index| index + 1);
    for (index, (base, bytes)) in found.into_iter().enumerate() {
        let path = search.dir.join(crate::format::names::log_file_name(base));
        if index >= filled {
            inspection.empty.push(path);
            continue;
        }
        let end = base + search.file_bytes;
        if bytes > search.file_bytes {
            let reason = format!("the file has {bytes} bytes, more than the {} of a log file here", search.file_bytes);
            // What is behind a file has no place in the log, and so no offset.
            inspection.corruptions.push(Corruption { path: path.clone(), range: end..end, reason });
        }
        if let Some(last) = inspection.files.last().map(|last| last.base + search.file_bytes)
            && last != base
        {
            let reason = "the log has a gap: a file is missing, or its name is wrong".to_owned();
            let corruption = Corruption { path: path.clone(), range: last..base, reason };
            stand_in(search, &mut inspection, corruption)?;
        }
        let file = search.storage.open(&path, search.mode)?;
        inspection.files.push(LogFile { base, file, bytes: bytes.min(search.file_bytes) });
    }
    Ok(inspection)
}

/// Puts empty files in the place of missing ones, if the log is to be salvaged; else the gap is the end of the opening.
fn stand_in(search: &Search<'_>, inspection: &mut Inspection, gap: Corruption) -> Result<()> {
    let missing = (gap.range.end.saturating_sub(gap.range.start)) / search.file_bytes;
    let fits = gap.range.start + missing * search.file_bytes == gap.range.end;
    if !search.salvage || !fits || missing > MOST_MISSING {
        return Err(Error::Corrupt(gap));
    }
    create_abort(search.storage, search.dir.parent().unwrap_or(search.dir))?;
    for base in gap.range.clone().step_by(usize::try_from(search.file_bytes).unwrap_or(usize::MAX)) {
        let path = search.dir.join(crate::format::names::log_file_name(base));
        let file = search.storage.open(&path, OpenMode::Create)?;
        file.set_len(search.file_bytes)?;
        inspection.files.push(LogFile { base, file, bytes: search.file_bytes });
    }
    inspection.corruptions.push(gap);
    Ok(())
}

/// The scan of one opening.
struct LogScan<'a> {
    search: Search<'a>,
    reader: Reader,
    order: Order,
    back: WriteBack,
}

/// What the scan accepted behind the watermark is written once more, from the memory in which it was checked: its pages
/// may be left over from a sync that failed, and would then never reach the disk by themselves.
#[derive(Debug, Default)]
struct WriteBack {
    start: u64,
    bytes: Vec<u8>,
}

impl WriteBack {
    fn push(&mut self, at: u64, record: &[u8], reader: &Reader) -> Result<()> {
        let follows =
            self.start + self.bytes.len() as u64 == at && reader.left_in_file(at) < reader.left_in_file(self.start);
        if !follows || self.bytes.len() > WRITE_BACK_BYTES {
            self.finish(reader)?;
            self.start = at;
        }
        self.bytes.extend_from_slice(record);
        Ok(())
    }

    fn finish(&mut self, reader: &Reader) -> Result<()> {
        if !self.bytes.is_empty() {
            reader.write_at(self.start, &self.bytes)?;
            self.bytes.clear();
        }
        Ok(())
    }
}

impl LogScan<'_> {
    /// Looks at what stands at `at`; returns where to go on, or `None` where the log ends.
    fn step(
        &mut self,
        at: u64,
        visit: &mut dyn FnMut(&RecordView<'_>),
        inspection: &mut Inspection,
    ) -> Result<Option<u64>> {
        let left = self.reader.left_in_file(at);
        let rules = self.search.rules;
        let written_back = self.is_written_back(at, inspection);
        let window = self.reader.record_window(at)?;
        match rules.judge(window, at, left) {
            Found::Record(record) => {
                let next = at + u64::from(record.record_bytes());
                inspection.last = Some((at, record.record_bytes()));
                inspection.last_ms = record.store_ms();
                self.order.note(&record);
                if at >= self.search.visit_from.get() {
                    visit(&record);
                }
                if written_back {
                    let record = record.bytes().to_vec();
                    self.back.push(at, &record, &self.reader)?;
                }
                Ok(Some(next))
            }
            Found::Blank => {
                if written_back {
                    let blank: Vec<u8> = window[..BLANK_BYTES].to_vec();
                    self.back.push(at, &blank, &self.reader)?;
                }
                Ok(Some(at + left))
            }
            Found::Nothing => self.bad(at, "nothing stands where a record should begin".to_owned(), inspection),
            Found::Bad(reason) => self.bad(at, reason, inspection),
        }
    }

    /// Is what stands at `at` not known to be durable, and may it be written?
    fn is_written_back(&self, at: u64, inspection: &Inspection) -> bool {
        let unsure = self.search.watermark.is_some_and(|known| at >= known.durable.get());
        unsure && self.search.mode != OpenMode::Read && inspection.corruptions.is_empty()
    }

    /// The table of the design: what the first bad byte at `at` means.
    fn bad(&mut self, at: u64, reason: String, inspection: &mut Inspection) -> Result<Option<u64>> {
        let left = self.reader.left_in_file(at);
        if self.is_damaged_blank(at, left)? {
            inspection.blanks.push(LogOffset::new(at));
            return Ok(Some(at + left));
        }
        let Some(known) = self.search.watermark else {
            // Nobody says how far the log was durable: what follows decides.
            return match self.find_behind(at, true)? {
                Some(next) => {
                    inspection.corrupt(at..next, reason);
                    Ok(Some(next))
                }
                None => Ok(None),
            };
        };
        let durable = known.durable.get();
        if at >= durable {
            return Ok(None);
        }
        let next = self.find_behind(at, false)?.unwrap_or(durable).min(durable).min(self.reader.end());
        inspection.corrupt(at..next, reason);
        Ok(Some(next))
    }

    /// Is this an end-of-file blank with one wrong field, with nothing behind it in its file, and the log goes on?
    fn is_damaged_blank(&mut self, at: u64, left: u64) -> Result<bool> {
        let rules = self.search.rules;
        let mut word = [0; BLANK_BYTES];
        if self.reader.read_at(at, &mut word)? < BLANK_BYTES {
            return Ok(false);
        }
        let blank = u32::try_from(left).map(crate::format::record::encode_blank);
        let Ok(blank) = blank else { return Ok(false) };
        let right_fields = usize::from(word[..4] == blank[..4]) + usize::from(word[4..] == blank[4..]);
        if right_fields != 1 || self.find_from(at + 1, at + left, &|_| true)?.is_some() {
            return Ok(false);
        }
        let next = at + left;
        if next >= self.reader.end() {
            return Ok(false);
        }
        let next_left = self.reader.left_in_file(next);
        let window = self.reader.record_window(next)?;
        Ok(matches!(rules.judge(window, next, next_left), Found::Record(_)))
    }

    /// Finds the next whole record behind `at`, in its file or a later one. With `ordered`, stale ones do not count.
    fn find_behind(&mut self, at: u64, ordered: bool) -> Result<Option<u64>> {
        let order = std::mem::take(&mut self.order);
        let accept = |record: &RecordView<'_>| !ordered || order.may_follow(record);
        let found = self.find_from(at + 1, self.reader.end(), &accept);
        self.order = order;
        found
    }

    /// Finds the first whole record that begins in `at..end`.
    fn find_from(&mut self, mut at: u64, end: u64, accept: &dyn Fn(&RecordView<'_>) -> bool) -> Result<Option<u64>> {
        let rules = self.search.rules;
        while at < end {
            // The pieces overlap by what is needed to see a magic number that stands across their border.
            let piece = self.reader.piece(at)?;
            let step = if piece.len() > BLANK_BYTES { piece.len() - BLANK_BYTES + 1 } else { piece.len().max(1) };
            for distance in candidates(&piece) {
                let start = at + distance as u64;
                let left = self.reader.left_in_file(start);
                let window = self.reader.record_window(start)?;
                if start < end
                    && let Found::Record(record) = rules.judge(window, start, left)
                    && accept(&record)
                {
                    return Ok(Some(start));
                }
            }
            let left = self.reader.left_in_file(at);
            at += if left <= piece.len() as u64 || piece.is_empty() { left } else { step as u64 };
        }
        Ok(None)
    }

    /// The watermark describes the last record below it: if that is not there, the log is not what it was.
    fn check_last_record(&mut self, known: &Watermark, inspection: &mut Inspection) -> Result<()> {
        let start = inspection.start().get();
        let (end, durable) = (inspection.end(), known.durable.get());
        let short = inspection.files.iter().map(|file| (file.base + file.bytes, file.base + inspection.file_bytes));
        let lost = short.map(|(from, to)| from..to.min(durable)).filter(|lost| lost.start < lost.end);
        for lost in lost.collect::<Vec<_>>() {
            inspection.corrupt(lost, "the file ends before what was durable");
        }
        if durable > end {
            inspection.corrupt(end..durable, "the log ends before what was durable");
        }
        let Some(last) = &known.last else { return Ok(()) };
        let (offset, len) = (last.offset.get(), u64::from(last.bytes));
        if offset < start || offset + len > end {
            return Ok(());
        }
        let mut bytes = vec![0; last.bytes as usize];
        self.reader.read_at(offset, &mut bytes)?;
        if crc32c::crc32c(&bytes) == last.crc32c {
            inspection.last = Some((offset, last.bytes));
            let record = RecordView::decode(&bytes).ok();
            inspection.last_ms = record.map_or(0, |record| record.store_ms());
            let lacks_crc = record.is_some_and(|record| record.crc_property() == CrcProperty::Absent);
            if lacks_crc && self.search.rules.crc_from.is_some_and(|from| from <= last.offset) {
                // The record is as it was written, so what asks for its CRC is out of date.
                self.search.rules.crc_from = None;
            }
        } else {
            inspection.corrupt(offset..offset + len, "the last durable record is not the one that was written");
        }
        Ok(())
    }
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
