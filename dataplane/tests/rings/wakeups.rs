//! Two threads, a driver and a device, that fall asleep on eventfds again and again just when the other one has something for
//! them: each enables, fences, looks again, and only then sleeps. A wake-up that is lost is told from one that is slow by
//! what the other side has said that it decided.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::{Duration, Instant};

use ringway::guest::memory::GuestMemory;
use ringway::guest::ring::{ChainList, Direction, Ring, Used};
use ringway_testbed::driver::front_end::{Bells, ring, rung};
use ringway_testbed::driver::{Layout, Queue, Rules};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{Bench, address, features, plain};

const ROUNDS: u64 = 40_000;
/// A sleeper looks at its eventfd so often before it really sleeps: most rounds are then so short that both sides meet in the
/// moment between enabling and looking again.
const LOOKS: u32 = 100;
/// After so long asleep a side asks whether it should be.
const NAP: Timespec = Timespec { tv_sec: 0, tv_nsec: 300_000_000 };
/// After so long without anything the other side is stuck, which is another fault.
const STUCK: Duration = Duration::from_secs(60);

/// What a side has put into the ring, and what of it it has decided whether to wake the other for.
#[derive(Default)]
struct Side {
    put: AtomicU64,
    decided: AtomicU64,
}

impl Side {
    fn puts(&self, put: impl FnOnce() -> u64) {
        // Before the other side can see it: what is put is never less than what is seen.
        self.put.fetch_add(1, Ordering::SeqCst);
        let count = put();
        self.put.fetch_add(count - 1, Ordering::SeqCst);
    }

    fn decides(&self) {
        self.decided.store(self.put.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    fn has_decided(&self) -> bool {
        self.decided.load(Ordering::SeqCst) == self.put.load(Ordering::SeqCst)
    }
}

fn nap(bell: &OwnedFd) -> bool {
    poll(&mut [PollFd::from_borrowed_fd(bell.as_fd(), PollFlags::IN)], Some(&NAP)) != Ok(0)
}

/// Sleeps until `bell` rings. `waits` tells whether there is something that the sleeper would have been woken for.
fn sleep(bell: &OwnedFd, other: &Side, name: &str, mut waits: impl FnMut() -> bool) {
    if (0..LOOKS).any(|_| rung(bell) > 0) {
        return;
    }
    let end = Instant::now() + STUCK;
    while !nap(bell) {
        // It decided, there is something, and it did not ring: in this order, so that nothing comes in between.
        if other.has_decided() && waits() && other.has_decided() && rung(bell) == 0 {
            panic!("a wake-up of the {name} is lost");
        }
        assert!(Instant::now() < end, "nothing comes for the {name}");
    }
    let _ = rung(bell);
}

/// A few turns or a few hundred, so that the two meet at every point.
struct Dither(u32);

impl Dither {
    fn spin(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let turns = (self.0 >> 8) % (1 << (self.0 >> 28));
        (0..turns % 700).for_each(|_| std::hint::spin_loop());
        self.0 >> 16
    }
}

struct Device<'a> {
    ring: Ring,
    memory: &'a GuestMemory,
    kick: &'a OwnedFd,
    driver: &'a Side,
    me: &'a Side,
}

impl Device<'_> {
    fn run(mut self, chains: u64) {
        let (mut served, mut dither) = (0, Dither(1));
        while served < chains {
            let mut list = ChainList::new();
            self.ring.take(self.memory, 32, &mut list);
            if list.chains.is_empty() {
                self.ring.set_kicks(true);
                if !self.ring.has_available() {
                    let ring = &self.ring;
                    sleep(self.kick, self.driver, "device", || ring.has_available());
                }
                self.ring.set_kicks(false);
                continue;
            }
            let used: Vec<_> =
                list.chains.iter().map(|chain| Used { len: 0, id: chain.id, slots: chain.slots }).collect();
            served += used.len() as u64;
            let ring = &mut self.ring;
            self.me.puts(|| {
                ring.publish(used.iter().copied());
                used.len() as u64
            });
            fence(Ordering::SeqCst);
            self.ring.interrupt(&mut 0);
            self.me.decides();
            dither.spin();
        }
    }
}

