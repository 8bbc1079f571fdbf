//! What is fuzzed: functions that take any bytes, and panic if the switch breaks a promise. The fuzzer calls them with bytes of
//! its own making, under AddressSanitizer; the test `fuzz_replay` calls them with the corpus.
#![allow(dead_code, reason = "each fuzzer calls one of them")]

mod headers;
mod input;
mod memory;
mod rings;
mod session;

/// A packed virtqueue and a driver that does anything.
pub fn packed(data: &[u8]) {
    rings::run(true, data);
}

/// A split virtqueue and a driver that does anything.
pub fn split(data: &[u8]) {
    rings::run(false, data);
}

/// A front end that says anything, and a guest behind it that has put anything into its memory.
pub fn session(data: &[u8]) {
    session::run(data);
}

/// A frame of any bytes.
pub fn headers(data: &[u8]) {
    headers::run(data);
}
