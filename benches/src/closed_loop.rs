//! The bench `loop`: how fast, at what cost and how soon one core passes frames between two guests.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ringway_testbed::{HugePages, Process, ringway_binary, scratch_dir};
use serde_json::json;

use crate::bars;
use crate::bench::Outcome;
use crate::cell::{Case, Cell, HEADINGS};
use crate::cli::Options;
use crate::compile::Program;
use crate::interrupt;
use crate::judge::{CPU_SHARE_MIN, HalfLoad, LATENCY_CPU_SHARE_MIN, Measured, Round};
use crate::load::{self, Load, Nics};
use crate::machine::Machine;
use crate::paced::{self, Latency, Pace, Paced};
use crate::report::{Bar, Table};
use crate::switch::{self, Backend, Counted, Switch, Workshop};

/// Until caches, learned addresses and the CPU's clock have settled.
pub(crate) const WARM_UP: Duration = Duration::from_secs(2);

/// Measurements of one switch in a row until one had the CPUs for itself; the last one is taken as it is.
const TRIES: usize = 3;

pub(crate) fn run(options: &Options) -> Result<Outcome> {
    let backends = backends(options);
    ensure!(!backends.is_empty(), "no backend to measure");
    let machine = Machine::prepare()?;
    if backends.contains(&Backend::Ringway) {
        ringway_binary()?;
    }
    let _pages = HugePages::reserve(load::MEMORY_MIB + switch::MEMORY_MIB)?;
    let workshop = Workshop {
        floor: backends.contains(&Backend::Lawful).then(switch::build_floor).transpose()?,
        other_floor: options.also_floor.as_deref().map(Program::others).transpose()?,
        paced: (options.latency_seconds > 0).then(paced::build).transpose()?,
        tsc_hz: machine.tsc_hz,
    };

    let mut cells: Vec<Cell> = cases(options).map(|case| Cell::new(case, &backends)).collect();
    for number in 1..=options.rounds {
        for cell in &mut cells {
            let place = format!("{}, round {number} of {}", cell.case.name(), options.rounds);
            cell.rounds.push(cell.case.round(&cell.backends, options, &workshop, &place)?);
        }
    }
    cells.iter_mut().for_each(Cell::judge);
    Ok(outcome(&machine, options, &cells))
}

/// The other floor comes right after ours: they are compared.
fn backends(options: &Options) -> Vec<Backend> {
    let mut backends = options.backends.clone();
    if options.also_floor.is_some() {
        let ours = backends.iter().position(|&backend| backend == Backend::Lawful);
        backends.insert(ours.map_or(0, |ours| ours + 1), Backend::OtherFloor);
    }
    backends
}

/// Kinds of rings that are compared follow each other.
fn cases(options: &Options) -> impl Iterator<Item = Case> {
    let of_size = |&frame_len: &u16| options.packed.iter().map(move |&packed| Case { packed: packed == 1, frame_len });
    options.sizes.iter().flat_map(of_size)
}

impl Case {
    /// Each switch once at full speed, then each of them once at the same half load.
    fn round(self, backends: &[Backend], options: &Options, workshop: &Workshop, place: &str) -> Result<Round> {
        let mut round = Round::new();
        for &backend in backends {
            let undisturbed = |measured: &Measured| measured.cpu_share >= CPU_SHARE_MIN;
            let measured = undisturbed_if_can_be(undisturbed, || self.throughput(backend, options.seconds, workshop))?;
            let name = backend.name();
            match &measured {
                Ok(Measured { mframes, cycles, cpu_share, .. }) => {
                    let figures = format!("{mframes:6.2} Mframe/s {cycles:6.1} cycles");
                    eprintln!("{place}: {name:8} {figures}, {:3.0} % of its CPU", cpu_share * 100.0);
                }
                Err(error) => eprintln!("{place}: {name} failed: {error:#}"),
            }
            round.insert(backend, measured.map_err(|error| format!("{error:#}")));
        }
        let (Some(program), Some(mframes)) = (&workshop.paced, half_load(&round, backends)) else { return Ok(round) };
        let pace = Pace { mframes, frame_len: self.frame_len, seconds: options.latency_seconds };
        for (&backend, measured) in &mut round {
            let Ok(full) = measured else { continue };
            let undisturbed = |half: &HalfLoad| half.cpu_share >= LATENCY_CPU_SHARE_MIN;
            let half = undisturbed_if_can_be(undisturbed, || self.latency(backend, program, pace, workshop))?;
            let name = backend.name();
            match half {
                Ok(half) => {
                    let HalfLoad { latency: Latency { p50_us, p99_us, lost, .. }, cpu_share } = half;
                    let figures = format!("p50 {p50_us:.2} us p99 {p99_us:.2} us, {:.3} % lost", lost * 100.0);
                    let share = cpu_share * 100.0;
                    eprintln!("{place}: {name:8} at {mframes:.2} Mframe/s: {figures}, {share:5.1} % of its CPU");
                    full.half_load = Some(half);
                }
                Err(error) => {
                    eprintln!("{place}: {name} failed at half load: {error:#}");
                    *measured = Err(format!("at half load: {error:#}"));
                }
            }
        }
        Ok(round)
    }

