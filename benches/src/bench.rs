//! The table of benches.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::attack;
use crate::cli::Options;
use crate::closed_loop;
use crate::flow_table;
use crate::nic;
use crate::offload;
use crate::report::{Bar, Table};
use crate::tcp;

/// Something to measure.
pub(crate) struct Bench {
    /// What `scripts/bench` calls it.
    pub(crate) name: &'static str,
    /// What it shows, in a line.
    pub(crate) about: &'static str,
    /// Measures. An error says that nothing could be measured; a bar that is missed is no error.
    pub(crate) run: fn(&Options) -> Result<Outcome>,
}

/// What a bench found.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// On what, and how.
    pub(crate) head: Vec<String>,
    /// Every figure.
    pub(crate) tables: Vec<Table>,
    /// What the figures have to be.
    pub(crate) bars: Vec<Bar>,
    /// All of it, each round included.
    pub(crate) json: Value,
}

/// All benches.
pub(crate) const BENCHES: &[Bench] = &[
    Bench {
        name: "loop",
        about: "frames per second, busy cycles a frame and latency of one core between two DPDK guests",
        run: closed_loop::run,
    },
    Bench { name: "tcp", about: "TCP between two Linux guests in QEMU, offloads passed through", run: tcp::run },
    Bench { name: "nic", about: "busy cycles of one core a frame, from a NIC to a DPDK guest and back", run: nic::run },
    Bench {
        name: "offload",
        about: "busy cycles of one core a byte, for checksums and segments that a guest leaves undone",
        run: offload::run,
    },
    Bench {
        name: "attack",
        about: "what one hostile guest costs its neighbours, beside Open vSwitch; and what 64 K flows cost",
        run: attack::run,
    },
    Bench {
        name: "flow-table",
        about: "cycles a lookup, an insert and a delete of the flow table, DPDK's rte_hash and hashbrown",
        run: flow_table::run,
    },
];

/// The bench of that name.
pub(crate) fn find(name: &str) -> Result<&'static Bench> {
    let names = || BENCHES.iter().map(|bench| bench.name).collect::<Vec<_>>().join(", ");
    BENCHES
        .iter()
        .find(|bench| bench.name == name)
        .with_context(|| format!("no bench \"{name}\"; there are: {}", names()))
}

/// For `--help`: a line a bench.
pub(crate) fn list() -> String {
    BENCHES.iter().map(|bench| format!("  {:10}  {}\n", bench.name, bench.about)).collect()
}
