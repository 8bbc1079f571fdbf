//! Packets as values, built by etherparse; and what comes, compared with them.

use std::fmt;

use etherparse::checksum::Sum16BitWords;
use etherparse::{
    IpHeaders, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, PacketBuilder, PacketBuilderStep, TcpHeader, VlanId,
};
use ringway_testbed::driver::front_end::feature;
use ringway_testbed::driver::net_header::{NEEDS_CSUM, gso};
use ringway_testbed::driver::{Guest, NetHeader};

use crate::guests::station;

const SEQUENCE: u32 = u32::MAX - 700;
const ID: u16 = u16::MAX - 2;

/// A TCP segment or UDP datagram, or one that is larger than any and is to be cut.
#[derive(Clone)]
pub(crate) struct Packet {
    pub(crate) v6: bool,
    pub(crate) udp: bool,
    /// 802.1Q and 802.1ad tags in front.
    pub(crate) tags: usize,
    /// Bytes of TCP options, a multiple of 4.
    pub(crate) options: usize,
    /// TCP flags, and what becomes of them in segments.
    pub(crate) cwr: bool,
    pub(crate) fin: bool,
    pub(crate) id: u16,
    pub(crate) sequence: u32,
    pub(crate) payload: Vec<u8>,
}

impl fmt::Debug for Packet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { v6, udp, tags, options, cwr, fin, payload, .. } = self;
        let (ip, transport) = (if *v6 { "IPv6" } else { "IPv4" }, if *udp { "UDP" } else { "TCP" });
        let len = payload.len();
        write!(out, "{ip} {transport}, {tags} tags, {options} of options, cwr {cwr}, fin {fin}, {len} bytes")
    }
}

impl Packet {
    /// With a payload of `len` bytes that `seed` chooses.
    pub(crate) fn new(v6: bool, udp: bool, len: usize, seed: u64) -> Self {
        let payload = ringway_testbed::driver::frame::frame([0; 6], [0; 6], len + 14, seed).split_off(14);
        Self { v6, udp, tags: 0, options: 0, cwr: false, fin: false, id: ID, sequence: SEQUENCE, payload }
    }

    pub(crate) fn l3(&self) -> usize {
        14 + 4 * self.tags
    }

    pub(crate) fn l4(&self) -> usize {
        self.l3() + if self.v6 { 40 } else { 20 }
    }

    /// Bytes of all headers.
    pub(crate) fn header_len(&self) -> usize {
        self.l4() + if self.udp { 8 } else { 20 + self.options }
    }

    fn csum_offset(&self) -> usize {
        if self.udp { 6 } else { 16 }
    }

    fn addresses(&self) -> ([u8; 16], [u8; 16]) {
        ([0xfd; 16], [0xfc; 16])
    }

