//! What the bench `loop` measured of one kind of rings and one size of frames.

use serde::Serialize;
use serde_json::{Value, json};

use crate::judge::{Flaw, Measured, Round, flaws};
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
pub(crate) type Figure = fn(&Measured) -> Option<f64>;

pub(crate) fn mframes(measured: &Measured) -> Option<f64> {
    Some(measured.mframes)
}

pub(crate) fn cycles(measured: &Measured) -> Option<f64> {
    Some(measured.cycles)
}

pub(crate) fn p99_us(measured: &Measured) -> Option<f64> {
    measured.latency.map(|Latency { p99_us, .. }| p99_us)
}

fn p50_us(measured: &Measured) -> Option<f64> {
    measured.latency.map(|Latency { p50_us, .. }| p50_us)
}

fn lost_percent(measured: &Measured) -> Option<f64> {
    measured.latency.map(|Latency { lost, .. }| lost * 100.0)
}

fn burst(measured: &Measured) -> Option<f64> {
    measured.burst
}

/// All rounds of one case.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) case: Case,
    pub(crate) backends: Vec<Backend>,
    pub(crate) rounds: Vec<Round>,
    flaws: Vec<Option<Flaw>>,
}

impl Cell {
    /// Without a round yet. Backends that cannot do it take no part.
    pub(crate) fn new(case: Case, backends: &[Backend]) -> Self {
        let backends = backends.iter().copied().filter(|backend| backend.can_do(case.packed)).collect();
        Self { case, backends, rounds: Vec::new(), flaws: Vec::new() }
    }

    /// Decides which rounds count, now that there are all of them.
    pub(crate) fn judge(&mut self) {
        if let Some(&reference) = self.backends.first() {
            self.flaws = flaws(&self.rounds, reference);
        }
    }

    /// What a switch did, round by round; None where the round does not count.
    fn each(&self, backend: Backend) -> impl Iterator<Item = Option<&Measured>> {
        self.rounds.iter().zip(&self.flaws).map(move |(round, flaw)| match flaw {
            None => round.get(&backend)?.as_ref().ok(),
            Some(_) => None,
        })
    }

    fn summary(&self, backend: Backend, figure: Figure) -> Option<Summary> {
        Summary::of(self.each(backend).flatten().filter_map(figure))
    }

    /// `a` here to `b` there, in each round that counts in both places.
    pub(crate) fn ratio(&self, a: Backend, there: &Self, b: Backend, figure: Figure) -> Option<Summary> {
        let pairs = self.each(a).zip(there.each(b));
        Summary::of_ratios(pairs.filter_map(|(a, b)| Some((figure(a?)?, figure(b?)?))))
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = Vec<String>> {
        self.backends.iter().map(|&backend| self.row(backend))
    }

    fn row(&self, backend: Backend) -> Vec<String> {
        let median = |value: Figure| self.summary(backend, value).map(|summary| summary.median);
        let spread = self.summary(backend, cycles);
        let first = self.backends.first().and_then(|&first| self.ratio(backend, self, first, cycles));
        vec![
            self.case.rings().to_owned(),
            self.case.frame_len.to_string(),
            backend.name().to_owned(),
            figure(median(mframes), 2),
            figure(median(cycles), 1),
            figure(spread.map(|summary| summary.min), 1),
            figure(spread.map(|summary| summary.max), 1),
            figure(first.map(|ratio| ratio.median), 2),
            figure(median(burst), 1),
            figure(median(p50_us), 2),
            figure(median(p99_us), 2),
            figure(median(lost_percent), 3),
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
        note
    }

    pub(crate) fn json(&self) -> Value {
        let rounds =
            self.rounds.iter().zip(&self.flaws).map(|(round, flaw)| json!({"left_out": flaw, "switches": round}));
        let summaries = self.backends.iter().map(|&backend| {
            json!({
                "switch": backend,
                "mframes": self.summary(backend, mframes),
                "cycles": self.summary(backend, cycles),
                "burst": self.summary(backend, burst),
                "p50_us": self.summary(backend, p50_us),
                "p99_us": self.summary(backend, p99_us),
                "lost_percent": self.summary(backend, lost_percent),
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

    fn cell(cycles: &[f64]) -> Cell {
        let measured = |cycles: f64, latency| Measured {
            mframes: 1000.0 / cycles,
            cycles,
            burst: Some(30.0),
            load_dropped: 0,
            cpu_share: 1.0,
            latency,
        };
        let latency = Latency { asked_mframes: 5.0, sent_mframes: 5.0, lost: 0.000_1, p50_us: 2.0, p99_us: 4.125 };
        let rounds = cycles.iter().map(|&cycles| {
            let (testpmd, ringway) = (measured(100.0, None), measured(cycles, Some(latency)));
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
    fn ratios_across_cells_pair_rounds_that_count_in_both() {
        let (mut packed, split) = (cell(&[10.0, 20.0, 30.0]), cell(&[20.0, 80.0, 10.0]));
        packed.flaws[2] = Some(Flaw::Noisy);
        let ratio = packed.ratio(Backend::Ringway, &split, Backend::Ringway, cycles).unwrap();
        assert_eq!(ratio, Summary { median: 0.375, min: 0.25, max: 0.5 });
    }
}
