//! The bench `loop`: how fast, and at what cost, one core passes frames between two guests.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ringway_testbed::{HugePages, Process, ringway_binary, scratch_dir};
use serde::Serialize;
use serde_json::json;

use crate::bench::Outcome;
use crate::cli::Options;
use crate::interrupt;
use crate::judge::{Flaw, Measured, Round, flaws};
use crate::load::{self, Load, Nics};
use crate::machine::Machine;
use crate::report::{Bar, Limit, Table, figure};
use crate::stats::Summary;
use crate::switch::{self, Backend, Counted, Floor, Workshop};

/// Until caches, learned addresses and the CPU's clock have settled.
const WARM_UP: Duration = Duration::from_secs(2);
const HEADINGS: &[&str] =
    &["rings", " bytes", "switch", " Mframe/s", " min", " max", " cycles", " min", " max", " burst", " x first"];

/// What all rounds have in common: one kind of ring and one size of frames.
#[derive(Debug, Clone, Copy, Serialize)]
struct Case {
    packed: bool,
    frame_len: u16,
}

/// All rounds of one case.
struct Cell {
    case: Case,
    backends: Vec<Backend>,
    rounds: Vec<Round>,
    flaws: Vec<Option<Flaw>>,
}

pub(crate) fn run(options: &Options) -> Result<Outcome> {
    ensure!(!options.backends.is_empty(), "no backend to measure");
    let machine = Machine::prepare()?;
    if options.backends.contains(&Backend::Ringway) {
        ringway_binary()?;
    }
    let _pages = HugePages::reserve(load::MEMORY_MIB + switch::MEMORY_MIB)?;
    let floor = options.backends.contains(&Backend::Lawful).then(Floor::build).transpose()?;
    let workshop = Workshop { floor, tsc_hz: machine.tsc_hz };

    let mut cells = Vec::new();
    for &packed in &options.packed {
        for &frame_len in &options.sizes {
            let case = Case { packed: packed == 1, frame_len };
            cells.push(Cell::measure(case, options, &workshop)?);
        }
    }
    Ok(outcome(&machine, options, &cells))
}

impl Case {
    fn rings(self) -> &'static str {
        if self.packed { "packed" } else { "split" }
    }

    /// One switch, from its start to its end.
    fn measure(self, backend: Backend, seconds: u64, workshop: &Workshop) -> Result<Measured> {
        let dir = scratch_dir()?;
        let sockets: [PathBuf; 2] = ["v0", "v1"].map(|name| dir.path().join(name));
        let start_load = || Load::start(&sockets, Nics { packed: self.packed, serve: !backend.listens() });
        let start_switch = || backend.start(&sockets, workshop);
        // Who listens is started first.
        let (mut load, mut switch) = if backend.listens() {
            let switch = start_switch()?;
            (start_load()?, switch)
        } else {
            let load = start_load()?;
            (load, start_switch()?)
        };
        load.wait_ready()?;
        switch.guests_are_ready()?;

        load.run(self.frame_len)?;
        interrupt::sleep(WARM_UP)?;
        load.frames_per_second()?;
        switch.begin()?;
        let cpu_share = cpu_share(&[switch.process(), load.process()], Duration::from_secs(seconds))?;
        let Counted { cycles, burst } = switch.end()?;
        let frames = load.frames_per_second()?;
        ensure!(frames > 0.0, "no frame came back");
        Ok(Measured { mframes: frames / 1e6, cycles, burst, load_dropped: load.stop()?, cpu_share })
    }
}

/// Sleeps, and tells the smallest part of its CPU that one of these processes had meanwhile.
fn cpu_share(processes: &[&mut Process], duration: Duration) -> Result<f64> {
    let times = || processes.iter().map(|process| process.cpu_time()).collect::<Result<Vec<_>>>();
    let (begun, before) = (Instant::now(), times()?);
    interrupt::sleep(duration)?;
    let (passed, after) = (begun.elapsed(), times()?);
    let shares = before.iter().zip(&after).map(|(before, after)| (*after - *before).div_duration_f64(passed));
    Ok(shares.fold(f64::INFINITY, f64::min))
}

