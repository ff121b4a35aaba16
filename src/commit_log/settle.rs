//! Opening, second half: what the inspection found is put right, made durable, and becomes a log.
//!
//! Nothing here destroys what was durable: what is cut is kept in `mqlog/cut/` first. The order of the steps is such
//! that a crash between any two of them leaves a log that the next opening puts right in the same way.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use super::inspect::Inspection;
use super::known::LogOptions;
use super::log::{CommitLog, FIRST_STEP_BYTES, Shared};
use super::place::{Group, Place, Sink};
use super::read::{describe, for_each_piece};
use crate::clock::StoreClock;
use crate::error::{Corruption, Result};
use crate::format::record::{CRC_PROPERTY_BYTES, LOST_CRC_PROPERTY, encode_blank};
use crate::mapped_file::{Creation, MappedFile, MappedFiles, write_zeros};
use crate::offset::LogOffset;
use crate::progress::Progress;
use crate::side::{SideFolder, StoreFormat, Watermark, WatermarkFile};
use crate::sync::atomic::{AtomicBool, AtomicU64};
use crate::sync::{Mutex, OnceLock};

/// Cut bytes are kept in pieces of this size.
const CUT_BYTES: usize = 16 * 1024 * 1024;

impl CommitLog {
    /// Puts right what was found and opens the log, which was durable up to `durable`.
    pub(super) fn settle(
        options: &LogOptions,
        side: &SideFolder,
        format: &StoreFormat,
        found: &Inspection,
        durable: u64,
    ) -> Result<Self> {
        let creation = Creation {
            storage: options.storage.clone(),
            dir: found.dir.clone(),
            new_dir: side.path().join("new"),
            file_bytes: found.file_bytes,
            zeros: options.grouped,
        };
        options.storage.create_dir_durably(&found.dir)?;
        mend(found, options, side)?;
        for file in found.files.snapshot().iter().filter(|file| file.end() > durable) {
            file.file().sync()?;
        }
        options.storage.sync_dir(&found.dir)?;
        let last = describe(&found.files, found.last)?;
        let crc_from = format.record_crc_from;
        let watermark = Watermark { durable: found.tail, allocated: found.tail, last, crc_from };
        let create = || WatermarkFile::create(side, &watermark);
        let watermark = (!options.read_only).then(create).transpose()?;
        let tail = found.tail.get();
        let map = |found: &Arc<MappedFile>| {
            let mapped = MappedFile::new(found.file(), found.base(), creation.file_bytes, !options.read_only)?;
            mapped.publish((tail - mapped.base()).min(creation.file_bytes));
            // Where nothing is written, it is read as it was found.
            if !options.read_only && mapped.end() <= tail {
                mapped.rest(&options.storage);
            } else if !options.read_only {
                mapped.wake(&options.storage)?;
            }
            Ok(Arc::new(mapped))
        };
        let files = found.files.snapshot().iter().map(map).collect::<Result<Vec<_>>>()?;
        let active = files.last().filter(|file| tail < file.end()).cloned();
        let sink = if options.grouped {
            Sink::Group(Group::default())
        } else {
            Sink::Mapping(active.as_ref().filter(|_| !options.read_only).map(MappedFile::writer))
        };
        let ahead = (creation.file_bytes / 8).min(FIRST_STEP_BYTES / 2);
        let shared = Shared {
            files: MappedFiles::new(files),
            place: Mutex::new(Place::begin((tail, found.last), ahead, active, sink)),
            progress: Arc::new(Progress::new(found.tail)),
            watermark,
            stamps: StoreClock::new(found.last_ms, options.clock.now_ms()),
            clock: Arc::clone(&options.clock),
            crc_from: format.record_crc_from,
            opened_at: found.tail,
            read_mode: options.read_mode,
            damaged: damage_below(found, format, tail),
            met: Mutex::default(),
            crc: options.crc,
            grouped: options.grouped,
            closed: AtomicBool::new(false),
            growing: Mutex::new(FIRST_STEP_BYTES.min(creation.file_bytes)),
            leading: Mutex::new(Group::default()),
            flushed: Mutex::new((found.tail, found.last)),
            populated: AtomicU64::new(0),
            deleted: Mutex::default(),
            preparer: OnceLock::new(),
            lock: Mutex::new(None),
            creation,
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

/// Cuts the torn tail, gives files the length they should have, repairs blanks.
fn mend(found: &Inspection, options: &LogOptions, side: &SideFolder) -> Result<()> {
    for path in &found.empty {
        options.storage.remove_file(path)?;
    }
    let tail = found.tail.get();
    for (file, bytes) in &found.long {
        keep_rest(file, *bytes, side)?;
    }
    cut(found, options, side)?;
    let files = found.files.snapshot();
    for file in files.iter().filter(|file| file.published() < found.file_bytes) {
        let end = file.base() + file.published();
        file.wake(&options.storage)?;
        if let Some(cut) = found.corruptions.iter().find(|damage| damage.range.start < end && end < damage.range.end) {
            spoil(file, cut.range.start)?;
        }
        if file.base() <= tail && tail < end {
            // A torn record whose end is missing must not become whole by the zeros that are put there.
            file.file().set_len(tail - file.base())?;
            file.file().sync()?;
        }
        file.file().set_len(found.file_bytes)?;
        file.file().sync()?;
        file.publish(found.file_bytes);
    }
    for at in &found.blanks {
        let file = found.files.find(at.get()).expect("a blank stands in a file");
        let left = u32::try_from(file.end() - at.get()).expect("a log file has 31 bits of length");
        file.wake(&options.storage)?;
        file.file().write_at(&encode_blank(left), at.get() - file.base())?;
        file.file().sync()?;
    }
    let Some(last) = found.files.find(tail) else { return Ok(()) };
    last.wake(&options.storage)?;
    // Also over what reads as zeros: where a sync failed, the disk may hold something else.
    let end = found.zero_end.min(last.end());
    #[cfg(test)]
    if crate::planted::is(crate::planted::Planted::NoZeroingOnTruncate) {
        return Ok(());
    }
    if tail < end { write_zeros(&last.file(), tail - last.base()..end - last.base()) } else { Ok(()) }
}

/// Keeps what is torn, and removes the files behind the tail.
fn cut(found: &Inspection, options: &LogOptions, side: &SideFolder) -> Result<()> {
    if let Some(torn) = &found.torn {
        let keep = &mut |at, bytes: &[u8]| keep_used(side, at, bytes);
        for_each_piece(&found.files, torn.start.get()..torn.end.get(), CUT_BYTES, keep)?;
    }
    for last in found.files.snapshot().iter().rev().take_while(|last| last.base() > found.tail.get()) {
        found.files.drop_last(last);
        options.storage.remove_file(last.path())?;
        options.storage.sync_dir(&found.dir)?;
    }
    Ok(())
}

/// Keeps what a file of so many bytes has behind the end of a log file, and cuts it.
fn keep_rest(file: &MappedFile, bytes: u64, side: &SideFolder) -> Result<()> {
    file.wake(side.storage())?;
    let length = file.end() - file.base();
    for at in (length..bytes).step_by(CUT_BYTES) {
        let mut rest = vec![0; CUT_BYTES.min(usize::try_from(bytes - at).unwrap_or(CUT_BYTES))];
        let present = file.file().read_at(&mut rest, at)?;
        keep_used(side, file.base() + at, &rest[..present])?;
    }
    file.file().set_len(length)?;
    file.file().sync()
}

/// Keeps bytes that are about to be cut, unless they are zero.
fn keep_used(side: &SideFolder, at: u64, bytes: &[u8]) -> Result<()> {
    let is_used = bytes.iter().any(|byte| *byte != 0);
    if is_used { side.keep_cut(LogOffset::new(at), bytes).map(drop) } else { Ok(()) }
}

/// Sees to it that a record whose end was lost with a file's end is not taken for whole some day: cut within its
/// properties and filled up with zeros, it would be one without CRC.
fn spoil(file: &MappedFile, record: u64) -> Result<()> {
    // The damage may begin in a file before.
    let Some(at) = record.checked_sub(file.base()) else { return Ok(()) };
    let published = file.published();
    let mut size = [0; 4];
    let present = file.file().read_at(&mut size, at)?;
    let end = at + u64::from(u32::from_be_bytes(size));
    // What is left of a CRC property, with zeros behind it, is damage by itself.
    let is_lost = published + CRC_PROPERTY_BYTES as u64 <= end && end <= file.end() - file.base();
    if present < size.len() || !is_lost {
        return Ok(());
    }
    file.file().write_at(&LOST_CRC_PROPERTY, end - CRC_PROPERTY_BYTES as u64)
}

/// The damage that reads have to know of, lowest first: found now, or in an earlier opening where nothing in the bytes
/// tells of it. What is lost behind the tail is reported, but appends use those offsets anew.
fn damage_below(found: &Inspection, format: &StoreFormat, tail: u64) -> Vec<Corruption> {
    let earlier = |range: &Range<u64>| {
        let path = found.files.find(range.start)?.path().to_path_buf();
        let reason = "an earlier opening found the record changed".to_owned();
        Some(Corruption { path, range: range.clone(), reason })
    };
    let is_new = |range: &&Range<u64>| found.corruptions.iter().all(|known| known.range != **range);
    let all = found.corruptions.iter().cloned().chain(format.damaged.iter().filter(is_new).filter_map(earlier));
    let mut below: Vec<_> = all.filter(|damage| damage.range.start < tail).collect();
    below.iter_mut().for_each(|damage| damage.range.end = damage.range.end.min(tail));
    below.sort_by_key(|damage| damage.range.start);
    below
}

/// Stands for a host that a message does not name: this machine, RocketMQ's usual port.
pub(crate) const DEFAULT_HOST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 10911);
