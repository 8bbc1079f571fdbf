//! A NIC of the heap, behind the same queues as DPDK's: what tests put on its [`Wire`] is received, what is sent lies there to
//! be looked at, and the wire can be made to run short of whatever a NIC runs short of. No EAL, no pool, no thread.
#![expect(unsafe_code, reason = "makes mbufs as DPDK lays them out")]

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dpdk_sys::{RTE_MBUF_F_RX_L4_CKSUM_GOOD, RTE_MBUF_F_RX_L4_CKSUM_NONE, RTE_MBUF_F_RX_LRO, rte_mbuf};

use super::mbuf::{Mbuf, Mbufs, Received};
use super::port::Port;
use super::queue::{Queue, QueueId, RxQueue, TxQueue};
use super::{BURST, TxFlags};
use crate::guest::memory::Segment;
use crate::packet::Abilities;

/// Bytes of an mbuf: headroom and room, as DPDK's usual ones.
const HEADROOM: usize = 128;
const ROOM: usize = 2048;

#[repr(C)]
struct HeapMbuf {
    mbuf: rte_mbuf,
    buffer: [u8; HEADROOM + ROOM],
    wire: Arc<Wire>,
}

/// A frame that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentFrame {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Mbufs that it was in.
    pub segments: usize,
    /// What was asked of the NIC.
    pub asked: TxFlags,
    /// The address of its first byte: tells whether the mbuf itself moved.
    pub address: usize,
}

/// The other end of the double's queue.
#[derive(Debug)]
pub struct Wire {
    incoming: Mutex<VecDeque<(Vec<u8>, Received, usize)>>,
    sent: Mutex<Vec<SentFrame>>,
    /// Mbufs that may be out at a time.
    mbufs_max: AtomicUsize,
    mbufs: AtomicUsize,
    /// Frames that the TX queue has room for.
    room: AtomicUsize,
    /// Times that somebody asked for frames.
    polls: AtomicUsize,
}

