//! Kicks and interrupts between guests and a worker that sleeps and wakes, and batches acknowledged at once.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ringway::account::DropReason;
use ringway::control::View;
use ringway::guest::ring::RingFault;
use ringway::worker::Mode;
use ringway_testbed::driver::frame::frame;
use ringway_testbed::driver::front_end::{Bells, feature, request, ring, rung};
use ringway_testbed::driver::queue::flag;
use ringway_testbed::driver::{Guest, Layout, Options, PATIENCE, Pair, RawDescriptor, eventually};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::guests::{LAYOUTS, Net, introduce, passes, station};

fn with(layout: Layout, features: u64) -> Options {
    let usual = Options::new(layout);
    Options { features: usual.features | features, ..usual }
}

const ROUNDS: u64 = 3000;
/// A worker that has seen no frame for this long goes to sleep; frames come a little before and a little after.
const SLEEPS_AFTER_US: u64 = 1000;

/// One of two guests that send each other one frame, to and fro, each asleep until it is interrupted.
struct Player<'a> {
    net: &'a Net,
    pair: &'a mut Pair,
    number: usize,
    /// Frames that each has sent and kicked for, if it had to.
    sent: &'a [AtomicU64; 2],
}

impl Player<'_> {
    fn send(&mut self, round: u64) {
        self.pair.send(&frame(station(1 - self.number), station(self.number), 64, round));
        self.sent[self.number].fetch_add(1, Ordering::SeqCst);
    }

    fn receive(&mut self, round: u64) {
        let expected = frame(station(self.number), station(1 - self.number), 64, round);
        assert!(self.sleep_until_it_comes(round) == expected, "another frame comes in round {round}");
    }

    /// Enable, fence, look again, sleep.
    fn sleep_until_it_comes(&mut self, round: u64) -> Vec<u8> {
        loop {
            if let Some(frame) = self.pair.try_receive() {
                return frame;
            }
            self.pair.receiveq.set_interrupts(true);
            if let Some(frame) = self.pair.try_receive() {
                self.pair.receiveq.set_interrupts(false);
                return frame;
            }
            self.sleep(round);
            self.pair.receiveq.set_interrupts(false);
        }
    }

    /// Until the eventfd rings. After a while in which nothing happened it tells whose wake-up is lost, or that it is only slow.
    fn sleep(&mut self, round: u64) {
        let Self { net, pair, number, sent } = self;
        let call = pair.receive_bells.call.as_ref().unwrap();
        let end = Instant::now() + PATIENCE * 2;
        while !naps(call) {
            assert!(Instant::now() < end, "round {round}: guest {number} waits and nobody has lost anything: stuck");
            // Each step may be late once, as everything may be; a wake-up that is lost is late for good.
            let is_late = |so: &dyn Fn() -> bool| {
                (0..20).all(|_| {
                    std::thread::sleep(Duration::from_millis(50));
                    so()
                })
            };
            let came = net.counters(*number).transmitted.packets.get();
            let interrupts = net.counters(*number).interrupts.get();
            let is_silent = || rung(call) == 0;
            if came > round && is_late(&|| net.counters(*number).interrupts.get() == interrupts) && is_silent() {
                panic!("round {round}: the frame for guest {number} is there, and its interrupt is lost");
            }
            let other = 1 - *number;
            let theirs = sent[other].load(Ordering::SeqCst);
            let taken = || net.counters(other).received.packets.get();
            // One frame each was sent to get to know each other.
            if theirs + 1 > taken() && is_late(&|| theirs + 1 > taken()) {
                panic!("round {round}: the frame of guest {other} is not taken: its kick is lost");
            }
        }
        let _ = rung(call);
    }
}

fn naps(bell: &OwnedFd) -> bool {
    let limit = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };
    poll(&mut [PollFd::from_borrowed_fd(bell.as_fd(), PollFlags::IN)], Some(&limit)) != Ok(0)
}

