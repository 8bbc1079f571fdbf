//! Devices of NIC ports, as DPDK names them.

use std::collections::HashMap;

use crate::error::{Error, Problem};
use crate::plan::Nic;
use crate::raw::Text;
use crate::source::Source;

/// Arguments of a device are a few words; this is room for many.
const DEVICE_BYTES_MAX: usize = 512;

/// DPDK's drivers for virtual NICs all begin with this.
const VIRTUAL: &str = "net_";

/// The devices given out so far, each with its line.
#[derive(Default)]
pub(crate) struct Devices(HashMap<String, usize>);

impl Devices {
    /// A device that DPDK could have, and that no other port has.
    pub(crate) fn claim(&mut self, source: &Source<'_>, written: &Text) -> Result<Nic, Error> {
        let nic = Nic { device: written.as_ref().clone(), queues: None };
        let name = nic.name().to_ascii_lowercase();
        let is_printable = nic.device.len() <= DEVICE_BYTES_MAX && nic.device.chars().all(|c| c.is_ascii_graphic());
        let is_virtual = name.strip_prefix(VIRTUAL).is_some_and(|rest| !rest.is_empty());
        if !is_printable || !is_virtual && !is_pci_address(&name) {
            return Err(source.refuse(written.span(), Problem::BadDevice(nic.device)));
        }
        let line = source.line(&written.span());
        if let Some(first_line) = self.0.insert(name.clone(), line) {
            return Err(source.refuse(written.span(), Problem::DuplicateDevice { name, first_line }));
        }
        Ok(nic)
    }
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
