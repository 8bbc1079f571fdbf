//! One vhost-user connection: what the front end has said, and the pairs that follow from it.
//!
//! The wire is rust-vmm's `vhost`; this is its back end. Whatever the front end changes of a running ring (its
//! addresses, memory, kicks; not the eventfds that we write to), the pair is first taken back from its worker, quiescent, then
//! built anew from what is known and handed over again: that is here. `vring` is what is known of a virtqueue, `requests` what
//! each message does. A message that makes no sense is an error, and an error ends the connection; nothing else.

mod requests;
mod vring;

use std::io;
use std::sync::Arc;

use vhost::vhost_user::{Error, Result};

use self::vring::{Kick, Vring};
use super::features::Features;
use super::memory::{GuestMemory, Region};
use super::notifier::Eventfd;
use super::pair::{Notifier, Owed, PairId, QueuePair};
use super::port::{PairHost, PairInfo, Port, QUEUE_PAIRS_MAX};
use super::ring::{Direction, Ring, RingAddress, RingError, RingFault};
use super::spare::SparePair;

/// The state of a connection.
pub struct Session {
    port: Arc<Port>,
    host: Arc<dyn PairHost>,
    features: Features,
    regions: Vec<Arc<Region>>,
    memory: Arc<GuestMemory>,
    /// Those of the pairs up to the last that was spoken of: most front ends have few, and a thousand sessions add up.
    vrings: Vec<Vring>,
    /// The front end asked for replies to messages that have none of their own.
    replies: bool,
    /// Which pairs a worker has.
    attached: [bool; QUEUE_PAIRS_MAX as usize],
}

impl Session {
    /// A session with nothing said yet.
    #[must_use]
    pub fn new(port: Arc<Port>, host: Arc<dyn PairHost>) -> Self {
        port.pairs().for_each(|(_, counters)| counters.set_fault(None));
        Self {
            port,
            host,
            features: Features::empty(),
            regions: Vec::new(),
            memory: Arc::default(),
            vrings: Vec::new(),
            replies: false,
            attached: [false; QUEUE_PAIRS_MAX as usize],
        }
    }

    /// Whether VHOST_USER_PROTOCOL_F_REPLY_ACK was negotiated.
    pub(super) fn replies(&self) -> bool {
        self.replies
    }

    /// Why the connection is not to be borne, if so.
    pub(super) fn unbearable(&self) -> Option<String> {
        if self.port.offence.is_committed() {
            return Some("an eventfd was made to block, which held a worker up: the port is shut a while".to_owned());
        }
        let at = self.memory.lost()?.guest;
        Some(format!("guest memory at {at:#x} shrank under us: its file was cut off, or its file system is full"))
    }

    /// The connection is gone: takes every pair back, and the guest's memory with them.
    pub fn end(&mut self) {
        for index in 0..QUEUE_PAIRS_MAX {
            self.stop_pair(index);
            self.port.set_spare(index, None);
        }
        self.port.set_pairs_offered(0);
        self.host.forget(self.port.id);
    }

    fn vring(&mut self, index: u32) -> Result<&mut Vring> {
        if index >= u32::from(QUEUE_PAIRS_MAX) * 2 {
            return Err(Error::InvalidParam);
        }
        let index = index as usize;
        if index >= self.vrings.len() {
            self.vrings.resize_with((index | 1) + 1, Vring::default);
            self.port.set_pairs_offered(self.vrings.len() / 2);
        }
        self.vrings.get_mut(index).ok_or(Error::InvalidParam)
    }

    /// Changes something of the virtqueue `index` while no worker has its pair.
    fn change(&mut self, index: u32, change: impl FnOnce(&mut Vring) -> Result<()>) -> Result<()> {
        self.vring(index)?;
        let pair = (index / 2) as u16;
        self.stop_pair(pair);
        let changed = change(self.vring(index)?);
        self.start_pair(pair)?;
        changed
    }

