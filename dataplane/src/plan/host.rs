//! What is true of this host.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::bail;
use ringway::guest::{Features, QUEUE_PAIRS_MAX};
use ringway::switch::worker_cpus;
use ringway::worker::{Worker, parse_cpu_list};
use ringway_config::{Feature, PortKind};
use ringway_plan::{Host, HugePages, Node, NodePages, SwitchPort};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{Pid, Resource, getrlimit};

/// This host with its switch; of the switch's own configuration only if it is named. The switch at the control socket, if one
/// runs there, is asked for nothing: its process says how many files it may have.
pub(super) fn gather(switch_config: Option<&Path>, control_socket: &Path) -> anyhow::Result<Host> {
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
    let running = running(control_socket);
    let names = |(any, needing): (Features, Features)| (any.names(), needing.names());
    Ok(Host {
        format: Host::FORMAT,
        name: uname.nodename().to_string_lossy().into_owned(),
        ringway: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: uname.release().to_string_lossy().into_owned(),
        features: Features::OFFERED.names(),
        queue_pairs_max: QUEUE_PAIRS_MAX as u32,
        mtu_max: u32::from(ringway_config::MTU_MAX),
        ports: ports.collect(),
        files_max: match &running {
            Some(files) => files.max,
            None => getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX),
        },
        files_used: running.as_ref().and_then(|files| files.used),
        files_of_running: running.is_some(),
        nodes: nodes(Path::new("/sys"), &allowed),
        worker_cpus: listed.or(chosen.ok()).unwrap_or_default(),
        huge_pages: huge_pages(Path::new("/sys")),
        masks: Feature::ALL.map(|feature| (feature.as_str().to_owned(), withheld(feature))).into(),
        needs: Features::NEEDS.map(names).into(),
        mounts: mounts(&fs::read_to_string("/proc/mounts").unwrap_or_default()),
    })
}

/// Files of a switch that runs.
struct Files {
    /// Its soft limit, which it has raised as far as it can.
    max: u64,
    /// Open now; nobody but root and its own user can count them.
    used: Option<u64>,
}

/// Those of the switch that listens at `control_socket`, if one does.
fn running(control_socket: &Path) -> Option<Files> {
    // One that is stuck, with a full queue, is not waited for.
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
    connect(&socket, &SocketAddrUnix::new(control_socket).ok()?).ok()?;
    let switch: Pid = socket_peercred(&socket).ok()?.pid;
    let proc = Path::new("/proc").join(switch.as_raw_nonzero().to_string());
    let max = open_files(&fs::read_to_string(proc.join("limits")).ok()?)?;
    let used = fs::read_dir(proc.join("fd")).ok().map(|files| files.count() as u64);
    Some(Files { max, used })
}

/// The soft limit of open files in `/proc/PID/limits`.
fn open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn withheld(feature: Feature) -> Vec<String> {
    (Features::OFFERED - Features::offered(&[feature])).names()
}

/// NUMA nodes with CPUs; one of all CPUs on a kernel without NUMA.
fn nodes(sysfs: &Path, allowed: &[usize]) -> Vec<Node> {
    let mut nodes: Vec<Node> = node_dirs(sysfs)
        .into_iter()
        .filter_map(|(id, dir)| {
            let cpus = parse_cpu_list(&fs::read_to_string(dir.join("cpulist")).ok()?);
            (!cpus.is_empty()).then_some(Node { id, cpus })
        })
        .collect();
    nodes.sort_unstable_by_key(|node| node.id);
    if nodes.is_empty() {
        nodes.push(Node { id: 0, cpus: allowed.to_vec() });
    }
    nodes
}

/// The pools of huge pages, with their parts on each node.
fn huge_pages(sysfs: &Path) -> Vec<HugePages> {
    let pool = |(size_kib, dir): (u64, PathBuf)| {
        let (total, free) = (number(&dir, "nr_hugepages")?, number(&dir, "free_hugepages")?);
        let reserved = number(&dir, "resv_hugepages").unwrap_or(0);
        Some(HugePages { size_kib, total, free, reserved, nodes: pages_of_nodes(sysfs, size_kib) })
    };
    let mut sizes: Vec<HugePages> = pools(&sysfs.join("kernel/mm/hugepages")).into_iter().filter_map(pool).collect();
    sizes.sort_unstable_by_key(|pages| pages.size_kib);
    sizes
}

