//! What can be wrong with a file, each with the mend, as one line.

use std::path::{Path, PathBuf};

use crate::FILE_BYTES_MAX;
use crate::device::BOND_MEMBERS_MAX;
use crate::socket::PATH_BYTES_MAX;
use crate::validate::{MAC_AGEING_SECONDS_MAX, MTU_MAX, MTU_MIN, NIC_QUEUES_MAX};
use crate::vlan::VLAN_MAX;
use crate::workers::{CPU_MAX, FLOW_TABLE_ENTRIES_MAX, FLOW_TABLE_ENTRIES_MIN};

/// Why a file was refused: `FILE:LINE: what is wrong; what to do`, always a single line when displayed.
///
/// Control characters taken over from the file or its name are shown escaped, so that neither can break the line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.one_line())]
pub struct Error {
    file: PathBuf,
    line: Option<usize>,
    // Boxed to keep the `Result`s that carry it small.
    problem: Box<Problem>,
}

impl Error {
    pub(crate) fn at_line(file: &Path, line: usize, problem: Problem) -> Self {
        Self { file: file.to_owned(), line: Some(line), problem: Box::new(problem) }
    }

    pub(crate) fn whole_file(file: &Path, problem: Problem) -> Self {
        Self { file: file.to_owned(), line: None, problem: Box::new(problem) }
    }

    /// The file, as it was named to [`load`](crate::load) or [`parse`](crate::parse).
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The line at fault, from 1; `None` if it is the file as a whole, as when it cannot be read.
    pub fn line(&self) -> Option<usize> {
        self.line
    }

    fn one_line(&self) -> String {
        let file = self.file.display();
        let text = match self.line {
            Some(line) => format!("{file}:{line}: {}", self.problem),
            None => format!("{file}: {}", self.problem),
        };
        let mut shown = String::with_capacity(text.len());
        for c in text.chars() {
            // The two separators end a line in some viewers without being control characters.
            if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
                shown.extend(c.escape_default());
            } else {
                shown.push(c);
            }
        }
        shown
    }
}

