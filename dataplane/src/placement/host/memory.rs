//! On which node a guest's memory is.
//!
//! The front end's process is asked first, at its own addresses: there every page is mapped that the guest ever touched. Its
//! answer comes from move_pages(2), which with no target moves nothing and says where pages are, for a sample of them. Where
//! that is forbidden (it wants the rights of ptrace, and some containers' filters know nothing of it) `numa_maps` is read.
//! At last our own mapping is asked; of that, only what the switch has touched is known.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::super::topology::NodeId;
use super::calls;

/// Pages that are asked for in all: enough to see a majority, and the work of a fraction of a millisecond.
const SAMPLES: u64 = 1024;

/// The smallest page there is, in bytes.
const PAGE: u64 = 4096;

/// The most of `numa_maps` that is read: 64 thousand mappings, more than the kernel lets a process have.
const NUMA_MAPS_MAX: u64 = 16 << 20;

/// A span of a process's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first.
    pub start: u64,
    /// Bytes.
    pub len: u64,
}

/// How much is on which node, in one unit or another.
type ByNode = BTreeMap<NodeId, u64>;

pub(super) fn by_node(proc: &Path, front_end: Option<(i32, &[Span])>, ours: &[Span]) -> ByNode {
    let front_end = front_end.filter(|&(pid, _)| pid > 0);
    let sampled = front_end.map(|(pid, spans)| sample(pid, spans)).filter(|known| !known.is_empty());
    let read = || front_end.map(|(pid, spans)| numa_maps(proc, pid, spans)).filter(|known| !known.is_empty());
    sampled.or_else(read).unwrap_or_else(|| sample(0, ours))
}

/// Asks for pages at even distances; `pid` 0 is this process.
fn sample(pid: i32, spans: &[Span]) -> ByNode {
    let total: u64 = spans.iter().map(|span| span.len).fold(0, u64::saturating_add);
    let stride = (total / SAMPLES).next_multiple_of(PAGE).max(PAGE);
    let pages = spans.iter().flat_map(|span| {
        // Not the middle of a page, and not beyond the end, whatever a front end says of its addresses.
        let first = span.start & !(PAGE - 1);
        (0..span.len.div_ceil(stride)).filter_map(move |step| first.checked_add(step * stride))
    });
    let pages: Vec<u64> = pages.take(2 * SAMPLES as usize).collect();
    let mut known = ByNode::new();
    for node in calls::nodes(pid, &pages).unwrap_or_default() {
        // What is negative is an error: most often that there is no page yet.
        if let Ok(node) = NodeId::try_from(node) {
            *known.entry(node).or_default() += 1;
        }
    }
    known
}

fn numa_maps(proc: &Path, pid: i32, spans: &[Span]) -> ByNode {
    let file = File::open(proc.join(pid.to_string()).join("numa_maps"));
    let lines = file.map(|file| BufReader::new(file.take(NUMA_MAPS_MAX)).lines().map_while(Result::ok));
    lines.map(|lines| of_spans(lines, spans)).unwrap_or_default()
}

/// KiB by node, of the mappings that begin in a span, and of the one that holds a span's begin: the last before it, since
/// the kernel gives no ends.
fn of_spans(lines: impl Iterator<Item = String>, spans: &[Span]) -> ByNode {
    let mappings: BTreeMap<u64, ByNode> = lines.filter_map(|line| mapping(&line)).collect();
    let mut wanted: BTreeMap<u64, &ByNode> = BTreeMap::new();
    for span in spans {
        let holds = mappings.range(..=span.start).next_back();
        let begin_in = mappings.range(span.start..span.start.saturating_add(span.len));
        wanted.extend(holds.into_iter().chain(begin_in).map(|(&start, by_node)| (start, by_node)));
    }
    let mut known = ByNode::new();
    for (&node, &amount) in wanted.values().flat_map(|by_node| by_node.iter()) {
        *known.entry(node).or_default() += amount;
    }
    known
}

