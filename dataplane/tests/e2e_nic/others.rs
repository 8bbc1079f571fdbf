//! The other drivers that hosts without a spare NIC have.

use std::net::UdpSocket;
use std::process::Command;

use ringway_testbed::driver::frame::{BROADCAST, frame, mac};
use ringway_testbed::driver::front_end::feature;
use ringway_testbed::driver::net_header::DATA_VALID;
use ringway_testbed::driver::{Guest, Layout, Listener, NetHeader, Options};
use ringway_testbed::{Namespace, Ringway, RingwayBuilder, TempDir, scratch_dir};

use crate::common::{SWITCH_CPU, assert_balances, count, port_says};

/// A switch with one guest, `vm0`, and one NIC, `uplink`.
fn plug(builder: RingwayBuilder, device: &str, features: u64) -> (Ringway, Guest, TempDir) {
    let directory = scratch_dir().unwrap();
    let socket = directory.path().join("vm0.sock");
    let listener = Listener::bind(&socket).unwrap();
    let ringway = builder.bridge("br0").port("vm0", "br0", &socket).nic("uplink", "br0", device).start().unwrap();
    let options = Options::new(Layout::Packed);
    let guest = Guest::plug(&listener, Options { features: options.features | features, ..options }).unwrap();
    ringway.wait_state(&["vm0", "uplink"], "running").unwrap();
    (ringway, guest, directory)
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// The kernel behind an interface of its own, two queues for two workers: frames come by both, and checksums that the driver
/// found right are vouched for.
#[test]
fn a_tap_with_a_queue_for_each_worker() {
    let interface = format!("rwt{:x}", std::process::id());
    let workers = Ringway::builder().toml("[workers]\ncpus = [0, 1]");
    let (ringway, mut guest, _directory) =
        plug(workers, &format!("net_tap0,iface={interface}"), feature::GUEST_OFFLOADS);
    assert_eq!(port_says(&ringway, "uplink", "rx_queues"), "2");
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"), "1").unwrap();
    ip(&format!("addr add 10.89.3.1/24 dev {interface}"));
    ip(&format!("link set {interface} up"));
    ip(&format!("neigh add 10.89.3.2 lladdr 02:00:00:00:00:01 nud permanent dev {interface}"));
    let address = std::fs::read_to_string(format!("/sys/class/net/{interface}/address")).unwrap();
    let kernel: Vec<u8> = address.trim().split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    let kernel: [u8; 6] = kernel.try_into().unwrap();

    let station = [2, 0, 0, 0, 0, 1];
    guest.send(&frame(BROADCAST, station, 60, 7));
    for flow in 0..64_u16 {
        let socket = UdpSocket::bind(("10.89.3.1", 20_000 + flow)).unwrap();
        socket.set_read_timeout(Some(crate::SEEN)).unwrap();
        let said: Vec<u8> = (0..500).map(|byte| (byte + flow) as u8).collect();
        socket.send_to(&said, ("10.89.3.2", 9)).unwrap();
        let (header, came) = loop {
            let (header, came) = guest.receive_asking().unwrap();
            if came.get(23) == Some(&17) && came[36..38] == [0, 9] {
                break (header, came);
            }
        };
        assert_eq!(came[42..], said);
        assert_eq!(header, NetHeader { flags: DATA_VALID, ..NetHeader::default() }, "the driver checks");

        let mut answer = Vec::new();
        let packet = etherparse::PacketBuilder::ethernet2(station, kernel).ipv4([10, 89, 3, 2], [10, 89, 3, 1], 64);
        packet.udp(9, 20_000 + flow).write(&mut answer, &said[1..]).unwrap();
        guest.send(&answer);
        let mut heard = [0; 600];
        let (len, _) = socket.recv_from(&mut heard).unwrap();
        assert_eq!(heard[..len], said[1..]);
    }
    let metrics = ringway.metrics().unwrap();
    for queue in ["0", "1"] {
        let labels = [("port", "uplink"), ("queue", queue)];
        assert!(count(&metrics, "queue_receive_packets_total", &labels) >= 8, "{:?}", ringway.show("queues"));
    }
    assert_balances(&ringway);
}

/// What goes out comes in again: a ring is its own other end.
#[test]
fn a_ring() {
    let (ringway, mut guest, _directory) = plug(Ringway::builder().cpu(SWITCH_CPU), "net_ring0", 0);
    for len in [60, 1514] {
        let frame = frame(BROADCAST, mac(1), len, 7);
        guest.send(&frame);
        assert_eq!(guest.receive(), Some(frame));
    }
    assert_eq!(port_says(&ringway, "uplink", "receive_packets"), "2");
    assert_balances(&ringway);
}

/// Two kernels, one by af_xdp.
#[test]
fn af_xdp() {
    let (one, two) = (Namespace::new("10.89.4.1/24", 1500).unwrap(), Namespace::new("10.89.4.2/24", 1500).unwrap());
    let ringway = Ringway::builder()
        .cpu(SWITCH_CPU)
        .bridge("br0")
        .nic("xdp", "br0", &format!("net_af_xdp0,iface={}", one.interface()))
        .nic("packet", "br0", &format!("net_af_packet0,iface={}", two.interface()))
        .start()
        .unwrap();
    ringway.wait_state(&["xdp", "packet"], "running").unwrap();
    println!("{}", one.run("ping -c 5 -i 0.2 -W 2 -s 1400 10.89.4.2").unwrap());
    println!("{}", two.run("ping -c 5 -i 0.2 -W 2 10.89.4.1").unwrap());
    assert_balances(&ringway);
}
