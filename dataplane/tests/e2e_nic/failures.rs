//! What may fail at the start of DPDK and of a port: an error of that port, and nothing else.

use ringway_testbed::driver::frame::{BROADCAST, frame, mac};
use ringway_testbed::driver::{Guest, Layout, Listener, Options};
use ringway_testbed::{Ringway, RingwayBuilder, TempDir, scratch_dir, wait_for};

use crate::SEEN;
use crate::common::{SWITCH_CPU, port_says};

/// Two guests, and what else `builder` says.
fn guests(builder: RingwayBuilder) -> (Ringway, Vec<Guest>, TempDir) {
    let directory = scratch_dir().unwrap();
    let socket = |index: usize| directory.path().join(format!("vm{index}.sock"));
    let listeners: Vec<_> = (0..2).map(|index| Listener::bind(&socket(index)).unwrap()).collect();
    let builder = builder.port("vm0", "br0", socket(0)).port("vm1", "br0", socket(1));
    let ringway = builder.start().unwrap();
    let guests =
        listeners.iter().map(|listener| Guest::plug(listener, Options::new(Layout::Packed)).unwrap()).collect();
    ringway.wait_state(&["vm0", "vm1"], "running").unwrap();
    (ringway, guests, directory)
}

fn talk(guests: &mut [Guest]) {
    let sent = frame(BROADCAST, mac(1), 60, 7);
    guests[0].send(&sent);
    assert_eq!(guests[1].receive(), Some(sent));
}

/// More memory than this process may have: DPDK does not start, the switch does.
#[test]
fn without_dpdk_guests_go_on() {
    let builder =
        Ringway::builder().cpu(SWITCH_CPU).address_space(6 << 30).setting("nic_memory_mib = 8192").bridge("br0");
    let (ringway, mut guests, _directory) = guests(builder.nic("up", "br0", "net_null0"));
    assert_eq!(port_says(&ringway, "up", "state"), "failed");
    let said = port_says(&ringway, "up", "last_error");
    assert!(said.starts_with("DPDK does not start: ") && said.contains("start the switch again"), "{said}");
    talk(&mut guests);
    let said = format!("{:#}", ringway.port("start", "up").unwrap_err());
    assert!(said.contains("DPDK does not run: DPDK does not start: "), "{said}");
    let up = ringway.metrics().unwrap().sum("ringway_nic_up", &[("port", "up")]);
    assert!(up == 0.0);
}

/// Mbufs for sixteen queues do not fit into so little: that port says how many they would be, and the other runs. What comes free
/// is for whoever wants it.
#[test]
fn a_pool_that_does_not_fit_is_that_ports_error() {
    let builder = Ringway::builder().cpu(SWITCH_CPU).setting("nic_memory_mib = 64").bridge("br0");
    let builder = builder.nic("large", "br0", "net_null0").port_setting("queues = 16\nmtu = 9000");
    let (mut ringway, mut guests, _directory) = guests(builder.nic("small", "br0", "net_ring0"));
    ringway.wait_state(&["small"], "running").unwrap();
    assert_eq!(port_says(&ringway, "large", "state"), "failed");
    let said = port_says(&ringway, "large", "last_error");
    let arithmetic =
        "1 ports x (1 devices x (16 RX queues x 1024 descriptors + 16 TX queues x 1024 descriptors) + 16 queues x";
    assert!(said.contains("no memory for its mbufs") && said.contains(arithmetic), "{said}");
    assert!(said.contains("raise `nic_memory_mib`"), "{said}");
    talk(&mut guests);
    // How it runs is said aloud.
    let log = ringway.process().log();
    assert!(
        log.contains("DPDK runs on CPU") && (log.contains("with huge pages") || log.contains("without huge pages: ")),
        "{log}"
    );
}

/// A bond whose members cannot be had says so of each.
#[test]
fn a_bond_without_members() {
    let builder = Ringway::builder().cpu(SWITCH_CPU).bridge("br0");
    let devices = ["net_af_packet0,iface=rwnone0", "net_af_packet1,iface=rwnone1"].map(str::to_owned);
    let ringway = builder.bond("up", "br0", "active-backup", &devices).start().unwrap();
    ringway.wait_state(&["up"], "failed").unwrap();
    let said = port_says(&ringway, "up", "last_error");
    assert!(said.starts_with("no member of the bond can be had; the first: no device net_af_packet0"), "{said}");
    let shown = wait_for("members", SEEN, || ringway.show_port("up").ok()).unwrap();
    assert_eq!(shown["bond"]["mode"], "active-backup");
    assert_eq!(shown["bond"]["members"][1]["device"], "net_af_packet1,iface=rwnone1");
}
