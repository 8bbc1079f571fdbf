//! NIC queues of the heap on a switch's workers, without EAL: what is moved, copied, left undone, finished and dropped.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod guests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use guests::{LAYOUTS, Net, Setup, introduce};
use ringway::account::DropReason;
use ringway::guest::PairId;
use ringway::nic::double::{SentFrame, Wire};
use ringway::nic::{Host, Port, Received, Target, TxFlags};
use ringway::packet::Abilities;
use ringway::switch::QueueRef;
use ringway_config::{PortPolicy, Vlan, VlanSet};
use ringway_testbed::driver::frame::{BROADCAST, frame, mac};
use ringway_testbed::driver::front_end::feature;
use ringway_testbed::driver::net_header::DATA_VALID;
use ringway_testbed::driver::{NetHeader, Options, eventually};

const MTU: u16 = 9000;

/// A NIC port with one queue, on the switch's worker 0.
struct Nic {
    wire: Arc<Wire>,
    port: Arc<Port>,
}

impl Nic {
    fn plug(net: &Net, index: usize, can: Abilities) -> Self {
        let (wire, port) = (Wire::new(), net.switch.nics[index].clone());
        port.link.set(true, 0);
        net.switch.attach(port.id, vec![wire.queue(&port, 0, can)]).unwrap();
        Self { wire, port }
    }

    fn sent(&self, count: usize) -> Vec<SentFrame> {
        let mut sent = Vec::new();
        assert!(eventually(|| {
            sent.extend(self.wire.take_sent());
            sent.len() >= count
        }));
        assert_eq!(sent.len(), count);
        sent
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        let counters = self.port.counters(0);
        counters.transmit_dropped.get(reason) + counters.receive_dropped.get(reason)
    }
}

/// Two NICs, each with a station that the bridge knows: 1 behind the first, 2 behind the second.
fn two(can: Abilities) -> (Net, Nic, Nic) {
    let net = Setup { nics: 2, mtu: MTU, ..Setup::default() }.start();
    let (one, two) = (Nic::plug(&net, 0, can), Nic::plug(&net, 1, can));
    one.wire.put(&frame(BROADCAST, mac(1), 60, 7), Received::Unchecked, 2048);
    two.sent(1);
    two.wire.put(&frame(mac(1), mac(2), 60, 7), Received::Unchecked, 2048);
    one.sent(1);
    (net, one, two)
}

fn payload_of(length: usize, vlan: bool, v6: bool) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2(mac(1), mac(2));
    let mut bytes = Vec::new();
    let payload: Vec<u8> = (0..length).map(|index| index as u8).collect();
    let builder = if vlan {
        let builder = builder.single_vlan(5.try_into().unwrap());
        if v6 { builder.ipv6([1; 16], [2; 16], 64) } else { builder.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64) }
    } else if v6 {
        builder.ipv6([1; 16], [2; 16], 64)
    } else {
        builder.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
    };
    builder.tcp(1, 2, 3, 1000).ack(4).write(&mut bytes, &payload).unwrap();
    bytes
}

#[test]
fn a_frame_from_nic_to_nic_is_moved_whatever_its_pieces() {
    let (net, one, two) = two(Abilities::empty());
    for (len, cut) in [(60, 2048), (1514, 2048), (9014, 2048), (1514, 100)] {
        let bytes = frame(mac(2), mac(1), len, 7);
        one.wire.put(&bytes, Received::Unchecked, cut);
        let sent = two.sent(1);
        assert_eq!((&sent[0].bytes, sent[0].segments), (&bytes, len.div_ceil(cut)), "{len} bytes");
        assert_eq!(sent[0].asked, TxFlags::NONE);
    }
    let counters = &net.switch.workers()[0].counters;
    assert_eq!(counters.nic_to_nic.forwarded_bytes.get(), 2 * 60 + 60 + 1514 + 9014 + 1514);
    assert_eq!(counters.nic_to_nic.copied_bytes.get(), 60, "the first one was flooded");
    assert_eq!((one.wire.mbufs(), two.dropped(DropReason::NicQueueFull)), (0, 0), "every mbuf came back");
    net.assert_balances();
}

