//! What an index file has in memory while it is in use: header, slots, and the entries that are not yet written.
//!
//! Header and slots are rewritten in place, by 4 KiB parts. Both can be made anew from the entries: for recovery, to find
//! out whether a file is sound, and to find out with which layout files were made, for nothing in them says so.

use std::ops::Range;
use std::path::PathBuf;

use byteorder::{BigEndian, ByteOrder};

use crate::disk::{File, OpenMode, Storage};
use crate::error::{Error, Result};
use crate::format::index::{IndexEntry, IndexHeader, IndexLayout, SLOT_BYTES, time_diff_seconds};
use crate::offset::LogOffset;

const PART_BYTES: usize = 4096;
/// A multiple of the size of an entry and of 4 KiB.
const PIECE_BYTES: usize = 80 * 1024;
const _: () = assert!(PIECE_BYTES.is_multiple_of(IndexEntry::BYTES) && PIECE_BYTES.is_multiple_of(PART_BYTES));

/// With one entry less, a file of the same length has this many slots more.
const SLOTS_OF_ENTRY: u64 = (IndexEntry::BYTES / SLOT_BYTES) as u64;

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

/// A file in use with its header, how many entries were left out, and the log offset of the last of them; `None` if it is
/// damaged.
type Rebuilt = Option<(InUse, IndexHeader, (u32, u64))>;

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
    /// of them will be written. `None` if an entry is damaged: it does not continue its chain, or goes back in the log.
    pub(super) fn rebuild(file: File, layout: IndexLayout, next_entry: u32, end: LogOffset) -> Result<Rebuilt> {
        let (mut rebuilt, mut header, mut is_sound) = (Self::empty(file.clone(), layout), IndexHeader::default(), true);
        let mut left_out = (0, 0);
        read_pieces(&file, layout.entry_at(1)..layout.entry_at(next_entry.max(1)), |_, piece| {
            Ok(piece.chunks(IndexEntry::BYTES).map(IndexEntry::decode).all(|entry| {
                is_sound = entry.is_ok_and(|it| {
                    let before = header.end_offset.max(left_out.1);
                    if it.log_offset >= end.get() {
                        left_out = (left_out.0 + 1, it.log_offset);
                    }
                    let mut continues =
                        |header: &mut IndexHeader| rebuilt.link(header, it.hash, it.log_offset) == it.previous;
                    it.log_offset >= before && (it.log_offset >= end.get() || continues(&mut header))
                });
                is_sound
            }))
        })?;
        rebuilt.written = header.next_entry;
        rebuilt.dirty.fill(true);
        Ok(is_sound.then_some((rebuilt, header, left_out)))
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

/// Has a file the slots and chains of its entries?
pub(super) fn has_slots_of_entries(file: &File, layout: IndexLayout, next_entry: u32) -> Result<bool> {
    let rebuilt = InUse::rebuild(file.clone(), layout, next_entry, LogOffset::MAX)?;
    let Some((InUse { image, .. }, ..)) = rebuilt else { return Ok(false) };
    let slots = IndexHeader::BYTES as u64..image.len() as u64;
    read_pieces(file, slots, |at, piece| Ok(image[at as usize..][..piece.len()] == *piece))
}

/// Hands out a range of a file piece by piece, until `next` returns `false`; what is behind the end of the file is
/// zero. Returns whether `next` went along to the end.
pub(super) fn read_pieces<F>(file: &File, range: Range<u64>, mut next: F) -> Result<bool>
where
    F: FnMut(u64, &[u8]) -> Result<bool>,
{
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

/// Returns the layout under which the slots and chains of one of the files agree with its entries' hashes: the
/// candidates are tried first, then everything that its length allows. Files that agree with nothing decide nothing.
///
/// If no file has an entry, the first candidate of their length is as good as any; `None` if there is none.
pub(crate) fn detect_layout(
    storage: &Storage,
    paths: &[PathBuf],
    candidates: &[IndexLayout],
) -> Result<Option<IndexLayout>> {
    let mut of_empty_file = None;
    for path in paths {
        let file = storage.open(path, OpenMode::Read)?;
        let (bytes, Some(header)) = (file.info()?.bytes, read_header(&file)?) else { continue };
        if bytes > i32::MAX as u64 {
            // RocketMQ maps files, and none so long.
            continue;
        }
        let mut fitting = candidates.iter().filter(|layout| layout.slots > 0 && layout.file_bytes() == bytes).copied();
        if header.next_entry <= 1 {
            of_empty_file = of_empty_file.or(fitting.next());
            continue;
        }
        for layout in fitting {
            if agrees(&file, layout, &header)? {
                return Ok(Some(layout));
            }
        }
        if let Some(layout) = search(&file, bytes, &header)? {
            return Ok(Some(layout));
        }
    }
    Ok(of_empty_file)
}

fn agrees(file: &File, layout: IndexLayout, header: &IndexHeader) -> Result<bool> {
    Ok(fits(file, layout, header)? && has_slots_of_entries(file, layout, header.next_entry)?)
}

/// Looks for the place where the entries begin: entry 0 is zero, entry 1 is the first of its chain and has the offset
/// that the header calls the first, and so on. Only where all that is so the whole file is compared.
fn search(file: &File, bytes: u64, header: &IndexHeader) -> Result<Option<IndexLayout>> {
    let words = bytes.saturating_sub(IndexHeader::BYTES as u64) / SLOT_BYTES as u64;
    let (fewest, most) = (u64::from(header.next_entry), words.saturating_sub(1) / SLOTS_OF_ENTRY);
    let layout_of = |entries: u64| -> Option<IndexLayout> {
        let (slots, entries) = (words - entries * SLOTS_OF_ENTRY, u32::try_from(entries).ok()?);
        let layout = IndexLayout { slots: u32::try_from(slots).ok()?, entries };
        (layout.file_bytes() == bytes).then_some(layout)
    };
    let Some(first) = layout_of(most) else { return Ok(None) };
    // Entry 1 of a layout with one entry less is where this one's entry 2 is.
    let end = first.entry_at(1) + (most + 1).saturating_sub(fewest) * IndexEntry::BYTES as u64;
    let (mut numbers, mut found) = ((fewest..=most).rev(), None);
    read_pieces(file, first.entry_at(1)..end, |_, piece| {
        for (entry, entries) in piece.chunks(IndexEntry::BYTES).zip(&mut numbers) {
            let is_first = IndexEntry::decode(entry)
                .is_ok_and(|entry| entry.hash > 0 && entry.previous == 0 && entry.log_offset == header.begin_offset);
            if is_first
                && let Some(layout) = layout_of(entries)
                && agrees(file, layout, header)?
            {
                found = Some(layout);
                return Ok(false);
            }
        }
        Ok(true)
    })?;
    Ok(found)
}
