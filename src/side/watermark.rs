//! `mqlog/watermark`: how far the log is durable, and how far it may be written.
//!
//! Always: the slot that is not being written is durable and holds the state before; `durable <= allocated`.

use std::ops::Range;

use super::fields::{Fields, push_crc, push_numbers};
use super::{SideFolder, WATERMARK};
use crate::disk::{File, OpenMode};
use crate::error::Result;
use crate::offset::LogOffset;
use crate::progress::{Poison, lock};
use crate::sync::Mutex;

const MAGIC: &[u8; 8] = b"mqlogWM1";
/// Each slot has a block of its own, so that writing one cannot tear the other.
const BLOCK_BYTES: usize = 4096;
/// Less than a sector, so that a slot is torn only by a disk that tears sectors.
pub(super) const SLOT_BYTES: usize = MAGIC.len() + 8 * 8;

/// No log offset.
const NONE: u64 = u64::MAX;

/// The last record below a place in the log: what tells a cut log, or another life of it, from the one that is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LastRecord {
    pub(crate) offset: LogOffset,
    /// Never 0.
    pub(crate) bytes: u32,
    pub(crate) crc32c: u32,
}

impl LastRecord {
    /// The bytes that it takes.
    pub(crate) fn place(&self) -> Range<u64> {
        self.offset.get()..self.offset.get() + u64::from(self.bytes)
    }

    /// How `last` is written.
    pub(super) fn encode(last: Option<Self>) -> [u64; 3] {
        last.map_or([0; 3], |last| [last.offset.get(), last.bytes.into(), last.crc32c.into()])
    }

    /// Reads what was written below `end`; `None` if it cannot be so.
    pub(super) fn decode([offset, bytes, crc32c]: [u64; 3], end: u64) -> Option<Option<Self>> {
        let is_sound = offset.checked_add(bytes)? <= end && end <= LogOffset::MAX.get();
        let (bytes, crc32c) = (u32::try_from(bytes).ok()?, u32::try_from(crc32c).ok()?);
        let last = (bytes > 0).then_some(Self { offset: LogOffset::new(offset), bytes, crc32c });
        is_sound.then_some(last)
    }
}

/// What a slot says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Watermark {
    /// The log is durable below it.
    pub(crate) durable: LogOffset,
    /// The end of the blocks that appends may use; above it the log is zero.
    pub(crate) allocated: LogOffset,
    pub(crate) last: Option<LastRecord>,
    /// What `format` should say of it too: from here on every record carries the record CRC.
    pub(crate) crc_from: Option<LogOffset>,
}

/// The open file. One thread writes at a time; the others wait for it.
#[derive(Debug)]
pub(crate) struct WatermarkFile {
    file: File,
    /// The newest state, with its sequence number.
    state: Mutex<(u64, Watermark)>,
    /// The failed sync after which nothing is known about the file's bytes on disk.
    failed: Poison,
}

impl WatermarkFile {
    /// Opens the file; `None` if there is none that can be believed.
    #[cfg(test)]
    pub(crate) fn open(side: &SideFolder) -> Result<Option<(Self, Watermark)>> {
        let Some((sequence, current)) = read(side)? else { return Ok(None) };
        Ok(Some((Self::open_at(side, sequence, current)?, current)))
    }

    /// Makes the file, or replaces it as a whole, durably; both slots hold `watermark`.
    pub(crate) fn create(side: &SideFolder, watermark: &Watermark) -> Result<Self> {
        let mut bytes = vec![0; 2 * BLOCK_BYTES];
        for sequence in [2, 3] {
            let at = slot_at(sequence);
            bytes[at..at + SLOT_BYTES].copy_from_slice(&watermark.encode(sequence));
        }
        side.replace(WATERMARK, &bytes)?;
        Self::open_at(side, 3, *watermark)
    }

    /// Reads without opening for writing; `None` if there is no file that can be believed.
    pub(crate) fn peek(side: &SideFolder) -> Result<Option<Watermark>> {
        Ok(read(side)?.map(|(_, watermark)| watermark))
    }

