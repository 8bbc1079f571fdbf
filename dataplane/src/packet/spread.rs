//! Which of a receiver's queues a frame belongs to: a hash over its flow, so that a flow stays in
//! one queue, in order, and many flows use them all.

use super::ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, be16};
use super::headers::network;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// A number that is equal for all frames of one flow, in both directions: what a guest sends and what it is answered.
///
/// Fragments hash by their addresses only, so that all pieces of a datagram meet in one queue; what
/// is not IP hashes by its MAC addresses. Not keyed: the worst a guest can do by choosing its ports is
/// to put its own flows on one queue.
#[must_use]
pub fn spread_hash(frame: &[u8]) -> u32 {
    let (ethertype, at) = network(frame).unwrap_or_default();
    let l3 = frame.get(at..).unwrap_or(&[]);
    let hash = match ethertype {
        ETHERTYPE_IPV4 => ipv4(l3),
        ETHERTYPE_IPV6 => ipv6(l3),
        _ => None,
    };
    let hash = hash.unwrap_or_else(|| both(word(frame.get(..6)), word(frame.get(6..12))));
    (hash ^ (hash >> 32)) as u32
}

fn ipv4(l3: &[u8]) -> Option<u64> {
    let (source, destination) = (l3.get(12..16)?, l3.get(16..20)?);
    let header_len = usize::from(l3[0] & 0x0f) * 4;
    let fragment = be16(l3, 6)? & 0x3fff != 0; // offset or more-fragments
    let packet = l3.get(..usize::from(be16(l3, 2)?)).unwrap_or(l3);
    let [from, to] = if fragment { [0; 2] } else { ports(l3[9], packet, header_len) };
    Some(both(mix(from, word(Some(source))), mix(to, word(Some(destination)))))
}

fn ipv6(l3: &[u8]) -> Option<u64> {
    let end =
        |at: usize, port| Some(mix(mix(port, word(Some(l3.get(at..at + 8)?))), word(Some(l3.get(at + 8..at + 16)?))));
    // Extension headers end the walk: the addresses alone must do then.
    let packet = match usize::from(be16(l3, 4)?) {
        0 => l3, // a jumbo packet's length is in an option
        payload => l3.get(..40 + payload).unwrap_or(l3),
    };
    let [from, to] = ports(*l3.get(6)?, packet, 40);
    Some(both(end(8, from)?, end(24, to)?))
}

/// Source and destination port, each with the protocol; the protocol alone where there are none. What lies behind the packet is
/// padding, and no ports.
fn ports(protocol: u8, packet: &[u8], header_len: usize) -> [u64; 2] {
    let [from, to] = match protocol {
        TCP | UDP | SCTP => [be16(packet, header_len), be16(packet, header_len + 2)].map(Option::unwrap_or_default),
        _ => [0; 2],
    };
    [from, to].map(|port| u64::from(protocol) << 16 | u64::from(port))
}

/// Up to eight bytes.
fn word(bytes: Option<&[u8]>) -> u64 {
    let mut word = [0; 8];
    for (to, from) in word.iter_mut().zip(bytes.unwrap_or_default()) {
        *to = *from;
    }
    u64::from_le_bytes(word)
}

/// One end and the other, whichever is the source.
fn both(one: u64, other: u64) -> u64 {
    let [one, other] = [one, other].map(|end| mix(1, end));
    mix(one ^ other, one.wrapping_add(other))
}

fn mix(hash: u64, word: u64) -> u64 {
    let product = u128::from(hash ^ 0x9e37_79b9_7f4a_7c15) * u128::from(word ^ 0xd6e8_feb8_6659_fd93);
    (product as u64) ^ ((product >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    fn udp(source_port: u16, payload: &[u8]) -> Vec<u8> {
        let builder =
            PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(source_port, 9);
        let mut frame = Vec::new();
        builder.write(&mut frame, payload).unwrap();
        frame
    }

    #[test]
    fn flows_spread_and_payload_does_not_matter() {
        let mut queues = [0; 4];
        for port in 1000..2000 {
            let hash = spread_hash(&udp(port, b"one"));
            assert_eq!(hash, spread_hash(&udp(port, b"another payload")));
            queues[hash as usize % 4] += 1;
        }
        assert!(queues.iter().all(|&count| count > 200), "{queues:?}");
    }

    #[test]
    fn a_flow_and_its_answers_are_one() {
        type Ends = (u8, u16);
        let v4 = |from: Ends, to: Ends| {
            let ip = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, from.0], [10, 0, 0, to.0], 64);
            let mut frame = Vec::new();
            ip.tcp(from.1, to.1, 1, 2).write(&mut frame, b"x").unwrap();
            frame
        };
        let v6 = |from: Ends, to: Ends| {
            let ip = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6([from.0; 16], [to.0; 16], 64);
            let mut frame = Vec::new();
            ip.udp(from.1, to.1).write(&mut frame, b"x").unwrap();
            frame
        };
        let mut hashes = std::collections::HashSet::new();
        for port in 0..1000 {
            let (one, other) = ((1, 1024 + port), (2, 80));
            for make in [&v4 as &dyn Fn(Ends, Ends) -> Vec<u8>, &v6] {
                let hash = spread_hash(&make(one, other));
                assert_eq!(hash, spread_hash(&make(other, one)));
                // Ports belong to their ends.
                assert_ne!(hash, spread_hash(&make((1, 80), (2, 1024 + port))));
                hashes.insert(hash);
            }
        }
        assert!(hashes.len() >= 1999, "{} of 2000 are distinct", hashes.len());
        let arp = |from: u8, to: u8| [&[to; 6][..], &[from; 6], &[8, 6], &[0; 46]].concat();
        assert_eq!(spread_hash(&arp(3, 5)), spread_hash(&arp(5, 3)));
        assert_ne!(spread_hash(&arp(3, 5)), spread_hash(&arp(3, 6)));
        // A station with itself: not all such are one flow.
        assert_ne!(spread_hash(&arp(3, 3)), spread_hash(&arp(5, 5)));
    }

    #[test]
    fn fragments_of_a_datagram_stay_together() {
        let mut first = udp(1, &[0; 64]);
        let mut second = udp(2, &[9; 64]);
        first[14 + 6] = 0x20; // more fragments
        second[14 + 7] = 8; // at an offset
        assert_eq!(spread_hash(&first), spread_hash(&second));
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_hash(frame: Vec<u8>) {
            let _ = spread_hash(&frame);
        }
    }
}
