//! Where the headers of a frame lie: Ethernet with up to two tags, IPv4 with options, IPv6 with extension headers.

use super::ethernet::{ETHERNET_HEADER_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN, be16};

/// IP protocol number of TCP.
pub(super) const TCP: u8 = 6;
/// IP protocol number of UDP.
pub(super) const UDP: u8 = 17;

/// EtherType of an 802.1ad tag (the service tag).
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;
/// Tags that are looked behind.
const TAGS_MAX: usize = 2;
const TAG_LEN: usize = 4;

/// IPv6 extension headers that are looked behind (RFC 8200, section 4): hop-by-hop options, routing, destination options.
const EXTENSIONS: [u8; 3] = [0, 43, 60];
const FRAGMENT: u8 = 44;
const IPV6_HEADER_LEN: usize = 40;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    Ipv4,
    Ipv6,
    /// Something else, or more tags than are looked behind.
    Other,
}

/// Offsets in bytes from the start of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Headers {
    pub(super) network: Network,
    /// The network header.
    pub(super) l3: usize,
    /// What follows the network header and its extensions, as far as they were followed.
    pub(super) l4: usize,
    /// The protocol that begins at `l4`; `None` if that is not known.
    pub(super) protocol: Option<u8>,
}

impl Headers {
    /// Reads them from the first bytes of a frame of `len` bytes. `None` for a fragment, in which no transport header needs to
    /// be, and for headers that contradict themselves or are longer than the frame.
    pub(super) fn parse(head: &[u8], len: usize) -> Option<Self> {
        let (mut ethertype, mut l3) = (be16(head, 12)?, ETHERNET_HEADER_LEN);
        for _ in 0..TAGS_MAX {
            if !matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN) {
                break;
            }
            ethertype = be16(head, l3 + 2)?;
            l3 += TAG_LEN;
        }
        let headers = match ethertype {
            ETHERTYPE_IPV4 => ipv4(head, l3)?,
            ETHERTYPE_IPV6 => ipv6(head, l3)?,
            _ => Self { network: Network::Other, l3, l4: l3, protocol: None },
        };
        (headers.l4 <= len).then_some(headers)
    }
}

fn ipv4(head: &[u8], l3: usize) -> Option<Headers> {
    let start = *head.get(l3)?;
    let header_len = usize::from(start & 0x0f) * 4;
    let is_fragment = be16(head, l3 + 6)? & 0x3fff != 0; // offset, or more of them
    if start >> 4 != 4 || header_len < 20 || is_fragment {
        return None;
    }
    Some(Headers { network: Network::Ipv4, l3, l4: l3 + header_len, protocol: head.get(l3 + 9).copied() })
}

