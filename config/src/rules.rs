//! What a bridge or a port may do, from the file as written.

use std::ops::RangeInclusive;

use toml::Spanned;

use crate::error::{Error, Problem};
use crate::policy::{BridgePolicy, Flood, IpPrefix, Mac, PortPolicy, RateLimit, RateUnit, StaticMac};
use crate::raw::{Number, RawBridge, RawLimit, RawPort, RawStaticMac, RawVlans, Table, Text};
use crate::source::Source;
use crate::vlan::{VLAN_MAX, Vlan, VlanSet};
use crate::words::unknown_word;

/// Stations that may be remembered: 1,048,576 take 50 MB.
pub(crate) const MACS_MAX: RangeInclusive<u64> = 1..=1 << 20;
const RATE: RangeInclusive<u64> = 1..=1_000_000_000_000;
const STORM: RangeInclusive<u64> = 1..=1_000_000_000;
const MOVES: RangeInclusive<u64> = 1..=1_000_000;

/// A number within its range.
pub(crate) fn number<T: TryFrom<u64>>(
    source: &Source<'_>,
    written: Option<&Number>,
    what: &'static str,
    range: RangeInclusive<u64>,
) -> Result<Option<T>, Error> {
    let Some(written) = written else { return Ok(None) };
    let given = *written.as_ref();
    let value = u64::try_from(given).ok().filter(|value| range.contains(value));
    match value.and_then(|value| T::try_from(value).ok()) {
        Some(value) => Ok(Some(value)),
        None => {
            let (min, max) = (*range.start(), *range.end());
            Err(source.refuse(written.span(), Problem::OutOfRange { what, given, min, max }))
        }
    }
}

/// What a bridge does beside forwarding.
pub(crate) fn bridge(source: &Source<'_>, raw: &RawBridge) -> Result<BridgePolicy, Error> {
    let default = BridgePolicy::default();
    Ok(BridgePolicy {
        macs_max: number(source, raw.macs_max.as_ref(), "limit of stations", MACS_MAX)?.unwrap_or(default.macs_max),
        flood: flood(source, raw.flood.as_deref())?,
        forward_link_local: raw.forward_link_local.unwrap_or(default.forward_link_local),
    })
}

fn flood(source: &Source<'_>, written: Option<&[Text]>) -> Result<Flood, Error> {
    let Some(words) = written else { return Ok(Flood::default()) };
    let mut flood = Flood { unknown_unicast: false, broadcast: false, multicast: false };
    for word in words {
        let flag = match word.as_ref().as_str() {
            "unknown_unicast" => &mut flood.unknown_unicast,
            "broadcast" => &mut flood.broadcast,
            "multicast" => &mut flood.multicast,
            _ => return Err(unknown_word(source, word, "kind of frame", &Flood::WORDS)),
        };
        if std::mem::replace(flag, true) {
            let value = format!("`{}`", word.as_ref());
            return Err(source.refuse(word.span(), Problem::ListedTwice { what: "kind of frame", value }));
        }
    }
    Ok(flood)
}

/// What of a bridge's addresses was given to which port.
#[derive(Debug)]
struct Claim<T> {
    value: T,
    bridge: usize,
    vlan: Vlan,
    port: String,
    line: usize,
}

/// Addresses that ports were given so far: none may be two ports' of one bridge in one VLAN.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    macs: Vec<Claim<Mac>>,
    prefixes: Vec<Claim<IpPrefix>>,
}

