//! `ringway plan` against those for whom it plans: a real libvirtd boots its XML, the switch reads its records and is measured
//! against its figures.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use common::{SWITCH_CPU, assert_balances};
use ringway_testbed::driver::frame::{frame, mac};
use ringway_testbed::driver::{Guest, Layout, Listener, Options};
use ringway_testbed::{
    Agent, Console, Libvirt, Ringway, TempDir, initramfs_with_one_serial_port, ringway_binary, scratch_dir, wait_for,
};
use serde_json::Value;

/// Enough for any command in a guest under software emulation.
const ANSWER: Duration = Duration::from_secs(40);
/// From a start, a hot plug or an unplugging to what shows it.
const BACK: Duration = Duration::from_secs(60);
const FEATURES: &str = "cat /sys/class/net/eth0/device/features";
const PACKED_BIT: usize = 34;
const PAIRS: u64 = 2;
const GUESTS: [&str; 2] = ["vm1", "vm2"];

fn ringway(arguments: &[&str]) -> Output {
    Command::new(ringway_binary().unwrap()).arg("plan").args(arguments).output().unwrap()
}

/// What `ringway plan` prints.
fn plan(arguments: &[&str]) -> String {
    let output = ringway(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Its lines on standard error, of a guest that cannot be.
fn refusals(arguments: &[&str]) -> Vec<String> {
    let output = ringway(arguments);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]));
    String::from_utf8(output.stderr).unwrap().lines().map(str::to_owned).collect()
}

/// Two guests as libvirt runs them, `vm1` and `vm2`, and room for a third NIC, `spare`.
struct Net {
    consoles: [Console; 2],
    // Dropped before the switch, and QEMU's guests with it.
    libvirt: Libvirt,
    ringway: Ringway,
    dir: TempDir,
}

impl Net {
    fn boot() -> Self {
        let dir = scratch_dir().unwrap();
        initramfs_with_one_serial_port(&dir.path().join("initramfs")).unwrap();
        let libvirt = Libvirt::start().unwrap();
        let net_of = |name: &str| plan(&["--file", &file(&dir, name), "--config"]);
        let records = ["vm1", "vm2", "spare"].map(|name| {
            fs::write(dir.path().join(format!("{name}.toml")), guest(dir.path(), name)).unwrap();
            net_of(name)
        });
        // The switch reads its own records as they were printed.
        let builder =
            records.iter().fold(Ringway::builder().cpu(SWITCH_CPU).bridge("br0"), |builder, one| builder.toml(one));
        let ringway = builder.start().unwrap();
        // libvirt boots what was printed, every byte of it.
        for name in GUESTS {
            let xml = plan(&["--file", &file(&dir, name), "--xml"]);
            libvirt.virsh_with(&["define", "--validate"], &xml).unwrap();
            libvirt.virsh(&["start", name]).unwrap();
        }
        let consoles = GUESTS.map(|name| libvirt.console(name).unwrap());
        let net = Self { consoles, libvirt, ringway, dir };
        for name in GUESTS {
            net.agent(name).wait_booted().unwrap_or_else(|error| panic!("{error}\n{}", net.libvirt.qemu_log(name)));
        }
        net.ringway.wait_state(&GUESTS, "running").unwrap();
        net
    }

    fn agent(&self, name: &str) -> Agent {
        self.consoles[usize::from(name == GUESTS[1])].agent()
    }

    fn run(&self, name: &str, command: &str) -> String {
        self.agent(name).run(command, ANSWER).unwrap()
    }

    fn port(&self, name: &str) -> Value {
        self.ringway.show_port(name).unwrap()
    }

    fn ping(&self) {
        let look = || self.agent("vm1").exec("ping -c 1 -W 1 10.88.0.2", ANSWER).is_ok_and(|(status, _)| status == 0);
        wait_for("a ping", BACK, || look().then_some(())).unwrap();
        let said = self.run("vm1", "ping -c 5 -i 0.2 -w 20 10.88.0.2");
        assert!(said.contains(" 0% packet loss"), "{said}");
    }

    /// A transfer by TCP, whole: its sum is the same at both ends.
    fn transfer(&self) {
        let serve = "mkdir -p /run/www; head -c 8388608 /dev/urandom >/run/www/data; httpd -p 8080 -h /run/www; md5sum </run/www/data";
        let sent = self.run("vm2", serve);
        let arrived = self.run("vm1", "timeout 30 wget -q -O - http://10.88.0.2:8080/data | md5sum");
        assert_eq!(arrived, sent);
        self.run("vm2", "killall httpd");
    }

