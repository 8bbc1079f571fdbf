//! Any bytes as a frame: what the switch says of them, against what etherparse says, which shares no code with it.
//!
//! Frames that are truncated, padded, laden with options or plain nonsense are classified by what is really there
//! (CVE-2020-35498 was a switch that took padding for a packet's length).

use etherparse::{
    Ethernet2Header, IpNumber, Ipv4HeaderSlice, Ipv6ExtensionSlice, Ipv6ExtensionsSlice, Ipv6HeaderSlice,
    LaxSlicedPacket, SingleVlanHeader, TransportSlice,
};
use ringway::packet::{Broken, EthernetHeader, Headers, Tag, network, packet_len, spread_hash};
use ringway::policy::Guard;
use ringway_config::{IpPrefix, PRIORITY_OVER_TAG, PortPolicy};

/// Bytes of a frame that the switch looks at.
const HEAD: usize = 128;

const VLAN: u16 = 0x8100;
const SERVICE_VLAN: u16 = 0x88a8;

pub fn run(data: &[u8]) {
    // The fuzzer need not find out by itself which two bytes matter.
    let Some((&choice, frame)) = data.split_first() else { return };
    let mut frame = frame.to_vec();
    let ethertype = match choice >> 5 {
        0 => [8, 0],
        1 => [0x86, 0xdd],
        2 => [8, 6],
        3 => [0x81, 0],
        4 => [0x88, 0xa8],
        _ => return check(&frame),
    };
    if let Some(field) = frame.get_mut(12..14) {
        field.copy_from_slice(&ethertype);
    }
    check(&frame);
}

/// That nothing which is said of this frame is wrong.
pub fn check(frame: &[u8]) {
    let head = &frame[..frame.len().min(HEAD)];
    link(head);
    let Some((ethertype, l3)) = behind_tags(frame) else {
        assert_eq!(network(head), None, "tags that are cut off");
        return;
    };
    assert_eq!(network(head), Some((ethertype, l3)));
    assert_eq!(packet_len(head, frame.len()), frame.len() - l3);
    let ours = Headers::judge(head, frame.len());
    let end = match ethertype {
        0x0800 => ipv4(frame, l3, ours),
        0x86dd => ipv6(frame, l3, ours),
        _ => {
            assert_eq!(ours.map(|headers| (headers.l4(), headers.protocol())), Ok((l3, None)));
            None
        }
    };
    transport(frame, ours);
    guard(frame, head, ethertype, l3);
    // Padding is no part of a flow.
    if let Some(end) = end.filter(|&end| end < head.len()) {
        let mut other = head.to_vec();
        other[end..].iter_mut().for_each(|byte| *byte = !*byte);
        assert_eq!(spread_hash(head), spread_hash(&other), "padding from {end} on chooses the queue");
    }
}

fn link(head: &[u8]) {
    let ours = EthernetHeader::parse(head);
    let Ok((theirs, rest)) = Ethernet2Header::from_slice(head) else {
        return assert_eq!(ours, None);
    };
    if [VLAN, SERVICE_VLAN].contains(&theirs.ether_type.0) && rest.len() < SingleVlanHeader::LEN {
        return assert_eq!(ours, None, "a tag that is cut off");
    }
    let ours = ours.expect("an Ethernet header is there");
    assert_eq!((ours.source.bytes(), ours.destination.bytes()), (theirs.source, theirs.destination));
    let tag =
        Some(rest).filter(|_| theirs.ether_type.0 == VLAN).and_then(|rest| SingleVlanHeader::from_slice(rest).ok());
    let (vlan, inner) = tag.map_or((0, theirs.ether_type.0), |(tag, _)| (tag.vlan_id.value(), tag.ether_type.0));
    // A tag that only says a priority, over one that says a VLAN.
    let of_both = theirs.ether_type.0 == VLAN && vlan == 0 && inner == VLAN;
    assert_eq!((ours.vlan, ours.ethertype), (if of_both { PRIORITY_OVER_TAG } else { vlan }, inner));
    let tag = Tag::of(head).map(|tag| (tag.vlan, tag.wraps_tag));
    assert_eq!(tag.is_some(), theirs.ether_type.0 == VLAN && rest.len() >= 4);
    assert!(tag.is_none_or(|tag| tag == (vlan, inner == VLAN)));
}

/// The EtherType behind two tags at most, and where it leads.
fn behind_tags(frame: &[u8]) -> Option<(u16, usize)> {
    let (link, mut rest) = Ethernet2Header::from_slice(frame).ok()?;
    let mut ethertype = link.ether_type.0;
    for _ in 0..2 {
        if ![VLAN, SERVICE_VLAN].contains(&ethertype) {
            break;
        }
        let (tag, behind) = SingleVlanHeader::from_slice(rest).ok()?;
        (ethertype, rest) = (tag.ether_type.0, behind);
    }
    Some((ethertype, frame.len() - rest.len()))
}

