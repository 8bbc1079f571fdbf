//! QEMU's line, as a shell takes it.

use std::path::Path;
use std::time::Duration;

use ringway_testbed::{Ringway, Spawn, initramfs_with_one_serial_port, scratch_dir, wait_for};

use crate::common::SWITCH_CPU;
use crate::plan;

const BOOT: Duration = Duration::from_secs(120);

/// The printed line boots a guest with all that was planned, whatever is in its name.
#[test]
fn the_line_boots() {
    // Makes the image if it is not there yet.
    ringway_testbed::acceleration().unwrap();
    let dir = scratch_dir().unwrap();
    let initramfs = dir.path().join("initramfs");
    initramfs_with_one_serial_port(&initramfs).unwrap();
    let kernel = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/guest/vmlinuz").canonicalize().unwrap();
    let nic = format!("name=vm1,queues=2,mtu=2000,socket={}", dir.path().join("vm1.sock").display());
    let (kernel, initramfs) = (kernel.display().to_string(), initramfs.display().to_string());
    let words = "--vcpus 2 --memory 192 --virt-type qemu --rx-queue-size 512 --tx-queue-size 1024 --numa-nodes 2";
    let words: Vec<&str> = words
        .split(' ')
        .chain(["--name", "it's a=b,c $(d)", "--nic", &nic, "--kernel", &kernel, "--initrd", &initramfs])
        .chain(["--cmdline", "panic=1 mitigations=off"])
        .collect();
    let line = plan(&[&words[..], &["--qemu"]].concat());
    let record = plan(&[&words[..], &["--config"]].concat());
    let ringway = Ringway::builder().cpu(SWITCH_CPU).bridge("br0").toml(&record).start().unwrap();
    let command = format!("exec {} -display none", line.trim_end());
    let qemu = Spawn::new("sh").name("qemu").args(["-c", &command]).start().unwrap();
    let look = || {
        let port = ringway.show_port("vm1").unwrap();
        if !qemu.is_running() {
            return Some(false);
        }
        (port["pairs_enabled"] == 2 && port["ring"] == "packed").then_some(true)
    };
    assert!(wait_for("the guest's driver", BOOT, look).unwrap(), "{line}");
    let queues = ringway.show("queues").unwrap();
    let pairs = queues.as_array().unwrap();
    assert_eq!(pairs.len(), 2, "{queues:#}");
    for pair in pairs {
        assert_eq!((&pair["size_receive"], &pair["size_transmit"]), (&512.into(), &1024.into()), "{queues:#}");
    }
}
