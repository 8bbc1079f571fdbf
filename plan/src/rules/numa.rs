//! The guest's NUMA nodes: nova's `_get_numa_topology_auto` and `_get_numa_topology_manual`.

use std::collections::BTreeMap;

use super::{Findings, Rule};
use crate::input::Input;
use crate::made::Cell;

/// As many as nova reads from an image.
const NODES_MAX: i64 = 128;

/// The nodes, none for a guest that is to see no NUMA; a guest in huge pages has at least one.
pub(crate) fn cells(
    input: &Input,
    vcpus: Option<u32>,
    kib: Option<u64>,
    in_pages: bool,
    found: &mut Findings,
) -> Option<Vec<Cell>> {
    let nodes = nodes(input, found);
    let manual = manual(input, found);
    let (vcpus, kib, nodes) = (vcpus?, kib?, nodes?);
    if let Some(manual) = manual {
        return written(manual?, nodes.unwrap_or(1), vcpus, kib, found);
    }
    match nodes {
        None if !in_pages => Some(Vec::new()),
        nodes => divided(nodes.unwrap_or(1), vcpus, kib, found),
    }
}

fn nodes(input: &Input, found: &mut Findings) -> Option<Option<u32>> {
    let (flavor, image) = super::properties::texts(input, "numa_nodes");
    let own = input.guest.numa_nodes;
    if flavor.is_some() && image.is_some() {
        let mend = "remove hw_numa_nodes from the image";
        found.refuse(Rule::NumaForbidden, "hw_numa_nodes", "flavor and image both say it", mend);
    }
    let (about, number) = match (flavor.or(image), own) {
        (None, None) => return Some(None),
        (Some(_), Some(_)) => {
            let mend = "use hw:numa_nodes for a guest of nova's";
            found.refuse(Rule::Twice, "numa_nodes", "flavor or image say hw:numa_nodes", mend);
            return None;
        }
        (Some(text), None) => ("hw:numa_nodes", text.trim().parse().unwrap_or(0)),
        (None, Some(number)) => ("numa_nodes", number),
    };
    found.within(Rule::NumaNodes, about, number, (1, NODES_MAX)).map(Some)
}

fn divided(nodes: u32, vcpus: u32, kib: u64, found: &mut Findings) -> Option<Vec<Cell>> {
    let mib = kib / 1024;
    if !vcpus.is_multiple_of(nodes) || !mib.is_multiple_of(u64::from(nodes)) {
        let what = format!("{vcpus} vCPUs and {mib} MiB do not divide by {nodes}");
        found.refuse(Rule::NumaAsymmetric, "hw:numa_nodes", what, "change one of them, or say numa_cpus and numa_mem");
        return None;
    }
    let each = vcpus / nodes;
    let cell =
        |id: u32| Cell { id: id as usize, cpus: (id * each..(id + 1) * each).collect(), kib: kib / u64::from(nodes) };
    Some((0..nodes).map(cell).collect())
}

type Written = (BTreeMap<u32, Vec<u32>>, BTreeMap<u32, u64>);

