//! Stopping, starting again where it stopped, going away in the middle, coming back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringway::control::View;
use ringway::guest::PortState;
use ringway_testbed::driver::frame::{BROADCAST, frame};
use ringway_testbed::driver::{Guest, Layout, Options, PATIENCE, eventually};

use crate::guests::{LAYOUTS, Net, Setup, cpus, introduce, passes, station};

/// GET_VRING_BASE says where the device stands, on a packed ring with both halves and their wrap counters; from there on the
/// rings go on, with what was made available in between.
#[test]
fn a_pair_goes_on_where_it_stopped() {
    for (layout, size) in [(Layout::Packed, 255), (Layout::Packed, 256), (Layout::Split, 256)] {
        let net = Net::new(2);
        let options = Options { size, ..Options::new(layout) };
        let mut guests = vec![net.plug(0, options), net.plug(1, options)];
        introduce(&mut guests);
        let mut wraps = [false; 2];
        for round in 0..12 {
            for n in 0..67 {
                passes(&mut guests, 0, 1, 60 + round + n);
                passes(&mut guests, 1, 0, 60 + round + n);
            }
            let stopped = guests[0].stop(0).unwrap();
            assert_eq!(net.port(0).state(), PortState::Connected);
            guests[0].pairs[0].collect();
            let pair = &guests[0].pairs[0];
            assert_eq!(stopped, [pair.receiveq.base(), pair.transmitq.base()], "{layout:?} {size} round {round}");
            if layout == Layout::Packed {
                assert_eq!(stopped.map(|base| base >> 16), stopped.map(|base| base & 0xffff), "the two halves");
                wraps[usize::from(stopped[1] & 0x8000 != 0)] = true;
            }
            // Sent while it is stopped, and taken afterwards.
            let waits = frame(station(1), station(0), 99, round as u64);
            guests[0].send(&waits);
            assert!(guests[1].hears_nothing());
            guests[0].start(0).unwrap();
            assert!(guests[1].receive().as_deref() == Some(&waits[..]));
        }
        assert!(layout == Layout::Split || wraps == [true; 2], "the wrap counter was never the other");
        net.assert_balances();
    }
}

/// R10: a driver that is loaded anew makes new rings at other addresses, perhaps in the other layout.
/// R10, without a CVE: DPDK 1846fe767f, rings of the driver before.
#[test]
fn r10_a_driver_is_loaded_anew() {
    let net = Net::new(2);
    let mut guests = net.plug_all(Layout::Packed);
    introduce(&mut guests);
    for round in 0..6 {
        let layout = LAYOUTS[round % 2];
        passes(&mut guests, 0, 1, 60 + round);
        guests[0].stop(0).unwrap();
        // The connection stands; features, memory and rings are all told again.
        let options = Options { size: 64 << (round % 3), ..Options::new(layout) };
        let mut front_end = guests.remove(0).front_end;
        front_end.set_features(options.features).unwrap();
        let mut fresh = Guest::renewed(front_end, options).unwrap();
        fresh.start_all().unwrap();
        guests.insert(0, fresh);
        introduce(&mut guests);
        passes(&mut guests, 1, 0, 60 + round);
    }
    net.assert_balances();
}

/// R9: a guest goes in the middle of traffic in both directions, and comes back with the memory and rings that it had. Its
/// neighbours notice nothing; of what comes to it, all is what was sent, in order.
fn goes_in_the_middle_of_traffic(workers: usize) {
    for layout in LAYOUTS {
        // Guests are dealt out to the workers in turn: who goes and who sends are on different ones, the two neighbours on the
        // same. The neighbours have a bridge of their own, so that they hear nothing of what is flooded meanwhile.
        let net = Setup { ports: 5, apart: &[0, 1, 2], workers, ..Setup::default() }.start();
        let mut guests = net.plug_all(layout);
        let (neighbours, [goes, sender]) = guests.split_at_mut(3) else { unreachable!("there are five") };
        introduce(neighbours);
        let stop = AtomicBool::new(false);
        let end = Instant::now() + PATIENCE;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut number = 0u64;
                while !stop.load(Ordering::Relaxed) && Instant::now() < end {
                    let mut next = frame(station(3), station(4), 80, 0);
                    next[14..22].copy_from_slice(&number.to_be_bytes());
                    number += u64::from(sender.pairs[0].try_send(&next));
                    while sender.pairs[0].try_receive().is_some() {}
                }
            });
            let mut last = None;
            for round in 0..8 {
                // Heard from, so that frames come to it and not to all.
                goes.send(&frame(station(4), station(3), 60, round));
                for _ in 0..300 {
                    let came = goes.receive().unwrap_or_else(|| panic!("round {round}: nothing comes"));
                    let number = u64::from_be_bytes(came[14..22].try_into().unwrap());
                    assert!(last.is_none_or(|last| number > last), "round {round}: {number} after {last:?}");
                    last = Some(number);
                    goes.pairs[0].try_send(&frame(station(4), station(3), 60, round));
                }
                passes(neighbours, 0, 2, 64);
                goes.replug(&net.listeners[3]).unwrap();
                passes(neighbours, 2, 0, 64);
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(net.metric("ringway_vhost_connects_total", &[("port", "vm3")]), 9);
        net.assert_balances();
    }
}

