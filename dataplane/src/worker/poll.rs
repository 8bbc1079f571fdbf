//! The poll loop: commands, then a visit to every ring, then the clock; asleep when nothing moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::event::Timespec;

use super::command::{Command, Mailbox};
use super::counters::Mode;
use super::hand_off::HAND_OFF_VISITS;
use super::pulse::Pulse;
use super::sleep::Alarm;
use super::turns::{Turns, Visit, Visitor};
use super::walk::Walker;
use crate::cpu::timestamp;

/// Pairs that one worker can own.
pub(super) const SLOTS: usize = 4096;

/// How long a guest that cannot kick (it gave no eventfd) may wait while its worker sleeps.
const UNKICKED: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000 };

/// How long a frame may wait at a NIC while its worker sleeps: nobody kicks for it.
const NIC_WAIT: Timespec = UNKICKED;

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
    /// Ticks without a frame after which the worker goes to sleep.
    pub(super) quiet_max: u64,
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
            let frames = self.visit_all();
            let now = timestamp();
            let spent = now.wrapping_sub(last);
            last = now;
            if frames > 0 {
                counters.spent(Mode::Busy, spent);
                quiet_since = now;
                continue;
            }
            counters.spent(Mode::Idle, spent);
            if now.wrapping_sub(quiet_since) > self.quiet_max {
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
        let Self { walker, turns, discards, next_discard, .. } = self;
        // Of each other worker a burst an iteration: bounded, and paid for there.
        let handed = walker.take_handed();
        if handed > 0 {
            turns.forget_last();
        }
        let mut frames = handed + turns.round(walker);
        if !discards.is_empty() {
            *next_discard = (*next_discard + 1) % discards.len();
            frames += walker.discard(usize::from(discards[*next_discard]));
        }
        if frames == 0 {
            walker.pay_all(); // otherwise the next iteration's first burst does, a moment later
        }
        frames
    }

    /// Arms every ring, looks once more, and sleeps. When it is over.
    fn sleep(&mut self, since: u64, pulse: &mut Pulse) -> u64 {
        let has_nics = self.has_nics();
        let Self { walker, turns, discards, mailbox, alarm, .. } = self;
        mailbox.falls_asleep();
        let mut nothing = !walker.has_handed();
        let mut all_kick = true;
        for &slot in turns.slots().iter().chain(&*discards) {
            if let Some(Some(pair)) = walker.pairs.get_mut(usize::from(slot)) {
                nothing &= !pair.arm();
                all_kick &= pair.kick().is_some();
            }
        }
        let mut now = timestamp();
        walker.counters.spent(Mode::Idle, now.wrapping_sub(since));
        if nothing && mailbox.is_empty() {
            pulse.stop();
            walker.counters.falls_asleep(now);
            alarm.sleep(match (all_kick, has_nics) {
                (true, false) => None,
                (false, _) => Some(&UNKICKED),
                (true, true) => Some(&NIC_WAIT),
            });
            let woken = timestamp();
            walker.counters.wakes(woken);
            now = woken;
            pulse.start();
        }
        mailbox.is_awake();
        for &slot in turns.slots().iter().chain(&*discards) {
            if let Some(Some(pair)) = walker.pairs.get_mut(usize::from(slot)) {
                pair.disarm();
            }
        }
        now
    }

    /// Whether frames may come for which nobody kicks.
    fn has_nics(&self) -> bool {
        self.turns.slots().iter().any(|&slot| usize::from(slot) >= SLOTS)
    }

    /// Does what control asks. Whether it asks to stop.
    #[cold]
    fn obey(&mut self) -> bool {
        self.walker.pay_all();
        while let Some(command) = self.mailbox.next() {
            match command {
                Command::Attach { slot, mut pair, done } => {
                    if pair.kick().is_some_and(|kick| self.alarm.add(kick).is_err()) {
                        pair.kick = None; // what cannot be waited for is polled
                    }
                    pair.greet();
                    self.walker.memories[slot] = Some(pair.memory.clone());
                    self.walker.pairs[slot] = Some(pair);
                    let _ = done.send(());
                }
                Command::AttachNic { slot, queue, done } => {
                    let registered = queue.register_thread();
                    if registered.is_ok() {
                        self.walker.nics[slot - SLOTS] = Some(queue);
                    }
                    let _ = done.send(registered);
                }
                Command::Visit { slot, done } if slot >= SLOTS => {
                    if let Some(queue) = self.walker.nics[slot - SLOTS].as_ref().filter(|queue| queue.rx.is_some()) {
                        self.turns.add(queue.id.port, slot);
                    }
                    let _ = done.send(());
                }
                Command::Visit { slot, done } => {
                    if let Some(pair) = self.walker.pairs[slot].as_ref().filter(|pair| pair.transmitq.is_some()) {
                        if pair.discards {
                            self.discards.push(slot as u16);
                        } else {
                            self.turns.add(pair.id.port, slot);
                        }
                    }
                    let _ = done.send(());
                }
                Command::Notifier { slot, ring, notifier, fd, done } => {
                    let _ = done.send(match &mut self.walker.pairs[slot] {
                        Some(pair) => pair.set_notifier(ring, notifier, fd),
                        None => fd,
                    });
                }
                Command::DetachNic { slot, done } => {
                    self.deliver_handed();
                    self.turns.remove(slot);
                    let _ = done.send(self.walker.nics[slot - SLOTS].take());
                }
                Command::Detach { slot, done } => {
                    self.deliver_handed();
                    self.turns.remove(slot);
                    self.discards.retain(|&visit| usize::from(visit) != slot);
                    // The pair itself keeps the memory: nothing is unmapped on this thread.
                    self.walker.memories[slot] = None;
                    let pair = self.walker.pairs[slot].take();
                    if let Some(kick) = pair.as_ref().and_then(|pair| pair.kick()) {
                        self.alarm.remove(kick);
                    }
                    let _ = done.send(pair);
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
        if slot < SLOTS { self.walk(slot) } else { self.walk_nic(slot) }
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
