//! The headers of one segment, made from those of the whole frame.

use super::checksum::InternetSum;
use super::ethernet::be16;
use super::offload::{Offload, Segmentation};

/// A segment of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Its number, from 0.
    pub number: usize,
    /// Bytes of payload before it.
    pub offset: usize,
    /// Bytes of its payload.
    pub len: usize,
    /// Nothing comes after it.
    pub is_last: bool,
}

mod tcp {
    pub(super) const SEQUENCE: usize = 4;
    pub(super) const FLAGS: usize = 13;
    pub(super) const FIN: u8 = 1;
    pub(super) const PSH: u8 = 8;
    /// The congestion window was reduced: said once.
    pub(super) const CWR: u8 = 0x80;
}

impl Segmentation {
    /// The segments of a frame of `len` bytes.
    pub fn cuts(&self, len: usize) -> impl Iterator<Item = Cut> + use<> {
        let (payload, size) = (len.saturating_sub(self.header_len()), usize::from(self.size.max(1)));
        (0..self.segments(len)).map(move |number| {
            let offset = number * size;
            let left = payload - offset;
            Cut { number, offset, len: left.min(size), is_last: left <= size }
        })
    }

    /// Makes `headers`, a copy of those of a frame of `frame_len` bytes for which `offload` was asked, those of the segment
    /// `cut`. The checksum field then holds the sum of the segment's pseudo header, as a receiver that fills it in wants
    /// it. What of `headers` is not there stays out.
    pub fn edit(&self, offload: &Offload, headers: &mut [u8], frame_len: usize, cut: Cut) {
        let (l3, l4) = (usize::from(self.l3), offload.csum_start());
        let segment_len = self.header_len() + cut.len;
        if self.v6 {
            put(headers, l3 + 4, segment_len - l3 - 40);
        } else {
            put(headers, l3 + 2, segment_len - l3);
            let id = be16(headers, l3 + 4).unwrap_or(0);
            put(headers, l3 + 4, usize::from(id) + cut.number);
            put(headers, l3 + 10, 0);
            let mut sum = InternetSum::default();
            sum.add(headers.get(l3..l4).unwrap_or(&[]));
            put(headers, l3 + 10, sum.checksum().into());
        }
        if self.udp {
            put(headers, l4 + 4, segment_len - l4);
        } else {
            edit_tcp(headers.get_mut(l4..).unwrap_or(&mut []), cut);
        }
        // The pseudo header differs from that of the whole frame by its length only.
        let mut sum = InternetSum::default();
        sum.add_number(be16(headers, offload.csum_at()).unwrap_or(0));
        sum.add_number(!((frame_len - l4) as u16));
        sum.add_number((segment_len - l4) as u16);
        put(headers, offload.csum_at(), sum.sum().into());
    }
}

fn edit_tcp(header: &mut [u8], cut: Cut) {
    if let Some(bytes) = header.get_mut(tcp::SEQUENCE..).and_then(|rest| rest.first_chunk_mut::<4>()) {
        *bytes = u32::from_be_bytes(*bytes).wrapping_add(cut.offset as u32).to_be_bytes();
    }
    if let Some(flags) = header.get_mut(tcp::FLAGS) {
        *flags &= if cut.is_last { 0xff } else { !(tcp::FIN | tcp::PSH) };
        *flags &= if cut.number == 0 { 0xff } else { !tcp::CWR };
    }
}

