//! Access ports, trunks and ports that know nothing of VLANs, on one bridge.

use ringway::account::DropReason;
use ringway::control::View;
use ringway_testbed::driver::frame::{BROADCAST, frame, mac};
use ringway_testbed::driver::front_end::feature;
use ringway_testbed::driver::{Guest, NetHeader, Options, eventually};

use crate::frames::{access, silent, tag, trunk, with_tags};
use crate::guests::{LAYOUTS, Net, Setup, cpus, station};

/// Guest 0: access 10; 1: access 20; 2: trunk of 10 and 20; 3: trunk of 10 and 30, native 10; 4: as they are.
fn net(layout: ringway_testbed::driver::Layout, workers: usize) -> (Net, Vec<Guest>) {
    let policies = [access(10), access(20), trunk(&[10, 20], None), trunk(&[10, 30], Some(10))];
    let net = Setup { ports: 5, policies: &policies, workers, ..Setup::default() }.start();
    let guests = (0..5).map(|index| net.plug(index, Options { buffer_len: 2100, ..Options::new(layout) })).collect();
    (net, guests)
}

/// Sends a frame and sees who hears what; who is not listed hears nothing.
#[track_caller]
fn heard(guests: &mut [Guest], from: usize, sent: &[u8], by: &[(usize, &[u8])]) {
    guests[from].send(sent);
    for &(who, expected) in by {
        let came = guests[who].receive();
        assert!(
            came.as_deref() == Some(expected),
            "guest {who} got {:02x?}",
            came.map(|frame| frame[..24.min(frame.len())].to_vec())
        );
    }
    assert!(silent(guests), "somebody hears what is not for it");
}

/// What is flooded goes to the ports of its VLAN, each in its own way.
#[test]
fn floods_stay_in_their_vlan() {
    for layout in LAYOUTS {
        for workers in [1, 2.min(cpus())] {
            let (net, mut guests) = net(layout, workers);
            for len in [60, 123, 124, 127, 128, 129, 131, 132, 133, 1514] {
                let bare = frame(BROADCAST, station(0), len, len as u64);
                let ten = with_tags(&bare, &[[0x81, 0, 0, 10]]);
                heard(&mut guests, 0, &bare, &[(2, &ten), (3, &bare), (4, &ten)]);
                let bare = frame(BROADCAST, station(2), len, len as u64);
                let ten = with_tags(&bare, &[tag(10)]);
                heard(&mut guests, 2, &ten, &[(0, &bare), (3, &bare), (4, &ten)]);
                let twenty = with_tags(&bare, &[tag(20)]);
                heard(&mut guests, 2, &twenty, &[(1, &bare), (4, &twenty)]);
                let bare = frame(BROADCAST, station(4), len, len as u64);
                let twenty = with_tags(&bare, &[tag(20)]);
                heard(&mut guests, 4, &twenty, &[(1, &bare), (2, &twenty)]);
            }
            net.assert_balances();
        }
    }
}

/// A station is known in its VLAN only, and found there through any port.
#[test]
fn stations_are_learnt_in_their_vlan() {
    for layout in LAYOUTS {
        for workers in [1, 2.min(cpus())] {
            let (net, mut guests) = net(layout, workers);
            let hello = frame(BROADCAST, station(2), 64, 1);
            guests[2].send(&with_tags(&hello, &[tag(10)]));
            for who in [0, 3, 4] {
                assert!(guests[who].receive().is_some());
            }
            let bare = frame(station(2), station(0), 200, 2);
            heard(&mut guests, 0, &bare, &[(2, &with_tags(&bare, &[[0x81, 0, 0, 10]]))]);
            // On VLAN 20 nobody has heard of it.
            let bare = frame(station(2), station(1), 200, 3);
            let twenty = with_tags(&bare, &[[0x81, 0, 0, 20]]);
            heard(&mut guests, 1, &bare, &[(2, &twenty), (4, &twenty)]);
            let back = frame(station(0), station(2), 1400, 4);
            heard(&mut guests, 2, &with_tags(&back, &[tag(10)]), &[(0, &back)]);
            let macs = net.show(View::Macs);
            let vlans: Vec<_> = macs.as_array().unwrap().iter().map(|entry| entry["vlan"].as_u64().unwrap()).collect();
            assert_eq!(vlans, [10, 20, 10], "{macs}");
            net.assert_balances();
        }
    }
}