    fn wait_port(&self, name: &str, key: &str, wanted: impl Into<Value>) {
        let wanted = wanted.into();
        wait_for(&format!("{key} {wanted} of {name}"), BACK, || (self.port(name)[key] == wanted).then_some(()))
            .unwrap_or_else(|error| panic!("{error}: {:#}", self.port(name)));
    }

    fn nics(&self) -> usize {
        self.run("vm1", "ls /sys/class/net | grep -c ^eth").trim().parse().unwrap()
    }
}

fn file(dir: &TempDir, name: &str) -> String {
    dir.path().join(format!("{name}.toml")).display().to_string()
}

/// What an operator writes for such a guest. Its only serial port is the plan's; the agent is there.
fn guest(dir: &Path, name: &str) -> String {
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/guest").canonicalize().unwrap();
    let (dir, image) = (dir.display(), image.display());
    let address = if name == "vm1" { "10.88.0.1/24" } else { "10.88.0.2/24" };
    format!(
        "[guest]\nname = \"{name}\"\nvcpus = 2\nmemory_mib = 192\nvirt_type = \"qemu\"\n\
         kernel = \"{image}/vmlinuz\"\ninitrd = \"{dir}/initramfs\"\n\
         cmdline = \"console=ttyS0 loglevel=1 panic=1 mitigations=off ringway.ip={address}\"\n\
         [[nic]]\nname = \"{name}\"\nsocket = \"{dir}/{name}.sock\"\nthroughput = \"high\"\n"
    )
}

/// Everything of a guest's life under libvirt, with one boot, which takes its time.
#[test]
fn libvirt_boots_what_was_planned() {
    // Makes the image if it is not there yet.
    ringway_testbed::acceleration().unwrap();
    let mut net = Net::boot();

    // As planned: packed rings, and all queue pairs in use without a word to the guest.
    for name in GUESTS {
        let features = net.run(name, FEATURES);
        assert_eq!(features.as_bytes()[PACKED_BIT], b'1', "{features}");
        net.wait_port(name, "pairs_enabled", PAIRS);
        assert_eq!(net.port(name)["ring"], "packed");
        let channels = net.run(name, "ethtool -l eth0");
        let combined: Vec<&str> = channels.lines().filter_map(|line| line.strip_prefix("Combined:")).collect();
        assert_eq!(combined.iter().map(|count| count.trim()).collect::<Vec<_>>(), ["2", "2"], "{channels}");
        // Its vectors are taken away by the plan's own XML.
        let json: Value = serde_json::from_str(&plan(&["--file", &file(&net.dir, name), "--json"])).unwrap();
        assert_eq!(json["nics"][0]["vectors"], 0);
        assert_eq!(net.libvirt.qemu_log(name).matches("\"vectors\":0").count(), 1);
        // Those of other devices are no more than planned, and a third of them at least.
        let msi = net.run(name, "grep -c MSI /proc/interrupts; true").trim().parse::<u64>().unwrap();
        let other = json["arithmetic"]["vectors_other"].as_u64().unwrap();
        println!("{}\n{}", net.run(name, "grep MSI /proc/interrupts"), net.libvirt.virsh(&["dumpxml", name]).unwrap());
        println!("{name}: {msi} vectors of other devices, planned {other}");
        assert!((1..=other).contains(&msi), "{msi} vectors of other devices, planned {other}");
    }
    net.ping();
    net.transfer();
    assert_balances(&net.ringway);

    // A NIC comes and goes while it runs. `show` says of a port without a front end that it is connecting.
    let pids = net.libvirt.qemus("vm1").unwrap();
    let [qemu] = pids[..] else { panic!("{pids:?}") };
    let files = || fs::read_dir(format!("/proc/{qemu}/fd")).unwrap().count();
    let before = files();
    let interface = plan(&["--file", &file(&net.dir, "spare"), "--interface", "spare"]);
    // A NIC that comes later has vectors all the same; the guest is told to use none, as the plan advises.
    let advice = ringway(&["--file", &file(&net.dir, "spare"), "--interface", "spare"]).stderr;
    assert!(String::from_utf8_lossy(&advice).contains("msi_bus"));
    net.run("vm1", "for bus in /sys/bus/pci/devices/*/msi_bus; do echo 0 >$bus; done");
    net.libvirt.virsh_with(&["attach-device", "vm1"], &interface).unwrap();
    wait_for("eth1", BACK, || (net.nics() == 2).then_some(())).unwrap();
    net.run("vm1", "ip link set eth1 up");
    net.wait_port("spare", "pairs_enabled", PAIRS);
    assert_eq!(net.port("spare")["ring"], "packed");
    // What a plan says of QEMU's files: two pairs, and the NIC itself.
    let added = files() - before;
    assert!((8..=2 * 8 + 4).contains(&added), "{added} files more");
    net.ping();
    net.libvirt.virsh_with(&["detach-device", "vm1"], &interface).unwrap();
    wait_for("no eth1", BACK, || (net.nics() == 1).then_some(())).unwrap();
    net.wait_port("spare", "state", "connecting");
    // All of them come back.
    wait_for("its files", BACK, || (files() <= before).then_some(())).unwrap();
    net.ping();

    // A domain that is destroyed takes nothing with it, and comes back.
    net.libvirt.virsh(&["destroy", "vm2"]).unwrap();
    wait_for("no QEMU", BACK, || net.libvirt.qemus("vm2").unwrap().is_empty().then_some(())).unwrap();
    net.wait_port("vm2", "state", "connecting");
    assert_eq!(net.port("vm1")["state"], "running");
    net.libvirt.virsh(&["start", "vm2"]).unwrap();
    net.consoles[1] = net.libvirt.console("vm2").unwrap();
    net.agent("vm2").wait_booted().unwrap();
    net.ping();
    net.transfer();
    assert_balances(&net.ringway);
    assert_eq!(net.port("vm1")["broken_queues"], serde_json::json!([]));
}

