//! The guest itself: vCPUs, name, type, and what it boots.

use super::{Findings, Rule};
use crate::input::Input;
use crate::made::Guest;

/// libvirt and QEMU permit some thousands on current hosts.
const VCPUS_MAX: i64 = 4096;

pub(crate) fn of(input: &Input, found: &mut Findings) -> Option<Guest> {
    let vcpus = vcpus(input, found);
    let said = &input.guest;
    let virt_type = match said.virt_type.as_deref() {
        None | Some("kvm") => Some("kvm"),
        Some("qemu") => {
            let text = "software emulation; QEMU 7.2 (Debian 12) crashes there when a vhost-user device signals through MSI-X: \
                        boot the guest with pci=nomsi, or take a newer QEMU";
            found.warn("virt_type", text);
            Some("qemu")
        }
        Some(other) => {
            found.refuse(Rule::VirtType, "virt_type", format!("unknown type `{other}`"), "write kvm or qemu");
            None
        }
    };
    let name = said.name.clone().or_else(|| input.nic.first().map(|nic| nic.name.clone())).unwrap_or_default();
    let is_good = !name.is_empty() && !name.contains(|c: char| c.is_control() || c == '/') && name.trim() == name;
    // Without a NIC there is no name either, and that is told elsewhere.
    if !is_good && (said.name.is_some() || !input.nic.is_empty()) {
        found.refuse(Rule::DomainName, "name", format!("`{name}` cannot name a domain"), "choose another name");
    }
    if said.kernel.is_none() && (said.initrd.is_some() || said.cmdline.is_some()) {
        found.refuse(Rule::Guest, "initrd, cmdline", "there is no kernel that they belong to", "add kernel = \"PATH\"");
    }
    for (about, path) in
        [("emulator", &said.emulator), ("disk", &said.disk), ("kernel", &said.kernel), ("initrd", &said.initrd)]
    {
        if let Some(path) = path.as_ref().filter(|path| !path.is_absolute()) {
            found.refuse(Rule::Guest, about, format!("`{}` is relative", path.display()), "write it from the root");
        }
    }
    for (about, text) in [("cmdline", said.cmdline.as_deref())] {
        if text.is_some_and(|text| text.contains(char::is_control)) {
            found.refuse(Rule::Guest, about, "there are control characters in it", "remove them");
        }
    }
    Some(Guest {
        name,
        vcpus: vcpus?,
        virt_type: virt_type?,
        emulator: said.emulator.clone(),
        disk: said.disk.clone(),
        kernel: said.kernel.clone(),
        initrd: said.initrd.clone(),
        cmdline: said.cmdline.clone(),
    })
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
