//! True PCI NICs: the switch runs inside a machine of QEMU's, whose NICs are bound to vfio-pci behind an IOMMU and driven by DPDK's
//! poll-mode drivers. At their other ends are kernels of the host.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use ringway_testbed::{Machine, Namespace, PciNic, wait_for};

/// Any command in the machine, which is emulated.
const ANSWER: Duration = Duration::from_secs(60);
/// From a change of the world to its being seen by the switch.
const SEEN: Duration = Duration::from_secs(20);

/// Two NICs of makers that differ in everything: one of rings in memory that the device reads, one of registers and descriptors
/// of the 82574.
const VIRTIO: &str = "0000:00:05.0";
const E1000E: &str = "0000:00:06.0";

const CONFIG: &str = "/etc/ringway.toml";
const SOCKET: &str = "/run/ringway.sock";
const LOG: &str = "/run/ringway.log";
const PID: &str = "/run/ringway.pid";
const METRICS: &str = "127.0.0.1:9477";

/// The switch in the machine.
struct Inside(Machine);

impl Inside {
    fn run(&self, command: &str) -> String {
        self.0.run(command, ANSWER).unwrap()
    }

    fn configure(&self) {
        let port = |name: &str, device: &str| {
            format!("[[port]]\nname = \"{name}\"\nkind = \"nic\"\nbridge = \"br0\"\ndevice = \"{device}\"\n")
        };
        let head = format!("control_socket = \"{SOCKET}\"\nmetrics = \"{METRICS}\"\n[workers]\ncpus = [1]\n");
        let config = format!("{head}[[bridge]]\nname = \"br0\"\n{}{}", port("virtio", VIRTIO), port("e1000e", E1000E));
        for line in config.lines() {
            self.run(&format!("echo '{line}' >>{CONFIG}"));
        }
    }

    fn start(&self) {
        self.run(&format!("ringway run --config {CONFIG} >{LOG} 2>&1 & echo $! >{PID}"));
        let answers = || self.0.run(&format!("ringway show ports --socket {SOCKET}"), ANSWER).ok();
        wait_for("an answer", SEEN, answers).unwrap();
    }

    fn stop(&self) {
        self.run(&format!("kill $(cat {PID})"));
        self.run(&format!("for i in $(seq 100); do [ -e /proc/$(cat {PID}) ] || exit 0; usleep 100000; done; exit 1"));
    }

    /// What `show ports` says of a port.
    fn port(&self, name: &str) -> serde_json::Value {
        let said = self.run(&format!("ringway show ports --json --socket {SOCKET}"));
        let ports: serde_json::Value = serde_json::from_str(&said).unwrap();
        ports.as_array().unwrap().iter().find(|port| port["name"] == name).unwrap().clone()
    }

    fn wait_for(&self, port: &str, key: &str, value: &str) {
        if wait_for(key, SEEN, || (self.port(port)[key] == value).then_some(())).is_err() {
            panic!("{port} is not {key} {value}: {}\n{}", self.port(port), self.run(&format!("cat {LOG}")));
        }
    }

    /// The sum of a metric over all series whose labels contain `label`.
    fn count(&self, name: &str, label: &str) -> u64 {
        let page = self.run(&format!("wget -q -O - http://{METRICS}/metrics"));
        let lines = page.lines().filter(|line| line.starts_with(&format!("ringway_{name}")) && line.contains(label));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
    }

    /// Received, copied and made: sent or dropped, once nothing is under way.
    fn assert_balances(&self) {
        let sum = |names: &[&str]| names.iter().map(|name| self.count(name, "")).sum::<u64>();
        let sums = || {
            let came = ["port_receive_packets_total", "extra_copies_packets_total", "generated_packets_total"];
            (sum(&came), sum(&["port_transmit_packets_total", "dropped_packets_total"]))
        };
        let settled = wait_for("balance", SEEN, || Some(sums()).filter(|(came, went)| came == went && *came > 0));
        assert!(settled.is_ok(), "in and copied, out and dropped: {:?}", sums());
    }
}

