//! What an index file has in memory while it is in use: header, slots, and the entries that are not yet written.
//!
//! Header and slots are rewritten in place, by 4 KiB parts. Both can be made anew from the entries: for recovery, and to
//! find out whether a file is sound.

use std::ops::Range;

use byteorder::{BigEndian, ByteOrder};

use crate::disk::File;
use crate::error::{Error, Result};
use crate::format::index::{IndexEntry, IndexHeader, IndexLayout, time_diff_seconds};
use crate::offset::LogOffset;

const PART_BYTES: usize = 4096;
/// A multiple of the size of an entry and of 4 KiB.
const PIECE_BYTES: usize = 80 * 1024;
const _: () = assert!(PIECE_BYTES.is_multiple_of(IndexEntry::BYTES) && PIECE_BYTES.is_multiple_of(PART_BYTES));

#[derive(Debug)]
pub(super) struct State {
    pub header: IndexHeader,
    /// Could the header not be read? Then the file takes no entries, and all that its chains hold is found.
    pub is_damaged: bool,
    /// There from the first put on, until the file is full and synced.
    pub in_use: Option<InUse>,
    /// The number of the first entry that the last sync did not cover, `None` before the first one of a new file.
    pub synced: Option<u32>,
    /// After a failed sync nobody knows what is on the disk, so none is tried again.
    pub sync_failure: Option<Error>,
}

impl State {
    /// The state of a durable file nobody puts into yet; without a header if that is damaged.
    pub(super) fn of_file(header: Option<IndexHeader>, layout: IndexLayout) -> Self {
        let is_damaged = header.is_none();
        let header = header.unwrap_or(IndexHeader { next_entry: layout.entries, ..IndexHeader::default() });
        Self { header, is_damaged, in_use: None, synced: Some(header.next_entry), sync_failure: None }
    }

    /// The state of a file that is put into, of which nothing is durable.
    pub(super) fn of_new(header: IndexHeader, in_use: InUse) -> Self {
        Self { header, is_damaged: false, in_use: Some(in_use), synced: None, sync_failure: None }
    }
}

#[derive(Debug)]
pub(super) struct InUse {
    pub file: File,
    layout: IndexLayout,
    /// The first bytes of the file, up to its first entry. The memory comes zeroed from the operating system, so slots
    /// that were never used cost none.
    image: Vec<u8>,
    /// Which parts of the image differ from the file.
    dirty: Vec<bool>,
    /// Entries from number `written` on.
    pub pending: Vec<u8>,
    written: u32,
}

impl InUse {
    /// A file whose slots are all empty.
    pub(super) fn empty(file: File, layout: IndexLayout) -> Self {
        let bytes = usize::try_from(layout.slot_at(layout.slots)).expect("the slots of a file in use fit in memory");
        let (image, dirty) = (vec![0; bytes], vec![false; bytes.div_ceil(PART_BYTES)]);
        Self { file, layout, image, dirty, pending: Vec::new(), written: 1 }
    }

    /// Reads a file's slots.
    pub(super) fn load(file: File, layout: IndexLayout, next_entry: u32) -> Result<Self> {
        let mut loaded = Self { written: next_entry, ..Self::empty(file, layout) };
        read_pieces(&loaded.file, 0..loaded.image.len() as u64, |at, piece| {
            if piece.iter().any(|byte| *byte != 0) {
                loaded.image[at as usize..][..piece.len()].copy_from_slice(piece);
            }
            Ok(true)
        })?;
        Ok(loaded)
    }

    /// The number of a slot's newest entry, 0 for none. What is not below `next_entry` is damage and counts as none.
    pub(super) fn newest(&self, slot: u32, next_entry: u32) -> u32 {
        below(BigEndian::read_u32(&self.image[self.layout.slot_at(slot) as usize..]), next_entry)
    }

    /// Makes the next entry the newest of its slot and counts it in the header, times excepted. Returns the number of
    /// the one before it in its chain.
    fn link(&mut self, header: &mut IndexHeader, hash: u32, log_offset: u64) -> u32 {
        let (number, slot) = (header.next_entry, self.layout.slot_of(hash));
        let previous = self.newest(slot, number);
        // A slot begins at a multiple of four bytes, so it never lies in two parts.
        let at = self.layout.slot_at(slot) as usize;
        BigEndian::write_u32(&mut self.image[at..], number);
        self.dirty[at / PART_BYTES] = true;
        if number == 1 {
            header.begin_offset = log_offset;
        }
        header.end_offset = log_offset;
        // A damaged header may count more of them than there are, or than the field holds.
        header.slot_count = header.slot_count.saturating_add(u32::from(previous == 0)).min(self.layout.slots);
        header.next_entry += 1;
        previous
    }

    /// Adds an entry, which stays in memory for now.
    pub(super) fn add(&mut self, header: &mut IndexHeader, hash: u32, log_offset: u64, store_ms: i64) {
        // RocketMQ takes the seconds before it sets a new file's begin time, so the first entry's count from the end
        // of the file before.
        let seconds = time_diff_seconds(store_ms, header.begin_ms);
        if header.next_entry == 1 {
            header.begin_ms = store_ms;
        }
        header.end_ms = store_ms;
        let previous = self.link(header, hash, log_offset);
        self.pending.extend_from_slice(&IndexEntry { hash, log_offset, seconds, previous }.encode());
    }

