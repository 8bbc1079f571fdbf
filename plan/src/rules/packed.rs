//! Packed virtqueues: a permission, which driver and switch may both use or not.

use super::{Findings, Rule, properties, versions};
use crate::Host;
use crate::input::{Input, Nic};

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packed {
    On,
    Off,
    /// Nobody has said anything: whatever the host can do.
    IfPossible,
}

/// nova's `get_packed_virtqueue_constraint`; for a guest that nova does not start packed rings are permitted wherever they can
/// be, unless somebody says no: the switch is made for them, and a driver without them takes split ones.
pub(crate) fn constraint(input: &Input, host: &Host, found: &mut Findings) -> Packed {
    let (said, on) = properties::agreed(input, "virtio_packed_ring", found);
    let own = input.guest.packed;
    let wanted = match (input.is_novas(), own) {
        (true, Some(_)) => {
            let mend = "use hw:virtio_packed_ring for a guest of nova's";
            found.refuse(Rule::Twice, "packed", "the guest has a flavor or an image", mend);
            return Packed::Off;
        }
        (true, None) => on,
        (false, Some(own)) => own,
        (false, None) => return if_possible(input, host, found),
    };
    if input.is_novas() && said.is_none() {
        found.warn(
            "hw:virtio_packed_ring",
            "not set, and nova's default is false: split rings; openstack flavor set --property hw:virtio_packed_ring=true FLAVOR",
        );
    }
    if wanted && !host.offers("ring_packed") {
        let (about, mend) = if input.is_novas() {
            ("hw:virtio_packed_ring", "set it to false, or upgrade Ringway")
        } else {
            ("packed", "say --packed off, or upgrade Ringway")
        };
        found.refuse(Rule::Offered, about, "this switch has no packed rings", mend);
    }
    if wanted { Packed::On } else { Packed::Off }
}

fn if_possible(input: &Input, host: &Host, found: &mut Findings) -> Packed {
    let why = if !host.offers("ring_packed") {
        Some("this switch has none".to_owned())
    } else {
        versions::too_old_for_packed(input)
    };
    let Some(why) = why else { return Packed::IfPossible };
    found.warn("packed", format!("split rings, since {why}; say --packed off to hear no more of it"));
    Packed::Off
}

/// Whether one NIC's rings may be packed.
pub(crate) fn of_nic(wanted: Packed, nic: &Nic, found: &mut Findings) -> bool {
    let is_masked = nic.mask_features.iter().any(|masked| masked == "packed");
    if wanted == Packed::On && is_masked {
        let about = format!("{} mask_features", nic.name);
        let mend = "remove it from mask_features, or ask for split rings (hw:virtio_packed_ring=false, --packed off)";
        found.refuse(Rule::Offered, &about, "packed is withheld and asked for", mend);
    }
    wanted != Packed::Off && !is_masked
}
