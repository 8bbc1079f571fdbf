//! What an operator does with ports while frames go: started, stopped, removed, added, and every mbuf comes back.

use std::time::Duration;

use ringway_testbed::{Metrics, Namespace, Ringway, wait_for};
use serde_json::json;

use crate::common::{SWITCH_CPU, assert_balances, port_says};
use crate::{SEEN, dropped};

fn af_packet(number: u32, namespace: &Namespace) -> String {
    format!("net_af_packet{number},iface={}", namespace.interface())
}

fn mbufs_in_use(metrics: &Metrics) -> f64 {
    metrics.sum("ringway_nic_mbufs_in_use", &[])
}

#[test]
fn ports_come_and_go_under_traffic() {
    let (one, two) = (Namespace::new("10.91.0.1/24", 1500).unwrap(), Namespace::new("10.91.0.2/24", 1500).unwrap());
    let ringway = Ringway::builder()
        .cpu(SWITCH_CPU)
        .bridge("br0")
        .nic("one", "br0", &af_packet(0, &one))
        .nic("two", "br0", &af_packet(1, &two))
        .start()
        .unwrap();
    ringway.wait_state(&["one", "two"], "running").unwrap();
    let _server = two.spawn("iperf3").args(["-s"]).start().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let _flood =
        one.spawn("iperf3").args(["-c", "10.91.0.2", "-u", "-b", "200M", "-l", "1000", "-t", "60"]).start().unwrap();
    let received = |port: &str| port_says(&ringway, port, "transmit_packets").parse::<u64>().unwrap();
    let flows = || {
        let before = received("two");
        wait_for("frames to two", SEEN, || (received("two") > before + 100).then_some(())).unwrap();
    };
    flows();

    let answer = |command: &str, state: &str, changed: bool| {
        let said = ringway.port(command, "two").unwrap();
        assert_eq!(said, json!({ "port": "two", "state": state, "changed": changed, "last_error": null }), "{command}");
        assert_eq!(port_says(&ringway, "two", "state"), state);
    };
    for _ in 0..5 {
        // Each is done once, however often it is asked for.
        for (down, state, up) in [("stop", "stopped", "start"), ("remove", "removed", "add")] {
            answer(down, state, true);
            answer(down, state, false);
            let before = received("two");
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!(received("two"), before, "frames go to a port that is {state}");
            answer(up, "running", true);
            answer(up, "running", false);
            flows();
        }
    }
    // Nobody knew where to send while the port was away, or sent to a queue that was not there.
    let lost = ["no_destination", "receiver_stopped", "link_down"]
        .map(|reason| dropped(&ringway, "one", reason) + dropped(&ringway, "two", reason));
    assert!(lost.iter().sum::<u64>() > 0, "{lost:?}");

    let counted = ringway.metrics().unwrap();
    for name in ["rx_good_packets", "tx_good_packets"] {
        let xstat = counted.sum("ringway_nic_xstat_total", &[("port", "one"), ("name", name)]);
        assert!(xstat > 0.0, "{name} of the driver's own counters");
    }

    // A stopped port can be removed, a removed one neither started nor stopped.
    answer("stop", "stopped", true);
    answer("add", "stopped", false);
    answer("remove", "removed", true);
    for command in ["start", "stop"] {
        let said = format!("{:#}", ringway.port(command, "two").unwrap_err());
        assert!(said.contains("port two is removed; add it first: ringway port add two"), "{said}");
    }
    let said = format!("{:#}", ringway.port("stop", "three").unwrap_err());
    assert!(said.contains("there is no port three; NIC ports are one, two"), "{said}");

    // While nobody polls it, its device is somebody else's; when it is back, so is the port. And if it is not there, it says so.
    two.unplug().unwrap();
    let said = format!("{:#}", ringway.port("add", "two").unwrap_err());
    assert!(said.contains("port two failed: ") && said.contains("it is tried again"), "{said}");
    two.plug().unwrap();
    ringway.wait_state(&["two"], "running").unwrap();

    for port in ["one", "two"] {
        ringway.port("remove", port).unwrap();
    }
    assert!(ringway.metrics().unwrap().sum("ringway_nic_mbufs", &[]) > 1000.0);
    wait_for("mbufs", SEEN, || (mbufs_in_use(&ringway.metrics().unwrap()) == 0.0).then_some(())).unwrap();
    for port in ["one", "two"] {
        ringway.port("add", port).unwrap();
    }
    one.run("ip neigh flush all").unwrap(); // the new interface has another address
    one.run("ping -c 3 -i 0.5 -W 2 10.91.0.2").unwrap();
    assert_balances(&ringway);
}

/// A guest's port comes and goes with its guest.
#[test]
fn guests_are_not_told() {
    let directory = ringway_testbed::scratch_dir().unwrap();
    let ringway = Ringway::bridging(&[("vm1", directory.path().join("vm1.sock"))]).unwrap();
    let said = format!("{:#}", ringway.port("stop", "vm1").unwrap_err());
    assert!(said.contains("port vm1 is a guest's, and comes and goes with it; only NIC ports can be told"), "{said}");
    let said = format!("{:#}", ringway.port("stop", "up").unwrap_err());
    assert!(said.contains("there is no port up, and no NIC port at all"), "{said}");
}
