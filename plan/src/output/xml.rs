//! libvirt's XML.

use std::io;

use quick_xml::Writer;
use quick_xml::events::BytesText;

use crate::{Backing, GuestNic, Plan};

type Xml = Writer<Vec<u8>>;

const QEMU_NAMESPACE: &str = "http://libvirt.org/schemas/domain/qemu/1.0";

impl Plan {
    /// The whole domain. What it boots from is there if it was said; everything else is what the interfaces need.
    pub fn xml(&self) -> String {
        written(|xml| self.domain(xml))
    }

    /// One `<interface>`, as `virsh attach-device` takes it.
    pub fn interface_xml(&self, nic: &GuestNic) -> String {
        written(|xml| self.interface(xml, nic))
    }

    fn domain(&self, xml: &mut Xml) -> io::Result<()> {
        let mut domain = xml.create_element("domain").with_attribute(("type", self.guest.virt_type));
        if !self.guest.msix {
            domain = domain.with_attribute(("xmlns:qemu", QEMU_NAMESPACE));
        }
        domain.write_inner_content(|xml| {
            text(xml, "name", &self.guest.name)?;
            let memory = self.memory.kib.to_string();
            xml.create_element("memory").with_attribute(("unit", "KiB")).write_text_content(BytesText::new(&memory))?;
            text(xml, "vcpu", &self.guest.vcpus.to_string())?;
            self.memory_backing(xml)?;
            self.os(xml)?;
            xml.create_element("features").write_inner_content(|xml| {
                empty(xml, "acpi", &[])?;
                empty(xml, "apic", &[])?;
                // QEMU's own, so that the IOMMU can remap what goes through it.
                if self.guest.iommu { empty(xml, "ioapic", &[("driver", "qemu")]) } else { Ok(()) }
            })?;
            self.cpu(xml)?;
            xml.create_element("devices").write_inner_content(|xml| self.devices(xml))?;
            if self.guest.msix { Ok(()) } else { self.without_msix(xml) }
        })?;
        Ok(())
    }

    /// Takes the vectors away that libvirt gives a NIC.
    fn without_msix(&self, xml: &mut Xml) -> io::Result<()> {
        xml.create_element("qemu:override").write_inner_content(|xml| {
            for nic in &self.nics {
                let alias = self.alias(nic);
                let device = xml.create_element("qemu:device").with_attribute(("alias", alias.as_str()));
                device.write_inner_content(|xml| {
                    xml.create_element("qemu:frontend").write_inner_content(|xml| {
                        empty(xml, "qemu:property", &[("name", "vectors"), ("type", "unsigned"), ("value", "0")])
                    })?;
                    Ok(())
                })?;
            }
            Ok(())
        })?;
        Ok(())
    }

    /// A name for the device that is not libvirt's to choose: one of the operator's begins with `ua-`, is no other device's in
    /// the domain, and has no dot.
    fn alias(&self, nic: &GuestNic) -> String {
        let plain = |nic: &GuestNic| nic.name.replace('.', "_");
        let before = self.nics.iter().take_while(|one| one.name != nic.name);
        match before.filter(|one| plain(one) == plain(nic)).count() {
            0 => format!("ua-{}", plain(nic)),
            count => format!("ua-{}-{count}", plain(nic)),
        }
    }

    fn memory_backing(&self, xml: &mut Xml) -> io::Result<()> {
        xml.create_element("memoryBacking").write_inner_content(|xml| {
            match &self.memory.backing {
                Backing::HugePages { size_kib } => {
                    let size = size_kib.to_string();
                    xml.create_element("hugepages")
                        .write_inner_content(|xml| empty(xml, "page", &[("size", &size), ("unit", "KiB")]))?;
                }
                Backing::Memfd => empty(xml, "source", &[("type", "memfd")])?,
                Backing::Files { .. } => empty(xml, "source", &[("type", "file")])?,
            }
            empty(xml, "access", &[("mode", "shared")])?;
            if matches!(self.memory.backing, Backing::Files { .. }) {
                empty(xml, "allocation", &[("mode", "immediate")])?;
                empty(xml, "discard", &[])?;
            }
            Ok(())
        })?;
        Ok(())
    }

    fn os(&self, xml: &mut Xml) -> io::Result<()> {
        let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
        xml.create_element("os").write_inner_content(|xml| {
            xml.create_element("type")
                .with_attributes([("arch", "x86_64"), ("machine", "q35")])
                .write_text_content(BytesText::new("hvm"))?;
            if let Some(kernel) = &self.guest.kernel {
                text(xml, "kernel", &path(kernel))?;
            }
            if let Some(initrd) = &self.guest.initrd {
                text(xml, "initrd", &path(initrd))?;
            }
            if let Some(cmdline) = &self.guest.cmdline {
                text(xml, "cmdline", cmdline)?;
            }
            if self.guest.disk.is_some() && self.guest.kernel.is_none() {
                empty(xml, "boot", &[("dev", "hd")])?;
            }
            Ok(())
        })?;
        Ok(())
    }

