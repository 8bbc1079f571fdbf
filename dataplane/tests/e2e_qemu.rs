//! Linux guests in QEMU. A boot takes its time, so each test boots once and asks for much.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::{LOAD_CPU, SWITCH_CPU, port_says};
use ringway_testbed::{Guest, Ringway, TempDir, scratch_dir, two_workers, wait_for};

/// Enough for any command here that has no time of its own to keep, under software emulation.
const ANSWER: Duration = Duration::from_secs(30);
/// From a reboot or a new QEMU to the first answered ping.
const BACK: Duration = Duration::from_secs(60);
/// Where a guest's driver writes the features it negotiated, one character a bit.
const FEATURES: &str = "cat /sys/class/net/eth0/device/features";
const PACKED_BIT: usize = 34;
const GUESTS: usize = 3;

/// Guests 1, 2 and 3, `vm1` and so on, at 10.88.0.1 and so on. The third one's port permits no packed rings.
struct Net {
    guests: Vec<Guest>,
    ringway: Ringway,
    dir: TempDir,
}

impl Net {
    fn boot() -> Self {
        let dir = scratch_dir().unwrap();
        let guests = (1..=GUESTS).map(|number| start(number, socket(&dir, number))).collect();
        let mut builder = Ringway::builder().cpu(SWITCH_CPU).bridge("br0");
        for number in 1..=GUESTS {
            builder = builder.port(&name(number), "br0", socket(&dir, number));
        }
        // It belongs to the port above, the third.
        let ringway = builder.toml("mask_features = [\"packed\"]").start().unwrap();
        let net = Self { guests, ringway, dir };
        for guest in &net.guests {
            guest.wait_booted().unwrap();
        }
        net.ringway.wait_state(&["vm1", "vm2", "vm3"], "running").unwrap();
        net
    }

    fn guest(&self, number: usize) -> &Guest {
        &self.guests[number - 1]
    }

    fn run(&self, number: usize, command: &str) -> String {
        self.guest(number).run(command, ANSWER).unwrap()
    }

    fn feature(&self, number: usize, bit: usize) -> bool {
        let features = self.run(number, FEATURES);
        match features.as_bytes()[bit] {
            b'0' => false,
            b'1' => true,
            _ => panic!("no features: {features}"),
        }
    }

    fn ping(&self, from: usize, to: usize) {
        let said = self.run(from, &format!("ping -c 5 -i 0.2 -w 20 {}", ip(to)));
        assert!(said.contains(" 0% packet loss"), "{from} to {to}: {said}");
    }

    /// Waits until a guest answers again.
    fn wait_reachable(&self, from: usize, to: usize) {
        let look = || {
            self.guest(from).exec(&format!("ping -c 1 -W 1 {}", ip(to)), ANSWER).is_ok_and(|(status, _)| status == 0)
        };
        wait_for(&format!("a ping from {from} to {to}"), BACK, || look().then_some(())).unwrap();
    }

    /// A ping that goes on until [`Net::end_ping`].
    fn begin_ping(&self, from: usize, to: usize) {
        self.run(from, &format!("ping -i 0.1 {} >/run/ping 2>&1 &", ip(to)));
    }

    /// Ends it: how many answers there were, and that none is missing but for what was under way.
    fn end_ping(&self, from: usize) -> u32 {
        let said = self.run(from, "killall -INT ping; usleep 500000; tail -n 3 /run/ping");
        let numbers =
            said.lines().find(|line| line.contains("packets transmitted")).unwrap_or_else(|| panic!("{said}"));
        let numbers: Vec<u32> = numbers.split(' ').filter_map(|word| word.parse().ok()).collect();
        let &[sent, answered, ..] = &numbers[..] else { panic!("{said}") };
        assert!(answered + 1 >= sent, "from {from}: {sent} sent, {answered} answered");
        assert!(!said.contains("duplicates"), "{said}");
        answered
    }

    fn begin_iperf_server(&self, number: usize) {
        self.run(
            number,
            "iperf3 -s >/dev/null 2>&1 & for i in $(seq 100); do netstat -ltn | grep -q :5201 && exit 0; usleep 100000; done; exit 1",
        );
    }

    /// What the receiving end got, in Mbit/s.
    fn iperf(&self, from: usize, to: usize, options: &str) -> f64 {
        let said =
            self.guest(from).run(&format!("timeout 40 iperf3 -c {} -f m {options}", ip(to)), Duration::from_secs(50));
        let said = said.unwrap();
        let line = said.lines().rfind(|line| line.contains("receiver")).unwrap_or_else(|| panic!("{said}"));
        let words: Vec<&str> = line.split_whitespace().collect();
        let unit = words.iter().position(|&word| word == "Mbits/sec").unwrap_or_else(|| panic!("{said}"));
        words[unit - 1].parse().unwrap()
    }

    /// Waits until the switch polls so many queue pairs of a guest.
    fn wait_pairs(&self, number: usize, pairs: u64) {
        let look = || {
            let port = self.ringway.show_port(&name(number)).unwrap();
            (port["pairs_enabled"] == pairs).then_some(())
        };
        wait_for(&format!("{pairs} queue pairs of vm{number}"), ANSWER, look)
            .unwrap_or_else(|error| panic!("{error}: {:#}", self.ringway.show_port(&name(number)).unwrap()));
    }

