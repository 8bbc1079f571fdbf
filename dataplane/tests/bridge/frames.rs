//! Frames with tags, and packets with addresses.

use std::time::Duration;

use ringway_config::{PortPolicy, Vlan};
use ringway_testbed::driver::Guest;
use ringway_testbed::driver::frame::{BROADCAST, Mac};

/// A tag of VLAN `vlan` with a priority.
pub const fn tag(vlan: u16) -> [u8; 4] {
    let [high, low] = vlan.to_be_bytes();
    [0x81, 0, 0xa0 | high, low]
}

/// The frame with these tags in front of what it carries.
pub fn with_tags(frame: &[u8], tags: &[[u8; 4]]) -> Vec<u8> {
    [&frame[..12], tags.as_flattened(), &frame[12..]].concat()
}

pub fn access(id: u16) -> PortPolicy {
    PortPolicy { vlan: Vlan::Access(id), ..PortPolicy::default() }
}

pub fn trunk(allowed: &[u16], native: Option<u16>) -> PortPolicy {
    let vlan = Vlan::Trunk { allowed: allowed.iter().copied().collect(), native };
    PortPolicy { vlan, ..PortPolicy::default() }
}

/// Whether nobody hears anything more.
pub fn silent(guests: &mut [Guest]) -> bool {
    std::thread::sleep(Duration::from_millis(20));
    guests.iter_mut().all(|guest| guest.pairs[0].try_receive().is_none())
}

/// An ARP packet in which the station `from` says that it has this address.
pub fn arp(from: Mac, ip: [u8; 4]) -> Vec<u8> {
    let kind = [0, 1, 8, 0, 6, 4, 0, 1];
    [&BROADCAST[..], &from, &[8, 6], &kind, &from, &ip, &[0; 6], &[10, 0, 0, 99]].concat()
}

/// A UDP packet over IPv4.
pub fn udp(to: Mac, from: Mac, source: [u8; 4]) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = etherparse::PacketBuilder::ethernet2(from, to).ipv4(source, [10, 0, 0, 99], 64).udp(1, 2);
    builder.write(&mut frame, b"payload").unwrap();
    frame
}
