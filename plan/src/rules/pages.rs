//! Huge pages: which size, and whether the host has enough of them where nova would take them.

use super::{Findings, Rule};
use crate::made::Cell;
use crate::{Host, HugePages};

/// What x86-64 has.
pub(crate) const HUGE_KIB: [u64; 2] = [2 * 1024, 1024 * 1024];

/// What `large` comes to: as nova's `_numa_cell_supports_pagesize_request` has it, the largest size of which each of the
/// guest's nodes fits one of the host's, in whole pages. When none does, the largest that divides the memory at all.
pub(crate) fn large(cells: &[Cell], host: &Host) -> u64 {
    let whole = |size_kib: u64| cells.iter().all(|cell| cell.kib.is_multiple_of(size_kib));
    let fits = |pool: &&HugePages| whole(pool.size_kib) && shortages(cells, pool, host).is_empty();
    let sizes = host.huge_pages.iter().filter(|pool| HUGE_KIB.contains(&pool.size_kib));
    sizes.filter(fits).map(|pool| pool.size_kib).max().unwrap_or(HUGE_KIB[0])
}

/// Pages that are missing in a pool, and where.
struct Shortage {
    /// The host's node; None for the pool as a whole.
    node: Option<usize>,
    wanted: u64,
    available: u64,
    /// Of the pool, on that node if there is one: what nr_hugepages says today.
    total: u64,
}

/// What is missing if each node of the guest is to be on a node of the host of its own, the largest where most is available and,
/// among equals, where the switch works.
fn shortages(cells: &[Cell], pool: &HugePages, host: &Host) -> Vec<Shortage> {
    let pages = |cell: &Cell| cell.kib.div_ceil(pool.size_kib);
    if pool.nodes.is_empty() {
        let (wanted, available) = (cells.iter().map(pages).sum(), pool.available());
        let shortage = Shortage { node: None, wanted, available, total: pool.total };
        return if wanted > available { vec![shortage] } else { Vec::new() };
    }
    let mut wanted: Vec<u64> = cells.iter().map(pages).collect();
    wanted.sort_unstable_by_key(|&pages| std::cmp::Reverse(pages));
    let mut nodes: Vec<_> = pool.nodes.iter().collect();
    nodes.sort_by_key(|node| (std::cmp::Reverse(pool.available_on(node)), !host.has_workers_on(node.node), node.node));
    let placed = wanted.into_iter().zip(nodes).filter_map(|(wanted, node)| {
        let available = pool.available_on(node);
        (wanted > available).then_some(Shortage { node: Some(node.node), wanted, available, total: node.total })
    });
    placed.collect()
}

