//! A page to read, no wider than 80 columns but for what is to be copied.

use std::fmt::Write;

use crate::{Backing, Need, Plan};

const WIDTH: usize = 80;

impl Plan {
    /// The page.
    pub fn page(&self) -> String {
        let mut page = String::new();
        let guest = &self.guest;
        let memory = match &self.memory.backing {
            Backing::Memfd => "in a shared memfd".to_owned(),
            Backing::HugePages { size_kib } if size_kib % (1024 * 1024) == 0 => {
                format!("in huge pages of {} GiB, shared", size_kib / 1024 / 1024)
            }
            Backing::HugePages { size_kib } => format!("in huge pages of {} MiB, shared", size_kib / 1024),
            Backing::Files { dir } => format!("in files in {}, shared", dir.display()),
        };
        let vcpus = guest.vcpus;
        let mib = self.memory.kib / 1024;
        wrap(&mut page, "", &format!("{}: {vcpus} vCPUs, {mib} MiB {memory}", guest.name));
        if self.memory.cells.len() > 1 {
            wrap(&mut page, "  ", &format!("{} NUMA nodes", self.memory.cells.len()));
        }
        let rings = match self.nics.iter().filter(|nic| nic.packed).count() {
            0 => "split (packed is not permitted)".to_owned(),
            all if all == self.nics.len() => "packed permitted: the guest's driver and the switch choose".to_owned(),
            _ => {
                let split: Vec<&str> =
                    self.nics.iter().filter(|nic| !nic.packed).map(|nic| nic.name.as_str()).collect();
                format!("packed permitted: the guest's driver and the switch choose; split for {}", split.join(", "))
            }
        };
        wrap(&mut page, "  ", &format!("rings: {rings}"));
        if guest.iommu {
            wrap(&mut page, "  ", "an Intel IOMMU that remaps interrupts");
        }
        if !guest.msix {
            wrap(&mut page, "  ", "no MSI-X for its NICs: QEMU before 10 emulates them");
        }
        page.push('\n');
        let _ = writeln!(
            page,
            "{:<20} {:>5} {:>7} {:>11} {:>5}  queue pairs from",
            "NIC", "pairs", "vectors", "rx/tx size", "MTU"
        );
        for nic in &self.nics {
            let size = |size: Option<u32>| size.unwrap_or(256).to_string();
            let sizes = format!("{}/{}", size(nic.rx_queue_size), size(nic.tx_queue_size));
            let mtu = nic.mtu.unwrap_or(1500);
            let head = format!("{:<20} {:>5} {:>7} {sizes:>11} {mtu:>5}  ", nic.name, nic.queue_pairs, nic.vectors);
            // What does not fit comes below.
            if head.len() + nic.queue_pairs_from.len() <= WIDTH {
                let _ = writeln!(page, "{head}{}", nic.queue_pairs_from);
            } else {
                let _ = writeln!(page, "{}", head.trim_end());
                wrap(&mut page, "      ", &nic.queue_pairs_from);
            }
            let (switch, qemu) = if nic.qemu_listens { ("connects to", "listens") } else { ("listens at", "connects") };
            let _ = writeln!(page, "  {}, QEMU {qemu}", nic.mac);
            let _ = writeln!(page, "  Ringway {switch} {}", nic.socket.display());
        }
        self.costs(&mut page);
        let asked: Vec<&str> =
            self.nics.iter().filter(|nic| nic.queue_pairs > 1).map(|nic| nic.ethtool.as_str()).collect();
        if !asked.is_empty() {
            page.push_str("\nin the guest, if its kernel does not do it by itself\n");
            for line in asked {
                let _ = writeln!(page, "  {line}");
            }
        }
        self.scheduler(&mut page);
        if !self.warnings.is_empty() {
            page.push_str("\nwarnings\n");
            for warning in &self.warnings {
                wrap(&mut page, "  ", &format!("{}: {}", warning.about, warning.text));
            }
        }
        page.push('\n');
        let needs: Vec<String> = self.needs.iter().map(needed).collect();
        if !needs.is_empty() {
            wrap(&mut page, "", &format!("needs: {}", needs.join("; ")));
        }
        wrap(&mut page, "", "next: --config for the switch, --xml for libvirt, --qemu for QEMU, --json for all of it");
        page
    }

    fn costs(&self, page: &mut String) {
        let costs = &self.arithmetic;
        page.push_str("\nwhat it takes\n");
        let mut row = |what: &str, text: String| wrap_at(page, &format!("  {what:<18}"), &text);
        row(
            "MSI-X vectors",
            format!(
                "{} (2N+2 for a NIC of N pairs), {} for other devices, of about {}",
                costs.vectors, costs.vectors_other, costs.vectors_max
            ),
        );
        row(
            "memory for rings",
            format!(
                "{} KiB in Ringway, as measured; {} KiB in a kernel with vhost-net (64 KiB a ring)",
                costs.ringway_kib, costs.vhost_kernel_kib
            ),
        );
        row(
            "files of QEMU",
            format!("about {} of {} (max_files of qemu.conf)", costs.qemu_files, costs.qemu_files_max),
        );
        let used = costs.ringway_files_used.map_or(String::new(), |used| format!(" beside {used} that it has,"));
        let of = match (costs.ringway_files_max, costs.ringway_runs) {
            (0, _) => String::new(),
            (most, true) => format!("{used} of {most}: the limit of the switch that runs here"),
            (most, false) => {
                format!(
                    " of {most}: the hard limit here, to which ringway run raises its own; a service has LimitNOFILE="
                )
            }
        };
        row("files of Ringway", format!("{}{of}", costs.ringway_files));
    }

    fn scheduler(&self, page: &mut String) {
        let Some(required) = self.required_trait.filter(|_| self.is_novas) else { return };
        page.push_str("\nnova's scheduler\n");
        wrap(
            page,
            "  ",
            &format!(
                "packed_virtqueue_filter asks hosts for {required}. Every libvirt host of nova's has that trait, whatever its \
                 switch: it says nothing of Ringway. Give hosts the traits of ringway plan --provider-yaml, and the flavor \
                 trait:CUSTOM_RINGWAY_RING_PACKED=required."
            ),
        );
    }
}

/// `packed rings: libvirt 6.3, QEMU 4.2`
fn needed(need: &Need) -> String {
    let versions = [("libvirt", need.libvirt), ("QEMU", need.qemu)];
    let versions = versions.into_iter().filter_map(|(of, least)| Some(format!("{of} {}", least?)));
    format!("{}: {}", need.what, versions.collect::<Vec<_>>().join(", "))
}

/// Writes text in lines of at most 80 columns, all of them indented; words that are longer stand alone.
fn wrap(page: &mut String, indent: &str, text: &str) {
    fold(page, indent, &format!("{indent}{}", if indent.is_empty() { "" } else { "  " }), text);
}

/// As [`wrap`], with lines after the first below the text of the first.
fn wrap_at(page: &mut String, head: &str, text: &str) {
    fold(page, head, &" ".repeat(head.len()), text);
}

fn fold(page: &mut String, first: &str, next: &str, text: &str) {
    let (mut line, mut words_in_line) = (first.to_owned(), 0);
    for word in text.split(' ') {
        if words_in_line > 0 && line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(page, "{line}");
            line = next.to_owned();
            words_in_line = 0;
        }
        if words_in_line > 0 {
            line.push(' ');
        }
        line.push_str(word);
        words_in_line += 1;
    }
    let _ = writeln!(page, "{line}");
}
