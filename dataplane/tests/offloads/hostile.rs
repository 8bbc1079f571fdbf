//! R5: virtio-net headers that ask for what cannot be: each is dropped for its own reason, nothing beyond the frame is
//! touched, and the pair goes on.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use ringway::account::DropReason;
use ringway_testbed::driver::front_end::feature;
use ringway_testbed::driver::net_header::{DATA_VALID, NEEDS_CSUM, gso};
use ringway_testbed::driver::{Guest, NetHeader, Options, eventually};

use crate::guests::{LAYOUTS, Net, introduce};
use crate::matrix::asking;
use crate::packet::{Ask, Packet, comes, send};

fn pair(layout: ringway_testbed::driver::Layout, features: u64) -> (Net, Vec<Guest>) {
    let net = Net::new(2);
    let options = Options::new(layout);
    let receiver = Options { features: options.features | features, size: 1024, buffers: 1024, ..options };
    let mut guests = vec![net.plug(0, asking(options)), net.plug(1, receiver)];
    introduce(&mut guests);
    (net, guests)
}

/// Bad headers over good frames, and good ones over bad.
fn bad() -> Vec<(&'static str, NetHeader, Vec<u8>, DropReason)> {
    let (tcp4, udp6) = (Packet::new(false, false, 3000, 1), Packet::new(true, true, 3000, 2));
    let (tso, uso) = (tcp4.segmentation(1000), udp6.segmentation(1000));
    let (tcp_frame, udp_frame) = (tcp4.partial(0, 1), udp6.partial(0, 1));
    let len = tcp_frame.len() as u16;
    let csum = tcp4.checksum();
    let changed = |at: usize, bytes: &[u8]| {
        let mut frame = tcp_frame.clone();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    use DropReason::*;
    let header = |what, header, reason| (what, header, tcp_frame.clone(), reason);
    vec![
        header("summed from beyond the end", NetHeader { csum_start: len, ..csum }, BadCsumStart),
        header("summed from far beyond", NetHeader { csum_start: u16::MAX, ..csum }, BadCsumStart),
        header("summed from the Ethernet header on", NetHeader { csum_start: 0, ..csum }, BadCsumStart),
        header("summed from the IP header on", NetHeader { csum_start: 14, ..csum }, BadCsumStart),
        header("summed from inside TCP", NetHeader { csum_start: 36, ..csum }, BadCsumStart),
        header("put beyond the end", NetHeader { csum_offset: len - 35, ..csum }, BadCsumOffset),
        header("put where offset and start wrap", NetHeader { csum_offset: u16::MAX, ..csum }, BadCsumOffset),
        header("put over the ports", NetHeader { csum_offset: 0, ..csum }, BadCsumOffset),
        header("put where UDP has it", NetHeader { csum_offset: 6, ..csum }, BadCsumOffset),
        header("segments of nothing", NetHeader { gso_size: 0, ..tso }, BadGsoSize),
        header("too many segments", NetHeader { gso_size: 2, ..tso }, BadGsoSize),
        header("headers longer than the frame", NetHeader { hdr_len: len + 1, ..tso }, BadHdrLen),
        header("a kind that there is not", NetHeader { gso_type: 2, ..tso }, BadGsoType),
        header("another that there is not", NetHeader { gso_type: 0x7f, ..tso }, BadGsoType),
        header("TCP over IPv6 that is over IPv4", NetHeader { gso_type: gso::TCPV6, ..tso }, BadGsoType),
        header("UDP that is TCP", NetHeader { gso_type: gso::UDP_L4, ..tso }, BadGsoType),
        header("ECN of no segments", NetHeader { gso_type: gso::ECN, ..csum }, BadGsoType),
        header("segments without a checksum", NetHeader { flags: 0, ..tso }, BadGsoType),
        header("fragmentation of UDP", NetHeader { gso_type: gso::UDP, ..tso }, OffloadNotNegotiated),
        ("TCP that is UDP", NetHeader { gso_type: gso::TCPV6, ..uso }, udp_frame.clone(), BadGsoType),
        ("ECN of UDP", NetHeader { gso_type: gso::UDP_L4 | gso::ECN, ..uso }, udp_frame.clone(), BadGsoType),
        ("summed from inside UDP", NetHeader { csum_start: 58, ..udp6.checksum() }, udp_frame.clone(), BadCsumStart),
        (
            "segments of what is in a tunnel",
            NetHeader { csum_start: 100, csum_offset: 16, ..uso },
            udp_frame,
            BadGsoType,
        ),
        ("a fragment", csum, changed(14 + 6, &[0x20, 0]), BadCsumStart),
        ("another fragment", csum, changed(14 + 6, &[0, 9]), BadCsumStart),
        ("an IP header too short", csum, changed(14, &[0x44]), BadCsumStart),
        ("an IP version that is another", csum, changed(14, &[0x65]), BadCsumStart),
        ("a TCP header too short", tso, changed(34 + 12, &[0x40]), BadGsoHeaders),
        ("an IP length too short", tso, changed(14 + 2, &[0, 99]), BadGsoHeaders),
        ("an IP length too long", tso, changed(14 + 2, &[0xff, 0xff]), BadGsoHeaders),
        ("IP options where TCP should be", tso, changed(14, &[0x4f]), BadCsumStart),
        ("no IP at all", NetHeader { csum_start: 13, ..csum }, changed(12, &[8, 6]), BadCsumStart),
        ("half a frame", csum, tcp_frame[..40].to_vec(), BadCsumOffset),
        ("half a header", csum, tcp_frame[..30].to_vec(), BadCsumStart),
        ("half a TCP header", NetHeader { hdr_len: 0, ..tso }, tcp_frame[..52].to_vec(), BadGsoHeaders),
    ]
}

/// R5: hostile csum_start, csum_offset, hdr_len, gso_size and gso_type. Class of CVE-2024-11614, and DPDK 7023f3e532 (a gso_size
/// of 0).
#[test]
fn r05_headers_that_ask_the_impossible() {
    for layout in LAYOUTS {
        let (net, mut guests) = pair(layout, 0);
        let good = Packet::new(false, false, 3000, 3);
        for (what, header, frame, reason) in bad() {
            let before = net.receive_dropped(0, reason);
            for cuts in [&[][..], &[1, 20, 40]] {
                let cuts: Vec<_> = cuts.iter().copied().filter(|&cut| cut < frame.len()).collect();
                guests[0].pairs[0].send_asking(header, &frame, &cuts);
            }
            let dropped = || net.receive_dropped(0, reason) - before;
            assert!(eventually(|| dropped() == 2), "{layout:?}: {what}: {} dropped as {reason:?}", dropped());
            send(&mut guests[0], &good, Ask::Segments(1000), 0, 1, &[]);
            comes(&mut guests[1], &good, Ask::Segments(1000), 0, 1);
        }
        net.assert_balances();
    }
}

/// Asks that this sender has not negotiated, one feature lacking at a time.
#[test]
fn asks_that_were_not_negotiated() {
    let cases = [
        (feature::HOST_OFFLOADS, Packet::new(false, false, 3000, 1), Ask::Checksum),
        (feature::HOST_TSO4, Packet::new(false, false, 3000, 1), Ask::Segments(1000)),
        (feature::HOST_TSO6, Packet::new(true, false, 3000, 1), Ask::Segments(1000)),
        (feature::HOST_USO, Packet::new(true, true, 3000, 1), Ask::Segments(1000)),
        (feature::HOST_ECN, Packet { cwr: true, ..Packet::new(true, false, 3000, 1) }, Ask::Segments(1000)),
        // A driver that takes a feature without the one that it needs has neither.
        (feature::CSUM, Packet::new(false, false, 3000, 1), Ask::Segments(1000)),
    ];
    for layout in LAYOUTS {
        for (lacking, packet, ask) in &cases {
            let net = Net::new(2);
            let options = asking(Options::new(layout));
            let sender = Options { features: options.features & !lacking, ..options };
            let mut guests = vec![net.plug(0, sender), net.plug(1, Options::new(layout))];
            introduce(&mut guests);
            send(&mut guests[0], packet, *ask, 0, 1, &[]);
            let dropped = || net.receive_dropped(0, DropReason::OffloadNotNegotiated);
            assert!(eventually(|| dropped() == 1), "{layout:?} without {lacking:#x}: {ask:?}");
            send(&mut guests[0], packet, Ask::Nothing, 0, 1, &[]);
            comes(&mut guests[1], packet, Ask::Nothing, 0, 1);
            net.assert_balances();
        }
    }
}

/// Nobody's word is taken that a checksum is right, and no flag passes that there is not.
#[test]
fn a_sender_vouches_for_nothing() {
    for layout in LAYOUTS {
        for features in [0, feature::GUEST_OFFLOADS] {
            let (net, mut guests) = pair(layout, features);
            let packet = Packet::new(false, false, 100, 1);
            for flags in [DATA_VALID, 4, 0xfe] {
                let header = NetHeader { flags, ..packet.segmentation(1000) };
                let header = NetHeader { gso_type: 0, ..header };
                guests[0].pairs[0].send_asking(header, &packet.build(0, 1), &[]);
                comes(&mut guests[1], &packet, Ask::Nothing, 0, 1);
                let header = NetHeader { flags: flags | NEEDS_CSUM, hdr_len: 9999, ..packet.checksum() };
                guests[0].pairs[0].send_asking(header, &packet.partial(0, 1), &[]);
                comes(&mut guests[1], &packet, Ask::Checksum, 0, 1);
            }
            net.assert_balances();
        }
    }
}

/// A checksum of what is in a UDP tunnel is filled in for everybody: where it begins is only the sender's word.
#[test]
fn a_checksum_in_a_tunnel() {
    for features in [0, feature::GUEST_OFFLOADS] {
        let (net, mut guests) = pair(LAYOUTS[0], features);
        let inner = Packet::new(false, false, 400, 1);
        let outer = |payload| Packet { payload, ..Packet::new(true, true, 0, 0) };
        let start = outer(vec![]).header_len() + inner.l4();
        let header = NetHeader { csum_start: start as u16, ..inner.checksum() };
        guests[0].pairs[0].send_asking(header, &outer(inner.partial(5, 6)).build(0, 1), &[]);
        let (came_header, came) = guests[1].receive_asking().unwrap();
        // The outer checksum is of the finished packet only if the sender took care; here it did not.
        let mut expected = outer(inner.partial(5, 6)).build(0, 1);
        expected.splice(outer(vec![]).header_len().., inner.build(5, 6));
        assert_eq!((came_header, came), (NetHeader::default(), expected));
        net.assert_balances();
    }
}

/// R5: whatever a header says over whatever frame, nothing breaks and every frame is accounted for. Class of CVE-2024-11614.
#[test]
fn r05_any_header_over_any_frame() {
    for (layout, features) in LAYOUTS.into_iter().zip([0, feature::GUEST_OFFLOADS]) {
        let (net, guests) = pair(layout, features);
        let guests = std::cell::RefCell::new(guests);
        let mut runner = TestRunner::new(Config { cases: 1500, failure_persistence: None, ..Config::default() });
        let like = (any::<bool>(), any::<bool>(), 0usize..3, 0usize..11, 0usize..3000);
        let change = proptest::option::of((0usize..100, any::<u8>()));
        let header = (any::<[u8; 10]>(), (any::<u8>(), any::<u8>()), 0usize..3000);
        let cuts = proptest::collection::vec(0usize..200, 0..3);
        let result =
            runner.run(&(like, change, header, cuts), |((v6, udp, tags, options, len), change, header, mut cuts)| {
                let options = if udp { 0 } else { options * 4 };
                let packet = Packet { tags, options, ..Packet::new(v6, udp, len, 1) };
                let mut frame = packet.partial(0, 1);
                if let Some((at, byte)) = change {
                    let at = 12 + at % (frame.len() - 12);
                    frame[at] = byte;
                }
                let (bytes, (one, other), size) = header;
                // A field in four is wrong.
                let keep = one & other;
                let (random, right) = (NetHeader::from_bytes(&bytes), packet.segmentation(size));
                let header = NetHeader {
                    flags: if keep & 1 == 0 { right.flags } else { random.flags },
                    gso_type: if keep & 2 == 0 { right.gso_type } else { random.gso_type & 7 },
                    hdr_len: if keep & 4 == 0 { right.hdr_len } else { random.hdr_len },
                    gso_size: if keep & 8 == 0 { right.gso_size } else { random.gso_size },
                    csum_start: if keep & 16 == 0 { right.csum_start } else { random.csum_start % 200 },
                    csum_offset: if keep & 32 == 0 { right.csum_offset } else { random.csum_offset },
                };
                let mut guests = guests.borrow_mut();
                cuts.retain(|&cut| cut < frame.len());
                cuts.sort_unstable();
                guests[0].pairs[0].send_asking(header, &frame, &cuts);
                // The driver double checks every header that comes.
                while guests[1].pairs[0].try_receive_asking().is_some() {}
                Ok(())
            });
        result.unwrap();
        let mut guests = guests.into_inner();
        assert!(guests[0].settles());
        guests[1].pairs[0].collect();
        while guests[1].pairs[0].try_receive_asking().is_some() {}
        let packet = Packet::new(true, false, 3000, 3);
        send(&mut guests[0], &packet, Ask::Segments(1000), 0, 1, &[]);
        comes(&mut guests[1], &packet, Ask::Segments(1000), 0, 1);
        assert!(net.counters(0).receive_dropped.total() > 100);
        assert!(net.counters(1).transmitted.packets.get() > 300);
        net.assert_balances();
    }
}
