//! One vhost-user connection: what the front end has said, and the pairs that follow from it.
//!
//! The wire is rust-vmm's `vhost`; this is its back end. Whatever the front end changes of a running ring (its
//! addresses, memory, kicks; not the eventfds that we write to), the pair is first taken back from its worker, quiescent, then built anew from what is
//! known and handed over again. A message that makes no sense is an error, and an error ends the connection; nothing else.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight, VhostUserLog,
    VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};

use super::features::Features;
use super::memory::{GuestMemory, MemoryError, REGIONS_MAX, Region, RegionAddress, affordable};
use super::notifier::{Eventfd, eventfd};
use super::pair::{Notifier, Owed, PairId, QueuePair};
use super::port::{PairHost, PairInfo, Port, QUEUE_PAIRS_MAX};
use super::ring::{Direction, Ring, RingAddress, RingError, RingFault};

/// What the front end has said of one virtqueue.
#[derive(Debug, Default)]
struct Vring {
    size: u16,
    /// Descriptor, driver and device area in the front end's addresses.
    areas: Option<[u64; 3]>,
    base: u32,
    kick: Kick,
    call: Option<OwnedFd>,
    /// It was not rung yet.
    call_is_new: bool,
    error: Option<OwnedFd>,
    enabled: bool,
    /// The rule that was broken in it, since it was last set up.
    fault: Option<RingFault>,
    /// It would run if its areas were in the guest's memory.
    waits: bool,
}

/// How a ring is kicked.
#[derive(Debug, Default)]
enum Kick {
    /// Not told yet, or stopped since: the ring does not run.
    #[default]
    Stopped,
    /// By this eventfd.
    By(OwnedFd),
    /// Not at all: it is to be polled.
    Polled,
}

/// The state of a connection.
pub struct Session {
    port: Arc<Port>,
    host: Arc<dyn PairHost>,
    features: Features,
    regions: Vec<Arc<Region>>,
    memory: Arc<GuestMemory>,
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
            vrings: (0..QUEUE_PAIRS_MAX * 2).map(|_| Vring::default()).collect(),
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
        }
        self.host.forget(self.port.id);
    }

    fn vring(&mut self, index: u32) -> Result<&mut Vring> {
        self.vrings.get_mut(index as usize).ok_or(Error::InvalidParam)
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
    fn set_notifier(&mut self, index: u8, notifier: Notifier, fd: Option<OwnedFd>) -> Result<()> {
        let shared = self.shared(fd.as_ref())?;
        let vring = self.vring(index.into())?;
        match notifier {
            Notifier::Call => (vring.call, vring.call_is_new) = (fd, true),
            Notifier::Error => vring.error = fd,
        }
        if self.attached[usize::from(index / 2)] {
            let ring = if index.is_multiple_of(2) { Direction::Writable } else { Direction::Readable };
            let id = PairId { port: self.port.id, index: (index / 2).into() };
            self.host.set_notifier(id, ring, notifier, shared);
        }
        Ok(())
    }

    /// A copy of an eventfd, for a worker to ring.
    fn shared(&self, fd: Option<&OwnedFd>) -> Result<Option<Eventfd>> {
        let copy = fd.map(OwnedFd::try_clone).transpose().map_err(Error::ReqHandlerError)?;
        Ok(copy.map(|fd| Eventfd::new(fd, &self.port.offence)))
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
        let receiveq = if self.vrings[slot * 2].enabled { self.ring(slot * 2, Direction::Writable)? } else { None };
        let transmitq = self.ring(slot * 2 + 1, Direction::Readable)?;
        let discards = !self.vrings[slot * 2 + 1].enabled;
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
            Kick::By(fd) => Some(fd.try_clone().map_err(Error::ReqHandlerError)?),
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
            last_receiver: u16::MAX,
            owed: Owed::default(),
        };
        if let Some(broken) = broken {
            // One ring of it was reset and the other was not.
            [&mut pair.receiveq, &mut pair.transmitq].into_iter().flatten().for_each(|ring| ring.set_fault(broken));
        }
        pair.begin();
        if !self.host.attach(pair) {
            let why = format!("no worker has room for queue pair {index}: it waits until its port changes");
            tracing::warn!("port {}: {why}", self.port.name);
            self.port.set_last_error(Some(why));
            return Ok(());
        }
        self.port.set_running(index, enabled.then_some(info));
        self.attached[slot] = true;
        Ok(())
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
        let (call, error) = (self.shared(vring.call.as_ref())?, self.shared(vring.error.as_ref())?);
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
        if self.vrings[slot..slot + 2].iter().all(|vring| vring.fault.is_none()) {
            self.port.forgive(index);
        }
    }

    fn set_regions(&mut self, regions: Vec<Arc<Region>>) -> Result<()> {
        self.change_all(|session| {
            session.memory = Arc::new(GuestMemory::new(regions.clone()).map_err(memory_error)?);
            session.port.set_memory(&session.memory);
            session.regions = regions;
            Ok(())
        })
    }
}

