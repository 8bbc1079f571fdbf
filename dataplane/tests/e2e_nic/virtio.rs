//! A NIC that does checksums and segments itself: net_virtio_user, whose other end is a guest port of a second switch. What one
//! asks for the other is asked for.

use ringway_testbed::driver::front_end::feature;
use ringway_testbed::driver::{Guest, Layout, Listener, Options};
use ringway_testbed::{Ringway, RingwayBuilder, TempDir, scratch_dir};

use crate::common::{LOAD_CPU, SWITCH_CPU, assert_balances, count, port_says};
use crate::guests::{introduce, passes};
use crate::packet::{Ask, Packet, comes, send};
use crate::path_bytes;

const JUMBO: &str = "mtu = 9000";

/// Two switches, a cable, and guests: all but the last on the near side, which has the NIC.
struct Cable {
    near: Ringway,
    far: Ringway,
    guests: Vec<Guest>,
    _directory: TempDir,
}

impl Cable {
    /// `arguments` are more of the device's; `far_mode` is that of its other end.
    fn lay(arguments: &str, near: RingwayBuilder, far_mode: &str, guests: &[Options]) -> Self {
        let directory = scratch_dir().unwrap();
        let socket = |name: &str| directory.path().join(format!("{name}.sock"));
        let listen = |index: usize| Listener::bind(&socket(&format!("vm{index}"))).unwrap();
        let listeners: Vec<_> = (0..guests.len()).map(listen).collect();
        let vm = |builder: RingwayBuilder, index: usize| {
            let name = format!("vm{index}");
            builder.port(&name, "br0", socket(&name)).port_setting(JUMBO)
        };
        let last = guests.len() - 1;
        let trunk = |builder: RingwayBuilder| {
            let builder = builder.port("trunk", "br0", socket("trunk"));
            builder.port_setting(&format!("mode = \"{far_mode}\"")).port_setting(JUMBO)
        };
        let far = vm(trunk(Ringway::builder().cpu(LOAD_CPU).bridge("br0")), last).start().unwrap();
        let device = format!("net_virtio_user0,path={}{arguments}", socket("trunk").display());
        let near = (0..last).fold(near.bridge("br0"), vm).nic("uplink", "br0", &device).port_setting(JUMBO);
        let near = near.start().unwrap();
        let plug = |(listener, &options)| Guest::plug(listener, options).unwrap();
        let mut guests: Vec<_> = listeners.iter().zip(guests).map(plug).collect();
        near.wait_state(&["uplink", "vm0"], "running").unwrap();
        far.wait_state(&["trunk", &format!("vm{last}")], "running").unwrap();
        introduce(&mut guests);
        Self { near, far, guests, _directory: directory }
    }

    fn generated(&self) -> [u64; 2] {
        [&self.near, &self.far].map(|switch| count(&switch.metrics().unwrap(), "generated_packets_total", &[]))
    }
}

/// A guest that asks for everything and takes everything.
fn able() -> Options {
    let options = Options::new(Layout::Packed);
    let features = options.features | feature::HOST_OFFLOADS | feature::GUEST_OFFLOADS;
    Options { features, memory_len: 16 << 20, ..options }
}

fn large_ones_pass_whole(cable: &mut Cable) {
    for (from, to) in [(0, 1), (1, 0)] {
        for v6 in [false, true] {
            for len in [4000, 40_000, 65_400] {
                for tags in 0..2 {
                    let packet = Packet { tags, ..Packet::new(v6, false, len, len as u64) };
                    send(&mut cable.guests[from], &packet, Ask::Segments(1448), from, to, &[]);
                    let frames = comes(&mut cable.guests[to], &packet, Ask::Segments(1448), from, to);
                    assert_eq!(frames, 1);
                }
            }
            for udp in [false, true] {
                let packet = Packet::new(v6, udp, 1400, 3);
                for ask in [Ask::Nothing, Ask::Checksum] {
                    send(&mut cable.guests[from], &packet, ask, from, to, &[]);
                    comes(&mut cable.guests[to], &packet, ask, from, to);
                }
            }
        }
    }
}

