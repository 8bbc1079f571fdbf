//! Where stations are: learnt, moved, held, counted, forgotten.

use ringway::account::DropReason;
use ringway::control::View;
use ringway_config::{BridgePolicy, Flood, PortPolicy, StaticMac};
use ringway_testbed::driver::frame::{BROADCAST, frame, mac};
use ringway_testbed::driver::{Options, eventually};

use crate::frames::silent;
use crate::guests::{LAYOUTS, Setup, cpus, introduce, passes, station};

/// After the first frame of a host not one more to it is flooded, whichever worker asks, and however often it moves.
#[test]
fn flooded_once_and_found_at_once() {
    for workers in [1, 2.min(cpus())] {
        let net = Setup { ports: 4, workers, ..Setup::default() }.start();
        let mut guests: Vec<_> = (0..4).map(|index| net.plug(index, Options::new(LAYOUTS[0]))).collect();
        introduce(&mut guests);
        // Flows to the station from everywhere, to be ended by its moves.
        for round in 0..40u64 {
            let at = 1 + (round % 3) as usize;
            let asked = frame(station(0), mac(500), 64, round);
            guests[at].send(&asked);
            assert!(guests[0].receive().as_deref() == Some(&asked[..]));
            for from in (0..4).filter(|&from| from != at) {
                let sent = frame(mac(500), station(from), 80, round * 10 + from as u64);
                guests[from].send(&sent);
                assert!(guests[at].receive().as_deref() == Some(&sent[..]), "round {round} from {from}");
            }
        }
        assert!(silent(&mut guests), "something was flooded");
        assert_eq!(net.metric("ringway_mac_moves_total", &[]), 39);
        assert_eq!(net.metric("ringway_extra_copies_packets_total", &[]), 4 * 2);
        net.assert_balances();
    }
}

/// One that moves all the time costs nobody else a verdict.
#[test]
fn a_flapping_station_ends_no_other_verdicts() {
    let policies = [PortPolicy { mac_moves_per_second: 100_000, ..PortPolicy::default() }, PortPolicy::default()];
    let policies = [policies[0].clone(), policies[0].clone(), policies[1].clone(), policies[1].clone()];
    let net = Setup { ports: 4, policies: &policies, ..Setup::default() }.start();
    let mut guests = net.plug_all(LAYOUTS[0]);
    introduce(&mut guests);
    passes(&mut guests, 2, 3, 64);
    let misses = || net.metric("ringway_flow_lookups_total", &[("result", "miss")]);
    let before = misses();
    for round in 0..200usize {
        let to = round % 2;
        guests[to].send(&frame(station(1 - to), mac(500), 64, round as u64));
        assert!(guests[1 - to].receive().is_some());
        passes(&mut guests, 2, 3, 64);
    }
    // Those of the flapping station itself, and no more.
    assert_eq!(misses() - before, 200);
    net.assert_balances();
}

/// Moves beyond the limit do not happen, and are counted with who wanted them; the station stays, and so does its traffic.
#[test]
fn moves_are_limited() {
    let policies = vec![PortPolicy { mac_moves_per_second: 5, ..PortPolicy::default() }; 3];
    let net = Setup { ports: 3, policies: &policies, ..Setup::default() }.start();
    let mut guests = net.plug_all(LAYOUTS[0]);
    introduce(&mut guests);
    for round in 0..100 {
        guests[2].send(&frame(station(0), station(1), 64, round));
        guests[1].send(&frame(station(0), station(1), 64, round));
        assert!(eventually(|| {
            guests[2].pairs[0].reclaim();
            guests[1].pairs[0].reclaim();
            guests[2].pairs[0].in_flight() + guests[1].pairs[0].in_flight() == 0
        }));
    }
    let refused = net.receive_dropped(2, DropReason::MacMoveLimit);
    assert!(refused >= 80, "{refused}");
    // Who takes back what is its own is never refused.
    assert_eq!(net.receive_dropped(1, DropReason::MacMoveLimit), 0);
    passes_to(&mut guests, 0, 1);
    net.assert_balances();
}

fn passes_to(guests: &mut [ringway_testbed::driver::Guest], from: usize, to: usize) {
    while guests[to].pairs[0].try_receive().is_some() {}
    while guests[from].pairs[0].try_receive().is_some() {}
    passes(guests, from, to, 77);
}

/// A static station neither moves nor ages nor goes with its guest; who pretends to be it is dropped.
#[test]
fn static_stations_stay() {
    let held = StaticMac { mac: mac(500), vlan: 0 };
    let policies = [PortPolicy { static_macs: vec![held], ..PortPolicy::default() }];
    let net = Setup { ports: 3, policies: &policies, ..Setup::default() }.start();
    let mut guests = net.plug_all(LAYOUTS[0]);
    // Nobody has to have spoken.
    let sent = frame(mac(500), station(1), 64, 1);
    guests[1].send(&sent);
    assert!(guests[0].receive().as_deref() == Some(&sent[..]));
    guests[2].send(&frame(BROADCAST, mac(500), 64, 1));
    assert!(eventually(|| net.receive_dropped(2, DropReason::MacHeld) == 1));
    assert!(silent(&mut guests));
    let shown = net.show(View::Macs);
    let entry = shown.as_array().unwrap().iter().find(|entry| entry["static"] == true).unwrap();
    assert_eq!((&entry["port"], &entry["age_seconds"]), (&"vm0".into(), &serde_json::Value::Null));
    drop(guests.remove(0));
    assert!(eventually(|| net.port(0).state() == ringway::guest::PortState::Connecting));
    guests[0].send(&sent);
    assert!(eventually(|| net.receive_dropped(1, DropReason::ReceiverStopped) == 1), "it is not flooded either");
    net.assert_balances();
}

