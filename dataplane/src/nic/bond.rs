//! Bonds: several ethdevs as one, on DPDK's net_bonding. Which member carries frames is its decision, by what drivers say of
//! links and, with LACP, by what the other end says. Made here is what it does not do by itself: members whose driver knows
//! nothing of its cable, members that vanish and come back, and what all of them are said to be doing.
//!
//! Members are added, stopped and removed only while no worker has a queue of the bond.
#![expect(unsafe_code, reason = "DPDK's calls of control for bonds")]

use std::ffi::CString;
use std::time::{Duration, Instant};

use dpdk_sys::*;
use ringway_config::BondMode;

use super::bonded::Bonded;
use super::eal::Eal;
use super::ethdev::{Ethdev, probe_error, static_name};
use super::port::{Member, MemberState, Port};

/// Between two attempts at a member without a device.
const RETRY: Duration = Duration::from_secs(1);

/// net_bonding looks at links every 10 ms; this is long enough for it to have seen a change, on a busy machine.
const NOTICED: Duration = Duration::from_millis(300);

/// What net_bonding takes for LACP, at the first use of a member, and without which it ends the process: an mbuf for each TX
/// descriptor, its pool, and rings.
const LACP_BYTES_PER_DESCRIPTOR: usize = 768;
const LACP_BYTES: usize = 4 << 20;

/// The actor sends frames (IEEE 802.1AX-2008, 5.4.2.2).
const DISTRIBUTING: u8 = 0x20;

/// The members of a bond.
#[derive(Debug)]
pub(super) struct Bond {
    /// DPDK's number of the bond.
    number: u16,
    mode: BondMode,
    members: Vec<Slot>,
}

/// A place in a bond.
#[derive(Debug)]
struct Slot {
    device: String,
    ethdev: Option<Ethdev>,
    /// Stopped, so that net_bonding takes it for down: its interface is, and its driver does not see that.
    is_halted: bool,
    last_error: Option<String>,
    retry_at: Instant,
}

/// What has to be changed of a bond.
#[derive(Debug, Default)]
pub(super) struct Changes(Vec<(usize, Change)>);