#[test]
fn whatever_a_nic_runs_short_of_is_a_reason_and_is_got_over() {
    let (net, one, two) = two(Abilities::empty());
    let bytes = frame(mac(2), mac(1), 1514, 7);
    let put = |count| (0..count).for_each(|_| one.wire.put(&bytes, Received::Unchecked, 2048));
    two.wire.set_room(2);
    put(5);
    two.sent(2);
    assert!(eventually(|| two.dropped(DropReason::NicQueueFull) == 3));
    two.wire.set_room(usize::MAX);

    two.port.link.set(false, 0);
    put(4);
    assert!(eventually(|| two.dropped(DropReason::LinkDown) == 4));
    two.port.link.set(true, 0);

    // Copies want mbufs; what is moved does not.
    two.wire.set_mbufs_max(two.wire.mbufs());
    let spare = two.wire.mbufs();
    one.wire.put(&frame(BROADCAST, mac(1), 9014, 7), Received::Unchecked, 2048);
    assert!(eventually(|| two.dropped(DropReason::MempoolEmpty) == 1), "{spare} spare");
    two.wire.set_mbufs_max(usize::MAX);
    put(1);
    two.sent(1);
    one.wire.put(&frame(mac(2), mac(1), 9015, 7), Received::Unchecked, 2048);
    assert!(eventually(|| one.dropped(DropReason::MtuExceeded) == 1));
    assert!(eventually(|| one.wire.mbufs() == 0));
    net.assert_balances();

    // Taken out of use: nothing is polled, nothing sent for it; and into use again.
    net.switch.detach(two.port.id);
    one.wire.put(&frame(mac(2), mac(1), 60, 7), Received::Unchecked, 2048);
    assert!(eventually(|| one.dropped(DropReason::NoDestination) == 1));
    let two = Nic::plug(&net, 1, Abilities::empty());
    one.wire.put(&frame(BROADCAST, mac(1), 60, 7), Received::Unchecked, 2048);
    two.sent(1);
}

/// What wants to be looked at ten times a second, as LACP does, is, also by a worker that sleeps in between.
#[test]
fn an_idle_worker_looks_at_its_nics() {
    let (_net, one, _two) = two(Abilities::empty());
    std::thread::sleep(Duration::from_millis(100));
    let (before, begun) = (one.wire.polls(), Instant::now());
    std::thread::sleep(Duration::from_secs(2));
    let (polls, seconds) = (one.wire.polls() - before, begun.elapsed().as_secs_f64());
    assert!(polls as f64 > 10.0 * seconds, "{polls} times in {seconds} s");
}

/// Frames by a NIC are to go to the worker that has the rings of their guest, with the tag that they have on the NIC's wire.
#[test]
fn stations_are_led_to_the_worker_of_their_guest() {
    let trunk = |native| {
        let mut allowed = VlanSet::default();
        assert!(allowed.insert(10));
        PortPolicy { vlan: Vlan::Trunk { allowed, native }, ..PortPolicy::default() }
    };
    let access = PortPolicy { vlan: Vlan::Access(10), ..PortPolicy::default() };
    let other = PortPolicy { vlan: Vlan::Access(20), ..PortPolicy::default() };
    let plain = PortPolicy::default();
    let cases = [
        (&plain, &plain, Some(None)),
        (&access, &trunk(None), Some(Some(10))),
        (&access, &trunk(Some(10)), Some(None)),
        (&access, &plain, Some(Some(10))),
        (&access, &access, Some(None)),
        (&access, &other, None),
    ];
    for (guest, nic, tag) in cases {
        let policies = [guest.clone(), guest.clone()];
        let setup = Setup {
            ports: 2,
            nics: 1,
            workers: guests::cpus().min(2),
            policies: &policies,
            nic_policy: nic.clone(),
            ..Setup::default()
        };
        let net = setup.start();
        let mut plugged = net.plug_all(LAYOUTS[0]);
        introduce(&mut plugged);
        let mut targets = net.switch.targets(net.switch.nics[0].id);
        targets.sort_unstable();
        let worker = |port| net.switch.worker_of(QueueRef::Pair(PairId { port, index: 0 })).unwrap();
        let expected = |port: u16| tag.map(|tag| Target { mac: mac(port + 1), tag, worker: worker(port) });
        assert_eq!(targets, [0, 1].into_iter().filter_map(expected).collect::<Vec<_>>(), "{guest:?} {nic:?}");
        // A guest that has gone is led nowhere.
        drop(plugged);
        assert!(eventually(|| net.switch.targets(net.switch.nics[0].id).is_empty()));
    }
}

