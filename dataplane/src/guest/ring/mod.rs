//! A virtqueue seen from the device: take chains of descriptors, give them back used.
//!
//! One idea, two layouts. What does not depend on the layout (bounds, faults, interrupts) is here and
//! in `chain`; `packed` and `split` know how chains are found in shared memory and how used ones are
//! published (virtio 1.2, sections 2.8 and 2.7). No policy here: what is in the frames is somebody else's.
//!
//! A ring gives every chain back in the order taken and holds none between bursts, so "next available" and
//! "next used" are one position then.

mod chain;
mod fault;
mod packed;
mod shared;
mod split;

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

pub use chain::{Chain, ChainList, SEGMENTS_MAX, Unread};
pub use fault::RingFault;
pub use packed::PackedRing;
pub use split::SplitRing;

use super::features::Features;
use super::memory::GuestMemory;
use super::notifier::{Eventfd, Rung};
use crate::cpu::timestamp;

/// The largest queue that virtio allows, split or packed.
pub const RING_SIZE_MAX: u16 = 32768;

/// The most frames taken from a transmitq at a time.
pub const BURST: usize = 32;

/// The most chains of a receiveq that one burst may fill: a frame of 64 KiB in buffers of 512 bytes.
pub const CHAINS_MAX: usize = 128;

/// Who may write to the buffers of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// A transmitq: the device only reads.
    Readable,
    /// A receiveq: the device only writes.
    Writable,
}

/// A chain to give back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// Bytes written into its buffers; 0 on a transmitq.
    pub len: u32,
    /// The chain's buffer id.
    pub id: u16,
    /// How many ring slots it took.
    pub slots: u16,
}

/// Where the three areas of a virtqueue lie and how large it is; everything a front end says of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingAddress {
    /// Descriptors.
    pub size: u16,
    /// Descriptor area, in the front end's addresses.
    pub descriptors: u64,
    /// Driver area: the available ring, or the driver's event structure.
    pub driver: u64,
    /// Device area: the used ring, or the device's event structure.
    pub device: u64,
}

/// Why a ring cannot be set up.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RingError {
    /// The size is zero, too large, or not a power of two on a split ring.
    #[error("ring size {0} is not 1 to 32768, or not a power of two on a split ring")]
    Size(u16),
    /// The position to start from is not in the ring.
    #[error("base {index} is beyond a ring of {size} descriptors")]
    Base {
        /// The position.
        index: u16,
        /// Descriptors of the ring.
        size: u16,
    },
    /// An area is not wholly inside one memory region, or not aligned as its layout wants.
    #[error("the {0} area is outside the guest's memory or not aligned")]
    Area(&'static str),
}

#[derive(Debug)]
enum Layout {
    Packed(PackedRing),
    Split(SplitRing),
}

/// One virtqueue in use.
#[derive(Debug)]
pub struct Ring {
    layout: Layout,
    fault: Option<RingFault>,
    call: Option<Eventfd>,
    /// The eventfd for interrupts is new: what was published before went to another.
    call_is_new: bool,
    error: Option<Eventfd>,
    // Keeps mapped what the layout's pointers point into.
    _memory: Arc<GuestMemory>,
}

impl Ring {
    /// A ring at `address` in `memory`, standing at `base` as SET_VRING_BASE encodes it, with what was negotiated of
    /// RING_PACKED, EVENT_IDX and IN_ORDER. `call` is the eventfd that interrupts the guest, `None` for a guest that polls.
    pub fn new(
        features: Features,
        direction: Direction,
        address: RingAddress,
        base: u32,
        memory: &Arc<GuestMemory>,
        call: Option<Eventfd>,
    ) -> Result<Self, RingError> {
        let layout = if features.contains(Features::RING_PACKED) {
            Layout::Packed(PackedRing::new(features, direction, address, base, memory)?)
        } else {
            Layout::Split(SplitRing::new(features, direction, address, base, memory)?)
        };
        Ok(Self { layout, fault: None, call, call_is_new: false, error: None, _memory: memory.clone() })
    }

    /// Interrupts the guest by this eventfd from now on; the one before.
    pub fn set_call(&mut self, call: Option<Eventfd>) -> Option<Eventfd> {
        self.call_is_new = true;
        std::mem::replace(&mut self.call, call)
    }

    /// Tells the front end by this eventfd from now on that the ring is broken; the one before.
    pub fn set_error(&mut self, error: Option<Eventfd>) -> Option<Eventfd> {
        std::mem::replace(&mut self.error, error)
    }

    /// Marks the eventfd for interrupts as new.
    pub fn set_call_is_new(&mut self) {
        self.call_is_new = true;
    }

    /// Rings a new eventfd for interrupts once. What was published before was told to an old one, to which nobody may listen
    /// any more: one interrupt too many is allowed, one too few is not.
    pub fn greet(&mut self) {
        if std::mem::take(&mut self.call_is_new)
            && let Some(call) = &self.call
            && call.ring() == Rung::Blocks
        {
            self.set_fault(RingFault::InterruptBlocks);
        }
    }

    /// Tells the front end that the ring is broken.
    pub fn tell_error(&self) {
        if let Some(error) = &self.error {
            error.ring();
        }
    }

