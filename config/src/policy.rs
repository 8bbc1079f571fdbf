//! What ports and bridges may do, as planned.

use std::fmt;
use std::net::IpAddr;

use crate::vlan::Vlan;

/// Stations that the whole switch remembers unless told.
pub const MACS_MAX_DEFAULT: u32 = 32_768;
/// Stations behind a guest's port, unless told.
pub const PORT_MACS_MAX_DEFAULT: u32 = 1024;
/// Stations behind a NIC, unless told.
pub const NIC_MACS_MAX_DEFAULT: u32 = 8192;
/// Stations a second that may move to a port, unless told.
pub const MAC_MOVES_DEFAULT: u32 = 100;
/// Frames a second that a port may have flooded, unless told.
pub const STORM_LIMIT_DEFAULT: u64 = 10_000;

/// Bytes of a MAC address, in the order of the wire.
pub type Mac = [u8; 6];

/// What a bridge does beside forwarding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgePolicy {
    /// Stations that it remembers: 1 to 1,048,576.
    pub macs_max: u32,
    /// What it floods.
    pub flood: Flood,
    /// Whether frames to 01:80:c2:00:00:00 to 0f go on as other multicast does.
    pub forward_link_local: bool,
}

impl Default for BridgePolicy {
    fn default() -> Self {
        Self { macs_max: MACS_MAX_DEFAULT, flood: Flood::default(), forward_link_local: false }
    }
}

/// What a bridge floods; what it does not is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flood {
    /// To a station that is not known.
    pub unknown_unicast: bool,
    /// To ff:ff:ff:ff:ff:ff.
    pub broadcast: bool,
    /// To another group.
    pub multicast: bool,
}

impl Default for Flood {
    fn default() -> Self {
        Self { unknown_unicast: true, broadcast: true, multicast: true }
    }
}

impl Flood {
    /// The words that an operator writes.
    pub const WORDS: [&str; 3] = ["unknown_unicast", "broadcast", "multicast"];
}

/// What a port may do. The default is what a port has of which nothing is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortPolicy {
    /// VLANs.
    pub vlan: Vlan,
    /// The only stations that may send, ascending, none twice, never empty; `None` for any.
    pub allowed_macs: Option<Vec<Mac>>,
    /// The only addresses that may be sent from, none within another, never empty; `None` for any.
    pub allowed_ips: Option<Vec<IpPrefix>>,
    /// Stations that are here and nowhere else, whatever is seen.
    pub static_macs: Vec<StaticMac>,
    /// It exchanges no frames with other isolated ports.
    pub isolated: bool,
    /// Frames a second that are flooded for it, at least 1.
    pub storm_limit: u64,
    /// What may come from it.
    pub limit_in: Option<RateLimit>,
    /// What may go to it.
    pub limit_out: Option<RateLimit>,
    /// Stations remembered behind it: 1 to 1,048,576.
    pub macs_max: u32,
    /// Stations a second that may move to it from other ports, at least 1.
    pub mac_moves_per_second: u32,
}

impl Default for PortPolicy {
    fn default() -> Self {
        Self {
            vlan: Vlan::default(),
            allowed_macs: None,
            allowed_ips: None,
            static_macs: Vec::new(),
            isolated: false,
            storm_limit: STORM_LIMIT_DEFAULT,
            limit_in: None,
            limit_out: None,
            macs_max: PORT_MACS_MAX_DEFAULT,
            mac_moves_per_second: MAC_MOVES_DEFAULT,
        }
    }
}

/// A station that an operator has put behind a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaticMac {
    /// Not a group's, not all zeros.
    pub mac: Mac,
    /// In which VLAN, one of the port's; 0 for none.
    pub vlan: u16,
}

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Of what.
    pub unit: RateUnit,
    /// How many a second: 1 to 10^12.
    pub per_second: u64,
    /// How many at once after a silence: 1 to 10^12.
    pub burst: u64,
}

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateUnit {
    /// Frames; one that is to be segmented counts for as many as become of it.
    Frames,
    /// Bytes of frames, from the destination address on.
    Bytes,
}

