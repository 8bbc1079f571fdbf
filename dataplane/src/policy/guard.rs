//! Who may send by a port, judged by the private head: the source MAC, and what of a frame claims an address for its sender:
//! IPv4, IPv6, ARP (RFC 826) and neighbour discovery (RFC 4861).
//!
//! What cannot be judged does not pass: a header that is cut off, more than two tags, an IPv6 packet whose headers lead out of
//! the head. What is none of these protocols passes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringway_config::{IpPrefix, PortPolicy};

use crate::account::DropReason;
use crate::packet::{
    Broken, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_RARP, Headers, MacAddress, network,
};
use crate::packet::{is_tag, protocol};

/// What is less is the length of an LLC frame (IEEE 802.3, section 3.2.6).
const ETHERTYPE_MIN: u16 = 0x600;

/// What a guard allows.
#[derive(Debug)]
pub struct Guard {
    /// Ascending; `None` for any.
    macs: Option<Box<[MacAddress]>>,
    ips: Option<Addresses>,
}

#[derive(Debug)]
struct Addresses {
    /// Network and mask.
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

mod arp {
    //! Offsets in an ARP packet for Ethernet and IPv4.
    pub(super) const LEN: usize = 28;
    pub(super) const SENDER_MAC: usize = 8;
    pub(super) const SENDER_IP: usize = 14;
    /// Ethernet, IPv4, and the lengths of their addresses.
    pub(super) const KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];
}

mod nd {
    //! Types of ICMPv6 messages, and where their options begin.
    pub(super) const ROUTER_SOLICITATION: u8 = 133;
    pub(super) const NEIGHBOUR_SOLICITATION: u8 = 135;
    pub(super) const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    /// Reports of multicast listeners, which may come from `::`.
    pub(super) const REPORTS: [u8; 3] = [131, 132, 143];
    pub(super) const TARGET: usize = 8;
    /// Link-layer addresses of the source and of the target.
    pub(super) const LINK_LAYER: [u8; 2] = [1, 2];

    /// Bytes before the options of a message of neighbour discovery.
    pub(super) fn options(kind: u8) -> Option<usize> {
        match kind {
            ROUTER_SOLICITATION => Some(8),
            134 => Some(16),
            NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT => Some(24),
            137 => Some(40),
            _ => None,
        }
    }
}

impl Guard {
    /// The guard that `policy` asks for, if it does.
    #[must_use]
    pub fn new(policy: &PortPolicy) -> Option<Self> {
        if policy.allowed_macs.is_none() && policy.allowed_ips.is_none() {
            return None;
        }
        let macs = policy.allowed_macs.as_ref().map(|macs| {
            let mut macs: Box<[_]> = macs.iter().map(|&mac| MacAddress::from(mac)).collect();
            macs.sort_unstable();
            macs
        });
        let ips = policy.allowed_ips.as_deref().map(|ips| Addresses::new(ips, macs.as_deref().unwrap_or(&[])));
        Some(Self { macs, ips })
    }

    /// Whether a station may send. Of a flow this is asked once.
    #[must_use]
    pub fn allows_source(&self, source: MacAddress) -> bool {
        self.macs.as_ref().is_none_or(|macs| macs.binary_search(&source).is_ok())
    }