fn refuse(why: String) -> Error {
    Error::ReqHandlerError(io::Error::other(why))
}

fn memory_error(error: MemoryError) -> Error {
    refuse(error.to_string())
}

fn region_address(region: &VhostUserMemoryRegion) -> RegionAddress {
    RegionAddress {
        guest: region.guest_phys_addr,
        len: region.memory_size,
        user: region.user_addr,
        file_offset: region.mmap_offset,
    }
}

const PROTOCOL_FEATURES: VhostUserProtocolFeatures = VhostUserProtocolFeatures::MQ
    .union(VhostUserProtocolFeatures::REPLY_ACK)
    .union(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS);

type Base = vhost::VhostUserMemoryRegionBase;

impl VhostUserBackendReqHandlerMut for Session {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.change_all(|session| {
            session.vrings.fill_with(Vring::default);
            (0..QUEUE_PAIRS_MAX).for_each(|index| session.forgive(index));
            Ok(())
        })
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(self.port.offered.bits())
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        let unknown = features & !self.port.offered.bits();
        if unknown != 0 {
            return Err(refuse(format!("the front end takes features that were not offered: {unknown:#x}")));
        }
        // QEMU says it again for each queue pair; what runs is not to be disturbed for that.
        if features == self.features.bits() && self.features.contains(Features::PROTOCOL_FEATURES) {
            return Ok(());
        }
        self.change_all(|session| {
            session.features = Features::from_bits_truncate(features);
            session.port.set_negotiated(session.features);
            // Without protocol features there is no message that would enable a ring.
            if !session.features.contains(Features::PROTOCOL_FEATURES) {
                session.vrings.iter_mut().for_each(|vring| vring.enabled = true);
            }
            Ok(())
        })
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(PROTOCOL_FEATURES)
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        if features & !PROTOCOL_FEATURES.bits() != 0 {
            return Err(refuse(format!("the front end takes protocol features that were not offered: {features:#x}")));
        }
        self.replies = features & VhostUserProtocolFeatures::REPLY_ACK.bits() != 0;
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(u64::from(QUEUE_PAIRS_MAX))
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> Result<Option<Vec<Base>>> {
        affordable(regions.iter().map(|region| region.memory_size)).map_err(memory_error)?;
        let map =
            |(region, file): (&VhostUserMemoryRegion, &File)| Region::map(region_address(region), file).map(Arc::new);
        let regions = regions.iter().zip(&files).map(map).collect::<std::result::Result<_, _>>();
        self.set_regions(regions.map_err(memory_error)?)?;
        Ok(None)
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(REGIONS_MAX as u64)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _postcopy: Option<bool>,
    ) -> Result<Option<Base>> {
        // QEMU 7.2 adds a region once for each queue pair.
        affordable([region.memory_size].into_iter()).map_err(memory_error)?;
        let region = Region::map(region_address(region), &file).map_err(memory_error)?;
        if self.regions.iter().any(|known| known.is_same(&region)) {
            return Ok(None);
        }
        let mut regions = self.regions.clone();
        regions.push(Arc::new(region));
        self.set_regions(regions)?;
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        let address = region_address(region);
        // The file offset does not count: front ends leave it out.
        let same =
            |other: RegionAddress| (other.guest, other.len, other.user) == (address.guest, address.len, address.user);
        let mut regions = self.regions.clone();
        regions.retain(|region| !same(region.address()));
        // As it is added for each queue pair, it is removed for each: gone already is as good as removed.
        if regions.len() == self.regions.len() { Ok(()) } else { self.set_regions(regions) }
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        let packed = self.features.contains(Features::RING_PACKED);
        let size = u16::try_from(num)
            .ok()
            .filter(|&size| size != 0 && size <= super::ring::RING_SIZE_MAX && (packed || size.is_power_of_two()));
        let size = size.ok_or_else(|| refuse(format!("virtqueue {index} cannot have {num} descriptors")))?;
        self.change(index, |vring| {
            vring.size = size;
            Ok(())
        })
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        self.change(index, |vring| {
            vring.areas = Some([descriptor, available, used]);
            Ok(())
        })
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        self.change(index, |vring| {
            vring.base = base;
            Ok(())
        })
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        // Stops the ring: it runs again when it is set up anew.
        let pair = (index / 2) as u16;
        self.vring(index)?;
        self.stop_pair(pair);
        let vring = self.vring(index)?;
        vring.kick = Kick::Stopped;
        vring.areas = None;
        vring.fault = None;
        vring.waits = false;
        self.forgive(pair);
        self.start_pair(pair)?;
        Ok(VhostUserVringState::new(index, self.vring(index)?.base))
    }

