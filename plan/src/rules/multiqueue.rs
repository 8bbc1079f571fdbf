//! Multiqueue: whether, and how many queue pairs at most.

use super::{Findings, Rule, properties};
use crate::Host;
use crate::input::Input;

/// Whether nova gives the guest multiqueue, and whether anybody said anything about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Enabled {
    pub(crate) said: Option<bool>,
    pub(crate) on: bool,
}

/// nova's `get_vif_multiqueue_constraint`: a guest of one vCPU is not even asked whether flavor and image agree.
pub(crate) fn constraint(input: &Input, vcpus: Option<u32>, found: &mut Findings) -> Enabled {
    if vcpus.is_some_and(|vcpus| vcpus < 2) {
        if properties::agreed(input, "vif_multiqueue_enabled", &mut Findings::default()).1 {
            found.warn(
                "hw:vif_multiqueue_enabled",
                "off all the same: nova gives a guest of fewer than 2 vCPUs one queue pair",
            );
        }
        return Enabled { said: None, on: false };
    }
    let (said, on) = properties::agreed(input, "vif_multiqueue_enabled", found);
    if on && virt_type_is_qemu(input) {
        found.warn(
            "[libvirt] virt_type",
            "with virt_type = qemu nova itself gives every NIC one queue pair; this plan is for libvirt by hand",
        );
    }
    Enabled { said, on }
}

fn virt_type_is_qemu(input: &Input) -> bool {
    input.guest.virt_type.as_deref() == Some("qemu")
}

/// The most queue pairs that an interface gets, with the name of the limit: nova's `_get_max_tap_queues`, made for tap
/// devices and applied to vhost-user as well; and the plan's own cap for the whole guest.
pub(crate) fn cap(input: &Input, host: &Host, found: &mut Findings) -> Option<(u32, String)> {
    let from_nova = match input.libvirt.max_queues {
        Some(most) => {
            let about = "[libvirt] max_queues";
            found.within(Rule::MaxQueues, about, most, (1, i64::from(u32::MAX))).map(|most| (most, about.to_owned()))
        }
        None => {
            let most = match host.kernel_major() {
                Some(0..=2) => Some(1),
                Some(3) => Some(8),
                Some(4) => Some(256),
                _ => None,
            };
            most.map(|most| (most, format!("kernel {}", host.kernel)))
        }
    };
    let own = input.guest.queues_max.and_then(|most| {
        let about = "queues_max";
        found.within(Rule::VhostUserQueues, about, most, (1, 128)).map(|most| (most, about.to_owned()))
    });
    from_nova.into_iter().chain(own).min_by_key(|&(most, _)| most)
}