    /// Stations that may send; none of them may be behind another port.
    pub fn macs(&self) -> impl Iterator<Item = MacAddress> + '_ {
        self.macs.iter().flatten().copied()
    }

    /// Whether a frame of `len` bytes that begins with `head` says the truth about its sender, as far as the frame's source is
    /// one that may send.
    ///
    /// # Errors
    /// Why it is to be dropped.
    pub fn judge(&self, head: &[u8], len: usize) -> Result<(), DropReason> {
        let Some((ethertype, l3)) = network(head) else { return Err(self.unclear()) };
        match ethertype {
            ETHERTYPE_ARP | ETHERTYPE_RARP => self.arp(head, l3),
            ETHERTYPE_IPV4 => self.ipv4(head, l3),
            ETHERTYPE_IPV6 => self.ipv6(head, l3, len),
            more if is_tag(more) => Err(self.unclear()),
            len if len < ETHERTYPE_MIN && wraps_claims(head, l3) => Err(self.unclear()),
            _ => Ok(()),
        }
    }

    /// The guard that what cannot be judged is held against.
    fn unclear(&self) -> DropReason {
        if self.ips.is_some() { DropReason::GuardIp } else { DropReason::GuardMac }
    }

    fn is_own(&self, head: &[u8], claimed: Option<&[u8; 6]>) -> Result<(), DropReason> {
        let is_own = self.macs.is_none() || claimed.is_some_and(|mac| head.get(6..12) == Some(mac));
        if is_own { Ok(()) } else { Err(DropReason::GuardMac) }
    }

    fn arp(&self, head: &[u8], l3: usize) -> Result<(), DropReason> {
        let packet =
            head.get(l3..).and_then(|rest| rest.get(..arp::LEN)).filter(|packet| packet.starts_with(&arp::KIND));
        let packet = packet.ok_or(self.unclear())?;
        self.is_own(head, at(packet, arp::SENDER_MAC))?;
        let Some(ips) = &self.ips else { return Ok(()) };
        // A probe (RFC 5227) and RARP say nothing.
        match at(packet, arp::SENDER_IP).copied().map(Ipv4Addr::from) {
            Some(sender) if sender.is_unspecified() || ips.allow_v4(sender) => Ok(()),
            _ => Err(DropReason::GuardIp),
        }
    }

    fn ipv4(&self, head: &[u8], l3: usize) -> Result<(), DropReason> {
        let Some(ips) = &self.ips else { return Ok(()) };
        let packet = head.get(l3..).unwrap_or(&[]);
        let is_ipv4 = packet.first().is_some_and(|first| first >> 4 == 4 && first & 0x0f >= 5);
        match at::<4>(packet, 12).copied().map(Ipv4Addr::from) {
            Some(source) if is_ipv4 && (ips.allow_v4(source) || source.is_unspecified() && asks_dhcp(packet)) => Ok(()),
            _ => Err(DropReason::GuardIp),
        }
    }

    fn ipv6(&self, head: &[u8], l3: usize, len: usize) -> Result<(), DropReason> {
        let icmp = match Headers::judge(head, len) {
            Ok(headers) if headers.is_cut_off(len) => return Err(self.unclear()),
            Ok(headers) => match headers.protocol() {
                // Beyond the head nobody can tell what it says.
                Some(protocol::ICMPV6) => Some(head.get(headers.l4()..).ok_or(self.unclear())?),
                Some(_) => None,
                None => return Err(self.unclear()),
            },
            // Neighbour discovery in fragments is for nobody (RFC 6980).
            Err(Broken::Fragment) => None,
            Err(Broken::Nonsense) => return Err(self.unclear()),
        };
        let kind = icmp.map(|icmp| icmp.first().copied().ok_or(self.unclear())).transpose()?;
        let source = at::<16>(head, l3 + 8).copied().map(Ipv6Addr::from).ok_or(self.unclear())?;
        if let Some(ips) = &self.ips {
            let to_group = head.get(l3 + 24) == Some(&0xff);
            let may_be_nobody = to_group
                && kind.is_some_and(|kind| {
                    nd::REPORTS.contains(&kind) || [nd::ROUTER_SOLICITATION, nd::NEIGHBOUR_SOLICITATION].contains(&kind)
                });
            if !(ips.allow_v6(source) || source.is_unspecified() && may_be_nobody) {
                return Err(DropReason::GuardIp);
            }
        }
        let (Some(icmp), Some(kind)) = (icmp, kind) else { return Ok(()) };
        let Some(options) = nd::options(kind) else { return Ok(()) };
        let claims =
            kind == nd::NEIGHBOUR_ADVERTISEMENT || kind == nd::NEIGHBOUR_SOLICITATION && source.is_unspecified();
        if let (Some(ips), true) = (&self.ips, claims) {
            let target = at::<16>(icmp, nd::TARGET).copied().map(Ipv6Addr::from);
            if !target.is_some_and(|target| ips.allow_v6(target)) {
                return Err(DropReason::GuardIp);
            }
        }
        self.link_layer_options(head, icmp, options, packet_end(head, l3, len))
    }

    /// Whether the link-layer addresses among the options from `at` on are the sender's own.
    fn link_layer_options(&self, head: &[u8], icmp: &[u8], mut at: usize, end: usize) -> Result<(), DropReason> {
        if self.macs.is_none() {
            return Ok(());
        }
        let end = end.saturating_sub(head.len() - icmp.len());
        // Each turn goes 8 bytes on at least.
        while at < end {
            let Some(&[kind, words, ..]) = icmp.get(at..).and_then(|rest| rest.first_chunk::<8>()) else {
                return Err(self.unclear());
            };
            if words == 0 {
                return Err(self.unclear());
            }
            if nd::LINK_LAYER.contains(&kind) {
                self.is_own(head, self::at(icmp, at + 2))?;
            }
            at += usize::from(words) * 8;
        }
        Ok(())
    }
}

