use super::*;
use etherparse::PacketBuilder;
use proptest::prelude::*;

fn tcp4(payload: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).tcp(1, 2, 3, 4);
    builder.write(&mut frame, &vec![0; payload]).unwrap();
    frame
}

fn udp6(payload: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6([1; 16], [2; 16], 64).udp(1, 2);
    builder.write(&mut frame, &vec![0; payload]).unwrap();
    frame
}

fn asked(header: NetHeader, frame: &[u8], may: Abilities) -> Result<Option<Offload>, DropReason> {
    Offload::asked(header, &frame[..frame.len().min(128)], frame.len(), may)
}

const CSUM: NetHeader = NetHeader { flags: 1, gso_type: 0, hdr_len: 0, gso_size: 0, csum_start: 34, csum_offset: 16 };
const TSO: NetHeader = NetHeader { gso_type: gso_type::TCPV4, hdr_len: 54, gso_size: 1000, ..CSUM };

#[test]
fn nothing_asked_for() {
    let nothing = NetHeader { flags: 0xfe, gso_type: 0, hdr_len: 9, gso_size: 9, csum_start: 9, csum_offset: 9 };
    assert_eq!(asked(nothing, &tcp4(10), Abilities::empty()), Ok(None));
}

#[test]
fn every_ask_needs_its_feature() {
    let (tcp, udp) = (tcp4(3000), udp6(3000));
    let uso = NetHeader { csum_start: 54, csum_offset: 6, gso_type: gso_type::UDP_L4, ..TSO };
    let ecn = NetHeader { gso_type: gso_type::TCPV4 | gso_type::ECN, ..TSO };
    let cases = [
        (CSUM, &tcp, Abilities::CHECKSUM),
        (TSO, &tcp, Abilities::CHECKSUM | Abilities::TCP4),
        (ecn, &tcp, Abilities::CHECKSUM | Abilities::TCP4 | Abilities::ECN),
        (uso, &udp, Abilities::CHECKSUM | Abilities::UDP4 | Abilities::UDP6),
    ];
    for (header, frame, needed) in cases {
        let offload = asked(header, frame, needed).unwrap().unwrap();
        assert_eq!(offload.way(needed), Way::Pass(offload.header()));
        for lacking in needed.iter() {
            assert_eq!(asked(header, frame, Abilities::all() - lacking), Err(DropReason::OffloadNotNegotiated));
            let way = offload.way(Abilities::all() - lacking);
            let undone = lacking == Abilities::UDP4 && way == Way::Pass(offload.header());
            assert!(undone || !matches!(way, Way::Pass(_)), "{header:?} without {lacking:?}");
        }
    }
    let ufo = NetHeader { gso_type: gso_type::UDP, ..uso };
    assert_eq!(asked(ufo, &udp, Abilities::all()), Err(DropReason::OffloadNotNegotiated));
}

#[test]
fn the_header_is_built_from_the_frame() {
    let frame = tcp4(3000);
    for hdr_len in [0, 1, 54, 3054] {
        let offload = asked(NetHeader { hdr_len, flags: 0xff, ..TSO }, &frame, Abilities::all()).unwrap().unwrap();
        assert_eq!(offload.header(), TSO);
        assert_eq!(offload.checksum_header(), CSUM);
    }
    // One segment is none.
    let offload = asked(NetHeader { gso_size: 3000, ..TSO }, &frame, Abilities::all()).unwrap().unwrap();
    assert_eq!(offload.header(), CSUM);
}

#[test]
fn a_checksum_in_a_tunnel_is_summed_and_not_vouched_for() {
    let frame = udp6(300);
    let inner = NetHeader { csum_start: 100, csum_offset: 16, ..CSUM };
    let offload = asked(inner, &frame, Abilities::all()).unwrap().unwrap();
    assert_eq!(offload.way(Abilities::all()), Way::Sum);
    assert_eq!((offload.csum_start(), offload.csum_at(), offload.filled_in(0)), (100, 116, [0xff; 2]));
    // But not inside a header.
    for csum_start in [54 + 1, 54 + 7] {
        let header = NetHeader { csum_start, ..inner };
        assert_eq!(asked(header, &frame, Abilities::all()), Err(DropReason::BadCsumStart));
    }
}

proptest! {
    /// Whatever is accepted can be done within the frame.
    #[test]
    fn any_header_over_any_frame(
        bytes: [u8; 10],
        gso in 0u8..6,
        mut frame in proptest::collection::vec(any::<u8>(), 14..400),
        like in 0usize..3,
        can in 0u8..=255,
    ) {
        match like {
            0 => frame = tcp4(frame.len()),
            1 => frame = udp6(frame.len()),
            _ => {}
        }
        let mut header = NetHeader::from_bytes(bytes);
        (header.flags, header.gso_type) = (header.flags | 1, gso);
        if header.csum_start & 1 == 0 {
            (header.csum_start, header.csum_offset) = if like == 0 { (34, 16) } else { (54, 6) };
        }
        if let Ok(Some(offload)) = asked(header, &frame, Abilities::all()) {
            prop_assert!(offload.csum_start() >= 14 && offload.csum_at() + 2 <= frame.len());
            if let Way::Segment { segmentation, .. } = offload.way(Abilities::from_bits_truncate(can)) {
                let cuts: Vec<_> = segmentation.cuts(frame.len()).collect();
                prop_assert!(cuts.len() >= 2 && cuts.len() <= SEGMENTS_OF_FRAME_MAX);
                prop_assert!(segmentation.header_len() <= 128 && offload.csum_at() + 2 <= segmentation.header_len());
                let payload: usize = cuts.iter().map(|cut| cut.len).sum();
                prop_assert_eq!(segmentation.header_len() + payload, frame.len());
                for cut in cuts {
                    segmentation.edit(&offload, &mut frame.clone()[..segmentation.header_len()], frame.len(), cut);
                }
            }
        }
    }
}