    /// One switch at full speed, from its start to its end.
    fn throughput(self, backend: Backend, seconds: u64, workshop: &Workshop) -> Result<Measured> {
        let dir = scratch_dir()?;
        let sockets: [PathBuf; 2] = ["v0", "v1"].map(|name| dir.path().join(name));
        let (mut load, mut switch) =
            together(backend, &sockets, workshop, |nics| Load::start(&sockets, self.nics(nics)))?;
        load.wait_ready()?;
        switch.guests_are_ready()?;

        load.run(self.frame_len)?;
        interrupt::sleep(WARM_UP)?;
        load.frames_per_second()?;
        switch.begin()?;
        let cpu_share = cpu_share(&[switch.process(), load.process()], Duration::from_secs(seconds))?;
        // The rate first: what a switch counts may take it some time to tell.
        let frames = load.frames_per_second()?;
        let Counted { cycles, burst } = switch.end()?;
        ensure!(frames > 0.0, "no frame came back");
        let load_dropped = load.stop()?;
        Ok(Measured { mframes: frames / 1e6, cycles, burst, load_dropped, lost: None, cpu_share, half_load: None })
    }

    /// One switch at a given rate, from its start to its end.
    fn latency(self, backend: Backend, program: &Program, pace: Pace, workshop: &Workshop) -> Result<HalfLoad> {
        let dir = scratch_dir()?;
        let sockets: [PathBuf; 2] = ["v0", "v1"].map(|name| dir.path().join(name));
        let start = |nics| Paced::start(program, &sockets, self.nics(nics), pace);
        let (mut paced, mut switch) = together(backend, &sockets, workshop, start)?;
        paced.wait_ready()?;
        switch.guests_are_ready()?;
        let cpu_share = cpu_share(&[switch.process(), paced.process()], Duration::from_secs(pace.seconds))?;
        Ok(HalfLoad { latency: paced.latency()?, cpu_share })
    }

    fn nics(self, serve: bool) -> Nics {
        Nics { packed: self.packed, serve }
    }
}

/// Measures again, at once and a few times, where somebody else had a part of the CPUs. An error is as good as a figure; the
/// outer one is that of an interrupted bench.
pub(crate) fn undisturbed_if_can_be<M>(
    undisturbed: impl Fn(&M) -> bool,
    measure: impl Fn() -> Result<M>,
) -> Result<Result<M>> {
    for _ in 1..TRIES {
        interrupt::check()?;
        let measured = measure();
        interrupt::check()?;
        if measured.as_ref().map_or(true, &undisturbed) {
            return Ok(measured);
        }
    }
    let measured = measure();
    interrupt::check()?;
    Ok(measured)
}

/// Starts a switch and a load, which is told whether it is to listen. Who listens is started first.
fn together<L>(
    backend: Backend,
    sockets: &[PathBuf; 2],
    workshop: &Workshop,
    start_load: impl FnOnce(bool) -> Result<L>,
) -> Result<(L, Box<dyn Switch>)> {
    if backend.listens() {
        let switch = backend.start(sockets, workshop)?;
        Ok((start_load(false)?, switch))
    } else {
        let load = start_load(true)?;
        Ok((load, backend.start(sockets, workshop)?))
    }
}

