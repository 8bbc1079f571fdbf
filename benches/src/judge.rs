//! Rounds: what each switch did in the same minute, and whether that minute says anything.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::paced::Latency;
use crate::switch::Backend;

/// A round whose first backend took this much more than in its best round was disturbed from outside.
const NOISE_MAX: f64 = 1.15;

/// Switch and load poll, each on a CPU of its own: where one had less of it than this, somebody else had the rest.
const CPU_SHARE_MIN: f64 = 0.95;

/// Nor does a latency tell, at a load that was not offered.
const SENT_MIN: f64 = 0.95;

/// What one switch did in one round.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Measured {
    /// Million frames a second through the switch, both directions together.
    pub(crate) mframes: f64,
    /// Busy cycles a frame.
    pub(crate) cycles: f64,
    /// Frames in an iteration, or a receive burst, that found any; None where the switch does not tell.
    pub(crate) burst: Option<f64>,
    /// Frames that the load could not send: that many fewer were under way.
    pub(crate) load_dropped: u64,
    /// The part of its CPU that the switch had, or the load, if that was less, in either measurement.
    pub(crate) cpu_share: f64,
    /// At half load; None if it is not measured.
    pub(crate) latency: Option<Latency>,
}

/// What every switch did in one round; an error where it failed.
pub(crate) type Round = BTreeMap<Backend, Result<Measured, String>>;

/// Why a round is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Flaw {
    Failed,
    LoadDropped,
    Disturbed,
    LoadBehind,
    Noisy,
}

impl Flaw {
    pub(crate) const ALL: [Self; 5] = [Self::Failed, Self::LoadDropped, Self::Disturbed, Self::LoadBehind, Self::Noisy];

    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Failed => "a switch failed",
            Self::LoadDropped => "the load dropped frames",
            Self::Disturbed => "others took over 5 % of a CPU",
            Self::LoadBehind => "the paced load sent over 5 % less than it should",
            Self::Noisy => "the first backend was over 15 % off its best",
        }
    }
}

/// For each round why it does not count, if it does not. `reference` tells good rounds from noisy ones.
pub(crate) fn flaws(rounds: &[Round], reference: Backend) -> Vec<Option<Flaw>> {
    let cycles = |round: &Round| Some(round.get(&reference)?.as_ref().ok()?.cycles);
    let best = rounds.iter().filter_map(cycles).fold(f64::INFINITY, f64::min);
    let flaw = |round: &Round| {
        let any = |is_so: fn(&Measured) -> bool| round.values().flatten().any(is_so);
        if round.values().any(Result::is_err) {
            Some(Flaw::Failed)
        } else if any(|measured| measured.load_dropped > 0) {
            Some(Flaw::LoadDropped)
        } else if any(|measured| measured.cpu_share < CPU_SHARE_MIN) {
            Some(Flaw::Disturbed)
        } else if any(|measured| measured.latency.is_some_and(is_behind)) {
            Some(Flaw::LoadBehind)
        } else {
            cycles(round).is_none_or(|cycles| cycles > NOISE_MAX * best).then_some(Flaw::Noisy)
        }
    };
    rounds.iter().map(flaw).collect()
}

fn is_behind(latency: Latency) -> bool {
    latency.sent_mframes < SENT_MIN * latency.asked_mframes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(cycles: f64, load_dropped: u64) -> Result<Measured, String> {
        Ok(Measured { mframes: 1.0, cycles, burst: None, load_dropped, cpu_share: 1.0, latency: None })
    }

    fn disturbed(cycles: f64) -> Result<Measured, String> {
        measured(cycles, 0).map(|measured| Measured { cpu_share: 0.9, ..measured })
    }

    fn paced(sent_mframes: f64) -> Result<Measured, String> {
        let latency = Latency { asked_mframes: 10.0, sent_mframes, lost: 0.0, p50_us: 1.0, p99_us: 2.0 };
        measured(150.0, 0).map(|measured| Measured { latency: Some(latency), ..measured })
    }

    #[test]
    fn rounds_are_left_out_for_each_reason() {
        let round = |floor, other| Round::from([(Backend::Lawful, floor), (Backend::Ringway, other)]);
        let rounds = [
            round(measured(100.0, 0), measured(150.0, 0)),
            round(measured(114.0, 0), measured(900.0, 0)), // only the reference tells noise
            round(measured(116.0, 0), measured(150.0, 0)),
            round(measured(100.0, 0), measured(150.0, 3)),
            round(measured(100.0, 0), disturbed(150.0)),
            round(measured(100.0, 0), paced(9.4)),
            round(measured(100.0, 0), Err("did not start".to_owned())),
            round(measured(100.0, 0), paced(9.6)),
        ];
        let left_out = [Flaw::Noisy, Flaw::LoadDropped, Flaw::Disturbed, Flaw::LoadBehind, Flaw::Failed].map(Some);
        let expected = [&[None, None][..], &left_out, &[None]].concat();
        assert_eq!(flaws(&rounds, Backend::Lawful), expected);
    }

    #[test]
    fn a_round_that_failed_does_not_raise_the_bar_for_others() {
        let rounds = [
            Round::from([(Backend::Lawful, Err("gone".to_owned()))]),
            Round::from([(Backend::Lawful, measured(100.0, 0))]),
        ];
        assert_eq!(flaws(&rounds, Backend::Lawful), [Some(Flaw::Failed), None]);
    }
}
