//! Reading choices from a fuzzer's bytes.

/// What is left of an input. When it has ended every answer is 0, so that any bytes are a whole case.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(crate) fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// A number below `end`, which is at most 2^24; 0 if `end` is 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let number = match end {
            0..=0x100 => usize::from(self.byte()),
            0x101..=0x1_0000 => usize::from(self.u16()),
            _ => usize::from(self.u16()) | usize::from(self.byte()) << 16,
        };
        number % end.max(1)
    }

    /// A number that is often at a limit, or near `known`.
    pub(crate) fn number(&mut self, known: u64) -> u64 {
        match self.byte() % 12 {
            0 => known,
            1 => known.wrapping_add(u64::from(self.byte())),
            2 => known.wrapping_sub(u64::from(self.byte())),
            3 => 0,
            4 => u64::from(self.byte()),
            5 => u64::from(self.u16()),
            6 => i64::MAX as u64,
            7 => u64::MAX,
            8 => u64::from(u32::MAX) - u64::from(self.byte()),
            9 => i32::MAX as u64,
            10 => known ^ 1 << (self.byte() % 64),
            _ => self.bytes(8).iter().fold(0, |number, byte| number << 8 | u64::from(*byte)),
        }
    }
}
