//! Real peers for tests and benches: DPDK guests without a VM, QEMU guests, libvirt, Open vSwitch, and Ringway itself.
//!
//! Each peer is a value. It owns its processes, its temporary files and what it changed on the machine, and gives all of
//! it back when it is dropped, also when a test panics; then the end of each peer's log is printed as well. Should the
//! test process be killed outright, the kernel kills the peers with it.
//!
//! The one exception is [`driver`], a guest's side of virtio-net as a library, for what no real guest can be made to do.
//!
//! ```no_run
//! use ringway_testbed::{Ringway, Testpmd, VirtioUser, scratch_dir};
//!
//! # fn main() -> anyhow::Result<()> {
//! let dir = scratch_dir()?;
//! let (a, b) = (dir.path().join("a.sock"), dir.path().join("b.sock"));
//! let guests = Testpmd::guest().virtio_user(VirtioUser::new(&a)).virtio_user(VirtioUser::new(&b)).start()?;
//! let ringway = Ringway::bridging(&[("vm1", &a), ("vm2", &b)])?;
//! guests.wait_ready()?; // its devices wait for the switch, so the switch comes first
//! guests.command("start tx_first")?;
//! assert!(ringway.metrics()?.sum("ringway_port_receive_packets_total", &[("port", "vm1")]) > 0.0);
//! # Ok(())
//! # }
//! ```

pub mod driver;
mod guest;
mod hugepages;
mod libvirt;
mod machine;
mod metrics;
mod namespace;
mod ovs;
mod pcap;
mod process;
mod ringway;
mod testpmd;
mod wait;

use std::path::{Path, PathBuf};

pub use guest::{Agent, Guest, GuestBuilder, acceleration, initramfs_with_one_serial_port};
pub use hugepages::{HugePages, Hugetlbfs};
pub use libvirt::{Console, Libvirt};
pub use machine::{Machine, PciNic};
pub use metrics::{Metrics, Sample};
pub use namespace::{Cable, Namespace};
pub use ovs::{Ovs, OvsBuilder};
pub use pcap::{read_pcap, write_pcap};
pub use process::{Process, Signal, Spawn};
pub use ringway::{Ringway, RingwayBuilder, two_workers};
pub use tempfile::TempDir;
pub use testpmd::{
    Forward, ForwardStats, Memory, PortForward, PortStats, Testpmd, TestpmdBuilder, Topology, VhostPort, VirtioUser,
};
pub use wait::wait_for;

/// An empty directory for sockets and files, removed on drop. Its path is short enough for a Unix socket in it.
///
/// # Errors
/// When the system's temporary directory cannot be written.
pub fn scratch_dir() -> anyhow::Result<TempDir> {
    use anyhow::Context;
    tempfile::Builder::new().prefix("ringway-").tempdir().context("no temporary directory")
}

/// The workspace that this crate was built in: where `scripts` and `target` are.
fn workspace() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// The `ringway` binary: `$RINGWAY_BIN`, else the workspace's release build. Nothing is built.
///
/// # Errors
/// When there is no such file.
pub fn ringway_binary() -> anyhow::Result<PathBuf> {
    let path =
        std::env::var_os("RINGWAY_BIN").map_or_else(|| workspace().join("target/release/ringway"), PathBuf::from);
    anyhow::ensure!(
        path.is_file(),
        "no ringway binary at {}: run `cargo build --release -p ringway` or set RINGWAY_BIN",
        path.display()
    );
    Ok(path)
}
