//! What is in the frames that a guest sends.

use super::colliding::colliding_sources;

/// The most bytes of a frame that change from one to the next.
pub(crate) const CHANGE_MAX: usize = 32;

/// An EtherType for local experiments (IEEE 802, table 3): no parser knows what is behind it.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
const ETHERTYPE_IPV4: [u8; 2] = [8, 0];
const ETHERTYPE_VLAN: [u8; 2] = [0x81, 0];

/// What stations of guest `guest` begin with.
pub(crate) fn prefix(guest: usize) -> [u8; 4] {
    let [high, low] = (guest as u16).to_be_bytes();
    [0x02, 0x57, high, low]
}

/// Station `number` of guest `guest`.
pub(crate) fn station(guest: usize, number: u32) -> [u8; 6] {
    let [a, b, c, d] = prefix(guest);
    let [high, low] = (number as u16).to_be_bytes();
    [a, b, c, d, high, low]
}

/// Destination and source.
pub(crate) fn addresses(to: [u8; 6], from: [u8; 6]) -> [u8; 12] {
    let mut addresses = [0; 12];
    addresses[..6].copy_from_slice(&to);
    addresses[6..].copy_from_slice(&from);
    addresses
}

/// xorshift64*: random enough for who only wants to be a nuisance, and quick.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    #[inline]
    pub(crate) fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// A sequence of frames.
#[derive(Debug)]
pub(crate) enum Pattern {
    /// From each of so many stations of a guest to each of so many of another, each pair once in as many frames as there are, in no
    /// order. Powers of two.
    Flows { from: usize, sources: u32, to: usize, destinations: u32, at: u32 },
    /// These addresses, one after another.
    Addresses { list: Vec<[u8; 12]>, at: usize },
    /// From and to random stations.
    Macs(Random),
    /// In random VLANs, from one station to another.
    Vlans { addresses: [u8; 12], random: Random },
    /// UDP over IPv4 between random addresses and ports, from one station to another; packets of so many bytes.
    Tuples { addresses: [u8; 12], packet_len: u32, random: Random },
}

impl Pattern {
    /// One flow between two guests, or `sources` times `destinations`.
    pub(crate) fn flows(from: usize, sources: u32, to: usize, destinations: u32) -> Self {
        assert!(sources.is_power_of_two() && destinations.is_power_of_two());
        Self::Flows { from, sources, to, destinations, at: 0 }
    }

    /// Always the same.
    pub(crate) fn fixed(addresses: [u8; 12]) -> Self {
        Self::Addresses { list: vec![addresses], at: 0 }
    }

    /// To one station, from so many that collide in a table which hashes with CRC32C and no key.
    pub(crate) fn colliding(to: [u8; 6], count: usize) -> Self {
        let list = colliding_sources(to, count).into_iter().map(|from| addresses(to, from)).collect();
        Self::Addresses { list, at: 0 }
    }

    /// A frame of `len` bytes of it, in which what changes is anything.
    pub(crate) fn template(&self, len: usize) -> Vec<u8> {
        let mut frame = vec![0x5a; len.max(60)];
        frame[12..14].copy_from_slice(&ETHERTYPE);
        match self {
            Self::Flows { .. } | Self::Addresses { .. } | Self::Macs(_) => {}
            Self::Vlans { addresses, .. } => {
                frame[..12].copy_from_slice(addresses);
                frame[12..18].copy_from_slice(&[ETHERTYPE_VLAN, [0, 0], ETHERTYPE].concat());
            }
            Self::Tuples { addresses, .. } => {
                frame[..12].copy_from_slice(addresses);
                frame[12..14].copy_from_slice(&ETHERTYPE_IPV4);
                let total = (frame.len() - 14) as u16;
                let header = [0x45, 0, (total >> 8) as u8, total as u8, 0, 0, 0, 0, 64, 17, 0, 0];
                frame[14..26].copy_from_slice(&header);
                frame[38..42].copy_from_slice(&[(total - 20).to_be_bytes(), [0, 0]].concat());
            }
        }
        frame
    }

