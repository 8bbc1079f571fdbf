//! The rules: nova's, libvirt's, QEMU's, and the switch's own, each cited by the name under which it is found there.

mod costs;
mod guest;
mod iommu;
mod known;
mod memory;
mod multiqueue;
mod nics;
mod numa;
mod packed;
mod pages;
mod pairs;
mod properties;
mod refusal;
mod versions;

use crate::Host;
use crate::input::Input;
use crate::made::{Plan, Warning};

pub use refusal::{Refusal, Rule};

/// What the rules found so far: everything that is wrong is told, not only the first.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) refusals: Vec<Refusal>,
    pub(crate) warnings: Vec<Warning>,
}

impl Findings {
    pub(crate) fn refuse(&mut self, rule: Rule, about: &str, what: impl Into<String>, mend: impl Into<String>) {
        let refusal = Refusal::new(rule, about, what.into(), mend.into());
        if !self.refusals.contains(&refusal) {
            self.refusals.push(refusal);
        }
    }

    pub(crate) fn warn(&mut self, about: &str, text: impl Into<String>) {
        self.warnings.push(Warning { about: about.to_owned(), text: text.into() });
    }

    /// A number that has to be within bounds; None, and a refusal, if it is not.
    pub(crate) fn within(&mut self, rule: Rule, about: &str, value: i64, (least, most): (i64, i64)) -> Option<u32> {
        if (least..=most).contains(&value) {
            u32::try_from(value).ok()
        } else {
            self.refuse(rule, about, format!("{value} is out of range"), format!("use {least} to {most}"));
            None
        }
    }
}

/// Makes the plan for a guest on a host.
///
/// # Errors
/// Everything that is wrong, a line each. There is no plan for a guest whose NIC would be dead.
pub fn plan(input: &Input, host: &Host) -> Result<Plan, Vec<Refusal>> {
    let mut found = Findings::default();
    properties::check(input, &mut found);
    iommu::encryption(input, &mut found);
    let guest = guest::of(input, &mut found);
    let vcpus = guest.as_ref().map(|guest| guest.vcpus);
    let packed = packed::constraint(input, host, &mut found);
    let enabled = multiqueue::constraint(input, vcpus, &mut found);
    let memory = memory::of(input, host, vcpus, &mut found);
    let nics = nics::of(input, host, guest.as_ref(), vcpus, packed, enabled, &mut found);
    let needs = versions::of(input, guest.as_ref(), memory.as_ref(), &nics, &mut found);
    let (Some(guest), Some(memory), true) = (guest, memory, found.refusals.is_empty()) else {
        return Err(found.refusals);
    };
    let arithmetic = costs::of(input, host, &guest, &nics, &mut found);
    if !found.refusals.is_empty() {
        return Err(found.refusals);
    }
    let required_trait = (packed == packed::Packed::On).then_some("COMPUTE_NET_VIRTIO_PACKED");
    let (packed, is_novas) = (nics.iter().any(|nic| nic.packed), input.is_novas());
    Ok(Plan { guest, memory, nics, packed, arithmetic, warnings: found.warnings, needs, required_trait, is_novas })
}
