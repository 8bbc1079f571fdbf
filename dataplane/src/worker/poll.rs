//! The poll loop: commands, then a visit to every ring, then the clock; asleep when nothing moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::command::{Command, Mailbox};
use super::counters::Mode;
use super::hand_off::HAND_OFF_VISITS;
use super::idle::Idle;
use super::links::Link;
use super::pulse::Pulse;
use super::sleep::Alarm;
use super::turns::{Turns, Visit, Visitor};
use super::walk::Walker;
use crate::cpu::timestamp;

/// Pairs that one worker can own.
pub(super) const SLOTS: usize = 4096;

/// A worker's own state; lives on its thread.
pub(super) struct Poller {
    pub(super) walker: Walker,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) alarm: Alarm,
    /// Queues by which guests send, and by which frames come from NICs.
    pub(super) turns: Turns,
    /// Slots whose guests send by a disabled transmitq. Nothing useful comes from them, so one of them is visited an
    /// iteration.
    pub(super) discards: Vec<u16>,
    /// Which of the discarding slots is next.
    pub(super) next_discard: usize,
    /// Coarse time, kept by control.
    pub(super) clock: Arc<AtomicU32>,
    /// What is not looked at.
    pub(super) idle: Idle,
}

impl Poller {
    /// Polls until told to stop.
    pub(super) fn run(mut self, mut pulse: Pulse) {
        pulse.start();
        let counters = self.walker.counters.clone();
        let mut last = timestamp();
        let mut quiet_since = last;
        loop {
            if !self.mailbox.is_empty() && self.obey() {
                while self.mailbox.next().is_some() {} // who asked must not wait for ever
                return;
            }
            self.walker.now = self.clock.load(Ordering::Relaxed);
            self.walker.moment = last;
            let frames = self.visit_all();
            let now = timestamp();
            if self.idle.is_due(now) {
                self.tend(now);
            }
            let spent = now.wrapping_sub(last);
            last = now;
            if frames > 0 {
                counters.spent(Mode::Busy, spent);
                quiet_since = now;
                continue;
            }
            counters.spent(Mode::Idle, spent);
            if now.wrapping_sub(quiet_since) > self.idle.quiet {
                last = self.sleep(last, &mut pulse);
                // With NICs it was most likely the timeout, and in vain.
                if !self.has_nics() {
                    quiet_since = last;
                }
            }
            std::hint::spin_loop();
        }
    }

    #[inline]
    fn visit_all(&mut self) -> usize {
        if let Some(arrival) = self.walker.topology.arrival {
            return self.visit_sparingly(arrival.worker);
        }
        let Self { walker, turns, discards, next_discard, .. } = self;
        // Of each other worker a burst an iteration: bounded, and paid for there.
        let handed = walker.take_handed();
        if handed > 0 {
            turns.forget_last();
        }
        let mut frames = handed + turns.round(walker);
        if !discards.is_empty() {
            *next_discard = (*next_discard + 1) % discards.len();
            let slot = usize::from(discards[*next_discard]);
            let discarded = walker.discard(slot);
            if discarded > 0 {
                walker.worked[slot] = walker.moment;
            }
            frames += discarded;
        }
        if frames == 0 {
            walker.pay_all(); // otherwise the next iteration's first burst does, a moment later
        }
        frames
    }

    /// While a queue is under way to worker `to`, which keeps what it is handed until then: as [`Poller::visit_all`], but what would
    /// find no room on the way there stays with its sender.
    #[cold]
    fn visit_sparingly(&mut self, to: u16) -> usize {
        let Self { walker, turns, .. } = self;
        turns.forget_last();
        let mut frames = walker.take_handed();
        for &slot in turns.slots() {
            if !walker.has_room_to(to) {
                break;
            }
            frames += walker.visit(slot.into()).frames;
        }
        if frames == 0 {
            walker.pay_all();
        }
        frames
    }

