//! The figures of one size of table and key.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::{MAP, OURS, PEER};
use crate::report::{Bar, Limit, Table, figure};
use crate::stats::Summary;

/// From so many flows on a table is larger than the fastest caches.
const LARGE: usize = 1 << 16;

/// Bytes that a flow with a key of 16 bytes may take.
const BYTES_MAX: f64 = 96.0;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Measure {
    Hit,
    Miss,
    HitBusy,
    MissBusy,
    Insert,
    Delete,
    /// One flow at a time, by who has no more: no bar.
    DeleteSingle,
}

impl Measure {
    pub(crate) const ALL: [Self; 7] =
        [Self::Hit, Self::Miss, Self::HitBusy, Self::MissBusy, Self::Insert, Self::Delete, Self::DeleteSingle];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::HitBusy => "hit, busy",
            Self::MissBusy => "miss, busy",
            Self::Insert => "insert",
            Self::Delete => "delete",
            Self::DeleteSingle => "delete, single",
        }
    }

    /// How many times faster than the peer we have to be.
    fn limit(self, flows: usize) -> Option<f64> {
        match self {
            Self::Hit | Self::Miss | Self::HitBusy | Self::MissBusy if flows < LARGE => Some(1.3),
            Self::DeleteSingle => None,
            _ => Some(1.5),
        }
    }
}

/// Cycles an operation, in one round.
pub(crate) type Figures = BTreeMap<Measure, f64>;

/// What one table did.
#[derive(Debug, Default, Serialize)]
struct Row {
    rounds: Vec<Figures>,
    bytes: Option<u64>,
    /// The largest part of the keys that it had lost.
    lost: f64,
}

/// One size of table and key.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) key_bytes: usize,
    pub(crate) flows: usize,
    rows: BTreeMap<&'static str, Row>,
}

impl Case {
    pub(crate) fn new(key_bytes: usize, flows: usize) -> Self {
        Self { key_bytes, flows, rows: BTreeMap::new() }
    }

    pub(crate) fn name(&self) -> String {
        format!("{} B keys, {} flows", self.key_bytes, short(self.flows))
    }

    pub(crate) fn add(&mut self, table: &'static str, figures: Figures) {
        self.rows.entry(table).or_default().rounds.push(figures);
    }

    /// More figures of a round.
    pub(crate) fn complete(&mut self, table: &'static str, round: usize, figures: Figures) {
        if let Some(round) = self.rows.entry(table).or_default().rounds.get_mut(round) {
            round.extend(figures);
        }
    }

    pub(crate) fn set_bytes(&mut self, table: &'static str, bytes: Option<u64>) {
        self.rows.entry(table).or_default().bytes = bytes;
    }

    pub(crate) fn lost(&mut self, table: &'static str, part: f64) {
        let row = self.rows.entry(table).or_default();
        row.lost = row.lost.max(part);
    }

    fn each(&self, table: &str, measure: Measure) -> impl Iterator<Item = Option<f64>> {
        let rounds = self.rows.get(table).map(|row| row.rounds.as_slice()).unwrap_or_default();
        rounds.iter().map(move |figures| figures.get(&measure).copied())
    }

    pub(crate) fn summary(&self, table: &str, measure: Measure) -> Option<Summary> {
        Summary::of(self.each(table, measure).flatten())
    }

    /// How many times faster than the peer, round by round.
    fn ratio(&self, measure: Measure) -> Option<Summary> {
        let pairs = self.each(PEER, measure).zip(self.each(OURS, measure));
        Summary::of_ratios(pairs.filter_map(|(peer, ours)| Some((peer?, ours?))))
    }

    fn bytes_a_flow(&self, table: &str) -> Option<f64> {
        Some(self.rows.get(table)?.bytes? as f64 / self.flows as f64)
    }

    pub(crate) fn bars(&self) -> Vec<Bar> {
        let limits = Measure::ALL.into_iter().filter_map(|measure| Some((measure, measure.limit(self.flows)?)));
        let speed = limits.map(|(measure, limit)| Bar {
            what: format!("{}: {}, {PEER} / {OURS}", self.name(), measure.name()),
            value: self.ratio(measure).map(|ratio| ratio.median),
            limit: Limit::AtLeast(limit),
            void: None,
        });
        let bytes = (self.key_bytes == 16).then(|| Bar {
            what: format!("{}: bytes a flow", self.name()),
            value: self.bytes_a_flow(OURS),
            limit: Limit::AtMost(BYTES_MAX),
            void: None,
        });
        speed.chain(bytes).collect()
    }

