//! Rounds: what each switch did in the same minute, and whether that minute says anything.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::paced::Latency;
use crate::switch::Backend;

/// A round whose first backend took this much more than in its best round was disturbed from outside.
const NOISE_MAX: f64 = 1.15;

/// Switch and load poll, each on a CPU of its own: where one had less of it than this, somebody else had the rest.
pub(crate) const CPU_SHARE_MIN: f64 = 0.95;

/// What p99 is about: where somebody else had more of a CPU than this at half load, p99 tells how long they had it.
pub(crate) const LATENCY_CPU_SHARE_MIN: f64 = 0.93;

/// Nor does it tell anything at a load that was not offered: windows of 20 ms in which it was, at the least.
const WINDOWS_MIN: u32 = 10;

/// Half of what a switch can do loses nothing, unless the switch is stopped from outside.
const LOST_MAX: f64 = 0.05;

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
    /// The part of the frames that came in and did not arrive, where the load does not wait for them.
    pub(crate) lost: Option<f64>,
    /// The part of its CPU that the switch had, or the load, if that was less.
    pub(crate) cpu_share: f64,
    /// At half load; None if it is not measured.
    pub(crate) half_load: Option<HalfLoad>,
}

/// What one switch did at half load.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct HalfLoad {
    pub(crate) latency: Latency,
    /// As in [`Measured`], meanwhile.
    pub(crate) cpu_share: f64,
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
    Noisy,
}

impl Flaw {
    pub(crate) const ALL: [Self; 4] = [Self::Failed, Self::LoadDropped, Self::Disturbed, Self::Noisy];

    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Failed => "a switch failed",
            Self::LoadDropped => "the load dropped frames",
            Self::Disturbed => "others took over 5 % of a CPU",
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
        } else {
            cycles(round).is_none_or(|cycles| cycles > NOISE_MAX * best).then_some(Flaw::Noisy)
        }
    };
    rounds.iter().map(flaw).collect()
}

/// Whether what was measured at half load says anything: nobody was kept from its CPU, every load kept its pace for a while, and neither
/// the reference nor testpmd lost frames at a rate at which no switch has to. What Ringway loses is Ringway's.
pub(crate) fn half_load_counts(round: &Round, reference: Backend) -> bool {
    round.iter().filter_map(|(backend, measured)| Some((backend, measured.as_ref().ok()?.half_load?))).all(
        |(&backend, HalfLoad { latency, cpu_share })| {
            let may_lose = backend == Backend::Ringway || (backend != reference && backend != Backend::Testpmd);
            cpu_share >= LATENCY_CPU_SHARE_MIN
                && latency.windows >= WINDOWS_MIN
                && (may_lose || latency.lost <= LOST_MAX)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(cycles: f64, load_dropped: u64) -> Result<Measured, String> {
        Ok(Measured { mframes: 1.0, cycles, burst: None, load_dropped, lost: None, cpu_share: 1.0, half_load: None })
    }

    fn disturbed(cycles: f64) -> Result<Measured, String> {
        measured(cycles, 0).map(|measured| Measured { cpu_share: 0.9, ..measured })
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
            round(measured(100.0, 0), Err("did not start".to_owned())),
        ];
        let left_out = [Flaw::Noisy, Flaw::LoadDropped, Flaw::Disturbed, Flaw::Failed].map(Some);
        let expected = [&[None, None][..], &left_out].concat();
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

    #[test]
    fn half_load_counts_unless_somebody_else_had_a_part_in_it() {
        let at = |windows, lost, cpu_share| {
            let (asked_mframes, sent_mframes) = (10.0, 9.6);
            let latency =
                Latency { asked_mframes, sent_mframes, lost, windows, p50_us: 1.0, p99_us: 2.0, p99_all_us: 3.0 };
            let half_load = Some(HalfLoad { latency, cpu_share });
            measured(100.0, 0).map(|measured| Measured { half_load, ..measured })
        };
        let counts = |floor, ovs, ringway| {
            let round = [(Backend::Lawful, floor), (Backend::Ovs, ovs), (Backend::Ringway, ringway)];
            half_load_counts(&round.into(), Backend::Lawful)
        };
        let good = || at(10, 0.01, 0.99);
        assert!(counts(good(), good(), good()));
        assert!(counts(measured(100.0, 0), measured(100.0, 0), measured(100.0, 0)), "not measured");
        assert!(!counts(good(), at(9, 0.0, 1.0), good()), "the load was behind");
        assert!(!counts(good(), good(), at(100, 0.0, 0.92)), "disturbed");
        assert!(!counts(at(100, 0.06, 1.0), good(), good()), "the reference was stopped");
        assert!(counts(good(), at(100, 0.5, 1.0), at(100, 0.5, 1.0)), "others lose for reasons of their own");
    }
}
