//! Slots made anew from the entries: for recovery, and to find out whether a file is sound.

use std::ops::Range;

use super::head::{empty_image, read_slot, write_slot};
use crate::disk::File;
use crate::error::Result;
use crate::format::index::{IndexEntry, IndexHeader, IndexLayout};
use crate::offset::LogOffset;

/// A multiple of the size of an entry and of 4 KiB.
const PIECE_BYTES: usize = 80 * 1024;
const _: () = assert!(PIECE_BYTES.is_multiple_of(IndexEntry::BYTES) && PIECE_BYTES.is_multiple_of(4096));

/// What a file's entries say about the rest of it.
#[derive(Debug)]
pub(super) struct Rebuilt {
    /// The bytes before the first entry, with a header of zeros.
    pub image: Vec<u8>,
    pub slot_count: u32,
    pub next_entry: u32,
    pub first: Option<IndexEntry>,
    pub last: Option<IndexEntry>,
}

impl Rebuilt {
    /// Chains the entries below number `next_entry` and log offset `end`; `None` if one of them is damaged: it does not
    /// continue its chain.
    pub(super) fn read(file: &File, layout: IndexLayout, next_entry: u32, end: LogOffset) -> Result<Option<Self>> {
        let mut rebuilt = Self { image: empty_image(layout), slot_count: 0, next_entry: 1, first: None, last: None };
        let range = layout.entry_at(1)..layout.entry_at(next_entry.max(1));
        let mut is_sound = true;
        read_pieces(file, range, |_, piece| {
            piece.chunks(IndexEntry::BYTES).map(IndexEntry::decode).all(|entry| {
                is_sound = entry.is_ok_and(|entry| entry.log_offset >= end.get() || rebuilt.add(layout, entry));
                is_sound && entry.is_ok_and(|entry| entry.log_offset < end.get())
            })
        })?;
        Ok(is_sound.then_some(rebuilt))
    }

    fn add(&mut self, layout: IndexLayout, entry: IndexEntry) -> bool {
        let slot = layout.slot_of(entry.hash);
        if entry.previous != read_slot(&self.image, layout, slot) {
            return false;
        }
        self.slot_count += u32::from(entry.previous == 0);
        write_slot(&mut self.image, layout, slot, self.next_entry);
        self.next_entry += 1;
        self.first.get_or_insert(entry);
        self.last = Some(entry);
        true
    }

    /// Are the file's slots as they should be?
    pub(super) fn has_slots_of(&self, file: &File) -> Result<bool> {
        let slots = IndexHeader::BYTES as u64..self.image.len() as u64;
        read_pieces(file, slots, |at, piece| self.image[at as usize..][..piece.len()] == *piece)
    }
}

/// Hands out a range of a file piece by piece, until `next` returns `false`; what is behind the end of the file is
/// zero. Returns whether `next` went along to the end.
pub(super) fn read_pieces(file: &File, range: Range<u64>, mut next: impl FnMut(u64, &[u8]) -> bool) -> Result<bool> {
    let mut buffer = vec![0; PIECE_BYTES];
    let mut at = range.start;
    while at < range.end {
        let piece = &mut buffer[..PIECE_BYTES.min(usize::try_from(range.end - at).unwrap_or(PIECE_BYTES))];
        let present = file.read_at(piece, at)?;
        piece[present..].fill(0);
        if !next(at, piece) {
            return Ok(false);
        }
        at += piece.len() as u64;
    }
    Ok(true)
}