/// Where the packet ends, if it is one.
fn ipv4(frame: &[u8], l3: usize, ours: Result<Headers, Broken>) -> Option<usize> {
    let Ok(theirs) = Ipv4HeaderSlice::from_slice(&frame[l3..]) else {
        // Only of a fragment one need not know whether its options are there: nobody looks behind it.
        assert!(ours.is_err(), "{ours:?} of what is no header");
        return None;
    };
    let (header_len, total) = (usize::from(theirs.ihl()) * 4, usize::from(theirs.total_len()));
    if total < header_len {
        assert_eq!(ours, Err(Broken::Nonsense), "a packet shorter than its header");
        return None;
    }
    if theirs.is_fragmenting_payload() {
        assert_eq!(ours, Err(Broken::Fragment));
        return None;
    }
    let ours = ours.expect("a whole header");
    assert_eq!((ours.l4(), ours.protocol()), (l3 + header_len, Some(theirs.protocol().0)));
    ends_at(ours, l3 + total);
    Some(l3 + total)
}

fn ipv6(frame: &[u8], l3: usize, ours: Result<Headers, Broken>) -> Option<usize> {
    let Ok(theirs) = Ipv6HeaderSlice::from_slice(&frame[l3..]) else {
        assert_eq!(ours, Err(Broken::Nonsense));
        return None;
    };
    let end = match usize::from(theirs.payload_length()) {
        0 => frame.len(),
        payload => l3 + 40 + payload,
    };
    let there = &frame[l3 + 40..end.min(frame.len())];
    let chain = Ipv6ExtensionsSlice::from_slice(theirs.next_header(), there);
    let Ok(ours) = ours else {
        // A fragment, or a chain that leads out of the packet.
        let is_whole = chain.is_ok_and(|(chain, _, rest)| {
            !chain.is_fragmenting_payload() && frame.len() - rest.len() <= HEAD && !has_authentication(&chain)
        });
        assert!(!is_whole, "{ours:?} of a sound chain");
        return None;
    };
    ends_at(ours, end);
    match (ours.protocol(), chain) {
        // Looked behind by etherparse and not by us.
        (Some(51), _) => {}
        (Some(protocol), Ok((_, next, rest))) => {
            let l4 = l3 + 40 + there.len() - rest.len();
            assert_eq!((protocol, ours.l4()), (next.0, l4));
        }
        // Hop-by-hop options that do not come first: etherparse stops there.
        (Some(_), Err(_)) | (None, Err(_)) => {}
        (None, Ok((chain, _, rest))) => {
            let l4 = l3 + 40 + there.len() - rest.len();
            assert!(l4 > HEAD - 8 || has_authentication(&chain), "a chain that ends at {l4} is not followed");
        }
    }
    Some(end)
}

fn has_authentication(chain: &Ipv6ExtensionsSlice<'_>) -> bool {
    chain.clone().into_iter().any(|extension| matches!(extension, Ipv6ExtensionSlice::Authentication(_)))
}

fn ends_at(ours: Headers, end: usize) {
    assert!(!ours.is_cut_off(end) && (end == 0 || ours.is_cut_off(end - 1)), "the packet ends at {end}: {ours:?}");
}

/// Where etherparse, reading the frame as a whole and forgiving what it can, finds a transport header, ours is there, too.
fn transport(frame: &[u8], ours: Result<Headers, Broken>) {
    let Ok(lax) = LaxSlicedPacket::from_ethernet(frame) else { return };
    let Some(transport) = lax.transport.filter(|_| lax.link_exts.len() <= 2) else { return };
    let (at, number) = match &transport {
        TransportSlice::Tcp(tcp) => (tcp.slice().as_ptr(), IpNumber::TCP),
        TransportSlice::Udp(udp) => (udp.slice().as_ptr(), IpNumber::UDP),
        _ => return,
    };
    let at = at.addr() - frame.as_ptr().addr();
    if let Ok(headers) = ours
        && headers.protocol() == Some(number.0)
    {
        assert_eq!(headers.l4(), at);
    }
}

/// Whoever sends from an address that is not his is not let through, whatever else he puts into the frame.
fn guard(frame: &[u8], head: &[u8], ethertype: u16, l3: usize) {
    let ips = ["10.0.0.5", "2001:db8::/64"].map(|ip| IpPrefix::parse(ip).expect("a prefix"));
    let policy = PortPolicy { allowed_ips: Some(ips.to_vec()), ..PortPolicy::default() };
    let Some(guard) = Guard::new(&policy) else { panic!("no guard") };
    if guard.judge(head, frame.len()).is_err() {
        return;
    }
    let rest = &frame[l3..];
    match ethertype {
        0x0800 => {
            let source = Ipv4HeaderSlice::from_slice(rest).map(|header| header.source());
            let is_own = source.as_ref().is_ok_and(|source| [[10, 0, 0, 5], [0; 4]].contains(source));
            // Of an option-laden header that is cut off the source is there all the same.
            let there = rest.get(12..16).is_some_and(|source| [[10, 0, 0, 5], [0; 4]].iter().any(|own| own == source));
            assert!(is_own || source.is_err() && there, "{source:?} passes");
        }
        0x86dd => {
            let source =
                Ipv6HeaderSlice::from_slice(rest).map(|header| header.source()).expect("a header that was judged");
            let own = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0];
            assert!(source[..8] == own || source == [0; 16], "{source:?} passes");
        }
        0x0806 => {
            let sender = rest.get(14..18).expect("a packet that was judged");
            assert!(sender == [10, 0, 0, 5] || sender == [0; 4], "{sender:?} passes");
        }
        _ => assert!(![VLAN, SERVICE_VLAN].contains(&ethertype), "three tags pass"),
    }
}
