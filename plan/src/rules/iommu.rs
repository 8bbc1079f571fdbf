//! What stands between a device and the guest's memory or its interrupts: IOMMUs, which many vCPUs need, and encryption.

use super::{Findings, Rule, properties};
use crate::input::Input;

/// The most that an interrupt reaches that nobody remaps: an APIC's number is 8 bits, and one of them means all.
const VCPUS_MAX: u32 = 255;

/// Whether the guest has an Intel IOMMU that remaps interrupts: nova's `_guest_add_iommu_device`, and for a guest that nova does
/// not start where its vCPUs need one.
pub(crate) fn of(input: &Input, vcpus: u32, emulated: bool, found: &mut Findings) -> bool {
    let is_needed = vcpus > VCPUS_MAX;
    if is_needed && emulated {
        let what = format!("{vcpus}, emulated: QEMU emulates no x2APIC before 9.0, and none with these NICs");
        found.refuse(Rule::ManyVcpus, "vcpus", what, "use virt_type = \"kvm\", or 255 at most");
    }
    if !input.is_novas() {
        return is_needed;
    }
    let (flavor, image) = properties::texts(input, "viommu_model");
    // The flavor's has precedence: nova sees no conflict here.
    let (about, model) = match (flavor.filter(|model| !model.is_empty()), image) {
        (Some(model), _) => ("hw:viommu_model", model),
        (None, Some(model)) => ("hw_viommu_model", model),
        (None, None) => ("hw:viommu_model", ""),
    };
    let mend = "openstack flavor set --property hw:viommu_model=intel FLAVOR, or unset it";
    match model {
        "" if is_needed => {
            let mend = "openstack flavor set --property hw:viommu_model=intel FLAVOR, or use 255 vCPUs at most";
            found.refuse(Rule::ManyVcpus, about, format!("not set, and the guest has {vcpus} vCPUs"), mend);
            return false;
        }
        "" => return false,
        "intel" => {}
        "auto" | "virtio" => {
            let what = format!("{model}: the guest cannot be defined");
            found.refuse(Rule::ViommuModel, about, what, mend);
            return false;
        }
        "smmuv3" => {
            found.refuse(Rule::ViommuModel, about, "smmuv3 is ARM's, and Ringway runs on x86-64", mend);
            return false;
        }
        other => {
            found.refuse(Rule::ViommuModel, about, format!("unknown model `{other}`"), mend);
            return false;
        }
    }
    let machine = input.image.as_ref().and_then(|image| image.properties.get("hw_machine_type"));
    match machine {
        Some(machine) if !machine.contains("q35") => {
            let mend = "openstack image set --property hw_machine_type=q35 IMAGE";
            found.refuse(Rule::ViommuMachine, "hw_machine_type", format!("{machine} has no Intel IOMMU"), mend);
        }
        Some(_) => {}
        None => found.warn(
            "hw_machine_type",
            "not set, and nova's default for x86-64 is pc, which has no Intel IOMMU: openstack image set --property \
             hw_machine_type=q35 IMAGE, unless [libvirt] hw_machine_type of nova.conf says so",
        ),
    }
    found.warn(
        about,
        "these NICs are not behind the guest's IOMMU: nova asks for that for no NIC, and the switch reads the guest's memory by \
         its physical addresses; DPDK in the guest needs --iova-mode=pa",
    );
    true
}

/// `hw:mem_encryption`: devices of an encrypted guest see what it decrypts for them, and only if they promise to look nowhere
/// else (`VIRTIO_F_ACCESS_PLATFORM`). The switch does not.
pub(crate) fn encryption(input: &Input, found: &mut Findings) {
    if !properties::agreed(input, "mem_encryption", found).1 {
        return;
    }
    let (flavor, _) = properties::texts(input, "mem_encryption");
    let (about, mend) = match flavor {
        Some(_) => ("hw:mem_encryption", "openstack flavor unset --property hw:mem_encryption FLAVOR"),
        None => ("hw_mem_encryption", "openstack image unset --property hw_mem_encryption IMAGE"),
    };
    let what = "the switch cannot read encrypted memory: the NIC would appear and stay dead";
    found.refuse(Rule::MemEncryption, about, what, format!("{mend}; or give such guests other NICs"));
}
