//! The MTU of a port: what it lets through, to the byte, and what it does not, both ways.

use ringway::account::DropReason;
use ringway_testbed::driver::frame::{BROADCAST, frame};
use ringway_testbed::driver::front_end::feature;
use ringway_testbed::driver::{Guest, Options, eventually};

use crate::guests::{LAYOUTS, Net, Setup, introduce, passes, station};

const ETHERNET_HEADER: usize = 14;

fn net(mtu: u16) -> Net {
    Setup { ports: 3, mtu, ..Setup::default() }.start()
}

/// A frame with these tags, whose packet has `packet` bytes.
fn tagged(tags: &[u16], packet: usize) -> Vec<u8> {
    let plain = frame(station(1), station(0), ETHERNET_HEADER + packet, 3);
    let tags: Vec<u8> = tags.iter().flat_map(|tag| [tag.to_be_bytes(), [0, 0]].concat()).collect();
    [&plain[..12], &tags, &plain[12..]].concat()
}

/// Sends it from guest 0, and whether it comes to guest 1 as it was.
fn comes(guests: &mut [Guest], sent: &[u8]) -> bool {
    guests[0].send(sent);
    if !guests[0].settles() {
        return false;
    }
    let came = guests[1].pairs[0].receive_within(std::time::Duration::from_millis(100));
    assert!(came.is_none() || came.as_deref() == Some(sent), "it comes as something else");
    came.is_some()
}

#[test]
fn to_the_byte() {
    for layout in LAYOUTS {
        for mtu in [68, 1500, 9000] {
            let net = net(mtu);
            let mut guests = net.plug_all(layout);
            introduce(&mut guests);
            let mtu = usize::from(mtu);
            let cases: [(&[u16], _, _); 8] = [
                (&[], mtu, true),
                (&[], mtu + 1, false),
                (&[], 65_000, false),
                (&[0x8100], mtu, true),
                (&[0x8100], mtu + 1, false),
                (&[0x88a8, 0x8100], mtu, true),
                (&[0x88a8, 0x8100], mtu + 1, false),
                (&[0x8100, 0x8100, 0x8100], mtu, false),
            ];
            for (tags, packet, fits) in cases {
                let dropped = net.receive_dropped(0, DropReason::MtuExceeded);
                assert_eq!(comes(&mut guests, &tagged(tags, packet)), fits, "{mtu}: {tags:x?} {packet}");
                assert_eq!(net.receive_dropped(0, DropReason::MtuExceeded) - dropped, u64::from(!fits));
            }
            net.assert_balances();
        }
    }
}

/// Each port judges by its own: what one guest may send, another may not get.
#[test]
fn a_receiver_with_a_smaller_one() {
    for layout in LAYOUTS {
        let net = Setup { ports: 3, mtu: 9000, narrow: &[1], ..Setup::default() }.start();
        let mut guests = net.plug_all(layout);
        introduce(&mut guests);
        let too_long = || net.counters(1).transmit_dropped.get(DropReason::MtuExceeded);
        assert!(comes(&mut guests, &tagged(&[], 1500)));
        assert!(comes(&mut guests, &tagged(&[0x8100], 1500)));
        assert!(!comes(&mut guests, &tagged(&[0x8100], 1501)));
        assert!(!comes(&mut guests, &tagged(&[], 9000)));
        assert_eq!(too_long(), 2);
        // Between short ones, in one burst, to all: the short ones come, in order.
        let sent: Vec<_> =
            (0..20).map(|n| frame(BROADCAST, station(0), if n % 3 == 0 { 9014 } else { 1514 }, n)).collect();
        sent.iter().for_each(|frame| guests[0].send(frame));
        for frame in &sent {
            assert!(guests[2].receive().as_deref() == Some(&frame[..]));
            if frame.len() == 1514 {
                assert!(guests[1].receive().as_deref() == Some(&frame[..]));
            }
        }
        assert!(eventually(|| too_long() == 2 + 7));
        assert!(guests[1].hears_nothing());
        net.assert_balances();
    }
}

/// Jumbo frames into buffers of every kind: several merged ones, one large one, a chain, an indirect table.
#[test]
fn jumbo_frames_in_every_kind_of_buffer() {
    for layout in LAYOUTS {
        let merged = Options::new(layout);
        let large = Options { features: merged.features & !feature::MRG_RXBUF, buffer_len: 9100, ..merged };
        for (options, chain) in [(merged, None), (large, None), (large, Some(false)), (large, Some(true))] {
            let net = net(9000);
            let mut guests = vec![net.plug(0, Options::new(layout))];
            let buffers = if chain.is_some() { 0 } else { options.buffers };
            guests.push(net.plug(1, Options { buffers, memory_len: 16 << 20, ..options }));
            if let Some(indirect) = chain {
                for _ in 0..40 {
                    guests[1].pairs[0].post(&[12, 2048, 2048, 2048, 2048, 2048], indirect);
                }
                guests[1].pairs[0].kick();
            }
            introduce(&mut guests);
            for len in (0..50).map(|n| 9014 - n * 173) {
                passes(&mut guests, 0, 1, len);
            }
            // From a chain, too: header apart, then pieces.
            let sent = frame(station(1), station(0), 9014, 5);
            for indirect in [false, true] {
                let bytes = [&[0; 12], &sent[..]].concat();
                guests[0].pairs[0].send_cut(&bytes, &[12, 12 + 64, 4096, 8000], indirect);
                assert!(guests[1].receive().as_deref() == Some(&sent[..]), "{layout:?} {chain:?} {indirect}");
            }
            net.assert_balances();
        }
    }
}

/// So that QEMU's `host_mtu` reaches the guest.
#[test]
fn the_feature_is_offered() {
    let net = net(1500);
    let options = Options::new(LAYOUTS[0]);
    let guest = net.plug(0, Options { features: options.features | feature::MTU, ..options });
    assert_ne!(guest.options.features & feature::MTU, 0);
    assert_eq!(net.show(ringway::control::View::Ports)[0]["mtu"], 1500);
}
