//! By which of its pairs a guest is given a flow.

use std::time::Duration;

use ringway::flow::QUIET;
use ringway_config::{Unit, Workers};
use ringway_testbed::driver::{Guest, Layout, Options, eventually};

use crate::flows::{Way, identify, udp};
use crate::guests::{LAYOUTS, Net, Setup, cpus, introduce};

const PAIRS: u8 = 8;
const FLOWS: u16 = 256;

fn scene(layout: Layout, workers: usize, buffers: u16) -> (Net, Vec<Guest>) {
    let placing = Workers { unit: Unit::Pair, ..Workers::default() };
    let net = Setup { ports: 2, workers, placing, ..Setup::default() }.start();
    let many = Options { pairs: PAIRS, buffers, memory_len: 32 << 20, ..Options::new(layout) };
    let mut guests = vec![net.plug(0, Options { buffers: 256, ..Options::new(layout) }), net.plug(1, many)];
    introduce(&mut guests);
    (net, guests)
}

fn workers() -> impl Iterator<Item = usize> {
    1..=cpus().min(2)
}

/// Guest 0 sends a frame of each flow; by which pair of guest 1 it came.
fn arrives_by(guests: &mut [Guest], flows: impl Iterator<Item = u16>) -> Vec<usize> {
    let arrival = |flow| {
        guests[0].send(&udp(flow, Way::There, 0));
        let mut arrival = None;
        assert!(
            eventually(|| {
                arrival = guests[1]
                    .pairs
                    .iter_mut()
                    .position(|pair| pair.try_receive().is_some_and(|frame| identify(&frame, Way::There).0 == flow));
                arrival.is_some()
            }),
            "flow {flow} does not arrive"
        );
        arrival.unwrap()
    };
    flows.map(arrival).collect()
}

/// Guest 1 sends a frame of a flow by one of its pairs.
fn asks_by(guests: &mut [Guest], flow: u16, pair: usize) {
    guests[1].pairs[pair].send(&udp(flow, Way::Back, 0));
    let asked = guests[0].receive().map(|frame| identify(&frame, Way::Back).0);
    assert_eq!(asked, Some(flow));
}

/// What the guest sends by a pair it is answered by that pair, as many flows as there may be.
#[test]
fn answers_come_by_the_pair_that_asked() {
    for (layout, workers) in LAYOUTS.into_iter().flat_map(|layout| workers().map(move |workers| (layout, workers))) {
        let (net, mut guests) = scene(layout, workers, 128);
        let pair = |flow: u16| usize::from(flow * 5 % u16::from(PAIRS));
        (0..FLOWS).for_each(|flow| asks_by(&mut guests, flow, pair(flow)));
        let expected: Vec<_> = (0..FLOWS).map(pair).collect();
        assert_eq!(arrives_by(&mut guests, 0..FLOWS), expected, "{layout:?}, {workers} workers");
        net.assert_balances();
    }
}

/// Flows of which the guest says nothing use all pairs, from a single sender too; and stay where they are.
#[test]
fn what_nobody_asked_for_is_spread() {
    for (layout, workers) in LAYOUTS.into_iter().flat_map(|layout| workers().map(move |workers| (layout, workers))) {
        let (net, mut guests) = scene(layout, workers, 256);
        // The first pair was there before the others: what went by it has to be through, which another worker cannot see.
        if workers > 1 {
            std::thread::sleep(QUIET);
        }
        let pairs = arrives_by(&mut guests, 0..FLOWS);
        // With two workers, the sender's has half of them.
        let used = usize::from(PAIRS) / workers;
        for pair in 0..used {
            let count = pairs.iter().filter(|&&of| of == pair * workers || of == pair * workers + 1).count();
            assert!(count >= usize::from(FLOWS) / used / 3, "{count} flows by {pair} of {used}: {pairs:?}");
        }
        assert_eq!(arrives_by(&mut guests, 0..FLOWS), pairs);
        net.assert_balances();
    }
}

/// A guest that sends a flow by another pair from now on: what is under way comes first, so its answers follow when the old
/// pair is empty, which a full ring of buffers shows; or after a while.
#[test]
fn answers_follow_to_another_pair() {
    for (layout, buffers) in LAYOUTS.into_iter().flat_map(|layout| [(layout, 256), (layout, 100)]) {
        let (_net, mut guests) = scene(layout, 1, buffers);
        (0..64).for_each(|flow| asks_by(&mut guests, flow, usize::from(flow % 8)));
        assert_eq!(arrives_by(&mut guests, 0..64), (0..64).map(|flow| flow % 8).collect::<Vec<usize>>());
        (0..64).for_each(|flow| asks_by(&mut guests, flow, usize::from((flow + 3) % 8)));
        let there: Vec<_> = (0..64).map(|flow| (flow + 3) % 8).collect::<Vec<usize>>();
        if buffers == 256 {
            std::thread::sleep(Duration::from_millis(5));
        } else {
            assert_eq!(arrives_by(&mut guests, 0..64), (0..64).map(|flow| flow % 8).collect::<Vec<usize>>());
            std::thread::sleep(QUIET + Duration::from_millis(100));
        }
        assert_eq!(arrives_by(&mut guests, 0..64), there, "{layout:?}, {buffers} buffers");
    }
}
