//! What an operator writes, turned into what the dataplane builds.
//!
//! A file is read, parsed into `raw` (the keys as written, each with its place in the text), validated, and handed on
//! as a [`Plan`] that cannot be wrong: every port names a bridge that exists, every socket path fits, every number is
//! in range. The first thing that is wrong comes back as an [`Error`] of one line: the file, the line, what is wrong
//! and what to write instead.
//!
//! Nothing here opens a socket or knows DPDK. The one question put to the world, whether a socket's directory exists,
//! is a function that the caller passes; [`load`] passes the real one.
//!
//! ```
//! let text = r#"
//! [[bridge]]
//! name = "br0"
//!
//! [[port]]
//! name = "vm1"
//! kind = "vhost-user"
//! bridge = "br1"
//! socket = "/run/guests/vm1.sock"
//! "#;
//! let error = ringway_config::parse(text, "switch.toml".as_ref(), |_| true).unwrap_err();
//! assert_eq!(error.line(), Some(8));
//! assert_eq!(
//!     error.to_string(),
//!     "switch.toml:8: there is no bridge `br1`; use one of `br0`, or add a [[bridge]] with that name"
//! );
//! ```

mod device;
mod error;
mod plan;
mod policy;
mod raw;
mod rules;
mod socket;
mod source;
mod validate;
mod vlan;
mod words;
mod workers;

use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use error::Error;
pub use plan::{
    Bond, BondMode, Bridge, Choice, Count, Feature, Idle, Mode, Nic, Pin, Plan, Port, PortKind, Unit, Uplink,
    VhostUser, Workers,
};
pub use policy::{
    BridgePolicy, Flood, IpPrefix, MAC_MOVES_DEFAULT, MACS_MAX_DEFAULT, Mac, NIC_MACS_MAX_DEFAULT,
    PORT_MACS_MAX_DEFAULT, PortPolicy, RateLimit, RateUnit, STORM_LIMIT_DEFAULT, StaticMac,
};
pub use validate::MTU_MAX;
pub use vlan::{PRIORITY_OVER_TAG, VLAN_MAX, Vlan, VlanSet};

use error::Problem;
use source::Source;

/// The largest file that [`load`] reads, in bytes: some thousands of ports, and an end to `/dev/zero`.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Reads, parses and validates the file at `path`, asking the file system whether the sockets' directories exist.
///
/// # Errors
///
/// The first thing that is wrong. [`Error::line`] is `None` only if the file as a whole is at fault: it cannot be
/// read, or is larger than 1 MiB.
pub fn load(path: &Path) -> Result<Plan, Error> {
    let bytes = read(path)?;
    let text = str::from_utf8(&bytes).map_err(|error| {
        let line = source::line_at(&bytes, error.valid_up_to());
        Error::at_line(path, line, Problem::NotUtf8)
    })?;
    parse(text, path, Path::is_dir)
}

/// Parses and validates `text`; `file` is only the name that errors carry.
///
/// `directory_exists` is asked about the directory of every port's socket.
///
/// # Errors
///
/// The first thing that is wrong, with its line.
pub fn parse(text: &str, file: &Path, directory_exists: impl Fn(&Path) -> bool) -> Result<Plan, Error> {
    let source = Source { file, text };
    let raw = toml::from_str(text).map_err(|error| source.refuse_toml(&error))?;
    validate::validate(&source, raw, directory_exists)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let unreadable = |error: std::io::Error| Error::whole_file(path, Problem::Unreadable(error.to_string()));
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Error::whole_file(path, Problem::FileTooLarge));
    }
    Ok(bytes)
}
