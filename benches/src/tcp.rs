//! The bench `tcp`: TCP from one Linux guest to another, with segmentation offload passed through, and without.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use ringway_testbed::{
    HugePages, Memory, Ringway, RingwayBuilder, Testpmd, VhostPort, acceleration, ringway_binary, scratch_dir,
};
use serde::Serialize;
use serde_json::json;

use crate::bench::Outcome;
use crate::cli::Options;
use crate::guests::{Guests, Transfer, features};
use crate::interrupt;
use crate::machine::{Machine, SWITCH_CPU};
use crate::report::{Bar, Limit, Table, figure};
use crate::stats::Summary;
use crate::switch::{Backend, MEMORY_MIB};

/// What a guest of the row without offloads is not offered.
const OFFLOADS: [&str; 8] =
    ["csum", "guest_csum", "host_tso4", "host_tso6", "host_ecn", "guest_tso4", "guest_tso6", "guest_ecn"];

/// What is between the guests, in the order of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Row {
    Ringway,
    Testpmd,
    /// Ringway, which offers no offload.
    Masked,
}

/// What one row did in one round.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Measured {
    gbits: f64,
    /// The part of their CPU that the guests had.
    cpu_share: f64,
    /// `ethtool -k` in the guest that sends.
    offloads: String,
}

type Round = BTreeMap<Row, Result<Measured, String>>;

pub(crate) fn run(options: &Options) -> Result<Outcome> {
    let packed = options.packed.first() == Some(&1);
    let machine = Machine::prepare()?;
    ringway_binary()?;
    let _pages = HugePages::reserve(MEMORY_MIB)?;
    let how = acceleration()?;
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        let mut round = Round::new();
        for row in Row::ALL.into_iter().filter(|row| options.backends.contains(&row.backend())) {
            interrupt::check()?;
            let measured = row.measure(packed, options.seconds);
            interrupt::check()?;
            let place = format!("round {number} of {}: {:15}", options.rounds, row.name());
            match &measured {
                Ok(Measured { gbits, cpu_share, .. }) => {
                    eprintln!("{place} {gbits:6.3} Gbit/s, guests had {:3.0} % of their CPU", cpu_share * 100.0);
                }
                Err(error) => eprintln!("{place} failed: {error:#}"),
            }
            round.insert(row, measured.map_err(|error| format!("{error:#}")));
        }
        rounds.push(round);
    }
    let head = vec![
        machine.describe(),
        format!("guests by {how}, {} rings; medians of the rounds", if packed { "packed" } else { "split" }),
    ];
    Ok(outcome(head, &machine, options, &rounds))
}

impl Row {
    const ALL: [Self; 3] = [Self::Ringway, Self::Testpmd, Self::Masked];

    fn name(self) -> &'static str {
        match self {
            Self::Ringway => "ringway",
            Self::Testpmd => "testpmd",
            Self::Masked => "ringway, masked",
        }
    }

    /// Which word of `--backends` asks for it.
    fn backend(self) -> Backend {
        match self {
            Self::Ringway | Self::Masked => Backend::Ringway,
            Self::Testpmd => Backend::Testpmd,
        }
    }

    /// From the start of the guests to their end.
    fn measure(self, packed: bool, seconds: u64) -> Result<Measured> {
        let dir = scratch_dir()?;
        let sockets: [PathBuf; 2] = ["v0", "v1"].map(|name| dir.path().join(name));
        let mut guests = Guests::start(&sockets, packed)?;
        // Whichever it is, it ends at the end of this.
        let (_ringway, _testpmd) = match self {
            Self::Ringway => (Some(ringway(&sockets, "")?), None),
            Self::Masked => (Some(ringway(&sockets, &masked())?), None),
            Self::Testpmd => (None, Some(testpmd(&sockets)?)),
        };
        guests.wait_ready()?;
        let offloads = guests.offloads()?;
        let Transfer { gbits, cpu_share } = guests.transfer(seconds)?;
        Ok(Measured { gbits, cpu_share, offloads })
    }
}

/// A line of a port's table.
fn masked() -> String {
    format!("mask_features = {OFFLOADS:?}")
}

fn ringway(sockets: &[PathBuf; 2], of_each_port: &str) -> Result<Ringway> {
    let port = |builder: RingwayBuilder, (name, socket)| builder.port(name, "br0", socket).toml(of_each_port);
    let builder = Ringway::builder().cpu(SWITCH_CPU).bridge("br0");
    ["vm1", "vm2"].into_iter().zip(sockets).fold(builder, port).start()
}

/// Debian's DPDK 22.11 takes `tso=1` as it is: TCP passes without `legacy-ol-flags=1`, and no slower.
fn testpmd(sockets: &[PathBuf; 2]) -> Result<Testpmd> {
    let port = |socket| VhostPort::new(socket).serves(false).parameter("tso=1");
    let testpmd = Testpmd::switch()
        .vhost(port(&sockets[0]))
        .vhost(port(&sockets[1]))
        .memory(Memory::Huge(MEMORY_MIB))
        .cpu(SWITCH_CPU)
        .start()?;
    testpmd.wait_ready()?;
    testpmd.forward()?;
    Ok(testpmd)
}

