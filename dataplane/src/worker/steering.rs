//! Among the queue pairs of one guest: which gets a frame. Where its flow is already, else where the guest sends it, else by a
//! hash over the pairs that this worker has itself, or over all if it has none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::exit::{Exit, group};
use super::topology::Location;
use super::walk::Pairs;
use crate::cpu::timestamp;
use crate::flow::{Affinity, Queues};
use crate::guest::ring::BURST;
use crate::guest::{FrameHead, Frames, QUEUE_PAIRS_MAX, set_bits};
use crate::packet::spread_hash;

/// Beats for which the pairs that there were before are minded: [`crate::flow::QUIET`], and one that may have begun.
const BEFORE: u32 = 31;

/// A pair by which a guest can be given frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Receiver {
    /// Number of the pair in its port.
    index: u8,
    at: Location,
}

/// The pairs of a guest that has had several, until one comes or goes.
#[derive(Clone, Debug)]
pub struct Steering {
    affinity: Arc<Affinity>,
    /// Those of a worker side by side.
    receivers: Vec<Receiver>,
    /// By number of the pair.
    places: Vec<Option<Location>>,
    before: Option<Before>,
}

/// The pairs that there were before, which may still hold frames of flows that have no entry.
#[derive(Clone, Debug)]
struct Before {
    receivers: Vec<Receiver>,
    /// Until which beat that has to be minded.
    until: u32,
}

impl Steering {
    /// For a guest with these pairs, by number; `before` is what was so for it until now, or its one pair. So many `beats` there
    /// were.
    #[must_use]
    pub fn new(pairs: &[(u16, Location)], before: Result<&Self, Option<(u16, Location)>>, beats: u32) -> Self {
        let receiver = |&(index, at): &(u16, Location)| Receiver { index: index as u8, at };
        let mut receivers: Vec<_> = pairs.iter().map(receiver).collect();
        receivers.sort_by_key(|receiver| (receiver.at.worker, receiver.index));
        let mut places = vec![None; usize::from(QUEUE_PAIRS_MAX)];
        for &(index, at) in pairs {
            if let Some(place) = places.get_mut(usize::from(index)) {
                *place = Some(at);
            }
        }
        let until = beats.wrapping_add(BEFORE);
        // If pairs come and go quickly, what counts is where flows were before that began.
        let (affinity, before) = match before {
            Ok(steering) => {
                let earlier = steering.before.as_ref().filter(|before| !has_come(before.until, beats));
                let receivers = earlier.map_or(&steering.receivers, |before| &before.receivers);
                (steering.affinity.clone(), Some(receivers.clone()))
            }
            Err(only) => (Arc::new(Affinity::new()), only.as_ref().map(|only| vec![receiver(only)])),
        };
        Self { affinity, receivers, places, before: before.map(|receivers| Before { receivers, until }) }
    }
}

fn has_come(beat: u32, now: u32) -> bool {
    now.wrapping_sub(beat) <= u32::MAX / 2
}

/// The receivers that a worker chooses among: its own, or all if it has none.
fn of_worker(receivers: &[Receiver], worker: u16) -> &[Receiver] {
    let start = receivers.partition_point(|receiver| receiver.at.worker < worker);
    let behind = receivers.get(start..).unwrap_or_default();
    match behind.get(..behind.partition_point(|receiver| receiver.at.worker == worker)) {
        Some(own) if !own.is_empty() => own,
        _ => receivers,
    }
}

/// The pairs as one worker sees them for a burst.
struct Seen<'a> {
    steering: &'a Steering,
    worker: u16,
    pairs: &'a Pairs,
    own: &'a [Receiver],
    before: Option<&'a [Receiver]>,
}

impl<'a> Seen<'a> {
    fn new(steering: &'a Steering, worker: u16, pairs: &'a Pairs, beats: u32) -> Self {
        let before = steering.before.as_ref().filter(|before| !has_come(before.until, beats));
        Self {
            steering,
            worker,
            pairs,
            own: of_worker(&steering.receivers, worker),
            before: before.map(|before| of_worker(&before.receivers, worker)),
        }
    }

