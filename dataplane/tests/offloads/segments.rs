//! Software segmentation: whatever the sizes, the shapes of buffers and the headers, the stream that comes is the one that
//! was sent.

use ringway::account::DropReason;
use ringway_testbed::driver::front_end::feature;
use ringway_testbed::driver::{Layout, Options, eventually};

use crate::guests::{LAYOUTS, Net, introduce};
use crate::matrix::asking;
use crate::packet::{Ask, Packet, comes, send};

/// Payload and segment size: from single bytes to the largest frame.
const SIZES: [(usize, usize); 9] =
    [(150, 1), (151, 2), (300, 3), (1000, 7), (4000, 127), (4000, 128), (20_000, 129), (60_000, 536), (65_400, 8948)];

fn cuts_of(len: usize) -> [Vec<usize>; 4] {
    [vec![], vec![1, 14, 55], vec![54, 128, 129], (1..).map(|n| n * 4093).take_while(|&at| at < len).collect()]
}

/// All sizes, with headers of every length, sent in pieces, into what `post` posts.
fn all_sizes(receiver: Options, post: &[&[u32]]) {
    let net = Net::new(2);
    let layout = receiver.layout();
    let mut guests = vec![net.plug(0, asking(Options::new(layout))), net.plug(1, receiver)];
    for shape in post {
        guests[1].pairs[0].post(shape, layout == Layout::Packed);
    }
    introduce(&mut guests);
    for (round, (len, size)) in SIZES.into_iter().enumerate() {
        for (n, (v6, udp)) in [(false, false), (true, false), (false, true), (true, true)].into_iter().enumerate() {
            let packet = Packet::new(v6, udp, len, round as u64);
            let options = if udp { 0 } else { 4 * ((round + n) % 11) };
            let packet = Packet { tags: (round + n) % 3, options, cwr: !udp && n % 2 == 0, fin: !udp, ..packet };
            let cuts = &cuts_of(packet.header_len() + len)[(round + n) % 4];
            send(&mut guests[0], &packet, Ask::Segments(size), 0, 1, cuts);
            comes(&mut guests[1], &packet, Ask::Segments(size), 0, 1);
        }
    }
    assert!(guests[1].hears_nothing());
    net.assert_balances();
}

#[test]
fn into_mergeable_buffers() {
    for layout in LAYOUTS {
        for buffer_len in [128, 1526, 4096] {
            for features in [0, feature::GUEST_CSUM] {
                let options = Options::new(layout);
                let features = options.features | features;
                let memory_len = 16 << 20;
                all_sizes(Options { features, buffer_len, size: 1024, buffers: 1024, memory_len, ..options }, &[]);
            }
        }
    }
}

#[test]
fn into_single_and_chained_buffers() {
    let chained: &[u32] = &[12, 54, 70, 1, 2000, 8000];
    for layout in LAYOUTS {
        for shape in [&[9100][..], chained] {
            for features in [0, feature::GUEST_CSUM] {
                let options = Options::new(layout);
                let features = options.features & !feature::MRG_RXBUF | features;
                // Chains by way of an indirect table on packed rings take one slot each, on split ones six.
                let count = if layout == Layout::Packed || shape.len() == 1 { 200 } else { 160 };
                let options = Options { features, buffers: 0, size: 1024, memory_len: 16 << 20, ..options };
                all_sizes(options, &vec![shape; count]);
            }
        }
    }
}

/// Segments for which there is no buffer are dropped, one by one, and accounted for as such.
#[test]
fn a_receiver_with_few_buffers() {
    for layout in LAYOUTS {
        for features in [0, feature::GUEST_CSUM] {
            let net = Net::new(2);
            let options = Options::new(layout);
            let few = Options { features: options.features | features, buffers: 10, ..options };
            let mut guests = vec![net.plug(0, asking(options)), net.plug(1, few)];
            introduce(&mut guests);
            let packet = Packet::new(false, false, 50_000, 1);
            send(&mut guests[0], &packet, Ask::Segments(1000), 0, 1, &[]);
            let dropped = || net.counters(1).transmit_dropped.get(DropReason::GuestRingFull);
            assert!(eventually(|| dropped() == 40), "{} dropped", dropped());
            assert_eq!(net.metric("ringway_generated_packets_total", &[]), 49);
            let first = Packet { payload: packet.payload[..10_000].to_vec(), ..packet };
            comes(&mut guests[1], &first, Ask::Segments(1000), 0, 1);
            net.assert_balances();
        }
    }
}

/// Of the segments, those that fit come.
#[test]
fn buffers_too_small_for_all_but_the_last() {
    for layout in LAYOUTS {
        let net = Net::new(2);
        let options = Options::new(layout);
        let features = options.features & !feature::MRG_RXBUF;
        let mut guests =
            vec![net.plug(0, asking(options)), net.plug(1, Options { features, buffer_len: 500, ..options })];
        introduce(&mut guests);
        let packet = Packet::new(true, false, 10_100, 1);
        send(&mut guests[0], &packet, Ask::Segments(1000), 0, 1, &[]);
        let last = packet.segments(1000).pop().unwrap();
        comes(&mut guests[1], &last, Ask::Nothing, 0, 1);
        assert_eq!(net.counters(1).transmit_dropped.get(DropReason::BufferTooSmall), 10);
        net.assert_balances();
    }
}
