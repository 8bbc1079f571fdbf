//! What a broken guest may do to a ring, rule by rule, in both layouts and on both rings of a pair. Each time the very rule
//! that was broken is named, the pair stands still and that is seen, the neighbours go on, and the guest, once it behaves,
//! is served again.
//!
//! Classes of errors that other switches had, by the first letters of a test's name here, in `protocol`, `offloads` and `e2e_hostile`:
//!
//! | class | what | known cases |
//! |---|---|---|
//! | r01 | a range that leaves its region | CVE-2018-1059, CVE-2020-10725 |
//! | r02 | chains that are empty, or shorter than headers, or cut in them | CVE-2022-2132 |
//! | r03 | chains and tables without an end, or longer than the ring | CVE-2020-14378, CVE-2019-3900 |
//! | r04 | what is changed between two looks | CVE-2020-14375, DPDK 285e6b8b18 |
//! | r05 | offsets and lengths of offloads | CVE-2024-11614, DPDK 7023f3e532 |
//! | r06 | numbers in messages | CVE-2020-10722, CVE-2020-10723, CVE-2021-3839 |
//! | r07 | file descriptors and memory that are kept | CVE-2019-14818, CVE-2020-10726, CVE-2022-0669 |
//! | r08 | messages in any order | DPDK 1846fe767f |
//! | r09 | the end of a connection at any moment | DPDK 73ea44370d, 21d9fb6bad |
//! | r10 | another driver, another start | DPDK 1846fe767f |
//! | r11 | packed rings of odd sizes at their wrap | DPDK 92ed77dce6, af4d7ad5d9 |
//! | r12 | `num_buffers` | DPDK b9c1ec8577 |
//! | r16 | memory that is cut off | |
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
