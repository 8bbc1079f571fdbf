//! Where the headers of a frame lie: Ethernet with up to two tags, IPv4 with options, IPv6 with extension headers.

use super::ethernet::{
    ETHERNET_HEADER_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_SERVICE_VLAN, ETHERTYPE_VLAN, be16,
};
use super::tag::TAG_LEN;

/// Numbers of IP protocols.
pub mod protocol {
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6, and with it neighbour discovery.
    pub const ICMPV6: u8 = 58;
}

pub(super) use protocol::{TCP, UDP};

/// Tags that are looked behind.
pub(super) const TAGS_MAX: usize = 2;

/// IPv6 extension headers that are looked behind (RFC 8200, section 4): hop-by-hop options, routing, destination options.
const EXTENSIONS: [u8; 3] = [0, 43, 60];
const FRAGMENT: u8 = 44;
const IPV4_HEADER_LEN: usize = 20;
pub(super) const IPV6_HEADER_LEN: usize = 40;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    Ipv4,
    Ipv6,
    /// Something else, or more tags than are looked behind.
    Other,
}

/// Why there are no headers to speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A fragment, in which no transport header needs to be.
    Fragment,
    /// They are cut off, or contradict themselves.
    Nonsense,
}

/// Offsets in bytes from the start of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    pub(super) network: Network,
    /// The network header.
    pub(super) l3: usize,
    /// What follows the network header and its extensions, as far as they were followed.
    pub(super) l4: usize,
    /// Where the packet ends by its own word. What lies behind is padding, whatever it looks like; and where it is beyond the
    /// frame, the packet is cut off.
    pub(super) end: usize,
    /// The protocol that begins at `l4`; `None` if that is not known.
    pub(super) protocol: Option<u8>,
}

/// Whether this EtherType is a tag's.
#[must_use]
pub fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN)
}

/// The EtherType behind up to two tags, and where what it means begins; `None` if that is cut off.
#[must_use]
pub fn network(head: &[u8]) -> Option<(u16, usize)> {
    let (mut ethertype, mut l3) = (be16(head, 12)?, ETHERNET_HEADER_LEN);
    for _ in 0..TAGS_MAX {
        if !is_tag(ethertype) {
            break;
        }
        ethertype = be16(head, l3 + 2)?;
        l3 += TAG_LEN;
    }
    Some((ethertype, l3))
}

impl Headers {
    /// Reads them from the first bytes of a frame of `len` bytes; `None` if they are [`Broken`].
    #[must_use]
    pub fn parse(head: &[u8], len: usize) -> Option<Self> {
        Self::judge(head, len).ok()
    }

    /// Reads them from the first bytes of a frame of `len` bytes.
    ///
    /// # Errors
    /// Why there are none to speak of.
    pub fn judge(head: &[u8], len: usize) -> Result<Self, Broken> {
        let (ethertype, l3) = network(head).ok_or(Broken::Nonsense)?;
        let headers = match ethertype {
            ETHERTYPE_IPV4 => ipv4(head, l3)?,
            ETHERTYPE_IPV6 => ipv6(head, l3, len)?,
            _ => Self { network: Network::Other, l3, l4: l3, end: len, protocol: None },
        };
        if headers.l4 <= headers.end.min(len) { Ok(headers) } else { Err(Broken::Nonsense) }
    }

    /// The protocol behind the network header and its extensions; `None` if it is not known.
    #[must_use]
    pub fn protocol(&self) -> Option<u8> {
        self.protocol
    }

    /// Whether the packet is longer than its frame, which has `len` bytes.
    #[must_use]
    pub fn is_cut_off(&self, len: usize) -> bool {
        self.end > len
    }

    /// Where its header begins.
    #[must_use]
    pub fn l4(&self) -> usize {
        self.l4
    }
}

fn ipv4(head: &[u8], l3: usize) -> Result<Headers, Broken> {
    let header: &[u8; IPV4_HEADER_LEN] = head.get(l3..).and_then(|rest| rest.first_chunk()).ok_or(Broken::Nonsense)?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let word = |at| be16(header, at).map_or(0, usize::from);
    let end = l3 + word(2);
    if header[0] >> 4 != 4 || header_len < IPV4_HEADER_LEN || end < l3 + header_len {
        return Err(Broken::Nonsense);
    }
    // An offset, or more of them.
    if word(6) & 0x3fff != 0 {
        return Err(Broken::Fragment);
    }
    Ok(Headers { network: Network::Ipv4, l3, l4: l3 + header_len, end, protocol: Some(header[9]) })
}

fn ipv6(head: &[u8], l3: usize, len: usize) -> Result<Headers, Broken> {
    let header: &[u8; IPV6_HEADER_LEN] = head.get(l3..).and_then(|rest| rest.first_chunk()).ok_or(Broken::Nonsense)?;
    // A length of 0 is left to a jumbo option (RFC 2675).
    let end = match be16(header, 4) {
        None | Some(0) => len,
        Some(payload) => l3 + IPV6_HEADER_LEN + usize::from(payload),
    };
    if header[0] >> 4 != 6 {
        return Err(Broken::Nonsense);
    }
    let (mut protocol, mut l4) = (header[6], l3 + IPV6_HEADER_LEN);
    // Each turn goes 8 bytes on at least, so the head's end ends it.
    while EXTENSIONS.contains(&protocol) || protocol == FRAGMENT {
        let extension = head.get(l4..).and_then(|rest| rest.first_chunk::<8>()).filter(|_| l4 + 8 <= end.min(len));
        let Some(&[next, words, ..]) = extension else {
            return Ok(Headers { network: Network::Ipv6, l3, l4, end, protocol: None });
        };
        if protocol == FRAGMENT {
            if be16(head, l4 + 2).is_none_or(|word| word & 0xfff9 != 0) {
                return Err(Broken::Fragment);
            }
            l4 += 8;
        } else {
            l4 += (usize::from(words) + 1) * 8;
        }
        protocol = next;
    }
    Ok(Headers { network: Network::Ipv6, l3, l4, end, protocol: Some(protocol) })
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
        let expected = Headers { network: Network::Ipv4, l3: 22, l4: 22 + 32, end: frame.len(), protocol: Some(TCP) };
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
        let expected =
            Headers { network: Network::Ipv6, l3: 14, l4: 14 + 40 + 8 + 16 + 8, end: 200, protocol: Some(UDP) };
        assert_eq!(parse(&frame), Some(expected));
        frame[54 + 24 + 3] = 1; // more fragments
        assert_eq!(parse(&frame), None);
        frame[54 + 24 + 3] = 0;
        // An extension header that leads out of the head, and one that leads out of the frame.
        frame[55] = 9;
        let beyond = Headers { network: Network::Ipv6, l3: 14, l4: 54 + 80, end: 200, protocol: None };
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
