//! Packed virtqueues: a permission, which driver and switch may both use or not.

use super::{Findings, properties};
use crate::input::Input;

/// nova's `get_packed_virtqueue_constraint`; for a guest that nova does not start packed rings are permitted unless
/// somebody says no: the switch is made for them, and a driver without them takes split ones.
pub(crate) fn constraint(input: &Input, found: &mut Findings) -> bool {
    let (said, on) = properties::agreed(input, "virtio_packed_ring", found);
    if said.is_none() && input.is_novas() {
        found.warn(
            "hw:virtio_packed_ring",
            "not set, and nova's default is false: split rings; openstack flavor set --property hw:virtio_packed_ring=true FLAVOR",
        );
    }
    if input.is_novas() { on } else { said.unwrap_or(true) }
}