    fn ip(&self) -> IpHeaders {
        let protocol = if self.udp { IpNumber::UDP } else { IpNumber::TCP };
        let (source, destination) = self.addresses();
        if self.v6 {
            let header = Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: 0,
                next_header: protocol,
                hop_limit: 64,
                source,
                destination,
            };
            return IpHeaders::Ipv6(header, Default::default());
        }
        let header = Ipv4Header::new(0, 64, protocol, [10, 0, 0, 1], [10, 0, 0, 2]).unwrap();
        IpHeaders::Ipv4(Ipv4Header { identification: self.id, ..header }, Default::default())
    }

    /// From guest `from` to guest `to`, complete.
    pub(crate) fn build(&self, from: usize, to: usize) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2(station(from), station(to));
        let vlan = |id| VlanId::try_new(id).unwrap();
        match self.tags {
            0 => self.finish(ethernet.ip(self.ip())),
            1 => self.finish(ethernet.single_vlan(vlan(7)).ip(self.ip())),
            _ => self.finish(ethernet.double_vlan(vlan(7), vlan(8)).ip(self.ip())),
        }
    }

    fn finish(&self, ip: PacketBuilderStep<IpHeaders>) -> Vec<u8> {
        let mut frame = Vec::new();
        if self.udp {
            ip.udp(1111, 2222).write(&mut frame, &self.payload).unwrap();
        } else {
            let mut header = TcpHeader::new(1111, 2222, self.sequence, 3333);
            (header.ack, header.acknowledgment_number) = (true, 44444);
            (header.cwr, header.fin, header.psh) = (self.cwr, self.fin, self.fin);
            header.set_options_raw(&vec![1; self.options]).unwrap();
            ip.tcp_header(header).write(&mut frame, &self.payload).unwrap();
        }
        frame
    }

    /// As a sender leaves it whose checksum is to be filled in: with that of the pseudo header in its place.
    pub(crate) fn partial(&self, from: usize, to: usize) -> Vec<u8> {
        let mut frame = self.build(from, to);
        let protocol = if self.udp { 17 } else { 6 };
        let len = (frame.len() - self.l4()) as u16;
        let mut sum = Sum16BitWords::new();
        if self.v6 {
            let (source, destination) = self.addresses();
            sum = sum.add_16bytes(source).add_16bytes(destination);
        } else {
            sum = sum.add_4bytes([10, 0, 0, 1]).add_4bytes([10, 0, 0, 2]);
        }
        sum = sum.add_2bytes(len.to_be_bytes()).add_2bytes([0, protocol]);
        let at = self.l4() + self.csum_offset();
        // In the order in which memory holds it.
        frame[at..at + 2].copy_from_slice(&(!sum.ones_complement()).to_ne_bytes());
        frame
    }

    /// What asks for its checksum.
    pub(crate) fn checksum(&self) -> NetHeader {
        let (csum_start, csum_offset) = (self.l4() as u16, self.csum_offset() as u16);
        NetHeader { flags: NEEDS_CSUM, csum_start, csum_offset, ..NetHeader::default() }
    }

    /// What asks for segments of `size` bytes.
    pub(crate) fn segmentation(&self, size: usize) -> NetHeader {
        let kind = match (self.udp, self.v6) {
            (true, _) => gso::UDP_L4,
            (false, false) => gso::TCPV4,
            (false, true) => gso::TCPV6,
        };
        let ecn = if self.cwr { gso::ECN } else { 0 };
        let (gso_type, hdr_len, gso_size) = (kind | ecn, self.header_len() as u16, size as u16);
        NetHeader { gso_type, hdr_len, gso_size, ..self.checksum() }
    }

    /// The packets that it is cut into.
    pub(crate) fn segments(&self, size: usize) -> Vec<Self> {
        let count = self.payload.len().div_ceil(size);
        let segment = |(index, payload): (usize, &[u8])| Self {
            cwr: self.cwr && index == 0,
            fin: self.fin && index == count - 1,
            id: self.id.wrapping_add(index as u16),
            sequence: self.sequence.wrapping_add((index * size) as u32),
            payload: payload.to_vec(),
            ..self.clone()
        };
        self.payload.chunks(size).enumerate().map(segment).collect()
    }

    /// The feature by which a receiver takes it whole when it is larger than a segment.
    fn whole_bits(&self) -> u64 {
        match (self.udp, self.v6) {
            (true, false) => feature::GUEST_USO4,
            (true, true) => feature::GUEST_USO6,
            (false, false) => feature::GUEST_TSO4 | if self.cwr { feature::GUEST_ECN } else { 0 },
            (false, true) => feature::GUEST_TSO6 | if self.cwr { feature::GUEST_ECN } else { 0 },
        }
    }
}

/// What a sender asks for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Nothing,
    Checksum,
    /// Segments of so many bytes.
    Segments(usize),
}

/// The frames, with their headers, that guest `to` with `features` is to get of a packet that guest `from` asks `ask` for.
pub(crate) fn expected(packet: &Packet, ask: Ask, from: usize, to: usize, features: u64) -> Vec<(NetHeader, Vec<u8>)> {
    let sums = features & feature::GUEST_CSUM != 0;
    let one = |packet: &Packet| match sums {
        true => (packet.checksum(), packet.partial(from, to)),
        false => (NetHeader::default(), packet.build(from, to)),
    };
    match ask {
        Ask::Nothing => vec![(NetHeader::default(), packet.build(from, to))],
        Ask::Segments(size) if packet.payload.len() > size => {
            let whole = packet.whole_bits();
            if sums && features & whole == whole {
                return vec![(packet.segmentation(size), packet.partial(from, to))];
            }
            packet.segments(size).iter().map(one).collect()
        }
        Ask::Segments(_) | Ask::Checksum => vec![one(packet)],
    }
}

/// Sends a packet, cut at these offsets, for which `ask` is asked.
pub(crate) fn send(guest: &mut Guest, packet: &Packet, ask: Ask, from: usize, to: usize, cuts: &[usize]) {
    let (header, frame) = match ask {
        Ask::Nothing => (NetHeader::default(), packet.build(from, to)),
        Ask::Checksum => (packet.checksum(), packet.partial(from, to)),
        Ask::Segments(size) => (packet.segmentation(size), packet.partial(from, to)),
    };
    guest.pairs[0].send_asking(header, &frame, cuts);
}

/// Sees that guest `to` gets what it is to get, and no more.
pub(crate) fn comes(guest: &mut Guest, packet: &Packet, ask: Ask, from: usize, to: usize) -> usize {
    let expected = expected(packet, ask, from, to, guest.options.features);
    for (index, (header, frame)) in expected.iter().enumerate() {
        let (came_header, came) =
            guest.receive_asking().unwrap_or_else(|| panic!("{index} is lost: {ask:?} {packet:?}"));
        assert_eq!(came_header, *header, "{index}: {ask:?} {packet:?}");
        if let Some(at) = (0..frame.len().max(came.len())).find(|&at| frame.get(at) != came.get(at)) {
            panic!("{index}: {} bytes, not {}, differ at {at}: {ask:?} {packet:?}", came.len(), frame.len());
        }
    }
    expected.len()
}
