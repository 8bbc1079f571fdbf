//! From the file as written to the plan: every rule that the types of `raw` do not already hold.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use crate::device::Devices;
use crate::error::{Error, Problem};
use crate::plan::{Bridge, Feature, Mode, Nic, Plan, Port, PortKind, VhostUser, Workers};
use crate::policy::{MACS_MAX_DEFAULT, NIC_MACS_MAX_DEFAULT, PORT_MACS_MAX_DEFAULT, PortPolicy};
use crate::raw::{Number, Raw, RawBridge, RawPort, Table, Text};
use crate::rules::{self, Claims, MACS_MAX};
use crate::socket::{self, Sockets};
use crate::source::Source;
use crate::words::{Names, backquoted, required, unknown_word};
use crate::workers::{pin, workers};

const CONTROL_SOCKET_DEFAULT: &str = "/run/ringway/control.sock";
const METRICS_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9477);
const MAC_AGEING_DEFAULT: Duration = Duration::from_secs(300);
/// The kinds of ports.
const VHOST_USER: &str = "vhost-user";
const NIC: &str = "nic";
/// A day.
pub(crate) const MAC_AGEING_SECONDS_MAX: u64 = 86_400;
/// What Ethernet carries without jumbo frames.
const MTU_DEFAULT: u16 = 1500;
/// The least that IPv4 asks of a link (RFC 791).
pub(crate) const MTU_MIN: u16 = 68;
/// The largest MTU that a port may have, in bytes: jumbo frames as nearly everybody has them.
pub const MTU_MAX: u16 = 9000;
/// Queues of a NIC, which is what net_tap has at most.
pub(crate) const NIC_QUEUES_MAX: u16 = 16;
/// Below it DPDK does not start; beyond it, it would not come to an end.
const NIC_MEMORY_MIB: RangeInclusive<u64> = 64..=65_536;

/// The plan, or the first thing wrong with what was written.
pub(crate) fn validate(source: &Source<'_>, raw: Raw, directory_exists: impl Fn(&Path) -> bool) -> Result<Plan, Error> {
    let control_socket = match &raw.control_socket {
        Some(written) => socket::path(source, written)?,
        None => PathBuf::from(CONTROL_SOCKET_DEFAULT),
    };
    let metrics = metrics(source, raw.metrics.as_ref())?;
    let macs_max =
        rules::number(source, raw.macs_max.as_ref(), "limit of stations", MACS_MAX)?.unwrap_or(MACS_MAX_DEFAULT);
    let nic_allowed = nic_allowed(source, raw.nic.as_ref())?;
    let nic_memory_mib =
        rules::number(source, raw.nic_memory_mib.as_ref(), "size of DPDK's memory in MiB", NIC_MEMORY_MIB)?;
    let workers = workers(source, raw.workers.map(|table| table.0))?;
    let bridges = bridges(source, raw.bridge)?;
    let sockets = Sockets::new(&control_socket, directory_exists);
    let ports = ports(source, raw.port, &bridges, &workers, sockets)?;
    Ok(Plan { control_socket, metrics, macs_max, nic_allowed, nic_memory_mib, workers, bridges, ports })
}

fn metrics(source: &Source<'_>, written: Option<&Text>) -> Result<Option<SocketAddr>, Error> {
    let Some(written) = written else {
        return Ok(Some(METRICS_DEFAULT));
    };
    if written.as_ref() == "off" {
        return Ok(None);
    }
    written.as_ref().parse().map(Some).map_err(|_| {
        let given = written.as_ref().clone();
        source.refuse(written.span(), Problem::BadMetrics(given))
    })
}

fn nic_allowed(source: &Source<'_>, written: Option<&Text>) -> Result<bool, Error> {
    match written {
        None => Ok(false),
        Some(written) if written.as_ref() == "allowed" => Ok(true),
        Some(written) => Err(unknown_word(source, written, "value of `nic`", &["allowed"])),
    }
}

fn bridges(source: &Source<'_>, raw: Vec<Spanned<Table<RawBridge>>>) -> Result<Vec<Bridge>, Error> {
    let mut names = Names::of("bridge");
    raw.into_iter()
        .map(|written| {
            let (table, Table(mut raw)) = (written.span(), written.into_inner());
            let name = required(source, &table, raw.name.take(), ("bridge", "name", "br0"))?;
            Ok(Bridge {
                name: names.claim(source, &name)?,
                mac_ageing: mac_ageing(source, raw.mac_ageing_seconds.as_ref())?,
                policy: rules::bridge(source, &raw)?,
            })
        })
        .collect()
}

fn mac_ageing(source: &Source<'_>, written: Option<&Number>) -> Result<Duration, Error> {
    let Some(written) = written else {
        return Ok(MAC_AGEING_DEFAULT);
    };
    match u64::try_from(*written.as_ref()) {
        Ok(seconds @ 1..=MAC_AGEING_SECONDS_MAX) => Ok(Duration::from_secs(seconds)),
        _ => Err(source.refuse(written.span(), Problem::BadAgeing(*written.as_ref()))),
    }
}