fn to_and_fro(layout: Layout, features: u64) {
    let net = Net::new(2);
    let options = with(layout, features);
    let mut guests = vec![net.plug(0, options), net.plug(1, options)];
    introduce(&mut guests);
    let worker = &net.switch.workers()[0].counters;
    let (sent, slept) = (Default::default(), worker.iterations(Mode::Sleep));
    let mut players = (0..).zip(&mut guests).map(|(number, guest)| {
        guest.pairs[0].transmitq.set_interrupts(false);
        guest.pairs[0].receiveq.set_interrupts(false);
        Player { net: &net, pair: &mut guest.pairs[0], number, sent: &sent }
    });
    let (mut serves, mut returns) = (players.next().unwrap(), players.next().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for round in 1..=ROUNDS {
                returns.receive(round);
                returns.send(round);
            }
        });
        let mut random = 1u64;
        for round in 1..=ROUNDS {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Most of the time just when the worker goes to sleep, at times long after.
            let late = if round % 8 == 0 { 400 } else { 60 };
            let wait = Duration::from_nanos((SLEEPS_AFTER_US - 30) * 1000 + (random >> 33) % (late * 1000));
            let begin = Instant::now();
            while begin.elapsed() < wait {
                std::hint::spin_loop();
            }
            serves.send(round);
            serves.receive(round);
        }
    });
    let slept = worker.iterations(Mode::Sleep) - slept;
    assert!(slept > ROUNDS / 20, "the worker slept {slept} times in {ROUNDS} rounds: this shows nothing");
    net.assert_balances();
}

#[test]
fn no_wake_up_is_lost_packed() {
    to_and_fro(Layout::Packed, 0);
}

#[test]
fn no_wake_up_is_lost_packed_event_idx() {
    to_and_fro(Layout::Packed, feature::EVENT_IDX | feature::IN_ORDER);
}

#[test]
fn no_wake_up_is_lost_split() {
    to_and_fro(Layout::Split, 0);
}

#[test]
fn no_wake_up_is_lost_split_event_idx() {
    to_and_fro(Layout::Split, feature::EVENT_IDX | feature::IN_ORDER);
}

/// With EVENT_IDX a guest that wants to hear of the tenth frame hears of the tenth, once; and both kinds are counted.
#[test]
fn an_interrupt_at_the_position_asked_for() {
    for layout in LAYOUTS {
        // Sizes that do not divide what follows, so that positions wrap at all places.
        let size = if layout == Layout::Packed { 61 } else { 64 };
        let net = Net::new(2);
        let options = Options { size, buffers: 50, ..with(layout, feature::EVENT_IDX) };
        let mut guests = vec![net.plug(0, options), net.plug(1, options)];
        introduce(&mut guests);
        let counters = net.counters(1);
        guests[1].pairs[0].transmitq.set_interrupts(false);
        let rang = |guests: &[Guest]| rung(guests[1].pairs[0].receive_bells.call.as_ref().unwrap());
        for turn in 0..100 {
            assert!(guests[0].settles());
            let _ = rang(&guests);
            guests[1].pairs[0].receiveq.set_interrupt_after(9);
            let sent = counters.interrupts.get();
            for n in 0..25 {
                passes(&mut guests, 0, 1, 60 + n);
                // The last burst's interrupt is decided a moment later.
                let decided = if n >= 9 { sent + 1 } else { sent };
                if n == 9 {
                    assert!(eventually(|| counters.interrupts.get() == decided), "{layout:?} turn {turn}");
                }
                assert_eq!(counters.interrupts.get(), decided, "{layout:?} turn {turn}, frame {n}");
            }
            assert_eq!(rang(&guests), 1, "{layout:?} turn {turn}");
        }
        let suppressed = counters.interrupts_suppressed.get();
        assert!(suppressed > 1000, "{layout:?}: {suppressed}");
        let labels = [("port", "vm1")];
        assert!(net.metric("ringway_queue_guest_interrupts_suppressed_total", &labels) >= suppressed);
        assert_eq!(net.metric("ringway_queue_guest_interrupts_total", &labels), counters.interrupts.get());
        let queues = net.show(View::Queues);
        let queues = queues.as_array().unwrap();
        assert_eq!(queues.len(), 2, "a pair that was never in use is shown");
        let queue = queues.iter().find(|queue| queue["queue"] == "vm1/0").unwrap();
        assert_eq!(queue["interrupts"], counters.interrupts.get());
        assert!(queue["interrupts_suppressed"].as_u64() >= Some(suppressed));
    }
}