/// R9, without a CVE: DPDK 73ea44370d and 21d9fb6bad, use after free at the end of a connection.
#[test]
fn r09_a_guest_goes_in_the_middle_of_traffic_and_comes_back() {
    goes_in_the_middle_of_traffic(1);
}

/// With the guests dealt out to two workers.
#[test]
fn a_guest_goes_in_the_middle_of_handed_traffic_and_comes_back() {
    if cpus() >= 2 {
        goes_in_the_middle_of_traffic(2);
    }
}

/// A guest's first frame goes out as soon as its rings run, and the answer, which may come at once, finds the way back.
#[test]
fn the_first_frame_can_be_answered() {
    for layout in LAYOUTS {
        let net = Net::new(2);
        let mut neighbour = net.plug(1, Options::new(layout));
        for round in 0..40 {
            let stream = net.listeners[0].accept().unwrap();
            let mut guest = Guest::negotiated(stream, Options::new(layout)).unwrap();
            // Made available before the device knows of the ring.
            guest.send(&frame(BROADCAST, station(0), 64, round));
            std::thread::scope(|scope| {
                let answers = scope.spawn(|| {
                    // Without a pause: whoever answers at once is who is not to be missed.
                    let end = Instant::now() + PATIENCE;
                    while neighbour.pairs[0].try_receive().is_none() {
                        assert!(Instant::now() < end, "round {round}: nothing is heard");
                    }
                    neighbour.send(&frame(station(0), station(1), 64, round));
                });
                guest.front_end.share(&guest.memory).unwrap();
                // Before it is started: what is sent by a disabled ring is thrown away.
                guest.enable(0, true).unwrap();
                guest.start(0).unwrap();
                answers.join().unwrap();
            });
            let answer = guest.pairs[0].receive_within(Duration::from_secs(2));
            assert!(answer.is_some(), "round {round}: {}", net.show(View::Ports)[1]["dropped"]);
            guest.front_end.hang_up();
        }
    }
}

fn passes_between(guests: &mut [Guest]) {
    introduce(guests);
    passes(guests, 0, 1, 64);
    passes(guests, 1, 0, 64);
}

/// A guest that is gone is not behind its port any more: what it was known by is forgotten, and its state is seen.
#[test]
fn a_guest_that_is_gone_is_forgotten() {
    for layout in LAYOUTS {
        let net = Net::new(3);
        let mut guests = net.plug_all(layout);
        introduce(&mut guests);
        assert_eq!(net.metric("ringway_mac_entries", &[]), 3);
        guests.pop().unwrap().front_end.hang_up();
        assert!(eventually(|| net.port(2).running().is_empty()));
        assert!(eventually(|| net.metric("ringway_mac_entries", &[]) == 2));
        // To it, and to nobody else's station: flooded to who is there.
        let sent = frame(station(2), station(0), 64, 1);
        guests[0].send(&sent);
        assert!(guests[1].receive().as_deref() == Some(&sent[..]));
        // It may come back as somebody who knows only the other layout.
        let other = if layout == Layout::Packed { Layout::Split } else { Layout::Packed };
        guests.push(net.plug(2, Options::new(other)));
        passes_between(&mut guests);
        passes(&mut guests, 2, 0, 64);
        net.assert_balances();
    }
}

/// A guest that gives no eventfd is looked at often enough, and is not interrupted; one that does is.
#[test]
fn a_guest_that_cannot_kick() {
    for layout in LAYOUTS {
        let net = Net::new(2);
        let mut guests =
            vec![net.plug(0, Options { kicks: false, ..Options::new(layout) }), net.plug(1, Options::new(layout))];
        introduce(&mut guests);
        for n in 0..5 {
            // Long enough for the worker to fall asleep.
            std::thread::sleep(Duration::from_millis(20));
            passes(&mut guests, 0, 1, 60 + n);
            passes(&mut guests, 1, 0, 60 + n);
        }
        let call = guests[1].pairs[0].receive_bells.call.as_ref().unwrap();
        assert!(ringway_testbed::driver::front_end::rung(call) > 0);
    }
}

/// A worker that sleeps is woken by each kick: none is missed between the last look and falling asleep.
#[test]
fn no_kick_is_missed() {
    for layout in LAYOUTS {
        let net = Net::new(2);
        let mut guests = net.plug_all(layout);
        introduce(&mut guests);
        for n in 0..400u64 {
            // About as long as a worker looks around before it sleeps.
            std::thread::sleep(Duration::from_micros(900 + n * 7 % 300));
            passes(&mut guests, 0, 1, 60 + n as usize);
        }
    }
}