fn pages_of_nodes(sysfs: &Path, size_kib: u64) -> Vec<NodePages> {
    let mut nodes: Vec<NodePages> = node_dirs(sysfs)
        .into_iter()
        .filter_map(|(node, dir)| {
            let (_, dir) = pools(&dir.join("hugepages")).into_iter().find(|(size, _)| *size == size_kib)?;
            Some(NodePages { node, total: number(&dir, "nr_hugepages")?, free: number(&dir, "free_hugepages")? })
        })
        .collect();
    nodes.sort_unstable_by_key(|node| node.node);
    nodes
}

/// Directories of pools, with the KiB in a page of each.
fn pools(dir: &Path) -> Vec<(u64, PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let pool = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let size_kib = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        Some((size_kib, entry.path()))
    };
    entries.filter_map(pool).collect()
}

fn number(dir: &Path, name: &str) -> Option<u64> {
    fs::read_to_string(dir.join(name)).ok()?.trim().parse().ok()
}

/// Directories of NUMA nodes, with their numbers.
fn node_dirs(sysfs: &Path) -> Vec<(usize, PathBuf)> {
    let entries = fs::read_dir(sysfs.join("devices/system/node")).into_iter().flatten().flatten();
    let node =
        |entry: fs::DirEntry| Some((entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?, entry.path()));
    entries.filter_map(node).collect()
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
        let write = |dir: &str, files: [(&str, &str); 3]| {
            let path = sysfs.path().join(dir);
            fs::create_dir_all(&path).unwrap();
            files.iter().for_each(|(name, text)| fs::write(path.join(name), text).unwrap());
        };
        let pool =
            |total, free, reserved| [("nr_hugepages", total), ("free_hugepages", free), ("resv_hugepages", reserved)];
        write("kernel/mm/hugepages/hugepages-1048576kB", pool("0", "0", "0"));
        write("kernel/mm/hugepages/hugepages-2048kB", pool("9\n", "7\n", "2\n"));
        write("devices/system/node/node1/hugepages/hugepages-2048kB", pool("4", "3", ""));
        write("devices/system/node/node0/hugepages/hugepages-2048kB", pool("5", "4", ""));
        let [small, large] = &huge_pages(sysfs.path())[..] else { panic!("two sizes") };
        assert_eq!((small.size_kib, small.total, small.free, small.reserved), (2048, 9, 7, 2));
        let on = |node, total, free| NodePages { node, total, free };
        assert_eq!(small.nodes, [on(0, 5, 4), on(1, 4, 3)]);
        assert_eq!((large.size_kib, large.total, large.nodes.len()), (1 << 20, 0, 0));
        let mounts = mounts("tmpfs /dev/shm tmpfs rw 0 0\n/dev/a /a\\040b ext4 rw 0 0\n");
        assert_eq!(mounts[1], (PathBuf::from("/a b"), "ext4".to_owned()));
        assert_eq!(nodes(Path::new("/nonexistent"), &[1, 2]), [Node { id: 0, cpus: vec![1, 2] }]);
    }
    #[test]
    fn a_limit_is_read_as_the_kernel_writes_it() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max processes             1                    2                    processes \n\
                      Max open files            1048576              1048577              files     \n";
        assert_eq!(open_files(limits), Some(1_048_576));
        assert_eq!(open_files(&limits.replace("1048576 ", "unlimited ")), Some(u64::MAX));
        assert_eq!(open_files("nothing"), None);
        assert!(running(Path::new("/nonexistent")).is_none());
        // Whoever listens is it: here, this test.
        let dir = tempfile::tempdir().unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
        let files = running(&dir.path().join("s")).unwrap();
        assert_eq!(Some(files.max), getrlimit(Resource::Nofile).current);
        assert!(files.used.is_some_and(|used| used > 3));
    }

    /// A plan takes away what the switch takes away, whatever words are combined.
    #[test]
    fn a_plan_masks_as_the_switch_does() {
        let host = gather(None, Path::new("/nonexistent")).unwrap();
        let features = |masked: &[Feature]| {
            let words: Vec<&str> = masked.iter().map(|feature| feature.as_str()).collect();
            let text =
                format!("[guest]\nvcpus = 1\nmemory_mib = 64\n[[nic]]\nname = \"n\"\nmask_features = {words:?}\n");
            let input = ringway_plan::Input::from_toml(&text, Path::new("t")).unwrap();
            ringway_plan::plan(&input, &host).unwrap().nics.remove(0).features
        };
        for first in Feature::ALL {
            for second in Feature::ALL {
                for third in Feature::ALL {
                    let masked = [first, second, third];
                    assert_eq!(features(&masked), Features::offered(&masked).names(), "{masked:?}");
                }
            }
        }
    }
}
