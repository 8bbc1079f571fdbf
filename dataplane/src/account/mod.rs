//! What every room counts with: counters that cost a plain add, and the closed set of reasons for which a frame is dropped.
//!
//! The accounting law: received + extra copies + generated = transmitted + dropped, exactly. Nothing here knows what is counted.

mod counter;
mod reason;

pub use counter::{Counter, Service, Traffic};
pub use reason::{DropCounters, DropReason};
