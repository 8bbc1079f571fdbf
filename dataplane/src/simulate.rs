//! `ringway workers simulate`: what the planner of the switch does on machines that are not there.

use std::io::Write;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use ringway::control::layout;
use ringway::placement::simulate::{Outcome, Setting, run};
use ringway::placement::{Granularity, Policy};

/// What is simulated: every combination of what is listed.
#[derive(Args)]
#[command(after_help = "\
The planner is the one that `ringway run` uses; the guests, their traffic and the clock are made up, from the seed.
Each run is two minutes, in which the traffic of some guests changes twice.

LOAD is by worker, in percent of a CPU; more than 100 is more than there is. REMOTE counts virtqueues whose memory is on
another node than their worker, HAND-OFF is what handing frames from worker to worker costs, in percent of a CPU, MOVES are those
of two minutes, DRY RUNS the looks that found some worth it and waited for the next.

Examples:
  ringway workers simulate
  ringway workers simulate --sockets 2 --guests 4,60 --per-node 4 --policy measured --json")]
pub(crate) struct Simulate {
    /// Sockets of the machine, each a NUMA node of 16 cores with two threads.
    #[arg(long, value_name = "COUNT,...", value_delimiter = ',', default_value = "1,2,8", value_parser = clap::value_parser!(u16).range(1..=64))]
    sockets: Vec<u16>,
    /// Workers of each socket.
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=31))]
    per_node: u16,
    /// Guests.
    #[arg(long, value_name = "COUNT,...", value_delimiter = ',', default_value = "60", value_parser = clap::value_parser!(u16).range(1..=256))]
    guests: Vec<u16>,
    /// Queue pairs of each guest.
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=128))]
    pairs: u16,
    /// What is placed as one.
    #[arg(long, value_name = "UNIT,...", value_delimiter = ',', default_value = "nic,pair,virtqueue", value_parser = granularity())]
    unit: Vec<Granularity>,
    /// How a worker is chosen.
    #[arg(long, value_name = "POLICY,...", value_delimiter = ',', default_value = "measured,round-robin,random", value_parser = policy())]
    policy: Vec<Policy>,
    /// Another one is another world.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print JSON, for machines.
    #[arg(long)]
    json: bool,
}

fn granularity() -> impl TypedValueParser<Value = Granularity> {
    let names = PossibleValuesParser::new(Granularity::ALL.map(Granularity::as_str));
    names.map(|name| Granularity::ALL.into_iter().find(|one| one.as_str() == name).unwrap_or(Granularity::Pair))
}

fn policy() -> impl TypedValueParser<Value = Policy> {
    let names = PossibleValuesParser::new(Policy::ALL.map(Policy::as_str));
    names.map(|name| Policy::ALL.into_iter().find(|one| one.as_str() == name).unwrap_or(Policy::Measured))
}

/// Does what was asked.
pub(crate) fn command(simulate: &Simulate) -> anyhow::Result<()> {
    let mut outcomes = Vec::new();
    for &sockets in &simulate.sockets {
        for &guests in &simulate.guests {
            for &granularity in &simulate.unit {
                for &policy in &simulate.policy {
                    let (per_node, pairs, seed) = (usize::from(simulate.per_node), simulate.pairs, simulate.seed);
                    outcomes.push(run(&Setting { sockets, per_node, guests, pairs, granularity, policy, seed }));
                }
            }
        }
    }
    let text = if simulate.json { serde_json::to_string_pretty(&outcomes)? } else { table(&outcomes) };
    // A reader that has seen enough closes the pipe; that is no error.
    let _ = std::io::stdout().write_all(format!("{}\n", text.trim_end()).as_bytes());
    Ok(())
}

fn table(outcomes: &[Outcome]) -> String {
    let percent = |share: f64| format!("{:.0}", share * 100.0);
    let titles =
        ["SOCKETS", "GUESTS", "UNIT", "POLICY", "BUSIEST", "MEAN", "REMOTE", "HAND-OFF", "MOVES", "DRY RUNS", "LOAD"];
    let rows = outcomes.iter().map(|one| {
        vec![
            one.sockets.to_string(),
            one.guests.to_string(),
            one.granularity.to_owned(),
            one.policy.to_owned(),
            percent(one.busiest()),
            percent(one.mean()),
            format!("{} of {}", one.remote_virtqueues, one.virtqueues),
            percent(one.hand_off),
            one.moves.to_string(),
            one.dry_runs.to_string(),
            one.workers.iter().map(|worker| percent(worker.load)).collect::<Vec<_>>().join(" "),
        ]
    });
    layout(&std::iter::once(titles.map(str::to_owned).to_vec()).chain(rows).collect::<Vec<_>>())
}
