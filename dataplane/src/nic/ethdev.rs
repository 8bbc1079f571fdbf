//! One of DPDK's ethdevs: found, looked at, given up. What it is used for is the matter of `device` and `bond`.
#![expect(unsafe_code, reason = "DPDK's calls of control")]

use std::ffi::{CStr, CString};
use std::fs;
use std::path::Path;

use dpdk_sys::*;

use super::eal::{error_text, last_error};

/// An ethdev. To be closed when nobody polls it any more.
#[derive(Debug)]
pub(super) struct Ethdev {
    /// DPDK's number of it.
    pub(super) number: u16,
    /// What it is called, without arguments.
    name: String,
    raw: *mut rte_device,
    /// The kernel's interface behind it, if it is named in the device's arguments, and its number there.
    interface: Option<(String, Option<u32>)>,
}

impl Ethdev {
    /// Looks for a device: a PCI address, or a virtual device and its arguments.
    pub(super) fn probe(device: &str) -> Result<Self, String> {
        let name = device.split(',').next().unwrap_or_default();
        let text = |text: &str| CString::new(text).map_err(|error| error.to_string());
        let (arguments, c_name) = (text(device)?, text(name)?);
        let mut number = u16::MAX;
        // SAFETY: EAL runs, this is its thread, and both are C strings.
        unsafe {
            let failed = rte_dev_probe(arguments.as_ptr());
            if failed != 0 {
                return Err(format!("no device {name}: {}", probe_error(failed)));
            }
            if rte_eth_dev_get_port_by_name(c_name.as_ptr(), &mut number) != 0 {
                return Err(format!("device {name} is no NIC"));
            }
        }
        let interface = device.split(',').find_map(|argument| argument.strip_prefix("iface="));
        let interface = interface.map(|name| (name.to_owned(), interface_number(name)));
        Ok(Self { interface, ..Self::found(name, number)? })
    }

    /// One that is there already.
    pub(super) fn found(name: &str, number: u16) -> Result<Self, String> {
        Ok(Self { number, name: name.to_owned(), raw: info(number)?.device, interface: None })
    }

    /// What it can do.
    pub(super) fn info(&self) -> Result<rte_eth_dev_info, String> {
        info(self.number)
    }

    /// Its NUMA node, if it has one.
    pub(super) fn node(&self) -> Option<u32> {
        // SAFETY: the port is there.
        u32::try_from(unsafe { rte_eth_dev_socket_id(self.number) }).ok()
    }

    /// Starts it, and has it hear everything, as a bridge does. Devices that always do need not know those calls.
    pub(super) fn start(&self) -> Result<(), String> {
        // SAFETY: the port is there and set up, and this is the thread of EAL.
        let failed = unsafe { rte_eth_dev_start(self.number) };
        if failed < 0 {
            return Err(self::failed("does not start", failed));
        }
        self.hear_everything();
        Ok(())
    }

    /// Promiscuous mode, for groups, too; says so if it does not.
    pub(super) fn hear_everything(&self) {
        // SAFETY: the port is there.
        let results = unsafe { [rte_eth_promiscuous_enable(self.number), rte_eth_allmulticast_enable(self.number)] };
        for (result, what) in results.into_iter().zip(["unicast to others", "all multicast"]) {
            if result != 0 && result != -libc::ENOTSUP {
                let (name, why) = (&self.name, error_text(result));
                tracing::warn!("device {name} will not hear {what} ({why}); a virtual function has to be trusted");
            }
        }
    }

    /// Stops it. Nobody polls it.
    pub(super) fn stop(&self) {
        // SAFETY: the port is there, and this is the thread of EAL.
        unsafe { rte_eth_dev_stop(self.number) };
    }

    /// What its driver says of the cable, and megabits a second.
    pub(super) fn link(&self) -> (bool, u32) {
        let mut link = rte_eth_link::default();
        // SAFETY: the port is there, `link` ours.
        let known = unsafe { rte_eth_link_get_nowait(self.number, &mut link) } == 0;
        (known && link.link_status() != 0, link.link_speed)
    }

