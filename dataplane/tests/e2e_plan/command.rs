//! The command as an operator meets it: files of OpenStack's client, other hosts, one line for each mistake.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use ringway_testbed::{TempDir, ringway_binary, scratch_dir};
use serde_json::Value;

use crate::{plan, refusals, ringway};

const BY_HAND: [&str; 6] = ["--vcpus", "2", "--memory", "64", "--nic", "name=a"];

fn write(dir: &TempDir, name: &str, text: &str) -> String {
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// A flavor, an image and a port as the client prints them, and the words that name their files.
fn openstack(dir: &TempDir) -> Vec<String> {
    let flavor = write(
        dir,
        "flavor.json",
        r#"{"name": "net.large", "vcpus": 4, "ram": 1024, "disk": 1,
        "properties": {"hw:vif_multiqueue_enabled": "true", "hw:mem_page_size": "2MB"}}"#,
    );
    let image = write(
        dir,
        "image.json",
        r#"{"name": "debian", "disk_format": "qcow2", "min_ram": 0,
        "properties": {"hw_virtio_packed_ring": "true"}}"#,
    );
    let port = write(
        dir,
        "port.json",
        r#"{"id": "01234567-89ab-cdef-0123-456789abcdef", "mac_address": "fa:16:3e:00:00:01", "name": "web1",
        "binding_vif_type": "vhostuser", "binding_vif_details": {"vhostuser_mode": "server", "vhostuser_socket": "/s/vhu01234567-89"}}"#,
    );
    ["--flavor", &flavor, "--image", &image, "--port", &port].map(str::to_owned).to_vec()
}

/// From a Neutron port that no server has yet to the record of the switch.
#[test]
fn a_neutron_port_is_planned_before_and_after_its_server() {
    let dir = scratch_dir().unwrap();
    let all = openstack(&dir);
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let page = plan(&all);
    assert!(page.contains("vhu01234567-89") && page.contains("COMPUTE_NET_VIRTIO_PACKED"), "{page}");
    assert!(page.lines().filter(|line| !line.contains('/')).all(|line| line.chars().count() <= 80), "{page}");
    let unbound = write(
        &dir,
        "unbound.json",
        r#"{"id": "01234567-89ab-cdef-0123-456789abcdef", "mac_address": "fa:16:3e:00:00:01", "name": "web1",
        "binding_vif_type": "unbound", "binding_vif_details": null, "binding_profile": null, "binding_vnic_type": "normal"}"#,
    );
    let before = [&all[..4], &["--port", &unbound]].concat();
    let output = ringway(&[&before[..], &["--config"]].concat());
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && told.contains("Neutron has not bound the port yet"), "{told}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("socket = \"/var/lib/vhost_sockets/vhu01234567-89\"\n"));
    // More of the same NIC, by any of its names; a socket that is said is no guess.
    for name in ["web1", "vhu01234567-89", "01234567-89ab-cdef-0123-456789abcdef"] {
        let more = format!("name={name},mtu=9000,bridge=br7,socket=/run/vhost/web1");
        let output = ringway(&[&before[..], &["--nic", &more, "--config"]].concat());
        let (records, told) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!(records.matches("[[port]]").count(), 1, "{records}");
        for line in ["name = \"vhu01234567-89\"", "bridge = \"br7\"", "mtu = 9000", "socket = \"/run/vhost/web1\""] {
            assert!(records.contains(line), "no {line} in {records}");
        }
        assert!(!told.contains("has not bound"), "{told}");
    }
}