/// Nothing is summed or cut in software: what a guest leaves undone leaves by the NIC as an ask, and is an ask beyond it.
#[test]
fn checksums_and_segments_are_left_to_the_nic() {
    for (mode, arguments) in [("server", ",packed_vq=1"), ("client", ",server=1")] {
        let near = Ringway::builder().cpu(SWITCH_CPU);
        let mut cable = Cable::lay(arguments, near, mode, &[able(), able()]);
        let says = port_says(&cable.near, "uplink", "offloads");
        for offload in ["tx TCP_TSO", "tx TCP_CKSUM", "tx UDP_CKSUM", "rx TCP_LRO"] {
            assert!(says.contains(offload), "{says}");
        }
        large_ones_pass_whole(&mut cable);
        assert_eq!(cable.generated(), [0, 0], "{mode}: segments were made in software");
        // UDP in segments is what DPDK promises nothing of: the near switch makes them, their checksums are the NIC's work.
        let packet = Packet::new(true, true, 4000, 9);
        send(&mut cable.guests[0], &packet, Ask::Segments(1000), 0, 1, &[]);
        for segment in packet.segments(1000) {
            comes(&mut cable.guests[1], &segment, Ask::Checksum, 0, 1);
        }
        assert_eq!(cable.generated(), [3, 0]);
        for path in ["guest_to_nic", "nic_to_guest"] {
            assert!(path_bytes(&cable.near, "forwarded", path) > 400_000, "{path}");
        }
        assert_balances(&cable.near);
        assert_balances(&cable.far);
    }
}

/// A guest beyond the NIC that takes nothing gets whole frames, made by the switch that it is at.
#[test]
fn the_far_switch_finishes_for_its_guest() {
    let plain = Options { memory_len: 16 << 20, ..Options::new(Layout::Split) };
    let mut cable = Cable::lay("", Ringway::builder().cpu(SWITCH_CPU), "server", &[able(), plain]);
    for v6 in [false, true] {
        let packet = Packet::new(v6, false, 40_000, 5);
        send(&mut cable.guests[0], &packet, Ask::Segments(1448), 0, 1, &[]);
        assert_eq!(comes(&mut cable.guests[1], &packet, Ask::Segments(1448), 0, 1), 28);
    }
    assert_eq!(cable.generated(), [0, 2 * 27]);
    assert_balances(&cable.near);
    assert_balances(&cable.far);
}

/// Frames of several mbufs, both ways, of a driver that DPDK's users meet.
#[test]
fn jumbo_frames() {
    let mut cable = Cable::lay("", Ringway::builder().cpu(SWITCH_CPU), "server", &[able(), able()]);
    for len in [60, 1514, 2048, 2049, 4000, 9014] {
        passes(&mut cable.guests, 0, 1, len);
        passes(&mut cable.guests, 1, 0, len);
    }
    assert_balances(&cable.near);
    assert_balances(&cable.far);
}

/// Two workers, each with a guest and a queue of the NIC. A queue of the NIC carries what its worker's guest sends; by which one
/// the answers come is the far switch's choice.
#[test]
fn two_queues_for_two_workers() {
    let near = Ringway::builder().toml("[workers]\ncpus = [0, 1]");
    let mut cable = Cable::lay(",queues=2", near, "server", &[able(), able(), able()]);
    for from in [0, 1] {
        for flow in 0..32 {
            let packet = Packet::new(false, true, 100, flow);
            let there = with_port(packet.build(from, 2), flow as u16);
            cable.guests[from].send(&there);
            assert_eq!(cable.guests[2].receive().as_ref(), Some(&there), "{from} to 2");
            let back = with_port(packet.build(2, from), flow as u16);
            cable.guests[2].send(&back);
            assert_eq!(cable.guests[from].receive().as_ref(), Some(&back), "2 to {from}");
        }
    }
    let metrics = cable.near.metrics().unwrap();
    for queue in ["0", "1"] {
        for direction in ["receive", "transmit"] {
            let name = format!("queue_{direction}_packets_total");
            let frames = count(&metrics, &name, &[("port", "uplink"), ("queue", queue)]);
            assert!(frames >= 8, "{queue} {direction}: {frames}: {:?}", cable.near.show("queues"));
        }
    }
    assert_balances(&cable.near);
    assert_balances(&cable.far);
}

/// A UDP datagram over IPv4, from another port, without a checksum.
fn with_port(mut frame: Vec<u8>, port: u16) -> Vec<u8> {
    frame[34..36].copy_from_slice(&(4000 + port).to_be_bytes());
    frame[40..42].copy_from_slice(&[0, 0]);
    frame
}
