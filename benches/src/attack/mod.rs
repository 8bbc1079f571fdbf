//! The bench `attack`: what one guest can do to the others, on Ringway and on Open vSwitch; and what many flows cost.
//!
//! | module | what lives there |
//! |---|---|
//! | [`attacks`] | what the attacker sends, and by which metric it is told |
//! | [`under_attack`] | a neighbour's traffic without the attacker and with it |
//! | [`open_loop`] | what a frame costs at 80 % of capacity, of one flow and of 64 K |
//! | [`subject`] | the switch |

mod attacks;
mod open_loop;
mod subject;
mod under_attack;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use ringway_testbed::{HugePages, ringway_binary};
use serde_json::json;

use self::attacks::Attack;
use self::open_loop::{Costs, FLOWS};
use self::under_attack::Suffered;
use crate::bench::Outcome;
use crate::cli::Options;
use crate::interrupt;
use crate::machine::Machine;
use crate::report::{Bar, Limit, Table, figure};
use crate::stats::Summary;
use crate::switch::{self, Backend};

const HEADINGS: &[&str] = &[
    "attack",
    "switch",
    " guests",
    " Mframe/s alone",
    " attacked",
    " loss %",
    " attack",
    " MiB",
    " growth",
    " stations %",
    " flows %",
    " named %",
];
const COSTS: &[&str] = &["flows", " Mframe/s", " cycles", " min", " max"];

/// Measurements in a row until switch and guests had their CPUs for themselves.
const TRIES: usize = 3;
const CPU_SHARE_MIN: f64 = 0.93;

/// All rounds of one attack on one switch.
type Rounds = BTreeMap<(Attack, Backend), Vec<Result<Suffered, String>>>;

pub(crate) fn run(options: &Options) -> Result<Outcome> {
    let backends: Vec<_> =
        options.backends.iter().copied().filter(|backend| [Backend::Ringway, Backend::Ovs].contains(backend)).collect();
    ensure!(!backends.is_empty(), "attacked are ringway and ovs: name one of them with --backends");
    let machine = Machine::prepare()?;
    let _pages = if backends.contains(&Backend::Ovs) { Some(HugePages::reserve(switch::MEMORY_MIB)?) } else { None };
    let measured = Duration::from_secs(options.seconds);
    let (mut rounds, mut costs) = (Rounds::new(), Vec::new());
    for number in 1..=options.rounds {
        let place = format!("round {number} of {}", options.rounds);
        if backends.contains(&Backend::Ringway) {
            ringway_binary()?;
            interrupt::check()?;
            let cost = undisturbed_if_can_be(|| open_loop::measure(measured, machine.tsc_hz), |cost| cost.cpu_share)?;
            let Costs { one, many, entries, asked, .. } = cost;
            eprintln!("{place}: {asked:.2} Mframe/s: {one:.1} cycles of one flow, {many:.1} of {entries:.0}");
            costs.push(cost);
        }
        for attack in Attack::ALL {
            for &backend in &backends {
                interrupt::check()?;
                let measure = || under_attack::measure(attack, backend, measured, machine.tsc_hz);
                let suffered = undisturbed_if_can_be(measure, |suffered| suffered.cpu_share);
                interrupt::check()?;
                let (name, switch) = (attack.name(), backend.name());
                match &suffered {
                    Ok(Suffered { alone, attacked, loss, attack, cpu_share, .. }) => {
                        let figures = format!("{alone:.2} alone, {attacked:.2} attacked by {attack:.2} Mframe/s");
                        let (loss, share) = (loss * 100.0, cpu_share * 100.0);
                        eprintln!("{place}: {name}: {switch:8} {figures}, {loss:.1} % lost, {share:.0} % of its CPU");
                    }
                    Err(error) => eprintln!("{place}: {name}: {switch:8} failed: {error:#}"),
                }
                let suffered = suffered.map_err(|error| format!("{error:#}"));
                rounds.entry((attack, backend)).or_default().push(suffered);
            }
        }
    }
    Ok(outcome(&machine, options, &rounds, &costs))
}

/// Measures again, at once and a few times, where somebody else had a part of the CPUs; the last one is taken as it is.
fn undisturbed_if_can_be<M>(measure: impl Fn() -> Result<M>, cpu_share: impl Fn(&M) -> f64) -> Result<M> {
    for _ in 1..TRIES {
        let measured = measure()?;
        if cpu_share(&measured) >= CPU_SHARE_MIN {
            return Ok(measured);
        }
        interrupt::check()?;
    }
    measure()
}

fn summary(rounds: &[Result<Suffered, String>], of: impl Fn(&Suffered) -> Option<f64>) -> Option<Summary> {
    Summary::of(rounds.iter().flatten().filter_map(of))
}

fn median(rounds: &[Result<Suffered, String>], of: impl Fn(&Suffered) -> Option<f64>) -> Option<f64> {
    summary(rounds, of).map(|summary| summary.median)
}

