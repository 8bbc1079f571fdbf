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
    // 8 and 16 pairs; beside the NICs three ports of PCI Express and theirs, SATA, USB.
    assert_eq!((costs.queue_pairs, costs.vectors, costs.vectors_max), (24, (2 * 8 + 2) + (2 * 16 + 2), 1600));
    assert_eq!(costs.vectors_other, 2 + 3 + 1 + 16);
    assert_eq!((costs.vhost_kernel_kib, costs.ringway_kib), (48 * 64, 24 * 3 + 2 * 64));
    assert_eq!((costs.qemu_files, costs.qemu_files_max), (64 + 8 + 24 * 8 + 2 * 2, 1024));
    assert_eq!((costs.ringway_files, costs.ringway_files_max), (24 * 8 + 2 * 2, 0));
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
    assert!(said(emulated).contains("vectors=0 for its NICs"));
    assert_eq!(said(&format!("{emulated}[qemu]\nversion = \"10.0.2\"\n")), "");
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
        made.warnings
            .iter()
            .any(|warning| warning.text.contains("1024 pages of 2048 KiB are needed, and 0 of 0 are available here"))
    );
    assert!(
        made.qemu().contains("share=on,hugetlb=on,hugetlbsize=2048K") && made.qemu().contains("-numa node,nodeid=0")
    );
    let xml = made.xml();
    assert!(xml.contains("<page size=\"2048\" unit=\"KiB\"/>") && xml.contains("<access mode=\"shared\"/>"), "{xml}");
    // nova takes the largest pages that the memory is a multiple of, and of which there are enough.
    let sizes = |few| {
        [(2048, 4096), (1 << 20, few)]
            .map(|(size_kib, free)| HugePages { size_kib, total: free, free, reserved: 0, nodes: Vec::new() })
            .to_vec()
    };
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
    assert!(
        line.contains("-name 'guest=web 1'") && line.contains("queues=8") && line.contains("host_mtu=9000"),
        "{line}"
    );
    assert!(line.contains("path=/run/guests/m.sock,reconnect=1") && line.contains("packed=on"), "{line}");
    let lines: Vec<&str> = line.lines().collect();
    assert!(lines[..lines.len() - 1].iter().all(|line| line.ends_with(" \\")), "{line}");
}

/// What a guest needs that QEMU emulates: libvirt's vectors are taken away by the XML itself, and QEMU's by its line.
#[test]
fn an_emulated_guest_has_no_vectors() {
    let text = "[guest]\nvcpus = 2\nmemory_mib = 64\nvirt_type = \"qemu\"\n[[nic]]\nname = \"a.b\"\nqueues = 2\n[[nic]]\nname = \"a_b\"\n";
    let made = planned(text);
    let xml = made.xml();
    assert!(
        xml.starts_with("<domain type=\"qemu\" xmlns:qemu=\"http://libvirt.org/schemas/domain/qemu/1.0\">"),
        "{xml}"
    );
    for alias in ["ua-a_b", "ua-a_b-1"] {
        assert!(xml.contains(&format!("<alias name=\"{alias}\"/>")), "{xml}");
        assert!(xml.contains(&format!("<qemu:device alias=\"{alias}\">")), "{xml}");
    }
    assert_eq!(xml.matches("<qemu:property name=\"vectors\" type=\"unsigned\" value=\"0\"/>").count(), 2, "{xml}");
    assert_eq!(made.qemu().matches(",vectors=0").count(), 2, "{}", made.qemu());
    assert_eq!((made.arithmetic.vectors, made.nics[0].vectors), (0, 0));
    assert!(made.page().contains("<qemu:override>: libvirt 8.2"), "{}", made.page());
    for other in [text.replace("\"qemu\"", "\"kvm\""), format!("{text}[qemu]\nversion = \"10.0\"\n")] {
        let made = planned(&other);
        assert!(!made.xml().contains("qemu:") && !made.xml().contains("alias") && !made.qemu().contains("vectors"));
        assert_eq!(made.arithmetic.vectors, 6 + 4);
    }
}