/// Puts the low 16 bits of `number` at `at`, in network order.
fn put(bytes: &mut [u8], at: usize, number: usize) {
    if let Some(pair) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *pair = (number as u16).to_be_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::offload::Abilities;
    use crate::packet::{NetHeader, Way, gso_type};
    use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    /// A frame whose checksum field holds the sum of its pseudo header, and what is asked for it.
    fn frame(v6: bool, udp: bool, payload: &[u8]) -> (Vec<u8>, NetHeader) {
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let mut frame = Vec::new();
        match (v6, udp) {
            (false, false) => {
                let tcp = builder.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).tcp(1, 2, u32::MAX - 9, 1000);
                tcp.fin().psh().cwr().ack(7).write(&mut frame, payload).unwrap();
            }
            (true, false) => {
                let tcp = builder.ipv6([1; 16], [2; 16], 64).tcp(1, 2, u32::MAX - 9, 1000);
                tcp.fin().psh().cwr().ack(7).write(&mut frame, payload).unwrap();
            }
            (false, true) => {
                builder.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(1, 2).write(&mut frame, payload).unwrap();
            }
            (true, true) => builder.ipv6([1; 16], [2; 16], 64).udp(1, 2).write(&mut frame, payload).unwrap(),
        }
        let l4 = if v6 { 54 } else { 34 };
        let at = l4 + if udp { 6 } else { 16 };
        // The sum of the pseudo header: that of all without what follows it.
        let mut sum = InternetSum::default();
        sum.add(&frame[l4..]);
        let checksum = be16(&frame, at).unwrap();
        let mut pseudo = InternetSum::default();
        pseudo.add_number(!checksum);
        sum.add_number(!checksum);
        pseudo.add_number(!sum.sum());
        frame[at..at + 2].copy_from_slice(&pseudo.sum().to_be_bytes());
        let header = NetHeader {
            flags: 1,
            gso_type: match (udp, v6) {
                (true, _) => gso_type::UDP_L4,
                (false, false) => gso_type::TCPV4,
                (false, true) => gso_type::TCPV6,
            },
            hdr_len: 0,
            gso_size: 0,
            csum_start: l4 as u16,
            csum_offset: (at - l4) as u16,
        };
        (frame, header)
    }

    proptest! {
        /// Each segment is a packet that etherparse finds nothing wrong with, and together they are what was sent.
        #[test]
        fn segments_are_whole_packets(v6: bool, udp: bool, payload in proptest::collection::vec(any::<u8>(), 2..3000), size in 1usize..1500) {
            let size = size.clamp(payload.len().div_ceil(1000), payload.len() - 1);
            let (frame, header) = frame(v6, udp, &payload);
            let header = NetHeader { gso_size: size as u16, ..header };
            let head = &frame[..frame.len().min(128)];
            let offload = Offload::asked(header, head, frame.len(), Abilities::all()).unwrap().unwrap();
            let Way::Segment { segmentation, sum: true } = offload.way(Abilities::empty()) else { panic!() };
            let mut rebuilt: Vec<u8> = Vec::new();
            for cut in segmentation.cuts(frame.len()) {
                let header_len = segmentation.header_len();
                let mut segment = frame[..header_len].to_vec();
                segmentation.edit(&offload, &mut segment, frame.len(), cut);
                segment.extend(&frame[header_len + cut.offset..][..cut.len]);
                let mut sum = InternetSum::default();
                sum.add(&segment[offload.csum_start()..]);
                segment[offload.csum_at()..][..2].copy_from_slice(&offload.filled_in(sum.checksum()));

                let packet = SlicedPacket::from_ethernet(&segment).unwrap();
                let ip = match packet.net.unwrap() {
                    NetSlice::Ipv4(ip) => {
                        let header = ip.header().to_header();
                        prop_assert_eq!(header.header_checksum, header.calc_header_checksum());
                        prop_assert_eq!(usize::from(header.identification), cut.number);
                        etherparse::IpHeaders::Ipv4(header, Default::default())
                    }
                    NetSlice::Ipv6(ip) => etherparse::IpHeaders::Ipv6(ip.header().to_header(), Default::default()),
                    NetSlice::Arp(_) => panic!(),
                };
                match packet.transport.unwrap() {
                    TransportSlice::Tcp(tcp) => {
                        let header = tcp.to_header();
                        let right = match &ip {
                            etherparse::IpHeaders::Ipv4(ip, _) => header.calc_checksum_ipv4(ip, tcp.payload()).unwrap(),
                            etherparse::IpHeaders::Ipv6(ip, _) => header.calc_checksum_ipv6(ip, tcp.payload()).unwrap(),
                        };
                        prop_assert_eq!(header.checksum, right);
                        prop_assert_eq!(header.sequence_number, (u32::MAX - 9).wrapping_add(rebuilt.len() as u32));
                        prop_assert_eq!((header.fin, header.psh), (cut.is_last, cut.is_last));
                        prop_assert_eq!(header.cwr, cut.number == 0);
                        rebuilt.extend(tcp.payload());
                    }
                    TransportSlice::Udp(udp) => {
                        let header = udp.to_header();
                        let right = match &ip {
                            etherparse::IpHeaders::Ipv4(ip, _) => header.calc_checksum_ipv4(ip, udp.payload()).unwrap(),
                            etherparse::IpHeaders::Ipv6(ip, _) => header.calc_checksum_ipv6(ip, udp.payload()).unwrap(),
                        };
                        prop_assert_eq!(header.checksum, right);
                        prop_assert_eq!(usize::from(header.length), 8 + cut.len);
                        rebuilt.extend(udp.payload());
                    }
                    other => panic!("{other:?}"),
                }
            }
            prop_assert_eq!(rebuilt, payload);
        }
    }
}
