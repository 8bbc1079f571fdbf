//! What several measurements say together.

use serde::Serialize;

/// The middle of some figures, and how far they go.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Summary {
    /// None of no figures. Those that are not finite do not count.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().filter(|figure| figure.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let middle = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) };
        Some(Self { median, min, max })
    }

    /// Of `a / b`, pair by pair: what two switches did in the same round.
    pub(crate) fn of_ratios(pairs: impl IntoIterator<Item = (f64, f64)>) -> Option<Self> {
        Self::of(pairs.into_iter().map(|(a, b)| a / b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let odd = Summary::of([3.0, 1.0, 10.0]).unwrap();
        assert_eq!(odd, Summary { median: 3.0, min: 1.0, max: 10.0 });
        assert_eq!(Summary::of([4.0, 1.0, 2.0, 9.0]).unwrap().median, 3.0);
        assert_eq!(Summary::of([]), None);
    }

    #[test]
    fn ratios_are_taken_within_pairs() {
        // Over all rounds both took as long; in each of them the first took twice or half the time of the second.
        let ratios = Summary::of_ratios([(100.0, 50.0), (20.0, 10.0), (30.0, 60.0)]).unwrap();
        assert_eq!(ratios, Summary { median: 2.0, min: 0.5, max: 2.0 });
    }

    #[test]
    fn a_division_by_nothing_does_not_count() {
        assert_eq!(Summary::of_ratios([(1.0, 0.0)]), None);
        assert_eq!(Summary::of_ratios([(1.0, 0.0), (4.0, 2.0)]).unwrap().max, 2.0);
    }
}
