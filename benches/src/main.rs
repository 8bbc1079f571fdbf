//! `ringway-bench`: figures about Ringway that mean something on a shared machine, because its peers are measured in the
//! same minutes. `scripts/bench` builds and starts it.
//!
//! | module | what lives there |
//! |---|---|
//! | [`mod@bench`] | the table of benches, and what each of them returns |
//! | [`closed_loop`], [`cell`], [`bars`] | the bench `loop`: measuring, what it found, what it has to find |
//! | [`tcp`], [`guests`] | the bench `tcp`, and the Linux guests that it boots |
//! | [`nic`], [`offload`], [`uplink`] | the benches of those names, and the switches between a NIC and a guest that they measure |
//! | [`flow_table`] | the bench `flow-table`: the table alone, beside those of others |
//! | [`attack`] | the bench `attack`: one guest against the others |
//! | [`generator`] | many guests on one thread, at a given rate or as fast as they can |
//! | [`switch`] | what can be measured: Ringway, the floor, testpmd, Open vSwitch |
//! | [`load`] | the pair of guests that keeps frames going round |
//! | [`paced`] | the pair of guests of which one sends at a given rate, and the other sees how long it took |
//! | [`compile`] | the C programs: the floor and the paced load |
//! | [`judge`], [`stats`] | which rounds count, and what they say together |
//! | [`report`] | tables and bars, for people and as JSON |
//! | [`machine`], [`interrupt`] | what the machine must have, and Ctrl-C |
//!
//! A new bench is a file with a `run` function, and a line in the table.

mod attack;
mod bars;
mod bench;
mod cell;
mod cli;
mod closed_loop;
mod compile;
mod flow_table;
mod generator;
mod guests;
mod interrupt;
mod judge;
mod load;
mod machine;
mod nic;
mod offload;
mod paced;
mod report;
mod stats;
mod switch;
mod tcp;
mod uplink;

use std::process::ExitCode;

use clap::Parser;

use crate::bench::Outcome;
use crate::cli::Arguments;

/// A bar does not hold.
const BAR_MISSED: u8 = 1;
/// Nothing was measured: wrong arguments, or a machine that lacks something.
const NOT_MEASURED: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let measured = measure(&arguments).and_then(|outcome| {
        print!("{}", report::text(&outcome));
        if let Some(path) = &arguments.json {
            report::write_json(&outcome, path)?;
        }
        Ok(outcome)
    });
    match measured {
        Ok(outcome) if outcome.bars.iter().all(report::Bar::holds) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(BAR_MISSED),
        Err(error) => {
            eprintln!("ringway-bench: {error:#}");
            ExitCode::from(NOT_MEASURED)
        }
    }
}

fn measure(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let bench = bench::find(&arguments.bench)?;
    interrupt::watch()?;
    (bench.run)(&arguments.options)
}