    /// Does what control asks. Whether it asks to stop.
    #[cold]
    fn obey(&mut self) -> bool {
        self.walker.pay_all();
        while let Some(command) = self.mailbox.next() {
            match command {
                Command::Attach { slot, mut pair, done } => {
                    if pair.kick().is_some_and(|kick| self.alarm.add(kick, slot as u16).is_err()) {
                        pair.kick = None; // what cannot be waited for is polled
                    }
                    pair.greet();
                    pair.last_receiver = u16::MAX; // it may have been another worker's
                    self.walker.memories[slot] = Some(pair.memory.clone());
                    self.walker.pairs[slot] = Some(pair);
                    let _ = done.send(self.has_arrived(slot));
                }
                Command::AttachNic { slot, queue, done } => {
                    let registered = queue.register_thread();
                    if registered.is_ok() {
                        self.walker.nics[slot - SLOTS] = Some(queue);
                    }
                    let _ = done.send(registered.map(|()| self.has_arrived(slot)));
                }
                Command::Visit { slot, done } if slot >= SLOTS => {
                    if let Some(queue) = self.walker.nics[slot - SLOTS].as_ref().filter(|queue| queue.rx.is_some()) {
                        self.turns.add(queue.id.port, slot);
                    }
                    let _ = done.send(());
                }
                Command::Visit { slot, done } => {
                    self.begin_to_visit(slot, timestamp());
                    let _ = done.send(());
                }
                Command::Notifier { slot, ring, notifier, fd, done } => {
                    let _ = done.send(match &mut self.walker.pairs[slot] {
                        Some(pair) => pair.set_notifier(ring, notifier, fd),
                        None => fd,
                    });
                }
                Command::RegisterNics { done } => {
                    let _ = done.send(crate::nic::register_thread());
                }
                Command::DetachNic { slot, done } => {
                    self.deliver_handed();
                    self.turns.remove(slot);
                    let _ = done.send(self.walker.nics[slot - SLOTS].take());
                }
                Command::Detach { slot, done } => {
                    self.deliver_handed();
                    self.forget(slot);
                    // The pair itself keeps the memory: nothing is unmapped on this thread.
                    self.walker.memories[slot] = None;
                    let pair = self.walker.pairs[slot].take();
                    if let Some(kick) = pair.as_ref().and_then(|pair| pair.kick()) {
                        self.alarm.remove(kick);
                    }
                    let _ = done.send(pair);
                }
                Command::Expect { slot, link, done } => {
                    self.walker.links.insert(self.walker.number, *link);
                    self.walker.expected = Some(slot as u16);
                    let _ = done.send(());
                }
                Command::Link { worker, link, done } => {
                    self.walker.links.insert(worker, *link);
                    let _ = done.send(());
                }
                Command::Unlink { worker, done } => {
                    let _ = done.send(self.walker.links.remove(worker));
                }
                Command::Flush { done } => {
                    self.deliver_handed();
                    let _ = done.send(());
                }
                Command::Topology { topology, done } => {
                    self.walker.topologies = self.walker.topologies.wrapping_add(1);
                    let _ = done.send(std::mem::replace(&mut self.walker.topology, topology));
                }
                Command::Stop => return true,
            }
        }
        false
    }

    /// A pair or NIC queue is in this slot. If it was expected, delivers what has waited for it; what that waited in.
    fn has_arrived(&mut self, slot: usize) -> Option<Link> {
        self.walker.expected.take_if(|expected| usize::from(*expected) == slot)?;
        self.deliver_handed();
        self.walker.links.remove(self.walker.number)
    }

    /// Nobody hands over for a slot that is to be given back any more; what was handed over before is delivered.
    fn deliver_handed(&mut self) {
        for _ in 0..HAND_OFF_VISITS {
            if self.walker.take_handed() == 0 {
                break;
            }
        }
        self.walker.pay_all();
    }
}

impl Visitor for Walker {
    #[inline]
    fn visit(&mut self, slot: usize) -> Visit {
        if slot >= SLOTS {
            return self.walk_nic(slot);
        }
        let visit = self.walk(slot);
        if visit.frames > 0 {
            self.worked[slot] = self.moment;
        }
        visit
    }

    #[inline]
    fn has_frames(&self, slot: usize) -> bool {
        match self.pairs.get(slot) {
            Some(pair) => pair.as_ref().is_some_and(|pair| pair.has_available()),
            None => true, // a NIC's
        }
    }

    fn put_off(&mut self, slot: usize) {
        if let Some(service) = self.service(slot) {
            service.put_off.add(1);
        }
    }

    #[inline]
    fn charge(&mut self, slot: usize, ticks: u64) {
        if let Some(service) = self.service(slot) {
            service.ticks.add(ticks);
        }
    }

    #[inline]
    fn now(&self) -> u64 {
        timestamp()
    }
}
