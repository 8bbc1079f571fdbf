//! Frames come as they were sent: any length, in buffers of any shape, with a header that says in how many.

use ringway::account::DropReason;
use ringway_testbed::driver::frame::frame;
use ringway_testbed::driver::front_end::feature;
use ringway_testbed::driver::{Guest, Layout, Options, eventually};

use crate::guests::{LAYOUTS, Net, introduce, passes, station};

/// R12: the smallest and the largest frames, in one buffer, in a few, in very many; between all layouts.
/// R12, without a CVE: DPDK b9c1ec8577, num_buffers not set on one path.
#[test]
fn r12_any_length_in_buffers_of_any_size() {
    for sender in LAYOUTS {
        for receiver in LAYOUTS {
            for buffer_len in [70, 256, 1526, 2048, 9000, 65569] {
                let net = Net::new(2);
                let options = Options { buffer_len, buffers: 256, memory_len: 48 << 20, ..Options::new(receiver) };
                let mut guests =
                    vec![net.plug(0, Options { memory_len: 8 << 20, ..Options::new(sender) }), net.plug(1, options)];
                introduce(&mut guests);
                for len in [14usize, 15, 57, 58, 59, 60, 127, 128, 129, 142, 143, 144, 1514, 2036, 2037, 9014, 65535] {
                    let buffers = (len + 12).div_ceil(buffer_len as usize);
                    // A frame's chains come from one list of 128.
                    if buffers <= 128 {
                        passes(&mut guests, 0, 1, len);
                    }
                }
                net.assert_balances();
            }
        }
    }
}

/// R2: wherever a sender cuts a frame, in the virtio-net header or behind it, with the pieces in the ring or in a table.
/// Class of CVE-2022-2132 and, for empty buffers, CVE-2020-10725.
#[test]
fn r02_a_frame_cut_anywhere() {
    for layout in LAYOUTS {
        let net = Net::new(2);
        let mut guests = net.plug_all(layout);
        introduce(&mut guests);
        for len in [14, 60, 116, 128, 129, 200, 1514] {
            let sent = frame(station(1), station(0), len, len as u64);
            let bytes = [&[0; 12], &sent[..]].concat();
            let mut cuts: Vec<Vec<usize>> = (1..bytes.len().min(200)).map(|at| vec![at]).collect();
            cuts.push((1..bytes.len().min(19)).collect());
            cuts.push(vec![1, 12, 13, 25]);
            cuts.push(vec![12, 12, 12]);
            cuts.extend((bytes.len() > 160).then(|| vec![11, 140, 141]));
            for (n, cut) in cuts.iter().enumerate() {
                guests[0].pairs[0].send_cut(&bytes, cut, n % 2 == 0);
                let came = guests[1].receive();
                assert!(came.as_deref() == Some(&sent[..]), "{layout:?}: {len} bytes cut at {cut:?}");
            }
        }
        net.assert_balances();
    }
}

/// A receiver's buffers of several pieces, as drivers without mergeable buffers post them, and stranger ones.
#[test]
fn buffers_of_several_pieces() {
    let shapes: [&[u32]; 7] = [
        &[12, 1514],
        &[10, 2, 1514],
        &[1, 1, 1, 1, 1, 7, 1514],
        &[12, 14, 1500],
        &[5, 135, 2000],
        &[0, 12, 0, 1600],
        &[100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 100],
    ];
    for layout in LAYOUTS {
        for mergeable in [true, false] {
            for indirect in [true, false] {
                let net = Net::new(2);
                let options = Options { buffers: 0, ..Options::new(layout) };
                let without = if mergeable { 0 } else { feature::MRG_RXBUF };
                let options = Options { features: options.features & !without, ..options };
                let mut guests = vec![net.plug(0, Options::new(layout)), net.plug(1, options)];
                // Not more than 7 chains, so that each of them is met with each length.
                for shape in shapes {
                    guests[1].pairs[0].post(shape, indirect);
                }
                introduce(&mut guests);
                for len in [14, 60, 128, 129, 1514] {
                    for _ in 0..shapes.len() + 1 {
                        passes(&mut guests, 0, 1, len);
                    }
                }
                net.assert_balances();
            }
        }
    }
}

fn burst(guest: &mut Guest, count: usize, len: usize) {
    for n in 0..count {
        guest.send(&frame(station(1), station(0), len, n as u64));
    }
}

/// A frame that no buffer can hold is dropped, and those beside it are not.
#[test]
fn a_frame_too_large_for_the_buffers() {
    for layout in LAYOUTS {
        let net = Net::new(2);
        let plain = Options::new(layout);
        let small = Options { buffer_len: 200, features: plain.features & !feature::MRG_RXBUF, ..plain };
        let mut guests = vec![net.plug(0, plain), net.plug(1, small)];
        introduce(&mut guests);
        for len in [188, 189, 60, 1514, 187] {
            burst(&mut guests[0], 3, len);
        }
        for len in [188, 60, 187] {
            for n in 0..3 {
                assert!(guests[1].receive() == Some(frame(station(1), station(0), len, n)));
            }
        }
        let dropped = || net.counters(1).transmit_dropped.get(DropReason::BufferTooSmall);
        assert!(eventually(|| dropped() == 6), "{} dropped", dropped());
        net.assert_balances();
    }
}

/// A guest that has no buffers loses what comes, and only it does; then all is well again.
#[test]
fn a_receiver_without_buffers() {
    for layout in LAYOUTS {
        let net = Net::new(3);
        let mut guests = vec![
            net.plug(0, Options::new(layout)),
            net.plug(1, Options { buffers: 10, ..Options::new(layout) }),
            net.plug(2, Options::new(layout)),
        ];
        introduce(&mut guests);
        burst(&mut guests[0], 100, 64);
        let dropped = || net.counters(1).transmit_dropped.get(DropReason::GuestRingFull);
        assert!(eventually(|| dropped() == 90), "{} dropped", dropped());
        passes(&mut guests, 0, 2, 64);
        for n in 0..10 {
            assert!(guests[1].receive() == Some(frame(station(1), station(0), 64, n)));
        }
        passes(&mut guests, 0, 1, 64);
        net.assert_balances();
    }
}

/// Frames of all lengths at once, in bursts, in order.
#[test]
fn bursts_of_mixed_lengths() {
    for (sender, receiver) in [(Layout::Packed, Layout::Split), (Layout::Split, Layout::Packed)] {
        let net = Net::new(2);
        let options = Options { buffer_len: 512, buffers: 256, ..Options::new(receiver) };
        let mut guests = vec![net.plug(0, Options::new(sender)), net.plug(1, options)];
        introduce(&mut guests);
        for round in 0..40u64 {
            let lens: Vec<usize> = (0..32).map(|n| 14 + (n * 397 + round as usize * 131) % 2500).collect();
            for (n, &len) in lens.iter().enumerate() {
                guests[0].send(&frame(station(1), station(0), len, round * 100 + n as u64));
            }
            for (n, &len) in lens.iter().enumerate() {
                let came = guests[1].receive();
                assert!(came == Some(frame(station(1), station(0), len, round * 100 + n as u64)), "{round} {n} {len}");
            }
        }
        net.assert_balances();
    }
}
