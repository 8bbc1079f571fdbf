//! A guest of the generator: it counts, and does nothing else with what it gets.

use std::sync::Arc;

use anyhow::Result;
use ringway_testbed::driver::front_end::{Bells, feature};
use ringway_testbed::driver::{DriverMemory, FrontEnd, Listener, Span};

use super::pace::Pace;
use super::pattern::{CHANGE_MAX, Pattern, prefix};
use super::ring::Ring;

/// Bytes of the virtio-net header.
const HEADER_LEN: usize = 12;
/// From the start of a buffer to that of the frame: so far that the frame's addresses begin with a word.
const FRAME_AT: usize = HEADER_LEN;

/// Frames taken from a ring at a time, so that nobody waits for one who gets many.
const BURST: usize = 64;

/// Guests' rings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Descriptors of each.
    pub(crate) ring_size: u16,
    /// Bytes of a frame, from the destination address on.
    pub(crate) frame_len: usize,
}

/// What a guest counted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) seconds: f64,
    /// Frames that were due.
    pub(crate) offered: u64,
    /// Of them, those that the switch took or will take; the others found the ring full.
    pub(crate) sent: u64,
    /// Frames to one of this guest's own stations.
    pub(crate) received: u64,
    /// Others.
    pub(crate) overheard: u64,
}

/// A guest with one queue pair.
pub(crate) struct Guest {
    receiveq: Ring,
    transmitq: Ring,
    frame_len: usize,
    pub(crate) counts: Counts,
    /// What its own stations begin with, as it lies in a buffer.
    own: u32,
    /// What is different in the frame that is next.
    change: [u8; CHANGE_MAX],
    // The back end sees it close when these are dropped.
    _bells: [Bells; 2],
    _front_end: FrontEnd,
}

impl Guest {
    /// Waits for the back end, and gives it rings that it has to poll, of a driver that polls.
    pub(crate) fn plug(listener: &Listener, number: usize, shape: Shape) -> Result<Self> {
        let mut front_end = FrontEnd::from_stream(listener.accept()?)?;
        let wanted = feature::VERSION_1 | feature::PROTOCOL_FEATURES | feature::MRG_RXBUF | feature::RING_PACKED;
        let agreed = front_end.negotiate(wanted)?;
        anyhow::ensure!(agreed & feature::RING_PACKED != 0, "the back end offers no packed rings");
        let stride = (FRAME_AT + shape.frame_len.max(60) + 4).next_multiple_of(64);
        let len = (usize::from(shape.ring_size) * (stride + 16) * 2 + 0x4000).next_multiple_of(4096);
        let memory = Arc::new(DriverMemory::new(&[Span::new(0x10_0000, len as u64)])?);
        let mut receiveq = Ring::new(&memory, shape.ring_size, stride, true);
        let transmitq = Ring::new(&memory, shape.ring_size, stride, false);
        while receiveq.free() > 0 {
            receiveq.offer(0, &[]);
        }
        let bells = [Bells::new(false)?, Bells::new(false)?];
        front_end.share(&memory)?;
        front_end.start(0, &receiveq.queue, &memory, &bells[0])?;
        front_end.start(1, &transmitq.queue, &memory, &bells[1])?;
        front_end.enable(0, true)?;
        front_end.enable(1, true)?;
        front_end.wait()?;
        Ok(Self {
            receiveq,
            transmitq,
            frame_len: shape.frame_len,
            counts: Counts::default(),
            own: u32::from_le_bytes(prefix(number)),
            change: [0; CHANGE_MAX],
            _bells: bells,
            _front_end: front_end,
        })
    }

    /// Fills all buffers with a pattern's frame; each frame that is sent changes what differs. Nothing may be under way.
    pub(crate) fn prepare(&mut self, pattern: &Pattern) {
        self.reap();
        let frame = pattern.template(self.frame_len);
        self.transmitq.set_len(HEADER_LEN + frame.len());
        for slot in 0..self.transmitq.size() {
            self.transmitq.fill(slot, 0, &[0; HEADER_LEN]);
            self.transmitq.fill(slot, FRAME_AT, &frame);
        }
    }

    /// Sends what is due.
    #[inline]
    pub(crate) fn send(&mut self, pattern: &mut Pattern, pace: &mut Pace, now: u64) {
        self.reap();
        let room = u32::from(self.transmitq.free());
        let due = pace.due(now).unwrap_or(room);
        self.counts.offered += u64::from(due);
        self.send_now(pattern, due.min(room));
    }

    /// Sends so many frames, for which there is room.
    #[inline]
    pub(crate) fn send_now(&mut self, pattern: &mut Pattern, count: u32) {
        for _ in 0..count {
            let (at, len) = pattern.next(&mut self.change);
            self.transmitq.offer(FRAME_AT + at, &self.change[..len]);
        }
        self.counts.sent += u64::from(count);
    }

    fn reap(&mut self) {
        while self.transmitq.take_used().is_some() {}
    }

    /// Takes what came, up to a burst, and gives the buffers back.
    #[inline]
    pub(crate) fn receive(&mut self) {
        for _ in 0..BURST {
            let Some(slot) = self.receiveq.take_used() else { return };
            // The end of the virtio-net header, and four bytes of the destination.
            if (self.receiveq.word(slot, 8) >> 32) as u32 == self.own {
                self.counts.received += 1;
            } else {
                self.counts.overheard += 1;
            }
            self.receiveq.offer(0, &[]);
        }
    }

    /// Whether the switch has taken all that was sent.
    pub(crate) fn is_idle(&mut self) -> bool {
        self.reap();
        self.transmitq.is_empty()
    }
}