    fn rows(&self) -> impl Iterator<Item = Vec<String>> {
        Measure::ALL.into_iter().map(|measure| {
            let of = |table| self.summary(table, measure);
            let (ours, peer, map) = (of(OURS), of(PEER), of(MAP));
            let ratio = self.ratio(measure);
            vec![
                self.key_bytes.to_string(),
                short(self.flows),
                measure.name().to_owned(),
                figure(ours.map(|of| of.median), 1),
                figure(ours.map(|of| of.min), 1),
                figure(ours.map(|of| of.max), 1),
                figure(peer.map(|of| of.median), 1),
                figure(peer.map(|of| of.min), 1),
                figure(peer.map(|of| of.max), 1),
                figure(map.map(|of| of.median), 1),
                figure(ratio.map(|of| of.median), 2),
                figure(ratio.map(|of| of.min), 2),
                figure(ratio.map(|of| of.max), 2),
            ]
        })
    }

    fn note(&self) -> String {
        let each = self.rows.iter().map(|(table, row)| {
            let bytes = self.bytes_a_flow(table).map_or_else(String::new, |bytes| format!("{bytes:.1} bytes a flow, "));
            format!("{table} {bytes}{:.3} % of the flows lost", row.lost * 100.0)
        });
        format!("{}: {}", self.name(), each.collect::<Vec<_>>().join("; "))
    }

    pub(crate) fn json(&self) -> Value {
        let tables = self.rows.iter().map(|(table, row)| {
            let summaries: BTreeMap<_, _> =
                Measure::ALL.iter().map(|measure| (measure.name(), self.summary(table, *measure))).collect();
            json!({"table": table, "summaries": summaries, "row": row})
        });
        json!({"key_bytes": self.key_bytes, "flows": self.flows, "tables": tables.collect::<Vec<_>>()})
    }
}

/// 1024 as "1 K".
pub(crate) fn short(flows: usize) -> String {
    match flows {
        _ if flows >= 1 << 20 && flows.is_multiple_of(1 << 20) => format!("{} M", flows >> 20),
        _ if flows >= 1 << 10 && flows.is_multiple_of(1 << 10) => format!("{} K", flows >> 10),
        _ => flows.to_string(),
    }
}

/// Everything, for people.
pub(crate) fn table(cases: &[Case]) -> Table {
    const HEADINGS: &[&str] = &[
        " key",
        " flows",
        "cycles",
        " ringway",
        " from",
        " to",
        " rte_hash",
        " from",
        " to",
        " hashbrown",
        " faster",
        " from",
        " to",
    ];
    let rows = cases.iter().flat_map(Case::rows).collect();
    Table { headings: HEADINGS, rows, notes: cases.iter().map(Case::note).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(flows: usize, rounds: &[(f64, f64)]) -> Case {
        let mut case = Case::new(16, flows);
        for &(ours, peer) in rounds {
            case.add(OURS, Measure::ALL.map(|measure| (measure, ours)).into());
            case.add(PEER, Measure::ALL.map(|measure| (measure, peer)).into());
        }
        case.set_bytes(OURS, Some(flows as u64 * 80));
        case
    }

    #[test]
    fn bars_are_medians_of_ratios_and_stricter_for_large_tables() {
        let rounds = [(10.0, 14.0), (20.0, 28.0), (10.0, 100.0)];
        let small = case(1024, &rounds).bars();
        assert_eq!(small.len(), 7);
        assert_eq!((small[0].value, small[0].limit), (Some(1.4), Limit::AtLeast(1.3)));
        assert!(small[0].holds() && !small[4].holds(), "inserts have to be 1.5 times faster");
        assert_eq!((small[6].value, small[6].limit), (Some(80.0), Limit::AtMost(96.0)));
        assert!(!case(LARGE, &rounds).bars()[0].holds());
    }

    #[test]
    fn what_was_not_measured_does_not_hold() {
        let bars = case(1024, &[]).bars();
        assert!(bars[..6].iter().all(|bar| !bar.holds()));
    }

    #[test]
    fn a_row_has_a_cell_for_each_heading() {
        let table = table(&[case(1 << 20, &[(10.0, 20.0)])]);
        assert!(table.rows.iter().all(|row| row.len() == table.headings.len()));
        assert_eq!(table.rows[0][..4], ["16", "1 M", "hit", "10.0"]);
        assert_eq!(table.notes.len(), 1);
    }
}
