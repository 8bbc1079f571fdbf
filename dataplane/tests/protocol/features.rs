//! What is offered, what is masked, and what may be taken of it.

use ringway_config::Feature;
use ringway_testbed::driver::front_end::feature;
use ringway_testbed::driver::{FrontEnd, Layout, Options};

use crate::guests::{Net, Setup, introduce, passes};

const OFFERED: u64 = feature::MTU
    | feature::MRG_RXBUF
    | feature::CTRL_VQ
    | 1 << 18 // CTRL_RX
    | feature::GUEST_ANNOUNCE
    | feature::MQ
    | feature::INDIRECT_DESC
    | feature::EVENT_IDX
    | feature::PROTOCOL_FEATURES
    | feature::VERSION_1
    | feature::RING_PACKED
    | feature::IN_ORDER
    | feature::HOST_OFFLOADS
    | feature::GUEST_OFFLOADS;

/// NOTIFY_ON_EMPTY, of before virtio 1.0.
const NOT_OFFERED: u64 = 1 << 24;

fn offered(mask: &[Feature]) -> u64 {
    let net = Setup { ports: 1, mask, ..Setup::default() }.start();
    let mut front_end = FrontEnd::from_stream(net.listeners[0].accept().unwrap()).unwrap();
    front_end.offered().unwrap()
}

#[test]
fn offered_is_what_is_implemented() {
    assert_eq!(offered(&[]), OFFERED, "bits {:#x}", offered(&[]));
    assert_eq!(OFFERED & (NOT_OFFERED | feature::HOST_UFO), 0);
}

#[test]
fn a_mask_takes_away_one_feature() {
    for (word, bits) in [
        (Feature::Packed, feature::RING_PACKED),
        (Feature::MrgRxbuf, feature::MRG_RXBUF),
        (Feature::IndirectDesc, feature::INDIRECT_DESC),
        (Feature::EventIdx, feature::EVENT_IDX),
        (Feature::InOrder, feature::IN_ORDER),
        (Feature::Mq, feature::MQ),
        (Feature::CtrlVq, feature::CTRL_VQ | 1 << 18),
        (Feature::GuestAnnounce, feature::GUEST_ANNOUNCE),
        // And what needs it.
        (Feature::Csum, feature::HOST_OFFLOADS),
        (Feature::GuestCsum, feature::GUEST_OFFLOADS),
        (Feature::HostTso4, feature::HOST_TSO4),
        (Feature::GuestUso6, feature::GUEST_USO6),
    ] {
        assert_eq!(offered(&[word]), OFFERED & !bits, "{word:?}");
    }
    assert_eq!(offered(&[Feature::Packed]) >> 34 & 1, 0);
}

/// A guest that would like packed rings gets split ones where they are masked, and frames go.
#[test]
fn masked_packed_rings_are_split_rings() {
    let net = Setup { ports: 2, mask: &[Feature::Packed], ..Setup::default() }.start();
    let mut guests = net.plug_all(Layout::Packed);
    assert_eq!(guests[0].options.layout(), Layout::Split);
    introduce(&mut guests);
    passes(&mut guests, 0, 1, 1514);
    assert_eq!(net.metric("ringway_vhost_info", &[("port", "vm0"), ("ring", "split")]), 1);
}

#[test]
fn protocol_features_and_their_numbers() {
    let net = Net::new(1);
    let mut front_end = FrontEnd::from_stream(net.listeners[0].accept().unwrap()).unwrap();
    front_end.offered().unwrap();
    // MQ, REPLY_ACK, CONFIGURE_MEM_SLOTS
    assert_eq!(front_end.negotiate_protocol().unwrap().bits(), 1 << 0 | 1 << 3 | 1 << 15);
    assert_eq!(front_end.queue_num().unwrap(), 128);
    assert_eq!(front_end.memory_slots().unwrap(), 32);
}

/// R6: the connection is closed, and nothing else.
/// Class of CVE-2020-10722, CVE-2020-10723 and CVE-2021-3839.
#[test]
fn r06_a_feature_that_was_not_offered() {
    let net = Setup { ports: 3, mask: &[Feature::Packed], ..Setup::default() }.start();
    let mut guests = vec![net.plug(0, Options::new(Layout::Split)), net.plug(1, Options::new(Layout::Split))];
    introduce(&mut guests);
    for bits in [feature::RING_PACKED, NOT_OFFERED, 1 << 63] {
        let mut front_end = FrontEnd::from_stream(net.listeners[2].accept().unwrap()).unwrap();
        let taken = front_end.offered().unwrap() | bits;
        front_end.negotiate_protocol().unwrap();
        assert!(front_end.set_features(taken).is_err(), "{bits:#x}");
        assert!(front_end.closes());
        passes(&mut guests, 0, 1, 64);
    }
    assert!(net.port(2).last_error().unwrap().contains("not offered"));
    // And who comes next, and behaves, is welcome.
    guests.push(net.plug(2, Options::new(Layout::Split)));
    introduce(&mut guests);
    passes(&mut guests, 2, 0, 64);
}

/// Without VERSION_1 and mergeable buffers the header has 10 bytes (virtio 1.2, section 5.1.6.1), and without protocol
/// features rings are enabled from the start.
#[test]
fn a_guest_of_the_old_kind() {
    let net = Net::new(2);
    let mut guests = vec![
        net.plug(0, Options { features: 0, ..Options::new(Layout::Split) }),
        net.plug(1, Options::new(Layout::Packed)),
    ];
    assert_eq!((guests[0].pairs[0].header_len(), guests[1].pairs[0].header_len()), (10, 12));
    introduce(&mut guests);
    for len in [60, 128, 129, 1514] {
        passes(&mut guests, 0, 1, len);
        passes(&mut guests, 1, 0, len);
    }
}
