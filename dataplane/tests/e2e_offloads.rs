//! Linux guests that leave checksums and segmentation to others, and one that may not: large frames pass where both ends
//! can, and are cut where one cannot, with checksums that the receiving kernel finds right.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::time::Duration;

use common::{LOAD_CPU, SWITCH_CPU, count};
use ringway_testbed::{Guest, Ringway, TempDir, scratch_dir};

/// Enough for any command here, under software emulation.
const ANSWER: Duration = Duration::from_secs(60);
/// The guest whose port masks all offloads.
const MASKED: usize = 3;
const GUESTS: usize = 3;
/// Bytes of the largest frame without offloads.
const FRAME_MAX: f64 = 1514.0;

struct Net {
    guests: Vec<Guest>,
    ringway: Ringway,
    _dir: TempDir,
}

impl Net {
    fn boot() -> Self {
        let dir = scratch_dir().unwrap();
        let name = |number: usize| format!("vm{number}");
        let socket = |number: usize| dir.path().join(format!("vm{number}.sock"));
        let start = |number: usize| {
            let builder = Guest::builder(&name(number), socket(number)).cpu(LOAD_CPU).memory(192);
            let builder = builder.ip(&format!("10.88.0.{number}/24")).option("--append", "ringway.ipv6=1");
            builder.start().unwrap()
        };
        let guests = (1..=GUESTS).map(start).collect::<Vec<_>>();
        let mut builder = Ringway::builder().cpu(SWITCH_CPU).bridge("br0");
        for number in 1..=GUESTS {
            builder = builder.port(&name(number), "br0", socket(number));
        }
        // It belongs to the port above, the third.
        let ringway = builder.toml("mask_features = [\"csum\", \"guest_csum\"]").start().unwrap();
        for guest in &guests {
            guest.wait_booted().unwrap();
        }
        ringway.wait_state(&["vm1", "vm2", "vm3"], "running").unwrap();
        let net = Self { guests, ringway, _dir: dir };
        for number in 1..=GUESTS {
            net.run(number, &format!("ip -6 addr add fd88::{number}/64 dev eth0"));
            net.run(
                number,
                "iperf3 -s >/dev/null 2>&1 & httpd -p 80 -h /run; dd if=/dev/urandom of=/run/blob bs=64k count=32",
            );
        }
        std::thread::sleep(Duration::from_secs(3)); // IPv6 looks for others that have the address
        net
    }

    fn run(&self, number: usize, command: &str) -> String {
        self.guests[number - 1].run(command, ANSWER).unwrap()
    }

    /// A line of `ethtool -k`.
    fn offload(&self, number: usize, name: &str) -> String {
        let said = self.run(number, "ethtool -k eth0");
        let line = said.lines().find(|line| line.trim_start().starts_with(name)).unwrap_or_else(|| panic!("{said}"));
        line.split_once(": ").unwrap().1.to_owned()
    }

    /// Of all frames so far: given to a guest, their bytes, and made by the switch.
    fn counts(&self, number: usize) -> [u64; 3] {
        let metrics = self.ringway.metrics().unwrap();
        let port = format!("vm{number}");
        [
            count(&metrics, "port_transmit_packets_total", &[("port", &port)]),
            count(&metrics, "port_transmit_bytes_total", &[("port", &port)]),
            count(&metrics, "generated_packets_total", &[]),
        ]
    }

    /// TCP for three seconds: bytes of the mean frame that the receiver got, and frames that were made for it.
    fn tcp(&self, from: usize, address: &str, to: usize) -> (f64, u64) {
        let before = self.counts(to);
        self.run(from, &format!("timeout 40 iperf3 -c {address}{to} -t 3 -P 2"));
        let after = self.counts(to);
        let [packets, bytes, generated] = [0, 1, 2].map(|index| after[index] - before[index]);
        println!("TCP from {from} to {address}{to}: {} bytes a frame, {generated} generated", bytes / packets);
        (bytes as f64 / packets as f64, generated)
    }

    /// Checksums that the kernel of a guest found wrong.
    fn checksum_errors(&self, number: usize) -> u64 {
        let said = self.run(number, "cat /proc/net/snmp /proc/net/snmp6");
        let lines: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
        let tables = lines.windows(2).filter(|pair| pair[0][0] == pair[1][0] && pair[0].contains(&"InCsumErrors"));
        let old = tables.map(|pair| pair[1][pair[0].iter().position(|&name| name == "InCsumErrors").unwrap()]);
        let new = lines.iter().filter(|line| line[0].ends_with("InCsumErrors")).map(|line| line[1]);
        old.chain(new).map(|number| number.parse::<u64>().unwrap()).sum()
    }
}

#[test]
fn offloads_pass_or_are_finished() {
    let net = Net::boot();
    for number in 1..=GUESTS {
        let expected = if number == MASKED { "off" } else { "on" };
        for name in ["tcp-segmentation-offload", "tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-checksumming"] {
            let said = net.offload(number, name);
            assert!(said.starts_with(expected), "guest {number}: {name}: {said}");
        }
        println!("guest {number}:\n{}", net.run(number, "ethtool -k eth0 | grep -v '\\[fixed\\]'"));
    }

    for address in ["10.88.0.", "fd88::"] {
        // Both can: what arrives is larger than any frame on a wire, and the switch made none of it.
        let (mean, generated) = net.tcp(1, address, 2);
        assert!(mean > 2.0 * FRAME_MAX && generated == 0, "{mean} bytes a frame, {generated} generated");
        // The receiver cannot: it gets segments.
        let (mean, generated) = net.tcp(1, address, MASKED);
        assert!(mean <= FRAME_MAX && generated > 100, "{mean} bytes a frame, {generated} generated");
        // The sender cannot, and the receiver is offered what is not asked.
        let (mean, generated) = net.tcp(MASKED, address, 2);
        assert!(mean <= FRAME_MAX && generated == 0, "{mean} bytes a frame, {generated} generated");
    }

    // Bytes come as they are, by way of all of them.
    for (from, to) in [(1, 2), (1, MASKED), (MASKED, 1)] {
        let sum = |number, command: &str| net.run(number, command).split_whitespace().next().unwrap().to_owned();
        let sent = sum(from, "md5sum < /run/blob");
        assert_eq!(sum(to, &format!("wget -q -O - http://10.88.0.{from}/blob | md5sum")), sent, "{from} to {to}");
    }
    // UDP, whose checksums are left undone, too.
    net.run(1, &format!("timeout 40 iperf3 -u -b 5M -c 10.88.0.{MASKED} -t 2"));
    for number in 1..=GUESTS {
        assert_eq!(net.checksum_errors(number), 0, "guest {number}");
    }
    common::assert_balances(&net.ringway);
}