/// Refuses memory that is no whole pages, and warns of pages that this host does not have. nova keeps the guest's nodes on
/// nodes of the host; a domain by hand takes pages from anywhere.
pub(crate) fn check(cells: &[Cell], size_kib: u64, is_novas: bool, host: &Host, found: &mut Findings) {
    for cell in cells.iter().filter(|cell| !cell.kib.is_multiple_of(size_kib)) {
        let what = format!("{} KiB of node {} are no whole pages of {size_kib} KiB", cell.kib, cell.id);
        let mend = format!("give the guest a multiple of {} MiB", (size_kib / 1024).max(1) * cells.len() as u64);
        found.refuse(Rule::PageSizeFits, "memory", what, mend);
    }
    let none = HugePages { size_kib, total: 0, free: 0, reserved: 0, nodes: Vec::new() };
    let pool = host.pool(size_kib).unwrap_or(&none);
    let anywhere = HugePages { nodes: Vec::new(), ..pool.clone() };
    for shortage in shortages(cells, if is_novas { pool } else { &anywhere }, host) {
        let Shortage { node, wanted, available, total } = shortage;
        let (on, dir) = match node {
            Some(node) => (format!(" on node {node}"), format!("/sys/devices/system/node/node{node}/hugepages")),
            None => (String::new(), "/sys/kernel/mm/hugepages".to_owned()),
        };
        // What others have, or are promised, stays theirs.
        let enough = total + (wanted - available);
        let text = format!(
            "{wanted} pages of {size_kib} KiB are needed{on}, and {available} of {total} are available here: echo {enough} > \
             {dir}/hugepages-{size_kib}kB/nr_hugepages"
        );
        found.warn("huge pages", text);
    }
    let nodes = pool.nodes.len();
    if is_novas && nodes > 0 && cells.len() > nodes {
        let text = format!(
            "nova puts each of the guest's {} NUMA nodes on a node of the host of its own, and this one has {nodes}",
            cells.len()
        );
        found.warn("hw:numa_nodes", text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Node, NodePages};

    const MIB: u64 = 1024;

    fn cells(mib: &[u64]) -> Vec<Cell> {
        mib.iter().enumerate().map(|(id, mib)| Cell { id, cpus: Vec::new(), kib: mib * MIB }).collect()
    }

    fn pool(size_kib: u64, reserved: u64, nodes: &[(u64, u64)]) -> HugePages {
        let node = |(node, &(total, free)): (usize, &(u64, u64))| NodePages { node, total, free };
        let (total, free) = nodes.iter().fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
        HugePages { size_kib, total, free, reserved, nodes: nodes.iter().enumerate().map(node).collect() }
    }

    fn host(huge_pages: Vec<HugePages>) -> Host {
        let nodes = [0, 1].map(|id| Node { id, cpus: vec![id] }).to_vec();
        Host { huge_pages, nodes, worker_cpus: vec![1], ..Host::default() }
    }

    fn told(cells: &[Cell], is_novas: bool, host: &Host) -> Vec<String> {
        let mut found = Findings::default();
        check(cells, 2048, is_novas, host, &mut found);
        found.warnings.into_iter().map(|warning| warning.text).collect()
    }

    #[test]
    fn large_is_judged_on_each_node() {
        let large = |mib: &[u64], one: &[(u64, u64)]| {
            super::large(&cells(mib), &host(vec![pool(2048, 0, &[(4096, 4096); 2]), pool(1 << 20, 0, one)]))
        };
        // Two pages in all are no two pages on a node.
        assert_eq!(large(&[2048], &[(2, 2), (0, 0)]), 1 << 20);
        assert_eq!(large(&[2048], &[(1, 1), (1, 1)]), 2048);
        assert_eq!(large(&[1024, 1024], &[(1, 1), (1, 1)]), 1 << 20);
        assert_eq!(large(&[1024, 1024], &[(2, 2), (0, 0)]), 2048);
        assert_eq!(large(&[2048, 1024], &[(1, 1), (2, 2)]), 1 << 20);
        assert_eq!(large(&[1536], &[(4, 4), (4, 4)]), 2048);
        // None is big enough.
        assert_eq!(large(&[1 << 20], &[(1, 1), (1, 1)]), 2048);
        assert_eq!(super::large(&cells(&[1024]), &Host::default()), 2048);
    }

    #[test]
    fn advice_leaves_to_others_what_they_have() {
        let sys = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
        // 200 pages, 100 of them in use and 40 promised.
        let one = host(vec![pool(2048, 40, &[(200, 100)])]);
        let said = told(&cells(&[1024]), false, &one);
        assert_eq!(said.len(), 1);
        assert!(said[0].starts_with("512 pages of 2048 KiB are needed, and 60 of 200 are available"), "{}", said[0]);
        assert!(said[0].ends_with(&format!("echo 652 > {sys}")), "{}", said[0]);
        assert!(told(&cells(&[120]), false, &one).is_empty());
        let said = told(&cells(&[1024]), true, &one);
        assert!(said[0].ends_with("echo 652 > /sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"));
        let said = told(&cells(&[1024]), true, &Host::default());
        assert!(said[0].ends_with(&format!("echo 512 > {sys}")), "{}", said[0]);
    }

    #[test]
    fn advice_names_the_node() {
        let equal = host(vec![pool(2048, 0, &[(0, 0), (0, 0)])]);
        assert!(told(&cells(&[64]), true, &equal)[0].contains("on node 1,"), "that of the worker");
        let more = host(vec![pool(2048, 0, &[(40, 30), (10, 10)])]);
        let said = told(&cells(&[64]), true, &more);
        assert!(said.len() == 1 && said[0].contains("echo 42 > /sys/devices/system/node/node0/"), "{said:?}");
        let said = told(&cells(&[64, 64]), true, &more);
        assert!(said.len() == 2 && said[1].contains("echo 32 > /sys/devices/system/node/node1/"), "{said:?}");
        let said = told(&cells(&[2, 2, 2]), true, &more);
        assert!(said.len() == 1 && said[0].contains("3 NUMA nodes") && said[0].ends_with("this one has 2"), "{said:?}");
        // By hand they come from anywhere.
        assert_eq!(told(&cells(&[40, 40]), false, &more), Vec::<String>::new());
    }
}
