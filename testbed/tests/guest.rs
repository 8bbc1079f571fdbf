//! A QEMU guest boots behind Ringway and runs commands. Needs QEMU (`scripts/setup demo`) and a `ringway` binary.

use std::time::Duration;

use ringway_testbed::{Guest, Ringway, scratch_dir};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn it_boots_and_runs_commands() {
    let dir = scratch_dir().unwrap();
    let socket = dir.path().join("vm1");
    let guest = Guest::builder("vm1", &socket).ip("10.77.0.1/24").start().unwrap();
    let ringway = Ringway::bridging(&[("vm1", &socket)]).unwrap();
    guest.wait_booted().unwrap();
    ringway.wait_state(&["vm1"], "running").unwrap();

    assert!(guest.run("ip -4 addr show eth0", SOON).unwrap().contains("10.77.0.1/24"));
    let (status, output) = guest.exec("echo one; echo two >&2; false", SOON).unwrap();
    assert_eq!((status, output.as_str()), (1, "one\ntwo\n"));
    let error = guest.run("exit 3", SOON).unwrap_err().to_string();
    assert!(error.contains("ended with 3"), "{error}");
}