/// What is wrong; what to do. Text from the file stands in backquotes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    #[error("cannot be read: {0}; name a file that exists and that this user may read")]
    Unreadable(String),
    #[error("is larger than {} bytes; name a configuration file", FILE_BYTES_MAX)]
    FileTooLarge,
    #[error("not UTF-8; save the file as UTF-8")]
    NotUtf8,

    #[error("not TOML: {0}; write `key = value` lines under `[table]` headers, with text in double quotes")]
    Syntax(String),
    #[error("this key or table is here for the second time; remove it, or write `[[bridge]]` and `[[port]]` for more")]
    DuplicateKey,
    #[error("unknown key `{key}`; use {known}, or remove it")]
    UnknownKey { key: String, known: String },
    #[error("{place} is {found}; write {wanted}")]
    WrongType { place: String, found: String, wanted: String },
    #[error("this [[{table}]] has no `{key}`; add `{key} = \"{example}\"`")]
    MissingKey { table: &'static str, key: &'static str, example: &'static str },

    #[error("`{given}` cannot name a {what}; use 1 to 32 of a-z A-Z 0-9 `-` `_` `.`")]
    BadName { what: &'static str, given: String },
    #[error("a {what} named `{name}` is already on line {first_line}; give this one another name")]
    DuplicateName { what: &'static str, name: String, first_line: usize },
    #[error("{what} {value} is listed twice; remove one")]
    ListedTwice { what: &'static str, value: String },
    #[error("unknown {what} `{given}`; use {known}")]
    UnknownWord { what: &'static str, given: String, known: String },

    #[error("`{0}` is no address to serve metrics on; write one like \"127.0.0.1:9477\" or \"[::1]:9477\", or \"off\"")]
    BadMetrics(String),
    #[error("no CPU is listed; list at least one, or remove `{0}`")]
    NoCpu(&'static str),
    #[error("there is no CPU {0}; use 0 to {max}", max = CPU_MAX)]
    BadCpu(i128),
    #[error("`count = \"auto\"` and `per_socket` exclude each other; remove one of them")]
    AutoPerSocket,
    #[error("`count_max` is for workers that come and go; add `count = \"auto\"`, or remove it")]
    MaxWithoutAuto,
    #[error("CPU {0} is one of `reserved_cpus`; take it out of one of the two lists")]
    ReservedCpu(i128),
    #[error("`worker_cpus` and `worker_node` exclude each other; remove one of them")]
    TwoPins,
    #[error("CPU {0} is not one of the workers' `cpus`; add it there, or use one of them")]
    PinWithoutWorker(i128),
    #[error("a flow table of {0} entries is out of range; use {min} to {max}", min = FLOW_TABLE_ENTRIES_MIN, max = FLOW_TABLE_ENTRIES_MAX)]
    BadFlowTable(i128),
    #[error("an ageing time of {0} s is out of range; use 1 to {max}", max = MAC_AGEING_SECONDS_MAX)]
    BadAgeing(i128),
    #[error("an MTU of {0} bytes is out of range; use {min} to {max}", min = MTU_MIN, max = MTU_MAX)]
    BadMtu(i128),
    #[error("{0} queues are out of range; use 1 to {max}, or remove `queues` to have one a worker", max = NIC_QUEUES_MAX)]
    BadQueues(i128),

    #[error("a {what} of {given} is out of range; use {min} to {max}")]
    OutOfRange { what: &'static str, given: i128, min: u64, max: u64 },

    #[error("there is no VLAN {0}; use 1 to {max}", max = VLAN_MAX)]
    BadVlan(i128),
    #[error("`{0}` is no range of VLANs; write one like \"20-29\", within 1 to {max}", max = VLAN_MAX)]
    BadVlanRange(String),
    #[error(
        "no VLAN is listed; list at least one, or remove `trunk_vlans` for a port that takes frames of all VLANs as they are"
    )]
    NoVlan,
    #[error("`access_vlan` and `trunk_vlans` exclude each other; remove one of them")]
    AccessAndTrunk,
    #[error("`native_vlan` is a word for trunks; add `trunk_vlans`, or write `access_vlan = {0}`")]
    NativeWithoutTrunk(u16),
    #[error("native VLAN {0} is not in `trunk_vlans`; add it there, or remove `native_vlan`")]
    NativeNotAllowed(u16),

    #[error("`{0}` is no MAC address; write six bytes, as in \"52:54:00:00:00:01\"")]
    BadMac(String),
    #[error("`{0}` is a multicast address, and no station's; write an address whose first byte is even")]
    GroupMac(String),
    #[error("`{0}` is nobody's address; write that of a station")]
    ZeroMac(String),
    #[error("`{0}` is no IP address or prefix; write one like \"10.0.0.5\", \"10.0.0.0/24\" or \"2001:db8::/64\"")]
    BadPrefix(String),
    #[error("`{given}` has bits beyond its prefix; write `{network}` for all, or `{address}` for one")]
    BitsBeyondPrefix { given: String, network: String, address: String },
    #[error("`{key}` is empty, so nothing could be sent; list what is allowed, or remove it to allow all")]
    EmptyGuard { key: &'static str },
    #[error("{first} and {second} overlap; keep the wider one only")]
    PrefixInPrefix { first: String, second: String },
    #[error("{what} {value} is already port `{port}`'s, on line {line}, in a VLAN of both; give it to one of them")]
    GuardsOverlap { what: &'static str, value: String, port: String, line: usize },
    #[error("static MAC {0} is not in `allowed_macs` of its own port; add it there, or remove it here")]
    StaticNotAllowed(String),
    #[error("VLAN {vlan} is not one of this port's ({allowed}); use one of them")]
    StaticVlan { vlan: u16, allowed: String },
    #[error("this port has several VLANs and no native one; add the station's: `vlan = {0}`")]
    StaticWithoutVlan(u16),
    #[error("{table} has no `{key}`; add `{key} = {example}`")]
    MissingInner { table: &'static str, key: &'static str, example: &'static str },
    #[error("`{key}` counts either frames or bytes; write one of `frames_per_second` and `bytes_per_second`")]
    LimitUnit { key: &'static str },

    #[error(
        "`{0}` is no device; write a PCI address as in \"0000:03:00.0\", or a virtual device of DPDK as in \
         \"net_af_packet0,iface=veth0\""
    )]
    BadDevice(String),
    #[error("device `{name}` is already used on line {first_line}; give each its own")]
    DuplicateDevice { name: String, first_line: usize },
    #[error("`device` and `bond` exclude each other; remove one of them, or list the device in `members`")]
    DeviceAndBond,
    #[error("a bond of {0} members is none that there is; list 1 to {max} devices", max = BOND_MEMBERS_MAX)]
    BondMembers(usize),
    #[error("`{0}` is a bond itself; list devices only")]
    BondInBond(String),
    #[error("`{key}` is for ports of kind \"{kind}\"; remove it, or write `kind = \"{kind}\"`")]
    KeyOfAnotherKind { key: &'static str, kind: &'static str },
    #[error("this [[port]] is in no bridge; add `bridge = \"NAME\"` with {0}")]
    NoBridge(String),
    #[error("there is no bridge `{given}`; use {advice}")]
    UnknownBridge { given: String, advice: String },

    #[error("socket path `{0}` is relative; write it from the root, as in \"/run/guests/vm1.sock\"")]
    RelativeSocket(PathBuf),
    #[error("socket path is {bytes} bytes long; use at most {max}, all that an address holds", max = PATH_BYTES_MAX)]
    LongSocket { bytes: usize },
    #[error("socket path `{0}` names no file; end it with a file name, without control characters anywhere")]
    BadSocket(PathBuf),
    #[error("directory `{0}` does not exist; create it: mkdir -p {0}")]
    NoDirectory(PathBuf),
    #[error("socket `{path}` is already the {owner}; give each its own path")]
    DuplicateSocket { path: PathBuf, owner: String },
}