fn ports(
    source: &Source<'_>,
    raw: Vec<Spanned<Table<RawPort>>>,
    bridges: &[Bridge],
    workers: &Workers,
    mut sockets: Sockets<impl Fn(&Path) -> bool>,
) -> Result<Vec<Port>, Error> {
    let (mut names, mut devices, mut claims) = (Names::of("port"), Devices::default(), Claims::default());
    raw.into_iter()
        .map(|written| {
            let (table, Table(mut raw)) = (written.span(), written.into_inner());
            let name = required(source, &table, raw.name.take(), ("port", "name", "vm1"))?;
            let name = names.claim(source, &name)?;
            let kind = required(source, &table, raw.kind.take(), ("port", "kind", "vhost-user"))?;
            let is_nic = is_nic(source, &kind)?;
            let bridge = bridge_index(source, &table, raw.bridge.take(), bridges)?;
            let mtu = mtu(source, raw.mtu.take())?;
            let pin = pin(source, &raw, workers)?;
            let kind = if is_nic {
                not_of_this_kind(source, "worker_cpus", raw.worker_cpus.as_ref(), VHOST_USER)?;
                not_of_this_kind(source, "worker_node", raw.worker_node.as_ref(), VHOST_USER)?;
                not_of_this_kind(source, "socket", raw.socket.as_ref(), VHOST_USER)?;
                not_of_this_kind(source, "mode", raw.mode.as_ref(), VHOST_USER)?;
                not_of_this_kind(source, "mask_features", raw.mask_features.as_ref(), VHOST_USER)?;
                let uplink = devices.uplink(source, &table, &mut raw)?;
                PortKind::Nic(Nic { uplink, queues: queues(source, raw.queues.take())? })
            } else {
                not_of_this_kind(source, "device", raw.device.as_ref(), NIC)?;
                not_of_this_kind(source, "bond", raw.bond.as_ref(), NIC)?;
                not_of_this_kind(source, "queues", raw.queues.as_ref(), NIC)?;
                let written = required(source, &table, raw.socket.take(), ("port", "socket", "/run/guests/vm1.sock"))?;
                let socket = sockets.claim(source, &written)?;
                let mode = mode(source, raw.mode.take())?;
                let masked = raw.mask_features.take().map(Spanned::into_inner).unwrap_or_default();
                let mask_features = mask_features(source, masked)?;
                PortKind::VhostUser(VhostUser { socket, mode, mask_features })
            };
            let macs_max = if is_nic { NIC_MACS_MAX_DEFAULT } else { PORT_MACS_MAX_DEFAULT };
            let default = PortPolicy { macs_max, ..PortPolicy::default() };
            let policy = claims.port(source, &name, bridge, &raw, default)?;
            Ok(Port { name, bridge, mtu, pin, kind, policy })
        })
        .collect()
}

fn is_nic(source: &Source<'_>, written: &Text) -> Result<bool, Error> {
    match written.as_ref().as_str() {
        VHOST_USER => Ok(false),
        NIC => Ok(true),
        _ => Err(unknown_word(source, written, "kind", &[VHOST_USER, NIC])),
    }
}

fn not_of_this_kind<T>(
    source: &Source<'_>,
    key: &'static str,
    written: Option<&Spanned<T>>,
    kind: &'static str,
) -> Result<(), Error> {
    match written {
        None => Ok(()),
        Some(written) => Err(source.refuse(written.span(), Problem::KeyOfAnotherKind { key, kind })),
    }
}

fn bridge_index(
    source: &Source<'_>,
    table: &Range<usize>,
    written: Option<Text>,
    bridges: &[Bridge],
) -> Result<usize, Error> {
    let known: Vec<&str> = bridges.iter().map(|bridge| bridge.name.as_str()).collect();
    let Some(written) = written else {
        let advice = match known.as_slice() {
            [] => "the name of a [[bridge]], of which there is none yet: add one".to_owned(),
            known => format!("one of {}", backquoted(known)),
        };
        return Err(source.refuse(table.clone(), Problem::NoBridge(advice)));
    };
    known.iter().position(|name| name == written.as_ref()).ok_or_else(|| {
        let advice = match known.as_slice() {
            [] => "a [[bridge]] of that name, to be added: there is none at all".to_owned(),
            known => format!("one of {}, or add a [[bridge]] with that name", backquoted(known)),
        };
        let given = written.as_ref().clone();
        source.refuse(written.span(), Problem::UnknownBridge { given, advice })
    })
}

fn mode(source: &Source<'_>, written: Option<Text>) -> Result<Mode, Error> {
    let Some(written) = written else {
        return Ok(Mode::Client);
    };
    let named = Mode::ALL.into_iter().find(|mode| mode.as_str() == written.as_ref());
    named.ok_or_else(|| unknown_word(source, &written, "mode", &Mode::ALL.map(Mode::as_str)))
}

fn mtu(source: &Source<'_>, written: Option<Number>) -> Result<u16, Error> {
    let Some(written) = written else {
        return Ok(MTU_DEFAULT);
    };
    let (span, given) = (written.span(), written.into_inner());
    match u16::try_from(given) {
        Ok(mtu @ MTU_MIN..=MTU_MAX) => Ok(mtu),
        _ => Err(source.refuse(span, Problem::BadMtu(given))),
    }
}

fn queues(source: &Source<'_>, written: Option<Number>) -> Result<Option<u16>, Error> {
    let Some(written) = written else { return Ok(None) };
    let (span, given) = (written.span(), written.into_inner());
    match u16::try_from(given) {
        Ok(queues @ 1..=NIC_QUEUES_MAX) => Ok(Some(queues)),
        _ => Err(source.refuse(span, Problem::BadQueues(given))),
    }
}

fn mask_features(source: &Source<'_>, written: Vec<Text>) -> Result<Vec<Feature>, Error> {
    let mut features = Vec::new();
    for word in written {
        let named = Feature::ALL.into_iter().find(|one| one.as_str() == word.as_ref());
        let feature =
            named.ok_or_else(|| unknown_word(source, &word, "feature", &Feature::ALL.map(Feature::as_str)))?;
        if features.contains(&feature) {
            let (what, value) = ("feature", format!("`{}`", feature.as_str()));
            return Err(source.refuse(word.span(), Problem::ListedTwice { what, value }));
        }
        features.push(feature);
    }
    Ok(features)
}
