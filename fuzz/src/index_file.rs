//! Any bytes as an index file.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use mqlog::format::index::{IndexEntry, IndexHeader, IndexLayout};
use mqlog::format::java_hash::index_key_hash;
use mqlog::{Error, IndexFile, LogOffset};

use super::common::fast_dir;
use super::input::Input;

const TOPIC: &str = "t";
const KEYS: [&str; 4] = ["a", "b", "Aa", "BB"];
/// Of all times a part, in milliseconds.
const TIMES: std::ops::RangeInclusive<i64> = 2_000..=50_000;
const ALL_TIMES: std::ops::RangeInclusive<i64> = i64::MIN..=i64::MAX;

/// A file that opens answers as its bytes say to a reader that knows only the format, newest first, each once, after
/// finitely many steps; it takes more entries, finds them first, and the same after another opening.
pub fn index_file(bytes: &[u8]) -> bool {
    let mut input = Input(bytes);
    let how = input.byte();
    let layout = IndexLayout { slots: 1 + u32::from(how >> 1 & 7), entries: 2 + u32::from(input.byte() % 24) };
    let image = if how & 1 == 0 { raw(input, how & 0x80 == 0, layout) } else { structured(input, layout) };
    let dir = fast_dir();
    let path = dir.path().join("index");
    fs::write(&path, &image).unwrap();
    examine(&path, &image, layout)
}

/// The bytes as they are, or with the length that an index file has.
fn raw(input: Input<'_>, fitting: bool, layout: IndexLayout) -> Vec<u8> {
    let mut image = input.0.to_vec();
    image.truncate(64 * 1024);
    if fitting {
        image.resize(layout.file_bytes() as usize, 0);
    }
    image
}

/// Small numbers in every field, so that chains and counts nearly fit.
fn structured(mut input: Input<'_>, layout: IndexLayout) -> Vec<u8> {
    let header_choice = input.byte();
    let mut header = IndexHeader {
        begin_ms: input.number(1_000) as i64,
        end_ms: input.number(90_000) as i64,
        begin_offset: input.number(0) >> 1,
        end_offset: input.number(0) >> 1,
        slot_count: input.number(2) as u32 >> 1,
        next_entry: (input.byte() % 32).into(),
    };
    let slots: Vec<u8> = (0..layout.slots).map(|_| input.byte() % 32).collect();
    let entries: Vec<IndexEntry> = (0..layout.entries)
        .map(|_| {
            let key = input.byte();
            let hash = index_key_hash(TOPIC, KEYS[usize::from(key) % KEYS.len()]);
            let hash = if key & 0x80 == 0 { hash } else { hash ^ 1 };
            let (log_offset, seconds) = (u64::from(input.u16() >> 4) * 100, i32::from(input.byte().cast_signed()));
            IndexEntry { hash, log_offset, seconds, previous: (input.byte() % 32).into() }
        })
        .collect();
    if header_choice & 1 == 0 {
        // The header is the one of these entries.
        header.begin_offset = entries.get(1).map_or(0, |entry| entry.log_offset);
        header.end_offset = entries.get((header.next_entry as usize).wrapping_sub(1)).map_or(0, |last| last.log_offset);
    }
    let mut image = header.encode().to_vec();
    slots.iter().for_each(|slot| image.extend_from_slice(&u32::from(*slot).to_be_bytes()));
    entries.iter().for_each(|entry| image.extend_from_slice(&entry.encode()));
    image
}

