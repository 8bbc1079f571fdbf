//! What a guest was given and does not use: queue pairs that its driver has not enabled, with what lies idle for them.

/// A queue pair that the front end has set up and the guest's driver does not use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SparePair {
    /// Number of the pair in its port.
    pub index: u16,
    /// Bytes of its two rings.
    pub ring_bytes: u64,
    /// Buffers that wait in its receiveq.
    pub buffers: u32,
    /// Their bytes.
    pub buffer_bytes: u64,
}

impl SparePair {
    /// The MSI-X vectors that Linux's driver takes for its receiveq and transmitq: one for each virtqueue behind that for
    /// changes of the configuration.
    #[must_use]
    pub fn vectors(&self) -> [u16; 2] {
        [2 * self.index + 1, 2 * self.index + 2]
    }

    /// All of its memory.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.ring_bytes + self.buffer_bytes
    }
}
