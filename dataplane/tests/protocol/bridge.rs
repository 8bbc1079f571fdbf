//! Three guests on a bridge: who hears what, and that the accounts are right.

use std::time::Duration;

use ringway::account::DropReason;
use ringway::control::View;
use ringway_testbed::driver::frame::{BROADCAST, frame, mac};
use ringway_testbed::driver::{Options, eventually};

use crate::guests::{LAYOUTS, Net, Setup, introduce, passes, station};

/// To nobody known, and to groups: to all others. To somebody known: to that one alone.
#[test]
fn floods_and_learns() {
    for layout in LAYOUTS {
        let net = Net::new(3);
        let mut guests = net.plug_all(layout);
        let multicast = [0x01, 0, 0x5e, 0, 0, 1];
        for (n, destination) in [station(1), BROADCAST, multicast].into_iter().enumerate() {
            let sent = frame(destination, station(0), 100, n as u64);
            guests[0].send(&sent);
            for other in [1, 2] {
                assert!(guests[other].receive().as_deref() == Some(&sent[..]), "{destination:x?} to {other}");
            }
        }
        assert_eq!(net.metric("ringway_extra_copies_packets_total", &[]), 3);
        assert!(guests[0].hears_nothing(), "a frame comes back");
        // Guest 1 answers: from now on each knows where the other is, and guest 2 hears nothing of it.
        passes(&mut guests, 1, 0, 100);
        passes(&mut guests, 0, 1, 100);
        assert!(guests.iter_mut().all(|guest| guest.hears_nothing()));
        let macs = net.show(View::Macs);
        let behind =
            |mac: &str| macs.as_array().unwrap().iter().find(|entry| entry["mac"] == mac).unwrap()["port"].clone();
        assert_eq!((behind("02:00:00:00:00:01"), behind("02:00:00:00:00:02")), ("vm0".into(), "vm1".into()));
        net.assert_balances();
    }
}

/// What is flooded and what is forwarded comes to each receiver in the order in which it was sent.
#[test]
fn floods_do_not_overtake() {
    for layout in LAYOUTS {
        let net = Net::new(3);
        let mut guests = net.plug_all(layout);
        introduce(&mut guests);
        for round in 0..30u64 {
            let to: Vec<_> = (0..32)
                .map(|n| [station(1), BROADCAST, station(2), mac(900), station(1)][(n * 7 + round as usize) % 5])
                .collect();
            for (n, &destination) in to.iter().enumerate() {
                guests[0].send(&frame(destination, station(0), 80, round * 32 + n as u64));
            }
            for other in [1, 2] {
                let not_to_it = station(3 - other);
                for (n, &destination) in to.iter().enumerate().filter(|&(_, &destination)| destination != not_to_it) {
                    let came = guests[other].receive();
                    assert!(
                        came == Some(frame(destination, station(0), 80, round * 32 + n as u64)),
                        "round {round}, frame {n}"
                    );
                }
            }
        }
        net.assert_balances();
    }
}

/// To a station behind the port that the frame came from: nobody is to hear it.
#[test]
fn a_hairpin_is_dropped() {
    for layout in LAYOUTS {
        let net = Net::new(3);
        let mut guests = net.plug_all(layout);
        introduce(&mut guests);
        // A second station behind guest 0.
        guests[0].send(&frame(station(1), mac(77), 64, 0));
        assert!(guests[1].receive().is_some());
        for n in 0..5 {
            guests[0].send(&frame(mac(77), station(0), 64, n));
            guests[0].send(&frame(station(0), mac(77), 64, n));
            guests[0].send(&frame(station(0), station(0), 64, n));
        }
        assert!(eventually(|| net.receive_dropped(0, DropReason::Hairpin) == 15));
        assert!(guests.iter_mut().all(|guest| guest.hears_nothing()));
        net.assert_balances();
    }
}

/// A station that is seen behind another port is there from then on, at once and for all.
#[test]
fn a_station_moves() {
    for layout in LAYOUTS {
        let net = Net::new(3);
        let mut guests = net.plug_all(layout);
        introduce(&mut guests);
        for round in 0..6 {
            let (from, to) = (1 + round % 2, 1 + (round + 1) % 2);
            let sent = frame(mac(99), station(0), 80, round as u64);
            guests[from].send(&frame(station(0), mac(99), 60, round as u64));
            assert!(guests[0].receive().is_some());
            guests[0].send(&sent);
            assert!(guests[from].receive().as_deref() == Some(&sent[..]), "round {round}");
            assert!(guests[to].hears_nothing());
        }
        assert_eq!(net.metric("ringway_mac_moves_total", &[]), 5);
        net.assert_balances();
    }
}

/// A station that is silent is forgotten after the time that its bridge is told, and flooded to again.
#[test]
fn a_silent_station_is_forgotten() {
    for layout in LAYOUTS {
        let net = Setup { ports: 3, mac_ageing: Duration::from_secs(2), ..Setup::default() }.start();
        let mut guests = net.plug_all(layout);
        introduce(&mut guests);
        passes(&mut guests, 0, 1, 64);
        assert!(guests[2].hears_nothing());
        // Guest 0 goes on to speak, the others are silent.
        let speaks = frame(mac(0x7777), station(0), 60, 0);
        assert!(eventually(|| {
            guests[0].send(&speaks);
            std::thread::sleep(Duration::from_millis(50));
            net.metric("ringway_mac_entries", &[]) == 1
        }));
        for guest in &mut guests {
            while guest.pairs[0].try_receive().is_some() {}
        }
        let sent = frame(station(1), station(0), 64, 5);
        guests[0].send(&sent);
        for other in [1, 2] {
            let heard = std::iter::from_fn(|| guests[other].receive()).find(|frame| frame[..6] == station(1));
            assert!(heard.as_deref() == Some(&sent[..]), "guest {other}");
        }
        // Guest 0 spoke on, so it is known.
        passes(&mut guests, 1, 0, 64);
        net.assert_balances();
    }
}

