//! What cannot be: one line each, naming the property, the rule with its source, and the mend.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::HashSet;
use std::path::PathBuf;

use ringway_plan::{Host, Input, Rule, plan};

const GUEST: &str = "[guest]\nvcpus = 4\nmemory_mib = 512\n";
const NOVA: &str = "[flavor]\nvcpus = 4\nram = 512\n[flavor.properties]\n\"hw:mem_page_size\" = \"large\"\n";
const NOVA_FILES: &str = "[libvirt]\nfile_backed_memory = 1024\n[flavor]\nvcpus = 4\nram = 512\n";
const NIC: &str = "[[nic]]\nname = \"n\"\n";

/// The refusals of a guest, as they are printed.
fn refusals(text: &str, host: &Host) -> Vec<(Rule, String)> {
    let input = Input::from_toml(text, "t".as_ref()).unwrap_or_else(|error| panic!("{error}: {text}"));
    let refusals = plan(&input, host).err().unwrap_or_else(|| panic!("there is a plan for {text}"));
    let lines = refusals.into_iter().map(|refusal| {
        let line = refusal.to_string();
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(
            line.contains(refusal.about()) && line.ends_with(refusal.mend()) && !refusal.mend().is_empty(),
            "{line}"
        );
        assert!(line.contains(refusal.rule().source()) && line.contains(refusal.rule().by()), "{line}");
        (refusal.rule(), line)
    });
    lines.collect()
}

