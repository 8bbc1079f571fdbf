//! What a plan takes, what there is, and where multiqueue does not pay.

use super::{Findings, Rule};
use crate::Host;
use crate::input::Input;
use crate::made::{Arithmetic, Guest, GuestNic};

/// MSI-X vectors that a guest's kernel has: those that an x86 CPU has left for devices. Linux has them for each vCPU anew, and
/// then the operator says so with `vectors_max`.
const VECTORS_MAX: u32 = 200;
/// Ports of PCI Express for what is neither NIC nor disk: USB, the balloon, and one that is free for hot plugging.
const PORTS_BESIDE: u32 = 3;
const SATA_VECTORS: u32 = 1;
const USB_VECTORS: u32 = 16;
/// KiB that the kernel's vhost takes for a queue, that is for one ring.
const VHOST_KERNEL_KIB: u64 = 64;
/// KiB that Ringway takes for a queue pair, and for a port beside its pairs, measured: docs/openstack.md says how.
pub(crate) const RINGWAY_PAIR_KIB: u64 = 3;
pub(crate) const RINGWAY_PORT_KIB: u64 = 64;
/// File descriptors: of QEMU for a pair (eventfds of two rings, some of which stand in while a vector is masked), and for a NIC
/// (its socket, listening and connected). Counted in QEMU 7.2 by plugging NICs of 1 and 2 pairs.
pub(crate) const QEMU_PAIR_FILES: u64 = 8;
pub(crate) const QEMU_NIC_FILES: u64 = 2;
/// What a QEMU has open beside its NICs: memory, disks, monitors, KVM's own, and one for each vCPU.
pub(crate) const QEMU_FILES: u64 = 64;
/// Of Ringway for a pair and for a port: 6 a pair with a driver double that sends kick and call, 15 for 2 pairs of QEMU 7.2.
pub(crate) const RINGWAY_PAIR_FILES: u64 = 8;
pub(crate) const RINGWAY_PORT_FILES: u64 = 2;
/// The usual soft limit. When qemu.conf says nothing a QEMU has libvirtd's, which systemd's unit makes larger.
const FILES_DEFAULT: i64 = 1024;

pub(crate) fn of(input: &Input, host: &Host, guest: &Guest, nics: &[GuestNic], found: &mut Findings) -> Arithmetic {
    let pairs: u32 = nics.iter().map(|nic| nic.queue_pairs).sum();
    let count = nics.len() as u64;
    let said = input.qemu.max_files.filter(|&files| files != 0);
    let files_max = said.unwrap_or(FILES_DEFAULT);
    if files_max < 0 {
        found.refuse(Rule::Files, "qemu.conf max_files", format!("{files_max} is no number of files"), "write 2048");
    }
    let vectors_max = match input.guest.vectors_max {
        None => VECTORS_MAX,
        Some(most) => found.within(Rule::Vectors, "vectors_max", most, (1, 1 << 20)).unwrap_or(VECTORS_MAX),
    };
    let vectors_other = match input.guest.vectors_other {
        None => vectors_other(guest, nics),
        Some(said) => found.within(Rule::Vectors, "vectors_other", said, (0, 1 << 20)).unwrap_or(0),
    };
    let costs = Arithmetic {
        queue_pairs: pairs,
        vectors: nics.iter().map(|nic| nic.vectors).sum(),
        vectors_other,
        vectors_max,
        vhost_kernel_kib: 2 * u64::from(pairs) * VHOST_KERNEL_KIB,
        ringway_kib: u64::from(pairs) * RINGWAY_PAIR_KIB + count * RINGWAY_PORT_KIB,
        qemu_files: QEMU_FILES + u64::from(guest.vcpus) + u64::from(pairs) * QEMU_PAIR_FILES + count * QEMU_NIC_FILES,
        qemu_files_max: u64::try_from(files_max).unwrap_or(0),
        ringway_files: u64::from(pairs) * RINGWAY_PAIR_FILES + count * RINGWAY_PORT_FILES,
        ringway_files_used: host.files_used,
        ringway_files_max: host.files_max,
        ringway_runs: host.files_of_running,
    };
    vectors(&costs, guest, nics, found);
    files(&costs, said.is_some(), found);
    pays(input, guest, nics, found);
    costs
}

/// Vectors of the devices that the plan's own domain has beside its NICs: a port of PCI Express for each device, NICs and one free
/// slot included, the chip set's SATA and, on libvirt's default controllers, USB; and a disk's queue for each vCPU, with one for
/// configuration changes. Counted in a guest of libvirt 9.0 and QEMU 7.2.
fn vectors_other(guest: &Guest, nics: &[GuestNic]) -> u32 {
    let devices = u32::try_from(nics.len()).unwrap_or(u32::MAX).saturating_add(u32::from(guest.disk.is_some()));
    let disk = if guest.disk.is_some() { guest.vcpus + 1 } else { 0 };
    disk.saturating_add(devices).saturating_add(PORTS_BESIDE + SATA_VECTORS + USB_VECTORS)
}

