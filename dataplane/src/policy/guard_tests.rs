//! Frames that are built by etherparse, and what of them is forged by hand.

use super::*;
use etherparse::{IpNumber, Ipv6FlowLabel, Ipv6Header, PacketBuilder};
use proptest::prelude::*;

const OWN: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
const OTHER: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];

fn guard(macs: Option<&[[u8; 6]]>, ips: Option<&[&str]>) -> Guard {
    let ips = ips.map(|ips| ips.iter().map(|ip| IpPrefix::parse(ip).unwrap()).collect());
    let policy = PortPolicy { allowed_macs: macs.map(<[_]>::to_vec), allowed_ips: ips, ..PortPolicy::default() };
    Guard::new(&policy).unwrap()
}

fn usual() -> Guard {
    guard(Some(&[OWN]), Some(&["10.0.0.5", "10.1.0.0/16", "2001:db8::5"]))
}

fn judge(guard: &Guard, frame: &[u8]) -> Result<(), DropReason> {
    guard.judge(&frame[..frame.len().min(128)], frame.len())
}

fn udp4(source: [u8; 4], destination: [u8; 4], ports: (u16, u16)) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(OWN, OTHER).ipv4(source, destination, 64).udp(ports.0, ports.1);
    builder.write(&mut frame, b"payload").unwrap();
    frame
}

fn arp(ethertype: u16, mac: [u8; 6], ip: [u8; 4]) -> Vec<u8> {
    let kind = [0, 1, 8, 0, 6, 4, 0, 1];
    [&OTHER[..], &OWN, &ethertype.to_be_bytes(), &kind, &mac, &ip, &[0; 6], &[10, 0, 0, 9]].concat()
}

fn ipv6(source: &str, next: u8, payload: &[u8]) -> Vec<u8> {
    let header = Ipv6Header {
        traffic_class: 0,
        flow_label: Ipv6FlowLabel::ZERO,
        payload_length: payload.len() as u16,
        next_header: IpNumber(next),
        hop_limit: 255,
        source: source.parse::<Ipv6Addr>().unwrap().octets(),
        destination: "ff02::1:ff00:5".parse::<Ipv6Addr>().unwrap().octets(),
    };
    [&OTHER[..], &OWN, &ETHERTYPE_IPV6.to_be_bytes(), &header.to_bytes(), payload].concat()
}

fn neighbour(kind: u8, target: &str, option: Option<(u8, [u8; 6])>) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.parse::<Ipv6Addr>().unwrap().octets());
    if let Some((kind, mac)) = option {
        message.extend([kind, 1]);
        message.extend(mac);
    }
    message
}

fn tagged(frame: &[u8], tags: &[u16]) -> Vec<u8> {
    let tags: Vec<u8> = tags.iter().flat_map(|kind| [kind.to_be_bytes(), [0, 7]].concat()).collect();
    [&frame[..12], &tags, &frame[12..]].concat()
}

#[test]
fn sources() {
    assert!(usual().allows_source(OWN.into()) && !usual().allows_source(OTHER.into()));
    assert!(guard(None, Some(&["10.0.0.5"])).allows_source(OTHER.into()));
    assert!(Guard::new(&PortPolicy::default()).is_none());
}

#[test]
fn ipv4_sources() {
    let guard = usual();
    let to = [10, 9, 9, 9];
    assert_eq!(judge(&guard, &udp4([10, 0, 0, 5], to, (1, 2))), Ok(()));
    assert_eq!(judge(&guard, &udp4([10, 1, 255, 255], to, (1, 2))), Ok(()));
    for source in [[10, 0, 0, 6], [10, 2, 0, 0], [0; 4], [255; 4], [127, 0, 0, 1]] {
        assert_eq!(judge(&guard, &udp4(source, to, (1, 2))), Err(DropReason::GuardIp), "{source:?}");
    }
    // Behind tags, too; behind more than two nobody looks.
    let (good, bad) = (udp4([10, 0, 0, 5], to, (1, 2)), udp4([10, 0, 0, 6], to, (1, 2)));
    for tags in [&[0x8100][..], &[0x88a8, 0x8100], &[0x8100, 0x8100]] {
        assert_eq!(judge(&guard, &tagged(&good, tags)), Ok(()));
        assert_eq!(judge(&guard, &tagged(&bad, tags)), Err(DropReason::GuardIp));
    }
    assert_eq!(judge(&guard, &tagged(&good, &[0x8100; 3])), Err(DropReason::GuardIp));
    // Cut off, or no IPv4 at all.
    assert_eq!(judge(&guard, &good[..29]), Err(DropReason::GuardIp));
    let mut nonsense = good.clone();
    nonsense[14] = 0x44;
    assert_eq!(judge(&guard, &nonsense), Err(DropReason::GuardIp));
    assert_eq!(judge(&self::guard(Some(&[OWN]), None), &bad), Ok(()), "a guard of MACs does not look");
}