/// In million frames a second, the same for all switches, since times at different loads do not compare: half of what
/// testpmd did in this round, or the first switch, if testpmd takes no part. None if that one failed.
fn half_load(round: &Round, backends: &[Backend]) -> Option<f64> {
    let reference = if backends.contains(&Backend::Testpmd) { &Backend::Testpmd } else { backends.first()? };
    Some(round.get(reference)?.as_ref().ok()?.mframes / 2.0)
}

/// Sleeps, and tells the smallest part of its CPU that one of these processes had meanwhile.
pub(crate) fn cpu_share(processes: &[&mut Process], duration: Duration) -> Result<f64> {
    let times = || processes.iter().map(|process| process.cpu_time()).collect::<Result<Vec<_>>>();
    let (begun, before) = (Instant::now(), times()?);
    interrupt::sleep(duration)?;
    let (passed, after) = (begun.elapsed(), times()?);
    let shares = before.iter().zip(&after).map(|(before, after)| (*after - *before).div_duration_f64(passed));
    Ok(shares.fold(f64::INFINITY, f64::min))
}

fn outcome(machine: &Machine, options: &Options, cells: &[Cell]) -> Outcome {
    let rows = cells.iter().flat_map(Cell::rows).collect();
    let notes = cells.iter().map(Cell::note).collect();
    let bars: Vec<Bar> = bars::bars(cells);
    let verdicts = bars.iter().map(|bar| json!({"bar": bar, "holds": bar.holds()})).collect::<Vec<_>>();
    let json = json!({
        "bench": "loop",
        "machine": machine,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "latency_seconds": options.latency_seconds,
        "cells": cells.iter().map(Cell::json).collect::<Vec<_>>(),
        "bars": verdicts,
    });
    let mut head = vec![
        machine.describe(),
        "medians of the rounds that count; cycles: busy ones of CPU 0 a frame; x first: cycles to the first switch's;"
            .to_owned(),
        "batch: frames at a time; p50, p99: one way, at half of testpmd's rate of the round; lost: per cent, there"
            .to_owned(),
    ];
    if options.latency_seconds == 0 {
        head.push("latency was not measured, and without it no bar of the project is met".to_owned());
    }
    Outcome { head, tables: vec![Table { headings: HEADINGS, rows, notes }], bars, json }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(mframes: f64) -> Result<Measured, String> {
        Ok(Measured {
            mframes,
            cycles: 100.0,
            burst: None,
            load_dropped: 0,
            lost: None,
            cpu_share: 1.0,
            half_load: None,
        })
    }

    #[test]
    fn half_load_is_half_of_what_testpmd_did() {
        let backends = [Backend::Lawful, Backend::Testpmd];
        let round = Round::from([(Backend::Lawful, measured(30.0)), (Backend::Testpmd, measured(20.0))]);
        assert_eq!(half_load(&round, &backends), Some(10.0));
        assert_eq!(half_load(&round, &backends[..1]), Some(15.0));
        let failed = Round::from([(Backend::Lawful, measured(30.0)), (Backend::Testpmd, Err("gone".to_owned()))]);
        assert_eq!(half_load(&failed, &backends), None);
    }

    #[test]
    fn the_other_floor_is_measured_beside_ours() {
        let mut options = Options::for_tests();
        options.backends = vec![Backend::Lawful, Backend::Testpmd, Backend::Ringway];
        assert_eq!(backends(&options), options.backends);
        options.also_floor = Some("other.c".into());
        let expected = [Backend::Lawful, Backend::OtherFloor, Backend::Testpmd, Backend::Ringway];
        assert_eq!(backends(&options), expected);
    }

    #[test]
    fn both_kinds_of_rings_of_a_size_follow_each_other() {
        let options = Options { sizes: vec![64, 1500], packed: vec![1, 0], ..Options::for_tests() };
        let names: Vec<String> = cases(&options).map(Case::name).collect();
        assert_eq!(names, ["packed 64 B", "split 64 B", "packed 1500 B", "split 1500 B"]);
    }
}