    fn cpu(&self, xml: &mut Xml) -> io::Result<()> {
        let mode = if self.guest.virt_type == "kvm" { "host-passthrough" } else { "maximum" };
        let cpu = xml.create_element("cpu").with_attribute(("mode", mode));
        if self.memory.cells.is_empty() {
            cpu.write_empty()?;
            return Ok(());
        }
        cpu.write_inner_content(|xml| {
            xml.create_element("numa").write_inner_content(|xml| {
                for cell in &self.memory.cells {
                    let cpus = list(&cell.cpus);
                    let (id, memory) = (cell.id.to_string(), cell.kib.to_string());
                    let mut attributes = vec![("id", id.as_str())];
                    // A node may have memory only.
                    if !cpus.is_empty() {
                        attributes.push(("cpus", &cpus));
                    }
                    attributes.extend([("memory", memory.as_str()), ("unit", "KiB"), ("memAccess", "shared")]);
                    empty(xml, "cell", &attributes)?;
                }
                Ok(())
            })?;
            Ok(())
        })?;
        Ok(())
    }

    fn devices(&self, xml: &mut Xml) -> io::Result<()> {
        if let Some(emulator) = &self.guest.emulator {
            text(xml, "emulator", &emulator.to_string_lossy())?;
        }
        if let Some(disk) = &self.guest.disk {
            let element = xml.create_element("disk").with_attributes([("type", "file"), ("device", "disk")]);
            element.write_inner_content(|xml| {
                empty(xml, "driver", &[("name", "qemu"), ("type", "qcow2")])?;
                empty(xml, "source", &[("file", &disk.to_string_lossy())])?;
                empty(xml, "target", &[("dev", "vda"), ("bus", "virtio")])
            })?;
        }
        for nic in &self.nics {
            self.interface(xml, nic)?;
        }
        if self.guest.iommu {
            self.iommu(xml)?;
        }
        // The console of a guest that has no network yet.
        xml.create_element("serial").with_attribute(("type", "pty")).write_empty()?;
        Ok(())
    }

    fn iommu(&self, xml: &mut Xml) -> io::Result<()> {
        let mut driver = vec![("intremap", "on"), ("eim", "on")];
        if self.is_novas {
            driver.extend([("caching_mode", "on"), ("aw_bits", "48"), ("iotlb", "on")]);
        }
        let iommu = xml.create_element("iommu").with_attribute(("model", "intel"));
        iommu.write_inner_content(|xml| empty(xml, "driver", &driver))?;
        Ok(())
    }

    /// In nova's order: mac, model, driver, source.
    fn interface(&self, xml: &mut Xml, nic: &GuestNic) -> io::Result<()> {
        let interface = xml.create_element("interface").with_attribute(("type", "vhostuser"));
        interface.write_inner_content(|xml| {
            empty(xml, "mac", &[("address", &nic.mac)])?;
            empty(xml, "model", &[("type", "virtio")])?;
            let queues = nic.queue_pairs.to_string();
            let sizes = [nic.rx_queue_size, nic.tx_queue_size].map(|size| size.map(|size| size.to_string()));
            let mut driver = Vec::new();
            if nic.packed {
                driver.push(("packed", "on"));
            }
            if nic.queue_pairs > 1 {
                driver.push(("queues", queues.as_str()));
            }
            for (name, size) in ["rx_queue_size", "tx_queue_size"].into_iter().zip(&sizes) {
                driver.extend(size.as_deref().map(|size| (name, size)));
            }
            if !driver.is_empty() {
                empty(xml, "driver", &driver)?;
            }
            let mode = if nic.qemu_listens { "server" } else { "client" };
            let path = nic.socket.to_string_lossy();
            let source = xml.create_element("source");
            let source = source.with_attributes([("type", "unix"), ("path", &path), ("mode", mode)]);
            if nic.qemu_listens {
                source.write_empty()?;
            } else {
                // Otherwise the guest would not get over a restart of the switch.
                source.write_inner_content(|xml| empty(xml, "reconnect", &[("enabled", "yes"), ("timeout", "1")]))?;
            }
            if let Some(mtu) = nic.mtu {
                empty(xml, "mtu", &[("size", &mtu.to_string())])?;
            }
            if !self.guest.msix {
                empty(xml, "alias", &[("name", &self.alias(nic))])?;
            }
            Ok(())
        })?;
        Ok(())
    }
}

/// Runs `write` on a writer over memory, which cannot fail.
fn written(write: impl FnOnce(&mut Xml) -> io::Result<()>) -> String {
    let mut xml = Writer::new_with_indent(Vec::new(), b' ', 2);
    let done = write(&mut xml);
    debug_assert!(done.is_ok(), "memory takes everything");
    let mut text = String::from_utf8_lossy(&xml.into_inner()).into_owned();
    text.push('\n');
    text
}

fn text(xml: &mut Xml, name: &str, content: &str) -> io::Result<()> {
    xml.create_element(name).write_text_content(BytesText::new(content))?;
    Ok(())
}

fn empty(xml: &mut Xml, name: &str, attributes: &[(&str, &str)]) -> io::Result<()> {
    xml.create_element(name).with_attributes(attributes.iter().copied()).write_empty()?;
    Ok(())
}

/// `0-3,6`
pub(super) fn list(cpus: &[u32]) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut rest = cpus;
    while let Some(&first) = rest.first() {
        let run = rest.iter().zip(first..).take_while(|&(&cpu, wanted)| cpu == wanted).count();
        let last = rest[run - 1];
        parts.push(if run == 1 { first.to_string() } else { format!("{first}-{last}") });
        rest = &rest[run..];
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::list;

    #[test]
    fn runs_of_cpus_are_written_short() {
        assert_eq!(list(&[0, 1, 2, 3, 6, 8, 9]), "0-3,6,8-9");
        assert_eq!(list(&[]), "");
        assert_eq!(list(&[5]), "5");
    }
}
