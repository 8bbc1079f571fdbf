//! Which of a receiver's queues a frame belongs to: a hash over its flow, so that a flow stays in
//! one queue, in order, and many flows use them all.

use super::ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, be16};
use super::headers::network;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// A number that is equal for all frames of one flow.
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
    let hash = hash.unwrap_or_else(|| mix(0, frame.get(..12).unwrap_or(&[])));
    // The low bits pick the queue; fold the well mixed high half into them.
    (hash ^ (hash >> 32)) as u32
}

fn ipv4(l3: &[u8]) -> Option<u64> {
    let hash = mix(4, l3.get(12..20)?);
    let header_len = usize::from(l3[0] & 0x0f) * 4;
    let fragment = be16(l3, 6)? & 0x3fff != 0; // offset or more-fragments
    let packet = l3.get(..usize::from(be16(l3, 2)?)).unwrap_or(l3);
    Some(if fragment { hash } else { with_ports(hash, l3[9], packet, header_len) })
}

fn ipv6(l3: &[u8]) -> Option<u64> {
    let hash = mix(6, l3.get(8..40)?);
    let packet = match usize::from(be16(l3, 4)?) {
        0 => l3, // a jumbo packet's length is in an option
        payload => l3.get(..40 + payload).unwrap_or(l3),
    };
    // Extension headers end the walk: the addresses alone must do then.
    Some(with_ports(hash, l3[6], packet, 40))
}

/// What lies behind the packet is padding, and no ports.
fn with_ports(hash: u64, protocol: u8, packet: &[u8], header_len: usize) -> u64 {
    match packet.get(header_len..header_len + 4) {
        Some(ports) if matches!(protocol, TCP | UDP | SCTP) => mix(hash, ports),
        _ => hash,
    }
}

fn mix(seed: u64, bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(seed, |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        let product = u128::from(hash ^ u64::from_le_bytes(word) ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
        (product as u64) ^ ((product >> 64) as u64)
    })
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
