//! Names that nova knows, so that one that it does not know is told from one that is no business of ours.

/// Extra specs of the `hw:` namespace (nova/api/validation/extra_specs/hw.py, and maxphysaddr, which nova/virt/hardware.py
/// reads), `{n}` for a number.
const FLAVOR: &[&str] = &[
    "boot_menu",
    "cpu_cores",
    "cpu_dedicated_mask",
    "cpu_max_cores",
    "cpu_max_sockets",
    "cpu_max_threads",
    "cpu_policy",
    "cpu_realtime",
    "cpu_realtime_mask",
    "cpu_sockets",
    "cpu_thread_policy",
    "cpu_threads",
    "emulator_threads_policy",
    "ephemeral_encryption",
    "ephemeral_encryption_format",
    "hide_hypervisor_id",
    "locked_memory",
    "maxphysaddr_bits",
    "maxphysaddr_mode",
    "mem_encryption",
    "mem_encryption_model",
    "mem_page_size",
    "numa_cpus.{n}",
    "numa_mem.{n}",
    "numa_nodes",
    "pci_numa_affinity_policy",
    "pmem",
    "pmu",
    "redirected_usb_ports",
    "serial_port_count",
    "sound_model",
    "tpm_model",
    "tpm_secret_security",
    "tpm_version",
    "usb_model",
    "vif_multiqueue_enabled",
    "viommu_model",
    "virtio_packed_ring",
    "watchdog_action",
];

/// Image properties that begin with `hw_` (nova/objects/image_meta.py, and glance's `hw_` names that others read).
const IMAGE: &[&str] = &[
    "architecture",
    "auto_disk_config",
    "boot_menu",
    "cdrom_bus",
    "cpu_cores",
    "cpu_max_cores",
    "cpu_max_sockets",
    "cpu_max_threads",
    "cpu_policy",
    "cpu_realtime_mask",
    "cpu_sockets",
    "cpu_thread_policy",
    "cpu_threads",
    "device_id",
    "disk_bus",
    "disk_type",
    "emulation_architecture",
    "ephemeral_encryption",
    "ephemeral_encryption_format",
    "ephemeral_encryption_secret_uuid",
    "firmware_stateless",
    "firmware_type",
    "floppy_bus",
    "input_bus",
    "ipxe_boot",
    "locked_memory",
    "machine_type",
    "maxphysaddr_bits",
    "maxphysaddr_mode",
    "mem_encryption",
    "mem_encryption_model",
    "mem_page_size",
    "numa_cpus.{n}",
    "numa_mem.{n}",
    "numa_nodes",
    "pci_numa_affinity_policy",
    "pmu",
    "pointer_model",
    "qemu_guest_agent",
    "redirected_usb_ports",
    "rescue_bus",
    "rescue_device",
    "rng_model",
    "scsi_model",
    "serial_port_count",
    "sound_model",
    "time_hpet",
    "tpm_model",
    "tpm_version",
    "usb_model",
    "video_model",
    "video_ram",
    "vif_model",
    "vif_multiqueue_enabled",
    "viommu_model",
    "virtio_packed_ring",
    "vm_mode",
    "watchdog_action",
];

/// Those on which the NICs of a guest depend.
const OURS: &[&str] = &[
    "mem_encryption",
    "mem_page_size",
    "numa_cpus.{n}",
    "numa_mem.{n}",
    "numa_nodes",
    "vif_model",
    "vif_multiqueue_enabled",
    "viommu_model",
    "virtio_packed_ring",
];

/// Whether nova has `hw:NAME`.
pub(crate) fn in_flavor(name: &str) -> bool {
    is_among(FLAVOR, name)
}

/// Whether nova has `hw_NAME`.
pub(crate) fn in_image(name: &str) -> bool {
    is_among(IMAGE, name)
}

fn is_among(known: &[&str], name: &str) -> bool {
    let numbered = name.rsplit_once('.').filter(|(_, n)| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit()));
    let pattern = numbered.map(|(stem, _)| format!("{stem}.{{n}}"));
    known.contains(&name) || pattern.is_some_and(|pattern| known.contains(&pattern.as_str()))
}

/// Whether the NICs of a guest depend on it.
pub(crate) fn is_ours(name: &str) -> bool {
    is_among(OURS, name)
}

/// The name on which the NICs depend and of which `name`, which nova does not know, is most likely a misspelling: a fifth of
/// its letters or less are wrong, or its words, two or more, are all in it.
pub(crate) fn misspelt(name: &str) -> Option<String> {
    // Of numbered names only the stem can be misspelt.
    let said = name.split('.').next().unwrap_or_default();
    let stem = |one: &'static str| one.trim_end_matches(".{n}");
    let words: Vec<&str> = said.split(['_', '-']).collect();
    let near = |one: &str| {
        distance(one, said) <= said.len() / 5
            || words.len() > 1 && words.iter().all(|word| one.split('_').any(|w| w == *word))
    };
    let found = OURS.iter().filter(|one| near(stem(one))).min_by_key(|one| distance(stem(one), said))?;
    Some(found.replace("{n}", "N"))
}

/// Levenshtein's distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbered_names_are_known_with_a_number_only() {
        assert!(in_flavor("numa_cpus.0") && in_flavor("numa_mem.12") && in_flavor("mem_page_size"));
        assert!(
            !in_flavor("numa_cpus") && !in_flavor("numa_cpus.x") && !in_flavor("numa_cpus.") && !in_flavor("pmu.1")
        );
        assert!(in_image("vif_model") && !in_flavor("vif_model"));
    }

    #[test]
    fn a_misspelt_name_finds_its_neighbour() {
        for (name, wanted) in [
            ("vif_multiqueue_enable", "vif_multiqueue_enabled"),
            ("vif_multiqueue", "vif_multiqueue_enabled"),
            ("vif_multi_queue_enabled", "vif_multiqueue_enabled"),
            ("virtio_packed_rings", "virtio_packed_ring"),
            ("virtio_ring_packed", "virtio_packed_ring"),
            ("packed-ring", "virtio_packed_ring"),
            ("page_size", "mem_page_size"),
            ("mem_pagesize", "mem_page_size"),
            ("numa_node", "numa_nodes"),
            ("numa_cpus.x", "numa_cpus.N"),
            ("numa_mem", "numa_mem.N"),
            ("viomu_model", "viommu_model"),
        ] {
            assert_eq!(misspelt(name).as_deref(), Some(wanted), "{name}");
        }
        // Neighbours of names that are no business of ours, or of nobody's.
        for name in ["colour", "cpu_model", "net_model", "pme", "rng_mode", "model", "", "_", "numa_policy"] {
            assert_eq!(misspelt(name), None, "{name}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
