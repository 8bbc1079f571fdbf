//! R4: descriptors, lengths, ids, indirect tables and headers that change while the switch reads them, for a while, with a driver
//! of each layout at it: CVE-2020-14375 (crypto descriptors read again after they were checked), and DPDK's 285e6b8b18 after
//! CVE-2024-11614 (a virtio-net header read twice).

use std::time::{Duration, Instant};

use ringway_testbed::driver::frame::{BROADCAST, frame};
use ringway_testbed::driver::{Layout, Options, PATIENCE, eventually};
use ringway_testbed::{Ringway, RingwayBuilder};

use crate::driver;
use crate::guests::station;
use crate::scene::Scene;

/// Ports of two who speak to each other, on a bridge of their own: what the hostile drivers do may cost them nothing but time.
const NEIGHBOURS: [usize; 2] = [0, 1];
/// The port of a decent guest on the bridge of the hostile drivers: it gets what they send, and sends to them.
const BYSTANDER: usize = 2;
/// Ports of the hostile drivers.
const PACKED: usize = 3;
const SPLIT: usize = 4;

/// What a bystander takes at a time, so that its neighbours are not kept waiting.
const HEARD_AT_A_TIME: usize = 256;

#[test]
fn r04_neighbours_go_on_for_ten_seconds() {
    neighbours_go_on(Duration::from_secs(10), Ringway::builder());
}

/// The same with a switch that ends at the first byte that it reads or writes where it may not. `scripts/test --slow` builds it.
#[test]
#[ignore = "minutes, and a switch with AddressSanitizer in RINGWAY_ASAN_BIN"]
fn r04_neighbours_go_on_for_minutes_under_address_sanitizer() {
    let binary = std::env::var_os("RINGWAY_ASAN_BIN").expect("RINGWAY_ASAN_BIN names a switch with AddressSanitizer");
    neighbours_go_on(Duration::from_secs(180), Ringway::builder().binary(binary));
}

fn neighbours_go_on(time: Duration, builder: RingwayBuilder) {
    let bridge = |port| if NEIGHBOURS.contains(&port) { "br0" } else { "br1" };
    let mut scene = Scene::on_bridges(3, 2, builder.log("error"), bridge);
    let mut neighbours = NEIGHBOURS.map(|port| scene.plug(port, Options::new([Layout::Packed, Layout::Split][port])));
    let mut bystander = scene.plug(BYSTANDER, Options::new(Layout::Packed));
    let hostile = [(PACKED, Layout::Packed), (SPLIT, Layout::Split)];
    let hostile = hostile.map(|(port, layout)| (format!("vm{port}"), driver::start(&scene.socket(port), layout)));
    let (start, mut seconds, mut said, mut heard) = (Instant::now(), 0u64, 0u64, 0);
    let (mut frames, mut longest) = (Vec::new(), Duration::ZERO);
    while start.elapsed() < time {
        let (second, before) = (Instant::now() + Duration::from_secs(1), said);
        while Instant::now() < second {
            for (from, to) in [(0, 1), (1, 0)] {
                said += 1;
                let sent = frame(station(to), station(from), 60 + (said * 37 % 1455) as usize, said);
                let at = Instant::now();
                neighbours[from].send(&sent);
                let came = neighbours[to].pairs[0].receive_within(PATIENCE);
                assert!(came.as_ref() == Some(&sent), "second {seconds}: {from} says {sent:x?}, {to} hears {came:x?}");
                longest = longest.max(at.elapsed());
            }
            // Whatever it is: the double sees to it that no rule is broken.
            heard += (0..HEARD_AT_A_TIME).map_while(|_| bystander.pairs[0].try_receive()).count() as u64;
            bystander.pairs[0].try_send(&frame(BROADCAST, station(BYSTANDER), 300, said));
        }
        seconds += 1;
        frames.push(said - before);
        assert!(scene.ringway.process().is_running(), "second {seconds}: the switch has ended");
        for (port, process) in &hostile {
            assert!(process.is_running(), "second {seconds}: the driver of {port} has ended");
        }
    }
    for (port, _) in &hostile {
        let of = [("port", port.as_str())];
        let (sent, connects) =
            (scene.metric("port_receive_packets_total", &of), scene.metric("vhost_connects_total", &of));
        println!("{port}: {sent} frames of {connects} connections");
        assert!(
            sent > 10 * seconds && connects > seconds / 4,
            "{port}: {sent} frames, {connects} connections prove little"
        );
    }
    println!("neighbours: {frames:?} frames a second, none later than {longest:?}; the bystander heard {heard}");
    assert!(heard > 10 * seconds, "the bystander heard {heard} frames, which proves little");
    drop(hostile);
    let theirs = [PACKED, SPLIT].map(|port| format!("vm{port}"));
    assert!(eventually(|| scene.ringway.wait_state(&theirs.each_ref().map(String::as_str), "connecting").is_ok()));
    // Nobody has kept the bystander's buffers, nothing of the neighbours' was dropped, and the accounts are right to the last
    // frame.
    assert!(bystander.settles());
    while bystander.pairs[0].try_receive().is_some() {}
    let last = frame(BROADCAST, station(BYSTANDER), 64, 0);
    bystander.send(&last);
    assert!(bystander.settles());
    assert!(neighbours.iter_mut().all(|neighbour| neighbour.hears_nothing()), "frames of another bridge");
    for port in NEIGHBOURS {
        let of = [("port", &*format!("vm{port}"))];
        assert_eq!(scene.metric("dropped_packets_total", &of), 0, "of vm{port}");
        assert_eq!(scene.metric("port_transmit_packets_total", &of), said / 2, "to vm{port}");
    }
    assert!(eventually(|| {
        let sum = |names: [&str; 2]| names.iter().map(|name| scene.metric(name, &[])).sum::<u64>();
        sum(["port_receive_packets_total", "extra_copies_packets_total"])
            == sum(["port_transmit_packets_total", "dropped_packets_total"])
    }));
}
