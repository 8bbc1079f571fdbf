//! The poll loop: commands, then a visit to every ring, then the clock; asleep when nothing moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::event::Timespec;

use super::command::{Command, Mailbox};
use super::counters::Mode;
use super::hand_off::HAND_OFF_VISITS;
use super::links::Link;
use super::pulse::Pulse;
use super::sleep::Alarm;
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
    /// Slots whose guests send; each is visited once an iteration.
    pub(super) visits: Vec<u16>,
    /// Slots whose guests send by a disabled transmitq. Nothing useful comes from them, so one of them is visited an
    /// iteration.
    pub(super) discards: Vec<u16>,
    /// Slots of NIC queues by which frames come.
    pub(super) nic_visits: Vec<u16>,
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
                if self.nic_visits.is_empty() {
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
        let Self { walker, visits, discards, next_discard, nic_visits, .. } = self;
        let handed = walker.take_handed();
        let mut frames = visits.iter().fold(handed, |frames, &slot| frames + walker.walk(usize::from(slot)));
        frames = nic_visits.iter().fold(frames, |frames, &slot| frames + walker.walk_nic(usize::from(slot)));
        if !discards.is_empty() {
            *next_discard = (*next_discard + 1) % discards.len();
            frames += walker.discard(usize::from(discards[*next_discard]));
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
        let Self { walker, visits, nic_visits, .. } = self;
        let mut frames = walker.take_handed();
        for &slot in visits.iter().chain(&*nic_visits) {
            if !walker.has_room_to(to) {
                break;
            }
            let slot = usize::from(slot);
            frames += if slot < SLOTS { walker.walk(slot) } else { walker.walk_nic(slot) };
        }
        if frames == 0 {
            walker.pay_all();
        }
        frames
    }

    /// Arms every ring, looks once more, and sleeps. When it is over.
    fn sleep(&mut self, since: u64, pulse: &mut Pulse) -> u64 {
        let Self { walker, visits, discards, nic_visits, mailbox, alarm, .. } = self;
        mailbox.falls_asleep();
        let mut nothing = !walker.has_handed();
        let mut all_kick = true;
        for &slot in visits.iter().chain(&*discards) {
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
            alarm.sleep(match (all_kick, nic_visits.is_empty()) {
                (true, true) => None,
                (false, _) => Some(&UNKICKED),
                (true, false) => Some(&NIC_WAIT),
            });
            let woken = timestamp();
            walker.counters.wakes(woken);
            now = woken;
            pulse.start();
        }
        mailbox.is_awake();
        for &slot in visits.iter().chain(&*discards) {
            if let Some(Some(pair)) = walker.pairs.get_mut(usize::from(slot)) {
                pair.disarm();
            }
        }
        now
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
                    if self.walker.nics[slot - SLOTS].as_ref().is_some_and(|queue| queue.rx.is_some()) {
                        self.nic_visits.push(slot as u16);
                    }
                    let _ = done.send(());
                }
                Command::Visit { slot, done } => {
                    if let Some(pair) = self.walker.pairs[slot].as_ref().filter(|pair| pair.transmitq.is_some()) {
                        if pair.discards { &mut self.discards } else { &mut self.visits }.push(slot as u16);
                    }
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
                    self.nic_visits.retain(|&visit| usize::from(visit) != slot);
                    let _ = done.send(self.walker.nics[slot - SLOTS].take());
                }
                Command::Detach { slot, done } => {
                    self.deliver_handed();
                    self.visits.retain(|&visit| usize::from(visit) != slot);
                    self.discards.retain(|&visit| usize::from(visit) != slot);
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