    /// The accounting law, with guests that may say something at any moment.
    fn assert_balances(&self) {
        common::assert_balances(&self.ringway);
        for port in self.ringway.show("ports").unwrap().as_array().unwrap() {
            assert_eq!(port["broken_queues"], serde_json::json!([]), "{port:#}");
        }
        let metrics = self.ringway.metrics().unwrap();
        let bytes = |what: &str, path: &str| metrics.sum(&format!("ringway_{what}_bytes_total"), &[("path", path)]);
        let path = if two_workers() { "hand_off" } else { "guest_to_guest" };
        assert!(bytes("forwarded", path) > 0.0);
        assert_eq!(bytes("copied", "guest_to_guest"), bytes("forwarded", "guest_to_guest"));
        // Of what is handed over, some may be dropped after its first copy.
        assert!(bytes("copied", "hand_off") >= 2.0 * bytes("forwarded", "hand_off"));
    }
}

fn name(number: usize) -> String {
    format!("vm{number}")
}

fn ip(number: usize) -> String {
    format!("10.88.0.{number}")
}

fn socket(dir: &TempDir, number: usize) -> PathBuf {
    dir.path().join(format!("vm{number}.sock"))
}

fn start(number: usize, socket: PathBuf) -> Guest {
    let builder = Guest::builder(&name(number), socket).queues(2).cpu(LOAD_CPU).memory(192);
    builder.ip(&format!("{}/24", ip(number))).start().unwrap()
}

#[test]
fn guests_talk() {
    let net = Net::boot();

    // What was negotiated, as the guests' drivers and as the switch see it.
    assert_eq!([1, 2, 3].map(|number| net.feature(number, PACKED_BIT)), [true, true, false]);
    assert_eq!(["vm1", "vm2", "vm3"].map(|port| port_says(&net.ringway, port, "ring")), ["packed", "packed", "split"]);
    for number in 1..=GUESTS {
        net.wait_pairs(number, 2);
    }

    // Packed to packed, packed to split, split to packed.
    for (from, to) in [(1, 2), (2, 1), (1, 3), (3, 2)] {
        net.ping(from, to);
    }

    net.begin_iperf_server(2);
    let tcp = net.iperf(1, 2, "-P 4 -t 3");
    assert!(tcp > 1.0, "TCP: {tcp} Mbit/s");
    let udp = net.iperf(1, 2, "-u -b 5M -l 1400 -t 3");
    assert!(udp > 4.0, "UDP: {udp} of 5 Mbit/s");
    let mixed = net.iperf(3, 2, "-P 4 -t 3");
    assert!(mixed > 1.0, "TCP from split to packed rings: {mixed} Mbit/s");

    // The second queue pair off and on, twice, while others count on the first.
    net.begin_ping(2, 1);
    for _ in 0..2 {
        net.run(1, "ethtool -L eth0 combined 1");
        net.wait_pairs(1, 1);
        net.ping(1, 3);
        net.run(1, "ethtool -L eth0 combined 2");
        net.wait_pairs(1, 2);
        net.ping(1, 3);
    }
    assert!(net.end_ping(2) > 10);
    let tcp = net.iperf(1, 2, "-P 4 -t 2");
    assert!(tcp > 1.0, "TCP after ethtool -L: {tcp} Mbit/s");
    net.assert_balances();
}

#[test]
fn a_guest_goes_and_comes_back() {
    let mut net = Net::boot();
    net.begin_iperf_server(2);
    net.ping(1, 3);

    // A reboot in the middle of its own traffic and of its neighbours'.
    net.begin_ping(1, 3);
    net.run(3, &format!("iperf3 -c {} -t 60 >/dev/null 2>&1 &", ip(2)));
    let _ = net.guest(2).exec("reboot -f", Duration::from_secs(1));
    net.wait_reachable(3, 2);
    assert!(net.end_ping(1) > 10);
    net.run(3, "killall iperf3; true");
    net.guest(2).wait_booted().unwrap();
    let boots = net.guest(2).console().matches("ringway: guest booted").count();
    assert_eq!(boots, 2, "that was no reboot");
    assert!(net.feature(2, PACKED_BIT));
    net.wait_pairs(2, 2);
    net.ping(2, 1);
    net.ping(3, 2);

    // Its QEMU killed in the middle of the same, and another one on the same socket.
    net.begin_iperf_server(2);
    net.begin_ping(1, 3);
    net.run(3, &format!("iperf3 -c {} -t 60 >/dev/null 2>&1 &", ip(2)));
    std::thread::sleep(Duration::from_secs(1));
    net.guests[1].process().kill().unwrap();
    let killed = Instant::now();
    net.ringway.wait_state(&["vm2"], "connecting").unwrap();
    assert!(killed.elapsed() < Duration::from_secs(2), "noticed after {:?}", killed.elapsed());
    net.guests[1] = start(2, socket(&net.dir, 2));
    net.guest(2).wait_booted().unwrap();
    assert!(net.end_ping(1) > 10);
    net.run(3, "killall iperf3; true");
    net.wait_reachable(3, 2);
    assert!(net.feature(2, PACKED_BIT));
    net.wait_pairs(2, 2);
    net.ping(2, 1);
    net.begin_iperf_server(2);
    let tcp = net.iperf(1, 2, "-P 2 -t 2");
    assert!(tcp > 1.0, "TCP to the new guest: {tcp} Mbit/s");
    let connects = net.ringway.metrics().unwrap().sum("ringway_vhost_connects_total", &[("port", "vm2")]);
    assert!(connects >= 2.0, "{connects} connects");
    net.assert_balances();
}
