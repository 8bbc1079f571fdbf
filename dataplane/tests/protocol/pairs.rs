//! Several queue pairs.

use std::collections::BTreeMap;
use std::time::Duration;

use ringway::account::DropReason;
use ringway_testbed::driver::frame::{frame, mac};
use ringway_testbed::driver::{Guest, Options, PATIENCE, eventually};

use crate::guests::{LAYOUTS, Net, introduce, station};

const FLOWS: u16 = 64;

/// Sends one frame of each flow from guest 0 to guest 1. By which of its pairs each came.
fn queue_of_each_flow(guests: &mut [Guest]) -> BTreeMap<u16, usize> {
    // Pairs may have come or gone: a flow goes over when nothing waits in its old one, and not within a burst.
    std::thread::sleep(Duration::from_millis(5));
    let mut queues = BTreeMap::new();
    for flow in 0..FLOWS {
        guests[0].send(&frame(station(1), mac(1000 + flow), 100, flow.into()));
        let is_it = |frame: Vec<u8>| frame[10..12] == (1000 + flow).to_be_bytes();
        let mut queue = None;
        assert!(
            eventually(|| {
                queue = guests[1].pairs.iter_mut().position(|pair| pair.try_receive().is_some_and(is_it));
                queue.is_some()
            }),
            "flow {flow} does not come"
        );
        queues.extend(queue.map(|queue| (flow, queue)));
    }
    queues
}

/// Two pairs share the flows; a flow stays where it is; a pair that is off gets none, and one that is on again its own.
#[test]
fn a_pair_is_switched_off_and_on() {
    for layout in LAYOUTS {
        let net = Net::new(2);
        let mut guests = vec![
            net.plug(0, Options::new(layout)),
            net.plug(1, Options { pairs: 2, buffers: 256, ..Options::new(layout) }),
        ];
        introduce(&mut guests);
        let enabled = || net.metric("ringway_vhost_queue_pairs", &[("port", "vm1"), ("kind", "enabled")]);
        let both = queue_of_each_flow(&mut guests);
        assert_eq!(enabled(), 2);
        for queue in 0..2 {
            let flows = both.values().filter(|&&of| of == queue).count();
            assert!(flows >= usize::from(FLOWS) / 8, "pair {queue} has {flows} flows");
        }
        assert_eq!(queue_of_each_flow(&mut guests), both);
        for off in [1, 0] {
            guests[1].enable(off, false).unwrap();
            assert_eq!(enabled(), 1);
            let one = queue_of_each_flow(&mut guests);
            assert!(one.values().all(|&queue| queue == usize::from(1 - off)), "{one:?}");
            // What it sends is taken and thrown away.
            let dropped = |expected| {
                let dropped = &net.port(1).counters(off.into()).receive_dropped;
                eventually(|| dropped.get(DropReason::QueueDisabled) == expected)
            };
            for n in 1..=3 * u64::from(guests[1].options.size) {
                guests[1].pairs[usize::from(off)].send(&frame(station(0), station(1), 200, n));
            }
            assert!(dropped(3 * u64::from(guests[1].options.size)), "{layout:?}");
            assert!(guests[0].hears_nothing(), "a pair that is off sends");
            guests[1].enable(off, true).unwrap();
            let sent = frame(station(0), station(1), 200, 7);
            guests[1].pairs[usize::from(off)].send(&sent);
            assert!(guests[0].receive().as_deref() == Some(&sent[..]));
            assert_eq!(enabled(), 2);
            assert_eq!(queue_of_each_flow(&mut guests), both);
        }
        net.assert_balances();
    }
}

/// A pair of which only one ring runs does what that ring is for.
#[test]
fn half_a_pair() {
    for layout in LAYOUTS {
        let net = Net::new(2);
        let mut guests = net.plug_all(layout);
        introduce(&mut guests);
        let (in_, out) = (frame(station(1), station(0), 90, 1), frame(station(0), station(1), 91, 2));
        guests[1].front_end.enable(0, false).unwrap();
        guests[1].send(&out);
        assert!(guests[0].receive().as_deref() == Some(&out[..]), "{layout:?}: only the transmitq runs");
        guests[0].send(&in_);
        assert!(guests[1].hears_nothing());
        guests[1].front_end.enable(0, true).unwrap();
        guests[1].front_end.enable(1, false).unwrap();
        guests[0].send(&in_);
        assert!(guests[1].receive().as_deref() == Some(&in_[..]), "{layout:?}: only the receiveq runs");
        guests[1].send(&out);
        assert!(eventually(|| net.receive_dropped(1, DropReason::QueueDisabled) == 1));
        assert!(guests[0].hears_nothing());
        guests[1].front_end.enable(1, true).unwrap();
        guests[1].send(&out);
        assert!(guests[0].receive().as_deref() == Some(&out[..]));
        net.assert_balances();
    }
}

/// Frames sent by either pair come, and each pair's are counted as its own.
#[test]
fn both_pairs_send() {
    for layout in LAYOUTS {
        let net = Net::new(2);
        let mut guests =
            vec![net.plug(0, Options { pairs: 2, ..Options::new(layout) }), net.plug(1, Options::new(layout))];
        introduce(&mut guests);
        for round in 0..50 {
            for pair in 0..2 {
                let sent = frame(station(1), station(0), 60 + round, round as u64 * 2 + pair as u64);
                guests[0].pairs[pair].send(&sent);
                assert!(guests[1].pairs[0].receive_within(PATIENCE).as_deref() == Some(&sent[..]));
            }
        }
        for (queue, introduced) in [("0", 1), ("1", 0)] {
            let labels = [("port", "vm0"), ("queue", queue)];
            assert_eq!(net.metric("ringway_queue_receive_packets_total", &labels), 50 + introduced);
        }
        net.assert_balances();
    }
}

/// A guest may have all pairs that are offered.
#[test]
fn as_many_pairs_as_there_are() {
    let net = Net::new(2);
    let many = Options { pairs: 128, size: 16, buffers: 16, memory_len: 16 << 20, ..Options::new(LAYOUTS[0]) };
    let mut guests = vec![net.plug(0, Options::new(LAYOUTS[0])), net.plug(1, many)];
    assert_eq!(net.metric("ringway_vhost_queue_pairs", &[("port", "vm1"), ("kind", "enabled")]), 128);
    guests[1].send(&frame(station(0), station(1), 64, 0));
    assert!(guests[0].receive().is_some());
    let queues = queue_of_each_flow(&mut guests);
    let distinct: std::collections::BTreeSet<_> = queues.values().collect();
    assert!(distinct.len() > 16, "{FLOWS} flows on {} pairs", distinct.len());
    for pair in &mut guests[1].pairs {
        pair.send(&frame(station(0), station(1), 64, 1));
    }
    for _ in 0..128 {
        assert!(guests[0].receive().is_some());
    }
    net.assert_balances();
}
