//! The switch as its operator runs it, a process of its own, and front ends that mean it harm: also in processes of their own, so
//! that nothing of theirs is ours. The driver doubles of this process are their neighbours.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod driver;
#[path = "../guests/mod.rs"]
mod guests;
mod hammered;
mod scene;
mod sessions;
mod shrinks;
