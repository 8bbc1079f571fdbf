//! What is asked for a frame goes with it to another worker. On a machine of one CPU there is nothing to see here.

use ringway_testbed::driver::Options;
use ringway_testbed::driver::front_end::feature;

use crate::guests::{LAYOUTS, Setup, cpus, introduce};
use crate::matrix::{asking, asks};
use crate::packet::{Ask, Packet, comes, send};

#[test]
fn between_workers() {
    if cpus() < 2 {
        return;
    }
    for layout in LAYOUTS {
        for features in [0, feature::GUEST_CSUM, feature::GUEST_OFFLOADS] {
            let net = Setup { ports: 2, workers: 2, ..Setup::default() }.start();
            let options = Options::new(layout);
            let receiver = Options { features: options.features | features, memory_len: 16 << 20, ..options };
            let mut guests = vec![net.plug(0, asking(options)), net.plug(1, receiver)];
            introduce(&mut guests);
            for (packet, ask) in asks() {
                send(&mut guests[0], &packet, ask, 0, 1, &[]);
                comes(&mut guests[1], &packet, ask, 0, 1);
            }
            // More than one visit takes, of the largest there are.
            let large = |n| Packet::new(true, false, 65_400, n);
            for n in 0..3 {
                send(&mut guests[0], &large(n), Ask::Segments(1440), 0, 1, &[]);
            }
            let sent = if features == feature::GUEST_OFFLOADS { 3 } else { 2 };
            for n in 0..sent {
                comes(&mut guests[1], &large(n), Ask::Segments(1440), 0, 1);
            }
            assert!(net.metric("ringway_forwarded_bytes_total", &[("path", "hand_off")]) > 0);
            net.assert_balances();
        }
    }
}
