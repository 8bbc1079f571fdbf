//! What ports may do: VLANs, stations, guards and limits, between driver doubles behind a switch in this process.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unreachable_pub, reason = "modules of one test program")]

mod frames;
mod guards;
#[path = "../guests/mod.rs"]
mod guests;
mod limits;
mod shares;
mod stations;
mod vlans;