/// What `numa_cpus.N` and `numa_mem.N` say; outer None when nothing does, inner None when it cannot be read.
fn manual(input: &Input, found: &mut Findings) -> Option<Option<Written>> {
    let flavor = input.flavor.iter().flat_map(|flavor| flavor.properties.iter());
    let flavor = flavor.filter_map(|(key, value)| Some((key, key.strip_prefix("hw:numa_")?, value)));
    let image = input.image.iter().flat_map(|image| image.properties.iter());
    let image = image.filter_map(|(key, value)| Some((key, key.strip_prefix("hw_numa_")?, value)));
    let (flavor, image): (Vec<_>, Vec<_>) = (
        flavor.filter(|(_, name, _)| *name != "nodes").collect(),
        image.filter(|(_, name, _)| *name != "nodes").collect(),
    );
    if !flavor.is_empty() && !image.is_empty() {
        let mend = "remove it from the image";
        found.refuse(Rule::NumaForbidden, image[0].0, "flavor and image both say what the nodes have", mend);
        return Some(None);
    }
    let all: Vec<_> = flavor.into_iter().chain(image).collect();
    if all.is_empty() {
        return None;
    }
    let (mut cpus, mut memory, mut good) = (BTreeMap::new(), BTreeMap::new(), true);
    for (key, name, value) in all {
        let Some((what, Ok(node))) = name.split_once('.').map(|(what, node)| (what, node.parse::<u32>())) else {
            good = false;
            continue;
        };
        match (what, cpu_list(value), value.trim().parse::<u64>()) {
            ("cpus", Some(list), _) => drop(cpus.insert(node, list)),
            ("mem", _, Ok(mib @ 1..=0xffff_ffff)) => drop(memory.insert(node, mib * 1024)),
            ("cpus", ..) => {
                found.refuse(Rule::NumaCpus, key, format!("`{value}` is no list of CPUs"), "write it like 0-3,6");
                good = false;
            }
            _ => {
                found.refuse(
                    Rule::NumaMemory,
                    key,
                    format!("`{value}` is no number of MiB"),
                    "write MiB, such as 2048",
                );
                good = false;
            }
        }
    }
    Some(good.then_some((cpus, memory)))
}

fn written((cpus, memory): Written, nodes: u32, vcpus: u32, kib: u64, found: &mut Findings) -> Option<Vec<Cell>> {
    let wanted: Vec<u32> = (0..nodes).collect();
    if !cpus.keys().eq(&wanted) || !memory.keys().eq(&wanted) {
        let what = format!("not all of {nodes} nodes, or others, have numa_cpus and numa_mem");
        let mend = format!("say hw:numa_cpus.N and hw:numa_mem.N for N from 0 to {}", nodes - 1);
        found.refuse(Rule::NumaIncomplete, "hw:numa_cpus, hw:numa_mem", what, mend);
        return None;
    }
    let mut all: Vec<u32> = cpus.values().flatten().copied().collect();
    all.sort_unstable();
    if !all.iter().copied().eq(0..vcpus) {
        let what = format!("{all:?} are not vCPUs 0 to {}, each once", vcpus - 1);
        found.refuse(Rule::NumaCpus, "hw:numa_cpus", what, "give each vCPU to one node");
    }
    let sum: u64 = memory.values().sum();
    if sum != kib {
        let what = format!("the nodes have {} MiB, the guest {}", sum / 1024, kib / 1024);
        found.refuse(Rule::NumaMemory, "hw:numa_mem", what, "make them add up");
    }
    let cells = cpus.into_iter().zip(memory.into_values());
    Some(cells.map(|((id, cpus), kib)| Cell { id: id as usize, cpus, kib }).collect())
}

/// `0-3,^2,6`, as nova's `parse_cpu_spec` reads it.
fn cpu_list(text: &str) -> Option<Vec<u32>> {
    let (mut with, mut without) = (std::collections::BTreeSet::new(), Vec::new());
    for part in text.split(',').map(str::trim) {
        if let Some(number) = part.strip_prefix('^') {
            without.push(number.parse::<u32>().ok()?);
        } else if let Some((first, last)) = part.split_once('-') {
            let (first, last) = (first.trim().parse::<u32>().ok()?, last.trim().parse::<u32>().ok()?);
            if first > last || last > 8192 {
                return None;
            }
            with.extend(first..=last);
        } else {
            with.insert(part.parse::<u32>().ok()?);
        }
    }
    Some(with.into_iter().filter(|cpu| !without.contains(cpu)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_read() {
        assert_eq!(cpu_list("0-3,^2,6"), Some(vec![0, 1, 3, 6]));
        assert_eq!(cpu_list("5"), Some(vec![5]));
        for wrong in ["", "a", "3-1", "0-99999999", "^", "1-"] {
            assert_eq!(cpu_list(wrong), None, "{wrong}");
        }
    }
}
