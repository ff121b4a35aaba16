//! Finding out with which layout index files were made: nothing in them says so.

use std::path::PathBuf;

use byteorder::{BigEndian, ByteOrder};

use super::file::{has_ends, read_header};
use super::rebuild::{Rebuilt, read_pieces};
use crate::disk::{File, OpenMode, Storage};
use crate::error::Result;
use crate::format::index::{IndexEntry, IndexHeader, IndexLayout, SLOT_BYTES};
use crate::offset::LogOffset;

/// With one slot less for each five of this, a file of the same length has one entry more.
const SLOTS_OF_ENTRY: u64 = (IndexEntry::BYTES / SLOT_BYTES) as u64;

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
    if header.next_entry > layout.entries || !has_ends(file, layout, header)? {
        return Ok(false);
    }
    match Rebuilt::read(file, layout, header.next_entry, LogOffset::MAX)? {
        Some(rebuilt) => rebuilt.has_slots_of(file),
        None => Ok(false),
    }
}

/// Looks for the place where the entries begin: entry 0 is zero, entry 1 is the first of its chain and has the offset
/// that the header calls the first, and so on. Only where all that is so the whole file is compared.
fn search(file: &File, bytes: u64, header: &IndexHeader) -> Result<Option<IndexLayout>> {
    let words = bytes.saturating_sub(IndexHeader::BYTES as u64) / SLOT_BYTES as u64;
    let used = u64::from(header.next_entry);
    let Some(most_slots) = words.checked_sub(used * SLOTS_OF_ENTRY).filter(|slots| *slots > 0) else { return Ok(None) };
    // The number of slots is the same modulo five in all layouts of this length.
    let fewest = if words.is_multiple_of(SLOTS_OF_ENTRY) { SLOTS_OF_ENTRY } else { words % SLOTS_OF_ENTRY };
    let layout_of = |slots: u64| -> Option<IndexLayout> {
        let entries = u32::try_from((words - slots) / SLOTS_OF_ENTRY).ok()?;
        let layout = IndexLayout { slots: u32::try_from(slots).ok()?, entries };
        (layout.file_bytes() == bytes).then_some(layout)
    };
    let Some(first) = layout_of(fewest) else { return Ok(None) };
    let (mut found, mut failure) = (None, None);
    let end = first.entry_at(1) + (most_slots.saturating_sub(fewest) / SLOTS_OF_ENTRY + 1) * IndexEntry::BYTES as u64;
    read_pieces(file, first.entry_at(1)..end, |at, piece| {
        for (index, entry) in piece.chunks(IndexEntry::BYTES).enumerate() {
            let hash = BigEndian::read_u32(entry);
            let is_first = entry.len() == IndexEntry::BYTES && BigEndian::read_u32(&entry[16..]) == 0;
            if hash == 0 || !is_first || BigEndian::read_u64(&entry[4..]) != header.begin_offset {
                continue;
            }
            let entries_before = (at - first.entry_at(1)) / IndexEntry::BYTES as u64 + index as u64;
            let Some(layout) = layout_of(fewest + entries_before * SLOTS_OF_ENTRY) else { continue };
            match agrees(file, layout, header) {
                Ok(false) => {}
                Ok(true) => found = Some(layout),
                Err(error) => failure = Some(error),
            }
            if found.is_some() || failure.is_some() {
                return false;
            }
        }
        true
    })?;
    failure.map_or(Ok(found), Err)
}
