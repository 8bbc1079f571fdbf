//! R16: guest memory whose file is cut off while the switch is at it. No CVE: what other switches do is die (VPP, DPDK, OVS and
//! Snabb map what they are given).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ringway_testbed::driver::frame::frame;
use ringway_testbed::driver::{Guest, Options, eventually};
use ringway_testbed::{Ringway, wait_for};

use crate::guests::{LAYOUTS, introduce, passes, station};
use crate::scene::Scene;

const SHRINKS: usize = 2;

/// Everything in `guest`'s memory is gone from the file; nothing of it may be touched here any more.
fn cut_off(guest: &Guest) {
    for (_, file) in guest.memory.regions() {
        rustix::fs::ftruncate(file, 0).unwrap();
    }
}

/// Its port goes, with its reason, and not the switch: its neighbours' frames never stop, and who comes next is served.
#[test]
fn r16_a_memory_file_that_shrinks_takes_down_its_port() {
    for layout in LAYOUTS {
        let mut scene = Scene::start(3, 0, Ringway::builder());
        let mut guests: Vec<_> = (0..3).map(|index| scene.plug(index, Options::new(layout))).collect();
        introduce(&mut guests);
        let shrinks = guests.pop().unwrap();
        let (stop, round_trips) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let traffic = scope.spawn(|| {
                let flood = frame(station(SHRINKS), station(0), 200, 7);
                while !stop.load(Ordering::Relaxed) {
                    // Both rings of the guest that shrinks are looked at, and the neighbours speak to each other.
                    guests[0].send(&flood);
                    for (from, to) in [(0, 1), (1, 0)] {
                        let sent = frame(station(to), station(from), 700, 1);
                        guests[from].send(&sent);
                        // Once the switch has forgotten the third station, what is for it is flooded.
                        let mut others = std::iter::from_fn(|| guests[to].receive().filter(|came| *came != sent));
                        assert!(others.all(|other| other == flood), "neither flooded nor sent");
                    }
                    round_trips.fetch_add(1, Ordering::Relaxed);
                }
                guests
            });
            assert!(eventually(|| round_trips.load(Ordering::Relaxed) > 20));
            cut_off(&shrinks);
            let says = || scene.ringway.show_port("vm2").unwrap()["last_error"].as_str().map(str::to_owned);
            let why = wait_for("the port's end", Duration::from_secs(20), says);
            let so_far = round_trips.load(Ordering::Relaxed);
            assert!(eventually(|| round_trips.load(Ordering::Relaxed) > so_far + 20), "{layout:?}: traffic stops");
            stop.store(true, Ordering::Relaxed);
            let mut guests = traffic.join().unwrap();
            assert!(why.unwrap().contains("shrank under us"), "{:?}", scene.ringway.show_port("vm2"));
            assert!(shrinks.front_end.closes());
            // The same memory is refused, a new guest's is not.
            let again = Guest::over(scene.listeners[SHRINKS].accept().unwrap(), Options::new(layout));
            guests.push(again.unwrap());
            introduce(&mut guests);
            passes(&mut guests, SHRINKS, 0, 64);
            passes(&mut guests, 1, SHRINKS, 1514);
        });
        assert!(scene.ringway.process().is_running());
    }
}

/// What is cut off at once, before anything runs, is found out when it is shared.
#[test]
fn r16_a_memory_file_that_is_too_short_already() {
    let scene = Scene::start(1, 0, Ringway::builder());
    let stream = scene.listeners[0].accept().unwrap();
    let mut guest = Guest::negotiated(stream, Options::new(LAYOUTS[0])).unwrap();
    cut_off(&guest);
    let Guest { front_end, memory, .. } = &mut guest;
    assert!(front_end.share(memory).is_err());
    let says = || scene.ringway.show_port("vm0").unwrap()["last_error"].as_str().map(str::to_owned);
    let why = wait_for("the port's end", Duration::from_secs(20), says).unwrap();
    assert!(why.contains("bytes beyond its file"), "{why}");
}
