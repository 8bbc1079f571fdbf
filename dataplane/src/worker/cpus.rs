//! Which CPUs workers run on.

use std::fs;
use std::path::Path;

/// The first CPU of each NUMA node that this process may use; all that are allowed come from `allowed`.
///
/// A node without CPUs (memory only) has no worker. Without NUMA in the kernel there is one node.
#[must_use]
pub fn first_of_each_node(sysfs: &Path, allowed: &[usize]) -> Vec<usize> {
    let nodes = fs::read_dir(sysfs.join("devices/system/node")).into_iter().flatten().flatten();
    let lists = nodes.filter(|entry| {
        let name = entry.file_name();
        name.to_str().and_then(|name| name.strip_prefix("node")).is_some_and(|rest| rest.parse::<u32>().is_ok())
    });
    let cpus = lists.filter_map(|node| fs::read_to_string(node.path().join("cpulist")).ok());
    let mut firsts: Vec<usize> =
        cpus.filter_map(|list| parse_cpu_list(&list).into_iter().find(|cpu| allowed.contains(cpu))).collect();
    firsts.sort_unstable();
    if firsts.is_empty() {
        firsts.extend(allowed.first());
    }
    firsts
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
}
