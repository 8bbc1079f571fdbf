//! The Ethernet header and the one 802.1Q tag that may follow it.

use std::fmt;
use std::str::FromStr;

use ringway_config::PRIORITY_OVER_TAG;

/// Bytes of an untagged Ethernet header.
pub const ETHERNET_HEADER_LEN: usize = 14;
/// EtherType of an 802.1Q tag (the customer tag).
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// EtherType of an 802.1ad tag (the service tag).
pub const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;
/// Bytes of a tag.
const TAG_LEN: usize = 4;
/// EtherType of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// EtherType of reverse ARP, by which QEMU announces a guest.
pub const ETHERTYPE_RARP: u16 = 0x8035;
/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

/// The low 48 bits of a word hold an address in wire order.
const MAC_MASK: u64 = (1 << 48) - 1;

mod field {
    //! Where fields lie, in bytes from the start of the frame; destination and source are its first 12.
    pub(super) const ETHERTYPE: usize = 12;
    pub(super) const TAG_CONTROL: usize = 14;
}

/// A 48-bit MAC address as a number whose lowest byte is the first on the wire, so that reading one
/// from a frame is a load and a mask.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct MacAddress(u64);

impl MacAddress {
    /// ff:ff:ff:ff:ff:ff
    pub const BROADCAST: Self = Self(MAC_MASK);

    /// The address in the low 48 bits of `word`; the rest is ignored.
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        Self(word & MAC_MASK)
    }

    /// The address as a number below 2^48.
    #[must_use]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// Group addresses (multicast, broadcast) have the lowest bit of their first byte set.
    #[must_use]
    pub const fn is_group(self) -> bool {
        self.0 & 1 != 0
    }

    /// Whether this is one of 01:80:c2:00:00:00 to 0f, which are for the next hop only: spanning tree, LACP, LLDP and the like
    /// (IEEE 802.1Q, table 8-1).
    #[must_use]
    pub const fn is_link_local(self) -> bool {
        self.0 & 0xf0ff_ffff_ffff == 0xc2_8001
    }

    /// Whether a station may send from this address: not a group, not all zeros.
    #[must_use]
    pub const fn is_valid_source(self) -> bool {
        self.0 != 0 && !self.is_group()
    }

    /// The six bytes in wire order.
    #[must_use]
    pub const fn bytes(self) -> [u8; 6] {
        let [a, b, c, d, e, f, _, _] = self.0.to_le_bytes();
        [a, b, c, d, e, f]
    }
}

impl From<[u8; 6]> for MacAddress {
    fn from([a, b, c, d, e, f]: [u8; 6]) -> Self {
        Self(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.bytes();
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl FromStr for MacAddress {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or(())?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| ())?;
        }
        if parts.next().is_some() { Err(()) } else { Ok(bytes.into()) }
    }
}

/// What a bridge reads of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EthernetHeader {
    /// To whom.
    pub destination: MacAddress,
    /// From whom.
    pub source: MacAddress,
    /// The VLAN of an 802.1Q tag (12 bits), 0 when there is none or it is a priority tag; [`PRIORITY_OVER_TAG`] when that wraps
    /// another.
    pub vlan: u16,
    /// EtherType behind the tag, if there is one.
    pub ethertype: u16,
}

impl EthernetHeader {
    /// Reads the header; `None` when the frame is shorter than 14 bytes, or its tag is cut off: whoever pads it would make a whole
    /// one of that, of a VLAN that nobody judged.
    #[must_use]
    #[inline]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let head: &[u8; ETHERNET_HEADER_LEN] = frame.first_chunk()?;
        let [a, b, c, d, e, f, g, h, i, j, k, l, _, _] = *head;
        let destination = u64::from_le_bytes([a, b, c, d, e, f, g, h]) & MAC_MASK;
        // Two bytes early, so that all eight are in the header.
        let source = u64::from_le_bytes([e, f, g, h, i, j, k, l]) >> 16;
        let (mut ethertype, mut vlan) = (be16(head, field::ETHERTYPE).unwrap_or(0), 0);
        if frame.len() < ETHERNET_HEADER_LEN + TAG_LEN && matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN) {
            return None;
        }
        if ethertype == ETHERTYPE_VLAN
            && let (Some(control), Some(inner)) = (be16(frame, field::TAG_CONTROL), be16(frame, field::TAG_CONTROL + 2))
        {
            vlan = control & 0x0fff;
            ethertype = inner;
            if vlan == 0 && inner == ETHERTYPE_VLAN {
                vlan = PRIORITY_OVER_TAG;
            }
        }
        Some(Self { destination: MacAddress(destination), source: MacAddress(source), vlan, ethertype })
    }
}

/// Bytes of the packet in a frame of `len` bytes that begins with `head`: what an MTU limits. Of tags, at most two count as
/// such.
#[must_use]
pub fn packet_len(head: &[u8], len: usize) -> usize {
    let is_tag = |at| matches!(be16(head, at), Some(ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN));
    let tags = usize::from(is_tag(field::ETHERTYPE));
    let tags = tags + usize::from(tags == 1 && is_tag(field::ETHERTYPE + TAG_LEN));
    len.saturating_sub(ETHERNET_HEADER_LEN + tags * TAG_LEN)
}

