//! What the figures of the bench `loop` have to be.
//!
//! A ratio of cycles is that of busy cycles of CPU 0 a frame. Within a case, none of Ringway's bars counts where its p99 at half
//! load is worse than testpmd's: throughput must not be bought with waiting.

use crate::cell::{self, Case, Cell, Figure};
use crate::report::{Bar, Limit};
use crate::switch::Backend::{self, Lawful, OtherFloor, Ringway, Testpmd};

const CYCLES: (&str, Figure) = ("busy cycles a frame", cell::CYCLES);
const FRAMES: (&str, Figure) = ("frames per second", cell::MFRAMES);
const P99: (&str, Figure) = ("p99 at half load", cell::P99_US);
const VOID: &str = "void: p99";

/// A switch to another, by one figure.
type Wanted = ((&'static str, Figure), Backend, Backend, Limit);

const PACKED: &[Wanted] = &[
    (CYCLES, Ringway, Testpmd, Limit::Below(1.0)),
    (FRAMES, Ringway, Testpmd, Limit::AtLeast(1.0)),
    (CYCLES, Ringway, Lawful, Limit::AtMost(1.2)),
    (FRAMES, Ringway, Lawful, Limit::None),
    (CYCLES, Lawful, OtherFloor, Limit::Within(0.9, 1.1)),
];

const SPLIT: &[Wanted] = &[
    // So much faster, by cycles.
    (CYCLES, Testpmd, Ringway, Limit::AtLeast(1.2)),
    (FRAMES, Ringway, Testpmd, Limit::None),
];

/// All bars, of switches that took part.
pub(crate) fn bars(cells: &[Cell]) -> Vec<Bar> {
    let mut bars: Vec<Bar> = cells.iter().flat_map(of_cell).collect();
    for packed in cells.iter().filter(|cell| cell.case.packed) {
        let split = Case { packed: false, ..packed.case };
        if let Some(split) = cells.iter().find(|cell| cell.case == split) {
            bars.extend(across(packed, split));
        }
    }
    bars
}

fn of_cell(cell: &Cell) -> Vec<Bar> {
    let took_part = |backend| cell.backends.contains(&backend);
    let wanted = if cell.case.packed { PACKED } else { SPLIT };
    let wanted = wanted.iter().filter(|&&(_, a, b, _)| took_part(a) && took_part(b));
    let void = void(cell);
    let bar = |&((what, figure), a, b, limit): &Wanted| Bar {
        what: format!("{}: {what}, {} / {}", cell.case.name(), a.name(), b.name()),
        value: cell.ratio(a, cell, b, figure).map(|ratio| ratio.median),
        limit,
        void: void.filter(|_| a == Ringway || b == Ringway),
    };
    p99(cell).into_iter().chain(wanted.map(bar)).collect()
}

/// Ringway on packed rings to Ringway on split ones.
fn across(packed: &Cell, split: &Cell) -> Vec<Bar> {
    if ![packed, split].iter().all(|cell| cell.backends.contains(&Ringway)) {
        return Vec::new();
    }
    let bar = |((what, figure), limit): ((&str, Figure), Limit)| Bar {
        what: format!("{} B: {what}, ringway packed / ringway split", packed.case.frame_len),
        value: packed.ratio(Ringway, split, Ringway, figure).map(|ratio| ratio.median),
        limit,
        void: void(packed).or(void(split)),
    };
    [(CYCLES, Limit::AtMost(1.0)), (FRAMES, Limit::None)].map(bar).into()
}

/// None where latency was not measured, of either.
fn p99(cell: &Cell) -> Option<Bar> {
    let measured = |backend| {
        cell.backends.contains(&backend)
            && cell
                .rounds
                .iter()
                .filter_map(|round| round.get(&backend)?.as_ref().ok())
                .any(|measured| measured.half_load.is_some())
    };
    let (what, figure) = P99;
    (measured(Ringway) && measured(Testpmd)).then(|| Bar {
        what: format!("{}: {what}, ringway / testpmd", cell.case.name()),
        value: cell.ratio(Ringway, cell, Testpmd, figure).map(|ratio| ratio.median),
        limit: Limit::AtMost(1.0),
        void: None,
    })
}

fn void(cell: &Cell) -> Option<&'static str> {
    p99(cell).filter(|bar| !bar.holds()).map(|_| VOID)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::{HalfLoad, Measured, Round};
    use crate::paced::Latency;

    fn measured(cycles: f64, p99_us: Option<f64>) -> Result<Measured, String> {
        let latency = |p99_us| Latency {
            asked_mframes: 5.0,
            sent_mframes: 5.0,
            windows: 50,
            lost: 0.0,
            p50_us: 1.0,
            p99_us,
            p99_all_us: p99_us,
        };
        let half_load = |p99_us| HalfLoad { latency: latency(p99_us), cpu_share: 1.0 };
        let (mframes, half_load) = (1000.0 / cycles, p99_us.map(half_load));
        Ok(Measured { mframes, cycles, burst: Some(60.0), load_dropped: 0, lost: None, cpu_share: 1.0, half_load })
    }

    /// Rounds of testpmd's cycles and Ringway's.
    fn cell(packed: bool, rounds: &[(f64, f64)], p99: Option<(f64, f64)>) -> Cell {
        let mut cell = Cell::new(Case { packed, frame_len: 64 }, &[Testpmd, Ringway]);
        let round = |&(testpmd, ringway): &(f64, f64)| {
            let testpmd = measured(testpmd, p99.map(|p99| p99.0));
            Round::from([(Testpmd, testpmd), (Ringway, measured(ringway, p99.map(|p99| p99.1)))])
        };
        cell.rounds = rounds.iter().map(round).collect();
        cell.judge();
        cell
    }

    #[test]
    fn bars_are_ratios_of_the_rounds_that_count() {
        // The last round is noisy, and would have turned both ratios round.
        let cell = cell(true, &[(100.0, 75.0), (110.0, 55.0), (100.0, 25.0), (200.0, 500.0)], None);
        let bars = bars(std::slice::from_ref(&cell));
        assert_eq!(bars.len(), 2);
        assert_eq!((bars[0].value, bars[0].limit), (Some(0.5), Limit::Below(1.0)));
        assert_eq!((bars[1].value, bars[1].limit), (Some(2.0), Limit::AtLeast(1.0)));
        assert!(bars.iter().all(Bar::holds));
        assert!(cell.note().contains("3 of 4 rounds count; 1 left out"), "{}", cell.note());
    }

    #[test]
    fn a_bar_that_was_not_measured_is_missed() {
        let bars = bars(&[cell(true, &[], None)]);
        assert!(bars.iter().all(|bar| bar.value.is_none() && !bar.holds()));
    }

    #[test]
    fn no_bar_counts_where_p99_is_worse() {
        let rounds = [(100.0, 50.0)];
        let good = bars(&[cell(true, &rounds, Some((4.0, 4.0)))]);
        assert_eq!(good.len(), 3);
        assert!(good.iter().all(Bar::holds));
        let bad = bars(&[cell(true, &rounds, Some((4.0, 4.1)))]);
        assert!(bad.iter().all(|bar| !bar.holds()));
        assert_eq!(bad.iter().map(|bar| bar.void).collect::<Vec<_>>(), [None, Some(VOID), Some(VOID)]);
    }

    #[test]
    fn split_rings_have_to_be_faster_than_testpmd_and_no_faster_than_packed_ones() {
        let packed = cell(true, &[(100.0, 80.0)], None);
        let of = |ringway| bars(&[cell(false, &[(100.0, ringway)], None)]);
        let split = of(82.0);
        assert!(split[0].what.starts_with("split 64 B") && split[0].holds());
        assert!(!of(84.0)[0].holds());

        let both = |split| bars(&[cell(true, &[(100.0, 80.0)], None), split]);
        let across = |bars: Vec<Bar>| bars.into_iter().find(|bar| bar.what.contains("ringway split")).unwrap();
        assert!(across(both(cell(false, &[(100.0, 80.0)], None))).holds());
        assert!(!across(both(cell(false, &[(100.0, 79.0)], None))).holds());
        let late = cell(false, &[(100.0, 90.0)], Some((1.0, 2.0)));
        assert_eq!(across(bars(&[packed, late])).void, Some(VOID));
    }

    #[test]
    fn the_floors_are_compared_and_the_limit_is_that_to_ours() {
        let backends = [Lawful, OtherFloor, Ringway];
        let of = |other, ringway| {
            let mut cell = Cell::new(Case { packed: true, frame_len: 64 }, &backends);
            let switches = [(Lawful, 100.0), (OtherFloor, other), (Ringway, ringway)];
            cell.rounds = vec![switches.map(|(backend, cycles)| (backend, measured(cycles, None))).into()];
            cell.judge();
            bars(&[cell]).iter().filter(|bar| bar.limit != Limit::None).map(Bar::holds).collect::<Vec<_>>()
        };
        assert_eq!(of(100.0, 120.0), [true, true]);
        assert_eq!(of(80.0, 121.0), [false, false]);
        assert_eq!(of(120.0, 100.0), [true, false], "a floor that is too low is as wrong");
    }
}
