//! What is true of a host: gathered by whoever asks, or read from the file that another host wrote.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::InputError;

/// A host, its switch included. [`Host::default`] is one of which only the switch's own figures are known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// The switch's version.
    pub ringway: String,
    /// The kernel's release, as `uname -r` prints it.
    pub kernel: String,
    /// What a port offers when nothing is masked, in lower case without the prefixes, such as `ring_packed`.
    pub features: Vec<String>,
    /// The most queue pairs that a port offers.
    pub queue_pairs_max: u32,
    /// The largest MTU that a port may have, in bytes.
    pub mtu_max: u32,
    /// Ports of its configuration, if that was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<SwitchPort>,
    /// File descriptors that the switch may have: its hard limit, to which it raises the soft one. 0 is unknown.
    pub files_max: u64,
    /// NUMA nodes with their CPUs.
    pub nodes: Vec<Node>,
    /// CPUs of the switch's workers.
    pub worker_cpus: Vec<usize>,
    /// Huge pages, a size each.
    pub huge_pages: Vec<HugePages>,
    /// What each word of `mask_features` withholds. Of this host only.
    #[serde(skip)]
    pub masks: BTreeMap<String, Vec<String>>,
    /// Mount points with their file systems. Of this host only.
    #[serde(skip)]
    pub mounts: Vec<(PathBuf, String)>,
}

/// A NUMA node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its number.
    pub id: usize,
    /// Its CPUs.
    pub cpus: Vec<usize>,
}

/// Huge pages of one size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HugePages {
    /// KiB in a page.
    pub size_kib: u64,
    /// Reserved pages that nobody uses.
    pub free: u64,
}

/// A port of a switch's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchPort {
    /// Its name.
    pub name: String,
    /// What it offers, as [`Host::features`].
    pub features: Vec<String>,
    /// Its MTU in bytes.
    pub mtu: u32,
}

impl Default for Host {
    fn default() -> Self {
        let features =
            ["csum", "guest_csum", "mtu", "mrg_rxbuf", "ctrl_vq", "mq", "ring_packed", "version_1", "event_idx"];
        Self {
            name: "unknown".to_owned(),
            ringway: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: "6.1".to_owned(),
            features: features.map(str::to_owned).to_vec(),
            queue_pairs_max: 128,
            mtu_max: 9000,
            ports: Vec::new(),
            files_max: 0,
            nodes: vec![Node { id: 0, cpus: vec![0, 1] }],
            worker_cpus: vec![0],
            huge_pages: Vec::new(),
            masks: [("packed", "ring_packed"), ("mq", "mq"), ("ctrl_vq", "ctrl_vq"), ("event_idx", "event_idx")]
                .map(|(mask, feature)| (mask.to_owned(), vec![feature.to_owned()]))
                .into(),
            mounts: Vec::new(),
        }
    }
}

impl Host {
    /// Reads what `ringway plan --host` printed.
    ///
    /// # Errors
    /// When it is not that.
    pub fn from_json(text: &str, file: &Path) -> Result<Self, InputError> {
        serde_json::from_str(text).map_err(|error| {
            let said = error.to_string();
            let said = said.split(" at line ").next().unwrap_or_default();
            let mend = "write it on the other host: ringway plan --host >HOST.json";
            InputError::at_line(file, error.line().max(1), format!("no description of a host: {said}; {mend}"))
        })
    }

    /// Whether the switch has a feature.
    pub fn offers(&self, feature: &str) -> bool {
        self.features.iter().any(|offered| offered == feature)
    }

    /// The kernel's major version; None when its release does not begin with one.
    pub(crate) fn kernel_major(&self) -> Option<u32> {
        self.kernel.split('.').next()?.parse().ok()
    }

    /// The file system that holds `path`; None when no mount point is known.
    pub(crate) fn file_system(&self, path: &Path) -> Option<&str> {
        // Of several at one place the last one mounted is what is seen.
        let holds = self.mounts.iter().filter(|(mount, _)| path.starts_with(mount));
        holds.max_by_key(|(mount, _)| mount.components().count()).map(|(_, kind)| kind.as_str())
    }

    /// Free pages of a size.
    pub(crate) fn free_pages(&self, size_kib: u64) -> u64 {
        self.huge_pages.iter().find(|pages| pages.size_kib == size_kib).map_or(0, |pages| pages.free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_point_holds_a_path() {
        let mounts = [("/", "ext4"), ("/dev", "devtmpfs"), ("/dev/shm", "tmpfs"), ("/dev/shm", "ramfs")];
        let mounts = mounts.map(|(at, kind)| (PathBuf::from(at), kind.to_owned())).to_vec();
        let host = Host { mounts, ..Host::default() };
        assert_eq!(host.file_system(Path::new("/dev/shm/x")), Some("ramfs"));
        assert_eq!(host.file_system(Path::new("/dev/shmx")), Some("devtmpfs"));
        assert_eq!(host.file_system(Path::new("/var")), Some("ext4"));
        assert_eq!(Host::default().file_system(Path::new("/var")), None);
    }

    #[test]
    fn a_description_comes_back_as_it_was_written() {
        let host = Host { files_max: 1 << 20, ..Host::default() };
        let text = serde_json::to_string_pretty(&host).unwrap();
        let read = Host::from_json(&text, Path::new("h")).unwrap();
        assert_eq!(Host { masks: host.masks.clone(), ..read }, host);
        let error = Host::from_json("{\"name\": \"a\"}", Path::new("h.json")).unwrap_err().to_string();
        assert_eq!(
            error,
            "h.json:1: no description of a host: missing field `ringway`; write it on the other host: ringway plan --host >HOST.json"
        );
    }
}