/// From a group address or from nobody no frame comes.
#[test]
fn a_source_that_cannot_be() {
    for layout in LAYOUTS {
        let net = Net::new(2);
        let mut guests = net.plug_all(layout);
        introduce(&mut guests);
        for source in [BROADCAST, [0; 6], [0x01, 0, 0x5e, 1, 2, 3], [3, 0, 0, 0, 0, 1]] {
            guests[0].send(&frame(station(1), source, 64, 0));
            guests[0].send(&frame(BROADCAST, source, 64, 0));
        }
        assert!(eventually(|| net.receive_dropped(0, DropReason::InvalidSource) == 8));
        assert!(guests[1].hears_nothing());
        assert_eq!(net.metric("ringway_mac_entries", &[]), 2);
        net.assert_balances();
    }
}

/// Alone on its bridge, a guest is heard by nobody, and that is counted.
#[test]
fn nobody_else_is_there() {
    let net = Net::new(3);
    let mut guest = net.plug(0, Options::new(LAYOUTS[0]));
    guest.send(&frame(BROADCAST, station(0), 64, 0));
    guest.send(&frame(station(2), station(0), 64, 0));
    assert!(eventually(|| net.receive_dropped(0, DropReason::NoDestination) == 2));
    net.assert_balances();
}

/// A guest that has stopped its receiveq gets nothing, and its neighbours get theirs.
#[test]
fn a_receiver_that_is_stopped() {
    for layout in LAYOUTS {
        let net = Net::new(3);
        let mut guests = net.plug_all(layout);
        introduce(&mut guests);
        guests[2].enable(0, false).unwrap();
        for n in 0..4 {
            guests[0].send(&frame(station(2), station(0), 64, n));
        }
        assert!(eventually(|| net.receive_dropped(0, DropReason::ReceiverStopped) == 4));
        let to_all = frame(BROADCAST, station(0), 64, 9);
        guests[0].send(&to_all);
        assert!(guests[1].receive().as_deref() == Some(&to_all[..]));
        guests[2].enable(0, true).unwrap();
        passes(&mut guests, 0, 2, 64);
        net.assert_balances();
    }
}

/// Everything at once, floods and unicast and drops of each kind: received and extra copies are transmitted and dropped, to
/// the frame; so are bytes where nothing is dropped; and what the metrics say the control socket says, too.
#[test]
fn the_accounts_balance() {
    for layout in LAYOUTS {
        let net = Net::new(3);
        let mut guests = net.plug_all(layout);
        introduce(&mut guests);
        for n in 0..2000u64 {
            let from = (n % 3) as usize;
            let to = ((n / 3) % 3) as usize;
            let destination = match n % 11 {
                0 => BROADCAST,
                1 => mac(5000 + n as u16),
                _ => station(to),
            };
            let source = if n % 97 == 0 { BROADCAST } else { station(from) };
            let len = 14 + (n * 37 % 1500) as usize;
            guests[from].send(&frame(destination, source, len, n));
            if n % 3 == 0 {
                // Not all is read at once: some find no buffer.
                guests[from].pairs[0].try_receive();
            }
        }
        assert!(eventually(|| guests.iter_mut().all(|guest| {
            guest.pairs[0].reclaim();
            guest.pairs[0].in_flight() == 0
        })));
        net.assert_balances();
        assert_eq!(net.metric("ringway_port_receive_packets_total", &[]), 2003);
        assert!(net.metric("ringway_dropped_packets_total", &[]) > 0);
        let shown: u64 = net
            .show(View::Ports)
            .as_array()
            .unwrap()
            .iter()
            .map(|port| port["transmit_packets"].as_u64().unwrap())
            .sum();
        assert_eq!(net.metric("ringway_port_transmit_packets_total", &[]), shown);
    }
}

/// Bytes are those of frames, without virtio-net headers, and each byte that is delivered was copied once.
#[test]
fn bytes_are_counted_and_copied_once() {
    for layout in LAYOUTS {
        let net = Net::new(2);
        let mut guests = net.plug_all(layout);
        introduce(&mut guests);
        let mut bytes = 128; // two introductions
        for len in [14, 60, 128, 129, 1514, 5000] {
            passes(&mut guests, 0, 1, len);
            bytes += len as u64;
        }
        net.assert_balances();
        assert_eq!(net.metric("ringway_port_receive_bytes_total", &[]), bytes);
        assert_eq!(net.metric("ringway_port_transmit_bytes_total", &[]), bytes);
        assert_eq!(net.metric("ringway_forwarded_bytes_total", &[("path", "guest_to_guest")]), bytes);
        assert_eq!(net.metric("ringway_copied_bytes_total", &[("path", "guest_to_guest")]), bytes);
    }
}
