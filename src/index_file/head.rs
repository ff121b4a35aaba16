//! Header and slots of an index file in use: what is rewritten in place, in memory, written by 4 KiB parts.

use byteorder::{BigEndian, ByteOrder};

use super::rebuild::read_pieces;
use crate::disk::File;
use crate::error::Result;
use crate::format::index::{IndexHeader, IndexLayout};

const PART_BYTES: usize = 4096;

/// The first bytes of an index file, up to its first entry.
///
/// The memory comes zeroed from the operating system, so slots that were never used cost none.
#[derive(Debug)]
pub(super) struct Head {
    layout: IndexLayout,
    image: Vec<u8>,
    /// Which parts of the image differ from the file.
    dirty: Vec<bool>,
}

impl Head {
    /// The head of a file whose slots are all empty.
    pub(super) fn empty(layout: IndexLayout) -> Self {
        let image = empty_image(layout);
        Self { layout, dirty: vec![false; image.len().div_ceil(PART_BYTES)], image }
    }

    /// Reads a file's slots.
    pub(super) fn load(file: &File, layout: IndexLayout) -> Result<Self> {
        let mut head = Self::empty(layout);
        read_pieces(file, 0..head.image.len() as u64, |at, piece| {
            if piece.iter().any(|byte| *byte != 0) {
                head.image[at as usize..][..piece.len()].copy_from_slice(piece);
            }
            true
        })?;
        Ok(head)
    }

    /// Takes slots that were made from the entries: all of them will be written.
    pub(super) fn rebuilt(layout: IndexLayout, image: Vec<u8>) -> Self {
        Self { layout, dirty: vec![true; image.len().div_ceil(PART_BYTES)], image }
    }

    /// The number of a slot's newest entry, 0 for none. What is not below `next_entry` is damage and counts as none.
    pub(super) fn newest(&self, slot: u32, next_entry: u32) -> u32 {
        let number = read_slot(&self.image, self.layout, slot);
        if number < next_entry { number } else { 0 }
    }

    /// Makes an entry the newest of its slot.
    pub(super) fn link(&mut self, slot: u32, number: u32) {
        write_slot(&mut self.image, self.layout, slot, number);
        // A slot begins at a multiple of four bytes, so it never lies in two parts.
        self.dirty[self.layout.slot_at(slot) as usize / PART_BYTES] = true;
    }

    /// Writes the header and every part that differs from the file. After an error what was not written stays marked.
    pub(super) fn write(&mut self, file: &File, header: &IndexHeader) -> Result<()> {
        let header = header.encode();
        if self.image[..IndexHeader::BYTES] != header {
            self.image[..IndexHeader::BYTES].copy_from_slice(&header);
            self.dirty[0] = true;
        }
        for (part, dirty) in self.dirty.iter_mut().enumerate().filter(|(_, dirty)| **dirty) {
            let at = part * PART_BYTES;
            file.write_at(&self.image[at..self.image.len().min(at + PART_BYTES)], at as u64)?;
            *dirty = false;
        }
        Ok(())
    }
}

/// Header and slots, all zero.
pub(super) fn empty_image(layout: IndexLayout) -> Vec<u8> {
    vec![0; usize::try_from(layout.slot_at(layout.slots)).expect("the slots of a file in use fit in memory")]
}

pub(super) fn read_slot(image: &[u8], layout: IndexLayout, slot: u32) -> u32 {
    BigEndian::read_u32(&image[layout.slot_at(slot) as usize..])
}

pub(super) fn write_slot(image: &mut [u8], layout: IndexLayout, slot: u32, number: u32) {
    BigEndian::write_u32(&mut image[layout.slot_at(slot) as usize..], number);
}