/// What is left undone of a frame is asked of a NIC that can, and done for one that cannot.
#[test]
fn checksums_and_segments_are_asked_for_or_made() {
    let all = Abilities::CHECKSUM | Abilities::TCP4 | Abilities::TCP6;
    for can in [Abilities::empty(), Abilities::CHECKSUM, all] {
        let (net, one, two) = two(can);
        for (vlan, v6) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut whole = payload_of(4000, vlan, v6);
            whole[..6].copy_from_slice(&mac(2));
            whole[6..12].copy_from_slice(&mac(1));
            let l4 = 14 + if vlan { 4 } else { 0 } + if v6 { 40 } else { 20 };
            let right = [whole[l4 + 16], whole[l4 + 17]];
            // As a sender leaves it: the sum of the pseudo header.
            let mut left = whole.clone();
            left[l4 + 16..l4 + 18].copy_from_slice(&pseudo(&whole, l4, v6));
            one.wire.put(&left, Received::Missing(None), 1500);
            let sent = two.sent(1);
            if can.contains(Abilities::CHECKSUM) {
                assert_eq!(sent[0].bytes, left);
                assert_ne!(sent[0].asked, TxFlags::NONE);
            } else {
                assert_eq!((sent[0].bytes[l4 + 16], sent[0].bytes[l4 + 17]), (right[0], right[1]));
                assert_eq!((&sent[0].bytes, sent[0].asked), (&whole, TxFlags::NONE));
            }
            one.wire.put(&left, Received::Missing(Some(1000)), 1500);
            let sent = two.sent(if can == all { 1 } else { 4 });
            let checksum = sent[0].asked;
            assert_eq!(checksum == TxFlags::NONE, can.is_empty());
            assert!(sent.iter().all(|sent| sent.asked == checksum && sent.bytes.len() <= l4 + 20 + 4000));
            let payload: Vec<u8> = sent.iter().flat_map(|sent| sent.bytes[l4 + 20..].to_vec()).collect();
            assert_eq!(payload, whole[l4 + 20..]);
        }
        net.assert_balances();
    }
}

/// What cannot be said by lengths of headers, or what not every NIC takes, is done for it.
#[test]
fn what_a_nic_might_misunderstand_is_finished_here() {
    let can = Abilities::CHECKSUM | Abilities::TCP4 | Abilities::TCP6 | Abilities::BY_LAYOUT;
    let (net, one, two) = two(can);
    let put = |whole: &[u8], l4: usize, size| {
        let mut left = whole.to_vec();
        left[l4 + 16..l4 + 18].copy_from_slice(&pseudo(&payload_of(whole.len() - l4 - 20, false, true), 54, true));
        one.wire.put(&left, Received::Missing(size), 1500);
        left
    };
    let addressed = |mut frame: Vec<u8>| {
        frame[..6].copy_from_slice(&mac(2));
        frame[6..12].copy_from_slice(&mac(1));
        frame
    };
    let plain = addressed(payload_of(4000, false, true));
    let left = put(&plain, 54, None);
    let sent = two.sent(1);
    assert_eq!(sent[0].bytes, left);
    assert_ne!(sent[0].asked, TxFlags::NONE);
    put(&plain, 54, Some(1000));
    assert_eq!(two.sent(1)[0].bytes, left);
    // Segments that some refuse.
    put(&plain, 54, Some(200));
    let sent = two.sent(20);
    assert!(sent.iter().all(|sent| sent.asked == TxFlags::NONE));

    // Destination options, which a NIC would count in.
    let mut behind = [&plain[..54], &[6, 0, 1, 4, 0, 0, 0, 0], &plain[54..]].concat();
    behind[20] = 60;
    let payload_len = (behind.len() as u16 - 54).to_be_bytes();
    behind[18..20].copy_from_slice(&payload_len);
    put(&behind, 62, None);
    let sent = two.sent(1);
    assert_eq!((&sent[0].bytes, sent[0].asked), (&behind, TxFlags::NONE));
    net.assert_balances();
}

