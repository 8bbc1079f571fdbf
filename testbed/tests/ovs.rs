//! Open vSwitch starts beside whatever the machine runs. Needs root, huge pages to be had, and the package.

use std::path::Path;

use ringway_testbed::{HugePages, Ovs, scratch_dir};

#[test]
#[ignore = "needs root, 256 MiB of huge pages and Open vSwitch"]
fn it_bridges_and_counts_cycles() {
    let pool = Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages");
    let before = std::fs::read_to_string(pool).unwrap();
    let pages = HugePages::reserve(256).unwrap();
    {
        let ovs = Ovs::builder().memory(256).start().unwrap();
        let dir = scratch_dir().unwrap();
        ovs.add_bridge("br0").unwrap();
        ovs.add_port("br0", "p0", &dir.path().join("p0")).unwrap();
        ovs.clear_poll_stats().unwrap();
        assert_eq!(ovs.cycles_per_packet().unwrap(), None);
    }
    drop(pages);
    assert_eq!(std::fs::read_to_string(pool).unwrap(), before);
}