/// This host keeps everything, whatever is masked and whatever a later switch adds to its description; one with less does not.
#[test]
fn another_host_is_judged() {
    let dir = scratch_dir().unwrap();
    let all = openstack(&dir);
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let here = plan(&["--host"]);
    let same = write(&dir, "same.json", &here);
    assert!(ringway(&[&all[..], &["--migrate-to", &same]].concat()).status.success());
    let masks = "mask_features=host_tso4+host_tso6+guest_tso4+guest_tso6+mq+event_idx";
    let nic = format!("name=m,{masks}");
    let record = plan(&["--vcpus", "1", "--memory", "64", "--nic", &nic, "--config"]);
    let config = write(
        &dir,
        "switch.toml",
        &format!("[[bridge]]\nname = \"br0\"\n{record}").replace("/run/guests", &dir.path().display().to_string()),
    );
    let masked = write(&dir, "masked.json", &plan(&["--host", "--switch-config", &config]));
    let output = ringway(&["--vcpus", "1", "--memory", "64", "--nic", &nic, "--migrate-to", &masked]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let mut host: Value = serde_json::from_str(&here).unwrap();
    assert!(host["features"].as_array().unwrap().contains(&"ring_packed".into()));
    assert_eq!(host["format"], 1);
    host["ports_of_2030"] = serde_json::json!([{ "name": "n" }]);
    host["nodes"][0]["temperature"] = 300.into();
    let later = write(&dir, "later.json", &host.to_string());
    assert!(ringway(&[&all[..], &["--migrate-to", &later]].concat()).status.success());
    host["queue_pairs_max"] = 2.into();
    host["mtu_max"] = 1400.into();
    host["features"].as_array_mut().unwrap().retain(|feature| feature != "ring_packed");
    let less = write(&dir, "less.json", &host.to_string());
    let told = refusals(&[&all[..], &["--migrate-to", &less]].concat());
    assert_eq!(told.len(), 3, "{told:#?}");
    for word in ["ring_packed", "2 queue pairs", "1400 bytes"] {
        assert!(told.iter().any(|line| line.contains(word)), "no {word} in {told:#?}");
    }
    host["format"] = 2.into();
    let other = write(&dir, "other.json", &host.to_string());
    assert!(refusals(&[&all[..], &["--migrate-to", &other]].concat())[0].contains("in format 2"));
}

/// One line each, whatever is wrong.
#[test]
fn what_is_wrong_is_a_line() {
    let dir = scratch_dir().unwrap();
    let all = openstack(&dir);
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let conflict = [&all[..], &["--image-property", "hw_vif_multiqueue_enabled=no"]].concat();
    let told = refusals(&conflict);
    assert!(told[0].starts_with("ringway plan: hw:vif_multiqueue_enabled: "));
    let in_json = |arguments: &[&str]| -> Value {
        let output = ringway(&[arguments, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(1));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["refusals"].take()
    };
    assert_eq!(in_json(&conflict), serde_json::json!([told[0].trim_start_matches("ringway plan: ")]));
    let by_hand = |more: &[&'static str]| -> Vec<&'static str> { [&BY_HAND[..], more].concat() };
    for (arguments, word) in [
        (vec!["--file", "/nonexistent.toml"], "cannot be read"),
        (vec!["--flavor", all[3]], "no flavor"),
        (vec!["--nic", "queue=4"], "unknown key `queue`"),
        (vec!["--nic", "queues=many\nmore"], "is no number"),
        (vec!["--nic", "name=a,mtu=1500,name=b"], "name is there twice"),
        (by_hand(&["--nic", "name=../x"]), "`../x` cannot be one"),
        (vec!["--flavor-property", "hw:x"], "is not KEY=VALUE"),
        (vec!["--nova-conf", "--physnet", "a=nosuchnic"], "there is no interface"),
        (by_hand(&["--interface", "b"]), "there is no NIC b"),
        (vec!["--host", "--switch-config", "/nonexistent.toml"], "cannot be read"),
        (by_hand(&["--packed", "on", "--qemu-version", "4.1"]), "4.1 is too old"),
        (by_hand(&["--kernel", "/k", "--cmdline", "a\nb"]), "control characters"),
        (by_hand(&["--kernel", "/k\u{7}"]), "control characters"),
        (by_hand(&["--vectors-other", "-1"]), "vectors_other"),
    ] {
        let told = refusals(&arguments);
        assert!(told.len() == 1 && told[0].contains(word), "no {word} in {told:?}");
        // One output at a time.
        if !arguments.iter().any(|word| ["--interface", "--nova-conf"].contains(word)) {
            assert_eq!(in_json(&arguments).as_array().map(Vec::len), Some(1), "{arguments:?}");
        }
    }
    // Arguments that are none: also a line, and status 2.
    for (arguments, line) in [
        (&["--vcpus", "x"][..], "ringway: --vcpus <COUNT>: `x` is no whole number; write one, such as 4"),
        (&["--vcpus"], "ringway: --vcpus <COUNT>: has no value; add one"),
        (&["--vcpu", "2"], "ringway: --vcpu: there is no such argument; write --vcpus"),
        (&["--packed", "maybe"], "ringway: --packed <on|off>: `maybe` is none of its values; use on, off"),
        (&["--xml", "--json"], "ringway: --xml and --json exclude each other; leave one of them out"),
        (&["--name", "a", "--name", "b"], "ringway: --name <NAME> is there twice; leave one of them out"),
        (&["a\nb"], "ringway: a\\nb: there is no such argument; see --help"),
    ] {
        let output = ringway(arguments);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{arguments:?}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), format!("{line}\n"));
    }
}

/// What is printed goes into files: warnings are told beside it, and what could not be written is told.
#[test]
fn output_is_whole_or_an_error() {
    let xml = ringway(&[&BY_HAND[..], &["--virt-type", "qemu", "--xml"]].concat());
    assert!(String::from_utf8(xml.stdout).unwrap().ends_with("</domain>\n"));
    assert!(String::from_utf8(xml.stderr).unwrap().starts_with("ringway plan: warning: virt_type: software emulation"));
    let full = fs::File::options().write(true).open(Path::new("/dev/full")).unwrap();
    let mut to_full = Command::new(ringway_binary().unwrap());
    let output =
        to_full.arg("plan").args(BY_HAND).arg("--config").stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("standard output takes no more"));

    assert!(plan(&["--provider-yaml"]).contains("- CUSTOM_RINGWAY_RING_PACKED\n"));
    assert!(plan(&["--nova-conf", "--physnet", "physnet0"]).contains("[neutron_physnet_physnet0]\nnuma_nodes = 0\n"));
}
