//! What a worker does about rings in which nothing happens: it asks their guests to kick, and looks at them no more. So its
//! work follows the frames, not the guests. When all are so it sleeps.
//!
//! A ring that was quiet for [`Idle::quiet`] is armed: the guest is asked for a kick, a full fence, one more look, and the ring
//! leaves the turns. While other rings keep the worker awake it asks epoll for kicks every so often.

use rustix::event::Timespec;

use super::counters::Mode;
use super::poll::{Poller, SLOTS};
use super::pulse::Pulse;
use crate::cpu::timestamp;

/// How long a guest that cannot kick (it gave no eventfd) may wait while its worker sleeps.
const UNKICKED: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000 };

/// How long a frame may wait at a NIC while its worker sleeps: nobody kicks for it.
const NIC_WAIT: Timespec = UNKICKED;

const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// Which part of [`Idle::quiet`] a kick may wait to be seen while the worker is busy with others.
const LOOKS: u64 = 10;

/// What is armed, and when rings were looked after.
#[derive(Debug)]
pub(super) struct Idle {
    /// Ticks without a frame after which a ring is armed; never, if this is all there are.
    pub(super) quiet: u64,
    /// Rings that are.
    armed: usize,
    /// When that was seen to last.
    tended: u64,
}

impl Idle {
    pub(super) fn new(quiet: u64) -> Self {
        Self { quiet, armed: 0, tended: 0 }
    }

    /// Whether it is time to see to it.
    #[inline(always)]
    pub(super) fn is_due(&self, now: u64) -> bool {
        now.wrapping_sub(self.tended) > self.quiet / LOOKS
    }
}

impl Poller {
    /// Looks for kicks, and arms what was quiet for long enough.
    #[cold]
    pub(super) fn tend(&mut self, now: u64) {
        self.idle.tended = now;
        if self.idle.armed > 0 {
            self.wait(Some(&AT_ONCE), now);
        }
        // From the last to the first, since those that are armed leave.
        for at in (0..self.turns.slots().len()).rev() {
            let slot = usize::from(self.turns.slots()[at]);
            if self.walker.worked.get(slot).is_some_and(|&worked| self.is_quiet(worked, now)) {
                self.arm(slot, now);
            }
        }
        for at in (0..self.discards.len()).rev() {
            let slot = usize::from(self.discards[at]);
            if self.walker.worked.get(slot).is_some_and(|&worked| self.is_quiet(worked, now)) {
                self.arm(slot, now);
            }
        }
        self.walker.counters.note_rings(self.idle.armed, self.turns.slots().len() + self.discards.len());
    }

    fn is_quiet(&self, worked: u64, now: u64) -> bool {
        now.wrapping_sub(worked) > self.idle.quiet
    }

    /// Asks the guest of a slot to kick, and looks at its ring no more, unless something is there. Whether nothing is.
    fn arm(&mut self, slot: usize, now: u64) -> bool {
        let Some(Some(pair)) = self.walker.pairs.get_mut(slot) else { return true };
        if pair.kick().is_none() {
            return !pair.has_available();
        }
        if pair.arm() {
            pair.disarm();
            self.walker.worked[slot] = now;
            return false;
        }
        pair.is_armed = true;
        self.idle.armed += 1;
        if pair.discards {
            self.discards.retain(|&other| usize::from(other) != slot);
        } else {
            self.turns.remove(slot);
        }
        true
    }

    /// Begins to look at the ring of a slot, of a pair that is there.
    pub(super) fn begin_to_visit(&mut self, slot: usize, now: u64) {
        let Some(pair) = self.walker.pairs[slot].as_ref().filter(|pair| pair.transmitq.is_some()) else { return };
        self.walker.worked[slot] = now;
        if pair.discards {
            self.discards.push(slot as u16);
        } else {
            self.turns.add(pair.id.port, slot);
        }
    }

    /// Looks at the ring of a slot no more: its pair leaves.
    pub(super) fn forget(&mut self, slot: usize) {
        self.turns.remove(slot);
        self.discards.retain(|&other| usize::from(other) != slot);
        if let Some(Some(pair)) = self.walker.pairs.get_mut(slot)
            && std::mem::take(&mut pair.is_armed)
        {
            pair.disarm();
            self.idle.armed -= 1;
        }
    }

    /// Waits for kicks, and looks again at the rings of those who did.
    fn wait(&mut self, timeout: Option<&Timespec>, now: u64) {
        for slot in self.alarm.wait(timeout) {
            let slot = usize::from(slot);
            let Some(Some(pair)) = self.walker.pairs.get_mut(slot) else { continue };
            // It may have kicked before it heard that it need not.
            if std::mem::take(&mut pair.is_armed) {
                pair.disarm();
                self.idle.armed -= 1;
                self.begin_to_visit(slot, now);
            }
        }
    }

    /// Arms every ring, looks once more, and sleeps. When it is over.
    pub(super) fn sleep(&mut self, since: u64, pulse: &mut Pulse) -> u64 {
        self.mailbox.falls_asleep();
        let mut nothing = !self.walker.has_handed();
        let mut all_kick = true;
        for at in (0..self.turns.slots().len()).rev() {
            let slot = usize::from(self.turns.slots()[at]);
            nothing &= self.arm(slot, since);
            all_kick &= self.walker.pairs.get(slot).is_none_or(|pair| pair.as_ref().is_none_or(|pair| pair.is_armed));
        }
        for at in (0..self.discards.len()).rev() {
            let slot = usize::from(self.discards[at]);
            nothing &= self.arm(slot, since);
            all_kick &= self.walker.pairs[slot].as_ref().is_none_or(|pair| pair.is_armed);
        }
        let counters = self.walker.counters.clone();
        counters.note_rings(self.idle.armed, self.turns.slots().len() + self.discards.len());
        let mut now = timestamp();
        counters.spent(Mode::Idle, now.wrapping_sub(since));
        if nothing && self.mailbox.is_empty() {
            pulse.stop();
            counters.falls_asleep(now);
            let timeout = match (all_kick, self.has_nics()) {
                (true, false) => None,
                (false, _) => Some(&UNKICKED),
                (true, true) => Some(&NIC_WAIT),
            };
            self.wait(timeout, now);
            now = timestamp();
            counters.wakes(now);
            pulse.start();
        }
        self.mailbox.is_awake();
        now
    }

    /// Whether frames may come for which nobody kicks.
    pub(super) fn has_nics(&self) -> bool {
        self.turns.slots().iter().any(|&slot| usize::from(slot) >= SLOTS)
    }
}
