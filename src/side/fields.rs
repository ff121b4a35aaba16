//! The one way in which the binary files here hold things: numbers of 8 bytes, and text with its length in front.

/// What is left to decode; `None` when it ends too early.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn bytes(&mut self, len: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(len).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn numbers<const N: usize>(&mut self) -> Option<[u64; N]> {
        let mut numbers = [0; N];
        for number in &mut numbers {
            let (taken, rest) = self.0.split_first_chunk()?;
            (*number, self.0) = (u64::from_be_bytes(*taken), rest);
        }
        Some(numbers)
    }

    /// Decodes `count` items. The count is not trusted with memory: the list grows only as far as there are bytes.
    pub(super) fn list<T>(&mut self, count: u64, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        (0..count).map(|_| item(self)).collect()
    }
}

pub(super) fn push_numbers<const N: usize>(out: &mut Vec<u8>, numbers: [u64; N]) {
    out.extend(numbers.into_iter().flat_map(u64::to_be_bytes));
}

/// Ends `out` with the CRC32C of all that is in it.
pub(super) fn push_crc(out: &mut Vec<u8>) {
    let crc = crc32c::crc32c(out);
    push_numbers(out, [u64::from(crc)]);
}