    /// The next frame, as what changes: bytes into `change`, how many of them, and where in the frame they go.
    #[inline]
    pub(crate) fn next(&mut self, change: &mut [u8; CHANGE_MAX]) -> (usize, usize) {
        match self {
            Self::Flows { from, sources, to, destinations, at } => {
                // A linear congruence of full period (Hull and Dobell, 1962).
                *at = at.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) & (*sources * *destinations - 1);
                change[..6].copy_from_slice(&station(*to, *at & (*destinations - 1)));
                change[6..12].copy_from_slice(&station(*from, *at / *destinations));
                (0, 12)
            }
            Self::Addresses { list, at } => {
                change[..12].copy_from_slice(&list[*at]);
                *at = if *at + 1 < list.len() { *at + 1 } else { 0 };
                (0, 12)
            }
            Self::Macs(random) => {
                change[..8].copy_from_slice(&random.word().to_le_bytes());
                change[8..16].copy_from_slice(&random.word().to_le_bytes());
                // Administered locally, no groups.
                (change[0], change[6]) = (change[0] & 0xfc | 2, change[6] & 0xfc | 2);
                (0, 12)
            }
            Self::Vlans { random, .. } => {
                change[..2].copy_from_slice(&((random.word() >> 32) as u16 & 0x0fff).clamp(1, 4094).to_be_bytes());
                (14, 2)
            }
            Self::Tuples { random, packet_len, .. } => {
                let (ips, ports) = (random.word(), random.word());
                change[2..10].copy_from_slice(&ips.to_le_bytes());
                (change[2], change[6]) = (10, 10);
                change[10..14].copy_from_slice(&(ports as u32).to_le_bytes());
                let words = change[2..10].chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
                let checksum = header_checksum(words.sum(), *packet_len);
                change[..2].copy_from_slice(&checksum.to_be_bytes());
                (24, 14)
            }
        }
    }
}

/// Of an IPv4 header as in [`Pattern::template`], whose addresses have this sum and whose packet has so many bytes.
fn header_checksum(addresses: u32, total: u32) -> u16 {
    let sum = 0x4500 + total + 0x4011 + addresses;
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn frames(mut pattern: Pattern, count: usize) -> Vec<Vec<u8>> {
        let mut frame = pattern.template(60);
        let next = |_| {
            let mut change = [0; CHANGE_MAX];
            let (at, len) = pattern.next(&mut change);
            frame[at..at + len].copy_from_slice(&change[..len]);
            frame.clone()
        };
        (0..count).map(next).collect()
    }

    #[test]
    fn each_flow_comes_once_a_lap() {
        for (sources, destinations) in [(1, 1), (4, 1), (1, 8), (64, 32)] {
            let count = (sources * destinations) as usize;
            let lap = frames(Pattern::flows(3, sources, 4, destinations), 2 * count);
            let flows: HashSet<_> = lap[count..].iter().map(|frame| frame[..12].to_vec()).collect();
            assert_eq!(flows.len(), count);
            assert!(flows.iter().all(|flow| flow[..4] == prefix(4) && flow[6..10] == prefix(3)));
        }
    }

    #[test]
    fn attacks_are_what_they_say() {
        let head = addresses(station(1, 0), station(2, 0));
        let macs = frames(Pattern::Macs(Random::new(1)), 1000);
        assert!(macs.iter().all(|frame| frame[0] & 3 == 2 && frame[6] & 3 == 2));
        assert_eq!(macs.iter().map(|frame| &frame[..12]).collect::<HashSet<_>>().len(), 1000);
        let vlans = frames(Pattern::Vlans { addresses: head, random: Random::new(1) }, 1000);
        let tags: HashSet<_> = vlans.iter().map(|frame| u16::from_be_bytes([frame[14], frame[15]])).collect();
        assert!(tags.len() > 800 && tags.iter().all(|tag| (1..=4094).contains(tag)));
        assert!(vlans.iter().all(|frame| frame[..12] == head && frame[12..14] == ETHERTYPE_VLAN));
    }

    #[test]
    fn tuples_are_sound_packets() {
        let head = addresses(station(1, 0), station(2, 0));
        let tuples = frames(Pattern::Tuples { addresses: head, packet_len: 46, random: Random::new(1) }, 1000);
        for frame in &tuples {
            let (ip, udp) = (&frame[14..34], &frame[34..]);
            let sum: u32 = ip.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
            assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "the header's checksum");
            assert_eq!(usize::from(u16::from_be_bytes([ip[2], ip[3]])), frame.len() - 14);
            assert_eq!(usize::from(u16::from_be_bytes([udp[4], udp[5]])), udp.len());
        }
        assert_eq!(tuples.iter().map(|frame| &frame[26..38]).collect::<HashSet<_>>().len(), 1000);
    }
}
