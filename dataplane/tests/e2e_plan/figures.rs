//! The figures of a plan against the switch that ships.

use std::fs;
use std::time::Duration;

use ringway_testbed::driver::frame::{frame, mac};
use ringway_testbed::driver::{Guest, Layout, Listener, Options};
use ringway_testbed::{Ringway, scratch_dir};
use serde_json::Value;

use crate::common::SWITCH_CPU;
use crate::plan;

const ANSWER: Duration = Duration::from_secs(40);

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
    // The limit is that of the switch, which has raised it; and what it has open is counted.
    let socket = ringway.control_socket().display().to_string();
    let json = plan(&["--vcpus", "2", "--memory", "64", "--nic", "name=n", "--socket", &socket, "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let limits = fs::read_to_string(format!("/proc/{}/limits", ringway.process().pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let limit: u64 = line.split_whitespace().nth(3).unwrap().parse().unwrap();
    assert_eq!(
        (&json["arithmetic"]["ringway_runs"], &json["arithmetic"]["ringway_files_max"]),
        (&true.into(), &limit.into())
    );
    let used = json["arithmetic"]["ringway_files_used"].as_u64().unwrap();
    let (_, open) = taken(&mut ringway);
    // The plan's own connection may come and go.
    assert!(used.abs_diff(open) <= 8, "{used} files open, {open} counted");
}