    /// Uses another eventfd for the virtqueue `index`, in place: what runs goes on.
    fn set_notifier(&mut self, index: u8, notifier: Notifier, fd: Option<Eventfd>) -> Result<()> {
        let vring = self.vring(index.into())?;
        match notifier {
            Notifier::Call => (vring.call, vring.call_is_new) = (fd.clone(), true),
            Notifier::Error => vring.error = fd.clone(),
        }
        if self.attached[usize::from(index / 2)] {
            let ring = if index.is_multiple_of(2) { Direction::Writable } else { Direction::Readable };
            let id = PairId { port: self.port.id, index: (index / 2).into() };
            self.host.set_notifier(id, ring, notifier, fd);
        }
        Ok(())
    }

    /// Changes something of all of them.
    fn change_all(&mut self, change: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        for index in 0..QUEUE_PAIRS_MAX {
            self.stop_pair(index);
        }
        change(self)?;
        (0..QUEUE_PAIRS_MAX).try_for_each(|index| self.start_pair(index))
    }

    /// Takes a pair back from its worker and keeps where its rings stand.
    fn stop_pair(&mut self, index: u16) {
        let slot = usize::from(index);
        if !std::mem::take(&mut self.attached[slot]) {
            return;
        }
        let pair = self.host.detach(PairId { port: self.port.id, index });
        self.port.set_running(index, None);
        let Some(pair) = pair else { return };
        // A rule that was broken ends the pair, also that half of it which did not run; but not one that was reset.
        let broken = pair.counters.fault().map(|_| RingFault::PairBroken);
        let rings = [(slot * 2, pair.receiveq), (slot * 2 + 1, pair.transmitq)];
        for (vring, ring) in rings {
            let vring = &mut self.vrings[vring];
            if !matches!(vring.kick, Kick::Stopped) {
                vring.fault = vring.fault.or(ring.as_ref().and_then(Ring::fault)).or(broken);
            }
            if let Some(ring) = ring {
                vring.base = ring.base();
            }
        }
    }

    /// Hands a pair to a worker if at least one of its rings is ready. A receiveq that is disabled is left alone; a disabled
    /// transmitq is drained.
    fn start_pair(&mut self, index: u16) -> Result<()> {
        let slot = usize::from(index);
        if slot * 2 >= self.vrings.len() {
            return Ok(());
        }
        self.port.set_spare(index, self.spare(index));
        let receiveq = if self.is_enabled(slot * 2) { self.ring(slot * 2, Direction::Writable)? } else { None };
        let transmitq = self.ring(slot * 2 + 1, Direction::Readable)?;
        let discards = !self.is_enabled(slot * 2 + 1);
        if receiveq.is_none() && transmitq.is_none() {
            return Ok(());
        }
        if self.port.offence.is_committed() {
            return Err(refuse("an eventfd was made to block".to_owned()));
        }
        let size = |ring: &Option<Ring>| ring.as_ref().map_or(0, Ring::size);
        let info = PairInfo {
            packed: self.features.contains(Features::RING_PACKED),
            receiveq_size: size(&receiveq),
            transmitq_size: if discards { 0 } else { size(&transmitq) },
        };
        let enabled = receiveq.is_some() || !discards;
        let transmit_vring = &self.vrings[slot * 2 + 1];
        let kick = match &transmit_vring.kick {
            Kick::By(fd) => Some(fd.clone()),
            Kick::Stopped | Kick::Polled => None,
        };
        let broken = self.port.fault(index).map(|_| RingFault::PairBroken);
        let mut pair = QueuePair {
            id: PairId { port: self.port.id, index },
            transmitq,
            receiveq,
            counters: self.port.counters(index),
            memory: self.memory.clone(),
            features: self.features,
            mtu: self.port.mtu,
            limit_out: None,
            discards,
            kick,
            flood_begun: None,
            last_receiver: u16::MAX,
            is_armed: false,
            owed: Owed::default(),
        };
        if let Some(broken) = broken {
            // One ring of it was reset and the other was not.
            [&mut pair.receiveq, &mut pair.transmitq].into_iter().flatten().for_each(|ring| ring.set_fault(broken));
        }
        pair.begin();
        if !self.host.attach(pair) {
            if !enabled {
                tracing::debug!(
                    "port {}: queue pair {index} is disabled, and too many such are drained already",
                    self.port.name
                );
                return Ok(());
            }
            let why = format!("no worker has room for queue pair {index}: it waits until its port changes");
            tracing::warn!("port {}: {why}", self.port.name);
            self.port.set_last_error(Some(why));
            return Ok(());
        }
        self.port.set_running(index, enabled.then_some(info));
        self.attached[slot] = true;
        Ok(())
    }

