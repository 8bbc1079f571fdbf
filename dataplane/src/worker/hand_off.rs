//! From one worker to another: a bounded ring of frames, for a receiver whose queue another worker owns. The two-copy path.
//!
//! One sender, one receiver, slots of the largest frame, in memory made at the start. The slots are a [`GuestMemory`]
//! of our own, so that a frame handed over is a chain like any other and walks the same way out.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam::utils::CachePadded;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use crate::guest::memory::{GuestMemory, MemoryError, Region, RegionAddress};
use crate::guest::ring::{BURST, ChainList, Unread};
use crate::guest::{FRAME_LEN_MAX, Frames};

/// Frames that may wait between two workers.
const SLOTS: usize = 256;

/// Visits in which a full ring is emptied for certain, however large the frames: each takes one at least.
pub(super) const HAND_OFF_VISITS: usize = SLOTS;

/// Bytes of the virtio-net header in front of each frame. It says what of the frame is left to be done, in the switch's own
/// words; whether that is done here or by the receiver, the receiver's worker decides.
pub(super) const HEADER_LEN: usize = 12;

/// Bytes of a slot: the largest frame and its header, in whole cache lines. So a frame of 64 KiB takes one slot, too. Pages
/// of a slot that are never used take no memory.
const STRIDE: u64 = (HEADER_LEN as u64 + FRAME_LEN_MAX as u64).next_multiple_of(64);

#[derive(Debug)]
struct Shared {
    memory: GuestMemory,
    /// By slot: the length of header and frame below, its receiver's slot above.
    frames: Box<[AtomicU64]>,
    /// Frames ever sent.
    sent: CachePadded<AtomicUsize>,
    /// Frames ever received.
    received: CachePadded<AtomicUsize>,
}

/// The sending end.
#[derive(Debug)]
pub(super) struct HandOffSender {
    shared: Arc<Shared>,
    hint: usize,
}

/// The receiving end.
#[derive(Debug)]
pub(super) struct HandOffReceiver {
    shared: Arc<Shared>,
}

/// A ring, as its two ends.
pub(super) fn hand_off() -> std::io::Result<(HandOffSender, HandOffReceiver)> {
    let len = STRIDE * SLOTS as u64;
    let file = memfd_create("ringway-hand-off", MemfdFlags::CLOEXEC)?;
    ftruncate(&file, len)?;
    let address = RegionAddress { guest: 0, len, user: 0, file_offset: 0 };
    let memory = Region::map(address, &File::from(file)).and_then(|region| GuestMemory::new(vec![Arc::new(region)]));
    let shared = Arc::new(Shared {
        memory: memory.map_err(|error: MemoryError| std::io::Error::other(error))?,
        frames: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
        sent: CachePadded::default(),
        received: CachePadded::default(),
    });
    Ok((HandOffSender { shared: shared.clone(), hint: 0 }, HandOffReceiver { shared }))
}

impl HandOffSender {
    /// Frames that there is room for.
    pub(super) fn room(&self) -> usize {
        let sent = self.shared.sent.load(Ordering::Relaxed);
        SLOTS.saturating_sub(sent.wrapping_sub(self.shared.received.load(Ordering::Acquire)))
    }

    /// Copies a frame into the ring, for the pair in `slot` of the receiving worker. Bytes copied, or `None` if the
    /// ring is full.
    pub(super) fn send(&mut self, frames: Frames<'_, '_>, index: usize, slot: u16) -> Option<usize> {
        let Self { shared, hint } = self;
        let sent = shared.sent.load(Ordering::Relaxed);
        if sent.wrapping_sub(shared.received.load(Ordering::Acquire)) >= SLOTS {
            return None;
        }
        let (at, len) = (sent % SLOTS, *frames.lens.get(index)? + HEADER_LEN as u32);
        let room = shared.memory.segment(hint, at as u64 * STRIDE, len)?;
        room.write_unless_equal(frames.header(index).to_bytes(1));
        let copied = frames.copy_to::<true>(index, room.from_offset(HEADER_LEN));
        shared.frames[at].store(u64::from(len) | u64::from(slot) << 32, Ordering::Relaxed);
        shared.sent.store(sent.wrapping_add(1), Ordering::Release);
        Some(copied)
    }
}

impl HandOffReceiver {
    /// The memory that received frames are in.
    pub(super) fn memory(&self) -> &GuestMemory {
        &self.shared.memory
    }

    /// Whether a frame waits.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.shared.sent.load(Ordering::Acquire) == self.shared.received.load(Ordering::Relaxed)
    }

    /// Takes up to a burst of frames into `list`, and their receivers' slots into `slots`. They stay in the ring until
    /// [`HandOffReceiver::release`].
    pub(super) fn take<'a, 'm>(
        &self,
        memory: &'m GuestMemory,
        list: &'a mut ChainList<'m>,
        slots: &mut [u16; BURST],
    ) -> Unread<'a, 'm> {
        let received = self.shared.received.load(Ordering::Relaxed);
        let waiting = self.shared.sent.load(Ordering::Acquire).wrapping_sub(received).min(BURST);
        let mut hint = 0;
        list.fill(slots.iter_mut().enumerate().take(waiting).map_while(|(index, slot)| {
            let at = received.wrapping_add(index) % SLOTS;
            let frame = self.shared.frames[at].load(Ordering::Relaxed);
            *slot = (frame >> 32) as u16;
            memory.segment(&mut hint, at as u64 * STRIDE, frame as u32).map(std::iter::once)
        }))
    }

    /// Gives the first `count` frames' places back.
    pub(super) fn release(&self, count: usize) {
        let received = self.shared.received.load(Ordering::Relaxed);
        self.shared.received.store(received.wrapping_add(count), Ordering::Release);
    }
}
