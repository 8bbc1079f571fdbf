//! `ringway plan` against those for whom it plans: a real libvirtd boots its XML, the switch reads its records and is measured
//! against its figures, and an operator gets one line for each mistake.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod command;
#[path = "../common/mod.rs"]
mod common;
mod figures;
mod libvirt;
mod qemu;

use std::process::{Command, Output};

use ringway_testbed::ringway_binary;

pub(crate) fn ringway(arguments: &[&str]) -> Output {
    Command::new(ringway_binary().unwrap()).arg("plan").args(arguments).output().unwrap()
}

/// What `ringway plan` prints.
pub(crate) fn plan(arguments: &[&str]) -> String {
    let output = ringway(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Its lines on standard error, of a guest that cannot be.
pub(crate) fn refusals(arguments: &[&str]) -> Vec<String> {
    let output = ringway(arguments);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]));
    String::from_utf8(output.stderr).unwrap().lines().map(str::to_owned).collect()
}
