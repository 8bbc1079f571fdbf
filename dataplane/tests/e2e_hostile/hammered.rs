//! R4: descriptors, lengths, ids, indirect tables and headers that change while the switch reads them, for a while, with a driver
//! of each layout at it: CVE-2020-14375 (crypto descriptors read again after they were checked), and DPDK's 285e6b8b18 after
//! CVE-2024-11614 (a virtio-net header read twice).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ringway_testbed::driver::frame::frame;
use ringway_testbed::driver::{Guest, Layout, Options, eventually};
use ringway_testbed::{Ringway, RingwayBuilder};

use crate::driver;
use crate::guests::{introduce, passes, station};
use crate::scene::Scene;

/// Ports of the hostile drivers.
const PACKED: usize = 2;
const SPLIT: usize = 3;

/// Seconds in which neighbours may hear others only: a frame of 64 KiB takes 32 of their 128 buffers.
const SILENT_MAX: u64 = 5;

/// Frames that were sent a while ago and may still come.
const LATE: usize = 4096;

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
    let mut scene = Scene::start(2, 2, builder.log("error"));
    let mut neighbours = vec![
        Neighbour::new(scene.plug(0, Options::new(Layout::Packed))),
        Neighbour::new(scene.plug(1, Options::new(Layout::Split))),
    ];
    let hostile = [(PACKED, Layout::Packed), (SPLIT, Layout::Split)];
    let hostile = hostile.map(|(port, layout)| (format!("vm{port}"), driver::start(&scene.socket(port), layout)));
    let (start, mut seconds) = (Instant::now(), 0u64);
    let (mut frames, mut silent) = (Vec::new(), 0);
    while start.elapsed() < time {
        let second = Instant::now() + Duration::from_secs(1);
        let (mut came, others) = (0, neighbours.iter().map(|neighbour| neighbour.others).sum::<u64>());
        while Instant::now() < second {
            for (from, to) in [(0, 1), (1, 0)] {
                let sent = neighbours[from].say(from, to);
                came += u64::from(neighbours[to].hears(from, to, &sent));
            }
        }
        seconds += 1;
        frames.push(came);
        // The hostile drivers may flood the bridge, and then it is their frames that come; but not for long.
        let flooded = neighbours.iter().map(|neighbour| neighbour.others).sum::<u64>() - others;
        assert!(came + flooded > 0, "second {seconds}: neighbours hear nothing");
        silent = if came > 0 { 0 } else { silent + 1 };
        assert!(silent < SILENT_MAX, "second {seconds}: neighbours hear nothing of each other, but {flooded} others");
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
    println!("neighbours: {frames:?} frames a second");
    drop(hostile);
    assert!(eventually(|| scene.ringway.wait_state(&["vm2", "vm3"], "connecting").is_ok()));
    // Nobody has kept the neighbours' buffers, and the accounts are right to the last frame.
    let mut guests: Vec<_> = neighbours.into_iter().map(|neighbour| neighbour.guest).collect();
    assert!(guests.iter_mut().all(Guest::settles));
    while guests.iter_mut().any(|guest| guest.pairs[0].try_receive().is_some()) {}
    introduce(&mut guests);
    passes(&mut guests, 0, 1, 1514);
    assert!(eventually(|| {
        let sum = |names: [&str; 2]| names.iter().map(|name| scene.metric(name, &[])).sum::<u64>();
        sum(["port_receive_packets_total", "extra_copies_packets_total"])
            == sum(["port_transmit_packets_total", "dropped_packets_total"])
    }));
}

/// One of two who speak to each other, and checks every frame of the other's.
struct Neighbour {
    guest: Guest,
    said: VecDeque<Vec<u8>>,
    count: u64,
    /// Frames of somebody else's that it has heard.
    others: u64,
}

impl Neighbour {
    fn new(guest: Guest) -> Self {
        Self { guest, said: VecDeque::new(), count: 0, others: 0 }
    }

    /// A frame unlike the last ones; all that were sent lately are remembered for the other.
    fn say(&mut self, from: usize, to: usize) -> Vec<u8> {
        self.count += 1;
        let len = 60 + (self.count * 37 % 1455) as usize;
        let sent = frame(station(to), station(from), len, self.count);
        self.guest.send(&sent);
        sent
    }

    /// Whether `sent` comes within a tenth of a second: a hostile neighbour's flood may have taken the buffers. What comes from
    /// the other neighbour's station is what it said at some time, or the test fails.
    fn hears(&mut self, from: usize, to: usize, sent: &[u8]) -> bool {
        self.said.push_back(sent.to_vec());
        if self.said.len() > LATE {
            self.said.pop_front();
        }
        let end = Instant::now() + Duration::from_millis(100);
        let addresses = [station(to), station(from)].concat();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.guest.pairs[0].receive_within(left) {
                Some(came) if came == sent => return true,
                Some(came) if came.starts_with(&addresses) => {
                    assert!(
                        self.said.contains(&came),
                        "a neighbour's frame of {} bytes is not what it was",
                        came.len()
                    );
                }
                Some(_) => self.others += 1,
                None => return false,
            }
        }
    }
}