/// What a port takes no part in does not come in by it.
#[test]
fn what_does_not_come_in() {
    for layout in LAYOUTS {
        let (net, mut guests) = net(layout, 1);
        let bare = |from| frame(BROADCAST, station(from), 64, 0);
        for (from, tags) in [
            (0, &[tag(10)][..]), // its own, but it has no tags
            (0, &[tag(20)]),
            (0, &[tag(20), tag(10)]),
            (2, &[]), // there is no native VLAN
            (2, &[tag(0)]),
            (2, &[tag(30)]),
            (2, &[tag(4095)]),
            (3, &[tag(20)]),
        ] {
            let before = net.receive_dropped(from, DropReason::VlanNotAllowed);
            heard(&mut guests, from, &with_tags(&bare(from), tags), &[]);
            assert!(
                eventually(|| net.receive_dropped(from, DropReason::VlanNotAllowed) == before + 1),
                "{from} {tags:x?}"
            );
        }
        net.assert_balances();
    }
}

/// Priority tags, service tags and tags inside of tags.
#[test]
fn tags_inside_and_beside() {
    for layout in LAYOUTS {
        let (net, mut guests) = net(layout, 1);
        let bare = frame(BROADCAST, station(0), 300, 1);
        let service = [0x88, 0xa8, 0, 77];
        // A tag of priority only is none: it gets the VLAN and keeps the priority, or goes.
        let ten = with_tags(&bare, &[tag(10)]);
        heard(&mut guests, 0, &with_tags(&bare, &[tag(0)]), &[(2, &ten), (3, &bare), (4, &ten)]);
        // What is behind a service tag goes through unseen, with the tag.
        let wrapped = with_tags(&bare, &[service, tag(20)]);
        let ten = with_tags(&bare, &[[0x81, 0, 0, 10], service, tag(20)]);
        heard(&mut guests, 0, &wrapped, &[(2, &ten), (3, &wrapped), (4, &ten)]);
        // The outer tag is the VLAN, the inner one is content; but no trunk shows that as if it were a VLAN.
        let bare = frame(BROADCAST, station(2), 300, 1);
        let both = with_tags(&bare, &[tag(10), tag(30)]);
        heard(&mut guests, 2, &both, &[(0, &with_tags(&bare, &[tag(30)])), (3, &both), (4, &both)]);
        net.assert_balances();
    }
}

/// A tag of a priority over another tag: without the first, the frame would be in a VLAN of its sender's choice.
#[test]
fn an_access_port_sends_no_tag_behind_a_priority() {
    for layout in LAYOUTS {
        let (net, mut guests) = net(layout, 1);
        let bare = frame(BROADCAST, station(0), 100, 1);
        heard(&mut guests, 0, &with_tags(&bare, &[tag(0), tag(20)]), &[]);
        assert_eq!(net.receive_dropped(0, DropReason::VlanNotAllowed), 1);
        let ten = with_tags(&bare, &[[0x81, 0, 0xa0, 10]]);
        heard(&mut guests, 0, &with_tags(&bare, &[tag(0)]), &[(2, &ten), (3, &bare), (4, &ten)]);
        net.assert_balances();
    }
}

/// No VLAN hears frames without one, but from a port that has none either.
#[test]
fn frames_without_a_vlan() {
    let policies = [trunk(&[10], Some(10)), access(10)];
    let net = Setup { ports: 4, policies: &policies, ..Setup::default() }.start();
    let mut guests = net.plug_all(LAYOUTS[0]);
    let bare = frame(BROADCAST, station(2), 64, 0);
    heard(&mut guests, 2, &bare, &[(3, &bare)]);
    net.assert_balances();
}

/// The MTU is that of the packet, with and without a tag.
#[test]
fn the_mtu_is_without_tags() {
    let policies = [access(10), trunk(&[10], None)];
    let net = Setup { ports: 2, policies: &policies, mtu: 1500, ..Setup::default() }.start();
    let mut guests: Vec<_> = (0..2).map(|index| net.plug(index, Options::new(LAYOUTS[0]))).collect();
    let bare = frame(BROADCAST, station(0), 1514, 0);
    heard(&mut guests, 0, &bare, &[(1, &with_tags(&bare, &[[0x81, 0, 0, 10]]))]);
    let bare = frame(BROADCAST, station(1), 1514, 0);
    heard(&mut guests, 1, &with_tags(&bare, &[tag(10)]), &[(0, &bare)]);
    heard(&mut guests, 0, &frame(BROADCAST, station(0), 1515, 0), &[]);
    assert_eq!(net.receive_dropped(0, DropReason::MtuExceeded), 1);
    net.assert_balances();
}