#[test]
#[ignore = "minutes: the switch runs in an emulated machine; scripts/test --slow"]
fn poll_mode_drivers_of_pci_nics_behind_an_iommu() {
    let one = Namespace::for_tap("10.89.4.1/24", 1500).unwrap();
    let two = Namespace::for_tap("10.89.4.2/24", 1500).unwrap();
    let machine = Machine::boot(&[
        // A device of virtio asks the IOMMU only if it is told to; without, a driver that gives it addresses of its own is lost.
        PciNic { device: "virtio-net-pci,disable-legacy=on,iommu_platform=on", slot: 5, peer: &one },
        PciNic { device: "e1000e", slot: 6, peer: &two },
    ]);
    let inside = Inside(machine.unwrap());
    inside.run(&format!("/etc/nic-to-vfio {VIRTIO} {E1000E}"));
    inside.configure();
    inside.start();
    for (port, driver) in [("virtio", "net_virtio"), ("e1000e", "net_e1000_em")] {
        inside.wait_for(port, "state", "running");
        inside.wait_for(port, "link", "up");
        assert_eq!(inside.port(port)["driver"], driver);
    }
    let log = inside.run(&format!("cat {LOG}"));
    assert!(log.contains("with huge pages"), "{log}");
    println!("{}", inside.run(&format!("ringway show ports --socket {SOCKET}")));

    // Two kernels of the host meet by way of both NICs.
    one.run("ping -c 5 -i 0.3 -W 3 10.89.4.2").unwrap();
    one.run("ping -c 3 -i 0.3 -W 3 -s 1472 -M do 10.89.4.2").unwrap();
    let _server = two.spawn("iperf3").args(["-s"]).start().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    for more in ["-n 2M", "-n 2M -R", "-u -b 1M -t 2"] {
        println!("{}", one.run(&format!("timeout 60 iperf3 -c 10.89.4.2 {more}")).unwrap());
    }
    for port in ["virtio", "e1000e"] {
        let label = format!("port=\"{port}\"");
        for direction in ["receive", "transmit"] {
            let frames = inside.count(&format!("port_{direction}_packets_total"), &label);
            assert!(frames > 500, "{port} {direction}: {frames}");
        }
        assert!(inside.count("nic_xstat_total", &label) > 0, "{port} has no counters of its own");
    }
    for namespace in [&one, &two] {
        let errors = namespace.run("cat /proc/net/snmp | grep -E '^(Tcp|Udp):'").unwrap();
        let column = |header: &str, row: &str| -> u64 {
            let index = header.split(' ').position(|name| name == "InCsumErrors").unwrap();
            row.split(' ').nth(index).unwrap().parse().unwrap()
        };
        let lines: Vec<&str> = errors.lines().collect();
        assert!(lines.chunks(2).all(|pair| column(pair[0], pair[1]) == 0), "{errors}");
    }
    inside.assert_balances();

    // The cable: frames for it are dropped for that, and go again when it is back.
    inside.0.set_link(&two, false).unwrap();
    inside.wait_for("e1000e", "link", "down");
    one.run("ping -c 2 -i 0.3 -W 1 10.89.4.2").unwrap_err();
    assert!(inside.count("dropped_packets_total", "reason=\"link_down\"") > 0);
    inside.0.set_link(&two, true).unwrap();
    inside.wait_for("e1000e", "link", "up");
    one.run("ping -c 3 -i 0.5 -W 3 10.89.4.2").unwrap();
    inside.assert_balances();

    // It ends as it should, and leaves the NICs as they were: it finds them again.
    inside.stop();
    inside.start();
    for port in ["virtio", "e1000e"] {
        inside.wait_for(port, "link", "up");
    }
    one.run("ping -c 3 -i 0.5 -W 3 10.89.4.2").unwrap();
}