/// An eventfd whose counter is full takes no more interrupts: none is counted that was not sent, and frames come all the same.
#[test]
fn an_eventfd_to_which_nobody_listens() {
    for layout in LAYOUTS {
        let net = Net::new(2);
        let mut guests = vec![net.plug(0, with(layout, 0)), net.plug(1, with(layout, 0))];
        introduce(&mut guests);
        let counters = net.counters(1);
        let call = guests[1].pairs[0].receive_bells.call.as_ref().unwrap().try_clone().unwrap();
        let decided = || counters.interrupts.get() + counters.interrupts_suppressed.get();
        // Both decisions of the burst before are made.
        assert!(eventually(|| decided() >= 2));
        std::thread::sleep(Duration::from_millis(20));
        let _ = rung(&call);
        rustix::io::write(&call, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        let (sent, before) = (counters.interrupts.get(), decided());
        for n in 0..10 {
            passes(&mut guests, 0, 1, 60 + n);
        }
        assert!(eventually(|| decided() >= before + 10), "{layout:?}");
        assert_eq!(counters.interrupts.get(), sent, "{layout:?}");
        assert_eq!(rung(&call), u64::MAX - 1);
        passes(&mut guests, 0, 1, 64);
        assert!(eventually(|| counters.interrupts.get() == sent + 1), "{layout:?}");
    }
}

/// With IN_ORDER a burst of a transmitq is acknowledged by one used entry; on a receiveq each buffer has its own.
#[test]
fn bursts_are_acknowledged_at_once() {
    for (layout, size) in [(Layout::Packed, 256), (Layout::Packed, 83), (Layout::Split, 64)] {
        for features in [feature::IN_ORDER, feature::IN_ORDER | feature::EVENT_IDX] {
            let net = Net::new(2);
            let options = Options { size, buffers: 60, buffer_len: 1000, ..with(layout, features) };
            let mut guests = vec![net.plug(0, options), net.plug(1, options)];
            assert_eq!(guests[0].options.features & features, features);
            introduce(&mut guests);
            for turn in 0..100u64 {
                let frames: Vec<_> = (0..16)
                    .map(|n| frame(station(1), station(0), [60, 128, 1500][(n + turn) as usize % 3], turn * 16 + n))
                    .collect();
                send_as_a_burst(&mut guests[0].pairs[0], &frames, turn % 2 == 0);
                for (n, sent) in frames.iter().enumerate() {
                    assert!(guests[1].receive().as_ref() == Some(sent), "{layout:?} {size}: turn {turn}, frame {n}");
                }
            }
            assert!(guests[0].settles());
            let (batches, single) =
                (guests[0].pairs[0].transmitq.used_entries(), guests[1].pairs[0].receiveq.used_entries());
            assert!(batches <= 800, "{layout:?} {size}: {batches} used entries for 1600 chains");
            assert!(single >= 1600, "{layout:?} {size}: {single} used entries for 1600 frames");
            passes(&mut guests, 1, 0, 64);
            net.assert_balances();
        }
    }
}

/// Makes all of them available, some in chains of three, while the worker sleeps, and kicks it once.
fn send_as_a_burst(pair: &mut Pair, frames: &[Vec<u8>], chained: bool) {
    std::thread::sleep(Duration::from_millis(2));
    let kick = pair.transmit_bells.kick.take().unwrap();
    for (n, frame) in frames.iter().enumerate() {
        let bytes = [&vec![0; pair.header_len()], &frame[..]].concat();
        let cuts: &[usize] = if chained && n % 4 == 1 { &[12, 40] } else { &[] };
        pair.send_cut(&bytes, cuts, false);
    }
    ring(&kick);
    pair.transmit_bells.kick = Some(kick);
}

/// SET_VRING_CALL and SET_VRING_ERR of a ring that runs: it goes on meanwhile, and no interrupt is lost.
#[test]
fn eventfds_change_while_frames_come() {
    for layout in LAYOUTS {
        let net = Net::new(2);
        let mut guests = vec![net.plug(0, with(layout, 0)), net.plug(1, with(layout, feature::EVENT_IDX))];
        introduce(&mut guests);
        let [mut sender, mut receiver] = <[Guest; 2]>::try_from(guests).unwrap();
        let (stop, taken) = (&AtomicBool::new(false), &AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut sent = 0;
                while !stop.load(Ordering::Relaxed) {
                    // Never more than there are buffers for, however long the receiver has no CPU.
                    if sent < taken.load(Ordering::Relaxed) + 64 {
                        sender.send(&frame(station(1), station(0), 64, sent));
                        sent += 1;
                    }
                    std::thread::sleep(Duration::from_micros(50));
                }
                assert!(sender.settles());
            });
            let take = |pair: &mut Pair| {
                while pair.try_receive().is_some() {
                    taken.fetch_add(1, Ordering::Relaxed);
                }
            };
            for _ in 0..200 {
                let bells = Bells::new(false).unwrap();
                let call = bells.call.unwrap();
                receiver.front_end.set_fd(request::SET_VRING_CALL, 0, Some(call.as_fd())).unwrap();
                receiver.front_end.set_fd(request::SET_VRING_ERR, 0, Some(bells.error.as_fd())).unwrap();
                assert!(rung(&call) > 0, "it is rung once for what went to the one before");
                // As a driver does that has found something after it asked: it asks again.
                let comes = || {
                    take(&mut receiver.pairs[0]);
                    receiver.pairs[0].receiveq.set_interrupts(true);
                    rung(&call) > 0
                };
                assert!(eventually(comes), "{layout:?}: the new eventfd is not used");
                let before = &receiver.pairs[0].receive_bells.call.replace(call);
                let _ = before.as_ref().map(rung);
                receiver.pairs[0].receive_bells.error = bells.error;
            }
            stop.store(true, Ordering::Relaxed);
        });
        net.assert_balances();
        for reason in [DropReason::ReceiverStopped, DropReason::NoDestination] {
            assert_eq!(net.receive_dropped(0, reason) + net.counters(1).transmit_dropped.get(reason), 0, "{reason:?}");
        }
        assert_eq!(net.metric("ringway_dropped_packets_total", &[]), 0);
    }
}

