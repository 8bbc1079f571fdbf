//! Under a real libvirtd: two guests boot from the plan's XML as it was printed, and libvirt takes every shape that XML has.

use std::fs;
use std::path::Path;
use std::time::Duration;

use ringway_testbed::{
    Agent, Console, Libvirt, Ringway, TempDir, initramfs_with_one_serial_port, scratch_dir, wait_for,
};
use serde_json::Value;

use crate::common::{SWITCH_CPU, assert_balances};
use crate::{plan, ringway};

/// Enough for any command in a guest under software emulation.
const ANSWER: Duration = Duration::from_secs(40);
/// From a start, a hot plug or an unplugging to what shows it.
const BACK: Duration = Duration::from_secs(60);
const FEATURES: &str = "cat /sys/class/net/eth0/device/features";
const PACKED_BIT: usize = 34;
const PAIRS: u64 = 2;
/// QEMU's USB controller has as many interrupters.
const QEMU_XHCI_VECTORS: u64 = 16;
const GUESTS: [&str; 2] = ["vm1", "vm2"];

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
        // Those of other devices: of its ports the guest says so, of USB and SATA the domain says that they are there.
        let ports = net.run(name, "grep -c 'MSI.*PCIe PME' /proc/interrupts").trim().parse::<u64>().unwrap();
        let domain = net.libvirt.virsh(&["dumpxml", name]).unwrap();
        assert!(domain.contains("model='qemu-xhci'") && domain.contains("type='sata'"), "{domain}");
        assert_eq!(json["arithmetic"]["vectors_other"], ports + QEMU_XHCI_VECTORS + 1);
    }
    net.ping();
    net.transfer();
    assert_balances(&net.ringway);

    // A NIC comes and goes while it runs. `show` says of a port without a front end that it is connecting.
    let pids = net.libvirt.qemus("vm1").unwrap();
    let [qemu] = pids[..] else { panic!("{pids:?}") };
    let files = || fs::read_dir(format!("/proc/{qemu}/fd")).unwrap().count();
    let before = files();
    let switch = net.ringway.process().pid();
    let files_of_switch = || fs::read_dir(format!("/proc/{switch}/fd")).unwrap().count();
    let before_switch = files_of_switch();
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
    // And of the switch's: what QEMU sends for a pair, and the port.
    let added = files_of_switch() - before_switch;
    println!("QEMU's NIC of {PAIRS} queue pairs took {added} files of the switch");
    assert!((8..=2 * 8 + 2).contains(&added), "{added} files more");
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

    // A QEMU that takes MSI-X gets the vectors that a plan counts. This one may not, and is not let go.
    net.libvirt.virsh(&["destroy", "vm2"]).unwrap();
    let later = ["--file", &file(&net.dir, "vm2"), "--qemu-version", "10.0"];
    let json: Value = serde_json::from_str(&plan(&[&later[..], &["--json"]].concat())).unwrap();
    assert_eq!(json["nics"][0]["vectors"], 2 * PAIRS + 2);
    net.libvirt.virsh(&["undefine", "vm2"]).unwrap();
    net.libvirt.virsh_with(&["define", "--validate"], &plan(&[&later[..], &["--xml"]].concat())).unwrap();
    net.libvirt.virsh(&["start", "vm2", "--paused"]).unwrap();
    let log = net.libvirt.qemu_log("vm2");
    assert_eq!(log.matches(&format!("\"vectors\":{}", 2 * PAIRS + 2)).count(), 1, "{log}");
}

/// What an operator can ask for, in the shapes that a domain has for it. libvirt 9.0 and QEMU 7.2 know all of them.
const SHAPES: &[&str] = &[
    "--vcpus 4 --memory 512 --nic name=n,queues=4,mtu=9000 --nic name=m,mode=server,throughput=medium",
    "--vcpus 4 --memory 512 --nic name=a.b --nic name=a_b --packed off --numa-nodes 2",
    "--vcpus 4 --memory 512 --nic name=n --page-size 2048 --numa-nodes 2 --rx-queue-size 1024 --tx-queue-size 512",
    "--vcpus 4 --memory 512 --nic name=n --memory-backing-dir /dev/shm --file-backed-memory 1024 --disk /var/tmp/d&d.qcow2",
    "--vcpus 128 --memory 512 --nic name=n,queues=128 --vectors-max 25600",
    "--flavor-property hw:mem_page_size=2MB --flavor-property hw:viommu_model=intel --vcpus 2 --memory 64 --nic name=n",
    MANY_VCPUS,
];
const MANY_VCPUS: &str = "--vcpus 280 --memory 512 --nic name=n";
/// libvirtd's own judgement, which is stricter than its schema: each shape is defined. There need not be KVM here, so that type and
/// CPU are those of emulation.
#[test]
fn libvirt_takes_every_shape() {
    let libvirt = Libvirt::start().unwrap();
    let emulated = |xml: &str| {
        xml.replace("<domain type=\"kvm\"", "<domain type=\"qemu\"").replace("\"host-passthrough\"", "\"maximum\"")
    };
    for shape in SHAPES {
        let words: Vec<&str> = shape.split(' ').chain(["--name", "shape"]).collect();
        let xml = emulated(&plan(&[&words[..], &["--xml"]].concat()));
        libvirt.virsh_with(&["define", "--validate"], &xml).unwrap_or_else(|error| panic!("{shape}: {error:#}\n{xml}"));
        libvirt.virsh(&["undefine", "shape"]).unwrap();
    }

    // What the plan refuses libvirt refuses as well, or it would be a plan's mistake.
    let many: Vec<&str> = MANY_VCPUS.split(' ').collect();
    let xml = emulated(&plan(&[&many[..], &["--xml"]].concat()));
    let (before, rest) = xml.split_once("<iommu").unwrap();
    let (_, after) = rest.split_once("</iommu>").unwrap();
    let told = libvirt.virsh_with(&["define"], &format!("{before}{after}")).unwrap_err();
    assert!(format!("{told:#}").contains("extended interrupt mode"), "{told:#}");
    // nova's attributes with the model that it chooses for `auto`.
    let intel: Vec<&str> = SHAPES[5].split(' ').collect();
    let virtio = emulated(&plan(&[&intel[..], &["--xml"]].concat())).replace("model=\"intel\"", "model=\"virtio\"");
    let told = libvirt.virsh_with(&["define"], &virtio).unwrap_err();
    assert!(format!("{told:#}").contains("additional attributes"), "{told:#}");
}
