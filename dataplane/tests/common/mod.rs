//! What the end-to-end tests share: a switch as its operator runs it, real guests, and its law of accounts.
#![allow(unreachable_pub, reason = "a module of several test programs")]
#![allow(dead_code, reason = "not every test file uses all of it")]

use std::time::Duration;

use ringway_testbed::{Metrics, Ringway, TempDir, Testpmd, VirtioUser, scratch_dir, wait_for};

/// The switch polls here,
pub const SWITCH_CPU: usize = 0;
/// and its guests run there: a poll-mode thread that shares its CPU with its peer measures the scheduler.
pub const LOAD_CPU: usize = 1;

/// Longer than the last burst needs to get through, also on a busy machine.
const SETTLED: Duration = Duration::from_secs(10);

/// The sum of a metric, which has to be a whole number, over all series with these labels.
pub fn count(metrics: &Metrics, name: &str, labels: &[(&str, &str)]) -> u64 {
    let sum = metrics.sum(&format!("ringway_{name}"), labels);
    assert!(sum >= 0.0 && sum.fract() == 0.0, "{name} is {sum}");
    sum as u64
}

/// Received + extra copies + generated, and transmitted + dropped: equal once no frame is under way.
pub fn accounts(metrics: &Metrics) -> (u64, u64) {
    let sum = |names: &[&str]| names.iter().map(|name| count(metrics, name, &[])).sum();
    (
        sum(&["port_receive_packets_total", "extra_copies_packets_total", "generated_packets_total"]),
        sum(&["port_transmit_packets_total", "dropped_packets_total"]),
    )
}

/// The accounting law, for a switch whose guests are silent by now.
pub fn assert_balances(ringway: &Ringway) {
    let look = || {
        let (came, went) = accounts(&ringway.metrics().unwrap());
        (came == went && came > 0).then_some(())
    };
    if wait_for("balance", SETTLED, look).is_err() {
        panic!("in and copied, out and dropped: {:?}", accounts(&ringway.metrics().unwrap()));
    }
}

/// What `show ports` says of one port under `key`, as text.
pub fn port_says(ringway: &Ringway, port: &str, key: &str) -> String {
    match &ringway.show_port(port).unwrap()[key] {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A switch under load: two DPDK ports that send each other the same few frames for ever.
pub struct Loaded {
    pub ringway: Ringway,
    pub guests: Testpmd,
    _dir: TempDir,
}

impl Loaded {
    pub fn start() -> Self {
        let dir = scratch_dir().unwrap();
        let (a, b) = (dir.path().join("a.sock"), dir.path().join("b.sock"));
        let guests = Testpmd::guest().cpu(LOAD_CPU).virtio_user(VirtioUser::new(&a)).virtio_user(VirtioUser::new(&b));
        let guests = guests.start().unwrap();
        let ringway = Ringway::builder().cpu(SWITCH_CPU).bridge("br0").port("vm1", "br0", &a).port("vm2", "br0", &b);
        let ringway = ringway.start().unwrap();
        guests.wait_ready().unwrap();
        guests.command("start tx_first").unwrap();
        let loaded = Self { ringway, guests, _dir: dir };
        let before = loaded.received();
        wait_for("load", SETTLED, || (loaded.received() > before + 10_000).then_some(())).unwrap();
        loaded
    }

    pub fn received(&self) -> u64 {
        count(&self.ringway.metrics().unwrap(), "port_receive_packets_total", &[])
    }
}
