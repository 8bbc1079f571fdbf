//! R2, R5: frames that are none, in rings that break no rule: each is dropped for a reason, and the pair goes on.

use ringway::account::DropReason;
use ringway::guest::FRAME_LEN_MAX;
use ringway_testbed::driver::frame::frame;
use ringway_testbed::driver::front_end::feature;
use ringway_testbed::driver::{Options, RawDescriptor, eventually};

use crate::guests::{LAYOUTS, passes, station};
use crate::scene::{HOSTILE, On, Scene};

/// Sends these bytes, virtio-net header and all, whole and in many pieces and by a table; all three are dropped for `reason`,
/// and a good frame between them is not.
fn all_dropped(bytes: &[u8], reason: DropReason) {
    for layout in LAYOUTS {
        let mut scene = Scene::with(On::Transmitq, Options { memory_len: 16 << 20, ..Options::new(layout) });
        let cuts: Vec<usize> = (1..bytes.len().min(16)).collect();
        for (n, (cuts, indirect)) in [(&[][..], false), (&cuts, false), (&cuts, true)].into_iter().enumerate() {
            scene.hostile.pairs[0].send_cut(bytes, cuts, indirect);
            let dropped = || scene.net.receive_dropped(HOSTILE, reason);
            assert!(eventually(|| dropped() == n as u64 + 1), "{layout:?}: {} bytes cut at {cuts:?}", bytes.len());
            let good = frame(station(0), station(HOSTILE), 60, n as u64);
            scene.hostile.send(&good);
            assert!(scene.neighbours[0].receive().as_deref() == Some(&good[..]));
        }
        assert!(scene.hostile.settles(), "the buffers do not come back");
        scene.assert_runs();
    }
}

/// R2: nothing, less than a header, no more than a header, and less than an Ethernet header behind it.
/// Class of CVE-2022-2132 and, for empty buffers, CVE-2020-10725.
#[test]
fn r02_frames_shorter_than_their_headers() {
    for len in [1, 2, 9, 10, 11, 12, 13, 24, 25] {
        all_dropped(&vec![0; len], DropReason::Runt);
    }
}

/// The shortest frame that there is passes.
#[test]
fn an_ethernet_header_and_no_more() {
    for layout in LAYOUTS {
        let mut scene = Scene::new(layout, On::Transmitq);
        let shortest = frame(station(0), station(HOSTILE), 14, 0);
        scene.hostile.send(&shortest);
        assert!(scene.neighbours[0].receive() == Some(shortest));
        scene.assert_runs();
    }
}

/// R2: descriptors without a byte: alone, many of them, between others, and at addresses where nothing is.
/// Class of CVE-2022-2132 and, for empty buffers, CVE-2020-10725.
#[test]
fn r02_empty_descriptors_on_a_transmitq() {
    for layout in LAYOUTS {
        let mut scene = Scene::new(layout, On::Transmitq);
        for (n, address) in [scene.buffer, 0, u64::MAX].into_iter().enumerate() {
            let pieces = [ringway_testbed::driver::Piece { address, len: 0, writable: false }; 3];
            for count in 1..=3 {
                scene.hostile.pairs[0].transmitq.add(&pieces[..count], false).unwrap();
                scene.hostile.pairs[0].kick();
            }
            let dropped = || scene.net.receive_dropped(HOSTILE, DropReason::Runt);
            assert!(eventually(|| dropped() == 3 * (n as u64 + 1)), "{layout:?} {address:#x}");
        }
        let good = frame(station(0), station(HOSTILE), 200, 1);
        scene.hostile.pairs[0].send_cut(&[&[0; 12], &good[..]].concat(), &[0, 0, 12, 12, 50, 212], false);
        assert!(scene.neighbours[0].receive() == Some(good));
        scene.assert_runs();
    }
}

/// R2: receive buffers without a byte, or too small for a header, hold no frame; what comes is lost, the pair goes on.
/// Class of CVE-2022-2132 and, for empty buffers, CVE-2020-10725.
#[test]
fn r02_empty_descriptors_on_a_receiveq() {
    for layout in LAYOUTS {
        for shape in [&[0][..], &[0, 0, 0], &[5], &[11, 0], &[12]] {
            let options = Options::new(layout);
            let options = Options { features: options.features & !feature::MRG_RXBUF, ..options };
            let mut scene = Scene::with(On::Receiveq, options);
            scene.hostile.pairs[0].post(shape, false);
            for _ in 0..3 {
                scene.provoke();
            }
            let dropped = || scene.net.counters(HOSTILE).transmit_dropped.get(DropReason::BufferTooSmall);
            assert!(eventually(|| dropped() == 3), "{layout:?} {shape:?}: {} dropped", dropped());
            scene.assert_runs();
        }
    }
}

