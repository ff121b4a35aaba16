//! Finding out with which layout index files were made: nothing in them says so.

use std::path::PathBuf;

use super::state::{InUse, fits, read_header, read_pieces};
use crate::disk::{File, OpenMode, Storage};
use crate::error::Result;
use crate::format::index::{IndexEntry, IndexHeader, IndexLayout, SLOT_BYTES};
use crate::offset::LogOffset;

/// With one entry less, a file of the same length has this many slots more.
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
    if !fits(file, layout, header)? {
        return Ok(false);
    }
    let rebuilt = InUse::rebuild(file.clone(), layout, header.next_entry, LogOffset::MAX)?;
    rebuilt.map_or(Ok(false), |(in_use, _)| in_use.has_slots_of_file())
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
