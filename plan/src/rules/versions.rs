//! Versions that a plan rests on, against those that the hosts have, where they are said.

use super::{Findings, Rule};
use crate::input::Input;
use crate::made::{Backing, Guest, GuestNic, Memory, Need};

/// nova's own minimum today.
const NOVA: Need = Need { what: "nova", libvirt: Some("8.0"), qemu: Some("6.2") };
const PACKED: Need = Need { what: "packed rings", libvirt: Some("6.3"), qemu: Some("4.2") };
const MULTIQUEUE: Need = Need {
    what: "several queue pairs over vhost-user (over other interfaces from libvirt 1.0.5 on)",
    libvirt: Some("1.2.17"),
    qemu: Some("2.5"),
};
const MEMFD: Need = Need { what: "memory in a memfd", libvirt: Some("4.6"), qemu: Some("2.12") };
const RX_SIZE: Need = Need { what: "rx_queue_size", libvirt: Some("2.3"), qemu: Some("2.7") };
const TX_SIZE: Need = Need { what: "tx_queue_size", libvirt: Some("3.7"), qemu: Some("2.10") };
const MTU: Need = Need { what: "an MTU", libvirt: Some("3.1"), qemu: Some("2.9") };
const RECONNECT: Need = Need { what: "a switch that listens", libvirt: Some("4.1"), qemu: None };
const IOMMU: Need = Need { what: "remapped interrupts", libvirt: Some("3.4"), qemu: Some("2.9") };
const VCPUS_288: Need = Need { what: "more than 288 vCPUs", libvirt: None, qemu: Some("8.1") };
const VCPUS_1024: Need = Need { what: "more than 1024 vCPUs", libvirt: None, qemu: Some("9.0") };
const EMULATED: Need = Need { what: "an emulated CPU", libvirt: Some("7.1"), qemu: None };
const NO_MSIX: Need = Need { what: "<qemu:override>", libvirt: Some("8.2"), qemu: None };
/// What emulates a vhost-user device with MSI-X.
const MSIX_EMULATED: Version = [10, 0, 0];

type Version = [u32; 3];

/// Everything that the parts of a plan rest on; refuses versions that are said and too old for it.
pub(crate) fn of(
    input: &Input,
    guest: Option<&Guest>,
    memory: Option<&Memory>,
    nics: &[GuestNic],
    found: &mut Findings,
) -> Vec<Need> {
    let any = |is: fn(&GuestNic) -> bool| nics.iter().any(is);
    let is = |of: fn(&Guest) -> bool| guest.is_some_and(of);
    let needs = [
        (input.is_novas(), NOVA),
        (any(|nic| nic.packed), PACKED),
        (any(|nic| nic.queue_pairs > 1), MULTIQUEUE),
        (any(|nic| nic.rx_queue_size.is_some()), RX_SIZE),
        (any(|nic| nic.tx_queue_size.is_some()), TX_SIZE),
        (any(|nic| nic.mtu.is_some()), MTU),
        (any(|nic| !nic.qemu_listens), RECONNECT),
        (memory.is_some_and(|memory| memory.backing == Backing::Memfd), MEMFD),
        (is(|guest| guest.iommu), IOMMU),
        (is(|guest| guest.vcpus > 288), VCPUS_288),
        (is(|guest| guest.vcpus > 1024), VCPUS_1024),
        (is(|guest| guest.virt_type == "qemu"), EMULATED),
        (is(|guest| !guest.msix), NO_MSIX),
    ];
    let needs: Vec<Need> = needs.into_iter().filter_map(|(is_needed, need)| is_needed.then_some(need)).collect();
    let (libvirt, qemu) = (input.libvirt.version.as_deref(), input.qemu.version.as_deref());
    at_least("[libvirt] version", libvirt, needs.iter().map(|need| (need.what, need.libvirt)), found);
    at_least("[qemu] version", qemu, needs.iter().map(|need| (need.what, need.qemu)), found);
    needs
}

fn at_least<'n>(
    about: &str,
    said: Option<&str>,
    needs: impl Iterator<Item = (&'n str, Option<&'n str>)>,
    found: &mut Findings,
) {
    let Some(text) = said else { return };
    let Some(version) = version(text) else {
        found.refuse(Rule::Versions, about, format!("`{text}` is no version"), "write it like 9.0.0");
        return;
    };
    // The one that asks most stands for all.
    let most = needs.filter_map(|(what, least)| Some((self::version(least?)?, what, least?))).max_by_key(|need| need.0);
    if let Some((_, what, least)) = most.filter(|&(least, ..)| version < least) {
        found.refuse(
            Rule::Versions,
            about,
            format!("{text} is too old for {what}"),
            format!("upgrade to {least} or later"),
        );
    }
}

/// Why hosts of the versions that are said cannot have packed rings, if they cannot.
pub(crate) fn too_old_for_packed(input: &Input) -> Option<String> {
    let said = [("libvirt", &input.libvirt.version, PACKED.libvirt), ("QEMU", &input.qemu.version, PACKED.qemu)];
    said.into_iter().find_map(|(of, said, least)| {
        let (said, least) = (said.as_deref()?, least?);
        (version(said)? < version(least)?).then(|| format!("{of} {said} is older than {least}"))
    })
}

/// Whether QEMU is known to signal through MSI-X for vhost-user devices without KVM.
pub(crate) fn emulates_msix(input: &Input) -> bool {
    input.qemu.version.as_deref().and_then(version).is_some_and(|version| version >= MSIX_EMULATED)
}

/// `9.0.0`, `7.2`, `7.2.22-1~deb12`, `1:7.2+dfsg-7`: up to three numbers, after an epoch and before what a distribution adds.
fn version(text: &str) -> Option<Version> {
    let text = text.trim();
    let text = text.split_once(':').map_or(text, |(_, version)| version);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let mut numbers = text[..end].trim_end_matches('.').split('.').map(|number| number.parse().ok());
    let mut next = || numbers.next().unwrap_or(Some(0));
    Some([next()?, next()?, next()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_packages_write_them() {
        for (text, wanted) in [
            ("9.0.0", Some([9, 0, 0])),
            ("7.2", Some([7, 2, 0])),
            ("10", Some([10, 0, 0])),
            ("1:7.2+dfsg-7+deb12u18", Some([7, 2, 0])),
            ("9.0.0-4+deb12u2", Some([9, 0, 0])),
            ("7.2.22.1", Some([7, 2, 22])),
            ("", None),
            ("new", None),
            ("v9", None),
            ("9..1", None),
            ("99999999999.0", None),
        ] {
            assert_eq!(version(text), wanted, "{text}");
        }
        let all = [
            NOVA, PACKED, MULTIQUEUE, MEMFD, RX_SIZE, TX_SIZE, MTU, RECONNECT, IOMMU, VCPUS_288, VCPUS_1024, EMULATED,
            NO_MSIX,
        ];
        for need in all {
            assert!([need.libvirt, need.qemu].into_iter().flatten().all(|least| version(least).is_some()), "{need:?}");
        }
    }
}