/// R2: with mergeable buffers a frame may take many, but not endlessly many: 200 without a byte hold none.
/// Class of CVE-2022-2132 and, for empty buffers, CVE-2020-10725.
#[test]
fn r02_empty_descriptors_without_end_on_a_mergeable_receiveq() {
    for layout in LAYOUTS {
        let mut scene = Scene::with(On::Receiveq, Options::new(layout));
        for _ in 0..200 {
            scene.hostile.pairs[0].post(&[0], false);
        }
        for _ in 0..3 {
            scene.provoke();
        }
        let counters = scene.net.counters(HOSTILE);
        let dropped = || counters.transmit_dropped.get(DropReason::BufferTooSmall);
        assert!(eventually(|| dropped() == 3), "{layout:?}: {} dropped", dropped());
        scene.assert_runs();
    }
}

/// R2: one byte more than the longest frame; and far more.
#[test]
fn frames_longer_than_any() {
    for len in [FRAME_LEN_MAX as usize + 1, 100_000, 1 << 20] {
        all_dropped(&vec![0; 12 + len], DropReason::Oversized);
    }
}

/// Not even the longest length that a descriptor can have does harm.
#[test]
fn a_descriptor_of_four_gigabytes() {
    for layout in LAYOUTS {
        let mut scene = Scene::with(On::Transmitq, Options { memory_len: 10 << 30, ..Options::new(layout) });
        let start = scene.hostile.memory.regions().next().unwrap().0.guest;
        scene.offer(&[RawDescriptor { address: start, len: u32::MAX, flags: 0, next: None }]);
        assert!(eventually(|| scene.net.receive_dropped(HOSTILE, DropReason::Oversized) == 1), "{layout:?}");
        scene.assert_runs();
    }
}

/// The longest frame that there is passes to who has room for it.
#[test]
fn the_longest_frame() {
    for layout in LAYOUTS {
        let mut scene = Scene::with(On::Transmitq, Options { memory_len: 16 << 20, ..Options::new(layout) });
        scene.neighbours[0].front_end.hang_up();
        let roomy = Options { buffer_len: 70_000, buffers: 16, memory_len: 16 << 20, ..Options::new(layout) };
        scene.neighbours[0] = scene.net.plug(0, roomy);
        scene.neighbours[0].send(&frame(station(HOSTILE), station(0), 60, 0));
        assert!(scene.hostile.receive().is_some());
        let plain = frame(station(0), station(HOSTILE), FRAME_LEN_MAX as usize - 8, 0);
        let longest = [&plain[..12], &[0x88, 0xa8, 0, 0, 0x81, 0, 0, 0], &plain[12..]].concat();
        scene.hostile.send(&longest);
        assert!(scene.neighbours[0].receive() == Some(longest));
        scene.net.assert_balances();
    }
}

/// R5: checksum and segmentation that nobody negotiated, in each field that asks for it.
#[test]
fn offloads_that_were_not_negotiated() {
    for (flags, gso_type) in [(1, 0), (0xff, 0), (0, 1), (0, 3), (0, 4), (0, 5), (1, 1), (0xff, 0x81)] {
        let mut bytes = vec![0; 12];
        (bytes[0], bytes[1]) = (flags, gso_type);
        bytes.extend(frame(station(0), station(HOSTILE), 100, 7));
        all_dropped(&bytes, DropReason::OffloadNotNegotiated);
    }
}

/// R5: whatever else the header says, flags that ask for nothing, lengths and offsets from anywhere, nobody asked for, and
/// the receiver does not hear of it: it gets a header of the switch's own.
#[test]
fn a_header_of_nonsense() {
    for layout in LAYOUTS {
        let mut scene = Scene::new(layout, On::Transmitq);
        for fill in [1, 0x7f, 0xff] {
            for len in [14, 60, 1514] {
                let good = frame(station(1), station(HOSTILE), len, fill.into());
                let header = [fill & !1, 0, fill, fill, fill, fill, fill, fill, fill, fill, fill, fill];
                scene.hostile.pairs[0].send_bytes(&[&header, &good[..]].concat());
                // The driver double checks the header that comes.
                assert!(scene.neighbours[1].receive() == Some(good));
            }
        }
        scene.assert_runs();
        passes(&mut scene.neighbours, 1, 0, 64);
    }
}
