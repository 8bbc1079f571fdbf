//! Rings in which nothing happens cost nothing, and wake whom they have to.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ringway::worker::Mode;
use ringway_config::{Idle, Workers};
use ringway_testbed::driver::frame::{BROADCAST, frame};
use ringway_testbed::driver::{Guest, Options, eventually};

use crate::guests::{LAYOUTS, Net, Setup, introduce, passes, station};

const QUIET_GUESTS: usize = 20;
const ROUNDS: u64 = 1500;

/// Guests 0 and 1 keep a worker busy for as long as `others` takes, which has all the others.
fn beside_traffic(net: &Net, guests: &mut [Guest], others: impl FnOnce(&mut [Guest])) {
    let stop = AtomicBool::new(false);
    let (busy, quiet) = guests.split_at_mut(2);
    let [from, to] = busy else { panic!("two guests") };
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                sent += u64::from(from.pairs[0].try_send(&frame(station(1), station(0), 60, sent)));
                while to.pairs[0].try_receive().is_some() {}
            }
        });
        others(quiet);
        stop.store(true, Ordering::Relaxed);
    });
    net.assert_balances();
}

/// While two guests talk, those of which nothing is heard are not looked at, and are heard at once when they speak: at any
/// moment, most often just when the worker begins to look no more.
#[test]
fn quiet_rings_leave_the_turns_and_are_heard() {
    for layout in LAYOUTS {
        let net = Setup { ports: 2 + QUIET_GUESTS, ..Setup::default() }.start();
        let mut guests: Vec<_> = (0..2 + QUIET_GUESTS).map(|index| net.plug(index, Options::new(layout))).collect();
        introduce(&mut guests);
        let counters = net.switch.workers()[0].counters.clone();
        beside_traffic(&net, &mut guests, |quiet| {
            let (armed, _) = (QUIET_GUESTS as u32, ());
            let is_so = || {
                let (are_armed, polled) = counters.rings();
                // Guest 1 only listens.
                are_armed >= armed && polled <= 2
            };
            assert!(eventually(is_so), "{:?} are armed and polled", counters.rings());
            let (mut random, mut slowest) = (1u64, Duration::ZERO);
            for round in 0..ROUNDS {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                thread::sleep(Duration::from_micros(700 + (random >> 33) % 600));
                let (from, to) = ((round % 2) as usize, 1 - (round % 2) as usize);
                let begun = Instant::now();
                quiet[from].send(&frame(station(2 + to), station(2 + from), 60, round));
                assert!(quiet[to].receive().is_some(), "round {round}: a kick is lost");
                slowest = slowest.max(begun.elapsed());
            }
            eprintln!("{layout:?}: the slowest of {ROUNDS} took {slowest:?}");
        });
    }
}

/// With nothing to do, all rings are armed and the worker sleeps; what wakes it is one guest's matter.
#[test]
fn a_worker_that_is_woken_looks_at_who_woke_it() {
    let net = Setup { ports: QUIET_GUESTS, ..Setup::default() }.start();
    let mut guests = net.plug_all(LAYOUTS[0]);
    introduce(&mut guests);
    let counters = net.switch.workers()[0].counters.clone();
    let all = QUIET_GUESTS as u32;
    assert!(eventually(|| counters.rings() == (all, 0)), "{:?}", counters.rings());
    let asleep = counters.iterations(Mode::Sleep);
    for n in 0..50 {
        passes(&mut guests, 3, 4, 60 + n);
        assert!(eventually(|| counters.rings() == (all, 0)), "{:?}", counters.rings());
    }
    assert!(counters.iterations(Mode::Sleep) >= asleep + 25, "it hardly slept");
    guests[5].send(&frame(BROADCAST, station(5), 60, 1));
    for guest in (0..QUIET_GUESTS).filter(|&guest| guest != 5) {
        assert!(guests[guest].receive().is_some());
    }
    net.assert_balances();
}

/// A worker that is told to poll never sleeps, and asks nobody to kick.
#[test]
fn a_worker_that_polls_for_ever() {
    let placing = Workers { idle: Idle::Poll, ..Workers::default() };
    let net = Setup { ports: 2, placing, ..Setup::default() }.start();
    let mut guests = net.plug_all(LAYOUTS[0]);
    introduce(&mut guests);
    thread::sleep(Duration::from_millis(100));
    assert!(!guests[0].pairs[0].transmitq.device_wants_kick());
    let counters = &net.switch.workers()[0].counters;
    assert_eq!((counters.iterations(Mode::Sleep), counters.rings().0), (0, 0));
    passes(&mut guests, 0, 1, 100);
}
