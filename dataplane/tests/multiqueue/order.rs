//! No frame of a flow passes another, and none is lost, while the receiver switches pairs off and on and chooses others for its
//! answers, while pairs move from worker to worker, and while workers come and go.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ringway::guest::PairId;
use ringway::switch::{QueueRef, Switch};
use ringway::worker::Worker;
use ringway_config::{Unit, Workers};
use ringway_testbed::driver::{Guest, Layout, Options, PATIENCE};

use crate::flows::{Way, identify, udp};
use crate::guests::{LAYOUTS, Net, Setup, cpus, introduce};

const PAIRS: u8 = 4;
const FLOWS: u16 = 61;
/// Frames under way at most: fewer than a ring has buffers, and a hand-off ring places. So none may be dropped.
const WINDOW: u64 = 200;

/// xorshift64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}

/// Stops the disturber, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The receiving guest, and what it has seen of each flow.
struct Receiver<'a> {
    guest: &'a mut Guest,
    expected: Vec<u64>,
    /// By which pair each flow came last.
    last: Vec<usize>,
    came: u64,
    changed: u64,
    /// When each pair was read last, and the longest that one waited for that.
    read: Vec<Instant>,
    slowest: Duration,
}

impl Receiver<'_> {
    fn read(&mut self, pair: usize) {
        let waited = std::mem::replace(&mut self.read[pair], Instant::now()).elapsed();
        self.slowest = self.slowest.max(waited);
        while let Some(frame) = self.guest.pairs[pair].try_receive() {
            let (flow, number) = identify(&frame, Way::There);
            let expected = &mut self.expected[usize::from(flow)];
            let last = self.last[usize::from(flow)];
            assert_eq!(number, *expected, "flow {flow}, by pair {pair} after {last}; longest wait {:?}", self.slowest);
            *expected += 1;
            self.came += 1;
            if std::mem::replace(&mut self.last[usize::from(flow)], pair) != pair {
                self.changed += 1;
            }
        }
    }
}

/// Moves pairs, and ends and starts workers, until told to stop. How often a pair moved, and a worker ended.
fn disturb(switch: &Switch, stop: &AtomicBool) -> (u64, u64) {
    let (mut dice, mut moved, mut ended) = (Dice(99), 0, 0);
    while !stop.load(Ordering::Relaxed) {
        let workers = switch.workers();
        let id = PairId { port: dice.below(2) as u16, index: dice.below(PAIRS.into()) as u16 };
        let worker = &workers[dice.below(workers.len() as u64) as usize];
        // A pair that is just being switched off or on is nobody's for a moment.
        moved += u64::from(switch.move_pair(id, worker.number).unwrap_or(false));
        if dice.below(20) == 0 {
            match workers.len() {
                1 => {
                    let cpu = Worker::allowed_cpus().into_iter().find(|&cpu| cpu != workers[0].cpu).unwrap();
                    let number = switch.add_worker(cpu).unwrap();
                    assert_eq!(switch.worker(number).unwrap().cpu, cpu);
                }
                _ => {
                    switch.remove_worker(worker.number).unwrap();
                    ended += 1;
                    assert!(switch.worker_of(QueueRef::Pair(id)) != Some(worker.number));
                }
            }
        }
        thread::sleep(Duration::from_micros(dice.below(1500)));
    }
    (moved, ended)
}

fn in_order(layout: Layout, frames: u64) {
    let workers = cpus().min(2);
    let placing = Workers { unit: Unit::Pair, ..Workers::default() };
    let net: Net = Setup { ports: 2, workers, placing, ..Setup::default() }.start();
    let options = Options { pairs: PAIRS, size: 256, buffers: 256, memory_len: 16 << 20, ..Options::new(layout) };
    let mut guests: Vec<_> = (0..2).map(|index| net.plug(index, options)).collect();
    introduce(&mut guests);
    let [sender, receiver] = &mut guests[..] else { panic!("two guests") };
    let flows = usize::from(FLOWS);
    let mut receiver = Receiver {
        guest: receiver,
        expected: vec![0; flows],
        last: vec![usize::MAX; flows],
        came: 0,
        changed: 0,
        read: vec![Instant::now(); usize::from(PAIRS)],
        slowest: Duration::ZERO,
    };
    let (mut next, mut sent, mut answers, mut dice) = (vec![0; flows], 0, 0u64, Dice(1 + frames));
    let (mut off, mut switched) = (None, 0);
    let stop = AtomicBool::new(false);
    let (moved, ended) = thread::scope(|scope| {
        let _stop = Stop(&stop);
        let disturber = (workers > 1).then(|| scope.spawn(|| disturb(&net.switch, &stop)));
        let mut progress = (Instant::now(), 0);
        while receiver.came < frames {
            while sent < frames && sent - receiver.came < WINDOW {
                let flow = dice.below(FLOWS.into()) as u16;
                let number = &mut next[usize::from(flow)];
                if !sender.pairs[usize::from(flow) % usize::from(PAIRS)].try_send(&udp(flow, Way::There, *number)) {
                    break;
                }
                *number += 1;
                sent += 1;
            }
            let first = dice.below(PAIRS.into()) as usize;
            (0..usize::from(PAIRS)).for_each(|pair| receiver.read((first + pair) % usize::from(PAIRS)));
            // The receiver answers by whatever pair, and will have what follows by that.
            let by = dice.below(PAIRS.into()) as u8;
            if Some(by) != off && dice.below(4) == 0 {
                let flow = dice.below(FLOWS.into()) as u16;
                if receiver.guest.pairs[usize::from(by)].try_send(&udp(flow, Way::Back, answers)) {
                    answers += 1;
                }
            }
            sender.pairs.iter_mut().for_each(|pair| while pair.try_receive().is_some() {});
            if dice.below(200) == 0 {
                switched += 1;
                match off.take() {
                    Some(pair) => receiver.guest.enable(pair, true).unwrap(),
                    None => {
                        let pair = 1 + dice.below(u64::from(PAIRS) - 1) as u8;
                        receiver.guest.enable(pair, false).unwrap();
                        // What it was given before goes before what others are given now.
                        receiver.read(usize::from(pair));
                        off = Some(pair);
                    }
                }
            }
            if receiver.came > progress.1 {
                progress = (Instant::now(), receiver.came);
            }
            assert!(progress.0.elapsed() < PATIENCE * 3, "{} of {sent} sent frames came", receiver.came);
        }
        stop.store(true, Ordering::Relaxed);
        disturber.map_or((1, 1), |thread| thread.join().unwrap())
    });
    eprintln!(
        "{layout:?}: {frames} frames in order; pairs switched {switched} times and moved {moved} times, {ended} workers ended, {} changes of the pair of a flow; a pair waited {:?} to be read",
        receiver.changed, receiver.slowest
    );
    assert_eq!(receiver.expected, next);
    assert!(receiver.changed > 0 && moved > 0 && switched > 0 && ended > 0);
    net.assert_balances();
}

#[test]
fn frames_stay_in_order_whatever_changes() {
    LAYOUTS.into_iter().for_each(|layout| in_order(layout, 100_000));
}

/// The same, 10⁷ frames.
#[test]
#[ignore = "minutes"]
fn ten_million_frames_stay_in_order_whatever_changes() {
    LAYOUTS.into_iter().for_each(|layout| in_order(layout, 5_000_000));
}
