//! Who may send what, and to whom.

use ringway::account::DropReason;
use ringway_config::{IpPrefix, PortPolicy};
use ringway_testbed::driver::frame::{BROADCAST, frame, mac};
use ringway_testbed::driver::{Options, eventually};

use crate::frames::{access, arp, silent, tag, udp, with_tags};
use crate::guests::{LAYOUTS, Setup, cpus, introduce, passes, station};

fn only_macs(macs: &[[u8; 6]]) -> PortPolicy {
    PortPolicy { allowed_macs: Some(macs.to_vec()), ..PortPolicy::default() }
}

fn ips(ips: &[&str]) -> Option<Vec<IpPrefix>> {
    Some(ips.iter().map(|ip| IpPrefix::parse(ip).unwrap()).collect())
}

/// Only these stations; and nobody else may be one of them.
#[test]
fn a_guard_of_macs() {
    for workers in [1, 2.min(cpus())] {
        let net =
            Setup { ports: 3, policies: &[only_macs(&[station(0), mac(50)])], workers, ..Setup::default() }.start();
        let mut guests: Vec<_> = (0..3).map(|index| net.plug(index, Options::new(LAYOUTS[0]))).collect();
        // Before its owner has said a word, somebody else wants to be it.
        guests[2].send(&frame(BROADCAST, mac(50), 64, 0));
        assert!(eventually(|| net.receive_dropped(2, DropReason::MacHeld) == 1));
        introduce(&mut guests);
        let sent = frame(station(1), mac(50), 64, 0);
        guests[0].send(&sent);
        assert!(guests[1].receive().as_deref() == Some(&sent[..]));
        for n in 0..10 {
            guests[0].send(&frame(station(1), mac(100 + n), 64, 0));
            guests[0].send(&arp(mac(100 + n), [10, 0, 0, 1]));
            guests[2].send(&frame(BROADCAST, station(0), 64, 0));
        }
        assert!(eventually(|| net.receive_dropped(0, DropReason::GuardMac) == 20));
        assert!(eventually(|| net.receive_dropped(2, DropReason::MacHeld) == 11));
        // An ARP packet whose inside is another's.
        let mut forged = arp(station(0), [10, 0, 0, 1]);
        forged[22..28].copy_from_slice(&station(1));
        guests[0].send(&forged);
        assert!(eventually(|| net.receive_dropped(0, DropReason::GuardMac) == 21));
        assert!(silent(&mut guests));
        passes(&mut guests, 1, 0, 64);
        assert_eq!(net.metric("ringway_mac_moves_total", &[]), 0);
        assert_eq!(net.metric("ringway_mac_entries", &[]), 4);
        net.assert_balances();
    }
}

/// Only these addresses, frame by frame: the flow is the same.
#[test]
fn a_guard_of_ips() {
    for layout in LAYOUTS {
        let policy = PortPolicy { allowed_ips: ips(&["10.0.0.5"]), ..only_macs(&[station(0)]) };
        let net = Setup { ports: 2, policies: &[policy], ..Setup::default() }.start();
        let mut guests = net.plug_all(layout);
        introduce(&mut guests);
        let (good, bad) = (udp(station(1), station(0), [10, 0, 0, 5]), udp(station(1), station(0), [10, 0, 0, 6]));
        for _ in 0..20 {
            guests[0].send(&good);
            guests[0].send(&bad);
            guests[0].send(&with_tags(&bad, &[tag(7)]));
            guests[0].send(&arp(station(0), [10, 0, 0, 6]));
            assert!(guests[1].receive().as_deref() == Some(&good[..]));
        }
        assert!(eventually(|| net.receive_dropped(0, DropReason::GuardIp) == 60));
        let own = arp(station(0), [10, 0, 0, 5]);
        guests[0].send(&own);
        assert!(guests[1].receive().as_deref() == Some(&own[..]));
        assert!(silent(&mut guests));
        // What it is sent is not its fault.
        passes(&mut guests, 1, 0, 64);
        net.assert_balances();
    }
}

/// The same address may be used twice where the ports share no VLAN.
#[test]
fn a_guard_holds_in_its_own_vlans() {
    let guarded = PortPolicy { allowed_macs: Some(vec![mac(50)]), ..access(10) };
    let policies = [guarded, access(10), access(20), access(20)];
    let net = Setup { ports: 4, policies: &policies, ..Setup::default() }.start();
    let mut guests = net.plug_all(LAYOUTS[0]);
    let sent = frame(BROADCAST, mac(50), 64, 0);
    guests[1].send(&sent);
    assert!(eventually(|| net.receive_dropped(1, DropReason::MacHeld) == 1));
    guests[2].send(&sent);
    assert!(guests[3].receive().as_deref() == Some(&sent[..]));
    guests[0].send(&sent);
    assert!(guests[1].receive().as_deref() == Some(&sent[..]));
    assert!(silent(&mut guests));
    net.assert_balances();
}

/// Isolated ports hear the others, and never each other.
#[test]
fn isolated_ports() {
    for workers in [1, 2.min(cpus())] {
        let isolated = PortPolicy { isolated: true, ..PortPolicy::default() };
        let net = Setup { ports: 3, policies: &[isolated.clone(), isolated], workers, ..Setup::default() }.start();
        let mut guests: Vec<_> = (0..3).map(|index| net.plug(index, Options::new(LAYOUTS[0]))).collect();
        for from in 0..3 {
            let sent = frame(BROADCAST, station(from), 64, 0);
            guests[from].send(&sent);
            for to in (0..3).filter(|&to| to != from && (to == 2 || from == 2)) {
                assert!(guests[to].receive().as_deref() == Some(&sent[..]), "{from} to {to}");
            }
        }
        for _ in 0..3 {
            passes(&mut guests, 0, 2, 64);
            passes(&mut guests, 2, 1, 64);
            guests[0].send(&frame(station(1), station(0), 64, 0));
        }
        assert!(eventually(|| net.receive_dropped(0, DropReason::Isolated) == 3));
        assert!(silent(&mut guests));
        net.assert_balances();
    }
}

/// With nobody but isolated ones to hear it, a broadcast is lost, and counted.
#[test]
fn alone_among_the_isolated() {
    let isolated = PortPolicy { isolated: true, ..PortPolicy::default() };
    let net = Setup { ports: 2, policies: &[isolated.clone(), isolated], ..Setup::default() }.start();
    let mut guests = net.plug_all(LAYOUTS[0]);
    guests[0].send(&frame(BROADCAST, station(0), 64, 0));
    assert!(eventually(|| net.receive_dropped(0, DropReason::NoDestination) == 1));
    assert!(silent(&mut guests));
    net.assert_balances();
}
