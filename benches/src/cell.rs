//! What the bench `loop` measured of one kind of rings and one size of frames.

use serde::Serialize;
use serde_json::{Value, json};

use crate::judge::{Flaw, Measured, Round, flaws, half_load_counts};
use crate::paced::Latency;
use crate::report::figure;
use crate::stats::Summary;
use crate::switch::Backend;

pub(crate) const HEADINGS: &[&str] = &[
    "rings",
    " bytes",
    "switch",
    " Mframe/s",
    " cycles",
    " min",
    " max",
    " x first",
    " batch",
    " p50 us",
    " p99 us",
    " lost %",
];

/// What all rounds of a cell have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Case {
    pub(crate) packed: bool,
    pub(crate) frame_len: u16,
}

impl Case {
    fn rings(self) -> &'static str {
        if self.packed { "packed" } else { "split" }
    }

    pub(crate) fn name(self) -> String {
        format!("{} {} B", self.rings(), self.frame_len)
    }
}

/// One figure of a measurement; None where there is none.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Figure {
    Full(fn(&Measured) -> Option<f64>),
    Half(fn(&Latency) -> f64),
}

pub(crate) const MFRAMES: Figure = Figure::Full(|measured| Some(measured.mframes));
pub(crate) const CYCLES: Figure = Figure::Full(|measured| Some(measured.cycles));
pub(crate) const P99_US: Figure = Figure::Half(|latency| latency.p99_us);
pub(crate) const LOST: Figure = Figure::Full(|measured| Some(measured.lost? * 100.0));
const BURST: Figure = Figure::Full(|measured| measured.burst);
const P50_US: Figure = Figure::Half(|latency| latency.p50_us);
const LOST_PERCENT: Figure = Figure::Half(|latency| latency.lost * 100.0);

/// All rounds of one case.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) case: Case,
    pub(crate) backends: Vec<Backend>,
    pub(crate) rounds: Vec<Round>,
    flaws: Vec<Option<Flaw>>,
    /// For each round whether what was measured at half load counts, if the round does.
    half_load_counts: Vec<bool>,
}

impl Cell {
    /// Without a round yet. Backends that cannot do it take no part.
    pub(crate) fn new(case: Case, backends: &[Backend]) -> Self {
        let backends = backends.iter().copied().filter(|backend| backend.can_do(case.packed)).collect();
        Self { case, backends, rounds: Vec::new(), flaws: Vec::new(), half_load_counts: Vec::new() }
    }

    /// Decides which rounds count, now that there are all of them.
    pub(crate) fn judge(&mut self) {
        if let Some(&reference) = self.backends.first() {
            self.flaws = flaws(&self.rounds, reference);
            self.half_load_counts = self.rounds.iter().map(|round| half_load_counts(round, reference)).collect();
        }
    }

    /// A figure of a switch, round by round; None where it does not count.
    fn each(&self, backend: Backend, figure: Figure) -> impl Iterator<Item = Option<f64>> {
        let rounds = self.rounds.iter().zip(&self.flaws).zip(&self.half_load_counts);
        rounds.map(move |((round, flaw), &half_load_counts)| {
            let measured = round.get(&backend)?.as_ref().ok().filter(|_| flaw.is_none())?;
            match figure {
                Figure::Full(of) => of(measured),
                Figure::Half(of) => measured.half_load.filter(|_| half_load_counts).map(|half| of(&half.latency)),
            }
        })
    }

    pub(crate) fn summary(&self, backend: Backend, figure: Figure) -> Option<Summary> {
        Summary::of(self.each(backend, figure).flatten())
    }

