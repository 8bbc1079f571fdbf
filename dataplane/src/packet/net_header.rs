//! The virtio-net header (virtio 1.2, section 5.1.6) but for `num_buffers`, as bytes and as a value.

/// Values of `flags`.
pub mod net_flag {
    /// The checksum is to be filled in.
    pub const NEEDS_CSUM: u8 = 1;
    /// The checksum was found right.
    pub const DATA_VALID: u8 = 2;
}

/// Values of `gso_type`.
pub mod gso_type {
    /// The frame is one.
    pub const NONE: u8 = 0;
    /// TCP over IPv4.
    pub const TCPV4: u8 = 1;
    /// UDP fragmentation, which nobody offers any more.
    pub const UDP: u8 = 3;
    /// TCP over IPv6.
    pub const TCPV6: u8 = 4;
    /// UDP datagrams.
    pub const UDP_L4: u8 = 5;
    /// TCP with congestion notification: a bit beside the type.
    pub const ECN: u8 = 0x80;
}

/// A virtio-net header, its numbers in the machine's byte order.
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
    /// From the first ten bytes.
    #[must_use]
    pub fn from_bytes([flags, gso_type, a, b, c, d, e, f, g, h]: [u8; 10]) -> Self {
        let [hdr_len, gso_size, csum_start, csum_offset] = [[a, b], [c, d], [e, f], [g, h]].map(u16::from_le_bytes);
        Self { flags, gso_type, hdr_len, gso_size, csum_start, csum_offset }
    }

    /// With `num_buffers` behind it.
    #[inline]
    #[must_use]
    pub fn to_bytes(self, buffers: u16) -> [u8; 12] {
        let Self { flags, gso_type, hdr_len, gso_size, csum_start, csum_offset } = self;
        let numbers = [hdr_len, gso_size, csum_start, csum_offset, buffers].map(u16::to_le_bytes);
        let [[a, b], [c, d], [e, f], [g, h], [i, j]] = numbers;
        [flags, gso_type, a, b, c, d, e, f, g, h, i, j]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_and_back(bytes: [u8; 10], buffers: u16) {
            let header = NetHeader::from_bytes(bytes);
            prop_assert_eq!(&header.to_bytes(buffers)[..10], &bytes[..]);
            prop_assert_eq!(&header.to_bytes(buffers)[10..], &buffers.to_le_bytes()[..]);
        }
    }
}