fn outcome(head: Vec<String>, machine: &Machine, options: &Options, rounds: &[Round]) -> Outcome {
    let bars = bars(rounds);
    let verdicts = bars.iter().map(|bar| json!({"bar": bar, "holds": bar.holds()})).collect::<Vec<_>>();
    let json = json!({
        "bench": "tcp",
        "machine": machine,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "measured": rounds,
        "bars": verdicts,
    });
    Outcome { head, tables: vec![rates(rounds), offloads(rounds)], bars, json }
}

fn each(rounds: &[Round], row: Row) -> impl Iterator<Item = Option<&Measured>> {
    rounds.iter().map(move |round| round.get(&row)?.as_ref().ok())
}

fn rates(rounds: &[Round]) -> Table {
    let line = |row: Row| {
        let measured = || each(rounds, row).flatten();
        let rate = Summary::of(measured().map(|measured| measured.gbits));
        let share = Summary::of(measured().map(|measured| measured.cpu_share * 100.0));
        vec![
            row.name().to_owned(),
            figure(rate.map(|rate| rate.median), 3),
            figure(rate.map(|rate| rate.min), 3),
            figure(rate.map(|rate| rate.max), 3),
            measured().count().to_string(),
            figure(share.map(|share| share.median), 0),
        ]
    };
    let rows = Row::ALL.map(line).into();
    Table { headings: &["switch", " Gbit/s", " min", " max", " rounds", " guests' CPU %"], rows, notes: Vec::new() }
}

/// What the guests' drivers made of the features that they were offered, a column each switch.
fn offloads(rounds: &[Round]) -> Table {
    let said = Row::ALL.map(|row| each(rounds, row).flatten().next().map_or("", |measured| &measured.offloads));
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in said.iter().flat_map(|said| features(said)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let value = |said: &str, name: &str| match features(said).find(|&(feature, _)| feature == name) {
        Some((_, value)) => value.to_owned(),
        None => if said.is_empty() { "-" } else { "off [fixed]" }.to_owned(),
    };
    let row = |name: &str| std::iter::once(name.to_owned()).chain(said.map(|said| value(said, name))).collect();
    let rows = names.into_iter().map(row).collect();
    Table { headings: &["ethtool -k", "ringway", "testpmd", "ringway, masked"], rows, notes: Vec::new() }
}

/// Medians of ratios within a round. A round in which either of the two failed is left out.
fn bars(rounds: &[Round]) -> Vec<Bar> {
    let bar = |(peer, limit): (Row, f64)| {
        let pairs = each(rounds, Row::Ringway).zip(each(rounds, peer));
        let ratios = Summary::of_ratios(pairs.filter_map(|(ringway, peer)| Some((ringway?.gbits, peer?.gbits))));
        Bar {
            what: format!("iperf3 -P 4, bytes per second: ringway / {}", peer.name()),
            value: ratios.map(|ratios| ratios.median),
            limit: Limit::AtLeast(limit),
            void: None,
        }
    };
    [(Row::Testpmd, 0.95), (Row::Masked, 3.0)].map(bar).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(rates: [Option<f64>; 3]) -> Round {
        let measured = |gbits| Measured {
            gbits,
            cpu_share: 0.99,
            offloads: format!("tx-checksumming: {}\nrx-fcs: off [fixed]\n", if gbits > 1.0 { "on" } else { "off" }),
        };
        Row::ALL.into_iter().zip(rates.map(|rate| rate.map(measured).ok_or_else(|| "gone".to_owned()))).collect()
    }

    #[test]
    fn bars_are_medians_of_ratios_within_a_round() {
        let rounds = [
            round([Some(3.0), Some(3.0), Some(1.0)]),
            round([Some(9.0), Some(10.0), Some(1.0)]),
            round([Some(2.0), Some(2.0), None]),
            round([None, Some(9.0), Some(9.0)]),
        ];
        let bars = bars(&rounds);
        assert_eq!((bars[0].value, bars[0].holds()), (Some(1.0), true));
        assert_eq!((bars[1].value, bars[1].holds()), (Some(6.0), true));
        assert!(super::bars(&rounds[3..]).iter().all(|bar| !bar.holds()));
        assert!(!super::bars(&[round([Some(9.4), Some(10.0), Some(3.2)])]).iter().any(Bar::holds));
    }

    #[test]
    fn a_row_that_failed_has_dashes() {
        let rounds = [round([Some(3.0), Some(0.5), None])];
        assert_eq!(rates(&rounds).rows[2], ["ringway, masked", "-", "-", "-", "0", "-"]);
        assert_eq!(offloads(&rounds).rows, [["tx-checksumming", "on", "off", "-"]]);
    }

    #[test]
    fn the_mask_is_a_line_of_configuration() {
        assert!(masked().starts_with("mask_features = [\"csum\", \"guest_csum\", "), "{}", masked());
    }
}