    /// `a` here to `b` there, in each round that counts in both places.
    pub(crate) fn ratio(&self, a: Backend, there: &Self, b: Backend, figure: Figure) -> Option<Summary> {
        let pairs = self.each(a, figure).zip(there.each(b, figure));
        Summary::of_ratios(pairs.filter_map(|(a, b)| Some((a?, b?))))
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = Vec<String>> {
        self.backends.iter().map(|&backend| self.row(backend))
    }

    fn row(&self, backend: Backend) -> Vec<String> {
        let median = |value: Figure| self.summary(backend, value).map(|summary| summary.median);
        let spread = self.summary(backend, CYCLES);
        let first = self.backends.first().and_then(|&first| self.ratio(backend, self, first, CYCLES));
        vec![
            self.case.rings().to_owned(),
            self.case.frame_len.to_string(),
            backend.name().to_owned(),
            figure(median(MFRAMES), 2),
            figure(median(CYCLES), 1),
            figure(spread.map(|summary| summary.min), 1),
            figure(spread.map(|summary| summary.max), 1),
            figure(first.map(|ratio| ratio.median), 2),
            figure(median(BURST), 1),
            figure(median(P50_US), 2),
            figure(median(P99_US), 2),
            figure(median(LOST_PERCENT), 3),
        ]
    }

    pub(crate) fn note(&self) -> String {
        let kept = self.flaws.iter().filter(|flaw| flaw.is_none()).count();
        let mut note = format!("{}: {kept} of {} rounds count", self.case.name(), self.flaws.len());
        for flaw in Flaw::ALL {
            let count = self.flaws.iter().filter(|found| **found == Some(flaw)).count();
            if count > 0 {
                note += &format!("; {count} left out ({})", flaw.describe());
            }
        }
        let measured = |round: &Round| round.values().flatten().any(|measured| measured.half_load.is_some());
        if self.rounds.iter().any(measured) {
            let counts =
                self.flaws.iter().zip(&self.half_load_counts).filter(|(flaw, counts)| flaw.is_none() && **counts);
            note += &format!("; at half load {}", counts.count());
        }
        note
    }

    pub(crate) fn json(&self) -> Value {
        let rounds =
            self.rounds.iter().zip(&self.flaws).map(|(round, flaw)| json!({"left_out": flaw, "switches": round}));
        let summaries = self.backends.iter().map(|&backend| {
            json!({
                "switch": backend,
                "mframes": self.summary(backend, MFRAMES),
                "cycles": self.summary(backend, CYCLES),
                "burst": self.summary(backend, BURST),
                "lost_percent_at_full_speed": self.summary(backend, LOST),
                "p50_us": self.summary(backend, P50_US),
                "p99_us": self.summary(backend, P99_US),
                "lost_percent": self.summary(backend, LOST_PERCENT),
            })
        });
        json!({
            "case": self.case,
            "summaries": summaries.collect::<Vec<_>>(),
            "rounds": rounds.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::HalfLoad;

    fn cell(cycles: &[f64]) -> Cell {
        let measured = |cycles: f64, half_load| Measured {
            mframes: 1000.0 / cycles,
            cycles,
            burst: Some(30.0),
            load_dropped: 0,
            lost: None,
            cpu_share: 1.0,
            half_load,
        };
        let latency = Latency {
            asked_mframes: 5.0,
            sent_mframes: 5.0,
            windows: 50,
            lost: 0.000_1,
            p50_us: 2.0,
            p99_us: 4.125,
            p99_all_us: 9.0,
        };
        let half_load = HalfLoad { latency, cpu_share: 1.0 };
        let rounds = cycles.iter().map(|&cycles| {
            let (testpmd, ringway) = (measured(100.0, None), measured(cycles, Some(half_load)));
            Round::from([(Backend::Testpmd, Ok(testpmd)), (Backend::Ringway, Ok(ringway))])
        });
        let mut cell =
            Cell::new(Case { packed: false, frame_len: 64 }, &[Backend::Lawful, Backend::Testpmd, Backend::Ringway]);
        cell.rounds = rounds.collect();
        cell.judge();
        cell
    }

    #[test]
    fn a_row_has_a_cell_for_each_heading() {
        let rows: Vec<_> = cell(&[50.0, 60.0, 70.0]).rows().collect();
        assert!(rows.iter().all(|row| row.len() == HEADINGS.len()));
        let ringway =
            ["split", "64", "ringway", "16.67", "60.0", "50.0", "70.0", "0.60", "30.0", "2.00", "4.12", "0.010"];
        assert_eq!(rows[1], ringway);
        assert_eq!(rows[0][9..], ["-", "-", "-"], "not measured");
    }

    #[test]
    fn half_load_may_not_count_where_the_round_does() {
        let mut cell = cell(&[50.0, 60.0, 70.0]);
        cell.half_load_counts = vec![false; 3];
        assert_eq!(cell.row(Backend::Ringway)[3..], ["16.67", "60.0", "50.0", "70.0", "0.60", "30.0", "-", "-", "-"]);
        assert_eq!(cell.note(), "split 64 B: 3 of 3 rounds count; at half load 0");
    }

    #[test]
    fn ratios_across_cells_pair_rounds_that_count_in_both() {
        let (mut packed, split) = (cell(&[10.0, 20.0, 30.0]), cell(&[20.0, 80.0, 10.0]));
        packed.flaws[2] = Some(Flaw::Noisy);
        let ratio = packed.ratio(Backend::Ringway, &split, Backend::Ringway, CYCLES).unwrap();
        assert_eq!(ratio, Summary { median: 0.375, min: 0.25, max: 0.5 });
    }
}
