//! The virtio-net header, as a driver writes and reads it (virtio 1.2, section 5.1.6).

use super::front_end::feature;

/// In `flags`: the checksum is to be filled in.
pub const NEEDS_CSUM: u8 = 1;
/// In `flags`: the checksum was checked.
pub const DATA_VALID: u8 = 2;

/// Values of `gso_type`.
pub mod gso {
    #![allow(missing_docs, reason = "the specification's names")]
    pub const NONE: u8 = 0;
    pub const TCPV4: u8 = 1;
    pub const UDP: u8 = 3;
    pub const TCPV6: u8 = 4;
    pub const UDP_L4: u8 = 5;
    pub const ECN: u8 = 0x80;
}

/// A virtio-net header but for `num_buffers`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the specification's names")]
pub struct NetHeader {
    pub flags: u8,
    pub gso_type: u8,
    pub hdr_len: u16,
    pub gso_size: u16,
    pub csum_start: u16,
    pub csum_offset: u16,
}

impl NetHeader {
    /// As it lies in memory.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        let numbers = [self.hdr_len, self.gso_size, self.csum_start, self.csum_offset];
        [self.flags, self.gso_type].into_iter().chain(numbers.into_iter().flat_map(u16::to_le_bytes)).collect()
    }

    /// From its first ten bytes.
    ///
    /// # Panics
    /// If there are fewer.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let number = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            gso_type: bytes[1],
            hdr_len: number(2),
            gso_size: number(4),
            csum_start: number(6),
            csum_offset: number(8),
        }
    }

    /// What a device may not say to a driver that negotiated `features` (section 5.1.6.4.1), if it says it.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(self, features: u64, frame_len: usize) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("{what}: {self:?}"));
        let needs = |wanted: bool, bit: u64| !wanted || features & bit != 0;
        if self.flags & !(NEEDS_CSUM | DATA_VALID) != 0 {
            return wrong("flags that there are not");
        }
        if !needs(self.flags != 0, feature::GUEST_CSUM) {
            return wrong("a checksum left to a driver without GUEST_CSUM");
        }
        let kind = self.gso_type & !gso::ECN;
        let bits = match kind {
            gso::NONE => 0,
            gso::TCPV4 => feature::GUEST_TSO4,
            gso::TCPV6 => feature::GUEST_TSO6,
            gso::UDP_L4 => feature::GUEST_USO4 | feature::GUEST_USO6,
            _ => return wrong("a kind of segmentation that there is not"),
        };
        if !needs(kind != gso::NONE, bits) {
            return wrong("segmentation left to a driver that does none of the kind");
        }
        if self.gso_type != gso::NONE && (self.flags & NEEDS_CSUM == 0 || self.gso_size == 0 || kind == gso::NONE) {
            return wrong("segmentation without a checksum, a size or a kind");
        }
        if !needs(self.gso_type & gso::ECN != 0, feature::GUEST_ECN) {
            return wrong("ECN for a driver without GUEST_ECN");
        }
        let end = usize::from(self.csum_start) + usize::from(self.csum_offset) + 2;
        if self.flags & NEEDS_CSUM != 0 && end > frame_len || usize::from(self.hdr_len) > frame_len {
            return wrong("places beyond the frame");
        }
        if self.flags & NEEDS_CSUM == 0 && (self.csum_start != 0 || self.csum_offset != 0) {
            return wrong("places without a checksum");
        }
        Ok(())
    }
}
