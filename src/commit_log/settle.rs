//! Opening, second half: what the inspection found is put right, made durable, and becomes a log.
//!
//! Nothing here destroys what was durable: what is cut is kept in `mqlog/cut/` first. The order of the steps is such
//! that a crash between any two of them leaves a log that the next opening puts right in the same way.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock};

use super::inspect::Inspection;
use super::log::{CommitLog, FIRST_STEP_BYTES, Shared};
use super::place::{Group, Place, Sink};
use super::read::Rules;
use super::reader::LogFile;
use crate::clock::{Clock, StoreClock};
use crate::disk::Storage;
use crate::error::Result;
use crate::format::record::{RecordCrc, encode_blank};
use crate::mapped_file::{Creation, MappedFile, MappedFiles, write_zeros};
use crate::offset::LogOffset;
use crate::progress::Progress;
use crate::side::{LastRecord, SideFolder, Watermark, WatermarkFile};

/// Cut bytes are kept in pieces of this size.
const CUT_BYTES: u64 = 16 * 1024 * 1024;

/// How a log is used once it is open.
#[derive(Debug, Clone)]
pub(crate) struct LogUse {
    pub(crate) storage: Storage,
    pub(crate) side: SideFolder,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rules: Rules,
    pub(crate) crc: RecordCrc,
    /// Write in groups, with positioned writes.
    pub(crate) grouped: bool,
    /// Read with positioned reads, and take no appends.
    pub(crate) read_only: bool,
}

impl CommitLog {
    /// Puts right what was found and opens the log. `known` is the watermark that the inspection used.
    pub(crate) fn settle(found: &Inspection, log_use: LogUse, known: Option<Watermark>) -> Result<Self> {
        let dir = log_use.side.root().join("commitlog");
        let new_dir = log_use.side.path().join("new");
        let creation = Creation {
            storage: log_use.storage.clone(),
            dir,
            new_dir,
            file_bytes: found.file_bytes,
            zeros: log_use.grouped,
        };
        let mut files = found.files.clone();
        log_use.storage.create_dir_durably(&creation.dir)?;
        mend(found, &mut files, &log_use, &creation)?;
        let durable = known.map_or(0, |known| known.durable.get());
        for file in files.iter().filter(|file| file.base + found.file_bytes > durable) {
            file.file.sync()?;
        }
        log_use.storage.sync_dir(&creation.dir)?;
        let watermark = if log_use.read_only { None } else { Some(save_watermark(found, &files, &log_use)?) };
        let mapped = map(found, files, &log_use)?;
        Ok(Self { shared: Arc::new(share(found, mapped, log_use, creation, watermark)) })
    }
}

/// Removes empty and unused files, completes short ones, repairs blanks, cuts the torn tail.
fn mend(found: &Inspection, files: &mut Vec<LogFile>, log_use: &LogUse, creation: &Creation) -> Result<()> {
    for path in &found.empty {
        log_use.storage.remove_file(path)?;
    }
    for file in files.iter_mut().filter(|file| file.bytes < found.file_bytes) {
        file.file.set_len(found.file_bytes)?;
        file.file.sync()?;
        file.bytes = found.file_bytes;
    }
    for at in &found.blanks {
        if let Some(file) = files.iter().rfind(|file| file.base <= at.get()) {
            let position = at.get() - file.base;
            let left = u32::try_from(found.file_bytes - position).expect("a log file has 31 bits of length");
            file.file.write_at(&encode_blank(left), position)?;
            file.file.sync()?;
        }
    }
    if let Some(torn) = &found.torn {
        keep(torn.start.get()..torn.end.get(), files, found.file_bytes, log_use)?;
    }
    while files.last().is_some_and(|last| last.base > found.tail.get()) {
        let last = files.pop().expect("the loop saw it");
        log_use.storage.remove_file(last.file.path())?;
        log_use.storage.sync_dir(&creation.dir)?;
    }
    let Some(last) = files.last() else { return Ok(()) };
    // Also over what reads as zeros: where a sync failed, the disk may hold something else.
    let end = found.zero_end.min(last.base + found.file_bytes);
    let start = found.tail.get();
    #[cfg(test)]
    if crate::planted::is(crate::planted::Planted::NoZeroingOnTruncate) {
        return Ok(());
    }
    if start < end {
        write_zeros(&last.file, start - last.base..end - last.base)?;
    }
    Ok(())
}

