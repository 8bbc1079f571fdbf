//! A plan: what was decided, what it costs, and what to be warned of.

use std::path::PathBuf;

use serde::Serialize;

/// All that has to be configured for one guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The guest itself.
    pub guest: Guest,
    /// Its memory, which the switch must be able to map.
    pub memory: Memory,
    /// Its interfaces, in the order said.
    pub nics: Vec<GuestNic>,
    /// Packed virtqueues are permitted for one of them at least.
    pub packed: bool,
    /// What it takes.
    pub arithmetic: Arithmetic,
    /// What works and may still be a mistake.
    pub warnings: Vec<Warning>,
    /// The versions that it rests on.
    pub needs: Vec<Need>,
    /// The trait that nova's scheduler asks of a host for this guest, if any.
    pub required_trait: Option<&'static str>,
    /// Whether nova starts this guest.
    pub is_novas: bool,
}

/// The guest itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Guest {
    /// The domain's name.
    pub name: String,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// `kvm` or `qemu`.
    pub virt_type: &'static str,
    /// Whether its NICs signal through MSI-X. Not with a QEMU before 10 that emulates: it crashes.
    pub msix: bool,
    /// Whether it has an Intel IOMMU, which remaps interrupts to more than 255 vCPUs.
    pub iommu: bool,
    /// The QEMU to start, if not libvirt's choice.
    pub emulator: Option<PathBuf>,
    /// A qcow2 image to boot from.
    pub disk: Option<PathBuf>,
    /// A kernel to boot directly,
    pub kernel: Option<PathBuf>,
    /// its initramfs,
    pub initrd: Option<PathBuf>,
    /// and its command line.
    pub cmdline: Option<String>,
}

/// Memory that QEMU shares with the switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// KiB in all.
    pub kib: u64,
    /// What is behind it.
    pub backing: Backing,
    /// The guest's NUMA nodes; none for a guest that sees no NUMA.
    pub cells: Vec<Cell>,
}

/// What is behind a guest's memory. Each can be mapped by the switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Backing {
    /// A memfd of ordinary pages.
    Memfd,
    /// Huge pages.
    HugePages {
        /// KiB in a page.
        size_kib: u64,
    },
    /// Files in libvirt's `memory_backing_dir`, which is in memory.
    Files {
        /// That directory.
        dir: PathBuf,
    },
}

/// A NUMA node of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cell {
    /// Its number.
    pub id: usize,
    /// Its vCPUs.
    pub cpus: Vec<u32>,
    /// Its memory in KiB.
    pub kib: u64,
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GuestNic {
    /// The name of the switch's port.
    pub name: String,
    /// The port's bridge.
    pub bridge: String,
    /// The vhost-user socket.
    pub socket: PathBuf,
    /// Whether QEMU listens there and the switch connects; otherwise it is the other way round.
    pub qemu_listens: bool,
    /// Its Ethernet address.
    pub mac: String,
    /// Its MTU in bytes, if one was asked for.
    pub mtu: Option<u16>,
    /// Packed virtqueues are permitted: a guest whose driver knows them gets them.
    pub packed: bool,
    /// Queue pairs, 1 to 128.
    pub queue_pairs: u32,
    /// Where that number comes from.
    pub queue_pairs_from: String,
    /// Descriptors in a receive ring, if not QEMU's 256.
    pub rx_queue_size: Option<u32>,
    /// Descriptors in a transmit ring, likewise.
    pub tx_queue_size: Option<u32>,
    /// Features that the switch is told to withhold.
    pub mask_features: Vec<String>,
    /// What the port offers then.
    pub features: Vec<String>,
    /// MSI-X vectors: two a pair, one for configuration changes, one for the control queue; 0 for a guest without them.
    pub vectors: u32,
    /// What makes the guest use its pairs; its own driver does on current kernels.
    pub ethtool: String,
}

/// What a plan takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Arithmetic {
    /// Queue pairs of all NICs.
    pub queue_pairs: u32,
    /// MSI-X vectors of all NICs,
    pub vectors: u32,
    /// those of the guest's other devices,
    pub vectors_other: u32,
    /// and how many there are.
    pub vectors_max: u32,
    /// KiB that the kernel's vhost would take for the rings,
    pub vhost_kernel_kib: u64,
    /// and what Ringway takes.
    pub ringway_kib: u64,
    /// File descriptors of the guest's QEMU for the rings,
    pub qemu_files: u64,
    /// of all that it may have.
    pub qemu_files_max: u64,
    /// File descriptors of Ringway for this guest,
    pub ringway_files: u64,
    /// those that it has already, if a switch runs and lets itself be counted,
    pub ringway_files_used: Option<u64>,
    /// of all that it may have for all guests; 0 is unknown.
    pub ringway_files_max: u64,
    /// Whether that is the limit of a switch that runs; otherwise it is what `ringway run` would raise its own to.
    pub ringway_runs: bool,
}

/// The least versions that something in a plan rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Need {
    /// What needs them.
    pub what: &'static str,
    /// libvirt's, if it matters.
    pub libvirt: Option<&'static str>,
    /// QEMU's, likewise.
    pub qemu: Option<&'static str>,
}

/// What works and may still be a mistake, in one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// What it is about: a property, a key, a NIC.
    pub about: String,
    /// What may be wrong, and what to do.
    pub text: String,
}