    /// Whether the kernel says that its interface is up. Drivers that look at it only when they start see nothing of this.
    pub(super) fn interface_is_up(&self) -> bool {
        let Some((name, _)) = &self.interface else { return true };
        let state = fs::read_to_string(Path::new("/sys/class/net").join(name).join("operstate"));
        !matches!(state.as_deref().map(str::trim), Ok("down" | "lowerlayerdown" | "notpresent"))
    }

    /// Why it cannot be used any more, if that is so.
    pub(super) fn gone(&self) -> Option<String> {
        // SAFETY: the port is there.
        if unsafe { rte_eth_dev_is_removed(self.number) } == 1 {
            return Some("the device was removed; it is looked for again every second".to_owned());
        }
        let (name, number) = self.interface.as_ref()?;
        let is_same = number.is_none() || interface_number(name) == *number;
        (!is_same).then(|| format!("interface {name} is gone; it is looked for again every second"))
    }

    /// The driver's own counters.
    pub(super) fn xstats(&self) -> Vec<(String, u64)> {
        // SAFETY: the port is there; both arrays have as many places as said.
        unsafe {
            let count = rte_eth_xstats_get_names(self.number, std::ptr::null_mut(), 0).max(0) as usize;
            let mut names = vec![rte_eth_xstat_name { name: [0; 64] }; count];
            let mut values = vec![rte_eth_xstat { id: 0, value: 0 }; count];
            let named = rte_eth_xstats_get_names(self.number, names.as_mut_ptr(), count as u32);
            let valued = rte_eth_xstats_get(self.number, values.as_mut_ptr(), count as u32);
            if named != count as i32 || valued != count as i32 {
                return Vec::new();
            }
            let text = |name: &rte_eth_xstat_name| {
                name.name.iter().take_while(|&&c| c != 0).map(|&c| char::from(c as u8)).collect::<String>()
            };
            let value = |value: &rte_eth_xstat| Some((text(names.get(value.id as usize)?), value.value));
            values.iter().filter_map(value).collect()
        }
    }

    /// Stops and removes it. Nobody polls it.
    pub(super) fn close(self) {
        self.stop();
        // SAFETY: the port is there, and this is the thread of EAL.
        unsafe {
            rte_eth_dev_close(self.number);
            rte_dev_remove(self.raw);
        }
    }
}

fn info(number: u16) -> Result<rte_eth_dev_info, String> {
    let mut info = rte_eth_dev_info::default();
    // SAFETY: `info` is ours, and DPDK knows which ports there are.
    let failed = unsafe { rte_eth_dev_info_get(number, &mut info) };
    if failed == 0 { Ok(info) } else { Err(self::failed("does not say what it can", failed)) }
}

pub(super) fn failed(what: &str, error: i32) -> String {
    format!("{what}: {}", error_text(error))
}

pub(super) fn probe_error(error: i32) -> String {
    // SAFETY: counts ports.
    if unsafe { rte_eth_dev_count_avail() } as u32 >= RTE_MAX_ETHPORTS {
        return format!("this build of DPDK holds {RTE_MAX_ETHPORTS} NICs, and there are as many; remove a port");
    }
    if error == -1 { last_error() } else { error_text(error) }
}

/// A name of DPDK's that lives for ever; none is empty.
///
/// # Safety
/// A C string, or null.
pub(super) unsafe fn static_name(name: *const std::ffi::c_char) -> String {
    // SAFETY: the caller answers for it.
    if name.is_null() { String::new() } else { unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned() }
}

/// The kernel's number of an interface, which no other has after it.
fn interface_number(name: &str) -> Option<u32> {
    fs::read_to_string(Path::new("/sys/class/net").join(name).join("ifindex")).ok()?.trim().parse().ok()
}
