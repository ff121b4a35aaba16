//! L5: checked reads of records whose pages are in memory.

use std::hint::black_box;
use std::io::{self, BufWriter, Error, ErrorKind, Write};
use std::path::Path;
use std::time::Instant;

use memmap2::Mmap;

use super::{Budget, Measured, Template, check, create};

/// The file has at most so many bytes, that its pages may stay in memory.
const MOST_BYTES: u64 = 4 << 30;
/// How many records are read between two looks at the time.
const RUN: u64 = 256;

/// Which record is read next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Sequence,
    Random,
}

/// A mapping with records, each at a multiple of their length.
#[derive(Debug)]
pub(crate) struct Reads {
    mapping: Mmap,
    record_bytes: usize,
    messages: u64,
}

impl Reads {
    /// Writes `messages` records, or as many as the row reads at most, and brings in their pages.
    pub(crate) fn new(folder: &Path, template: &mut Template, messages: u64) -> io::Result<Self> {
        let record_bytes = template.record_bytes();
        let messages = messages.clamp(1, (MOST_BYTES / record_bytes).max(1));
        let mut out = BufWriter::with_capacity(1 << 20, create(&folder.join("reads"))?);
        for number in 0..messages {
            out.write_all(template.make(number, number * record_bytes))?;
        }
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        // SAFETY: the file was just made, under a name of this run alone, and nobody writes or cuts it any more.
        let mapping = unsafe { Mmap::map(&file) }?;
        let reads = Self { mapping, record_bytes: record_bytes as usize, messages };
        reads.run(Order::Sequence, Budget::of_messages(messages))?;
        Ok(reads)
    }

    pub(crate) fn run(&self, order: Order, budget: Budget) -> io::Result<Measured> {
        let mut random = Random::new();
        let (start, mut measured) = (Instant::now(), Measured::default());
        while measured.messages < budget.messages && measured.took < budget.time {
            let run = RUN.min(budget.messages - measured.messages);
            for number in measured.messages..measured.messages + run {
                let record = match order {
                    Order::Sequence => number % self.messages,
                    Order::Random => random.below(self.messages),
                };
                self.read(record)?;
            }
            measured.messages += run;
            measured.took = start.elapsed();
        }
        Ok(measured)
    }

    /// Reads and checks a record.
    pub(crate) fn read(&self, number: u64) -> io::Result<&[u8]> {
        let bytes = &self.mapping[number as usize * self.record_bytes..];
        let len = check(black_box(bytes)).ok_or_else(|| Error::new(ErrorKind::InvalidData, "a record is not right"))?;
        Ok(black_box(&bytes[..len]))
    }

    pub(crate) fn messages(&self) -> u64 {
        self.messages
    }
}

/// Numbers without a pattern, the same in every run.
///
/// # Source
/// Marsaglia's xorshift, with Vigna's multiplication.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Self {
        Self(0x9E37_79B9_7F4A_7C15)
    }

    /// A number below `end`, which is not zero.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D);
        ((u128::from(number) * u128::from(end)) >> 64) as u64
    }
}
