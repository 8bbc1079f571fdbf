//! The bench `flow-table`: what a lookup, an insert and a delete cost, beside DPDK's `rte_hash` and hashbrown.
//!
//! | module | what lives there |
//! |---|---|
//! | [`table`] | the face behind which the tables are measured |
//! | [`ours`], [`rte_hash`], [`swiss`] | the tables |
//! | [`keys`], [`measure`] | what is asked of them, and how many cycles it took |
//! | [`case`] | the figures of one size, their table, bars and plot |

mod case;
mod keys;
mod measure;
mod ours;
mod plot;
mod rte_hash;
mod swiss;
mod table;

use anyhow::{Context, Result, ensure};
use ringway_testbed::HugePages;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::json;

use self::case::{Case, Figures, Measure};
use self::keys::{Keys, datum};
use self::measure::{Deleting, Place, UPDATES_PER_SECOND};
pub(crate) use self::table::Pages;
use self::table::{BATCH, Contender, Table};
use crate::bench::Outcome;
use crate::cli::Options;
use crate::interrupt;
use crate::machine::{Machine, SWITCH_CPU};

/// The names of those that are compared, of which the first is ours.
const OURS: &str = "ringway";
const PEER: &str = "rte_hash";
const MAP: &str = "hashbrown";

const NARROW: &[Contender<2>] = &[
    Contender { name: OURS, make: ours::make },
    Contender { name: PEER, make: rte_hash::make },
    Contender { name: MAP, make: swiss::make },
];
const WIDE: &[Contender<5>] = &[
    Contender { name: OURS, make: ours::make },
    Contender { name: PEER, make: rte_hash::make },
    Contender { name: MAP, make: swiss::make },
];

pub(crate) fn run(options: &Options) -> Result<Outcome> {
    let machine = Machine::prepare()?;
    let mut set = CpuSet::new();
    set.set(SWITCH_CPU);
    sched_setaffinity(None, &set).context("needs two CPUs, 0 and 1")?;

    let largest = options.flows.iter().copied().max().context("no size to measure")?;
    let mib = memory_mib(largest, options.key_bytes.iter().copied().max().context("no key to measure")?);
    let _pages = match options.pages {
        Pages::Huge => Some(HugePages::reserve(mib as u32)?),
        Pages::Small => None,
    };
    let _eal = rte_hash::Eal::start(options.pages, SWITCH_CPU, mib)?;

    let mut cases = Vec::new();
    for &key_bytes in &options.key_bytes {
        for &flows in &options.flows {
            let case = Case::new(key_bytes, flows);
            cases.push(match key_bytes {
                16 => measure_case(case, NARROW, options, machine.tsc_hz)?,
                _ => measure_case(case, WIDE, options, machine.tsc_hz)?,
            });
        }
    }
    if let Some(path) = &options.plot {
        let svg = plot::svg(&cases, &machine.describe());
        std::fs::write(path, svg).with_context(|| format!("{}", path.display()))?;
    }
    Ok(outcome(&machine, options, &cases))
}

/// Each table is filled once, then measured in turn, round by round.
fn measure_case<const N: usize>(
    mut case: Case,
    contenders: &[Contender<N>],
    options: &Options,
    tsc_hz: f64,
) -> Result<Case> {
    let keys = Keys::<N>::of(case.flows);
    let mut tables = Vec::new();
    for contender in contenders {
        interrupt::check()?;
        let table = filled(contender, &keys, case.flows, options.pages).with_context(|| contender.name)?;
        case.set_bytes(contender.name, table.bytes());
        tables.push((contender.name, table, Place::default(), 0));
    }
    for number in 1..=options.rounds {
        for (name, table, place, from) in &mut tables {
            interrupt::check()?;
            let mut figures = Figures::new();
            let idle = measure::idle(&**table, &keys, place).with_context(|| *name)?;
            figures.insert(Measure::Hit, idle.hit);
            figures.insert(Measure::Miss, idle.miss);
            let mut update = |deleting| measure::updates(&mut **table, &keys.churn, from, deleting).context(*name);
            let (updates, single) = (update(Deleting::Batches)?, update(Deleting::OneByOne)?);
            figures.insert(Measure::Insert, updates.insert);
            figures.insert(Measure::Delete, updates.delete);
            figures.insert(Measure::DeleteSingle, single.delete);
            case.lost(name, idle.lost);
            eprintln!(
                "{}, round {number} of {}: {name:10} {:6.1} cycles a hit, {:6.1} a miss",
                case.name(),
                options.rounds,
                idle.hit,
                idle.miss
            );
            case.add(name, figures);
        }
    }
    // Afterwards: a writer on the other CPU leaves its part of the table in that CPU's caches.
    for number in 0..options.rounds as usize {
        for (name, table, place, _) in &mut tables {
            interrupt::check()?;
            if let Some(busy) = measure::busy(&mut **table, &keys, place, tsc_hz).with_context(|| *name)? {
                let figures = [(Measure::HitBusy, busy.hit), (Measure::MissBusy, busy.miss)];
                case.complete(name, number, figures.into());
            }
        }
    }
    Ok(case)
}

/// A table that holds all keys, and says so.
fn filled<const N: usize>(
    contender: &Contender<N>,
    keys: &Keys<N>,
    flows: usize,
    pages: Pages,
) -> Result<Box<dyn Table<N>>> {
    let mut table = (contender.make)(flows, pages)?;
    for (count, key) in keys.to_insert().enumerate() {
        ensure!(table.insert(key, datum(key)), "full with {count} of {flows} flows");
    }
    let mut wrong = 0;
    table.look_up(&mut |lookup| {
        for batch in keys.present.chunks_exact(BATCH) {
            let found = lookup(batch);
            let sum = batch.iter().map(datum).fold(0, u64::wrapping_add);
            wrong += usize::from(found.hits == BATCH as u64 && found.sum != sum);
        }
    });
    ensure!(wrong == 0, "wrong data for {wrong} batches");
    Ok(table)
}

/// All tables of one size together, generously.
fn memory_mib(flows: usize, key_bytes: usize) -> u64 {
    let a_flow = if key_bytes == 16 { 240 } else { 360 };
    (flows * a_flow) as u64 / (1 << 20) + 128
}

fn outcome(machine: &Machine, options: &Options, cases: &[Case]) -> Outcome {
    let bars = cases.iter().flat_map(Case::bars).collect::<Vec<_>>();
    let verdicts = bars.iter().map(|bar| json!({"bar": bar, "holds": bar.holds()})).collect::<Vec<_>>();
    let json = json!({
        "bench": "flow-table",
        "machine": machine,
        "rounds": options.rounds,
        "pages": options.pages,
        "updates_per_second": UPDATES_PER_SECOND,
        "cases": cases.iter().map(Case::json).collect::<Vec<_>>(),
        "bars": verdicts,
    });
    let pages = if options.pages == Pages::Huge { "2 MiB" } else { "4 KiB" };
    let head = vec![
        machine.describe(),
        format!("{} rounds, {BATCH} keys a batch, pages of {pages}; cycles an operation, medians", options.rounds),
        format!("busy: another thread deletes and inserts {UPDATES_PER_SECOND} flows a second meanwhile"),
    ];
    Outcome { head, tables: vec![case::table(cases)], bars, json }
}