impl RateUnit {
    /// Its name in `show`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Frames => "frames",
            Self::Bytes => "bytes",
        }
    }
}

/// Addresses that begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpPrefix {
    /// The first of them.
    pub address: IpAddr,
    /// Bits that they share: 0 to 32, or 128.
    pub len: u8,
}

impl IpPrefix {
    /// The bits of an address that count, at the top of 128, and how many all are.
    fn bits(address: IpAddr) -> (u128, u8) {
        match address {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
            IpAddr::V6(v6) => (v6.to_bits(), 128),
        }
    }

    /// The mask of the bits that are shared, at the top of 128.
    fn mask(len: u8) -> u128 {
        u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
    }

    /// Reads `ADDRESS` or `ADDRESS/LEN`. The bits beyond the prefix are not looked at.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, len) = match text.split_once('/') {
            Some((address, len)) => (address, Some(len)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let all = Self::bits(address).1;
        // No sign, no space, no leading zeros: as everybody writes it.
        let is_plain = |len: &&str| len.len() <= 3 && len.bytes().all(|c| c.is_ascii_digit());
        let len = match len {
            None => all,
            Some(len) => len.parse().ok().filter(|_| is_plain(&len)).filter(|&len| len <= all)?,
        };
        Some(Self { address, len })
    }

    /// The same with all bits beyond the prefix zero.
    #[must_use]
    pub fn network(self) -> Self {
        let bits = Self::bits(self.address).0 & Self::mask(self.len);
        let address = match self.address {
            IpAddr::V4(_) => IpAddr::V4(((bits >> 96) as u32).into()),
            IpAddr::V6(_) => IpAddr::V6(bits.into()),
        };
        Self { address, ..self }
    }

    /// Whether `address` is one of them.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        let ((own, all), (bits, other)) = (Self::bits(self.address), Self::bits(address));
        all == other && (own ^ bits) & Self::mask(self.len) == 0
    }

    /// Whether an address is in both.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        if self.len <= other.len { self.contains(other.address) } else { other.contains(self.address) }
    }
}

impl fmt::Display for IpPrefix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.len == Self::bits(self.address).1 {
            self.address.fmt(out)
        } else {
            write!(out, "{}/{}", self.address, self.len)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> IpPrefix {
        IpPrefix::parse(text).unwrap_or_else(|| panic!("{text} is not read"))
    }

    #[test]
    fn prefixes_read_as_they_are_written() {
        for text in ["10.0.0.1", "10.0.0.0/8", "0.0.0.0/0", "2001:db8::/32", "::1", "::/0"] {
            assert_eq!(prefix(text).to_string(), text);
        }
        assert_eq!(prefix("10.0.0.1/32").to_string(), "10.0.0.1");
        for bad in ["", "10.0.0", "10.0.0.1/", "10.0.0.1/33", "::/129", "::/+8", "10.0.0.1/ 8", "/8", "::/0008"] {
            assert_eq!(IpPrefix::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_a_prefix_contains() {
        let contains = |text: &str, address: &str| prefix(text).contains(address.parse().unwrap());
        assert!(contains("10.0.0.0/8", "10.255.1.2") && !contains("10.0.0.0/8", "11.0.0.0"));
        assert!(contains("0.0.0.0/0", "255.255.255.255") && !contains("0.0.0.0/0", "::"));
        assert!(contains("2001:db8::/32", "2001:db8:ffff::1") && !contains("2001:db8::/32", "2001:db9::"));
        assert_eq!(prefix("10.1.2.3/8").network(), prefix("10.0.0.0/8"));
        assert!(
            prefix("10.0.0.0/8").overlaps(prefix("10.9.0.0/16"))
                && prefix("10.9.0.0/16").overlaps(prefix("10.0.0.0/8"))
        );
        assert!(!prefix("10.8.0.0/16").overlaps(prefix("10.9.0.0/16")));
    }
}