/// A checksum that is left to the receiver begins four bytes later, or earlier; for one that does not do it, it is filled in.
#[test]
fn checksums_move_with_the_tag() {
    let policies = [access(10), trunk(&[10], None), access(10)];
    let net = Setup { ports: 3, policies: &policies, ..Setup::default() }.start();
    let layout = LAYOUTS[0];
    let usual = Options::new(layout);
    let able = Options { features: usual.features | feature::CSUM | feature::GUEST_CSUM, ..usual };
    let mut guests = [net.plug(0, able), net.plug(1, able), net.plug(2, usual)];
    let mut builder = Vec::new();
    etherparse::PacketBuilder::ethernet2(station(0), BROADCAST)
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .udp(1, 2)
        .write(&mut builder, &[7; 500])
        .unwrap();
    let whole = builder;
    // What the sender leaves in the field: the sum of the pseudo header.
    let mut left = whole.clone();
    let udp_len = (whole.len() - 34) as u32;
    let words = [0x0a00u32, 1, 0x0a00, 2, 17, udp_len];
    left[40..42].copy_from_slice(&(words.iter().sum::<u32>() as u16).to_be_bytes());
    let asks = NetHeader { flags: 1, csum_start: 34, csum_offset: 6, ..NetHeader::default() };
    guests[0].pairs[0].send_asking(asks, &left, &[]);
    let (header, came) = guests[1].receive_asking().unwrap();
    assert_eq!(header, NetHeader { csum_start: 38, ..asks });
    assert!(came == with_tags(&left, &[[0x81, 0, 0, 10]]));
    assert!(guests[2].receive().as_deref() == Some(&whole[..]), "filled in on the way");
    // And back, out of the tag.
    guests[1].pairs[0].send_asking(NetHeader { csum_start: 38, ..asks }, &with_tags(&left, &[tag(10)]), &[]);
    let (header, came) = guests[0].receive_asking().unwrap();
    assert_eq!(header, asks);
    assert!(came == left);
    assert!(guests[2].receive().as_deref() == Some(&whole[..]));
    net.assert_balances();
}

/// Unicast in a burst, tagged and not, in order.
#[test]
fn a_burst_stays_in_order() {
    for layout in LAYOUTS {
        let policies = [trunk(&[10, 20], Some(10)), access(10), trunk(&[10, 20], None)];
        let net = Setup { ports: 3, policies: &policies, ..Setup::default() }.start();
        let mut guests = net.plug_all(layout);
        for vlan in [10, 20] {
            guests[2].send(&with_tags(&frame(BROADCAST, mac(99), 64, 0), &[tag(vlan)]));
            assert!(guests[0].receive().is_some());
        }
        assert!(guests[1].receive().is_some());
        for round in 0..20u64 {
            let frames: Vec<_> = (0..32u64)
                .map(|n| {
                    let bare = frame(
                        if n % 5 == 0 { BROADCAST } else { mac(99) },
                        station(0),
                        60 + n as usize * 9,
                        round * 32 + n,
                    );
                    let (tags, shown) = match n % 3 {
                        0 => (vec![], vec![[0x81, 0, 0, 10]]),
                        1 => (vec![tag(10)], vec![tag(10)]),
                        _ => (vec![tag(20)], vec![tag(20)]),
                    };
                    (with_tags(&bare, &tags), with_tags(&bare, &shown))
                })
                .collect();
            for (sent, _) in &frames {
                guests[0].send(sent);
            }
            for (n, (_, expected)) in frames.iter().enumerate() {
                assert!(guests[2].receive().as_ref() == Some(expected), "round {round}, frame {n}");
            }
            guests[1].pairs[0].collect();
            while guests[1].pairs[0].try_receive().is_some() {}
        }
        net.assert_balances();
    }
}