    #[inline(always)]
    fn place(&self, queue: u8) -> Option<Location> {
        self.steering.places.get(usize::from(queue)).copied().flatten()
    }
}

/// One of `receivers`, the same for the same flow.
#[inline(always)]
fn spread(receivers: &[Receiver], flow: u32) -> Option<u8> {
    let at = (u64::from(flow) * receivers.len() as u64) >> 32;
    receivers.get(at as usize).map(|receiver| receiver.index)
}

impl Queues for Seen<'_> {
    #[inline(always)]
    fn is_enabled(&self, queue: u8) -> bool {
        self.place(queue).is_some()
    }

    fn is_drained(&self, queue: u8) -> bool {
        let Some(at) = self.place(queue).filter(|at| at.worker == self.worker) else { return false };
        let pair = self.pairs.get(usize::from(at.slot)).and_then(Option::as_ref);
        pair.and_then(|pair| pair.receiveq.as_ref()).is_some_and(|ring| ring.is_drained())
    }

    fn choose(&self, flow: u32, is_settled: bool) -> u8 {
        let before = self.before.filter(|_| !is_settled).and_then(|before| spread(before, flow));
        // If its guest has read all of that, it does not matter any more.
        before
            .filter(|&queue| self.is_enabled(queue) && !self.is_drained(queue))
            .or_else(|| spread(self.own, flow))
            .unwrap_or(0)
    }
}

/// The hashes of a burst's flows, each made once.
pub(super) struct Spread {
    known: u32,
    hashes: [u32; BURST],
}

impl Spread {
    pub(super) const fn new() -> Self {
        Self { known: 0, hashes: [0; BURST] }
    }

    /// Another burst begins.
    #[inline(always)]
    pub(super) fn begin(&mut self) {
        self.known = 0;
    }

    /// The flow of a frame with this head.
    #[inline(always)]
    fn of(&mut self, index: usize, head: &[u8]) -> u32 {
        if self.known >> index & 1 == 0 {
            self.hashes[index] = spread_hash(head);
            self.known |= 1 << index;
        }
        self.hashes[index]
    }
}

/// A guest sends the flows of these frames by one of its pairs: there it wants its answers.
#[inline(never)]
pub(super) fn note_sent(
    steering: &Steering,
    queue: u16,
    (worker, pairs, beats): (u16, &Pairs, &AtomicU32),
    spread: &mut Spread,
    (heads, lens): (&[FrameHead; BURST], &[u32; BURST]),
    frames: u32,
) {
    let beats = beats.load(Ordering::Relaxed);
    let (seen, stamp) = (Seen::new(steering, worker, pairs, beats), Affinity::stamp(beats, timestamp()));
    let mut last = None;
    for index in set_bits(frames) {
        let flow = spread.of(index, heads[index].frame(lens[index] as usize));
        if last != Some(flow) {
            steering.affinity.sent(flow, queue as u8, stamp, &seen);
            last = Some(flow);
        }
    }
}

impl<'m> Exit<'_, 'm> {
    /// Sends the frames of `group` to the guest, each by the pair where its flow belongs.
    #[inline(never)]
    pub(super) fn send_to_guest(&mut self, steering: &Steering, mut group: u32, frames: Frames<'_, 'm>) {
        let beats = self.beats.load(Ordering::Relaxed);
        let stamp = Affinity::stamp(beats, timestamp());
        let mut choice = [0u16; BURST];
        let seen = Seen::new(steering, self.worker, self.pairs, beats);
        let mut last = None;
        for index in set_bits(group) {
            let flow = self.spread.of(index, frames.head(index));
            let queue = match last {
                Some((before, queue)) if before == flow => queue,
                _ => steering.affinity.queue_of(flow, stamp, &seen),
            };
            last = Some((flow, queue));
            choice[index] = u16::from(queue);
        }
        while group != 0 {
            let queue = choice[group.trailing_zeros() as usize % BURST];
            let same = self::group(group, &choice, queue);
            group &= !same;
            match steering.places.get(usize::from(queue)).copied().flatten() {
                Some(at) => self.send_to_pair(at, same, frames),
                None => self.drop(crate::account::DropReason::ReceiverStopped, same),
            }
        }
    }
}
