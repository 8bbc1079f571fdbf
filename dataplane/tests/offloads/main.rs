//! Checksums and segmentation left to the switch or to the receiver: whatever a sender may ask and a receiver may take, the
//! packets that come are those that were meant. They are built anew by etherparse, which shares no code with the switch.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod budget;
#[path = "../guests/mod.rs"]
mod guests;
mod hostile;
mod matrix;
mod packet;
mod segments;
mod workers;
