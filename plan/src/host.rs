//! What is true of a host: gathered by whoever asks, or read from the file that another host wrote.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::InputError;

/// A host, its switch included. [`Host::default`] is one of which only the switch's own figures are known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The format that it is written in, 1 today.
    #[serde(default = "first_format")]
    pub format: u32,
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
    /// File descriptors that the switch may have. 0 is unknown.
    #[serde(default)]
    pub files_max: u64,
    /// How many it has already, if it runs and lets itself be counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_used: Option<u64>,
    /// Whether both are those of a switch that runs. Otherwise `files_max` is what `ringway run` raises its limit to when it is
    /// started from where this was asked.
    #[serde(default)]
    pub files_of_running: bool,
    /// NUMA nodes with their CPUs.
    #[serde(default)]
    pub nodes: Vec<Node>,
    /// CPUs of the switch's workers.
    #[serde(default)]
    pub worker_cpus: Vec<usize>,
    /// Huge pages, a size each.
    #[serde(default)]
    pub huge_pages: Vec<HugePages>,
    /// What each word of `mask_features` withholds by itself. Of this host only.
    #[serde(skip)]
    pub masks: BTreeMap<String, Vec<String>>,
    /// Features, of which one is enough, and those that are not offered without any of them, in the order in which they are
    /// looked at. Of this host only.
    #[serde(skip)]
    pub needs: Vec<(Vec<String>, Vec<String>)>,
    /// Mount points with their file systems. Of this host only.
    #[serde(skip)]
    pub mounts: Vec<(PathBuf, String)>,
}

/// A NUMA node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its number.
    pub id: usize,
    /// Its CPUs.
    pub cpus: Vec<usize>,
}

/// Huge pages of one size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HugePages {
    /// KiB in a page.
    pub size_kib: u64,
    /// Pages of the pool.
    #[serde(default)]
    pub total: u64,
    /// Pages of it that nobody uses,
    pub free: u64,
    /// of which so many are promised to somebody who has not touched them yet.
    #[serde(default)]
    pub reserved: u64,
    /// The pool by NUMA node; empty on a kernel without NUMA.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodePages>,
}

/// Huge pages of one size on one NUMA node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePages {
    /// The node's number.
    pub node: usize,
    /// Its pages of the pool,
    pub total: u64,
    /// and those that nobody uses.
    pub free: u64,
}

impl HugePages {
    /// Pages that a new guest can have.
    pub(crate) fn available(&self) -> u64 {
        self.free.saturating_sub(self.reserved)
    }

    /// Those of one of its nodes. The kernel does not say on which node a promised page is, so that none is counted on.
    pub(crate) fn available_on(&self, node: &NodePages) -> u64 {
        node.free.min(self.available())
    }
}

/// A port of a switch's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
            ["mtu", "csum", "guest_csum", "host_tso4", "host_tso6", "host_ecn", "mrg_rxbuf", "ctrl_vq", "mq"]
                .into_iter()
                .chain(["event_idx", "version_1", "ring_packed"]);
        let words =
            ["csum", "host_tso4", "host_tso6", "host_ecn", "mq", "ctrl_vq", "event_idx"].map(|word| (word, word));
        let words = words.into_iter().chain([("packed", "ring_packed")]);
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        Self {
            format: Self::FORMAT,
            name: "unknown".to_owned(),
            ringway: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: "6.1".to_owned(),
            features: features.map(str::to_owned).collect(),
            queue_pairs_max: 128,
            mtu_max: 9000,
            ports: Vec::new(),
            files_max: 0,
            files_used: None,
            files_of_running: false,
            nodes: vec![Node { id: 0, cpus: vec![0, 1] }],
            worker_cpus: vec![0],
            huge_pages: Vec::new(),
            masks: words.map(|(mask, feature)| (mask.to_owned(), owned(&[feature]))).collect(),
            needs: vec![
                (owned(&["csum"]), owned(&["host_tso4", "host_tso6"])),
                (owned(&["host_tso4", "host_tso6"]), owned(&["host_ecn"])),
            ],
            mounts: Vec::new(),
        }
    }
}

impl Host {
    /// The format of a description. It grows only when an older reader would misunderstand: new fields alone have a default here
    /// and are passed over there, so that hosts can be upgraded one after the other.
    pub const FORMAT: u32 = 1;