/// KiB of memory that are the switch's own, and its open files.
fn taken(ringway: &mut Ringway) -> (u64, u64) {
    let pid = ringway.process().pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    (line.trim().trim_end_matches(" kB").parse().unwrap(), files as u64)
}

/// The figures of a plan against the switch that ships: 1 and 64 queue pairs with rings of 1,024, of which each has sent and
/// received a full burst.
#[test]
fn a_queue_pair_takes_no_more_than_a_plan_says() {
    const MANY: u8 = 64;
    let dir = scratch_dir().unwrap();
    let sockets = ["vm0", "vm1", "vm2"].map(|name| dir.path().join(name));
    let listeners = sockets.each_ref().map(|socket| Listener::bind(socket).unwrap());
    let port = |builder: ringway_testbed::RingwayBuilder, (index, socket): (usize, _)| {
        builder.port(&format!("vm{index}"), "br0", socket)
    };
    let builder = Ringway::builder().cpu(SWITCH_CPU).bridge("br0");
    let mut ringway = sockets.iter().enumerate().fold(builder, port).start().unwrap();
    let options = |pairs| Options { pairs, size: 1024, memory_len: 256 << 20, ..Options::new(Layout::Packed) };
    let mut peer = Guest::plug(&listeners[0], options(1)).unwrap();
    let mut plug = |number: u16, pairs: u8| {
        let mut guest = Guest::plug(&listeners[usize::from(number)], options(pairs)).unwrap();
        ringway.wait_state(&[&format!("vm{number}")], "running").unwrap();
        for pair in &mut guest.pairs {
            for seed in 0..32 {
                pair.send(&frame(mac(0), mac(number), 1000, seed));
                peer.pairs[0].receive_within(ANSWER).unwrap();
            }
        }
        (guest, taken(&mut ringway))
    };
    let (_one, first) = plug(1, 1);
    let (_many, second) = plug(2, MANY);
    let planned = |pairs: &str| {
        let nic = format!("name=n,queues={pairs}");
        let json = plan(&["--vcpus", "64", "--memory", "64", "--nic", &nic, "--json"]);
        let json: Value = serde_json::from_str(&json).unwrap();
        let number = |key: &str| json["arithmetic"][key].as_u64().unwrap();
        (number("ringway_kib"), number("ringway_files"))
    };
    let took = (second.0.saturating_sub(first.0), second.1 - first.1);
    let planned = planned("64");
    println!("{MANY} queue pairs took {} KiB and {} files; planned {} and {}", took.0, took.1, planned.0, planned.1);
    assert!(took.0 <= planned.0 && took.1 <= planned.1, "took {took:?}, planned {planned:?}");
    // A figure that is four times what it takes is no figure.
    assert!(took.0 * 4 >= planned.0 && took.1 * 2 >= planned.1, "took {took:?}, planned {planned:?}");
}

