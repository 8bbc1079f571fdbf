//! Guests on several workers: what one worker receives for a guest of another it hands over. On a machine of one CPU there is
//! nothing to see here.

use ringway::account::DropReason;
use ringway::guest::PairId;
use ringway::switch::QueueRef;
use ringway_testbed::driver::frame::{BROADCAST, frame, mac};
use ringway_testbed::driver::{Guest, Options};

use crate::guests::{LAYOUTS, Net, Setup, cpus, introduce, passes, station};

/// Guests 0 and 2 are one worker's, 1 and 3 the other's.
fn on_two_workers(options: Options) -> Option<(Net, Vec<Guest>)> {
    if cpus() < 2 {
        return None;
    }
    let net = Setup { ports: 4, workers: 2, ..Setup::default() }.start();
    let mut guests: Vec<_> = (0..4).map(|index| net.plug(index, options)).collect();
    introduce(&mut guests);
    let worker = |port| net.switch.worker_of(QueueRef::Pair(PairId { port, index: 0 }));
    assert_eq!(worker(0), worker(2));
    assert_eq!(worker(1), worker(3));
    assert_ne!(worker(0), worker(1));
    Some((net, guests))
}

/// Frames of any length go from each guest to each other, and each is what it was.
#[test]
fn any_length_between_workers() {
    for layout in LAYOUTS {
        let options = Options { buffer_len: 1600, buffers: 200, memory_len: 16 << 20, ..Options::new(layout) };
        let Some((net, mut guests)) = on_two_workers(options) else { return };
        for len in [14, 60, 127, 128, 129, 1514, 1588, 1589, 9014, 65535] {
            for (from, to) in [(0, 1), (1, 0), (0, 2), (3, 2), (3, 1)] {
                passes(&mut guests, from, to, len);
            }
        }
        assert!(net.metric("ringway_forwarded_bytes_total", &[("path", "hand_off")]) > 0);
        net.assert_balances();
    }
}

/// In order, also where some are flooded and some are not.
#[test]
fn bursts_between_workers_stay_in_order() {
    for layout in LAYOUTS {
        let Some((net, mut guests)) = on_two_workers(Options::new(layout)) else { return };
        for round in 0..50u64 {
            let to: Vec<_> = (0..32).map(|n| [station(1), BROADCAST, mac(900)][(n * 5 + round as usize) % 3]).collect();
            for (n, &destination) in to.iter().enumerate() {
                guests[0].send(&frame(destination, station(0), 60 + n, round * 32 + n as u64));
            }
            for (n, &destination) in to.iter().enumerate() {
                let came = guests[1].receive();
                assert!(
                    came == Some(frame(destination, station(0), 60 + n, round * 32 + n as u64)),
                    "round {round}: {n}"
                );
            }
            for other in [2, 3] {
                guests[other].pairs[0].collect();
                while guests[other].pairs[0].try_receive().is_some() {}
            }
        }
        net.assert_balances();
    }
}

/// A worker that is asleep is woken by what is handed to it.
#[test]
fn a_sleeping_worker_is_handed_a_frame() {
    for layout in LAYOUTS {
        let Some((net, mut guests)) = on_two_workers(Options::new(layout)) else { return };
        for n in 0..200u64 {
            std::thread::sleep(std::time::Duration::from_micros(900 + n * 7 % 300));
            passes(&mut guests, 0, 1, 60 + n as usize);
            passes(&mut guests, 3, 2, 60 + n as usize);
        }
        net.assert_balances();
    }
}

/// Who is told to be silent by a full receiver is counted on the way, wherever that is.
#[test]
fn a_receiver_on_another_worker_has_no_buffers() {
    for layout in LAYOUTS {
        let Some((net, mut guests)) = on_two_workers(Options { buffers: 16, ..Options::new(layout) }) else { return };
        for n in 0..2000 {
            guests[0].send(&frame(station(1), station(0), 64, n));
        }
        assert!(guests[0].settles());
        net.assert_balances();
        let lost = net.counters(1).transmit_dropped.get(DropReason::GuestRingFull)
            + net.receive_dropped(0, DropReason::HandOffFull);
        assert_eq!(lost, 2000 - 16);
        for n in 0..16 {
            assert!(guests[1].receive() == Some(frame(station(1), station(0), 64, n)));
        }
        passes(&mut guests, 0, 1, 64);
    }
}