fn row(attack: Attack, backend: Backend, rounds: &[Result<Suffered, String>]) -> Vec<String> {
    let percent = |of: fn(&Suffered) -> Option<f64>| figure(median(rounds, of).map(|part| part * 100.0), 1);
    let number = |of: fn(&Suffered) -> Option<f64>, decimals| figure(median(rounds, of), decimals);
    vec![
        attack.name().to_owned(),
        backend.name().to_owned(),
        number(|suffered| Some(suffered.guests as f64), 0),
        number(|suffered| Some(suffered.alone), 2),
        number(|suffered| Some(suffered.attacked), 2),
        percent(|suffered| Some(suffered.loss)),
        number(|suffered| Some(suffered.attack), 2),
        number(|suffered| Some(suffered.memory_mib), 1),
        number(|suffered| Some(suffered.growth_mib), 2),
        percent(|suffered| suffered.stations),
        percent(|suffered| suffered.flows),
        percent(|suffered| suffered.named),
    ]
}

/// What has to be so of Ringway.
fn bars_of(attack: Attack, rounds: &[Result<Suffered, String>]) -> Vec<Bar> {
    let bar = |what: &str, value: Option<f64>, limit| Bar {
        what: format!("{}: {what}", attack.name()),
        // A round that failed is no figure, and a bar does not hold for want of some.
        value: value.filter(|_| rounds.iter().all(Result::is_ok)),
        limit,
        void: None,
    };
    let most = |of: fn(&Suffered) -> Option<f64>| summary(rounds, of).map(|summary| summary.max);
    let (metric, reason) = attack.told_by();
    let told_by = reason.map_or_else(|| metric.to_owned(), |reason| format!("{metric}, {reason}"));
    vec![
        bar("part that the neighbour loses", median(rounds, |suffered| Some(suffered.loss)), Limit::AtMost(0.05)),
        bar("growth of memory meanwhile, MiB", most(|suffered| Some(suffered.growth_mib)), Limit::AtMost(1.0)),
        bar("stations, of those that there may be", most(|suffered| suffered.stations), Limit::AtMost(1.0)),
        bar("flows, of those that there is room for", most(|suffered| suffered.flows), Limit::AtMost(1.0)),
        bar(&format!("attacker's part of {told_by}"), median(rounds, |suffered| suffered.named), Limit::AtLeast(0.5)),
    ]
}

fn bars_of_costs(costs: &[Costs]) -> Vec<Bar> {
    let median = |of: fn(&Costs) -> f64| Summary::of(costs.iter().map(of)).map(|summary| summary.median);
    let bar = |what: &str, value, limit| Bar { what: format!("open loop: {what}"), value, limit, void: None };
    vec![
        bar(
            "cycles a frame of 64 K flows / of one",
            Summary::of_ratios(costs.iter().map(|costs| (costs.many, costs.one))).map(|ratio| ratio.median),
            Limit::AtMost(1.25),
        ),
        bar("flows in the table", median(|costs| costs.entries), Limit::AtLeast(f64::from(FLOWS) * 0.99)),
        bar(
            "came through / asked for, of one flow",
            median(|costs| costs.one_mframes / costs.asked),
            Limit::AtLeast(0.95),
        ),
        bar(
            "came through / asked for, of 64 K",
            median(|costs| costs.many_mframes / costs.asked),
            Limit::AtLeast(0.95),
        ),
    ]
}

fn outcome(machine: &Machine, options: &Options, rounds: &Rounds, costs: &[Costs]) -> Outcome {
    let mut bars = if costs.is_empty() { Vec::new() } else { bars_of_costs(costs) };
    for ((attack, backend), rounds) in rounds {
        if *backend == Backend::Ringway {
            bars.extend(bars_of(*attack, rounds));
        }
    }
    let cost = |name: &str, mframes: fn(&Costs) -> f64, cycles: fn(&Costs) -> f64| {
        let (mframes, cycles) = (Summary::of(costs.iter().map(mframes)), Summary::of(costs.iter().map(cycles)));
        vec![
            name.to_owned(),
            figure(mframes.map(|summary| summary.median), 2),
            figure(cycles.map(|summary| summary.median), 1),
            figure(cycles.map(|summary| summary.min), 1),
            figure(cycles.map(|summary| summary.max), 1),
        ]
    };
    let costs_table = Table {
        headings: COSTS,
        rows: vec![
            cost("one each way", |costs| costs.one_mframes, |costs| costs.one),
            cost("64 K", |costs| costs.many_mframes, |costs| costs.many),
        ],
        notes: vec!["at 80 % of what the worker does with one flow each way, frames of 60 bytes".to_owned()],
    };
    let attacks_table = Table {
        headings: HEADINGS,
        rows: rounds.iter().map(|((attack, backend), rounds)| row(*attack, *backend, rounds)).collect(),
        notes: Vec::new(),
    };
    let verdicts = bars.iter().map(|bar| json!({"bar": bar, "holds": bar.holds()})).collect::<Vec<_>>();
    let cells =
        rounds.iter().map(|((attack, backend), rounds)| json!({"attack": attack, "switch": backend, "rounds": rounds}));
    let json = json!({
        "bench": "attack",
        "machine": machine,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "open_loop": costs,
        "attacks": cells.collect::<Vec<_>>(),
        "bars": verdicts,
    });
    let head = vec![
        machine.describe(),
        format!("medians of {} rounds; frames of 60 bytes, packed rings of 256", options.rounds),
        "alone, attacked: between the neighbour and its peer, each sending a fifth of what the switch does for them;"
            .to_owned(),
        "attack: what the switch took from the attacker; named: its part of the metric that tells who it was"
            .to_owned(),
    ];
    let tables = if costs.is_empty() { vec![attacks_table] } else { vec![costs_table, attacks_table] };
    Outcome { head, tables, bars, json }
}
