//! Finding a record by its key: slot, entry, and a checked read.

use std::io;
use std::path::Path;

use mqlog::format::index::{IndexEntry, IndexLayout, SLOT_BYTES};
use mqlog::format::java_hash::index_key_hash;

use super::{KEY_BYTES, Reads, TOPIC, Template, write_key};

/// The records of [`Reads`], and an index of their keys in memory, laid out as an index file.
#[derive(Debug)]
pub(crate) struct Keyed {
    reads: Reads,
    template: Template,
    layout: IndexLayout,
    index: Vec<u8>,
}

impl Keyed {
    /// Writes and indexes `messages` records, whose keys are their numbers; `template` has a key.
    pub(crate) fn new(folder: &Path, template: &mut Template, messages: u32, slots: u32) -> io::Result<Self> {
        let reads = Reads::new(folder, template, u64::from(messages))?;
        let layout = IndexLayout { slots, entries: messages + 1 };
        let index = vec![0; usize::try_from(layout.file_bytes()).expect("the index fits in memory")];
        let mut keyed = Self { reads, template: template.clone(), layout, index };
        for number in 0..messages {
            keyed.insert(number);
        }
        Ok(keyed)
    }

    fn insert(&mut self, number: u32) {
        let hash = hash_of(&key_of(u64::from(number)));
        let slot_at = self.layout.slot_at(self.layout.slot_of(hash)) as usize;
        let previous = self.number_at(slot_at);
        let log_offset = u64::from(number) * self.template.record_bytes();
        let entry = IndexEntry { hash, log_offset, seconds: 0, previous }.encode();
        let entry_at = self.layout.entry_at(number + 1) as usize;
        self.index[entry_at..][..entry.len()].copy_from_slice(&entry);
        self.index[slot_at..][..SLOT_BYTES].copy_from_slice(&(number + 1).to_be_bytes());
    }

    /// Finds the record with the key of a number; returns how many candidates were read.
    pub(crate) fn find(&self, number: u64) -> io::Result<u64> {
        let key = key_of(number);
        let hash = hash_of(&key);
        let mut candidate = self.number_at(self.layout.slot_at(self.layout.slot_of(hash)) as usize);
        let mut read = 0;
        while candidate != 0 {
            let entry = IndexEntry::decode(&self.index[self.layout.entry_at(candidate) as usize..])
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            if entry.hash == hash {
                let record = self.reads.read(entry.log_offset / self.template.record_bytes())?;
                read += u64::from(self.template.key().is_some_and(|place| record[place] == key));
            }
            candidate = entry.previous;
        }
        Ok(read)
    }

    fn number_at(&self, at: usize) -> u32 {
        self.index[at..].first_chunk().map_or(0, |word| u32::from_be_bytes(*word))
    }
}

fn key_of(number: u64) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    write_key(&mut key, number);
    key
}

fn hash_of(key: &[u8; KEY_BYTES]) -> u32 {
    index_key_hash(TOPIC, std::str::from_utf8(key).expect("hex digits are text"))
}