fn ipv6(head: &[u8], l3: usize) -> Option<Headers> {
    if *head.get(l3)? >> 4 != 6 {
        return None;
    }
    let (mut protocol, mut l4) = (*head.get(l3 + 6)?, l3 + IPV6_HEADER_LEN);
    // Each turn goes 8 bytes on at least, so the head's end ends it.
    while EXTENSIONS.contains(&protocol) || protocol == FRAGMENT {
        let Some(&[next, words, ..]) = head.get(l4..).and_then(|rest| rest.first_chunk::<8>()) else {
            return Some(Headers { network: Network::Ipv6, l3, l4, protocol: None });
        };
        if protocol == FRAGMENT {
            if be16(head, l4 + 2)? & 0xfff9 != 0 {
                return None;
            }
            l4 += 8;
        } else {
            l4 += (usize::from(words) + 1) * 8;
        }
        protocol = next;
    }
    Some(Headers { network: Network::Ipv6, l3, l4, protocol: Some(protocol) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{IpNumber, Ipv6FlowLabel, Ipv6Header, PacketBuilder, SlicedPacket, TransportSlice, VlanId};
    use proptest::prelude::*;

    fn parse(frame: &[u8]) -> Option<Headers> {
        Headers::parse(&frame[..frame.len().min(128)], frame.len())
    }

    #[test]
    fn two_tags_and_ipv4_options() {
        let options = [1u8; 12];
        let ip = etherparse::IpHeaders::Ipv4(
            etherparse::Ipv4Header {
                options: options.as_slice().try_into().unwrap(),
                ..etherparse::Ipv4Header::new(0, 64, IpNumber::TCP, [1; 4], [2; 4]).unwrap()
            },
            Default::default(),
        );
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
            .double_vlan(VlanId::try_new(5).unwrap(), VlanId::try_new(6).unwrap())
            .ip(ip);
        let mut frame = Vec::new();
        builder.tcp(1, 2, 3, 4).write(&mut frame, &[0; 100]).unwrap();
        let expected = Headers { network: Network::Ipv4, l3: 22, l4: 22 + 32, protocol: Some(TCP) };
        assert_eq!(parse(&frame), Some(expected));
        // A fragment has no transport header to speak of.
        frame[22 + 6] = 0x20;
        assert_eq!(parse(&frame), None);
    }

    #[test]
    fn a_chain_of_extension_headers() {
        let mut frame = [&[0; 12][..], &ETHERTYPE_IPV6.to_be_bytes()].concat();
        let ip = Ipv6Header {
            traffic_class: 0,
            flow_label: Ipv6FlowLabel::ZERO,
            payload_length: 0,
            next_header: IpNumber(0),
            hop_limit: 64,
            source: [1; 16],
            destination: [2; 16],
        };
        frame.extend(ip.to_bytes());
        frame.extend([60, 0, 0, 0, 0, 0, 0, 0]); // hop by hop
        frame.extend([[44, 1, 0, 0, 0, 0, 0, 0], [0; 8]].concat()); // destination options, two words
        frame.extend([UDP, 0, 0, 0, 0, 0, 0, 0]); // a fragment that is all
        frame.resize(200, 0);
        let expected = Headers { network: Network::Ipv6, l3: 14, l4: 14 + 40 + 8 + 16 + 8, protocol: Some(UDP) };
        assert_eq!(parse(&frame), Some(expected));
        frame[54 + 24 + 3] = 1; // more fragments
        assert_eq!(parse(&frame), None);
        frame[54 + 24 + 3] = 0;
        // An extension header that leads out of the head, and one that leads out of the frame.
        frame[55] = 9;
        let beyond = Headers { network: Network::Ipv6, l3: 14, l4: 54 + 80, protocol: None };
        assert_eq!(parse(&frame), Some(beyond));
        frame[55] = 255;
        assert_eq!(parse(&frame), None);
    }

    proptest! {
        /// etherparse is an independent reader of the same bytes.
        #[test]
        fn agrees_with_etherparse(v6: bool, tag in proptest::option::of(0u16..4096), tcp: bool, ports: (u16, u16)) {
            let builder = PacketBuilder::ethernet2([2; 6], [4; 6]);
            let mut frame = Vec::new();
            macro_rules! rest {
                ($builder:expr) => {
                    match (v6, tcp) {
                        (false, false) => $builder.ipv4([1; 4], [2; 4], 9).udp(ports.0, ports.1).write(&mut frame, b"x"),
                        (false, true) => $builder.ipv4([1; 4], [2; 4], 9).tcp(ports.0, ports.1, 0, 0).write(&mut frame, b"x"),
                        (true, false) => $builder.ipv6([1; 16], [2; 16], 9).udp(ports.0, ports.1).write(&mut frame, b"x"),
                        (true, true) => $builder.ipv6([1; 16], [2; 16], 9).tcp(ports.0, ports.1, 0, 0).write(&mut frame, b"x"),
                    }
                };
            }
            match tag {
                Some(vlan) => rest!(builder.single_vlan(VlanId::try_new(vlan).unwrap())),
                None => rest!(builder),
            }.unwrap();
            let ours = parse(&frame).unwrap();
            let theirs = SlicedPacket::from_ethernet(&frame).unwrap();
            let transport = match theirs.transport.unwrap() {
                TransportSlice::Tcp(tcp) => tcp.slice().as_ptr(),
                TransportSlice::Udp(udp) => udp.slice().as_ptr(),
                other => panic!("{other:?}"),
            };
            prop_assert_eq!(ours.l4, transport as usize - frame.as_ptr() as usize);
            prop_assert_eq!(ours.protocol, Some(if tcp { TCP } else { UDP }));
            prop_assert_eq!(ours.network, if v6 { Network::Ipv6 } else { Network::Ipv4 });
        }

        #[test]
        fn any_bytes_parse_or_not(mut frame in proptest::collection::vec(any::<u8>(), 14..300), v6: bool, first: u8) {
            let ethertype = if v6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
            frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
            if let Some(byte) = frame.get_mut(14) {
                *byte = (if v6 { 0x60 } else { 0x40 }) | first & 0x0f;
            }
            if let Some(headers) = parse(&frame) {
                prop_assert!(headers.l3 <= headers.l4 && headers.l4 <= frame.len());
            }
        }
    }
}
