//! Frames as an attacker would make them, classified by what is really there: the fuzz target `headers`, with frames that are nearly
//! right.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unreachable_pub, reason = "a module of several programs")]

use proptest::prelude::*;

#[allow(dead_code, reason = "the fuzzer calls more of it")]
#[path = "../../fuzz/targets/headers.rs"]
mod headers;

/// Tags, of any kind and any number.
fn tags() -> impl Strategy<Value = Vec<u8>> {
    let tag = (prop_oneof![Just([0x81, 0]), Just([0x88, 0xa8]), Just([0x91, 0])], any::<[u8; 2]>());
    proptest::collection::vec(tag.prop_map(|(kind, control)| [kind, control].concat()), 0..4)
        .prop_map(|tags| tags.concat())
}

/// Any number, or one that is about right.
fn about(right: usize) -> impl Strategy<Value = u16> {
    let near = (-9i32..=9).prop_map(move |off| (right as i32 + off).max(0) as u16);
    prop_oneof![4 => Just(right as u16), 3 => near, 1 => Just(0), 1 => any::<u16>()]
}

const PROTOCOLS: [u8; 7] = [6, 17, 58, 1, 132, 47, 255];

fn sources() -> impl Strategy<Value = [u8; 4]> {
    prop_oneof![Just([10, 0, 0, 5]), Just([0; 4]), any::<[u8; 4]>()]
}

/// IPv4 with options: EtherType and packet.
fn ipv4() -> impl Strategy<Value = Vec<u8>> {
    let parts =
        (0usize..=10, proptest::collection::vec(any::<u8>(), 0..80), prop::sample::select(&PROTOCOLS[..]), sources());
    parts.prop_flat_map(|(words, payload, protocol, source)| {
        let right = 20 + words * 4 + payload.len();
        let first = prop_oneof![6 => Just(0x45 + words as u8), 1 => any::<u8>()];
        let fragment = prop_oneof![4 => Just(0u16), 1 => Just(0x4000), 1 => any::<u16>()];
        (first, about(right), fragment).prop_map(move |(first, total, fragment)| {
            let [total, fragment] = [total, fragment].map(u16::to_be_bytes);
            let header = [8, 0, first, 0, total[0], total[1], 7, 7, fragment[0], fragment[1], 64, protocol, 0, 0];
            [&header[..], &source, &[10, 0, 0, 9], &vec![1; words * 4], &payload].concat()
        })
    })
}

/// IPv6 with extension headers, likewise.
fn ipv6() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop::sample::select(&[0u8, 43, 60, 44, 51][..]);
    let chain = proptest::collection::vec((kind, 0u8..3, any::<[u8; 6]>(), any::<bool>()), 0..5);
    let own = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let source = prop_oneof![Just(own), Just([0; 16]), any::<[u8; 16]>()];
    let parts = (chain, prop::sample::select(&PROTOCOLS[..]), proptest::collection::vec(any::<u8>(), 0..60), source);
    parts.prop_flat_map(|(chain, protocol, payload, source)| {
        let mut rest = Vec::new();
        for (index, &(kind, words, body, whole)) in chain.iter().enumerate() {
            let next = chain.get(index + 1).map_or(protocol, |next| next.0);
            let words = if kind == 44 { 0 } else { words };
            let body = if kind == 44 && whole { [0; 6] } else { body };
            rest.extend([&[next, words][..], &body, &vec![0; usize::from(words) * 8]].concat());
        }
        rest.extend(payload);
        let first = chain.first().map_or(protocol, |first| first.0);
        let version = prop_oneof![9 => Just(0x60u8), 1 => any::<u8>()];
        (about(rest.len()), version).prop_map(move |(len, version)| {
            let len = len.to_be_bytes();
            let header = [0x86, 0xdd, version, 0, 0, 0, len[0], len[1], first, 64];
            [&header[..], &source, &[0xff; 16], &rest].concat()
        })
    })
}

/// ARP, or what begins like it.
fn arp() -> impl Strategy<Value = Vec<u8>> {
    (sources(), proptest::collection::vec(any::<u8>(), 0..20))
        .prop_map(|(sender, rest)| [&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 2, 2, 2, 2, 2][..], &sender, &rest].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Truncated anywhere, padded by anything, laden with options, nonsense: nothing that is said of such a frame is wrong.
    #[test]
    fn frames_are_what_is_there(
        addresses: [u8; 12],
        tags in tags(),
        packet in prop_oneof![4 => ipv4(), 4 => ipv6(), 1 => arp(), 1 => proptest::collection::vec(any::<u8>(), 0..40)],
        padding in proptest::collection::vec(any::<u8>(), 0..40),
        cut in proptest::option::weighted(0.3, any::<prop::sample::Index>()),
    ) {
        let mut frame = [&addresses[..], &tags, &packet, &padding].concat();
        if let Some(cut) = cut {
            frame.truncate(cut.index(frame.len()));
        }
        headers::check(&frame);
    }

    #[test]
    fn any_bytes(data: Vec<u8>) {
        headers::run(&data);
    }
}