/// The command as an operator meets it: files of OpenStack's client, another host, refusals in lines.
#[test]
fn files_and_hosts_are_read_and_refused() {
    let dir = scratch_dir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let flavor = write(
        "flavor.json",
        r#"{"name": "net.large", "vcpus": 4, "ram": 1024, "disk": 1,
        "properties": {"hw:vif_multiqueue_enabled": "true", "hw:mem_page_size": "2MB"}}"#,
    );
    let image = write(
        "image.json",
        r#"{"name": "debian", "disk_format": "qcow2", "min_ram": 0,
        "properties": {"hw_virtio_packed_ring": "true"}}"#,
    );
    let port = write(
        "port.json",
        r#"{"id": "01234567-89ab-cdef-0123-456789abcdef", "mac_address": "fa:16:3e:00:00:01",
        "binding_vif_type": "vhostuser", "binding_vif_details": {"vhostuser_mode": "server", "vhostuser_socket": "/s/vhu01234567-89"}}"#,
    );
    let all = ["--flavor", &flavor, "--image", &image, "--port", &port];
    let page = plan(&all);
    assert!(page.contains("vhu01234567-89") && page.contains("COMPUTE_NET_VIRTIO_PACKED"), "{page}");
    assert!(page.lines().filter(|line| !line.contains('/')).all(|line| line.chars().count() <= 80), "{page}");

    // This host keeps everything; one with less does not.
    let here = plan(&["--host"]);
    let same = write("same.json", &here);
    assert!(ringway(&[&all[..], &["--migrate-to", &same]].concat()).status.success());
    let mut host: Value = serde_json::from_str(&here).unwrap();
    assert!(host["features"].as_array().unwrap().contains(&"ring_packed".into()));
    host["queue_pairs_max"] = 2.into();
    host["mtu_max"] = 1400.into();
    host["features"].as_array_mut().unwrap().retain(|feature| feature != "ring_packed");
    let less = write("less.json", &host.to_string());
    let told = refusals(&[&all[..], &["--migrate-to", &less]].concat());
    assert_eq!(told.len(), 3, "{told:#?}");
    for word in ["ring_packed", "2 queue pairs", "1400 bytes"] {
        assert!(told.iter().any(|line| line.contains(word)), "no {word} in {told:#?}");
    }

    // One line each, whatever is wrong.
    let conflict = [&all[..], &["--image-property", "hw_vif_multiqueue_enabled=no"]].concat();
    let told = refusals(&conflict);
    assert!(told[0].starts_with("ringway plan: hw:vif_multiqueue_enabled: "));
    let json: Value = serde_json::from_slice(&ringway(&[&conflict[..], &["--json"]].concat()).stdout).unwrap();
    assert_eq!(json["refusals"][0], told[0].trim_start_matches("ringway plan: "));
    for (arguments, word) in [
        (&["--file", "/nonexistent.toml"][..], "cannot be read"),
        (&["--flavor", &image], "no flavor"),
        (&["--nic", "queue=4"], "unknown key `queue`"),
        (&["--nic", "queues=many"], "is no number"),
        (&["--flavor-property", "hw:x"], "is not KEY=VALUE"),
        (&["--nova-conf", "--physnet", "a=nosuchnic"], "there is no interface"),
        (&["--vcpus", "2", "--memory", "64", "--nic", "name=a", "--interface", "b"], "there is no NIC b"),
        (&["--host", "--switch-config", "/nonexistent.toml"], "cannot be read"),
        (
            &["--vcpus", "2", "--memory", "64", "--nic", "name=a", "--packed", "on", "--qemu-version", "4.1"],
            "4.1 is too old",
        ),
        (
            &["--vcpus", "2", "--memory", "64", "--nic", "name=a", "--kernel", "/k", "--cmdline", "a\nb"],
            "control characters",
        ),
    ] {
        let told = refusals(arguments);
        assert!(told.len() == 1 && told[0].contains(word), "no {word} in {told:?}");
    }
    assert!(plan(&["--provider-yaml"]).contains("- CUSTOM_RINGWAY_RING_PACKED\n"));
    assert!(plan(&["--nova-conf", "--physnet", "physnet0"]).contains("[neutron_physnet_physnet0]\nnuma_nodes = 0\n"));
}
