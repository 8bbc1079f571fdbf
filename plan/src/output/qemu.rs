//! QEMU's command line, for those who start it themselves.

use std::fmt::Write;
use std::path::Path;

use super::xml::list;
use crate::{Backing, GuestNic, Plan};

impl Plan {
    /// A shell command of several lines.
    pub fn qemu(&self) -> String {
        let mut line = self.qemu_arguments().into_iter().map(|words| words.join(" ")).collect::<Vec<_>>();
        let program = self.guest.emulator.as_deref().unwrap_or(Path::new("qemu-system-x86_64"));
        line.insert(0, quoted(&program.to_string_lossy()));
        let mut text = line.join(" \\\n  ");
        text.push('\n');
        text
    }

    /// Groups of words, as they stand on a line each, quoted for a shell.
    fn qemu_arguments(&self) -> Vec<Vec<String>> {
        let guest = &self.guest;
        let mut all: Vec<Vec<String>> = Vec::new();
        let mut add = |words: &[&str]| all.push(words.iter().map(|word| quoted(word)).collect());
        // `-name` reads commas as the ends of its options, and what comes before an equals sign as the name of one.
        add(&["-name", &format!("guest={}", doubled(&guest.name))]);
        let accelerator =
            if guest.virt_type == "kvm" { ["-accel", "kvm", "-cpu", "host"] } else { ["-accel", "tcg", "-cpu", "max"] };
        add(&accelerator);
        let mib = self.memory.kib / 1024;
        add(&["-smp", &guest.vcpus.to_string(), "-m", &format!("{mib}M")]);
        let machine = if guest.iommu { "q35,kernel-irqchip=split" } else { "q35" };
        if self.memory.cells.is_empty() {
            add(&["-machine", &format!("{machine},memory-backend=memory0")]);
            add(&["-object", &self.memory_object(0, self.memory.kib)]);
        } else {
            add(&["-machine", machine]);
            for cell in &self.memory.cells {
                add(&["-object", &self.memory_object(cell.id, cell.kib)]);
                let mut node = format!("node,nodeid={},memdev=memory{}", cell.id, cell.id);
                for run in list(&cell.cpus).split(',').filter(|run| !run.is_empty()) {
                    let _ = write!(node, ",cpus={run}");
                }
                add(&["-numa", &node]);
            }
        }
        if guest.iommu {
            add(&["-device", "intel-iommu,intremap=on,eim=on"]);
        }
        let path = |path: &Path| path.to_string_lossy().into_owned();
        if let Some(kernel) = &guest.kernel {
            add(&["-kernel", &path(kernel)]);
        }
        if let Some(initrd) = &guest.initrd {
            add(&["-initrd", &path(initrd)]);
        }
        if let Some(cmdline) = &guest.cmdline {
            add(&["-append", cmdline]);
        }
        if let Some(disk) = &guest.disk {
            let drive = format!("file={},format=qcow2,if=virtio", doubled(&path(disk)));
            add(&["-drive", &drive]);
        }
        for (index, nic) in self.nics.iter().enumerate() {
            let [chardev, netdev, device] = self.nic(index, nic);
            add(&["-chardev", &chardev]);
            add(&["-netdev", &netdev]);
            add(&["-device", &device]);
        }
        all
    }

    fn memory_object(&self, id: usize, kib: u64) -> String {
        let end = format!("id=memory{id},size={kib}K,share=on");
        match &self.memory.backing {
            Backing::Memfd => format!("memory-backend-memfd,{end}"),
            Backing::HugePages { size_kib } => {
                format!("memory-backend-memfd,{end},hugetlb=on,hugetlbsize={size_kib}K")
            }
            Backing::Files { dir } => {
                format!("memory-backend-file,{end},mem-path={}", doubled(&dir.to_string_lossy()))
            }
        }
    }

    fn nic(&self, index: usize, nic: &GuestNic) -> [String; 3] {
        let end = if nic.qemu_listens { "server=on" } else { "reconnect=1" };
        let chardev = format!("socket,id=switch{index},path={},{end}", doubled(&nic.socket.to_string_lossy()));
        let netdev = format!("vhost-user,id=net{index},chardev=switch{index},queues={}", nic.queue_pairs);
        let mut device = format!("virtio-net-pci,netdev=net{index},mac={}", nic.mac);
        if nic.queue_pairs > 1 {
            device.push_str(",mq=on");
        }
        if !self.guest.msix {
            device.push_str(",vectors=0");
        }
        if nic.packed {
            device.push_str(",packed=on");
        }
        for (name, size) in [("rx_queue_size", nic.rx_queue_size), ("tx_queue_size", nic.tx_queue_size)] {
            if let Some(size) = size {
                let _ = write!(device, ",{name}={size}");
            }
        }
        if let Some(mtu) = nic.mtu {
            let _ = write!(device, ",host_mtu={mtu}");
        }
        [chardev, netdev, device]
    }
}

/// A comma within a value is written twice.
fn doubled(text: &str) -> String {
    text.replace(',', ",,")
}

/// For a shell.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("a=b,c"), "a=b,c");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("$(x)"), "'$(x)'");
    }
}
