//! libvirt's daemon as a peer: it answers, runs a domain, and takes everything with it when it is dropped.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::time::Duration;

use ringway_testbed::{Libvirt, wait_for};

const DOMAIN: &str = "<domain type='qemu'><name>idle</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>\
    <os><type arch='x86_64' machine='q35'>hvm</type></os></domain>";
const END: Duration = Duration::from_secs(10);

#[test]
fn a_domain_ends_with_the_daemon() {
    let mounts = || std::fs::read_to_string("/proc/self/mounts").unwrap();
    let before = mounts();
    let libvirt = Libvirt::start().unwrap();
    assert!(libvirt.virsh(&["version"]).unwrap().contains("QEMU"));
    libvirt.virsh_with(&["define"], DOMAIN).unwrap();
    libvirt.virsh(&["start", "idle", "--paused"]).unwrap();
    let pids = libvirt.qemus("idle").unwrap();
    let [pid] = pids[..] else { panic!("{pids:?}") };
    assert_eq!(libvirt.qemus("idl").unwrap(), Vec::<u32>::new());
    assert!(libvirt.qemu_log("idle").contains("-accel tcg"));
    let refused = libvirt.virsh(&["start", "nobody"]).unwrap_err();
    assert!(format!("{refused:#}").contains("nobody"), "{refused:#}");
    assert_eq!(mounts(), before, "what is mounted for it is seen outside");
    drop(libvirt);
    wait_for("QEMU's end", END, || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(())).unwrap();
}