/// RFC 1042: some hosts take it for the same as behind an EtherType.
#[test]
fn nothing_is_claimed_behind_llc() {
    let guard = usual();
    let llc = |header: &[u8], packet: &[u8]| {
        let len = (header.len() + packet.len() - 14) as u16;
        [&packet[..12], &len.to_be_bytes(), header, &packet[14..]].concat()
    };
    for packet in [
        arp(ETHERTYPE_ARP, OWN, [10, 0, 0, 6]),
        arp(ETHERTYPE_RARP, OWN, [10, 0, 0, 5]),
        udp4([10, 0, 0, 6], [10, 9, 9, 9], (1, 2)),
        tagged(&udp4([10, 0, 0, 6], [10, 9, 9, 9], (1, 2)), &[0x8100]),
    ] {
        let kind = [packet[12], packet[13]];
        for organisation in [[0, 0, 0], [0, 0, 0xf8]] {
            let snap = [&[0xaa, 0xaa, 3], &organisation[..], &kind].concat();
            let hidden = llc(&snap, &packet);
            assert_eq!(judge(&guard, &hidden), Err(DropReason::GuardIp));
            assert_eq!(judge(&guard, &tagged(&hidden, &[0x8100])), Err(DropReason::GuardIp));
            assert_eq!(judge(&guard, &hidden[..20]), Err(DropReason::GuardIp), "cut off");
        }
        assert_eq!(
            judge(&guard, &llc(&[&[0xaa, 0xaa, 3, 0, 0, 0xc][..], &kind].concat(), &packet)),
            Ok(()),
            "of a vendor"
        );
    }
    assert_eq!(judge(&guard, &llc(&[0x42, 0x42, 3], &arp(ETHERTYPE_ARP, OWN, [10, 0, 0, 6]))), Ok(()), "spanning tree");
}

#[test]
fn dhcp_may_be_asked() {
    let guard = usual();
    assert_eq!(judge(&guard, &udp4([0; 4], [255; 4], (68, 67))), Ok(()));
    assert_eq!(judge(&guard, &udp4([0; 4], [255; 4], (67, 68))), Err(DropReason::GuardIp));
    assert_eq!(judge(&guard, &udp4([0; 4], [10, 0, 0, 1], (68, 67))), Err(DropReason::GuardIp));
    let mut fragment = udp4([0; 4], [255; 4], (68, 67));
    fragment[20] = 0x20;
    assert_eq!(judge(&guard, &fragment), Err(DropReason::GuardIp));
}

#[test]
fn arp_says_the_truth() {
    let guard = usual();
    for ethertype in [ETHERTYPE_ARP, ETHERTYPE_RARP] {
        assert_eq!(judge(&guard, &arp(ethertype, OWN, [10, 0, 0, 5])), Ok(()));
        assert_eq!(judge(&guard, &arp(ethertype, OWN, [0; 4])), Ok(()), "a probe");
        assert_eq!(judge(&guard, &arp(ethertype, OWN, [10, 0, 0, 6])), Err(DropReason::GuardIp));
        assert_eq!(judge(&guard, &arp(ethertype, OTHER, [10, 0, 0, 5])), Err(DropReason::GuardMac));
        assert_eq!(judge(&guard, &arp(ethertype, OWN, [10, 0, 0, 5])[..41]), Err(DropReason::GuardIp));
    }
    let mut odd = arp(ETHERTYPE_ARP, OWN, [10, 0, 0, 5]);
    odd[14 + 5] = 16; // addresses of another length, so that ours would lie elsewhere
    assert_eq!(judge(&guard, &odd), Err(DropReason::GuardIp));
    let only_macs = self::guard(Some(&[OWN]), None);
    assert_eq!(judge(&only_macs, &arp(ETHERTYPE_ARP, OWN, [10, 0, 0, 6])), Ok(()));
    assert_eq!(judge(&only_macs, &arp(ETHERTYPE_ARP, OTHER, [10, 0, 0, 6])), Err(DropReason::GuardMac));
    let only_ips = self::guard(None, Some(&["10.0.0.5"]));
    assert_eq!(judge(&only_ips, &arp(ETHERTYPE_ARP, OTHER, [10, 0, 0, 5])), Ok(()));
}