/// A frame may be shorter in a guest than on a wire.
#[test]
fn what_goes_to_a_nic_is_long_enough() {
    for layout in LAYOUTS {
        let net = Setup { ports: 1, nics: 2, ..Setup::default() }.start();
        let mut guest = net.plug(0, Options::new(layout));
        let (one, two) = (Nic::plug(&net, 0, Abilities::all()), Nic::plug(&net, 1, Abilities::all()));
        for len in [14, 15, 59, 60, 61] {
            let short = frame(BROADCAST, mac(1), len, 7);
            guest.send(&short);
            let padded = [&short[..], &vec![0; 60usize.saturating_sub(len)]].concat();
            assert_eq!((&one.sent(1)[0].bytes, &two.sent(1)[0].bytes), (&padded, &padded), "{len} bytes");
            one.wire.put(&short, Received::Unchecked, 2048);
            assert_eq!(guest.receive().as_deref(), Some(&short[..]), "a guest takes any length");
            assert_eq!(two.sent(1)[0].bytes, padded);
        }
        // Half a tag would be a whole one behind the padding.
        let cut_off = [&frame(BROADCAST, mac(1), 14, 7)[..12], &[0x81, 0, 0, 20]].concat();
        guest.send(&cut_off);
        one.wire.put(&cut_off, Received::Unchecked, 2048);
        assert!(eventually(|| net.receive_dropped(0, DropReason::Runt) == 1 && one.dropped(DropReason::Runt) == 1));
        net.assert_balances();
    }
}

/// Whoever is on the wire cannot keep others out by being many.
#[test]
fn stations_beyond_the_limit_of_a_nic_are_heard() {
    let nic_policy = PortPolicy { macs_max: 10, ..PortPolicy::default() };
    let net = Setup { nics: 2, nic_policy, ..Setup::default() }.start();
    let (one, two) = (Nic::plug(&net, 0, Abilities::all()), Nic::plug(&net, 1, Abilities::all()));
    for n in 0..40 {
        one.wire.put(&frame(BROADCAST, mac(n), 60, 7), Received::Unchecked, 2048);
    }
    two.sent(40);
    assert_eq!(one.dropped(DropReason::MacLimit), 0);
    assert_eq!(net.metric("ringway_port_mac_entries", &[("port", &one.port.name)]), 10);
    net.assert_balances();
}

/// What the NIC found right, a guest that takes checksums on trust is told, and no other; what was not checked, nobody is.
#[test]
fn a_good_checksum_is_vouched_for() {
    for layout in LAYOUTS {
        for features in [0, feature::GUEST_CSUM, feature::GUEST_OFFLOADS] {
            let net = Setup { ports: 1, nics: 2, ..Setup::default() }.start();
            let options = Options::new(layout);
            let mut guest = net.plug(0, Options { features: options.features | features, ..options });
            let (one, two) = (Nic::plug(&net, 0, Abilities::all()), Nic::plug(&net, 1, Abilities::all()));
            guest.send(&frame(BROADCAST, mac(1), 60, 7));
            one.sent(1);
            two.sent(1);
            let [mut unicast, mut group] = [(); 2].map(|()| payload_of(1000, false, true));
            for (bytes, to) in [(&mut unicast, mac(1)), (&mut group, BROADCAST)] {
                bytes[..6].copy_from_slice(&to);
                bytes[6..12].copy_from_slice(&mac(2));
            }
            for (bytes, flooded) in [(unicast, false), (group, true)] {
                for (received, flags) in [(Received::Good, DATA_VALID), (Received::Unchecked, 0)] {
                    one.wire.put(&bytes, received, 2048);
                    let (header, came) = guest.receive_asking().unwrap();
                    let told = if features == 0 { 0 } else { flags };
                    assert_eq!(header, NetHeader { flags: told, ..NetHeader::default() }, "{received:?} {features:x}");
                    assert_eq!(came, bytes);
                    if flooded {
                        let sent = two.sent(1);
                        assert_eq!((&sent[0].bytes, sent[0].asked), (&bytes, TxFlags::NONE), "a NIC is not told");
                    }
                }
            }
            net.assert_balances();
        }
    }
}

fn pseudo(frame: &[u8], l4: usize, v6: bool) -> [u8; 2] {
    let addresses = if v6 { &frame[l4 - 32..l4] } else { &frame[l4 - 8..l4] };
    let words = addresses.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let mut sum = words.sum::<u32>() + 6 + (frame.len() - l4) as u32;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (sum as u16).to_be_bytes()
}
