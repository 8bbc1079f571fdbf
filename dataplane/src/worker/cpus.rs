//! Which CPUs workers run on.

use std::fs;
use std::path::Path;

use ringway_config::{Count, Workers};

/// The CPUs on which workers run at the start, of those that this process may use.
#[must_use]
pub fn first_cpus(sysfs: &Path, allowed: &[usize], workers: &Workers) -> Vec<usize> {
    let (cpus, per_node) = match (&workers.cpus, workers.count) {
        // If it may not use them, the worker that does not start will say so.
        (Some(cpus), Count::Default) => return cpus.clone(),
        (_, Count::PerSocket(count)) => (&workers.cpus, usize::from(count)),
        (None, Count::Default) => (&None, 1),
    };
    let mine = |cpu: &usize| allowed.contains(cpu) && cpus.as_ref().is_none_or(|cpus| cpus.contains(cpu));
    let nodes = cpus_of_nodes(sysfs, &allowed.iter().copied().filter(mine).collect::<Vec<_>>());
    nodes.iter().flat_map(|node| node.iter().take(per_node)).copied().collect()
}

/// Of each NUMA node the CPUs that are in `allowed`, whole cores before the second threads of cores.
///
/// A node without such CPUs is left out. Without NUMA in the kernel there is one node.
fn cpus_of_nodes(sysfs: &Path, allowed: &[usize]) -> Vec<Vec<usize>> {
    let nodes = fs::read_dir(sysfs.join("devices/system/node")).into_iter().flatten().flatten();
    let lists = nodes.filter(|entry| {
        let name = entry.file_name();
        name.to_str().and_then(|name| name.strip_prefix("node")).is_some_and(|rest| rest.parse::<u32>().is_ok())
    });
    let cpus = lists.filter_map(|node| fs::read_to_string(node.path().join("cpulist")).ok());
    let ours = |cpus: Vec<usize>| cpus.into_iter().filter(|cpu| allowed.contains(cpu)).collect::<Vec<_>>();
    let mut nodes: Vec<_> = cpus.map(|list| ours(parse_cpu_list(&list))).filter(|cpus| !cpus.is_empty()).collect();
    if nodes.is_empty() && !allowed.is_empty() {
        nodes.push(allowed.to_vec());
    }
    let thread = |cpu: &usize| {
        let path = sysfs.join(format!("devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"));
        let siblings = fs::read_to_string(path).map(|list| parse_cpu_list(&list)).unwrap_or_default();
        siblings.iter().filter(|&sibling| allowed.contains(sibling)).position(|sibling| sibling == cpu)
    };
    for node in &mut nodes {
        node.sort_by_key(|cpu| (thread(cpu), *cpu));
    }
    nodes.sort();
    nodes
}

/// Numbers of a kernel list such as `0-3,8,10-11`; what is not understood is left out.
#[must_use]
pub fn parse_cpu_list(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        Some(low.parse().ok()?..=high.parse().ok()?)
    };
    list.trim().split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_as_the_kernel_writes_them() {
        assert_eq!(parse_cpu_list("0-3,8,10-11\n"), [0, 1, 2, 3, 8, 10, 11]);
        assert_eq!(parse_cpu_list("\n"), Vec::<usize>::new());
    }

    fn first_of_each_node(sysfs: &Path, allowed: &[usize]) -> Vec<usize> {
        first_cpus(sysfs, allowed, &Workers::default())
    }

    #[test]
    fn one_cpu_a_node_and_only_allowed_ones() {
        let sysfs = tempfile::tempdir().unwrap();
        for (node, list) in [("node0", "0-3"), ("node1", "4-7"), ("node2", "")] {
            let path = sysfs.path().join("devices/system/node").join(node);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("cpulist"), list).unwrap();
        }
        let all: Vec<usize> = (0..8).collect();
        assert_eq!(first_of_each_node(sysfs.path(), &all), [0, 4]);
        assert_eq!(first_of_each_node(sysfs.path(), &[2, 3, 6]), [2, 6]);
        assert_eq!(first_of_each_node(sysfs.path(), &[3]), [3]);
        assert_eq!(first_of_each_node(Path::new("/nonexistent"), &[5, 6]), [5]);
    }

    #[test]
    fn so_many_a_node_and_whole_cores_first() {
        let sysfs = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = sysfs.path().join("devices/system").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        // Threads of a core: 0 and 4, 1 and 5, 2 and 6, 3 and 7.
        for (node, list) in [("node0", "0-1,4-5"), ("node1", "2-3,6-7")] {
            write(&format!("node/{node}/cpulist"), list);
        }
        for cpu in 0..8 {
            write(&format!("cpu/cpu{cpu}/topology/thread_siblings_list"), &format!("{},{}", cpu % 4, cpu % 4 + 4));
        }
        let all: Vec<usize> = (0..8).collect();
        let per_node = |count| Workers { count: Count::PerSocket(count), ..Workers::default() };
        assert_eq!(first_cpus(sysfs.path(), &all, &per_node(2)), [0, 1, 2, 3]);
        assert_eq!(first_cpus(sysfs.path(), &all, &per_node(3)), [0, 1, 4, 2, 3, 6]);
        assert_eq!(first_cpus(sysfs.path(), &all, &per_node(9)), [0, 1, 4, 5, 2, 3, 6, 7]);
        let some = Workers { cpus: Some(vec![5, 3, 7, 1]), ..per_node(1) };
        assert_eq!(first_cpus(sysfs.path(), &all, &some), [1, 3]);
        assert_eq!(first_cpus(sysfs.path(), &all, &Workers::default()), [0, 2]);
        let listed = Workers { cpus: Some(vec![7, 0, 900]), ..Workers::default() };
        assert_eq!(first_cpus(sysfs.path(), &all, &listed), [7, 0, 900]);
    }
}
