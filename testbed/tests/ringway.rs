//! Ringway between two DPDK guests, and what it says about itself. Fails without a `ringway` binary, and says what to build.

use std::time::Duration;

use ringway_testbed::{Ringway, Testpmd, VirtioUser, ringway_binary, scratch_dir, wait_for};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn frames_are_counted_and_a_crash_is_survived() {
    // Said before the guests start, which would wait for it.
    ringway_binary().unwrap();
    let dir = scratch_dir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let guests = Testpmd::guest()
        .virtio_user(VirtioUser::new(&a))
        .virtio_user(VirtioUser::new(&b))
        .eth_peer(0, &VirtioUser::default_mac(1))
        .eth_peer(1, &VirtioUser::default_mac(0))
        .start()
        .unwrap();
    let mut ringway = Ringway::bridging(&[("vm1", &a), ("vm2", &b)]).unwrap();
    guests.wait_ready().unwrap();
    ringway.wait_state(&["vm1", "vm2"], "running").unwrap();
    guests.command("start tx_first 1").unwrap();

    let received = |ringway: &Ringway, port| {
        let metrics = ringway.metrics().unwrap();
        metrics.sum("ringway_port_receive_packets_total", &[("port", port)])
    };
    wait_for("frames", SOON, || (received(&ringway, "vm1") > 1000.0).then_some(())).unwrap();
    assert_eq!(ringway.show_port("vm2").unwrap()["ring"], "packed");

    let pid = ringway.process().pid();
    ringway.restart().unwrap();
    assert_ne!(ringway.process().pid(), pid);
    assert_eq!(ringway.show("ports").unwrap().as_array().unwrap().len(), 2);
}