/// The start of a mapping, and what it has on which node.
fn mapping(line: &str) -> Option<(u64, ByNode)> {
    let mut words = line.split(' ');
    let start = u64::from_str_radix(words.next()?, 16).ok()?;
    let (mut page_kib, mut by_node) = (PAGE >> 10, ByNode::new());
    for word in words {
        let Some((key, value)) = word.split_once('=') else { continue };
        if key == "kernelpagesize_kB" {
            page_kib = value.parse().ok()?;
        } else if let Some(node) = key.strip_prefix('N').and_then(|node| node.parse().ok()) {
            by_node.insert(node, value.parse().ok()?);
        }
    }
    by_node.values_mut().for_each(|pages: &mut u64| *pages = pages.saturating_mul(page_kib));
    Some((start, by_node))
}

#[cfg(test)]
mod tests {
    use super::super::super::scene::Home;
    use super::super::home_of;
    use super::*;

    const MAPS: &str = "\
55d0c0000000 default file=/usr/bin/qemu-system-x86_64 mapped=900 N0=900 kernelpagesize_kB=4
7f0000000000 bind:1 file=/memfd:memory-backend-memfd\\040(deleted) dirty=300 N0=100 N1=200 kernelpagesize_kB=4
7f4000000000 prefer:1 file=/dev/hugepages/guest huge dirty=3 N1=3 kernelpagesize_kB=2048
7f8000000000 default anon=5 dirty=5 N0=5 kernelpagesize_kB=4
not a mapping
7f9000000000 default";

    fn of(spans: &[Span]) -> Vec<(NodeId, u64)> {
        of_spans(MAPS.lines().map(str::to_owned), spans).into_iter().collect()
    }

    #[test]
    fn mappings_of_a_guests_regions_and_no_others() {
        let gib = 1 << 30;
        assert_eq!(of(&[Span { start: 0x7f00_0000_0000, len: gib }]), [(0, 400), (1, 800)]);
        // Two regions of one mapping: below and above the hole of PCI.
        let above = Span { start: 0x7f00_c000_0000, len: gib };
        assert_eq!(of(&[Span { start: 0x7f00_0000_0000, len: 3 * gib }, above]), [(0, 400), (1, 800)]);
        assert_eq!(of(&[Span { start: 0x7f40_0000_0000, len: gib }]), [(1, 6144)]);
        assert_eq!(of(&[Span { start: 0x1000, len: 0x1000 }]), []);
        assert_eq!(of(&[Span { start: u64::MAX, len: u64::MAX }]), []);
    }

    #[test]
    fn numa_maps_of_a_process_that_may_not_be_asked_otherwise() {
        let root = tempfile::tempdir().unwrap();
        let pid = i32::MAX; // no process has it: move_pages knows nothing
        std::fs::create_dir(root.path().join(pid.to_string())).unwrap();
        std::fs::write(root.path().join(pid.to_string()).join("numa_maps"), MAPS).unwrap();
        let spans = [Span { start: 0x7f00_0000_0000, len: 1 << 30 }];
        let known = by_node(root.path(), Some((pid, &spans)), &[]);
        assert_eq!((home_of(&known), known[&1]), (Home::Memory(1), 800));
        assert_eq!(by_node(Path::new("/nonexistent"), Some((pid, &spans)), &[]), ByNode::new());
    }

    #[test]
    fn most_of_it_decides() {
        assert_eq!(home_of(&ByNode::from([(0, 3), (1, 4), (2, 4)])), Home::Memory(1));
        assert_eq!(home_of(&ByNode::from([(5, 0)])), Home::Unknown);
    }

    /// Memory of this process that was touched, and that was not, as the kernel of this machine sees it.
    #[test]
    fn real_memory() {
        let pages = 64;
        let memory = vec![1_u8; pages * PAGE as usize];
        let span = Span { start: memory.as_ptr() as u64, len: memory.len() as u64 };
        let pid = std::process::id() as i32;
        let counted: u64 = sample(0, &[span]).values().sum();
        assert!(counted >= pages as u64, "{counted} of {pages} pages are known");
        assert_eq!(sample(pid, &[span]), sample(0, &[span]));
        assert!(matches!(home_of(&by_node(Path::new("/proc"), Some((pid, &[span])), &[])), Home::Memory(_)));
        assert!(!numa_maps(Path::new("/proc"), pid, &[span]).is_empty());
        // Addresses that are nobody's, also absurd ones, are only not known.
        for start in [0, 0x1000, 1 << 63, u64::MAX - 10] {
            assert_eq!(sample(0, &[Span { start, len: 1 << 40 }]), ByNode::new());
        }
        drop(memory);
    }
}
