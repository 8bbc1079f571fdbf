//! vhost-user as the switch speaks it: what a decent front end gets, and what becomes of one that is not. The front end is a
//! driver double; with real ones (QEMU, virtio-user) other tests speak.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod abuse;
mod bridge;
mod descriptors;
mod faults;
mod features;
#[path = "../guests/mod.rs"]
mod guests;
mod lifecycle;
mod memory;
mod mtu;
mod notifications;
mod pairs;
mod payload;
mod server;
mod states;
mod vrings;
mod workers;