/// By hand: what the host can do unless somebody says.
#[test]
fn packed_rings_can_be_switched_off() {
    let text = "[guest]\nvcpus = 2\nmemory_mib = 64\n#said\n[[nic]]\nname = \"n\"\nqueues = 2\n";
    let said = |word: &str| planned(&text.replace("#said", word));
    let is_packed = |plan: &Plan| {
        let everywhere =
            [plan.packed, plan.nics[0].packed, plan.xml().contains("packed=\"on\""), plan.qemu().contains("packed=on")];
        let needed = plan.needs.iter().any(|need| need.qemu == Some("4.2"));
        let shown =
            plan.page().contains("packed permitted") && plan.page().contains("packed rings: libvirt 6.3, QEMU 4.2");
        assert!(everywhere.iter().chain([&needed, &shown]).all(|&one| one == plan.packed), "{plan:?}");
        plan.packed
    };
    assert!(is_packed(&said("")) && is_packed(&said("packed = true")) && !is_packed(&said("packed = false")));
    // Versions that packed rings need are asked for only with them.
    let old = "[libvirt]\nversion = \"6.2.0\"\n[qemu]\nversion = \"4.1\"\n[guest.x]".replace("[guest.x]", "");
    let on_old = |word: &str| {
        let text = format!("{}{old}", text.replace("#said", word));
        plan(&Input::from_toml(&text, "t".as_ref()).unwrap(), &Host::default())
    };
    assert!(!is_packed(&on_old("packed = false").unwrap()));
    assert_eq!(on_old("packed = true").unwrap_err().len(), 2);
    let fallen_back = on_old("").unwrap();
    assert!(!is_packed(&fallen_back));
    assert!(fallen_back.warnings[0].text.contains("libvirt 6.2.0 is older than 6.3"), "{:?}", fallen_back.warnings);
    // A switch, or a port, without them.
    let mut without = Host::default();
    without.features.retain(|feature| feature != "ring_packed");
    let plan_there = |word: &str| {
        let text = text.replace("#said", word);
        plan(&Input::from_toml(&text, "t".as_ref()).unwrap(), &without)
    };
    assert!(!is_packed(&plan_there("").unwrap()) && plan_there("packed = true").is_err());
    let masked = planned(&format!("{text}mask_features = [\"packed\"]\n[[nic]]\nname = \"m\"\n"));
    assert_eq!(masked.nics.iter().map(|nic| nic.packed).collect::<Vec<_>>(), [false, true]);
    assert!(masked.page().contains("split for n") && masked.xml().matches("packed=\"on\"").count() == 1);
}

#[test]
fn many_vcpus_have_their_interrupts_remapped() {
    let text = |vcpus: u32| format!("[guest]\nvcpus = {vcpus}\nmemory_mib = 64\n[[nic]]\nname = \"n\"\n");
    let few = planned(&text(255));
    assert!(!few.guest.iommu && !few.xml().contains("iommu") && !few.qemu().contains("iommu"));
    let many = planned(&text(256));
    let (xml, line) = (many.xml(), many.qemu());
    assert!(xml.contains("<ioapic driver=\"qemu\"/>") && xml.contains("<iommu model=\"intel\">"), "{xml}");
    assert!(xml.contains("<driver intremap=\"on\" eim=\"on\"/>"), "{xml}");
    assert!(line.contains("q35,kernel-irqchip=split") && line.contains("intel-iommu,intremap=on,eim=on"), "{line}");
    assert!(!many.needs.iter().any(|need| need.qemu == Some("8.1")));
    assert!(planned(&text(289)).needs.iter().any(|need| need.qemu == Some("8.1")));
    // nova's, whose attributes are others.
    let novas = "[flavor]\nvcpus = 4\nram = 512\nproperties = \"hw:mem_page_size='2MB', hw:viommu_model='intel'\"\n[[nic]]\nname = \"n\"\n";
    let made = planned(novas);
    assert!(made.xml().contains("caching_mode=\"on\" aw_bits=\"48\" iotlb=\"on\""), "{}", made.xml());
    assert!(made.warnings.iter().any(|warning| warning.text.contains("--iova-mode=pa")));
}

#[test]
fn the_limit_of_open_files_is_that_of_whom_it_is() {
    let page = |host: &Host| {
        let input =
            Input::from_toml("[guest]\nvcpus = 2\nmemory_mib = 64\n[[nic]]\nname = \"n\"\n", "t".as_ref()).unwrap();
        let made = plan(&input, host).unwrap();
        // As one line, wherever it is folded.
        (made.page().split_whitespace().collect::<Vec<_>>().join(" "), made.warnings.len())
    };
    let here = Host { files_max: 1000, ..Host::default() };
    assert!(
        page(&here).0.contains("files of Ringway 10 of 1000: the hard limit here, to which ringway run raises its own")
    );
    let runs = Host { files_used: Some(40), files_of_running: true, ..here };
    let said = page(&runs).0;
    assert!(
        said.contains("files of Ringway 10 beside 40 that it has, of 1000: the limit of the switch that runs here"),
        "{said}"
    );
    // A limit of this shell's binds nobody else.
    let (said, warnings) = page(&Host { files_max: 9, ..Host::default() });
    assert!(warnings == 1 && said.contains("if ringway run is started from here"), "{said}");
}