impl Cell {
    fn measure(case: Case, options: &Options, workshop: &Workshop) -> Result<Self> {
        let backends = options.backends.iter().copied().filter(|backend| backend.can_do(case.packed));
        let mut cell = Self { case, backends: backends.collect(), rounds: Vec::new(), flaws: Vec::new() };
        for number in 1..=options.rounds {
            let mut round = Round::new();
            for &backend in &cell.backends {
                interrupt::check()?;
                let measured = case.measure(backend, options.seconds, workshop);
                interrupt::check()?;
                let place = format!("{} {} B, round {number} of {}", case.rings(), case.frame_len, options.rounds);
                match &measured {
                    Ok(Measured { mframes, cycles, cpu_share, .. }) => {
                        let figures = format!("{mframes:6.2} Mframe/s {cycles:6.1} cycles");
                        eprintln!("{place}: {:8} {figures}, {:3.0} % of its CPU", backend.name(), cpu_share * 100.0);
                    }
                    Err(error) => eprintln!("{place}: {} failed: {error:#}", backend.name()),
                }
                round.insert(backend, measured.map_err(|error| format!("{error:#}")));
            }
            cell.rounds.push(round);
        }
        if let Some(&reference) = cell.backends.first() {
            cell.flaws = flaws(&cell.rounds, reference);
        }
        Ok(cell)
    }

    /// What a switch did in the rounds that count.
    fn kept(&self, backend: Backend) -> impl Iterator<Item = &Measured> {
        let counts = self.rounds.iter().zip(&self.flaws).filter(|(_, flaw)| flaw.is_none());
        counts.filter_map(move |(round, _)| round.get(&backend)?.as_ref().ok())
    }

    fn summary(&self, backend: Backend, figure: fn(&Measured) -> f64) -> Option<Summary> {
        Summary::of(self.kept(backend).map(figure))
    }

    /// `a` to `b` in each round that counts. Such a round has every switch, so rounds pair up.
    fn ratio(&self, a: Backend, b: Backend, figure: fn(&Measured) -> f64) -> Option<Summary> {
        Summary::of_ratios(self.kept(a).map(figure).zip(self.kept(b).map(figure)))
    }

    fn row(&self, backend: Backend) -> Vec<String> {
        let mut row = vec![self.case.rings().to_owned(), self.case.frame_len.to_string(), backend.name().to_owned()];
        for (value, decimals) in [(mframes as fn(&Measured) -> f64, 2), (cycles, 1)] {
            let summary = self.summary(backend, value);
            let columns = summary.map_or([None; 3], |Summary { median, min, max }| [median, min, max].map(Some));
            row.extend(columns.map(|value| figure(value, decimals)));
        }
        let burst = Summary::of(self.kept(backend).filter_map(|measured| measured.burst));
        row.push(figure(burst.map(|summary| summary.median), 1));
        let first = self.backends.first().and_then(|&first| self.ratio(backend, first, cycles));
        row.push(figure(first.map(|ratio| ratio.median), 2));
        row
    }

    fn note(&self) -> String {
        let kept = self.flaws.iter().filter(|flaw| flaw.is_none()).count();
        let mut note =
            format!("{} {} B: {kept} of {} rounds count", self.case.rings(), self.case.frame_len, self.flaws.len());
        for flaw in Flaw::ALL {
            let count = self.flaws.iter().filter(|found| **found == Some(flaw)).count();
            if count > 0 {
                note += &format!("; {count} left out ({})", flaw.describe());
            }
        }
        note
    }

    /// Bars are for packed rings. With split rings the same ratios are for the record.
    fn bars(&self) -> Vec<Bar> {
        let limit = |limit| if self.case.packed { limit } else { Limit::None };
        let wanted = [
            (Backend::Testpmd, "busy cycles a frame", cycles as fn(&Measured) -> f64, limit(Limit::Below(1.0))),
            (Backend::Testpmd, "frames per second", mframes, limit(Limit::AtLeast(1.0))),
            (Backend::Lawful, "busy cycles a frame", cycles, Limit::None),
            (Backend::Lawful, "frames per second", mframes, Limit::None),
        ];
        let measured = |backend| self.backends.contains(&backend) && self.backends.contains(&Backend::Ringway);
        let bar = |(peer, what, figure, limit): (Backend, &str, fn(&Measured) -> f64, Limit)| Bar {
            what: format!("{} {} B: {what}, ringway / {}", self.case.rings(), self.case.frame_len, peer.name()),
            value: self.ratio(Backend::Ringway, peer, figure).map(|ratio| ratio.median),
            limit,
        };
        wanted.into_iter().filter(|&(peer, ..)| measured(peer)).map(bar).collect()
    }