fn vectors(costs: &Arithmetic, guest: &Guest, nics: &[GuestNic], found: &mut Findings) {
    let Arithmetic { vectors, vectors_other, vectors_max, .. } = *costs;
    let all = u64::from(vectors) + u64::from(vectors_other);
    if vectors == 0 || all <= u64::from(vectors_max) {
        return;
    }
    // What each NIC may have if all have the same.
    let left = vectors_max.saturating_sub(vectors_other);
    let each = (left / u32::try_from(nics.len()).unwrap_or(u32::MAX)).saturating_sub(2) / 2;
    let linux = u64::from(guest.vcpus) * u64::from(VECTORS_MAX);
    let what = format!(
        "{vectors} MSI-X vectors for {} queue pairs and {vectors_other} for other devices, of {vectors_max}",
        costs.queue_pairs
    );
    let fewer =
        if each > 0 { format!("give each NIC {each} queue pairs at most") } else { "use fewer NICs".to_owned() };
    let mend = if all <= linux && linux > u64::from(vectors_max) {
        format!("{fewer}, or say vectors_max = {linux} if the guest is Linux, which has {VECTORS_MAX} for each vCPU")
    } else {
        fewer
    };
    found.refuse(Rule::Vectors, "queues", what, mend);
}

fn files(costs: &Arithmetic, said: bool, found: &mut Findings) {
    let Arithmetic { qemu_files, qemu_files_max, ringway_files, ringway_files_max, .. } = *costs;
    if qemu_files > qemu_files_max {
        let enough = qemu_files.next_power_of_two().max(2048);
        let what = format!("this guest's QEMU has about {qemu_files} files open, of {qemu_files_max}");
        let mend = format!("set max_files = {enough} in /etc/libvirt/qemu.conf");
        if said {
            found.refuse(Rule::Files, "qemu.conf max_files", what, mend);
        } else {
            let text = format!("{what} where libvirtd runs with the usual limit (systemd's unit raises it): {mend}");
            found.warn("qemu.conf max_files", text);
        }
    }
    let used = costs.ringway_files_used.unwrap_or(0);
    if ringway_files_max == 0 || used.saturating_add(ringway_files) <= ringway_files_max {
        return;
    }
    let about = "Ringway's limit of open files";
    let already = if used > 0 { format!(" beside {used} that it has") } else { String::new() };
    let what = format!("Ringway would have {ringway_files} files open for this guest{already}, of {ringway_files_max}");
    if costs.ringway_runs {
        let mend =
            "raise its hard limit (LimitNOFILE= of its unit, or ulimit -Hn where it is started) and start it anew";
        found.refuse(Rule::OwnFiles, about, what, mend);
    } else {
        // A service has a limit of its own, which nobody can ask for as long as it does not run.
        let text =
            format!("{what} if ringway run is started from here; raise the hard limit: LimitNOFILE=, or ulimit -Hn");
        found.warn(about, text);
    }
}

/// Where multiqueue does not pay, as the blueprint that brought it to nova weighed it.
fn pays(input: &Input, guest: &Guest, nics: &[GuestNic], found: &mut Findings) {
    let most = nics.iter().map(|nic| nic.queue_pairs).max().unwrap_or(1);
    if most < 2 {
        return;
    }
    if nics.len() as u64 >= u64::from(guest.vcpus) {
        let text = format!(
            "{} NICs for {} vCPUs: each vCPU has a NIC's rings already, and more pairs gain little",
            nics.len(),
            guest.vcpus
        );
        found.warn("queues", text);
    }
    if input.traffic.small_outgoing {
        found.warn(
            "traffic",
            "mostly small packets go out: more transmit rings can cost more than they bring; measure with queues = 1",
        );
    }
    if input.traffic.one_connection {
        found
            .warn("traffic", "one connection stays on one queue pair, whatever their number: the others bring nothing");
    }
    let used = match input.traffic.queues_enabled {
        None => guest.vcpus,
        Some(said) => found.within(Rule::Guest, "queues_enabled", said, (1, 256)).unwrap_or(1),
    };
    for nic in nics.iter().filter(|nic| nic.vectors > 0 && nic.queue_pairs > used) {
        let idle = nic.queue_pairs - used;
        let text = format!(
            "the guest enables {used} of its {} queue pairs: {} vectors are wasted; in the guest: {}",
            nic.queue_pairs,
            2 * idle,
            nic.ethtool
        );
        found.warn(&nic.name, text);
    }
}