/// Where the IPv6 packet at `l3` ends, by its own word; after it there is only padding.
fn packet_end(head: &[u8], l3: usize, len: usize) -> usize {
    match at::<2>(head, l3 + 4).map(|len| usize::from(u16::from_be_bytes(*len))) {
        None | Some(0) => len,
        Some(payload) => len.min(l3 + 40 + payload),
    }
}

/// Whether an IPv4 packet is one by which a host without an address asks for one (RFC 2131).
fn asks_dhcp(packet: &[u8]) -> bool {
    let header_len = usize::from(packet.first().copied().unwrap_or(0) & 0x0f) * 4;
    let is_fragment = at::<2>(packet, 6).is_none_or(|word| u16::from_be_bytes(*word) & 0x3fff != 0);
    packet.get(9) == Some(&protocol::UDP)
        && !is_fragment
        && at(packet, 16) == Some(&[0xff; 4])
        && at(packet, header_len) == Some(&[0, 68, 0, 67])
}

/// Whether an LLC frame carries, behind a SNAP header (IEEE 802, section 9.5; RFC 1042), one of the protocols that are
/// judged: some hosts take it for the same as behind an EtherType (CVE-2021-27853 and those after it), and nobody needs it. What is
/// cut off may be one.
fn wraps_claims(head: &[u8], l3: usize) -> bool {
    const SNAP: [u8; 2] = [0xaa, 0xaa];
    const ORGANISATIONS: [[u8; 3]; 2] = [[0; 3], [0, 0, 0xf8]];
    let Some(llc) = at::<2>(head, l3) else { return true };
    if llc.map(|address| address & 0xfe) != SNAP {
        return false;
    }
    let Some(&[_, _, _, a, b, c, high, low]) = at::<8>(head, l3) else { return true };
    let ethertype = u16::from_be_bytes([high, low]);
    let is_judged = [ETHERTYPE_ARP, ETHERTYPE_RARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6].contains(&ethertype);
    ORGANISATIONS.contains(&[a, b, c]) && (is_judged || is_tag(ethertype))
}

fn at<const N: usize>(bytes: &[u8], at: usize) -> Option<&[u8; N]> {
    bytes.get(at..)?.first_chunk()
}

impl Addresses {
    /// Where IPv6 is allowed, a station also has the link-local address that is made of its MAC (RFC 4291, appendix A).
    fn new(ips: &[IpPrefix], macs: &[MacAddress]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for prefix in ips {
            match prefix.address {
                IpAddr::V4(address) => {
                    v4.push((address.to_bits(), u32::MAX.checked_shl(32 - u32::from(prefix.len)).unwrap_or(0)));
                }
                IpAddr::V6(address) => {
                    v6.push((address.to_bits(), u128::MAX.checked_shl(128 - u32::from(prefix.len)).unwrap_or(0)));
                }
            }
        }
        if !v6.is_empty() {
            v6.extend(macs.iter().map(|mac| (link_local(*mac).to_bits(), u128::MAX)));
        }
        Self { v4: v4.into(), v6: v6.into() }
    }

    fn allow_v4(&self, address: Ipv4Addr) -> bool {
        self.v4.iter().any(|(network, mask)| address.to_bits() & mask == *network)
    }

    fn allow_v6(&self, address: Ipv6Addr) -> bool {
        self.v6.iter().any(|(network, mask)| address.to_bits() & mask == *network)
    }
}

fn link_local(mac: MacAddress) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.bytes();
    [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f].into()
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
