//! CPUs and NUMA nodes, from sysfs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::super::topology::{Cpu, CpuSet, Node, NodeId, Topology};
use crate::worker::parse_cpu_list;

pub(super) fn read(sysfs: &Path, allowed: &[usize]) -> Topology {
    let cpus_at = sysfs.join("devices/system/cpu");
    let nodes_at = sysfs.join("devices/system/node");
    let (mut nodes, mut node_of) = (Vec::new(), BTreeMap::new());
    let ids = numbered(&nodes_at, "node");
    for &id in &ids {
        let at = nodes_at.join(format!("node{id}"));
        for cpu in parse_cpu_list(&text(&at.join("cpulist")).unwrap_or_default()) {
            node_of.insert(cpu, id as NodeId);
        }
        // The kernel lists distances in the order of the nodes that are online.
        let distances = text(&at.join("distance")).unwrap_or_default();
        let distances = distances.split_whitespace().filter_map(|distance| distance.parse().ok());
        let distances = ids.iter().map(|&id| id as NodeId).zip(distances).collect();
        nodes.push(Node { id: id as NodeId, distances });
    }
    if nodes.is_empty() {
        nodes.push(Node { id: 0, distances: Vec::new() });
    }
    let mut known = numbered(&cpus_at, "cpu");
    if known.is_empty() {
        known = allowed.to_vec();
        known.sort_unstable();
    }
    let online = text(&cpus_at.join("online")).map(|list| parse_cpu_list(&list));
    let cpus = known.into_iter().map(|id| {
        let at = cpus_at.join(format!("cpu{id}"));
        let siblings = ["core_cpus_list", "thread_siblings_list"]
            .iter()
            .find_map(|name| text(&at.join("topology").join(name)))
            .map(|list| parse_cpu_list(&list).into_iter().collect::<CpuSet>());
        let socket = text(&at.join("topology/physical_package_id")).and_then(|id| id.trim().parse().ok());
        // A node's list leaves out CPUs that are offline; their own directory still says where they are.
        let node = node_of.get(&id).copied().or_else(|| numbered(&at, "node").first().map(|&node| node as NodeId));
        Cpu {
            id,
            node: node.unwrap_or(nodes[0].id),
            socket: socket.unwrap_or(0),
            siblings: siblings.filter(|cpus| cpus.contains(&id)).unwrap_or_else(|| CpuSet::from([id])),
            online: online.as_ref().is_none_or(|online| online.contains(&id)),
        }
    });
    Topology { cpus: cpus.collect(), nodes }
}

fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// The numbers of the entries of a directory that are called `name` and a number, in order.
fn numbered(directory: &Path, name: &str) -> Vec<usize> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let number = |entry: fs::DirEntry| -> Option<usize> {
        entry.file_name().to_str()?.strip_prefix(name)?.parse::<u16>().ok().map(usize::from)
    };
    let mut numbers: Vec<usize> = entries.filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a file, and the directories that it is in.
    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Two sockets of two cores with two threads, and a node of memory only, as Linux shows them. CPU 7 is offline.
    fn two_sockets() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| format!("devices/system/{path}");
        write(root.path(), &at("cpu/online"), "0-6\n");
        write(root.path(), &at("cpu/cpufreq/boost"), "1\n");
        for cpu in 0..8 {
            let core = cpu % 4;
            fs::create_dir_all(root.path().join(at(&format!("cpu/cpu{cpu}/node{}", core / 2)))).unwrap();
            if cpu != 7 {
                let siblings = if core == 3 { "3\n".to_owned() } else { format!("{core},{}\n", core + 4) };
                write(root.path(), &at(&format!("cpu/cpu{cpu}/topology/thread_siblings_list")), &siblings);
                write(
                    root.path(),
                    &at(&format!("cpu/cpu{cpu}/topology/physical_package_id")),
                    &format!("{}\n", core / 2),
                );
            }
        }
        for (node, cpus, distance) in [(0, "0-1,4-5", "10 21 17"), (1, "2-3,6", "21 10 28"), (3, "", "17 28 10")] {
            write(root.path(), &at(&format!("node/node{node}/cpulist")), &format!("{cpus}\n"));
            write(root.path(), &at(&format!("node/node{node}/distance")), &format!("{distance}\n"));
        }
        write(root.path(), &at("node/online"), "0-1,3\n");
        root
    }

    #[test]
    fn sockets_threads_distances_and_what_is_offline() {
        let root = two_sockets();
        let machine = read(root.path(), &[]);
        assert_eq!(machine.cpus.len(), 8);
        let cpu = |id: usize| machine.cpu(id).unwrap();
        assert_eq!((cpu(6).node, cpu(6).socket, cpu(6).online), (1, 1, true));
        assert_eq!(cpu(6).siblings, CpuSet::from([2, 6]));
        assert_eq!((cpu(7).node, cpu(7).online, &cpu(7).siblings), (1, false, &CpuSet::from([7])));
        assert_eq!(machine.nodes.iter().map(|node| node.id).collect::<Vec<_>>(), [0, 1, 3]);
        assert_eq!((machine.distance(0, 1), machine.distance(0, 3), machine.distance(1, 3)), (21, 17, 28));
        assert_eq!(machine.online_of(1).map(|cpu| cpu.id).collect::<Vec<_>>(), [2, 3, 6]);
    }

    #[test]
    fn a_kernel_without_numa_is_one_node() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "devices/system/cpu/online", "0-1\n");
        for cpu in 0..2 {
            fs::create_dir_all(root.path().join(format!("devices/system/cpu/cpu{cpu}"))).unwrap();
        }
        let machine = read(root.path(), &[0, 1]);
        assert_eq!(machine.cpus.iter().map(|cpu| (cpu.id, cpu.node)).collect::<Vec<_>>(), [(0, 0), (1, 0)]);
        assert_eq!(machine.distance(0, 0), 10);
        let nothing = read(Path::new("/nonexistent"), &[5, 3]);
        assert_eq!(nothing.cpus.iter().map(|cpu| (cpu.id, cpu.online)).collect::<Vec<_>>(), [(3, true), (5, true)]);
    }

    #[test]
    fn this_machine() {
        let allowed = crate::worker::Worker::allowed_cpus();
        let machine = read(Path::new("/sys"), &allowed);
        for cpu in allowed {
            let cpu = machine.cpu(cpu).expect("a CPU that we may use is there");
            assert!(cpu.online && cpu.siblings.contains(&cpu.id));
            assert!(machine.nodes.iter().any(|node| node.id == cpu.node));
        }
    }
}
