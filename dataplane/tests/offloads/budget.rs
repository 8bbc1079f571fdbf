//! A visit is bounded in bytes; what is over stays with its sender, in order.

use ringway_testbed::driver::front_end::feature;
use ringway_testbed::driver::{Guest, Layout, Options};

use crate::guests::{LAYOUTS, Net, introduce, station};
use crate::matrix::asking;
use crate::packet::{Ask, Packet, comes, send};

const FRAMES: u64 = 24;
const PAYLOAD: usize = 60_000;

/// Large frames that are all there when the pair starts come in order, a few a visit: to one, and to all.
#[test]
fn a_burst_of_large_frames() {
    for layout in LAYOUTS {
        for destination in [1, 999] {
            let net = Net::new(4);
            let options = Options::new(layout);
            let large = Options { features: options.features | feature::GUEST_OFFLOADS, ..options };
            let large = Options { buffer_len: 60_200, size: 64, buffers: 64, memory_len: 16 << 20, ..large };
            let mut guests: Vec<_> = (0..4).map(|index| net.plug(index, large)).collect();
            introduce(&mut guests);
            guests[0].front_end.hang_up();
            let sender = Options { memory_len: 16 << 20, ..asking(options) };
            let mut sender = Guest::negotiated(net.listeners[0].accept().unwrap(), sender).unwrap();
            let packet = |n| Packet::new(false, false, PAYLOAD, n);
            for n in 0..FRAMES {
                send(&mut sender, &packet(n), Ask::Segments(1448), 0, destination, &[]);
            }
            let busy = || net.metric("ringway_worker_iterations_total", &[("mode", "busy")]);
            let before = busy();
            // What a started ring holds while it is disabled is thrown away.
            sender.enable(0, true).unwrap();
            sender.start_all().unwrap();
            for n in 0..FRAMES {
                for (index, guest) in guests.iter_mut().enumerate().skip(1) {
                    if destination == 999 || destination == index {
                        comes(guest, &packet(n), Ask::Segments(1448), 0, destination);
                    }
                }
            }
            // 256 KiB hold four of them; flooded to three others, one.
            let visits = busy() - before;
            let least = if destination == 1 { FRAMES / 4 } else { FRAMES / 2 };
            assert!(visits >= least, "{layout:?}: {visits} visits");
            net.assert_balances();
        }
    }
}

/// What a flood costs is counted by the ports that are up, not by all that a bridge has.
#[test]
fn a_flood_beside_ports_that_are_down() {
    let net = Net::new(40);
    let options = Options::new(Layout::Packed);
    let large = Options { features: options.features | feature::GUEST_OFFLOADS, ..options };
    let large = Options { buffer_len: 60_200, size: 64, buffers: 64, memory_len: 16 << 20, ..large };
    let mut guests = vec![net.plug(0, large), net.plug(1, large)];
    introduce(&mut guests);
    guests[0].front_end.hang_up();
    let sender = Options { memory_len: 16 << 20, ..asking(options) };
    let mut sender = Guest::negotiated(net.listeners[0].accept().unwrap(), sender).unwrap();
    let packet = |n| Packet::new(false, false, PAYLOAD, n);
    for n in 0..FRAMES {
        send(&mut sender, &packet(n), Ask::Segments(1448), 0, 999, &[]);
    }
    let busy = || net.metric("ringway_worker_iterations_total", &[("mode", "busy")]);
    let before = busy();
    sender.enable(0, true).unwrap();
    sender.start_all().unwrap();
    for n in 0..FRAMES {
        comes(&mut guests[1], &packet(n), Ask::Segments(1448), 0, 999);
    }
    // Four a visit, as if they were forwarded; a frame a visit if all 40 ports counted.
    let visits = busy() - before;
    assert!(visits < FRAMES * 2 / 3, "{visits} visits");
    net.assert_balances();
}

/// One frame that is to be cut into very many segments for each of several ports: each visit does it for one of them, the
/// sender gets it back after the last, and what it sent behind it comes behind it.
#[test]
fn a_flooded_frame_of_many_segments() {
    const PORTS: usize = 6;
    let net = Net::new(PORTS + 1);
    let options = Options::new(Layout::Packed);
    let receiver = Options { size: 2048, buffers: 2048, buffer_len: 100, memory_len: 16 << 20, ..options };
    let mut guests = vec![net.plug(0, options)];
    guests.extend((1..PORTS).map(|index| net.plug(index, receiver)));
    introduce(&mut guests);
    guests[0].front_end.hang_up();
    let mut sender = Guest::negotiated(net.listeners[0].accept().unwrap(), asking(options)).unwrap();
    let packet = |n| Packet::new(false, false, 1000, n);
    let metric = |name: &str| net.metric(name, &[]);
    let (copies, generated) = (metric("ringway_extra_copies_packets_total"), metric("ringway_generated_packets_total"));
    let busy = || net.metric("ringway_worker_iterations_total", &[("mode", "busy")]);
    let (before, received) = (busy(), metric("ringway_port_receive_packets_total"));
    for n in 0..2 {
        send(&mut sender, &packet(n), Ask::Segments(1), 0, 999, &[]);
    }
    sender.enable(0, true).unwrap();
    sender.start_all().unwrap();
    for n in 0..2 {
        for guest in &mut guests[1..] {
            comes(guest, &packet(n), Ask::Segments(1), 0, 999);
        }
    }
    assert!(sender.settles());
    let to = PORTS as u64 - 1;
    assert!(busy() - before >= 2 * to, "{} visits", busy() - before);
    assert_eq!(metric("ringway_port_receive_packets_total") - received, 2);
    assert_eq!(metric("ringway_extra_copies_packets_total") - copies, 2 * (to - 1));
    assert_eq!(metric("ringway_generated_packets_total") - generated, 2 * to * 999);
    net.assert_balances();
}

/// The same of frames that are to be cut into very many segments: it is segments that cost then. Bad frames among them are
/// counted once.
#[test]
fn a_burst_of_many_segments() {
    let net = Net::new(2);
    let options = Options::new(Layout::Packed);
    let receiver = Options { size: 32768, buffers: 20_000, buffer_len: 100, memory_len: 16 << 20, ..options };
    let mut guests = vec![net.plug(0, options), net.plug(1, receiver)];
    introduce(&mut guests);
    guests[0].front_end.hang_up();
    let mut sender = Guest::negotiated(net.listeners[0].accept().unwrap(), asking(options)).unwrap();
    let packet = |n| Packet::new(false, false, 1000, n);
    for n in 0..FRAMES / 2 {
        send(&mut sender, &packet(n), Ask::Segments(1), 0, 1, &[]);
        let mut bad = packet(n).partial(0, 1);
        bad[6..12].copy_from_slice(&[0xff; 6]);
        sender.pairs[0].send_asking(packet(n).checksum(), &bad, &[]);
    }
    let busy = || net.metric("ringway_worker_iterations_total", &[("mode", "busy")]);
    let before = busy();
    // What a started ring holds while it is disabled is thrown away.
    sender.enable(0, true).unwrap();
    sender.start_all().unwrap();
    for n in 0..FRAMES / 2 {
        comes(&mut guests[1], &packet(n), Ask::Segments(1), 0, 1);
    }
    assert!(busy() - before >= FRAMES / 2, "{} visits", busy() - before);
    assert_eq!(net.receive_dropped(0, ringway::account::DropReason::InvalidSource), FRAMES / 2);
    assert_eq!(station(0)[0] & 1, 0);
    net.assert_balances();
}
