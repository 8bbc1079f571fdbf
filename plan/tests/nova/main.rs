//! nova's own cases: what it makes of flavor, image and nova.conf, a plan makes as well, and libvirt takes its XML.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod cases;

use std::process::Command;

use cases::{CASES, Case, Expected};
use ringway_plan::{Host, Input, Plan, Refusal, Rule, plan};

fn input(case: &Case) -> Input {
    let text = format!("[flavor]\nvcpus = {}\nram = 512\n[[nic]]\nname = \"vhu01234567-89\"\n", case.vcpus);
    let mut input = Input::from_toml(&text, "case".as_ref()).unwrap();
    input.add_flavor_property("hw:mem_page_size", "large");
    input.add_image_property("hw_vif_model", "virtio");
    for (name, (flavor, image)) in [("vif_multiqueue_enabled", case.multiqueue), ("virtio_packed_ring", case.packed)] {
        if let Some(value) = flavor {
            input.add_flavor_property(&format!("hw:{name}"), value);
        }
        if let Some(value) = image {
            input.add_image_property(&format!("hw_{name}"), value);
        }
    }
    input.libvirt.max_queues = case.max_queues.map(i64::from);
    input.libvirt.rx_queue_size = case.sizes.0.map(i64::from);
    input.libvirt.tx_queue_size = case.sizes.1.map(i64::from);
    input
}

fn planned(case: &Case) -> Result<Plan, Vec<Refusal>> {
    plan(&input(case), &Host { kernel: case.kernel.to_owned(), ..Host::default() })
}

#[test]
fn a_plan_is_what_nova_makes_of_it() {
    for case in CASES {
        let made = planned(case);
        let got = match &made {
            Ok(plan) => Expected::Plan(plan.nics[0].queue_pairs, plan.packed),
            Err(refusals) => {
                assert!(
                    refusals.iter().all(|one| one.rule() == Rule::FlavorImageConflict),
                    "{}: {refusals:?}",
                    case.name
                );
                Expected::Conflict
            }
        };
        assert_eq!(got, case.expected, "{}", case.name);
    }
}

/// nova's `<interface>`: `driver` says packed and queues only if they are on, and sizes only if nova.conf does.
#[test]
fn the_driver_element_says_what_novas_says() {
    for case in CASES {
        let (Ok(plan), Expected::Plan(pairs, packed)) = (planned(case), case.expected) else { continue };
        let xml = plan.xml();
        let has = |attribute: &str| xml.contains(attribute);
        assert_eq!(has("packed=\"on\""), packed, "{}", case.name);
        assert_eq!(has(&format!("queues=\"{pairs}\"")), pairs > 1, "{}", case.name);
        let size = |name: &str, size: Option<u32>| size.map_or(!has(name), |size| has(&format!("{name}=\"{size}\"")));
        assert!(size("rx_queue_size", case.sizes.0) && size("tx_queue_size", case.sizes.1), "{}: {xml}", case.name);
        assert!(has("<interface type=\"vhostuser\">") && has("mode=\"server\"") && has("memAccess=\"shared\""));
        assert_eq!(plan.required_trait, packed.then_some("COMPUTE_NET_VIRTIO_PACKED"));
    }
}

/// libvirt's own validator, over the whole table and every shape that XML can have.
#[test]
fn libvirt_takes_the_xml_of_every_case() {
    let mut domains: Vec<(String, String)> =
        CASES.iter().filter_map(|case| Some((case.name.to_owned(), planned(case).ok()?.xml()))).collect();
    assert!(domains.len() > 20);
    for (index, text) in SHAPES.iter().enumerate() {
        let input = Input::from_toml(text, "shape".as_ref()).unwrap();
        domains.push((format!("shape {index}"), plan(&input, &Host::default()).unwrap().xml()));
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("domain.xml");
    for (name, xml) in domains {
        std::fs::write(&file, &xml).unwrap();
        let output = Command::new("virt-xml-validate").arg(&file).arg("domain").output();
        let output =
            output.unwrap_or_else(|error| panic!("virt-xml-validate: {error}; scripts/setup test installs it"));
        assert!(output.status.success(), "{name}: {}\n{xml}", String::from_utf8_lossy(&output.stderr));
    }
}

/// What the table does not have: other memory, NUMA, server mode, MTU, direct boot, names that XML must quote.
const SHAPES: &[&str] = &[
    "[guest]\nvcpus = 4\nmemory_mib = 512\nvirt_type = \"qemu\"\nkernel = \"/k\"\ninitrd = \"/i\"\ncmdline = \"a<b & 'c'\"\n\
     [[nic]]\nname = \"n\"\nqueues = 4\nmtu = 9000\n[[nic]]\nname = \"m\"\nmode = \"server\"\nthroughput = \"medium\"\n",
    "[guest]\nname = \"a<b>&c\"\nvcpus = 4\nmemory_mib = 512\nnuma_nodes = 2\npage_size_kib = 2048\ndisk = \"/d&d.qcow2\"\n\
     emulator = \"/usr/bin/qemu-system-x86_64\"\n[[nic]]\nname = \"n\"\n",
    "[flavor]\nvcpus = 4\nram = 512\n[flavor.properties]\n\"hw:numa_nodes\" = 2\n\"hw:numa_cpus.0\" = \"0-2\"\n\
     \"hw:numa_cpus.1\" = \"3\"\n\"hw:numa_mem.0\" = 384\n\"hw:numa_mem.1\" = 128\n\"hw:mem_page_size\" = \"2MB\"\n[[nic]]\nname = \"n\"\n",
    "[flavor]\nvcpus = 2\nram = 512\nproperties = \"hw:virtio_packed_ring='yes'\"\n[libvirt]\nfile_backed_memory = 4096\n\
     [qemu]\nmemory_backing_dir = \"/dev/shm\"\n[[nic]]\nname = \"n\"\n",
    "[guest]\nvcpus = 300\nmemory_mib = 512\npacked = false\n[[nic]]\nname = \"n\"\n",
    "[guest]\nvcpus = 2\nmemory_mib = 512\nvirt_type = \"qemu\"\n[qemu]\nversion = \"10.0\"\n[[nic]]\nname = \"n\"\nqueues = 2\n",
    "[flavor]\nvcpus = 4\nram = 1024\nproperties = \"hw:mem_page_size='1GB', hw:viommu_model='intel'\"\n[image.properties]\n\
     hw_machine_type = \"q35\"\n[[nic]]\nname = \"n\"\n",
];
