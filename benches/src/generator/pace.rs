//! How many frames are due.

/// How many frames a guest sends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Rate {
    /// So many a second.
    PerSecond(f64),
    /// As many as its ring takes.
    Line,
}

/// In seconds: who was away for longer has lost its CPU to somebody else, and what would have been due meanwhile is not offered.
const AWAY: f64 = 40e-6;

/// A rate, followed.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Frames a tick; none for the line's rate.
    per_tick: Option<f64>,
    away: u64,
    last: u64,
    /// Due, and not asked for yet: a part of a frame.
    due: f64,
}

impl Pace {
    pub(crate) fn new(rate: Rate, tsc_hz: f64, now: u64) -> Self {
        let per_tick = match rate {
            Rate::PerSecond(frames) => Some(frames / tsc_hz),
            Rate::Line => None,
        };
        Self { per_tick, away: (AWAY * tsc_hz) as u64, last: now, due: 0.0 }
    }

    /// Frames that became due since this was last asked; None for as many as there is room for.
    pub(crate) fn due(&mut self, now: u64) -> Option<u32> {
        let per_tick = self.per_tick?;
        self.due += now.wrapping_sub(self.last).min(self.away) as f64 * per_tick;
        self.last = now;
        let whole = self.due as u32;
        self.due -= f64::from(whole);
        Some(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_the_rate_but_for_who_is_away() {
        let mut pace = Pace::new(Rate::PerSecond(1e6), 2e9, 0);
        let sum: u32 = (1..=10_000).map(|step| pace.due(step * 7_000).unwrap()).sum();
        assert!((34_999..=35_000).contains(&sum), "{sum}");
        // A second away counts as 40 µs.
        assert!((39..=40).contains(&pace.due(70_000_000 + 2_000_000_000).unwrap()));
        assert_eq!(Pace::new(Rate::Line, 2e9, 0).due(5), None);
    }
}