    /// Makes slots and header, times excepted, anew from the entries below number `next_entry` and log offset `end`; all
    /// of them will be written. `None` if an entry is damaged: it does not continue its chain.
    pub(super) fn rebuild(
        file: File,
        layout: IndexLayout,
        next_entry: u32,
        end: LogOffset,
    ) -> Result<Option<(Self, IndexHeader)>> {
        let (mut rebuilt, mut header, mut is_sound) = (Self::empty(file.clone(), layout), IndexHeader::default(), true);
        read_pieces(&file, layout.entry_at(1)..layout.entry_at(next_entry.max(1)), |_, piece| {
            for entry in piece.chunks(IndexEntry::BYTES).map(IndexEntry::decode) {
                is_sound = entry.is_ok_and(|entry| {
                    entry.log_offset >= end.get()
                        || rebuilt.link(&mut header, entry.hash, entry.log_offset) == entry.previous
                });
                if !is_sound || entry.is_ok_and(|entry| entry.log_offset >= end.get()) {
                    return Ok(false);
                }
            }
            Ok(true)
        })?;
        rebuilt.written = header.next_entry;
        rebuilt.dirty.fill(true);
        Ok(is_sound.then_some((rebuilt, header)))
    }

    /// Has the file on the disk the same slots?
    pub(super) fn has_slots_of_file(&self) -> Result<bool> {
        let slots = IndexHeader::BYTES as u64..self.image.len() as u64;
        read_pieces(&self.file, slots, |at, piece| Ok(self.image[at as usize..][..piece.len()] == *piece))
    }

    /// Returns an entry that is in memory only.
    pub(super) fn pending_entry(&self, number: u32) -> Option<IndexEntry> {
        let at = number.checked_sub(self.written)? as usize * IndexEntry::BYTES;
        IndexEntry::decode(self.pending.get(at..)?).ok()
    }

    /// Writes the entries that are in memory only; after an error they are still there.
    pub(super) fn write_entries(&mut self) -> Result<()> {
        self.file.write_at(&self.pending, self.layout.entry_at(self.written))?;
        self.written += (self.pending.len() / IndexEntry::BYTES) as u32;
        self.pending.clear();
        Ok(())
    }

    /// Writes the header and every part that differs from the file. After an error what was not written stays marked.
    pub(super) fn write_head(&mut self, header: &IndexHeader) -> Result<()> {
        self.image[..IndexHeader::BYTES].copy_from_slice(&header.encode());
        self.dirty[0] = true;
        for (part, dirty) in self.dirty.iter_mut().enumerate().filter(|(_, dirty)| **dirty) {
            let at = part * PART_BYTES;
            self.file.write_at(&self.image[at..self.image.len().min(at + PART_BYTES)], at as u64)?;
            *dirty = false;
        }
        Ok(())
    }
}

/// Hands out a range of a file piece by piece, until `next` returns `false`; what is behind the end of the file is
/// zero. Returns whether `next` went along to the end.
pub(super) fn read_pieces(
    file: &File,
    range: Range<u64>,
    mut next: impl FnMut(u64, &[u8]) -> Result<bool>,
) -> Result<bool> {
    let mut buffer = vec![0; PIECE_BYTES];
    for at in range.clone().step_by(PIECE_BYTES) {
        let piece = &mut buffer[..(range.end - at).min(PIECE_BYTES as u64) as usize];
        let present = file.read_at(piece, at)?;
        piece[present..].fill(0);
        if !next(at, piece)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The number of an entry before `limit`; 0, for none, if it is not before.
pub(super) fn below(number: u32, limit: u32) -> u32 {
    if number < limit { number } else { 0 }
}

/// Reads a file's header; `None` if it is damaged.
pub(super) fn read_header(file: &File) -> Result<Option<IndexHeader>> {
    let mut bytes = [0; IndexHeader::BYTES];
    let present = file.read_at(&mut bytes, 0)?;
    Ok(IndexHeader::decode(&bytes[..present]).ok())
}

/// Reads an entry of a file; `None` if it is damaged.
pub(super) fn read_entry(file: &File, layout: IndexLayout, number: u32) -> Result<Option<IndexEntry>> {
    let mut bytes = [0; IndexEntry::BYTES];
    let present = file.read_at(&mut bytes, layout.entry_at(number))?;
    Ok(IndexEntry::decode(&bytes[..present]).ok())
}

/// Has the layout room for the header's entries, and are its first and last record theirs?
pub(super) fn fits(file: &File, layout: IndexLayout, header: &IndexHeader) -> Result<bool> {
    let offset_of = |number| Ok::<_, Error>(read_entry(file, layout, number)?.map(|entry| entry.log_offset));
    let (next, begin, end) = (header.next_entry, Some(header.begin_offset), Some(header.end_offset));
    Ok(next <= layout.entries && (next == 1 || offset_of(1)? == begin && offset_of(next - 1)? == end))
}