#[derive(Debug)]
enum Change {
    /// Its device is gone.
    Lose(String),
    /// Its interface is down.
    Halt,
    /// Its interface is up again.
    Resume,
    /// Here is its device.
    Join(Ethdev),
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Bond {
    /// A bond of the members of `port` that can be had; there must be one. The ethdev is the bond itself.
    pub(super) fn make(port: &Port, mode: BondMode, eal: &mut Eal) -> Result<(Ethdev, Self), String> {
        // Virtual devices are found by the beginning of their names.
        let name = CString::new(format!("net_bonding_ringway{}", port.id)).map_err(|error| error.to_string())?;
        let members: Vec<Slot> = port.devices.iter().map(|device| Slot::probe(device.clone(), eal)).collect();
        let mut bond = Self { number: u16::MAX, mode, members };
        let made = bond.create(&name);
        match made {
            Ok(ethdev) => Ok((ethdev, bond)),
            Err(error) => {
                bond.close();
                Err(error)
            }
        }
    }

    fn create(&mut self, name: &CString) -> Result<Ethdev, String> {
        if self.present().next().is_none() {
            let why = self.members.first().and_then(|slot| slot.last_error.clone()).unwrap_or_default();
            return Err(format!("no member of the bond can be had; the first: {why}"));
        }
        let (number, policy) = match self.mode {
            BondMode::ActiveBackup => (BONDING_MODE_ACTIVE_BACKUP, None),
            BondMode::Lacp => (BONDING_MODE_8023AD, Some(BALANCE_XMIT_POLICY_LAYER34)),
        };
        let node = self.node().unwrap_or(0);
        // SAFETY: EAL runs, this is its thread, and the name is a C string that is copied.
        let made = unsafe { rte_eth_bond_create(name.as_ptr(), number as u8, node as u8) };
        self.number = u16::try_from(made).map_err(|_| format!("no bond can be made: {}", probe_error(made)))?;
        let ethdev = Ethdev::found(&name.to_string_lossy(), self.number)?;
        if let Some(policy) = policy {
            // SAFETY: the bond is there.
            unsafe { rte_eth_bond_xmit_policy_set(self.number, policy as u8) };
        }
        for index in 0..self.members.len() {
            self.add(index);
        }
        if self.present().next().is_none() {
            let why = self.members.first().and_then(|slot| slot.last_error.clone()).unwrap_or_default();
            ethdev.close();
            return Err(why);
        }
        Ok(ethdev)
    }

    /// Has net_bonding use the device of a member, which is given up if that fails.
    fn add(&mut self, index: usize) {
        let (bond, Some(slot)) = (self.number, self.members.get_mut(index)) else { return };
        let Some(ethdev) = &slot.ethdev else { return };
        // SAFETY: both are there, and nobody polls either.
        let failed = unsafe { rte_eth_bond_slave_add(bond, ethdev.number) } != 0;
        if failed {
            slot.last_error = Some(format!("{} cannot be a member beside the others", slot.device));
            slot.retry_at = Instant::now() + RETRY;
            slot.ethdev.take().into_iter().for_each(Ethdev::close);
        } else {
            (slot.last_error, slot.is_halted) = (None, false);
            ethdev.hear_everything();
        }
    }

    fn present(&self) -> impl Iterator<Item = &Ethdev> {
        self.members.iter().filter_map(|slot| slot.ethdev.as_ref())
    }

    /// The NUMA node of its first member.
    pub(super) fn node(&self) -> Option<u32> {
        self.present().next().and_then(Ethdev::node)
    }

    /// Names of its members' drivers.
    pub(super) fn drivers(&self) -> Vec<String> {
        let infos = self.present().filter_map(|ethdev| ethdev.info().ok());
        // SAFETY: a C string of the driver's.
        infos.map(|info| unsafe { static_name(info.driver_name) }).collect()
    }

    /// Whether there is memory for what net_bonding takes by itself. Asked before, since it would not survive to be told no.
    pub(super) fn has_memory(&self, queues: u16, descriptors: u16) -> Result<(), String> {
        if self.mode != BondMode::Lacp {
            return Ok(());
        }
        let each = LACP_BYTES + usize::from(queues) * usize::from(descriptors) * LACP_BYTES_PER_DESCRIPTOR;
        let bytes = self.members.len() * each;
        // SAFETY: EAL runs; what comes is ours, and given back.
        let has = unsafe {
            let block = rte_malloc_socket(std::ptr::null(), bytes, 0, SOCKET_ID_ANY);
            rte_free(block);
            !block.is_null()
        };
        if has {
            return Ok(());
        }
        let mib = bytes.div_ceil(1 << 20);
        Err(format!(
            "no memory for LACP: {} members x {each} bytes = {mib} MiB; raise `nic_memory_mib`",
            self.members.len()
        ))
    }

    /// The bond was started, and its members with it.
    pub(super) fn started(&mut self) -> Result<(), String> {
        for slot in &mut self.members {
            slot.is_halted = false;
            slot.ethdev.iter().for_each(Ethdev::hear_everything);
        }
        // SAFETY: the bond is there.
        let hears = unsafe { rte_eth_promiscuous_get(self.number) } == 1;
        if self.mode == BondMode::Lacp && !hears {
            // net_bonding would drop what is for guests.
            return Err("no member can hear frames that are not for itself; use others".to_owned());
        }
        // Whose cable is in is then of use when the port is.
        self.wait_until(|| self.present().any(|ethdev| self.is_active(ethdev.number)));
        Ok(())
    }

    /// The bond was stopped, and its members with it.
    pub(super) fn stopped(&mut self) {
        self.members.iter_mut().for_each(|slot| slot.is_halted = false);
    }

    /// What a worker is to do for the bond, with its queue of that number.
    pub(super) fn of_queue(&self, queue: u16) -> Bonded {
        let polled = self.members.iter().filter(|slot| !slot.is_halted).filter_map(|slot| slot.ethdev.as_ref());
        Bonded::new(self.mode, self.number, queue, polled.map(|ethdev| ethdev.number).collect())
    }

    /// Its members, as they are.
    pub(super) fn look(&self) -> Vec<Member> {
        let member = |slot: &Slot| Member {
            device: slot.device.clone(),
            state: self.state(slot),
            last_error: slot.last_error.clone(),
        };
        self.members.iter().map(member).collect()
    }

    fn state(&self, slot: &Slot) -> MemberState {
        let Some(ethdev) = &slot.ethdev else { return MemberState::Failed };
        if slot.is_halted || !ethdev.link().0 || !ethdev.interface_is_up() {
            return MemberState::Down;
        }
        match self.mode {
            BondMode::ActiveBackup => {
                // SAFETY: the bond is there.
                let active = unsafe { rte_eth_bond_primary_get(self.number) };
                if active == i32::from(ethdev.number) { MemberState::Active } else { MemberState::Standby }
            }
            BondMode::Lacp => {
                let mut said = rte_eth_bond_8023ad_slave_info::default();
                // SAFETY: both are there, and `said` is ours.
                let known = unsafe { rte_eth_bond_8023ad_slave_info(self.number, ethdev.number, &mut said) } == 0;
                let sends = known && said.actor_state & DISTRIBUTING != 0;
                if sends { MemberState::Active } else { MemberState::Negotiating }
            }
        }
    }

    /// Why it cannot be used any more: when all of its members are gone.
    pub(super) fn gone(&self) -> Option<String> {
        let mut reasons = self.present().map(Ethdev::gone);
        let first = reasons.next()??;
        reasons.all(|reason| reason.is_some()).then(|| format!("all members are gone; the first: {first}"))
    }

    /// What is to be changed. One that is the last with a cable, as far as is known, stays in use when its cable is out.
    pub(super) fn changes(&mut self, now: Instant, eal: &mut Eal) -> Changes {
        let mut changes = Changes::default();
        let up = |slot: &Slot| {
            slot.ethdev.as_ref().is_some_and(|ethdev| ethdev.interface_is_up() && ethdev.gone().is_none())
        };
        let others = self.members.iter().filter(|slot| up(slot)).count();
        for (index, slot) in self.members.iter_mut().enumerate() {
            let change = match &slot.ethdev {
                Some(ethdev) => match (ethdev.gone(), slot.is_halted) {
                    (Some(reason), _) => Some(Change::Lose(reason)),
                    (None, true) => ethdev.interface_is_up().then_some(Change::Resume),
                    (None, false) => {
                        // A driver that sees its cable has said so itself.
                        let is_unseen = !ethdev.interface_is_up() && ethdev.link().0;
                        (is_unseen && others > 0).then_some(Change::Halt)
                    }
                },
                None if now >= slot.retry_at => {
                    *slot = Slot::probe(std::mem::take(&mut slot.device), eal);
                    slot.ethdev.take().map(Change::Join)
                }
                None => None,
            };
            changes.0.extend(change.map(|change| (index, change)));
        }
        changes
    }

    /// Makes changes. No worker has a queue of the bond.
    pub(super) fn change(&mut self, changes: Changes, eal: &mut Eal) {
        for (index, change) in changes.0 {
            let bond = self.number;
            let Some(slot) = self.members.get_mut(index) else { continue };
            match (change, slot.ethdev.take()) {
                (Change::Lose(reason), Some(ethdev)) => {
                    ethdev.stop();
                    // SAFETY: both are there, and nobody polls either.
                    unsafe { rte_eth_bond_slave_remove(bond, ethdev.number) };
                    ethdev.close();
                    (slot.last_error, slot.retry_at) = (Some(reason), Instant::now() + RETRY);
                }
                (Change::Halt, Some(ethdev)) => {
                    ethdev.stop();
                    let number = ethdev.number;
                    (slot.ethdev, slot.is_halted) = (Some(ethdev), true);
                    self.wait_until(|| !self.is_active(number));
                }
                (Change::Resume, Some(ethdev)) => {
                    match ethdev.start() {
                        Ok(()) => (slot.is_halted, slot.last_error) = (false, None),
                        Err(error) => slot.last_error = Some(error),
                    }
                    slot.ethdev = Some(ethdev);
                }
                (Change::Join(ethdev), None) => {
                    slot.ethdev = Some(ethdev);
                    self.add(index);
                }
                (_, ethdev) => slot.ethdev = ethdev,
            }
            eal.forget();
        }
    }

    /// Whether net_bonding takes a member for one whose cable is in.
    fn is_active(&self, number: u16) -> bool {
        let mut active = [0; RTE_MAX_ETHPORTS as usize];
        // SAFETY: the bond is there, and the array has as many places as said.
        let count = unsafe { rte_eth_bond_active_slaves_get(self.number, active.as_mut_ptr(), active.len() as u16) };
        active.get(..count.max(0) as usize).is_some_and(|active| active.contains(&number))
    }

    fn wait_until(&self, is_so: impl Fn() -> bool) {
        let until = Instant::now() + NOTICED;
        while !is_so() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn close_members(&mut self) {
        self.members.iter_mut().filter_map(|slot| slot.ethdev.take()).for_each(Ethdev::close);
    }

    /// Closes the members. The bond itself is closed.
    pub(super) fn close(mut self) {
        self.close_members();
    }
}

impl Slot {
    fn probe(device: String, eal: &mut Eal) -> Self {
        eal.forget();
        let (ethdev, last_error) = match Ethdev::probe(&device) {
            Ok(ethdev) => (Some(ethdev), None),
            Err(error) => (None, Some(eal.explain(&error))),
        };
        Self { device, ethdev, is_halted: false, last_error, retry_at: Instant::now() + RETRY }
    }
}