    fn set_vring_kick(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let kick = match file {
            Some(file) => Kick::By(eventfd(file).map_err(Error::ReqHandlerError)?),
            None => Kick::Polled,
        };
        self.change(index.into(), |vring| {
            vring.kick = kick;
            Ok(())
        })
    }

    fn set_vring_call(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let call = file.map(eventfd).transpose().map_err(Error::ReqHandlerError)?;
        self.set_notifier(index, Notifier::Call, call)
    }

    fn set_vring_err(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let error = file.map(eventfd).transpose().map_err(Error::ReqHandlerError)?;
        self.set_notifier(index, Notifier::Error, error)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        if self.vring(index)?.enabled == enable {
            return Ok(());
        }
        self.change(index, |vring| {
            vring.enabled = enable;
            Ok(())
        })
    }

    // What follows belongs to protocol features that are not offered.

    fn reset_device(&mut self) -> Result<()> {
        Err(not_offered())
    }

    fn get_config(&mut self, _offset: u32, _size: u32, _flags: VhostUserConfigFlags) -> Result<Vec<u8>> {
        Err(not_offered())
    }

    fn set_config(&mut self, _offset: u32, _buf: &[u8], _flags: VhostUserConfigFlags) -> Result<()> {
        Err(not_offered())
    }

    fn set_gpu_socket(&mut self, _gpu_backend: GpuBackend) -> Result<()> {
        Err(not_offered())
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> Result<File> {
        Err(not_offered())
    }

    fn get_inflight_fd(&mut self, _inflight: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        Err(not_offered())
    }

    fn set_inflight_fd(&mut self, _inflight: &VhostUserInflight, _file: File) -> Result<()> {
        Err(not_offered())
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _fd: File,
    ) -> Result<Option<File>> {
        Err(not_offered())
    }

    fn check_device_state(&mut self) -> Result<()> {
        Err(not_offered())
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Err(not_offered())
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> Result<()> {
        Err(not_offered())
    }
}

fn not_offered() -> Error {
    Error::InvalidOperation("it needs a protocol feature that was not offered")
}
