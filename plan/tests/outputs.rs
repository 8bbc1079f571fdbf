//! What is printed: read back by those for whom it is meant, or held against the page's own width.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use ringway_config::{Feature, Mode, PortKind};
use ringway_plan::{Backing, Host, HugePages, Input, Plan, plan};

const GUEST: &str = "
[guest]
name = \"web 1\"
vcpus = 8
memory_mib = 1024
vectors_max = 1600
[libvirt]
rx_queue_size = 1024
[traffic]
small_outgoing = true
one_connection = true
[[nic]]
name = \"vhu01234567-89\"
socket = \"/run/guests/a-rather-long-name-of-a-socket-in-a-directory-of-its-own/web1.sock\"
throughput = \"high\"
mtu = 9000
mask_features = [\"event_idx\"]
[[nic]]
name = \"m\"
mode = \"server\"
queues = 16
bridge = \"br1\"
";

fn planned(text: &str) -> Plan {
    plan(&Input::from_toml(text, "t".as_ref()).unwrap(), &Host::default()).unwrap()
}

#[test]
fn the_switch_reads_its_own_records() {
    let records = planned(GUEST).config();
    let text = format!("[[bridge]]\nname = \"br0\"\n[[bridge]]\nname = \"br1\"\n{records}");
    let read = ringway_config::parse(&text, Path::new("switch.toml"), |_| true).unwrap();
    let [first, second] = &read.ports[..] else { panic!("{records}") };
    assert_eq!((first.name.as_str(), first.mtu, first.bridge), ("vhu01234567-89", 9000, 0));
    assert_eq!((second.name.as_str(), second.mtu, second.bridge), ("m", 1500, 1));
    let (PortKind::VhostUser(first), PortKind::VhostUser(second)) = (&first.kind, &second.kind) else {
        panic!("{records}")
    };
    assert_eq!((first.mode, &first.mask_features[..]), (Mode::Client, &[Feature::EventIdx][..]));
    assert_eq!((second.mode, second.socket.as_path()), (Mode::Server, Path::new("/run/guests/m.sock")));
}

/// Queue pairs by the blueprint's words, and by number.
#[test]
fn throughput_is_a_share_of_the_vcpus() {
    let pairs = |vcpus: u32, word: &str| {
        let text =
            format!("[guest]\nvcpus = {vcpus}\nmemory_mib = 64\n[[nic]]\nname = \"n\"\nthroughput = \"{word}\"\n");
        planned(&text).nics[0].queue_pairs
    };
    assert_eq!(["high", "medium", "low"].map(|word| pairs(8, word)), [8, 4, 1]);
    assert_eq!(["high", "medium", "low"].map(|word| pairs(3, word)), [3, 1, 1]);
    assert_eq!(["high", "medium", "low"].map(|word| pairs(1, word)), [1, 1, 1]);
    let capped = "[guest]\nvcpus = 8\nmemory_mib = 64\nqueues_max = 6\n[libvirt]\nmax_queues = 5\n[[nic]]\nname = \"n\"\nthroughput = \"high\"\n";
    let nic = planned(capped).nics.remove(0);
    assert_eq!(
        (nic.queue_pairs, nic.queue_pairs_from.as_str()),
        (5, "throughput = high of 8 vCPUs, capped by [libvirt] max_queues")
    );
}

#[test]
fn the_arithmetic_adds_up() {
    let plan = planned(GUEST);
    let costs = &plan.arithmetic;
    assert_eq!((costs.queue_pairs, costs.vectors, costs.vectors_max), (24, (2 * 8 + 2) + (2 * 16 + 2), 1600));
    assert_eq!(costs.vhost_kernel_kib, 48 * 64);
    assert!(costs.ringway_kib > 0 && costs.qemu_files > 24 * 4 && costs.ringway_files > 24 * 6);
    assert_eq!(plan.nics[1].ethtool, "ethtool -L eth1 combined 16");
}

#[test]
fn it_is_said_where_multiqueue_does_not_pay() {
    let said =
        |text: &str| planned(text).warnings.iter().map(|warning| warning.text.clone()).collect::<Vec<_>>().join("\n");
    let all = said(GUEST);
    for word in ["small packets", "one connection", "16 vectors are wasted", "ethtool -L eth1 combined 16"] {
        assert!(all.contains(word), "no {word} in {all}");
    }
    let many = "[guest]\nvcpus = 128\nmemory_mib = 64\nvectors_max = 25600\n[[nic]]\nname = \"n\"\nqueues = 128\n";
    assert!(said(many).contains("max_files = 2048"), "{}", said(many));
    let emulated = "[guest]\nvcpus = 1\nmemory_mib = 64\nvirt_type = \"qemu\"\n[[nic]]\nname = \"n\"\n";
    assert!(said(emulated).contains("pci=nomsi"));
    let two = "[guest]\nvcpus = 2\nmemory_mib = 64\n[[nic]]\nname = \"n\"\nqueues = 2\n";
    assert_eq!(said(two), "");
    assert!(said(&format!("{two}[[nic]]\nname = \"m\"\n")).contains("2 NICs for 2 vCPUs"));
    assert!(
        said(&format!("{two}[traffic]\nqueues_enabled = 1\n")).contains("enables 1 of its 2 queue pairs: 2 vectors")
    );
}

/// Everything but paths and commands, which are to be copied.
#[test]
fn the_page_fits_80_columns() {
    for text in [
        GUEST,
        "[flavor]\nvcpus = 4\nram = 4096\nproperties = \"hw:mem_page_size='1GB', hw:virtio_packed_ring='1', hw:numa_nodes='2'\"\n[[nic]]\nname = \"n\"\n",
    ] {
        let page = planned(text).page();
        for line in page.lines().filter(|line| !line.contains("/run/guests/")) {
            assert!(line.chars().count() <= 80, "{} columns: {line}\n{page}", line.chars().count());
        }
    }
}

#[test]
fn memory_is_shared_whatever_is_behind_it() {
    let large = "[flavor]\nvcpus = 2\nram = 2048\nproperties = \"hw:mem_page_size='large'\"\n[[nic]]\nname = \"n\"\n";
    let made = planned(large);
    assert_eq!(made.memory.backing, Backing::HugePages { size_kib: 2048 });
    assert!(
        made.warnings.iter().any(|warning| warning.text.contains("1024 pages of 2048 KiB are needed and 0 are free"))
    );
    assert!(
        made.qemu().contains("share=on,hugetlb=on,hugetlbsize=2048K") && made.qemu().contains("-numa node,nodeid=0")
    );
    let xml = made.xml();
    assert!(xml.contains("<page size=\"2048\" unit=\"KiB\"/>") && xml.contains("<access mode=\"shared\"/>"), "{xml}");
    // nova takes the largest pages that the memory is a multiple of, and of which there are enough.
    let sizes = |few| [(2048, 4096), (1 << 20, few)].map(|(size_kib, free)| HugePages { size_kib, free }).to_vec();
    let chosen = |huge_pages| {
        let input = Input::from_toml(large, "t".as_ref()).unwrap();
        plan(&input, &Host { huge_pages, ..Host::default() }).unwrap().memory.backing
    };
    assert_eq!(chosen(sizes(2)), Backing::HugePages { size_kib: 1 << 20 });
    assert_eq!(chosen(sizes(1)), Backing::HugePages { size_kib: 2048 });
    let small = planned("[guest]\nvcpus = 2\nmemory_mib = 64\n[[nic]]\nname = \"n\"\n");
    assert_eq!(small.memory.backing, Backing::Memfd);
    assert!(small.xml().contains("<source type=\"memfd\"/>") && small.qemu().contains("size=65536K,share=on"));
}

#[test]
fn json_has_all_of_it() {
    let json = serde_json::to_value(planned(GUEST)).unwrap();
    assert_eq!(json["nics"][0]["queue_pairs"], 8);
    assert_eq!(json["nics"][1]["qemu_listens"], false);
    assert_eq!(json["arithmetic"]["vectors"], 52);
    assert_eq!(json["memory"]["backing"]["kind"], "memfd");
    assert!(!json["nics"][0]["features"].as_array().unwrap().contains(&"event_idx".into()));
}

#[test]
fn qemus_line_is_what_a_shell_takes() {
    let line = planned(GUEST).qemu();
    assert!(line.contains("-name 'web 1'") && line.contains("queues=8") && line.contains("host_mtu=9000"), "{line}");
    assert!(line.contains("path=/run/guests/m.sock,reconnect=1") && line.contains("packed=on"), "{line}");
    let lines: Vec<&str> = line.lines().collect();
    assert!(lines[..lines.len() - 1].iter().all(|line| line.ends_with(" \\")), "{line}");
}
