//! Guests with several queue pairs on one worker or several: where each flow's frames go, and in which order, whatever comes
//! and goes meanwhile. On a machine of one CPU there is one worker.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unreachable_pub, reason = "modules of one test program")]

mod affinity;
mod flows;
#[path = "../guests/mod.rs"]
mod guests;
mod idle;
mod order;
mod shown;
mod workers;
