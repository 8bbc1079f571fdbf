//! What is true of this host.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::bail;
use ringway::guest::{Features, QUEUE_PAIRS_MAX};
use ringway::switch::worker_cpus;
use ringway::worker::{Worker, parse_cpu_list};
use ringway_config::{Feature, PortKind};
use ringway_plan::{Host, HugePages, Node, SwitchPort};
use rustix::process::{Resource, getrlimit};

/// This host with its switch; of the switch's own configuration only if it is named.
pub(super) fn gather(switch_config: Option<&Path>) -> anyhow::Result<Host> {
    let config = switch_config.map(ringway_config::load).transpose()?;
    let uname = rustix::system::uname();
    let allowed = Worker::allowed_cpus();
    // Those that are listed may be another host's.
    let listed = config.as_ref().and_then(|config| config.workers.cpus.clone());
    let workers = config.as_ref().map(|config| config.workers.clone()).unwrap_or_default();
    let chosen = worker_cpus(&workers, config.as_ref().map_or(&[], |config| &config.ports));
    let ports = config.iter().flat_map(|config| &config.ports);
    let ports = ports.filter_map(|port| {
        let PortKind::VhostUser(kind) = &port.kind else { return None };
        let features = Features::offered(&kind.mask_features).names();
        Some(SwitchPort { name: port.name.clone(), features, mtu: u32::from(port.mtu) })
    });
    Ok(Host {
        name: uname.nodename().to_string_lossy().into_owned(),
        ringway: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: uname.release().to_string_lossy().into_owned(),
        features: Features::OFFERED.names(),
        queue_pairs_max: QUEUE_PAIRS_MAX as u32,
        mtu_max: u32::from(ringway_config::MTU_MAX),
        ports: ports.collect(),
        files_max: getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX),
        nodes: nodes(Path::new("/sys"), &allowed),
        worker_cpus: listed.or(chosen.ok()).unwrap_or_default(),
        huge_pages: huge_pages(Path::new("/sys")),
        masks: Feature::ALL.map(|feature| (feature.as_str().to_owned(), withheld(feature))).into(),
        mounts: mounts(&fs::read_to_string("/proc/mounts").unwrap_or_default()),
    })
}

fn withheld(feature: Feature) -> Vec<String> {
    (Features::OFFERED - Features::offered(&[feature])).names()
}

/// NUMA nodes with CPUs; one of all CPUs on a kernel without NUMA.
fn nodes(sysfs: &Path, allowed: &[usize]) -> Vec<Node> {
    let entries = fs::read_dir(sysfs.join("devices/system/node")).into_iter().flatten().flatten();
    let mut nodes: Vec<Node> = entries
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
            let cpus = parse_cpu_list(&fs::read_to_string(entry.path().join("cpulist")).ok()?);
            (!cpus.is_empty()).then_some(Node { id, cpus })
        })
        .collect();
    nodes.sort_unstable_by_key(|node| node.id);
    if nodes.is_empty() {
        nodes.push(Node { id: 0, cpus: allowed.to_vec() });
    }
    nodes
}

fn huge_pages(sysfs: &Path) -> Vec<HugePages> {
    let entries = fs::read_dir(sysfs.join("kernel/mm/hugepages")).into_iter().flatten().flatten();
    let mut sizes: Vec<HugePages> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let size_kib = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let free = fs::read_to_string(entry.path().join("free_hugepages")).ok()?.trim().parse().ok()?;
            Some(HugePages { size_kib, free })
        })
        .collect();
    sizes.sort_unstable_by_key(|pages| pages.size_kib);
    sizes
}

/// Mount points and their kinds, from /proc/mounts, where a space in a path is `\040`.
fn mounts(table: &str) -> Vec<(PathBuf, String)> {
    let mount = |line: &str| {
        let mut words = line.split(' ').skip(1);
        let (at, kind) = (words.next()?, words.next()?);
        Some((PathBuf::from(at.replace("\\040", " ")), kind.to_owned()))
    };
    table.lines().filter_map(mount).collect()
}

/// The NUMA node of a NIC; None when it is near to no node, as on a machine with one only.
pub(super) fn node_of_interface(interface: &str) -> anyhow::Result<Option<usize>> {
    let class = Path::new("/sys/class/net").join(interface);
    if interface.is_empty() || interface.contains('/') || !class.exists() {
        bail!("--physnet: there is no interface {}; see ip -brief link", interface.escape_debug());
    }
    let node = fs::read_to_string(class.join("device/numa_node")).ok();
    Ok(node.and_then(|node| node.trim().parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_of_memory_is_read() {
        let sysfs = tempfile::tempdir().unwrap();
        for (size, free) in [("hugepages-1048576kB", "0"), ("hugepages-2048kB", "7\n")] {
            let path = sysfs.path().join("kernel/mm/hugepages").join(size);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("free_hugepages"), free).unwrap();
        }
        let sizes = huge_pages(sysfs.path());
        assert_eq!(sizes.iter().map(|size| (size.size_kib, size.free)).collect::<Vec<_>>(), [(2048, 7), (1 << 20, 0)]);
        let mounts = mounts("tmpfs /dev/shm tmpfs rw 0 0\n/dev/a /a\\040b ext4 rw 0 0\n");
        assert_eq!(mounts[1], (PathBuf::from("/a b"), "ext4".to_owned()));
        assert_eq!(nodes(Path::new("/nonexistent"), &[1, 2]), [Node { id: 0, cpus: vec![1, 2] }]);
    }
}
