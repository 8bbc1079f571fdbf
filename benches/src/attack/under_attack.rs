//! A neighbour's traffic without the attacker and with it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ringway_testbed::{Metrics, scratch_dir};
use serde::Serialize;

use super::attacks::{ATTACKER, Attack, FRAME_LEN, NEIGHBOUR, PEER, SINK};
use super::subject::{Subject, port};
use crate::generator::guest::{Counts, Shape};
use crate::generator::pace::Rate;
use crate::generator::pattern::{Pattern, addresses, station};
use crate::generator::{Generator, Sockets, Stream};
use crate::switch::Backend;

const SHAPE: Shape = Shape { ring_size: 256, frame_len: FRAME_LEN };
/// Before each measurement.
const WARM_UP: Duration = Duration::from_millis(300);
/// Long enough for every table to be as full as it gets.
const ATTACK_BEGINS: Duration = Duration::from_millis(1500);
/// For what the switch can do at most.
const CAPACITY: Duration = Duration::from_millis(700);
/// Of that, what neighbour and peer send each: together with the attacker three ports want something, so a third would be fair.
const SHARE: f64 = 0.2;

/// What one round of one attack on one switch came to.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Suffered {
    pub(super) guests: usize,
    /// Million frames a second between neighbour and peer: the most, and what was asked for.
    pub(super) capacity: f64,
    pub(super) asked: f64,
    /// That arrived, without the attacker and with it.
    pub(super) alone: f64,
    pub(super) attacked: f64,
    /// Part of what was sent alone, and more of it under attack: of the direction that suffers more.
    pub(super) loss: f64,
    /// Million frames a second that the switch took from the attacker.
    pub(super) attack: f64,
    /// MiB of memory under attack, and how much it grew meanwhile.
    pub(super) memory_mib: f64,
    pub(super) growth_mib: f64,
    /// Of Ringway: the attacker's part of what the metric that tells who it was has counted.
    pub(super) named: Option<f64>,
    /// Of Ringway: stations and flows remembered, as parts of what there may be.
    pub(super) stations: Option<f64>,
    pub(super) flows: Option<f64>,
    /// The smallest part of its CPU that switch or guests had.
    pub(super) cpu_share: f64,
}

pub(super) fn measure(attack: Attack, backend: Backend, measured: Duration, tsc_hz: f64) -> Result<Suffered> {
    let directory = scratch_dir()?;
    let guests = Subject::guests(backend, attack.guests());
    let sockets = Sockets::listen(directory.path(), guests)?;
    let mut subject = Subject::start(backend, sockets.paths())?;
    let mut generator = Generator::connect(&sockets, SHAPE, tsc_hz)?;
    subject.wait_ready(guests)?;

    generator.say(SINK, addresses(station(PEER, 0), station(SINK, 0)));
    let full = generator.run(&mut pair(Rate::Line), WARM_UP, CAPACITY)?;
    let capacity = arrived(&full);
    ensure!(capacity > 0.0, "no frame came from the neighbour to its peer");
    let rate = Rate::PerSecond(capacity * SHARE);
    let (begun, times) = (Instant::now(), subject.cpu_times()?);
    let alone = generator.run(&mut pair(rate), WARM_UP, measured)?;
    let share_alone = share(times, subject.cpu_times()?, begun.elapsed());

    let mut streams = pair(rate);
    streams.push(Stream { guest: ATTACKER, pattern: attack.pattern(), rate: Rate::Line });
    generator.run(&mut streams, Duration::ZERO, ATTACK_BEGINS)?;
    let (before, memory) = (subject.metrics()?, subject.memory()?);
    let (begun, times) = (Instant::now(), subject.cpu_times()?);
    let attacked = generator.run(&mut streams, WARM_UP, measured)?;
    let cpu_share = share(times, subject.cpu_times()?, begun.elapsed()).min(share_alone);
    let (after, memory_after) = (subject.metrics()?, subject.memory()?);

    const MIB: f64 = 1024.0 * 1024.0;
    let limits = |metrics: &Metrics, entries: &str, most: f64| metrics.sum(entries, &[]) / most;
    let told = |metrics: &Metrics, labels: &[(&str, &str)]| {
        let (name, reason) = attack.told_by();
        let reason = reason.map(|reason| ("reason", reason));
        metrics.sum(name, &labels.iter().copied().chain(reason).collect::<Vec<_>>())
    };
    let named = before.as_ref().zip(after.as_ref()).map(|(before, after)| {
        let since = |labels: &[(&str, &str)]| told(after, labels) - told(before, labels);
        since(&[("port", &port(ATTACKER))]) / since(&[]).max(f64::MIN_POSITIVE)
    });
    Ok(Suffered {
        guests,
        capacity: capacity / 1e6,
        asked: 2.0 * capacity * SHARE / 1e6,
        alone: arrived(&alone) / 1e6,
        attacked: arrived(&attacked) / 1e6,
        loss: loss(&alone, &attacked),
        attack: attacked[ATTACKER].sent as f64 / attacked[ATTACKER].seconds / 1e6,
        memory_mib: memory_after / MIB,
        growth_mib: (memory_after - memory) / MIB,
        named,
        stations: after.as_ref().map(|page| limits(page, "ringway_mac_entries", MACS_MAX)),
        flows: after.as_ref().map(|page| limits(page, "ringway_flow_entries", page.sum("ringway_flow_capacity", &[]))),
        cpu_share,
    })
}