/// A bad buffer behind good ones, found while buffers for a whole burst are reserved: the good ones are used, then the pair
/// stands still.
#[test]
fn buffers_before_a_bad_one_are_good() {
    for layout in LAYOUTS {
        let net = Net::new(2);
        let mut guests =
            vec![net.plug(0, Options::new(layout)), net.plug(1, Options { buffers: 3, ..Options::new(layout) })];
        introduce(&mut guests);
        passes(&mut guests, 0, 1, 64);
        let bad = RawDescriptor { address: 1 << 50, len: 2048, flags: flag::WRITE, next: None };
        guests[1].pairs[0].receiveq.add_raw(&[bad]);
        let frames: Vec<_> = (0..5).map(|n| frame(station(1), station(0), 64, n)).collect();
        send_as_a_burst(&mut guests[0].pairs[0], &frames, false);
        assert!(eventually(|| net.counters(1).fault() == Some(RingFault::BadAddress)), "{layout:?}");
        for (n, sent) in frames.iter().take(3).enumerate() {
            assert!(guests[1].receive().as_ref() == Some(sent), "{layout:?}: frame {n}");
        }
        assert!(eventually(|| net.counters(1).transmit_dropped.get(DropReason::ReceiverStopped) == 2), "{layout:?}");
        assert!(guests[1].pairs[0].is_given_up());
        net.assert_balances();
    }
}