#[test]
fn ipv6_sources() {
    let guard = usual();
    let own = link_local(OWN.into()).to_string();
    assert_eq!(own, "fe80::5054:ff:fe00:1");
    for (source, expected) in [
        ("2001:db8::5", Ok(())),
        (&own, Ok(())),
        ("2001:db8::6", Err(DropReason::GuardIp)),
        ("fe80::5054:ff:fe00:2", Err(DropReason::GuardIp)),
        ("::", Err(DropReason::GuardIp)),
    ] {
        assert_eq!(judge(&guard, &ipv6(source, 17, &[0; 8])), expected, "{source}");
        // Behind an extension header.
        let behind = [&[17, 0, 0, 0, 0, 0, 0, 0][..], &[0; 8]].concat();
        assert_eq!(judge(&guard, &ipv6(source, 60, &behind)), expected, "{source}");
    }
    // Nobody may ask for routers, and report groups; no more.
    for (kind, expected) in
        [(133, Ok(())), (143, Ok(())), (131, Ok(())), (128, Err(DropReason::GuardIp)), (134, Err(DropReason::GuardIp))]
    {
        assert_eq!(judge(&guard, &ipv6("::", 58, &[kind, 0, 0, 0, 0, 0, 0, 0])), expected, "{kind}");
    }
    assert_eq!(judge(&guard, &ipv6("2001:db8::5", 17, &[0; 8])[..53]), Err(DropReason::GuardIp));
}

#[test]
fn neighbour_discovery_says_the_truth() {
    let guard = usual();
    for (source, kind, target, option, expected) in [
        // Asks for somebody else, and says who asks.
        ("2001:db8::5", 135, "2001:db8::99", Some((1, OWN)), Ok(())),
        ("2001:db8::5", 135, "2001:db8::99", Some((1, OTHER)), Err(DropReason::GuardMac)),
        // Is the address free?
        ("::", 135, "2001:db8::5", None, Ok(())),
        ("::", 135, "2001:db8::99", None, Err(DropReason::GuardIp)),
        // This is me.
        ("2001:db8::5", 136, "2001:db8::5", Some((2, OWN)), Ok(())),
        ("2001:db8::5", 136, "2001:db8::5", Some((2, OTHER)), Err(DropReason::GuardMac)),
        ("2001:db8::5", 136, "2001:db8::99", Some((2, OWN)), Err(DropReason::GuardIp)),
        ("::", 136, "2001:db8::5", Some((2, OWN)), Err(DropReason::GuardIp)),
    ] {
        let message = neighbour(kind, target, option);
        let frame = ipv6(source, 58, &message);
        assert_eq!(judge(&guard, &frame), expected, "{source} {kind} {target} {option:?}");
        // Padding behind the packet is none of its options.
        assert_eq!(judge(&guard, &[&frame[..], &[1, 0, 9]].concat()), expected);
        // Hidden behind an extension header.
        let hidden = [&[58, 0, 0, 0, 0, 0, 0, 0][..], &message].concat();
        assert_eq!(judge(&guard, &ipv6(source, 0, &hidden)), expected, "hidden {source} {kind}");
    }
    // An option of no length, and one that leads out of the head.
    let mut looped = neighbour(135, "2001:db8::99", Some((1, OWN)));
    looped[25] = 0;
    assert_eq!(judge(&guard, &ipv6("2001:db8::5", 58, &looped)), Err(DropReason::GuardIp));
    let mut long = neighbour(136, "2001:db8::5", Some((14, OWN)));
    long[25] = 7;
    long.resize(24 + 56, 0);
    long.extend([2, 1]);
    long.extend(OTHER);
    assert_eq!(judge(&guard, &ipv6("2001:db8::5", 58, &long)), Err(DropReason::GuardIp));
    // So far behind other headers that nobody can tell.
    let far = [&[58, 10, 0, 0, 0, 0, 0, 0][..], &[0; 80], &neighbour(136, "2001:db8::99", None)].concat();
    assert_eq!(judge(&guard, &ipv6("2001:db8::5", 60, &far)), Err(DropReason::GuardIp));
}

proptest! {
    /// Whatever the bytes are, nothing panics; and what passes as IPv4 without tags comes from an address that may.
    #[test]
    fn any_bytes(mut frame in proptest::collection::vec(any::<u8>(), 14..300), ethertype in prop::sample::select(vec![
        ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_ARP, ETHERTYPE_RARP, 0x8100, 0x88a8,
    ])) {
        frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
        let guard = usual();
        if judge(&guard, &frame).is_ok() && ethertype == ETHERTYPE_IPV4 {
            let source = <[u8; 4]>::try_from(&frame[26..30]).unwrap();
            prop_assert!(source == [10, 0, 0, 5] || source[..2] == [10, 1] || source == [0; 4]);
        }
    }
}