impl Wire {
    /// An endless one.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            incoming: Mutex::default(),
            sent: Mutex::default(),
            mbufs_max: AtomicUsize::new(usize::MAX),
            mbufs: AtomicUsize::new(0),
            room: AtomicUsize::new(usize::MAX),
            polls: AtomicUsize::new(0),
        })
    }

    /// Queue `index` of a port, that does `can` by itself; this is its other end.
    #[must_use]
    pub fn queue(self: &Arc<Self>, port: &Port, index: u16, can: Abilities) -> Queue {
        Queue {
            id: QueueId { port: port.id, index },
            rx: Some(RxQueue::double(self.clone())),
            tx: Some(TxQueue::double(self.clone(), can)),
            bond: None,
            counters: port.counters(index),
            link: port.link.clone(),
            mtu: port.mtu,
            limit_out: None,
        }
    }

    /// A frame comes in, cut into mbufs of at most `cut` bytes.
    pub fn put(&self, frame: &[u8], received: Received, cut: usize) {
        lock(&self.incoming).push_back((frame.to_vec(), received, cut.clamp(1, ROOM)));
    }

    /// What was sent since the last time.
    #[must_use]
    pub fn take_sent(&self) -> Vec<SentFrame> {
        std::mem::take(&mut *lock(&self.sent))
    }

    /// Mbufs that are out.
    #[must_use]
    pub fn mbufs(&self) -> usize {
        self.mbufs.load(Ordering::Relaxed)
    }

    /// Times that the worker asked for frames.
    #[must_use]
    pub fn polls(&self) -> usize {
        self.polls.load(Ordering::Relaxed)
    }

    /// No more than so many may be out.
    pub fn set_mbufs_max(&self, max: usize) {
        self.mbufs_max.store(max, Ordering::Relaxed);
    }

    /// The TX queue takes so many frames more.
    pub fn set_room(&self, room: usize) {
        self.room.store(room, Ordering::Relaxed);
    }

    /// Bytes that an mbuf holds.
    pub(super) fn mbuf_room(&self) -> u32 {
        ROOM as u32
    }

    pub(super) fn alloc(self: &Arc<Self>) -> Option<Mbuf> {
        if self.mbufs.load(Ordering::Relaxed) >= self.mbufs_max.load(Ordering::Relaxed) {
            return None;
        }
        self.mbufs.fetch_add(1, Ordering::Relaxed);
        let mut made = Box::new(HeapMbuf {
            // SAFETY: all zeros is an mbuf without buffer, pool or flags.
            mbuf: unsafe { std::mem::zeroed() },
            buffer: [0; HEADROOM + ROOM],
            wire: self.clone(),
        });
        made.mbuf.nb_segs = 1;
        made.mbuf.refcnt = 1;
        made.mbuf.data_off = HEADROOM as u16;
        made.mbuf.buf_len = (HEADROOM + ROOM) as u16;
        let made = Box::into_raw(made);
        // SAFETY: just made, and ours; the buffer's address is taken without a reference to it.
        unsafe {
            (*made).mbuf.buf_addr = (&raw mut (*made).buffer).cast();
            Some(Mbuf::from_raw(NonNull::new_unchecked(made).cast()))
        }
    }

    pub(super) fn receive(self: &Arc<Self>, into: &mut Mbufs<BURST>) {
        self.polls.fetch_add(1, Ordering::Relaxed);
        let mut incoming = lock(&self.incoming);
        while !into.is_full() {
            let Some((bytes, received, cut)) = incoming.pop_front() else { return };
            if let Some(mbuf) = self.frame(&bytes, received, cut) {
                into.push(mbuf);
            }
        }
    }

    /// A frame as a driver would give it.
    fn frame(self: &Arc<Self>, bytes: &[u8], received: Received, cut: usize) -> Option<Mbuf> {
        let mut pieces: Vec<Mbuf> = Vec::new();
        for _ in bytes.chunks(cut) {
            pieces.push(self.alloc()?);
        }
        let mut first: *mut rte_mbuf = std::ptr::null_mut();
        for (mbuf, chunk) in pieces.into_iter().zip(bytes.chunks(cut)).rev() {
            let raw = mbuf.into_raw();
            // SAFETY: ours, made above; the buffer holds ROOM bytes from `data_off` on, and `chunk` has no more.
            unsafe {
                let mbuf = &mut *raw.as_ptr();
                mbuf.next = first;
                mbuf.data_len = chunk.len() as u16;
                let data = mbuf.buf_addr.cast::<u8>().add(mbuf.data_off.into());
                std::ptr::copy_nonoverlapping(chunk.as_ptr(), data, chunk.len());
            }
            first = raw.as_ptr();
        }
        let first = NonNull::new(first)?;
        // SAFETY: as above.
        unsafe {
            let mbuf = &mut *first.as_ptr();
            mbuf.nb_segs = bytes.chunks(cut).len() as u16;
            mbuf.pkt_len = bytes.len() as u32;
            mbuf.ol_flags = match received {
                Received::Unchecked => 0,
                Received::Good => RTE_MBUF_F_RX_L4_CKSUM_GOOD,
                Received::Missing(None) => RTE_MBUF_F_RX_L4_CKSUM_NONE,
                Received::Missing(Some(size)) => {
                    mbuf.__bindgen_anon_3.tx_offload = u64::from(size) << 24;
                    RTE_MBUF_F_RX_L4_CKSUM_NONE | RTE_MBUF_F_RX_LRO
                }
            };
            Some(Mbuf::from_raw(first))
        }
    }

    pub(super) fn send(&self, ready: &mut Mbufs<BURST>) -> usize {
        let count = ready.len().min(self.room.load(Ordering::Relaxed));
        self.room.fetch_sub(count, Ordering::Relaxed);
        let mut sent = lock(&self.sent);
        for index in 0..count {
            let mut bytes = Vec::new();
            for piece in ready.pieces(index) {
                let mut chunk = vec![0; piece.len()];
                if let Some(start) = NonNull::new(chunk.as_mut_ptr()) {
                    // SAFETY: all of `chunk`, to which there is no other reference meanwhile.
                    piece.copy_to(unsafe { Segment::new(start, chunk.len() as u32) });
                }
                bytes.extend(chunk);
            }
            // SAFETY: ours until it is freed below.
            let mbuf = unsafe { &**ready.pointers().get(index).unwrap_or(&std::ptr::null_mut()) };
            // SAFETY: a plain number.
            let asked = TxFlags { flags: mbuf.ol_flags, lengths: unsafe { mbuf.__bindgen_anon_3.tx_offload } };
            let address = mbuf.buf_addr.addr();
            sent.push(SentFrame { bytes, segments: mbuf.nb_segs.into(), asked, address });
        }
        drop(sent);
        ready.free_first(count);
        count
    }
}

/// Gives one of the double's back, with what is chained to it.
///
/// # Safety
/// It is null, or was made by [`Wire::alloc`] and is not used after this.
pub(super) unsafe fn free(mut mbuf: *mut rte_mbuf) {
    while let Some(at) = NonNull::new(mbuf) {
        // SAFETY: the mbuf is the first field of what was boxed.
        let boxed = unsafe { Box::from_raw(at.cast::<HeapMbuf>().as_ptr()) };
        mbuf = boxed.mbuf.next;
        boxed.wire.mbufs.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