struct Driver<'a> {
    queue: &'a mut Queue,
    direction: Direction,
    kick: &'a OwnedFd,
    call: &'a OwnedFd,
    device: &'a Side,
    me: &'a Side,
}

impl Driver<'_> {
    fn run(self, chains: u64) {
        let Self { queue, direction, kick, call, device, me } = self;
        let (mut put, mut collected, mut dither) = (0, 0, Dither(7));
        while collected < chains {
            let count = (1 + u64::from(dither.spin() % 3)).min(chains - put).min(queue.room().into());
            if count > 0 {
                me.puts(|| {
                    for _ in 0..count {
                        queue.add(&plain(direction), false).unwrap();
                    }
                    count
                });
                put += count;
                if queue.device_wants_kick() {
                    ring(kick);
                }
                me.decides();
                dither.spin();
            }
            // Not always all of it, so that the device is busy with the rest.
            let enough = put - u64::from(dither.spin() % 2).min(put - collected);
            while collected < enough {
                if queue.used().is_some() {
                    collected += 1;
                    continue;
                }
                queue.set_interrupts(true);
                let mut found = queue.used();
                if found.is_none() {
                    sleep(call, device, "driver", || {
                        found = found.or_else(|| queue.used());
                        found.is_some()
                    });
                }
                queue.set_interrupts(false);
                collected += u64::from(found.is_some());
            }
        }
    }
}

fn hammer(layout: Layout, rules: Rules, direction: Direction) {
    let size = if layout == Layout::Packed { 13 } else { 16 };
    let mut bench = Bench::with(layout, rules, direction, size, 0);
    let bells = Bells::new(true).unwrap();
    let (kick, call) = (bells.kick.unwrap(), bells.call.unwrap());
    let (address, theirs) = (address(&bench.queue, &bench.memory), call.try_clone().unwrap());
    let features = features(layout, rules);
    let ring = Ring::new(features, direction, address, bench.ring.base(), &bench.shared, Some(theirs.into())).unwrap();
    let (driver_side, device_side) = (Side::default(), Side::default());
    let device = Device { ring, memory: &bench.shared, kick: &kick, driver: &driver_side, me: &device_side };
    let driver =
        Driver { queue: &mut bench.queue, direction, kick: &kick, call: &call, device: &device_side, me: &driver_side };
    std::thread::scope(|scope| {
        scope.spawn(|| device.run(ROUNDS));
        driver.run(ROUNDS);
    });
}

/// Each combination is a test of its own, named after it.
macro_rules! no_wake_up_is_lost {
    ($($name:ident: $layout:ident $event_idx:literal $in_order:literal $direction:ident;)+) => {
        $(#[test]
        fn $name() {
            let rules = Rules { event_idx: $event_idx, in_order: $in_order };
            hammer(Layout::$layout, rules, Direction::$direction);
        })+
    };
}

no_wake_up_is_lost! {
    no_wake_up_is_lost_packed_transmitq: Packed false false Readable;
    no_wake_up_is_lost_packed_receiveq: Packed false false Writable;
    no_wake_up_is_lost_packed_event_idx_transmitq: Packed true false Readable;
    no_wake_up_is_lost_packed_event_idx_receiveq: Packed true false Writable;
    no_wake_up_is_lost_packed_event_idx_in_order: Packed true true Readable;
    no_wake_up_is_lost_split_transmitq: Split false false Readable;
    no_wake_up_is_lost_split_receiveq: Split false false Writable;
    no_wake_up_is_lost_split_event_idx_transmitq: Split true false Readable;
    no_wake_up_is_lost_split_event_idx_receiveq: Split true false Writable;
    no_wake_up_is_lost_split_event_idx_in_order: Split true true Readable;
}
