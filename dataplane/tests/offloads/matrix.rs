//! Every combination of what a sender asks and what a receiver can do by itself.

use ringway_testbed::driver::front_end::feature;
use ringway_testbed::driver::{Guest, Layout, Options};

use crate::guests::{Net, introduce};
use crate::packet::{Ask, Packet, comes, send};

/// A sender that may ask for everything.
pub(crate) fn asking(options: Options) -> Options {
    Options { features: options.features | feature::HOST_OFFLOADS, memory_len: 16 << 20, ..options }
}

/// Every set of features that a receiver may have (virtio 1.2, section 5.1.3.1).
pub(crate) fn abilities() -> Vec<u64> {
    let mut sets = vec![0];
    for tso in [0, feature::GUEST_TSO4, feature::GUEST_TSO6, feature::GUEST_TSO4 | feature::GUEST_TSO6] {
        for ecn in [0, feature::GUEST_ECN] {
            for uso4 in [0, feature::GUEST_USO4] {
                for uso6 in [0, feature::GUEST_USO6] {
                    if tso != 0 || ecn == 0 {
                        sets.push(feature::GUEST_CSUM | tso | ecn | uso4 | uso6);
                    }
                }
            }
        }
    }
    sets
}

/// Packets of both versions of IP and both protocols, tagged and not, with all that is asked for them.
pub(crate) fn asks() -> Vec<(Packet, Ask)> {
    let mut asks = Vec::new();
    for v6 in [false, true] {
        for udp in [false, true] {
            for tags in 0..3 {
                let large = Packet { tags, ..Packet::new(v6, udp, 4001, 9) };
                asks.push((large.clone(), Ask::Nothing));
                asks.push((large.clone(), Ask::Checksum));
                asks.push((Packet { payload: large.payload[..5].to_vec(), ..large.clone() }, Ask::Checksum));
                asks.push((large.clone(), Ask::Segments(1448)));
                asks.push((large.clone(), Ask::Segments(4000)));
                asks.push((large.clone(), Ask::Segments(4001))); // one is all
                if !udp {
                    let large = Packet { options: 12, fin: true, ..large };
                    asks.push((large.clone(), Ask::Segments(1000)));
                    asks.push((Packet { cwr: true, options: 40, ..large }, Ask::Segments(999)));
                }
            }
        }
    }
    asks
}

fn all_pass(sender: Options, receiver: Options) {
    let net = Net::new(2);
    let mut guests = vec![net.plug(0, asking(sender)), net.plug(1, receiver)];
    assert_eq!(guests[1].options.features, receiver.features, "not all was offered");
    introduce(&mut guests);
    let mut generated = 0;
    for (packet, ask) in asks() {
        send(&mut guests[0], &packet, ask, 0, 1, &[]);
        generated += comes(&mut guests[1], &packet, ask, 0, 1) - 1;
    }
    assert!(guests[1].hears_nothing());
    assert_eq!(net.metric("ringway_generated_packets_total", &[]), generated as u64);
    // Also what is cut or summed is copied once.
    let bytes = |what: &str| net.metric(&format!("ringway_{what}_bytes_total"), &[("path", "guest_to_guest")]);
    assert_eq!(bytes("copied"), bytes("forwarded"));
    net.assert_balances();
}

#[test]
fn into_merged_buffers() {
    for (index, features) in abilities().into_iter().enumerate() {
        let (sender, receiver) = [(Layout::Packed, Layout::Split), (Layout::Split, Layout::Packed)][index % 2];
        let options = Options::new(receiver);
        let buffer_len = [700, 1526, 2048][index % 3];
        let receiver = Options { features: options.features | features, buffer_len, ..options };
        all_pass(Options::new(sender), receiver);
    }
}

#[test]
fn into_single_buffers() {
    for (index, features) in abilities().into_iter().enumerate() {
        let layout = [Layout::Packed, Layout::Split][index % 2];
        let options = Options::new(layout);
        let features = options.features & !feature::MRG_RXBUF | features;
        all_pass(options, Options { features, buffer_len: 4200, ..options });
    }
}

/// Legacy drivers have a header of ten bytes.
#[test]
fn between_legacy_drivers() {
    for features in [0, feature::GUEST_CSUM, feature::GUEST_OFFLOADS] {
        let options = Options::new(Layout::Split);
        let legacy = options.features & !(feature::VERSION_1 | feature::MRG_RXBUF);
        let sender = Options { features: legacy, ..options };
        all_pass(sender, Options { features: legacy | features, buffer_len: 4200, ..options });
    }
}

/// One frame, flooded to receivers of all abilities: each gets what it can take.
#[test]
fn flooded_to_different_receivers() {
    let abilities = abilities();
    let net = Net::new(abilities.len() + 1);
    let sender = asking(Options::new(Layout::Packed));
    let mut guests: Vec<Guest> = vec![net.plug(0, sender)];
    for (index, features) in abilities.iter().enumerate() {
        let options = Options::new([Layout::Packed, Layout::Split][index % 2]);
        guests.push(net.plug(index + 1, Options { features: options.features | features, ..options }));
    }
    for (packet, ask) in asks() {
        // To a station that nobody knows.
        send(&mut guests[0], &packet, ask, 0, 999, &[]);
        for guest in &mut guests[1..] {
            comes(guest, &packet, ask, 0, 999);
        }
    }
    net.assert_balances();
}
