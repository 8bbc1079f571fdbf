//! Which worker real guests get, on two CPUs, and what an operator is told of it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::path::Path;
use std::time::Duration;

use common::{LOAD_CPU, SWITCH_CPU, count};
use ringway_testbed::{Guest, Ringway, Testpmd, VirtioUser, scratch_dir, wait_for};
use serde_json::Value;

/// From a change of CPUs or memory until the switch has acted on it: a look every 5 s, a machine that is busy.
const NOTICED: Duration = Duration::from_secs(40);

/// What `show workers` says of each pair of a port: CPU of the worker, why, and whether its memory is remote.
fn placed(ringway: &Ringway, port: &str) -> Vec<(u64, String, bool)> {
    let workers = ringway.show("workers").unwrap();
    let mut placed = Vec::new();
    for worker in workers.as_array().unwrap() {
        for one in worker["placement"].as_array().unwrap() {
            if one["queue"].as_str().unwrap().starts_with(&format!("{port}/")) {
                let (why, remote) = (one["why"].as_str().unwrap(), one["remote_memory"].as_bool().unwrap());
                placed.push((worker["cpu"].as_u64().unwrap(), why.to_owned(), remote));
            }
        }
    }
    placed
}

fn two_workers(settings: &str, ports: &[(&str, &Path, &str)]) -> Ringway {
    let workers = format!("[workers]\ncpus = [{SWITCH_CPU}, {LOAD_CPU}]\n{settings}");
    let mut builder = Ringway::builder().toml(&workers).bridge("br0");
    for (name, socket, setting) in ports {
        builder = builder.port(name, "br0", socket).port_setting(setting);
    }
    builder.start().unwrap()
}

/// The threads of this QEMU may run on one CPU only. Of two workers it gets the other one, though both are as near to its memory,
/// and that is asked of the kernel.
#[test]
fn a_guest_is_kept_off_the_cpu_of_its_own_vcpus() {
    let dir = scratch_dir().unwrap();
    let socket = dir.path().join("vm1.sock");
    let guest = Guest::builder("vm1", &socket).queues(2).vcpus(2).cpu(LOAD_CPU).start().unwrap();
    let ringway = two_workers("placement = \"pair\"", &[("vm1", &socket, "")]);
    guest.wait_booted().unwrap();
    ringway.wait_state(&["vm1"], "running").unwrap();
    let known = || {
        let placed = placed(&ringway, "vm1");
        (!placed.is_empty() && placed.iter().all(|(_, why, _)| why.starts_with("memory on node "))).then_some(placed)
    };
    for (cpu, why, remote) in wait_for("memory that is known", NOTICED, known).unwrap() {
        assert_eq!((cpu, remote), (SWITCH_CPU as u64, false), "{why}");
        assert!(why.ends_with("; the only worker that would do"), "{why}");
    }
    assert_eq!(count(&ringway.metrics().unwrap(), "worker_remote_memory_queues", &[]), 0);
}

/// Pins, and guests without any: testpmd is no QEMU, and polls where it likes.
#[test]
fn pins_are_obeyed_and_the_rest_is_dealt_out() {
    let dir = scratch_dir().unwrap();
    let socket = |name: &str| dir.path().join(format!("{name}.sock"));
    let (a, b, c) = (socket("a"), socket("b"), socket("c"));
    let guests = Testpmd::guest().cpu(LOAD_CPU).virtio_user(VirtioUser::new(&a)).virtio_user(VirtioUser::new(&b));
    let guests = guests.virtio_user(VirtioUser::new(&c)).start().unwrap();
    let pin = format!("worker_cpus = [{LOAD_CPU}]");
    let ringway = two_workers("", &[("vm1", &a, &pin), ("vm2", &b, ""), ("vm3", &c, &pin)]);
    guests.wait_ready().unwrap();
    ringway.wait_state(&["vm1", "vm2", "vm3"], "running").unwrap();
    for port in ["vm1", "vm3"] {
        let placed = placed(&ringway, port);
        assert!(!placed.is_empty());
        for (cpu, why, _) in placed {
            assert_eq!(cpu, LOAD_CPU as u64);
            assert!(why.starts_with("pinned by the configuration; "), "{why}");
        }
    }
    // Two on the one worker: the third goes to the other.
    let free = placed(&ringway, "vm2");
    assert!(free.iter().all(|(_, why, _)| why.ends_with("least busy of 2 workers")), "{free:?}");
    // Nothing is busy, so nothing is worth moving.
    assert_eq!(ringway.show("rebalance").unwrap(), Value::Array(Vec::new()));
    let metrics = ringway.metrics().unwrap();
    assert_eq!(count(&metrics, "queue_moves_total", &[]), 0);
    assert_eq!(count(&metrics, "rebalance_dry_runs_total", &[]), 0);
}
