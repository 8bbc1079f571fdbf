//! Versions that the hosts have, where they are said.

use super::{Findings, Rule};
use crate::input::Input;

/// nova's own minimum today; it covers multiqueue (1.0.5; vhost-user 1.2.17) and packed rings (6.3).
const NOVA_LIBVIRT: [u32; 2] = [8, 0];
/// nova's own minimum today; it covers packed rings (4.2).
const NOVA_QEMU: [u32; 2] = [6, 2];
/// The least that has everything in a plan: packed rings.
const LIBVIRT: [u32; 2] = [6, 3];
const QEMU: [u32; 2] = [4, 2];

pub(crate) fn check(input: &Input, found: &mut Findings) {
    let (libvirt, qemu) = if input.is_novas() { (NOVA_LIBVIRT, NOVA_QEMU) } else { (LIBVIRT, QEMU) };
    at_least("[libvirt] version", input.libvirt.version.as_deref(), libvirt, found);
    at_least("[qemu] version", input.qemu.version.as_deref(), qemu, found);
}

fn at_least(about: &str, said: Option<&str>, [major, minor]: [u32; 2], found: &mut Findings) {
    let Some(said) = said else { return };
    let mut numbers = said.split('.').map(|number| number.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().unwrap_or(Some(0))) {
        (Some(a), Some(b)) if (a, b) >= (major, minor) => {}
        (Some(_), Some(_)) => {
            found.refuse(
                Rule::Versions,
                about,
                format!("{said} is too old"),
                format!("upgrade to {major}.{minor} or later"),
            );
        }
        _ => found.refuse(Rule::Versions, about, format!("`{said}` is no version"), "write it like 9.0.0"),
    }
}
