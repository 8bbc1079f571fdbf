//! Devices of NIC ports, as DPDK names them: one, or several in a bond.

use std::collections::HashMap;
use std::ops::Range;

use crate::error::{Error, Problem};
use crate::plan::{Bond, BondMode, Uplink};
use crate::raw::{RawBond, RawPort, Table, Text};
use crate::source::Source;
use crate::words::{required, unknown_word};

/// Arguments of a device are a few words; this is room for many.
const DEVICE_BYTES_MAX: usize = 512;

/// DPDK's drivers for virtual NICs all begin with this.
const VIRTUAL: &str = "net_";

/// DPDK's driver for bonds.
const BONDING: &str = "net_bonding";

/// Members of a bond. LACP knows no bound; links beyond these are of no use to one switch.
pub(crate) const BOND_MEMBERS_MAX: usize = 8;

/// The devices given out so far, each with its line.
#[derive(Default)]
pub(crate) struct Devices(HashMap<String, usize>);

impl Devices {
    /// What is behind the NIC port whose table's header is at `header`: its `device`, or its `bond`.
    pub(crate) fn uplink(
        &mut self,
        source: &Source<'_>,
        header: &Range<usize>,
        raw: &mut RawPort,
    ) -> Result<Uplink, Error> {
        match (raw.device.take(), raw.bond.take()) {
            (Some(device), Some(_)) => Err(source.refuse(device.span(), Problem::DeviceAndBond)),
            (None, Some(bond)) => {
                let (span, Table(raw)) = (bond.span(), bond.into_inner());
                self.bond(source, &span, &raw).map(Uplink::Bond)
            }
            (device, None) => {
                let written = required(source, header, device, ("port", "device", "0000:03:00.0"))?;
                self.claim(source, &written).map(Uplink::Device)
            }
        }
    }

    fn bond(&mut self, source: &Source<'_>, span: &Range<usize>, raw: &RawBond) -> Result<Bond, Error> {
        let missing =
            |key, example| source.refuse(span.clone(), Problem::MissingInner { table: "this bond", key, example });
        let word = raw.mode.as_ref().ok_or_else(|| missing("mode", "\"active-backup\""))?;
        let mode = BondMode::ALL.into_iter().find(|mode| mode.as_str() == word.as_ref());
        let mode =
            mode.ok_or_else(|| unknown_word(source, word, "mode of a bond", &BondMode::ALL.map(BondMode::as_str)))?;
        let listed = raw.members.as_ref();
        let listed = listed.ok_or_else(|| missing("members", "[\"0000:03:00.0\", \"0000:03:00.1\"]"))?;
        let count = listed.as_ref().len();
        if !(1..=BOND_MEMBERS_MAX).contains(&count) {
            return Err(source.refuse(listed.span(), Problem::BondMembers(count)));
        }
        let mut members = Vec::new();
        for written in listed.as_ref() {
            let device = self.claim(source, written)?;
            if device_name(&device).to_ascii_lowercase().starts_with(BONDING) {
                return Err(source.refuse(written.span(), Problem::BondInBond(device)));
            }
            members.push(device);
        }
        Ok(Bond { mode, members })
    }

    /// A device that DPDK could have, and that nobody else in the file has.
    fn claim(&mut self, source: &Source<'_>, written: &Text) -> Result<String, Error> {
        let device = written.as_ref().clone();
        let name = device_name(&device).to_ascii_lowercase();
        let is_printable = device.len() <= DEVICE_BYTES_MAX && device.chars().all(|c| c.is_ascii_graphic());
        let is_virtual = name.strip_prefix(VIRTUAL).is_some_and(|rest| !rest.is_empty());
        if !is_printable || !is_virtual && !is_pci_address(&name) {
            return Err(source.refuse(written.span(), Problem::BadDevice(device)));
        }
        let line = source.line(&written.span());
        if let Some(first_line) = self.0.insert(name.clone(), line) {
            return Err(source.refuse(written.span(), Problem::DuplicateDevice { name, first_line }));
        }
        Ok(device)
    }
}

/// A device without its arguments.
fn device_name(device: &str) -> &str {
    device.split(',').next().unwrap_or_default()
}

/// Domain, bus, device and function in hexadecimal: `0000:03:00.0`.
fn is_pci_address(name: &str) -> bool {
    let parts: Vec<&str> = name.split([':', '.']).collect();
    let [domain, bus, device, function] = parts.as_slice() else { return false };
    let is_hex = |text: &str, digits: usize| text.len() == digits && text.chars().all(|c| c.is_ascii_hexdigit());
    let places = name.char_indices().filter(|&(_, c)| matches!(c, ':' | '.'));
    is_hex(domain, 4)
        && is_hex(bus, 2)
        && is_hex(device, 2)
        && matches!(function.as_bytes(), [b'0'..=b'7'])
        && places.eq([(4, ':'), (7, ':'), (10, '.')])
}