    /// Reads what `ringway plan --host` printed.
    ///
    /// # Errors
    /// When it is not that.
    pub fn from_json(text: &str, file: &Path) -> Result<Self, InputError> {
        let refuse = |error: serde_json::Error| {
            let said = error.to_string();
            let said = said.split(" at line ").next().unwrap_or_default();
            let mend = "write it on the other host: ringway plan --host >HOST.json";
            InputError::at_line(file, error.line().max(1), format!("no description of a host: {said}; {mend}"))
        };
        // First of all its format: what a later one has may not be readable at all.
        let Head { format, ringway } = serde_json::from_str(text).map_err(refuse)?;
        if format != Self::FORMAT {
            let what = format!(
                "a description in format {format}, written by Ringway {ringway}, and this one reads format {}; plan with \
                 that Ringway, or write the description with this one",
                Self::FORMAT
            );
            return Err(InputError::whole_file(file, what));
        }
        serde_json::from_str(text).map_err(refuse)
    }

    /// What a port offers whose operator masks `masks`: as the switch does, nothing that needs what is not offered. A word that
    /// the switch does not know withholds nothing.
    pub(crate) fn features_without(&self, masks: &[String]) -> Vec<String> {
        let withheld: BTreeSet<&String> = masks.iter().filter_map(|mask| self.masks.get(mask)).flatten().collect();
        let mut left: Vec<String> =
            self.features.iter().filter(|feature| !withheld.contains(feature)).cloned().collect();
        for (any, needing) in &self.needs {
            if !any.iter().any(|one| left.contains(one)) {
                left.retain(|feature| !needing.contains(feature));
            }
        }
        left
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

    /// Its pool of huge pages of a size.
    pub(crate) fn pool(&self, size_kib: u64) -> Option<&HugePages> {
        self.huge_pages.iter().find(|pages| pages.size_kib == size_kib)
    }

    /// Whether a worker of the switch is on a NUMA node.
    pub(crate) fn has_workers_on(&self, node: usize) -> bool {
        let mut cpus = self.nodes.iter().filter(|one| one.id == node).flat_map(|node| &node.cpus);
        cpus.any(|cpu| self.worker_cpus.contains(cpu))
    }
}

/// What every description says of itself.
#[derive(Deserialize)]
struct Head {
    #[serde(default = "first_format")]
    format: u32,
    #[serde(default = "some_version")]
    ringway: String,
}

fn first_format() -> u32 {
    1
}

fn some_version() -> String {
    "of an unknown version".to_owned()
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
        assert_eq!(Host { masks: host.masks.clone(), needs: host.needs.clone(), ..read }, host);
        let error = Host::from_json("{\"name\": \"a\"}", Path::new("h.json")).unwrap_err().to_string();
        assert_eq!(
            error,
            "h.json:1: no description of a host: missing field `ringway`; write it on the other host: ringway plan --host >HOST.json"
        );
    }
    /// A later Ringway says more of a host, of each of its parts; an earlier one said less.
    #[test]
    fn hosts_are_upgraded_one_after_the_other() {
        let mut later = serde_json::to_value(Host {
            huge_pages: vec![HugePages { size_kib: 2048, total: 1, free: 1, reserved: 0, nodes: Vec::new() }],
            ports: vec![SwitchPort { name: "n".to_owned(), features: Vec::new(), mtu: 1500 }],
            ..Host::default()
        })
        .unwrap();
        let mut earlier = later.clone();
        for part in ["", "/nodes/0", "/huge_pages/0", "/ports/0"] {
            later.pointer_mut(part).unwrap()["new"] = serde_json::json!({ "of": "2030" });
        }
        let read = Host::from_json(&later.to_string(), Path::new("h")).unwrap();
        assert_eq!((read.ports.len(), read.huge_pages.len(), read.format), (1, 1, Host::FORMAT));
        for key in ["format", "files_used", "files_of_running", "huge_pages", "nodes"] {
            earlier.as_object_mut().unwrap().remove(key);
        }
        assert_eq!(Host::from_json(&earlier.to_string(), Path::new("h")).unwrap().ports.len(), 1);
        // What changes the meaning of what there is has another number, whatever else is in it.
        let other = r#"{"format": 2, "ringway": "9.0.0", "features": {"more": []}}"#;
        let error = Host::from_json(other, Path::new("h")).unwrap_err().to_string();
        assert!(error.contains("format 2, written by Ringway 9.0.0"), "{error}");
    }

    #[test]
    fn masks_together_withhold_more_than_each() {
        let offered =
            |masks: &[&str]| Host::default().features_without(&masks.iter().map(|&m| m.to_owned()).collect::<Vec<_>>());
        let has = |masks: &[&str], feature: &str| offered(masks).iter().any(|one| one == feature);
        assert!(has(&["host_tso4"], "host_ecn") && has(&["host_tso6"], "host_ecn"));
        assert!(!has(&["host_tso4", "host_tso6"], "host_ecn"));
        assert!(!has(&["csum"], "host_tso4") && !has(&["csum"], "host_ecn") && has(&["csum"], "mq"));
        assert_eq!(offered(&[]), Host::default().features);
    }
}