/// A port that has as many stations as it may gets no more, its culprit's frames are dropped, and others have room.
#[test]
fn stations_behind_a_port_are_limited() {
    let policies = [PortPolicy { macs_max: 10, ..PortPolicy::default() }];
    let net = Setup { ports: 2, policies: &policies, ..Setup::default() }.start();
    let mut guests = net.plug_all(LAYOUTS[0]);
    introduce(&mut guests);
    for n in 0..50 {
        guests[0].send(&frame(station(1), mac(1000 + n), 64, 0));
    }
    assert!(eventually(|| net.receive_dropped(0, DropReason::MacLimit) == 41));
    assert_eq!(net.metric("ringway_port_mac_entries", &[("port", "vm0")]), 10);
    for n in 0..50 {
        guests[1].send(&frame(station(0), mac(2000 + n), 64, 0));
        assert!(guests[0].receive().is_some());
    }
    net.assert_balances();
}

/// Where the bridge is full nobody is dropped, and everything goes to all.
#[test]
fn stations_on_a_bridge_are_limited() {
    let bridge = BridgePolicy { macs_max: 2, ..BridgePolicy::default() };
    let net = Setup { ports: 3, bridge, ..Setup::default() }.start();
    let mut guests = net.plug_all(LAYOUTS[0]);
    introduce(&mut guests);
    let sent = frame(station(2), station(0), 64, 5);
    guests[0].send(&sent);
    for other in [1, 2] {
        assert!(guests[other].receive().as_deref() == Some(&sent[..]));
    }
    assert!(net.metric("ringway_mac_learn_refused_total", &[]) >= 1);
    passes(&mut guests, 2, 0, 64);
    net.assert_balances();
}

/// What was learnt behind a guest is gone with it, with all flows to it, at once.
#[test]
fn a_guest_that_goes_is_forgotten_at_once() {
    let net = Setup { ports: 3, ..Setup::default() }.start();
    let mut guests = net.plug_all(LAYOUTS[0]);
    introduce(&mut guests);
    passes(&mut guests, 0, 1, 64);
    drop(guests.remove(1));
    assert!(eventually(|| net.metric("ringway_port_mac_entries", &[("port", "vm1")]) == 0));
    // Not forwarded to a port where nobody is: flooded, as to any unknown.
    let sent = frame(station(1), station(0), 64, 5);
    guests[0].send(&sent);
    assert!(guests[1].receive().as_deref() == Some(&sent[..]));
    assert_eq!(net.receive_dropped(0, DropReason::ReceiverStopped), 0);
    net.assert_balances();
}

/// What a bridge is told not to flood it drops, and says so.
#[test]
fn floods_can_be_switched_off() {
    let destinations = [mac(900), BROADCAST, [1, 0, 0x5e, 0, 0, 1]];
    for (n, off) in destinations.into_iter().enumerate() {
        let flood = Flood { unknown_unicast: n != 0, broadcast: n != 1, multicast: n != 2 };
        let bridge = BridgePolicy { flood, ..BridgePolicy::default() };
        let net = Setup { ports: 2, bridge, ..Setup::default() }.start();
        let mut guests = net.plug_all(LAYOUTS[0]);
        for destination in destinations {
            let sent = frame(destination, station(0), 64, 0);
            guests[0].send(&sent);
            if destination != off {
                assert!(guests[1].receive().as_deref() == Some(&sent[..]), "{destination:x?}");
            }
        }
        assert!(eventually(|| net.receive_dropped(0, DropReason::FloodOff) == 1));
        assert!(silent(&mut guests));
        net.assert_balances();
    }
}

/// Frames for the next hop only stop here, unless the bridge is told otherwise.
#[test]
fn link_local_groups() {
    for forward_link_local in [false, true] {
        let bridge = BridgePolicy { forward_link_local, ..BridgePolicy::default() };
        let net = Setup { ports: 2, bridge, ..Setup::default() }.start();
        let mut guests = net.plug_all(LAYOUTS[0]);
        for last in [0, 2, 0x0e, 0x0f] {
            let sent = frame([1, 0x80, 0xc2, 0, 0, last], station(0), 64, 0);
            guests[0].send(&sent);
            if forward_link_local {
                assert!(guests[1].receive().as_deref() == Some(&sent[..]));
            }
        }
        let passes = frame([1, 0x80, 0xc2, 0, 0, 0x10], station(0), 64, 0);
        guests[0].send(&passes);
        assert!(guests[1].receive().as_deref() == Some(&passes[..]));
        assert_eq!(net.receive_dropped(0, DropReason::LinkLocal), if forward_link_local { 0 } else { 4 });
        net.assert_balances();
    }
}