    fn open_at(side: &SideFolder, sequence: u64, current: Watermark) -> Result<Self> {
        let file = side.storage.open(&side.path.join(WATERMARK), OpenMode::ReadWrite)?;
        Ok(Self { file, state: Mutex::new((sequence, current)), failed: Poison::default() })
    }

    /// Stores `watermark` whatever was stored before; see [`update`](Self::update).
    #[cfg(test)]
    pub(crate) fn store(&self, watermark: &Watermark) -> Result<()> {
        self.update(|known| *known = *watermark)
    }

    /// Changes what was stored last: writes the other slot and syncs it. After an error the state before still counts.
    ///
    /// `change` runs under the lock, so that two threads that each know one part do not undo each other's. What it
    /// leaves as it was is not written again. After a failed sync nothing more is written: the next sync could succeed
    /// although the disk holds neither state, and the one after it would then overwrite the only slot that is certain.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Watermark)) -> Result<()> {
        let mut state = lock(&self.state);
        self.failed.check()?;
        let (sequence, current) = *state;
        let mut watermark = current;
        change(&mut watermark);
        if watermark != current {
            self.file.write_at(&watermark.encode(sequence + 1), slot_at(sequence + 1) as u64)?;
            #[cfg(test)]
            if crate::planted::is(crate::planted::Planted::WatermarkNotSynced) {
                *state = (sequence + 1, watermark);
                return Ok(());
            }
            self.file.sync().map_err(|error| self.failed.set(error))?;
            *state = (sequence + 1, watermark);
        }
        Ok(())
    }

    /// What was stored last.
    pub(crate) fn current(&self) -> Watermark {
        lock(&self.state).1
    }
}

fn read(side: &SideFolder) -> Result<Option<(u64, Watermark)>> {
    Ok(side.read(WATERMARK, 2 * BLOCK_BYTES + 1)?.and_then(|bytes| decode_file(&bytes)))
}

const fn slot_at(sequence: u64) -> usize {
    if sequence.is_multiple_of(2) { 0 } else { BLOCK_BYTES }
}

/// The newest valid state, with its sequence number.
pub(super) fn decode_file(bytes: &[u8]) -> Option<(u64, Watermark)> {
    if bytes.len() != 2 * BLOCK_BYTES {
        return None;
    }
    let slots = [0, BLOCK_BYTES].map(|at| {
        let slot = Watermark::decode(&bytes[at..at + SLOT_BYTES]);
        slot.filter(|(sequence, _)| slot_at(*sequence) == at)
    });
    slots.into_iter().flatten().max_by_key(|(sequence, _)| *sequence)
}

impl Watermark {
    pub(super) fn encode(&self, sequence: u64) -> Vec<u8> {
        assert!(self.durable <= self.allocated, "what is durable was allocated before");
        let last = LastRecord::encode(self.last);
        assert!(self.last.is_none() || last[1] > 0, "a record has bytes");
        assert!(last[0] + last[1] <= self.durable.get(), "the last durable record is durable");
        let mut slot = MAGIC.to_vec();
        push_numbers(&mut slot, [sequence, self.durable.get(), self.allocated.get()]);
        push_numbers(&mut slot, last);
        push_numbers(&mut slot, [self.crc_from.map_or(NONE, LogOffset::get)]);
        push_crc(&mut slot);
        slot
    }

    /// Decodes a slot: its sequence number and what it says.
    pub(super) fn decode(slot: &[u8]) -> Option<(u64, Self)> {
        let mut fields = Fields(slot.strip_prefix(MAGIC)?);
        let [sequence, durable, allocated, offset, bytes, crc32c, crc_from, crc] = fields.numbers()?;
        let is_whole = crc == u64::from(crc32c::crc32c(&slot[..SLOT_BYTES - 8]));
        let last = LastRecord::decode([offset, bytes, crc32c], durable)?;
        if !is_whole || durable > allocated || allocated > LogOffset::MAX.get() {
            return None;
        }
        let crc_from = Some(crc_from).filter(|from| *from != NONE).map(LogOffset::new);
        Some((
            sequence,
            Self { durable: LogOffset::new(durable), allocated: LogOffset::new(allocated), last, crc_from },
        ))
    }
}
