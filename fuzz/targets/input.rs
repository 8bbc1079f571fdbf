//! The fuzzer's bytes, taken one after another.

/// What is left of them. Where nothing is left, there are zeros.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    pub fn u64(&mut self) -> u64 {
        let mut word = [0; 8];
        let bytes = self.bytes(8);
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    }

    /// A number that is mostly small or close to `around`, and sometimes anything.
    pub fn number(&mut self, around: u64) -> u64 {
        match self.byte() {
            byte @ 0..128 => byte.into(),
            byte @ 128..192 => around.wrapping_add(u64::from(byte)).wrapping_sub(160),
            192..240 => u64::from(self.u16()),
            _ => self.u64(),
        }
    }
}
