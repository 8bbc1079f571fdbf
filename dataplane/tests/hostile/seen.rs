//! What is left of a guest that broke a rule, and what is not touched.

use std::os::fd::AsFd;

use ringway::guest::ring::RingFault;
use ringway_testbed::driver::frame::{frame, mac};
use ringway_testbed::driver::front_end::{Bells, request, rung};
use ringway_testbed::driver::{Layout, Options, RawDescriptor, eventually};

use crate::guests::{LAYOUTS, station};
use crate::scene::{HOSTILE, On, Scene};

/// What was made available before the bad descriptor is delivered, and given back; what comes after it is not.
#[test]
fn frames_before_the_bad_one() {
    for layout in LAYOUTS {
        let mut scene = Scene::new(layout, On::Transmitq);
        scene.hostile.stop(0).unwrap();
        for n in 0..10 {
            scene.hostile.send(&frame(station(0), station(HOSTILE), 60, n));
        }
        let bad = [ringway_testbed::driver::Piece { address: 0, len: 100, writable: false }];
        scene.hostile.pairs[0].transmitq.add(&bad, false).unwrap();
        for n in 10..20 {
            scene.hostile.send(&frame(station(0), station(HOSTILE), 60, n));
        }
        scene.hostile.start(0).unwrap();
        for n in 0..10 {
            assert!(
                scene.neighbours[0].receive() == Some(frame(station(0), station(HOSTILE), 60, n)),
                "{layout:?} {n}"
            );
        }
        let Scene { hostile, .. } = &mut scene;
        assert!(eventually(|| {
            hostile.pairs[0].reclaim();
            hostile.pairs[0].in_flight() == 10
        }));
        assert!(scene.neighbours[0].hears_nothing());
        scene.assert_broken(RingFault::BadAddress);
    }
}

/// Frames for which there are good buffers before the bad one are delivered.
#[test]
fn buffers_before_the_bad_one() {
    for layout in LAYOUTS {
        let mut scene = Scene::new(layout, On::Receiveq);
        for _ in 0..3 {
            scene.hostile.pairs[0].post(&[2048], false);
        }
        let bad = [ringway_testbed::driver::Piece { address: 0, len: 2048, writable: true }];
        scene.hostile.pairs[0].receiveq.add(&bad, false).unwrap();
        for n in 0..3 {
            let sent = frame(station(HOSTILE), station(1), 60, n);
            scene.neighbours[1].send(&sent);
            // Taken from the ring without being posted again, so that the bad one is next.
            let pair = &mut scene.hostile.pairs[0];
            let mut used = None;
            assert!(eventually(|| {
                used = pair.receiveq.used();
                used.is_some()
            }));
            assert_eq!(used.unwrap().len, 72);
        }
        scene.provoke();
        scene.assert_broken(RingFault::BadAddress);
    }
}

/// A pair that stands still does not stop its siblings.
#[test]
fn the_other_pair_goes_on() {
    for layout in LAYOUTS {
        let mut scene = Scene::with(On::Transmitq, Options { pairs: 2, ..Options::new(layout) });
        scene.offer(&[RawDescriptor { address: 0, ..scene.raw(0) }]);
        let net = &scene.net;
        assert!(eventually(|| net.counters(HOSTILE).fault() == Some(RingFault::BadAddress)));
        assert_eq!(net.port(HOSTILE).counters(1).fault(), None);
        let sent = frame(station(1), station(HOSTILE), 64, 0);
        scene.hostile.pairs[1].send(&sent);
        assert!(scene.neighbours[1].receive() == Some(sent));
        // Flows that are spread to the good pair come, the others are counted.
        for flow in 0..64 {
            scene.neighbours[0].send(&frame(station(HOSTILE), mac(3000 + flow), 64, 0));
        }
        let came = std::iter::from_fn(|| scene.hostile.pairs[1].receive_within(std::time::Duration::from_millis(300)));
        let came = came.count() as u64;
        let lost = scene.net.counters(HOSTILE).transmit_dropped.total();
        assert!((8..=56).contains(&came) && came + lost == 64, "{came} came, {lost} are counted as lost");
        scene.neighbours_talk();
        scene.net.assert_balances();
    }
}

/// Each virtqueue has an eventfd of its own by which its front end hears that it is broken (SET_VRING_ERR).
#[test]
fn the_broken_ring_rings_its_own_bell() {
    for layout in LAYOUTS {
        for on in On::BOTH {
            let mut scene = Scene::new(layout, on);
            // Only one of the two rings has such an eventfd.
            let silent = u8::from(on == On::Receiveq);
            scene.hostile.front_end.set_fd(request::SET_VRING_ERR, silent, None).unwrap();
            let bells = Bells::new(true).unwrap();
            scene.hostile.front_end.set_fd(request::SET_VRING_ERR, 1 - silent, Some(bells.error.as_fd())).unwrap();
            scene.offer(&[RawDescriptor { address: 0, ..scene.raw(0) }]);
            let net = &scene.net;
            assert!(eventually(|| net.counters(HOSTILE).fault().is_some()));
            let rings =
                ringway_testbed::driver::wait::within(std::time::Duration::from_secs(1), || rung(&bells.error) > 0);
            assert!(rings, "{layout:?} {on:?}: the front end is not told");
        }
    }
}

/// A message about a pair that stands still does not make its fault go away unseen: it is there again at once.
#[test]
fn a_broken_pair_that_is_set_up_again_as_it_is() {
    for layout in LAYOUTS {
        let mut scene = Scene::new(layout, On::Transmitq);
        scene.offer(&[RawDescriptor { address: 0, ..scene.raw(0) }]);
        for _ in 0..5 {
            let net = &scene.net;
            assert!(eventually(|| net.counters(HOSTILE).fault() == Some(RingFault::BadAddress)));
            scene.hostile.front_end.set_fd(request::SET_VRING_CALL, 1, None).unwrap();
        }
        scene.assert_broken(RingFault::BadAddress);
    }
}

/// A driver that puts the bad descriptor right and is started anew goes on.
#[test]
fn a_driver_that_resets_its_device() {
    for layout in [Layout::Packed, Layout::Split] {
        let mut scene = Scene::new(layout, On::Transmitq);
        scene.offer(&[RawDescriptor { address: 0, ..scene.raw(0) }]);
        let net = &scene.net;
        assert!(eventually(|| net.counters(HOSTILE).fault().is_some()));
        scene.hostile.stop(0).unwrap();
        let Scene { net, mut neighbours, hostile, .. } = scene;
        let mut front_end = hostile.front_end;
        front_end.set_features(hostile.options.features).unwrap();
        let mut fresh = ringway_testbed::driver::Guest::renewed(front_end, Options::new(layout)).unwrap();
        fresh.start_all().unwrap();
        assert_eq!(net.counters(HOSTILE).fault(), None);
        neighbours.push(fresh);
        crate::guests::introduce(&mut neighbours);
        crate::guests::passes(&mut neighbours, HOSTILE, 0, 64);
        crate::guests::passes(&mut neighbours, 1, HOSTILE, 64);
    }
}