    /// Takes up to `want` chains more into `list`. A descriptor that breaks the rules ends the ring: the chains
    /// before it are still good, nothing is taken any more, and [`Ring::fault`] tells.
    #[inline]
    pub fn take<'m>(&mut self, memory: &'m GuestMemory, want: usize, list: &mut ChainList<'m>) {
        if self.fault.is_some() {
            return;
        }
        let taken = match &mut self.layout {
            Layout::Packed(ring) => ring.take(memory, want, list),
            Layout::Split(ring) => ring.take(memory, want, list),
        };
        if let Err(fault) = taken {
            self.fault = Some(fault);
        }
    }

    /// Gives chains back, in the order they were taken, and shows them to the driver all at once. The one place
    /// where used entries are written.
    ///
    /// With IN_ORDER, a transmitq's are acknowledged by one entry for all, with the id of the last (sections 2.7.9 and
    /// 2.8.10). On a receiveq a chain without an entry would count as wholly written, so each has its own.
    #[inline]
    pub fn publish(&mut self, used: impl Iterator<Item = Used>) {
        match &mut self.layout {
            Layout::Packed(ring) => ring.publish(used),
            Layout::Split(ring) => ring.publish(used),
        }
    }

    /// Forgets what was taken and not published: it will be taken again.
    #[inline]
    pub fn rewind(&mut self) {
        match &mut self.layout {
            Layout::Packed(ring) => ring.rewind(),
            Layout::Split(ring) => ring.rewind(),
        }
    }

    /// Chains that wait, and the bytes of their buffers, of a ring that nobody uses: it stands where it stood afterwards. A driver
    /// that goes on making chains available is not waited for.
    #[must_use]
    pub fn count_available(&mut self, memory: &GuestMemory) -> (u32, u64) {
        let (mut chains, mut bytes) = (0, 0);
        // Not on the stack, which each session's thread would keep.
        let mut list = Box::new(ChainList::new());
        while chains < u32::from(self.size()) {
            list.clear();
            self.take(memory, BURST, &mut list);
            if list.chains.is_empty() {
                break;
            }
            chains += list.chains.len() as u32;
            bytes += list.chains.iter().map(|chain| u64::from(chain.len)).sum::<u64>();
        }
        self.rewind();
        (chains, bytes)
    }

    /// Whether a chain waits to be taken.
    #[must_use]
    pub fn has_available(&self) -> bool {
        self.fault.is_none()
            && match &self.layout {
                Layout::Packed(ring) => ring.has_available(),
                Layout::Split(ring) => ring.has_available(),
            }
    }

    /// Whether the driver is known to have seen all that was published: it has used all its slots anew, or it waits for the next one.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        match &self.layout {
            Layout::Packed(ring) => ring.is_drained(),
            Layout::Split(ring) => ring.is_drained(),
        }
    }

    /// Asks the driver to kick when it makes chains available, or not to bother; to be called between bursts. After asking,
    /// look once more before sleeping: what came in between was not kicked.
    pub fn set_kicks(&mut self, wanted: bool) {
        match &mut self.layout {
            Layout::Packed(ring) => ring.set_kicks(wanted),
            Layout::Split(ring) => ring.set_kicks(wanted),
        }
        // The driver must see this before we look at what is available.
        fence(Ordering::SeqCst);
    }

    /// Interrupts the guest if it asks for that; at most once for what was published since the last time. Whether it was
    /// interrupted. With EVENT_IDX the guest asks for a position: it is interrupted when what was published since the last
    /// time reaches beyond.
    ///
    /// Between publishing and this there must be a full fence ([`Ordering::SeqCst`]): the driver must see the used
    /// entries before we look at what it wants, or a wake-up is lost. The caller makes one fence do for several rings.
    ///
    /// Adds to `ticks` how long the system call took, if there was one.
    #[inline]
    pub fn interrupt(&mut self, ticks: &mut u64) -> bool {
        let wanted = match &mut self.layout {
            Layout::Packed(ring) => ring.wants_interrupt(),
            Layout::Split(ring) => ring.wants_interrupt(),
        };
        let Some(call) = self.call.as_ref().filter(|_| wanted) else { return false };
        let begun = timestamp();
        let rung = call.ring();
        *ticks += timestamp().wrapping_sub(begun);
        if rung == Rung::Blocks {
            self.set_fault(RingFault::InterruptBlocks);
        }
        rung == Rung::Now
    }

    /// The rule that the driver broke, if it did.
    #[must_use]
    pub fn fault(&self) -> Option<RingFault> {
        self.fault
    }

    /// Breaks the ring for a reason found outside it.
    pub fn set_fault(&mut self, fault: RingFault) {
        self.fault.get_or_insert(fault);
    }

    /// Where it stands, as GET_VRING_BASE encodes it.
    #[must_use]
    pub fn base(&self) -> u32 {
        match &self.layout {
            Layout::Packed(ring) => ring.base(),
            Layout::Split(ring) => ring.base(),
        }
    }

    /// Descriptors.
    #[must_use]
    pub fn size(&self) -> u16 {
        match &self.layout {
            Layout::Packed(ring) => ring.size(),
            Layout::Split(ring) => ring.size(),
        }
    }
}

fn area(memory: &GuestMemory, name: &'static str, user: u64, len: usize, align: u64) -> Result<NonNull<u8>, RingError> {
    memory.user_range(user, len as u64, align).ok_or(RingError::Area(name))
}