impl Claims {
    /// What port `name` of bridge number `bridge` may do.
    pub(crate) fn port(
        &mut self,
        source: &Source<'_>,
        name: &str,
        bridge: usize,
        raw: &RawPort,
        default: PortPolicy,
    ) -> Result<PortPolicy, Error> {
        let vlan = vlan(source, raw)?;
        let allowed_macs = self.allowed_macs(source, (name, bridge, &vlan), raw)?;
        let allowed_ips = self.allowed_ips(source, (name, bridge, &vlan), raw)?;
        let static_macs = self.static_macs(source, (name, bridge, &vlan), raw, allowed_macs.as_deref())?;
        Ok(PortPolicy {
            allowed_macs,
            allowed_ips,
            static_macs,
            isolated: raw.isolated.unwrap_or(default.isolated),
            storm_limit: number(source, raw.storm_limit.as_ref(), "storm limit", STORM)?.unwrap_or(default.storm_limit),
            limit_in: limit(source, raw.limit_in.as_ref(), "limit_in")?,
            limit_out: limit(source, raw.limit_out.as_ref(), "limit_out")?,
            macs_max: number(source, raw.macs_max.as_ref(), "limit of stations", MACS_MAX)?.unwrap_or(default.macs_max),
            mac_moves_per_second: number(source, raw.mac_moves_per_second.as_ref(), "limit of moves", MOVES)?
                .unwrap_or(default.mac_moves_per_second),
            vlan,
        })
    }

    fn allowed_macs(
        &mut self,
        source: &Source<'_>,
        (port, bridge, vlan): (&str, usize, &Vlan),
        raw: &RawPort,
    ) -> Result<Option<Vec<Mac>>, Error> {
        let Some(list) = listed(source, raw.allowed_macs.as_ref(), "allowed_macs")? else { return Ok(None) };
        let mut macs = Vec::new();
        for written in list {
            let value = mac(source, written)?;
            if macs.contains(&value) {
                return Err(source.refuse(written.span(), Problem::ListedTwice { what: "MAC", value: shown(value) }));
            }
            macs.push(value);
            self.claim_mac(source, value, written, (port, bridge, vlan))?;
        }
        macs.sort_unstable();
        Ok(Some(macs))
    }

    /// A static entry or a guard on one port forbids the address to every other.
    fn claim_mac(
        &mut self,
        source: &Source<'_>,
        value: Mac,
        written: &Text,
        (port, bridge, vlan): (&str, usize, &Vlan),
    ) -> Result<(), Error> {
        let held = |claim: &&Claim<Mac>| claim.bridge == bridge && claim.value == value && claim.vlan.overlaps(vlan);
        if let Some(claim) = self.macs.iter().filter(|claim| claim.port != port).find(held) {
            let problem = overlap("MAC", shown(value), claim);
            return Err(source.refuse(written.span(), problem));
        }
        let (port, vlan) = (port.to_owned(), vlan.clone());
        self.macs.push(Claim { value, bridge, vlan, port, line: source.line(&written.span()) });
        Ok(())
    }

    fn allowed_ips(
        &mut self,
        source: &Source<'_>,
        (port, bridge, vlan): (&str, usize, &Vlan),
        raw: &RawPort,
    ) -> Result<Option<Vec<IpPrefix>>, Error> {
        let Some(list) = listed(source, raw.allowed_ips.as_ref(), "allowed_ips")? else { return Ok(None) };
        let mut prefixes: Vec<IpPrefix> = Vec::new();
        for written in list {
            let value = prefix(source, written)?;
            if let Some(other) = prefixes.iter().find(|other| other.overlaps(value)) {
                let (first, second) = (other.to_string(), value.to_string());
                return Err(source.refuse(written.span(), Problem::PrefixInPrefix { first, second }));
            }
            let held = |claim: &&Claim<IpPrefix>| {
                claim.bridge == bridge && claim.value.overlaps(value) && claim.vlan.overlaps(vlan)
            };
            if let Some(claim) = self.prefixes.iter().filter(|claim| claim.port != port).find(held) {
                return Err(source.refuse(written.span(), overlap("address", value.to_string(), claim)));
            }
            prefixes.push(value);
            let (port, vlan) = (port.to_owned(), vlan.clone());
            self.prefixes.push(Claim { value, bridge, vlan, port, line: source.line(&written.span()) });
        }
        Ok(Some(prefixes))
    }

