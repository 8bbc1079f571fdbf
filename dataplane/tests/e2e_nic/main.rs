//! NIC ports with real parts at the other end: kernels' TCP stacks in network namespaces, a Linux guest, files of frames, another
//! switch.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bonds;
mod commands;
#[path = "../common/mod.rs"]
mod common;
mod failures;
mod files;
#[path = "../guests/mod.rs"]
mod guests;
mod kernels;
mod others;
#[path = "../offloads/packet.rs"]
mod packet;
mod steering;
mod virtio;

use std::time::Duration;

use common::count;
use ringway_testbed::Ringway;

/// From a change of the world to its being seen by the switch.
const SEEN: Duration = Duration::from_secs(10);

fn path_bytes(ringway: &Ringway, what: &str, path: &str) -> u64 {
    count(&ringway.metrics().unwrap(), &format!("{what}_bytes_total"), &[("path", path)])
}

fn dropped(ringway: &Ringway, port: &str, reason: &str) -> u64 {
    count(&ringway.metrics().unwrap(), "dropped_packets_total", &[("port", port), ("reason", reason)])
}
