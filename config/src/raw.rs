//! The file as written: every key optional, every value with its place in the text.
//!
//! Keys are optional here even where the switch needs them, because a missing key is then found by validation, which
//! knows what to advise. Numbers are wider than any allowed value, so that one out of range is told its range rather
//! than its type; words with a meaning (kinds, modes, features) stay text for the same reason.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

pub(crate) type Text = Spanned<String>;
pub(crate) type Number = Spanned<i128>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Raw {
    pub(crate) control_socket: Option<Text>,
    pub(crate) metrics: Option<Text>,
    pub(crate) macs_max: Option<Number>,
    pub(crate) nic: Option<Text>,
    pub(crate) nic_memory_mib: Option<Number>,
    pub(crate) workers: Option<Table<RawWorkers>>,
    #[serde(default)]
    pub(crate) bridge: Vec<Spanned<Table<RawBridge>>>,
    #[serde(default)]
    pub(crate) port: Vec<Spanned<Table<RawPort>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawWorkers {
    pub(crate) cpus: Option<Spanned<Vec<Number>>>,
    pub(crate) per_socket: Option<Number>,
    pub(crate) count: Option<Text>,
    pub(crate) count_max: Option<Number>,
    pub(crate) reserved_cpus: Option<Spanned<Vec<Number>>>,
    pub(crate) placement: Option<Text>,
    pub(crate) policy: Option<Text>,
    pub(crate) idle: Option<Text>,
    pub(crate) flow_table_entries: Option<Number>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawBridge {
    pub(crate) name: Option<Text>,
    pub(crate) mac_ageing_seconds: Option<Number>,
    pub(crate) macs_max: Option<Number>,
    pub(crate) flood: Option<Vec<Text>>,
    pub(crate) forward_link_local: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawPort {
    pub(crate) name: Option<Text>,
    pub(crate) kind: Option<Text>,
    pub(crate) bridge: Option<Text>,
    pub(crate) socket: Option<Text>,
    pub(crate) device: Option<Text>,
    pub(crate) bond: Option<Spanned<Table<RawBond>>>,
    pub(crate) queues: Option<Number>,
    pub(crate) mode: Option<Text>,
    pub(crate) mtu: Option<Number>,
    pub(crate) worker_cpus: Option<Spanned<Vec<Number>>>,
    pub(crate) worker_node: Option<Number>,
    pub(crate) mask_features: Option<Spanned<Vec<Text>>>,
    pub(crate) access_vlan: Option<Number>,
    pub(crate) trunk_vlans: Option<Spanned<Vec<Spanned<RawVlans>>>>,
    pub(crate) native_vlan: Option<Number>,
    pub(crate) allowed_macs: Option<Spanned<Vec<Text>>>,
    pub(crate) allowed_ips: Option<Spanned<Vec<Text>>>,
    #[serde(default)]
    pub(crate) static_macs: Vec<Spanned<Table<RawStaticMac>>>,
    pub(crate) isolated: Option<bool>,
    pub(crate) storm_limit: Option<Number>,
    pub(crate) limit_in: Option<Spanned<Table<RawLimit>>>,
    pub(crate) limit_out: Option<Spanned<Table<RawLimit>>>,
    pub(crate) macs_max: Option<Number>,
    pub(crate) mac_moves_per_second: Option<Number>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawBond {
    pub(crate) mode: Option<Text>,
    pub(crate) members: Option<Spanned<Vec<Text>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawStaticMac {
    pub(crate) mac: Option<Text>,
    pub(crate) vlan: Option<Number>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawLimit {
    pub(crate) frames_per_second: Option<Number>,
    pub(crate) bytes_per_second: Option<Number>,
    pub(crate) burst: Option<Number>,
}

/// A VLAN, or a range of them as text.
#[derive(Debug)]
pub(crate) enum RawVlans {
    One(i128),
    Range(String),
}

impl<'de> Deserialize<'de> for RawVlans {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(VlansVisitor)
    }
}

struct VlansVisitor;

impl Visitor<'_> for VlansVisitor {
    type Value = RawVlans;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a VLAN such as `10`, or a range such as `\"20-29\"`")
    }

    fn visit_i64<E>(self, number: i64) -> Result<RawVlans, E> {
        Ok(RawVlans::One(number.into()))
    }

    fn visit_i128<E>(self, number: i128) -> Result<RawVlans, E> {
        Ok(RawVlans::One(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<RawVlans, E> {
        Ok(RawVlans::One(number.into()))
    }

    fn visit_str<E>(self, text: &str) -> Result<RawVlans, E> {
        Ok(RawVlans::Range(text.to_owned()))
    }
}

/// A `T` written as a table.
///
/// A derived `T` alone would also take a list of its values in the order of its fields: `bridge = [["br0", 300]]`
/// would be a bridge, and `[[workers]]` would be read as one table's values.
#[derive(Debug)]
pub(crate) struct Table<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TableVisitor(PhantomData)).map(Table)
    }
}

struct TableVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for TableVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}