/// Keeps the bytes of a range that are not zero in `mqlog/cut/`.
fn keep(range: std::ops::Range<u64>, files: &[LogFile], file_bytes: u64, log_use: &LogUse) -> Result<()> {
    let mut at = range.start;
    while at < range.end {
        let Some(file) = files.iter().rfind(|file| file.base <= at) else { return Ok(()) };
        let end = range.end.min(file.base + file_bytes).min(at + CUT_BYTES);
        let mut bytes = vec![0; usize::try_from(end - at).expect("a piece fits into memory")];
        let count = file.file.read_at(&mut bytes, at - file.base)?;
        bytes.truncate(count);
        if bytes.iter().any(|byte| *byte != 0) {
            log_use.side.keep_cut(LogOffset::new(at), &bytes)?;
        }
        at = end;
    }
    Ok(())
}

fn save_watermark(found: &Inspection, files: &[LogFile], log_use: &LogUse) -> Result<WatermarkFile> {
    let mut last = None;
    if let Some((offset, bytes)) = found.last
        && let Some(file) = files.iter().rfind(|file| file.base <= offset)
    {
        let mut record = vec![0; bytes as usize];
        file.file.read_at(&mut record, offset - file.base)?;
        last = Some(LastRecord { offset: LogOffset::new(offset), bytes, crc32c: crc32c::crc32c(&record) });
    }
    let watermark = Watermark { durable: found.tail, allocated: found.tail, last };
    WatermarkFile::create(&log_use.side, &watermark)
}

fn map(found: &Inspection, files: Vec<LogFile>, log_use: &LogUse) -> Result<Vec<Arc<MappedFile>>> {
    let tail = found.tail.get();
    let files = files.into_iter().filter(|file| file.base <= tail);
    let mapped = files.map(|file| {
        let mapped = MappedFile::new(file.file, file.base, found.file_bytes, !log_use.read_only)?;
        mapped.publish((tail - mapped.base()).min(found.file_bytes));
        Ok(Arc::new(mapped))
    });
    mapped.collect()
}

fn share(
    found: &Inspection,
    files: Vec<Arc<MappedFile>>,
    log_use: LogUse,
    creation: Creation,
    watermark: Option<WatermarkFile>,
) -> Shared {
    let active = files.last().filter(|file| found.tail.get() < file.end()).cloned();
    let sink = match &active {
        _ if log_use.grouped => Sink::Group(Group::default()),
        Some(file) if !log_use.read_only => Sink::Mapping(Some(file.writer())),
        _ => Sink::Mapping(None),
    };
    let tail = found.tail.get();
    let place = Place { tail, allocated: tail, active, next: None, last: found.last, sink };
    Shared {
        storage: log_use.storage,
        files: MappedFiles::new(files),
        place: Mutex::new(place),
        progress: Arc::new(Progress::new(found.tail)),
        watermark,
        stamps: StoreClock::new(found.last_ms),
        clock: log_use.clock,
        rules: log_use.rules,
        damaged: found.corruptions.clone(),
        crc: log_use.crc,
        grouped: log_use.grouped,
        closed: AtomicBool::new(false),
        growing: Mutex::new(FIRST_STEP_BYTES.min(creation.file_bytes)),
        leading: Mutex::new(Group::default()),
        flushed: Mutex::new((found.tail, found.last)),
        populated: AtomicU64::new(0),
        deleted: Mutex::default(),
        preparer: OnceLock::new(),
        lock: Mutex::new(None),
        creation,
    }
}

/// Stands for a host that a message does not name: this machine, RocketMQ's usual port.
pub(crate) const DEFAULT_HOST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 10911);
