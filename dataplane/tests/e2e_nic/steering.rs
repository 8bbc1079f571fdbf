//! Which of the drivers here take rules for stations, and that the others say why not. That rules follow stations is tested in
//! `nic::steering`, with a table in the place of a NIC: where the kernel lacks what net_tap wants, no driver of this machine takes any.

use std::process::Command;

use ringway_testbed::{Namespace, Ringway};

use crate::common::port_says;

/// Whether the kernel takes what net_tap makes of a rule: a flower filter that chooses a queue.
fn kernel_takes_rules(interface: &str) -> bool {
    let tc = |arguments: String| Command::new("tc").args(arguments.split(' ')).status().unwrap().success();
    let rule = "flower dst_mac 02:00:00:00:00:01 action skbedit queue_mapping 1";
    tc(format!("qdisc add dev {interface} ingress"))
        && tc(format!("filter add dev {interface} parent ffff: protocol all {rule}"))
}

#[test]
fn what_a_driver_does_not_take_is_said() {
    let number = std::process::id();
    let world = Namespace::new("10.92.0.1/24", 1500).unwrap();
    let tap = |n: u32| format!("net_tap{n},iface=rws{number:x}{n}");
    let ringway = Ringway::builder()
        .toml("[workers]\ncpus = [0, 1]")
        .bridge("br0")
        .nic("packet", "br0", &format!("net_af_packet0,iface={},qpairs=2", world.interface()))
        .nic("tap", "br0", &tap(0))
        .bond("bond", "br0", "active-backup", &[tap(1), tap(2)])
        .nic("null", "br0", "net_null0")
        .start()
        .unwrap();
    let ports = ["packet", "tap", "bond", "null"];
    ringway.wait_state(&ports, "running").unwrap();
    let by_rules = ports.map(|port| {
        let [queues, steering, refused] =
            ["rx_queues", "steering", "flow_rules_refused"].map(|key| port_says(&ringway, port, key));
        println!("{port}: {queues} RX queues, {steering}; refused: {refused}");
        assert_eq!(queues, "2", "{port}");
        assert_eq!(steering == "flow_rules", refused == "null", "{port}: {steering}, {refused}");
        steering == "flow_rules"
    });
    let kernel = kernel_takes_rules(world.interface());
    println!("the kernel takes rules: {kernel}");
    assert_eq!(by_rules, [false, kernel, kernel, false]);
}