/// Each rule with guests that break it and nothing else, and a word that the line must have: the property.
#[test]
fn each_rule_refuses_in_a_line() {
    let nova = |properties: &str| format!("{NOVA}{properties}{NIC}");
    let guest = |rest: &str| format!("{GUEST}{rest}");
    let nic = |rest: &str| format!("{GUEST}{NIC}{rest}");
    let image = |rest: &str| format!("{NOVA}[image.properties]\n{rest}{NIC}");
    let big = "[guest]\nvcpus = 64\nmemory_mib = 512\n";
    let cases = [
        (
            Rule::FlavorImageConflict,
            image("hw_virtio_packed_ring = true\n").replace("[image", "\"hw:virtio_packed_ring\" = \"no\"\n[image"),
            "hw:virtio_packed_ring",
        ),
        (Rule::Multiqueue, format!("[guest]\nvcpus = 1\nmemory_mib = 512\n{NIC}queues = 4\n"), "n queues"),
        (
            Rule::Multiqueue,
            format!("{}queues = 2\n", nova("\"hw:vif_multiqueue_enabled\" = \"false\"\n")),
            "hw:vif_multiqueue_enabled",
        ),
        (Rule::MaxQueues, format!("{GUEST}[libvirt]\nmax_queues = 2\n{NIC}queues = 4\n"), "[libvirt] max_queues"),
        (Rule::MaxQueues, format!("{GUEST}[libvirt]\nmax_queues = 0\n{NIC}"), "max_queues"),
        (Rule::QueuesPerNic, nic("queues = 2\nthroughput = \"high\"\n"), "throughput"),
        (Rule::QueuesPerNic, nic("throughput = \"highest\"\n"), "highest"),
        (Rule::XmlQueues, nic("queues = 257\n"), "257"),
        (Rule::XmlQueues, nic("queues = 0\n"), "n queues"),
        (Rule::VhostUserQueues, nic("queues = 129\n"), "129"),
        (
            Rule::VhostUserQueues,
            format!(
                "{}{NIC}",
                NOVA.replace('4', "192").replace("512", "1536") + "\"hw:vif_multiqueue_enabled\" = true\n"
            ),
            "[libvirt] max_queues = 128",
        ),
        (Rule::Offered, guest("packed = true\n") + NIC + "mask_features = [\"packed\"]\n", "mask_features"),
        (
            Rule::Offered,
            nova("\"hw:virtio_packed_ring\" = true\n") + "mask_features = [\"packed\"]\n",
            "hw:virtio_packed_ring=false",
        ),
        (Rule::Offered, nic("queues = 2\nmask_features = [\"mq\"]\n"), "mq"),
        (Rule::Offered, nic("mask_features = [\"colour\"]\n"), "colour"),
        (Rule::RingSize, format!("{GUEST}[libvirt]\nrx_queue_size = 2048\n{NIC}"), "rx_queue_size"),
        (Rule::RingSize, format!("{GUEST}[libvirt]\ntx_queue_size = 0\n{NIC}"), "tx_queue_size"),
        (Rule::PageSizeInvalid, nova("").replace("large", "huge"), "hw:mem_page_size"),
        (Rule::PageSizeInvalid, guest("page_size_kib = 64\n") + NIC, "page_size_kib"),
        (Rule::PageSizeForbidden, image("hw_mem_page_size = \"1GB\"\n").replace("large", "2MB"), "hw_mem_page_size"),
        (
            Rule::PageSizeForbidden,
            image("hw_mem_page_size = \"2MB\"\n").replace("\"hw:mem_page_size\" = \"large\"", ""),
            "hw_mem_page_size",
        ),
        (Rule::MemoryPagesUnsupported, format!("{NOVA}[libvirt]\nfile_backed_memory = 1024\n{NIC}"), "file_backed"),
        (
            Rule::SharedMemory,
            nova("\"hw:cpu_policy\" = \"shared\"\n").replace("\"hw:mem_page_size\" = \"large\"", ""),
            "hw:mem_page_size",
        ),
        (Rule::SharedMemory, nova("").replace("large", "small"), "hw:mem_page_size"),
        (Rule::SharedMemory, nova("").replace("large", "any"), "hw:mem_page_size"),
        (Rule::SharedMemory, nova("").replace("large", "4KiB"), "hw:mem_page_size"),
        (Rule::FilesInMemory, format!("{GUEST}[libvirt]\nfile_backed_memory = 1024\n{NIC}"), "memory_backing_dir"),
        (Rule::PageSizeFits, nova("").replace("large", "1GB"), "memory"),
        (Rule::NumaNodes, nova("\"hw:numa_nodes\" = \"two\"\n"), "hw:numa_nodes"),
        (Rule::NumaNodes, guest("numa_nodes = 0\n") + NIC, "numa_nodes"),
        (
            Rule::NumaForbidden,
            image("hw_numa_nodes = 2\n").replace("[image", "\"hw:numa_nodes\" = 2\n[image"),
            "hw_numa_nodes",
        ),
        (Rule::NumaAsymmetric, nova("\"hw:numa_nodes\" = 3\n"), "hw:numa_nodes"),
        (Rule::NumaIncomplete, nova("\"hw:numa_nodes\" = 2\n\"hw:numa_cpus.0\" = \"0-3\"\n"), "numa_mem"),
        (Rule::NumaCpus, nova("\"hw:numa_cpus.0\" = \"0-2\"\n\"hw:numa_mem.0\" = 512\n"), "hw:numa_cpus"),
        (Rule::NumaCpus, nova("\"hw:numa_cpus.0\" = \"all\"\n\"hw:numa_mem.0\" = 512\n"), "hw:numa_cpus.0"),
        (Rule::NumaMemory, nova("\"hw:numa_cpus.0\" = \"0-3\"\n\"hw:numa_mem.0\" = 256\n"), "hw:numa_mem"),
        (Rule::VifModel, image("hw_vif_model = \"e1000\"\n"), "hw_vif_model"),
        (Rule::UnknownExtraSpec, nova("\"hw:vif_multiqueue_enable\" = true\n"), "write hw:vif_multiqueue_enabled"),
        (Rule::UnknownExtraSpec, nova("\"hw:packed_ring\" = true\n"), "write hw:virtio_packed_ring"),
        (Rule::UnknownImageProperty, image("hw_virtio_packed_rings = true\n"), "write hw_virtio_packed_ring"),
        (Rule::Spelling, nova("hw_vif_multiqueue_enabled = true\n"), "write hw:vif_multiqueue_enabled"),
        (Rule::Spelling, image("\"hw:virtio_packed_ring\" = true\n"), "write hw_virtio_packed_ring"),
        (Rule::Boolean, nova("\"hw:virtio_packed_ring\" = \"enabled\"\n"), "hw:virtio_packed_ring"),
        (Rule::Guest, format!("[guest]\nmemory_mib = 512\n{NIC}"), "vcpus"),
        (Rule::Guest, format!("[guest]\nvcpus = 0\nmemory_mib = 512\n{NIC}"), "vcpus"),
        (Rule::Guest, format!("[guest]\nvcpus = 2\n{NIC}"), "memory_mib"),
        (Rule::DirectBoot, guest("initrd = \"/i\"\n") + NIC, "initrd"),
        (Rule::AbsolutePath, guest("kernel = \"vmlinuz\"\n") + NIC, "kernel"),
        (Rule::Twice, format!("[guest]\nvcpus = 2\n{NOVA}{NIC}"), "vcpus"),
        (Rule::Twice, format!("[guest]\npage_size_kib = 2048\n{NOVA}{NIC}"), "page_size_kib"),
        (Rule::Twice, format!("[guest]\npacked = false\n{NOVA}{NIC}"), "hw:virtio_packed_ring"),
        (Rule::Twice, guest("queues_max = 2\n") + NIC + "queues = 4\n", "queues_max"),
        (Rule::VirtType, guest("virt_type = \"xen\"\n") + NIC, "virt_type"),
        (Rule::DomainName, guest("name = \"a/b\"\n") + NIC, "name"),
        (Rule::DomainName, guest("name = \" \"\n") + NIC, "name"),
        (Rule::DomainName, guest("name = \"a\\nb\"\n") + NIC, "name"),
        (Rule::Text, guest("kernel = \"/a\\u0001b\"\n") + NIC, "kernel"),
        (Rule::Text, guest("disk = \"/a\\nb\"\n") + NIC, "disk"),
        (Rule::Text, guest("kernel = \"/k\"\ncmdline = \"a\\tb\"\n") + NIC, "cmdline"),
        (Rule::Text, format!("[qemu]\nmemory_backing_dir = \"/a\\u007fb\"\n{NOVA_FILES}{NIC}"), "memory_backing_dir"),
        (Rule::EmulatedMsix, format!("[guest]\nvirt_type = \"qemu\"\n{NOVA}{NIC}"), "virt_type"),
        (Rule::ManyVcpus, nova("").replace("vcpus = 4", "vcpus = 256"), "hw:viommu_model"),
        (Rule::ManyVcpus, guest("virt_type = \"qemu\"\n").replace('4', "256") + NIC, "vcpus"),
        (Rule::ViommuModel, nova("\"hw:viommu_model\" = \"auto\"\n"), "hw:viommu_model"),
        (Rule::ViommuModel, image("hw_viommu_model = \"virtio\"\n"), "hw_viommu_model"),
        (Rule::ViommuModel, image("hw_viommu_model = \"smmuv3\"\n"), "ARM"),
        (Rule::ViommuModel, nova("\"hw:viommu_model\" = \"amd\"\n"), "amd"),
        (
            Rule::ViommuMachine,
            image("hw_viommu_model = \"intel\"\nhw_machine_type = \"pc-i440fx-7.2\"\n"),
            "hw_machine_type",
        ),
        (Rule::MemEncryption, nova("\"hw:mem_encryption\" = \"true\"\n"), "hw:mem_encryption"),
        (Rule::MemEncryption, image("hw_mem_encryption = true\n"), "hw_mem_encryption"),
        (Rule::Port, guest("[[nic]]\nname = \"a b\"\n[guest.x]\n").replace("[guest.x]\n", ""), "name"),
        (Rule::Port, nic("socket = \"vm1.sock\"\n"), "n socket"),
        (Rule::Port, nic("mode = \"both\"\n"), "mode"),
        (Rule::Port, nic("socket = \"/a\\u0002b\"\n"), "n socket"),
        (Rule::Port, nic("socket = \"/..\"\n"), "n socket"),
        (Rule::Port, nic(NIC), "two NICs"),
        (Rule::Port, nic("socket = \"/s\"\n[[nic]]\nname = \"m\"\nsocket = \"/s\"\n"), "m socket"),
        (Rule::Mtu, nic("mtu = 9001\n"), "n mtu"),
        (Rule::Mtu, nic("mtu = 67\n"), "n mtu"),
        (Rule::Mac, nic("mac = \"01:00:5e:00:00:01\"\n"), "n mac"),
        (Rule::Mac, nic("mac = \"52:54:00:00:01\"\n"), "n mac"),
        (Rule::Mac, nic("mac = \"52:54:00:00:00:01\"\n[[nic]]\nname = \"m\"\nmac = \"52:54:00:00:00:01\"\n"), "m mac"),
        (Rule::NoNic, GUEST.to_owned(), "nic"),
        (Rule::Vectors, format!("{big}{NIC}queues = 64\n[[nic]]\nname = \"m\"\nqueues = 64\n"), "43 queue pairs"),
        (
            Rule::Files,
            format!("[qemu]\nmax_files = 100\n{GUEST}{NIC}queues = 4\n[[nic]]\nname = \"m\"\nqueues = 4\n"),
            "max_files",
        ),
        (Rule::Vectors, guest("vectors_other = 191\n") + NIC + "queues = 4\n", "191 for other devices"),
        (Rule::Vectors, guest("vectors_other = -1\n") + NIC, "vectors_other"),
        (
            Rule::Versions,
            format!("{GUEST}packed = true\n[libvirt]\nversion = \"6.2.0\"\n{NIC}"),
            "6.2.0 is too old for packed",
        ),
        (Rule::Versions, format!("{GUEST}[libvirt]\nversion = \"4.5\"\n{NIC}"), "memfd"),
        (Rule::Versions, format!("{}[qemu]\nversion = \"7.2\"\n{NIC}", GUEST.replace('4', "300")), "8.1"),
        (Rule::Versions, format!("{NOVA}[qemu]\nversion = \"5.2\"\n{NIC}"), "6.2"),
        (Rule::Versions, format!("{GUEST}[qemu]\nversion = \"new\"\n{NIC}"), "new"),
    ];
    let host = Host { mounts: vec![(PathBuf::from("/"), "ext4".to_owned())], ..Host::default() };
    let mut reached = HashSet::new();
    for (rule, text, word) in &cases {
        let found = refusals(text, &host);
        assert!(found.iter().all(|(one, _)| one == rule), "{rule:?} was to be broken: {found:?}\n{text}");
        assert!(found.iter().any(|(_, line)| line.contains(word)), "no {word} in {found:?}");
        reached.insert(*rule);
    }
    // These are refused elsewhere.
    for rule in Rule::ALL.iter().filter(|&&rule| !matches!(rule, Rule::Migration | Rule::OwnFiles)) {
        assert!(reached.contains(rule), "no case breaks {rule:?}");
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let text = format!("{GUEST}[libvirt]\nrx_queue_size = 7\n{NIC}mtu = 1\nmac = \"x\"\n");
    assert_eq!(refusals(&text, &Host::default()).len(), 3);
}

#[test]
fn a_switch_without_packed_rings_gets_no_packed_guest() {
    let mut host = Host::default();
    host.features.retain(|feature| feature != "ring_packed");
    let text = format!("{NOVA}\"hw:virtio_packed_ring\" = true\n{NIC}");
    assert_eq!(refusals(&text, &host)[0].0, Rule::Offered);
}

#[test]
fn a_switch_with_few_descriptors_is_told() {
    let host = Host { files_max: 100, files_used: Some(80), files_of_running: true, ..Host::default() };
    let found = refusals(&format!("{GUEST}{NIC}queues = 4\n"), &host);
    assert!(found[0].0 == Rule::OwnFiles && found[0].1.contains("LimitNOFILE"), "{found:?}");
    assert!(found[0].1.contains("34 files open for this guest beside 80 that it has, of 100"), "{found:?}");
}

/// Names that somebody else reads, or that a later nova has, are not for a plan to refuse.
#[test]
fn what_is_no_business_of_the_nics_is_let_through() {
    let text = format!(
        "{NOVA}\"hw:colour\" = \"red\"\n\"hw_cpu_policy\" = \"x\"\n\"hw_rng:allowed\" = true\n\"trait:CUSTOM_X\" = \"required\"\n\
         [image.properties]\nhw_cpu_model = \"x\"\nhw_net_model = \"y\"\n\"hw:cpu_policy\" = \"z\"\nos_distro = \"debian\"\n\
         hw_mem_encryption = false\n{NIC}"
    );
    let made = plan(&Input::from_toml(&text, "t".as_ref()).unwrap(), &Host::default()).unwrap();
    for key in ["hw:colour", "hw_cpu_model", "hw_net_model"] {
        assert!(made.warnings.iter().any(|warning| warning.about == key), "{:?}", made.warnings);
    }
    for name in [" a b ", "a.b", "é", "a,b"] {
        let text = format!("{GUEST}name = \"{name}\"\n{NIC}");
        assert_eq!(plan(&Input::from_toml(&text, "t".as_ref()).unwrap(), &Host::default()).unwrap().guest.name, name);
    }
    let text = format!("{GUEST}{NIC}socket = \"/run/a,b.sock\"\n");
    let line = plan(&Input::from_toml(&text, "t".as_ref()).unwrap(), &Host::default()).unwrap().qemu();
    assert!(line.contains("path=/run/a,,b.sock,server=on"), "{line}");
}

#[test]
fn the_lines_of_the_documentation_are_as_printed() {
    let text = format!(
        "{NOVA}\"hw:vif_multiqueue_enabled\" = true\n[image.properties]\nhw_vif_multiqueue_enabled = \"no\"\n{NIC}"
    );
    assert_eq!(
        refusals(&text, &Host::default())[0].1,
        "hw:vif_multiqueue_enabled: the flavor says true and the image (hw_vif_multiqueue_enabled) says false; nova answers \
         400 when flavor and image differ (FlavorImageConflict); make them equal, or unset one: openstack flavor unset \
         --property hw:vif_multiqueue_enabled FLAVOR"
    );
}