    fn static_macs(
        &mut self,
        source: &Source<'_>,
        (port, bridge, vlan): (&str, usize, &Vlan),
        raw: &RawPort,
        allowed: Option<&[Mac]>,
    ) -> Result<Vec<StaticMac>, Error> {
        let mut entries: Vec<StaticMac> = Vec::new();
        for table in &raw.static_macs {
            let Table(RawStaticMac { mac: written, vlan: number }) = table.as_ref();
            let missing =
                Problem::MissingInner { table: "this static MAC", key: "mac", example: "\"52:54:00:00:00:01\"" };
            let written = written.as_ref().ok_or_else(|| source.refuse(table.span(), missing))?;
            let mac = mac(source, written)?;
            let entry = StaticMac { mac, vlan: static_vlan(source, table, number.as_ref(), vlan)? };
            if entries.contains(&entry) {
                let problem = Problem::ListedTwice { what: "static MAC", value: shown(mac) };
                return Err(source.refuse(written.span(), problem));
            }
            if allowed.is_some_and(|allowed| !allowed.contains(&mac)) {
                return Err(source.refuse(written.span(), Problem::StaticNotAllowed(shown(mac))));
            }
            let only = if entry.vlan == 0 { Vlan::Transparent } else { Vlan::Access(entry.vlan) };
            self.claim_mac(source, mac, written, (port, bridge, &only))?;
            entries.push(entry);
        }
        Ok(entries)
    }
}

fn overlap<T>(what: &'static str, value: String, claim: &Claim<T>) -> Problem {
    Problem::GuardsOverlap { what, value, port: claim.port.clone(), line: claim.line }
}

/// A list that says who may send; an empty one says nobody, which nobody means.
fn listed<'a>(
    source: &Source<'_>,
    written: Option<&'a Spanned<Vec<Text>>>,
    key: &'static str,
) -> Result<Option<&'a [Text]>, Error> {
    match written {
        Some(list) if list.as_ref().is_empty() => Err(source.refuse(list.span(), Problem::EmptyGuard { key })),
        written => Ok(written.map(|list| list.as_ref().as_slice())),
    }
}

fn vlan(source: &Source<'_>, raw: &RawPort) -> Result<Vlan, Error> {
    let access = raw.access_vlan.as_ref().map(|written| vlan_number(source, written)).transpose()?;
    let native = raw.native_vlan.as_ref().map(|written| vlan_number(source, written)).transpose()?;
    let Some(trunk) = &raw.trunk_vlans else {
        if let (Some(native), Some(written)) = (native, &raw.native_vlan) {
            return Err(source.refuse(written.span(), Problem::NativeWithoutTrunk(native)));
        }
        return Ok(access.map_or(Vlan::Transparent, Vlan::Access));
    };
    if access.is_some() {
        return Err(source.refuse(trunk.span(), Problem::AccessAndTrunk));
    }
    if trunk.as_ref().is_empty() {
        return Err(source.refuse(trunk.span(), Problem::NoVlan));
    }
    let mut allowed = VlanSet::default();
    for written in trunk.as_ref() {
        for vlan in vlans(source, written)? {
            if !allowed.insert(vlan) {
                let problem = Problem::ListedTwice { what: "VLAN", value: vlan.to_string() };
                return Err(source.refuse(written.span(), problem));
            }
        }
    }
    match (native, &raw.native_vlan) {
        (Some(native), Some(written)) if !allowed.contains(native) => {
            Err(source.refuse(written.span(), Problem::NativeNotAllowed(native)))
        }
        _ => Ok(Vlan::Trunk { allowed, native }),
    }
}

fn vlan_number(source: &Source<'_>, written: &Number) -> Result<u16, Error> {
    a_vlan(*written.as_ref()).ok_or_else(|| source.refuse(written.span(), Problem::BadVlan(*written.as_ref())))
}

fn a_vlan(given: i128) -> Option<u16> {
    u16::try_from(given).ok().filter(|vlan| (1..=VLAN_MAX).contains(vlan))
}