    /// What lies idle with a pair, if it is set up and wholly disabled.
    fn spare(&self, index: u16) -> Option<SparePair> {
        let slot = usize::from(index) * 2;
        let rings = self.vrings.get(slot..slot + 2)?;
        // Of one pair there is nothing that the guest could enable.
        if self.vrings.len() <= 2
            || rings.iter().any(|ring| ring.size == 0 || ring.areas.is_none())
            || self.is_enabled(slot)
            || self.is_enabled(slot + 1)
        {
            return None;
        }
        let is_packed = self.features.contains(Features::RING_PACKED);
        // Descriptors and the two other areas (virtio 1.2, sections 2.7 and 2.8).
        let bytes =
            |ring: &Vring| if is_packed { 16 * u64::from(ring.size) + 8 } else { 26 * u64::from(ring.size) + 12 };
        let (mut buffers, mut buffer_bytes) = (0, 0);
        if let [Vring { size, areas: Some([descriptors, driver, device]), base, fault: None, .. }, _] = *rings {
            let address = RingAddress { size, descriptors, driver, device };
            let ring = Ring::new(self.features, Direction::Writable, address, base, &self.memory, None);
            if let Ok(mut ring) = ring {
                (buffers, buffer_bytes) = ring.count_available(&self.memory);
            }
        }
        Some(SparePair { index, ring_bytes: rings.iter().map(bytes).sum(), buffers, buffer_bytes })
    }

    /// Whether a virtqueue is enabled. Without protocol features there is no message that would do it: then all are.
    fn is_enabled(&self, index: usize) -> bool {
        self.vrings[index].enabled || !self.features.contains(Features::PROTOCOL_FEATURES)
    }

    /// The ring of a virtqueue, if all is known of it and it was started.
    ///
    /// It is started by SET_VRING_KICK itself, not by the first kick, as in libvhost-user and DPDK: a driver that was asked
    /// not to kick, by whoever served the ring before, never would.
    fn ring(&mut self, index: usize, direction: Direction) -> Result<Option<Ring>> {
        let vring = &self.vrings[index];
        let Some([descriptors, driver, device]) = vring.areas else { return Ok(None) };
        if vring.size == 0 || self.regions.is_empty() || matches!(vring.kick, Kick::Stopped) {
            return Ok(None);
        }
        let (call, error) = (vring.call.clone(), vring.error.clone());
        let address = RingAddress { size: vring.size, descriptors, driver, device };
        let mut ring = match Ring::new(self.features, direction, address, vring.base, &self.memory, call) {
            Ok(ring) => ring,
            // A front end changes its memory in several messages: what is not there now may be with the next one.
            Err(error @ RingError::Area(_)) => {
                let why = format!("virtqueue {index} waits: {error}");
                tracing::debug!("port {}: {why}", self.port.name);
                self.port.set_last_error(Some(why));
                self.vrings[index].waits = true;
                return Ok(None);
            }
            Err(error) => return Err(refuse(format!("virtqueue {index}: {error}"))),
        };
        if let Some(fault) = vring.fault {
            ring.set_fault(fault);
        }
        ring.set_error(error);
        if std::mem::take(&mut self.vrings[index].call_is_new) {
            ring.set_call_is_new();
        }
        if std::mem::take(&mut self.vrings[index].waits) && !self.vrings.iter().any(|vring| vring.waits) {
            self.port.set_last_error(None);
        }
        Ok(Some(ring))
    }

    /// Once the guest has reset all rings of a pair that were broken, it is a pair like any other.
    fn forgive(&self, index: u16) {
        let slot = usize::from(index) * 2;
        if self.vrings.iter().skip(slot).take(2).all(|vring| vring.fault.is_none()) {
            self.port.forgive(index);
        }
    }
}

fn refuse(why: String) -> Error {
    Error::ReqHandlerError(io::Error::other(why))
}