fn examine(path: &Path, image: &[u8], layout: IndexLayout) -> bool {
    let file = match IndexFile::open(path, layout) {
        Ok(file) => file,
        Err(Error::Corrupt(damage)) => {
            assert_eq!(damage.range, 0..image.len() as u64);
            assert!(fs::read(path).unwrap() == image, "a refused file was changed");
            return false;
        }
        Err(error) => panic!("{error}"),
    };
    assert_eq!(image.len() as u64, layout.file_bytes());
    let header = IndexHeader::decode(image).unwrap();
    let before = KEYS.map(|key| query(&file, key, layout));
    for (key, found) in KEYS.iter().zip(&before) {
        let entries = walk(image, layout, header, key);
        let mut seen = HashSet::new();
        assert!(found.iter().eq(entries.iter().map(|(offset, _)| offset).filter(|offset| seen.insert(**offset))));
        let some = file.query(TOPIC, key, TIMES, |_| Ok(true)).unwrap();
        // A record may be in a chain more than once, each time with another time: its place is that of a fitting one.
        let mut rest = entries.iter();
        assert!(
            some.iter().all(|wanted| rest.any(|(offset, _)| offset == wanted)),
            "a part of the time has a part of it"
        );
        let is_in = |time: &i64| TIMES.contains(time) && (header.begin_ms..=header.end_ms).contains(time);
        let fitting = entries.iter().filter(|(_, time)| time.as_ref().is_some_and(is_in));
        assert!(fitting.into_iter().all(|(offset, _)| some.contains(offset)), "an entry of that time is not found");
    }
    assert!(fs::read(path).unwrap() == image, "a query changed the file");
    put_more(path, &file, layout, before);
    true
}

fn query(file: &IndexFile, key: &str, layout: IndexLayout) -> Vec<LogOffset> {
    let mut steps = 0;
    let found = file.query(TOPIC, key, ALL_TIMES, |_| {
        steps += 1;
        assert!(steps < layout.entries, "a chain has no more entries than the file");
        Ok(true)
    });
    found.unwrap()
}

/// What the bytes hold of a key, newest first, with the time in ms where the entry tells it.
fn walk(image: &[u8], layout: IndexLayout, header: IndexHeader, key: &str) -> Vec<(LogOffset, Option<i64>)> {
    let number_at = |at: u64| u32::from_be_bytes(*image[at as usize..].first_chunk().unwrap());
    let hash = index_key_hash(TOPIC, key);
    let (mut found, mut number, mut limit) =
        (Vec::new(), number_at(layout.slot_at(hash % layout.slots)), header.next_entry);
    while number > 0 && number < limit {
        let Ok(entry) = IndexEntry::decode(&image[layout.entry_at(number) as usize..]) else { break };
        if entry.hash % layout.slots != hash % layout.slots {
            break;
        }
        if entry.hash == hash {
            // The first entry counts its seconds from another file's end; none of them stands for times before the begin.
            let tells = number > 1 && header.begin_ms > 0 && (1..i32::MAX).contains(&entry.seconds);
            let time = tells.then(|| header.begin_ms.saturating_add(i64::from(entry.seconds) * 1000));
            found.push((LogOffset::new(entry.log_offset), time));
        }
        (limit, number) = (number, entry.previous);
    }
    found
}

fn put_more(path: &Path, file: &IndexFile, layout: IndexLayout, mut expected: [Vec<LogOffset>; 4]) {
    for number in 0..30_usize {
        let (key, offset) = (number * 7 % KEYS.len(), LogOffset::new(1_000_000 + number as u64));
        if !file.put(TOPIC, KEYS[key], offset, 70_000 + number as i64 * 500).unwrap() {
            break;
        }
        // Two of the keys have one hash, and the index stores no more of a key.
        let hash = index_key_hash(TOPIC, KEYS[key]);
        for (other, expected) in KEYS.iter().zip(&mut expected) {
            if index_key_hash(TOPIC, other) == hash {
                expected.retain(|other| *other != offset);
                expected.insert(0, offset);
            }
        }
        if number % 5 == 3 {
            file.flush().unwrap();
        }
    }
    assert_eq!(KEYS.map(|key| query(file, key, layout)), expected);
    file.flush().unwrap();
    assert_eq!(fs::metadata(path).unwrap().len(), layout.file_bytes());
    let again = IndexFile::open(path, layout).unwrap();
    assert_eq!(KEYS.map(|key| query(&again, key, layout)), expected, "after another opening");
}