/// The smaller part of its CPU that one of both had.
pub(super) fn share(before: [f64; 2], after: [f64; 2], passed: Duration) -> f64 {
    let shares = before.iter().zip(after).map(|(before, after)| (after - before) / passed.as_secs_f64());
    shares.fold(f64::INFINITY, f64::min)
}

/// The default of `macs_max`.
const MACS_MAX: f64 = 32_768.0;

/// The neighbour and its peer talk with each other.
fn pair(rate: Rate) -> Vec<Stream> {
    let flow = |from, to| Stream { guest: from, pattern: Pattern::flows(from, 1, to, 1), rate };
    vec![flow(NEIGHBOUR, PEER), flow(PEER, NEIGHBOUR)]
}

/// Frames a second that came from one to the other, both ways.
fn arrived(counts: &[Counts]) -> f64 {
    [NEIGHBOUR, PEER].iter().map(|&guest| counts[guest].received as f64 / counts[guest].seconds).sum()
}

/// How much less of what was due arrived than without the attack, in the direction that suffers more.
fn loss(alone: &[Counts], attacked: &[Counts]) -> f64 {
    let part =
        |counts: &[Counts], from: usize, to: usize| counts[to].received as f64 / (counts[from].offered as f64).max(1.0);
    let loss = |(from, to)| 1.0 - part(attacked, from, to) / part(alone, from, to).max(f64::MIN_POSITIVE);
    [(NEIGHBOUR, PEER), (PEER, NEIGHBOUR)].map(loss).into_iter().fold(f64::NEG_INFINITY, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(offered: u64, received: u64) -> Counts {
        Counts { seconds: 2.0, offered, sent: offered, received, overheard: 0 }
    }

    #[test]
    fn the_direction_that_suffers_more_counts() {
        let alone = [Counts::default(), counts(1000, 980), counts(1000, 1000)];
        let attacked = [Counts::default(), counts(1000, 490), counts(500, 1000)];
        assert_eq!(arrived(&attacked), 745.0);
        // To the peer all of it came; to the neighbour 490 of 500, as without the attack.
        assert!(loss(&alone, &attacked).abs() < 1e-9);
        let attacked = [Counts::default(), counts(1000, 980), counts(1000, 900)];
        assert!((loss(&alone, &attacked) - 0.1).abs() < 1e-9);
    }
}
