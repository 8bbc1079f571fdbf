//! The guest itself: vCPUs, name, type, and what it boots.

use std::path::Path;

use super::{Findings, Rule, iommu, versions};
use crate::input::Input;
use crate::made::Guest;

/// What QEMU's q35 has from 9.0 on.
const VCPUS_MAX: i64 = 4096;
/// `/etc/libvirt/qemu/NAME.xml` is a file.
const NAME_BYTES_MAX: usize = 251;

pub(crate) fn of(input: &Input, found: &mut Findings) -> Option<Guest> {
    let vcpus = vcpus(input, found);
    let said = &input.guest;
    let virt_type = match said.virt_type.as_deref() {
        None | Some("kvm") => Some("kvm"),
        Some("qemu") => Some("qemu"),
        Some(other) => {
            found.refuse(Rule::VirtType, "virt_type", format!("unknown type `{other}`"), "write kvm or qemu");
            None
        }
    };
    let emulated = virt_type == Some("qemu");
    let msix = !emulated || versions::emulates_msix(input);
    if !msix && input.is_novas() {
        let mend = "run QEMU 10 or later on these hosts and say so ([qemu] version), or use KVM";
        found.refuse(Rule::EmulatedMsix, "[libvirt] virt_type", "qemu, and nova writes no vectors=0", mend);
    } else if !msix {
        found.warn(
            "virt_type",
            "software emulation: vectors=0 for its NICs, since a QEMU before 10 crashes when a vhost-user device signals through \
             MSI-X; say [qemu] version if it is 10 or later",
        );
    }
    let iommu = vcpus.is_some_and(|vcpus| iommu::of(input, vcpus, emulated, found));
    let name = said.name.clone().or_else(|| input.nic.first().map(|nic| nic.name.clone())).unwrap_or_default();
    let is_good =
        !name.trim().is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains('/') && name.chars().all(is_xml);
    // One that is taken from a NIC is judged there.
    if !is_good && said.name.is_some() {
        found.refuse(Rule::DomainName, "name", format!("`{name}` cannot name a domain"), "choose another name");
    }
    if said.kernel.is_none() && (said.initrd.is_some() || said.cmdline.is_some()) {
        found.refuse(
            Rule::DirectBoot,
            "initrd, cmdline",
            "there is no kernel that they belong to",
            "add kernel = \"PATH\"",
        );
    }
    let paths =
        [("emulator", &said.emulator), ("disk", &said.disk), ("kernel", &said.kernel), ("initrd", &said.initrd)];
    for (about, path) in paths {
        if let Some(path) = path {
            self::path(about, path, found);
        }
    }
    if said.cmdline.as_ref().is_some_and(|text| !text.chars().all(is_xml)) {
        found.refuse(Rule::Text, "cmdline", "there are control characters in it", "remove them");
    }
    Some(Guest {
        name,
        vcpus: vcpus?,
        virt_type: virt_type?,
        msix,
        iommu,
        emulator: said.emulator.clone(),
        disk: said.disk.clone(),
        kernel: said.kernel.clone(),
        initrd: said.initrd.clone(),
        cmdline: said.cmdline.clone(),
    })
}

/// Whether a path is one that XML, a shell and libvirt take as it is; refused if not.
pub(crate) fn path(about: &str, path: &Path, found: &mut Findings) -> bool {
    let shown = path.display();
    match path.to_str() {
        None => found.refuse(Rule::Text, about, format!("`{shown}` is not UTF-8"), "rename it"),
        Some(text) if !text.chars().all(is_xml) => {
            found.refuse(Rule::Text, about, format!("`{shown}` has control characters in it"), "rename it");
        }
        Some(_) if !path.is_absolute() => {
            found.refuse(Rule::AbsolutePath, about, format!("`{shown}` is relative"), "write it from the root");
        }
        Some(_) => return true,
    }
    false
}

/// Whether XML can hold it, and a line of text as well (XML 1.0, section 2.2).
pub(crate) fn is_xml(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}')
}

fn vcpus(input: &Input, found: &mut Findings) -> Option<u32> {
    let flavor = input.flavor.as_ref().and_then(|flavor| flavor.vcpus);
    let own = input.guest.vcpus;
    if let (Some(flavor), Some(own)) = (flavor, own)
        && flavor != own
    {
        let what = format!("{own}, and the flavor has {flavor}");
        found.refuse(Rule::Twice, "vcpus", what, "say it once: leave out vcpus of the guest");
    }
    let Some(vcpus) = flavor.or(own) else {
        found.refuse(Rule::Guest, "vcpus", "not said", "add --vcpus N, or a flavor");
        return None;
    };
    found.within(Rule::Guest, "vcpus", vcpus, (1, VCPUS_MAX))
}
