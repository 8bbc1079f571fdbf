//! The vhost-user messages, one by one: what each changes of a session.

use std::fs::File;
use std::sync::Arc;

use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight, VhostUserLog,
    VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};

use super::super::features::Features;
use super::super::memory::{GuestMemory, MemoryError, REGIONS_MAX, Region, RegionAddress, affordable};
use super::super::notifier::{Eventfd, eventfd};
use super::super::pair::Notifier;
use super::super::port::QUEUE_PAIRS_MAX;
use super::super::ring::RING_SIZE_MAX;
use super::vring::Kick;
use super::{Session, refuse};

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

impl Session {
    /// An eventfd for workers to ring.
    fn to_be_rung(&self, file: Option<File>) -> Result<Option<Eventfd>> {
        let fd = file.map(eventfd).transpose().map_err(Error::ReqHandlerError)?;
        Ok(fd.map(|fd| Eventfd::new(fd, &self.port.offence)))
    }

    /// Shares another table of memory.
    fn set_regions(&mut self, regions: Vec<Arc<Region>>) -> Result<()> {
        self.change_all(|session| {
            session.memory = Arc::new(GuestMemory::new(regions.clone()).map_err(memory_error)?);
            session.port.set_memory(&session.memory);
            session.regions = regions;
            Ok(())
        })
    }
}

impl VhostUserBackendReqHandlerMut for Session {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.change_all(|session| {
            session.vrings.clear();
            session.port.set_pairs_offered(0);
            (0..QUEUE_PAIRS_MAX).for_each(|index| session.port.set_spare(index, None));
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
            .filter(|&size| size != 0 && size <= RING_SIZE_MAX && (packed || size.is_power_of_two()));
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
            Some(file) => Kick::By(Arc::new(eventfd(file).map_err(Error::ReqHandlerError)?)),
            None => Kick::Polled,
        };
        self.change(index.into(), |vring| {
            vring.kick = kick;
            Ok(())
        })
    }

    fn set_vring_call(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let call = self.to_be_rung(file)?;
        self.set_notifier(index, Notifier::Call, call)
    }

    fn set_vring_err(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let error = self.to_be_rung(file)?;
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
