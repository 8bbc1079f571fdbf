//! What a broken guest may do to a ring, rule by rule, in both layouts and on both rings of a pair. Each time the very rule
//! that was broken is named, the pair stands still and that is seen, the neighbours go on, and the guest, once it behaves,
//! is served again. R1 to R16 are classes of errors that other switches had.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod addresses;
mod chains;
mod frames;
#[path = "../guests/mod.rs"]
mod guests;
mod hammer;
mod indirect;
mod scene;
mod seen;