fn vlans(source: &Source<'_>, written: &Spanned<RawVlans>) -> Result<RangeInclusive<u16>, Error> {
    let (range, problem) = match written.as_ref() {
        RawVlans::One(given) => (a_vlan(*given).map(|vlan| vlan..=vlan), Problem::BadVlan(*given)),
        RawVlans::Range(text) => {
            let end = |text: &str| text.trim().parse().ok().and_then(a_vlan);
            let range = text.split_once('-').and_then(|(low, high)| Some(end(low)?..=end(high)?));
            (range.filter(|range| !range.is_empty()), Problem::BadVlanRange(text.clone()))
        }
    };
    range.ok_or_else(|| source.refuse(written.span(), problem))
}

fn static_vlan(
    source: &Source<'_>,
    table: &Spanned<Table<RawStaticMac>>,
    written: Option<&Number>,
    port: &Vlan,
) -> Result<u16, Error> {
    let given = written.map(|written| vlan_number(source, written)).transpose()?;
    match (given, port) {
        (None, Vlan::Transparent) => Ok(0),
        (None, Vlan::Access(id)) => Ok(*id),
        (None, Vlan::Trunk { native: Some(native), .. }) => Ok(*native),
        (None, Vlan::Trunk { allowed, .. }) => {
            let example = allowed.iter().next().unwrap_or(1);
            Err(source.refuse(table.span(), Problem::StaticWithoutVlan(example)))
        }
        (Some(vlan), port) if port.contains(vlan) => Ok(vlan),
        (Some(vlan), port) => {
            let span = written.map_or(table.span(), Spanned::span);
            Err(source.refuse(span, Problem::StaticVlan { vlan, allowed: port.to_string() }))
        }
    }
}

/// The address of a station.
fn mac(source: &Source<'_>, written: &Text) -> Result<Mac, Error> {
    let text = written.as_ref();
    let refuse = |problem: fn(String) -> Problem| source.refuse(written.span(), problem(text.clone()));
    let mac = parse_mac(text).ok_or_else(|| refuse(Problem::BadMac))?;
    match mac {
        [0, 0, 0, 0, 0, 0] => Err(refuse(Problem::ZeroMac)),
        [first, ..] if first & 1 != 0 => Err(refuse(Problem::GroupMac)),
        mac => Ok(mac),
    }
}

fn parse_mac(text: &str) -> Option<Mac> {
    let mut mac = Mac::default();
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2 && part.bytes().all(|c| c.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

fn shown([a, b, c, d, e, f]: Mac) -> String {
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

fn prefix(source: &Source<'_>, written: &Text) -> Result<IpPrefix, Error> {
    let given = written.as_ref();
    let prefix =
        IpPrefix::parse(given).ok_or_else(|| source.refuse(written.span(), Problem::BadPrefix(given.clone())))?;
    let network = prefix.network();
    if network != prefix {
        let (given, network, address) = (given.clone(), network.to_string(), prefix.address.to_string());
        return Err(source.refuse(written.span(), Problem::BitsBeyondPrefix { given, network, address }));
    }
    Ok(prefix)
}

/// A token bucket; unless told, a tenth of a second's worth may come at once.
fn limit(
    source: &Source<'_>,
    written: Option<&Spanned<Table<RawLimit>>>,
    key: &'static str,
) -> Result<Option<RateLimit>, Error> {
    let Some(table) = written else { return Ok(None) };
    let Table(raw) = table.as_ref();
    let frames = number(source, raw.frames_per_second.as_ref(), "limit of frames a second", RATE)?;
    let bytes = number(source, raw.bytes_per_second.as_ref(), "limit of bytes a second", RATE)?;
    let (unit, per_second): (_, u64) = match (frames, bytes) {
        (Some(frames), None) => (RateUnit::Frames, frames),
        (None, Some(bytes)) => (RateUnit::Bytes, bytes),
        _ => return Err(source.refuse(table.span(), Problem::LimitUnit { key })),
    };
    let burst = number(source, raw.burst.as_ref(), "burst", RATE)?.unwrap_or((per_second / 10).max(1));
    Ok(Some(RateLimit { unit, per_second, burst }))
}