/// The big-endian 16-bit number at `at`.
pub(super) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*pair))
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{EtherType, PacketBuilder, SingleVlanHeader, VlanId};
    use proptest::prelude::*;

    #[test]
    fn addresses_of_the_link() {
        let is_link_local = |text: &str| text.parse::<MacAddress>().unwrap().is_link_local();
        assert!(is_link_local("01:80:c2:00:00:00") && is_link_local("01:80:c2:00:00:0f"));
        assert!(!is_link_local("01:80:c2:00:00:10") && !is_link_local("01:80:c2:00:01:00"));
        assert!(!is_link_local("00:80:c2:00:00:00") && !is_link_local("01:80:c2:00:00:f0"));
    }

    #[test]
    fn an_address_reads_as_it_is_written() {
        let mac: MacAddress = "52:54:00:0a:0b:0c".parse().unwrap();
        assert_eq!(mac.to_string(), "52:54:00:0a:0b:0c");
        assert_eq!(mac.bytes(), [0x52, 0x54, 0, 0x0a, 0x0b, 0x0c]);
        assert!(!mac.is_group() && mac.is_valid_source());
        assert!(MacAddress::BROADCAST.is_group());
        assert!(!MacAddress::default().is_valid_source());
        for bad in ["", "52:54", "52:54:00:0a:0b:0c:0d", "5:54:00:0a:0b:0c", "gg:54:00:0a:0b:0c"] {
            assert!(bad.parse::<MacAddress>().is_err(), "{bad}");
        }
    }

    proptest! {
        /// etherparse is an independent reader of the same bytes.
        #[test]
        fn header_agrees_with_etherparse(source: [u8; 6], destination: [u8; 6], tag in proptest::option::of(0u16..4096)) {
            let builder = PacketBuilder::ethernet2(source, destination);
            let mut frame = Vec::new();
            let (from, to) = ([10, 0, 0, 1], [10, 0, 0, 2]);
            match tag {
                Some(vlan) => {
                    let builder = builder.single_vlan(VlanId::try_new(vlan).unwrap());
                    builder.ipv4(from, to, 64).udp(1, 2).write(&mut frame, &[1, 2, 3]).unwrap();
                }
                None => builder.ipv4(from, to, 64).udp(1, 2).write(&mut frame, &[1, 2, 3]).unwrap(),
            }
            let ours = EthernetHeader::parse(&frame).unwrap();
            let theirs = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
            let vlan = theirs.vlan_ids().first().map_or(0, |id| id.value());
            prop_assert_eq!(ours.source, MacAddress::from(source));
            prop_assert_eq!(ours.destination, MacAddress::from(destination));
            prop_assert_eq!(ours.vlan, vlan);
            prop_assert_eq!(EtherType(ours.ethertype), EtherType::IPV4);
        }

        #[test]
        fn any_bytes_parse_or_are_too_short(frame: Vec<u8>) {
            let cut_off = (14..18).contains(&frame.len()) && [[0x81, 0], [0x88, 0xa8]].contains(&[frame[12], frame[13]]);
            prop_assert_eq!(EthernetHeader::parse(&frame).is_some(), frame.len() >= ETHERNET_HEADER_LEN && !cut_off);
        }
    }

    #[test]
    fn tags_are_not_part_of_the_packet() {
        let frame = |types: &[u16]| {
            let mut frame = vec![2; 12];
            types.iter().for_each(|ethertype| frame.extend([ethertype.to_be_bytes(), [0, 7]].concat()));
            frame
        };
        for (types, len) in [
            (&[ETHERTYPE_IPV4, ETHERTYPE_VLAN][..], 1500),
            (&[ETHERTYPE_VLAN, ETHERTYPE_IPV4], 1496),
            (&[ETHERTYPE_SERVICE_VLAN, ETHERTYPE_VLAN, ETHERTYPE_IPV4], 1492),
            (&[ETHERTYPE_VLAN, ETHERTYPE_VLAN, ETHERTYPE_VLAN], 1492),
        ] {
            assert_eq!(packet_len(&frame(types), 1514), len, "{types:x?}");
        }
        assert_eq!(packet_len(&frame(&[ETHERTYPE_VLAN])[..14], 14), 0);
        assert_eq!(packet_len(&[], 3), 0);
    }

    #[test]
    fn a_tag_is_whole_or_the_frame_is_none() {
        let mut frame = vec![0; 14];
        for ethertype in [ETHERTYPE_VLAN, ETHERTYPE_SERVICE_VLAN] {
            frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
            for cut_off in [&[][..], &[0, 20], &[0, 20, 8]] {
                assert_eq!(EthernetHeader::parse(&[&frame, cut_off].concat()), None);
            }
        }
        frame[12..14].copy_from_slice(&ETHERTYPE_VLAN.to_be_bytes());
        for (tags, vlan) in [
            ([0, 0, 0x81, 0], PRIORITY_OVER_TAG),
            ([0xe0, 0, 0x81, 0], PRIORITY_OVER_TAG),
            ([0, 7, 0x81, 0], 7),
            ([0, 0, 8, 0], 0),
        ] {
            assert_eq!(EthernetHeader::parse(&[&frame[..], &tags].concat()).unwrap().vlan, vlan);
        }
        let tag = SingleVlanHeader {
            pcp: Default::default(),
            drop_eligible_indicator: false,
            vlan_id: VlanId::try_new(0xabc).unwrap(),
            ether_type: EtherType::IPV6,
        };
        frame.truncate(14);
        frame.extend(tag.to_bytes());
        let header = EthernetHeader::parse(&frame).unwrap();
        assert_eq!((header.vlan, header.ethertype), (0xabc, ETHERTYPE_IPV6));
    }
}
