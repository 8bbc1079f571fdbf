//! What a frame's sender left undone, in the words of a NIC.

use dpdk_sys::{
    RTE_ETH_TX_OFFLOAD_IPV4_CKSUM, RTE_ETH_TX_OFFLOAD_MULTI_SEGS, RTE_ETH_TX_OFFLOAD_TCP_CKSUM,
    RTE_ETH_TX_OFFLOAD_TCP_TSO, RTE_ETH_TX_OFFLOAD_UDP_CKSUM, RTE_MBUF_F_TX_IP_CKSUM, RTE_MBUF_F_TX_IPV4,
    RTE_MBUF_F_TX_IPV6, RTE_MBUF_F_TX_TCP_CKSUM, RTE_MBUF_F_TX_TCP_SEG, RTE_MBUF_F_TX_UDP_CKSUM,
};

use crate::packet::{Abilities, NetHeader, TransportLayout, gso_type, net_flag};

/// The longest frame with segments to be made.
const FRAME_LEN_MAX: u32 = 65536;

/// What an mbuf asks of the NIC that it goes to: `ol_flags` and `tx_offload` of DPDK.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TxFlags {
    pub(super) flags: u64,
    pub(super) lengths: u64,
}

impl TxFlags {
    /// Nothing.
    pub const NONE: Self = Self { flags: 0, lengths: 0 };

    /// What `header` asks for a frame of `len` bytes that begins with `head`. A checksum of anything but its own TCP or UDP
    /// header cannot be asked of a NIC; [`crate::packet::Offload::way`] never passes such a frame on.
    #[must_use]
    pub fn of(header: NetHeader, head: &[u8], len: usize) -> Self {
        if header.flags & net_flag::NEEDS_CSUM == 0 {
            return Self::NONE;
        }
        let Some(layout) = TransportLayout::parse(head, len) else { return Self::NONE };
        let network = if layout.v6 { RTE_MBUF_F_TX_IPV6 } else { RTE_MBUF_F_TX_IPV4 };
        let transport = if layout.udp { RTE_MBUF_F_TX_UDP_CKSUM } else { RTE_MBUF_F_TX_TCP_CKSUM };
        let mut flags = network | transport;
        let mut lengths = layout.l2 as u64 | (layout.l3 as u64) << 7 | (layout.l4 as u64) << 16;
        if header.gso_type != gso_type::NONE {
            // Each segment has a header of its own, and of IPv4 a checksum over it.
            flags |= RTE_MBUF_F_TX_TCP_SEG | if layout.v6 { 0 } else { RTE_MBUF_F_TX_IP_CKSUM };
            lengths |= u64::from(header.gso_size) << 24;
        }
        Self { flags, lengths }
    }

    /// For a NIC that wants the checksum of IPv4's header right in a frame that it cuts: as a guest leaves it.
    #[must_use]
    pub(super) fn without_header_checksum(self) -> Self {
        Self { flags: self.flags & !RTE_MBUF_F_TX_IP_CKSUM, ..self }
    }
}

/// What a NIC of these TX offloads does by itself, with frames of up to `frame_max` bytes; one of virtio makes headers of IPv4 for
/// segments without a word for it. Segments that say once that the congestion window was reduced, and UDP, are nothing that
/// DPDK promises.
#[must_use]
pub(super) fn abilities(offloads: u64, is_virtio: bool, frame_max: u32) -> Abilities {
    let has = |wanted| offloads & wanted == wanted;
    let mut can = Abilities::empty();
    if has(RTE_ETH_TX_OFFLOAD_TCP_CKSUM | RTE_ETH_TX_OFFLOAD_UDP_CKSUM) {
        can |= Abilities::CHECKSUM | Abilities::BY_LAYOUT;
        if has(RTE_ETH_TX_OFFLOAD_TCP_TSO | RTE_ETH_TX_OFFLOAD_MULTI_SEGS) && frame_max >= FRAME_LEN_MAX {
            can |= Abilities::TCP6;
            if is_virtio || has(RTE_ETH_TX_OFFLOAD_IPV4_CKSUM) {
                can |= Abilities::TCP4;
            }
        }
    }
    can
}