    fn json(&self) -> serde_json::Value {
        let rounds =
            self.rounds.iter().zip(&self.flaws).map(|(round, flaw)| json!({"left_out": flaw, "switches": round}));
        let summaries = self.backends.iter().map(|&backend| {
            json!({
                "switch": backend,
                "mframes": self.summary(backend, mframes),
                "cycles": self.summary(backend, cycles),
                "burst": Summary::of(self.kept(backend).filter_map(|measured| measured.burst)),
            })
        });
        json!({
            "case": self.case,
            "summaries": summaries.collect::<Vec<_>>(),
            "rounds": rounds.collect::<Vec<_>>(),
        })
    }
}

fn mframes(measured: &Measured) -> f64 {
    measured.mframes
}

fn cycles(measured: &Measured) -> f64 {
    measured.cycles
}

fn outcome(machine: &Machine, options: &Options, cells: &[Cell]) -> Outcome {
    let rows = cells.iter().flat_map(|cell| cell.backends.iter().map(|&backend| cell.row(backend))).collect();
    let notes = cells.iter().map(Cell::note).collect();
    let bars: Vec<Bar> = cells.iter().flat_map(Cell::bars).collect();
    let verdicts = bars.iter().map(|bar| json!({"bar": bar, "holds": bar.holds()})).collect::<Vec<_>>();
    let json = json!({
        "bench": "loop",
        "machine": machine,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "cells": cells.iter().map(Cell::json).collect::<Vec<_>>(),
        "bars": verdicts,
    });
    let head = vec![
        machine.describe(),
        "medians of the rounds that count; cycles: busy ones of CPU 0 a frame; x first: cycles to the first switch's"
            .to_owned(),
    ];
    Outcome { head, tables: vec![Table { headings: HEADINGS, rows, notes }], bars, json }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(packed: bool, rounds: &[(f64, f64)]) -> Cell {
        let measured = |cycles| {
            Ok(Measured { mframes: 1000.0 / cycles, cycles, burst: Some(60.0), load_dropped: 0, cpu_share: 1.0 })
        };
        let rounds: Vec<Round> = rounds
            .iter()
            .map(|&(testpmd, ringway)| {
                Round::from([(Backend::Testpmd, measured(testpmd)), (Backend::Ringway, measured(ringway))])
            })
            .collect();
        let flaws = flaws(&rounds, Backend::Testpmd);
        let case = Case { packed, frame_len: 64 };
        Cell { case, backends: vec![Backend::Testpmd, Backend::Ringway], rounds, flaws }
    }

    #[test]
    fn bars_are_ratios_of_the_rounds_that_count() {
        // The last round is noisy, and would have turned both ratios round.
        let cell = cell(true, &[(100.0, 75.0), (110.0, 55.0), (100.0, 25.0), (200.0, 500.0)]);
        let bars = cell.bars();
        assert_eq!(bars.len(), 2);
        assert_eq!((bars[0].value, bars[0].limit), (Some(0.5), Limit::Below(1.0)));
        assert_eq!((bars[1].value, bars[1].limit), (Some(2.0), Limit::AtLeast(1.0)));
        assert!(bars.iter().all(Bar::holds));
        assert!(cell.note().contains("3 of 4 rounds count; 1 left out"), "{}", cell.note());
    }

    #[test]
    fn split_rings_have_figures_and_no_bars() {
        assert!(cell(false, &[(100.0, 300.0)]).bars().iter().all(|bar| bar.limit == Limit::None && bar.holds()));
    }

    #[test]
    fn a_bar_that_was_not_measured_is_missed() {
        let bars = cell(true, &[]).bars();
        assert!(bars.iter().all(|bar| bar.value.is_none() && !bar.holds()));
    }
}
