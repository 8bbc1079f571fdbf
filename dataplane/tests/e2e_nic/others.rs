//! The other drivers that hosts without a spare NIC have.

use std::net::UdpSocket;
use std::process::Command;

use ringway_testbed::driver::frame::{BROADCAST, frame, mac};
use ringway_testbed::driver::front_end::feature;
use ringway_testbed::driver::net_header::{DATA_VALID, NEEDS_CSUM, gso};
use ringway_testbed::driver::{Guest, Layout, Listener, NetHeader, Options, eventually};
use ringway_testbed::{Namespace, Ringway, RingwayBuilder, TempDir, scratch_dir};

use crate::common::{SWITCH_CPU, assert_balances, count, port_says};
use crate::dropped;

/// A switch with guests, `vm0` and on, and one NIC, `uplink`.
fn plug(builder: RingwayBuilder, nic: (&str, &str), guests: usize, features: u64) -> (Ringway, Vec<Guest>, TempDir) {
    let directory = scratch_dir().unwrap();
    let socket = |index: usize| directory.path().join(format!("vm{index}.sock"));
    let listeners: Vec<_> = (0..guests).map(|index| Listener::bind(&socket(index)).unwrap()).collect();
    let (device, setting) = nic;
    let vm = |builder: RingwayBuilder, index| builder.port(&format!("vm{index}"), "br0", socket(index));
    let builder = (0..guests).fold(builder.bridge("br0"), vm).nic("uplink", "br0", device).port_setting(setting);
    let ringway = builder.start().unwrap();
    let options = Options::new(Layout::Packed);
    let options = Options { features: options.features | features, ..options };
    let guests = listeners.iter().map(|listener| Guest::plug(listener, options).unwrap()).collect();
    ringway.wait_state(&["vm0", "uplink"], "running").unwrap();
    (ringway, guests, directory)
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// The kernel behind an interface of its own, four queues on two workers: frames come and go by all of them, and checksums that
/// the driver found right are vouched for. Two guests, so that both workers have something to send.
#[test]
fn a_tap_with_four_queues() {
    let interface = format!("rwt{:x}", std::process::id());
    let workers = Ringway::builder().toml("[workers]\ncpus = [0, 1]");
    let device = format!("net_tap0,iface={interface}");
    let (ringway, mut guests, _directory) =
        plug(workers, (&device, "queues = 4"), 2, feature::GUEST_OFFLOADS | feature::HOST_OFFLOADS);
    ringway.wait_state(&["vm1"], "running").unwrap();
    assert_eq!(port_says(&ringway, "uplink", "rx_queues"), "4");
    let workers = ringway.show("workers").unwrap();
    let queues = |worker: usize| workers[worker]["queues"].to_string();
    assert!(
        queues(0).contains(r#""uplink/0","uplink/2"#) && queues(1).contains(r#""uplink/1","uplink/3"#),
        "{workers}"
    );
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"), "1").unwrap();
    ip(&format!("addr add 10.89.3.1/24 dev {interface}"));
    ip(&format!("link set {interface} up"));
    for host in [2, 3] {
        ip(&format!("neigh add 10.89.3.{host} lladdr 02:00:00:00:00:0{host} nud permanent dev {interface}"));
    }
    let address = std::fs::read_to_string(format!("/sys/class/net/{interface}/address")).unwrap();
    let kernel: Vec<u8> = address.trim().split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    let kernel: [u8; 6] = kernel.try_into().unwrap();

    for (host, guest) in (2_u8..).zip(&mut guests) {
        let station = [2, 0, 0, 0, 0, host];
        guest.send(&frame(BROADCAST, station, 60, 7));
        for flow in 0..64_u16 {
            let socket = UdpSocket::bind(("10.89.3.1", 20_000 + flow)).unwrap();
            socket.set_read_timeout(Some(crate::SEEN)).unwrap();
            let said: Vec<u8> = (0..500).map(|byte| (byte + flow) as u8).collect();
            socket.send_to(&said, (format!("10.89.3.{host}"), 9)).unwrap();
            let (header, came) = datagram(guest, station);
            assert_eq!(came[42..], said);
            assert_eq!(header, NetHeader { flags: DATA_VALID, ..NetHeader::default() }, "the driver checks");

            let mut answer = Vec::new();
            let packet = etherparse::PacketBuilder::ethernet2(station, kernel);
            let packet = packet.ipv4([10, 89, 3, host], [10, 89, 3, 1], 64).udp(9, 20_000 + flow);
            packet.write(&mut answer, &said[1..]).unwrap();
            guest.send(&answer);
            let mut heard = [0; 600];
            let (len, _) = socket.recv_from(&mut heard).unwrap();
            assert_eq!(heard[..len], said[1..]);
        }
    }
    let metrics = ringway.metrics().unwrap();
    for queue in ["0", "1", "2", "3"] {
        for direction in ["receive", "transmit"] {
            let name = format!("queue_{direction}_packets_total");
            let frames = count(&metrics, &name, &[("port", "uplink"), ("queue", queue)]);
            assert!(frames >= 8, "{queue} {direction}: {frames}: {:?}", ringway.show("queues"));
        }
    }

    // Segments of full size, which the driver would refuse to make.
    let received = || {
        let path = format!("/sys/class/net/{interface}/statistics/rx_packets");
        std::fs::read_to_string(path).unwrap().trim().parse::<u64>().unwrap()
    };
    let before = received();
    let mut whole = Vec::new();
    let packet = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 2], kernel);
    let packet = packet.ipv4([10, 89, 3, 2], [10, 89, 3, 1], 64).tcp(7, 7, 1, 1000).ack(1);
    packet.write(&mut whole, &[7; 20 * 1460]).unwrap();
    let asked = NetHeader {
        flags: NEEDS_CSUM,
        gso_type: gso::TCPV4,
        hdr_len: 54,
        gso_size: 1460,
        csum_start: 34,
        csum_offset: 16,
    };
    guests[0].pairs[0].send_asking(asked, &whole, &[4000, 8000, 12_000, 16_000, 20_000, 24_000, 28_000]);
    assert!(eventually(|| received() >= before + 20), "{} of 20 segments came", received() - before);
    assert_eq!(dropped(&ringway, "uplink", "nic_queue_full") + dropped(&ringway, "uplink", "nic_refused"), 0);
    assert_balances(&ringway);
}

/// The next frame that is a datagram to port 9 of this station, and what is said of it. What is for others may have been flooded.
fn datagram(guest: &mut Guest, station: [u8; 6]) -> (NetHeader, Vec<u8>) {
    loop {
        let (header, came) = guest.receive_asking().unwrap();
        if came.get(23) == Some(&17) && came[36..38] == [0, 9] && came[..6] == station {
            return (header, came);
        }
    }
}

/// What goes out comes in again: a ring is its own other end.
#[test]
fn a_ring() {
    let (ringway, mut guests, _directory) = plug(Ringway::builder().cpu(SWITCH_CPU), ("net_ring0", ""), 1, 0);
    for len in [60, 1514] {
        let frame = frame(BROADCAST, mac(1), len, 7);
        guests[0].send(&frame);
        assert_eq!(guests[0].receive(), Some(frame));
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
