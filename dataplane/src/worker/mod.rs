//! Workers: a thread pinned to a CPU, polling every ring that it owns.
//!
//! `poll` is the loop, `turns` whose turn it is where there is more to do than time, `walk` what happens to a burst, with its stages `heads`,
//! `judge`, `lookup` and `exit`, and `retag` where VLANs are; `idle` what is done about rings that are quiet, `sleep` how a worker
//! waits, `pulse` what gets it out of a system call; `command` is the only way into a running worker,
//! `uplink` is how frames come from NICs and go to them; `topology` the table by which it finds receivers, `steering` chooses among a guest's pairs, and `hand_off` is the ring to a receiver of another worker. Nothing here
//! allocates, locks or logs while frames move, and nothing here makes a system call but a guest's eventfd (and to sleep).

mod clock;
mod command;
mod counters;
mod cpus;
mod exit;
mod hand_off;
mod handle;
mod heads;
mod idle;
mod judge;
mod links;
mod lookup;
mod poll;
mod pulse;
mod retag;
mod sleep;
mod steering;
mod topology;
mod turns;
mod uplink;
mod walk;

pub use clock::Clock;
pub use counters::{Mode, PathCounters, WorkerCounters};
pub use cpus::parse_cpu_list;
pub use handle::{Common, Worker, WorkerError};
pub use links::WORKERS_MAX;
pub use steering::Steering;
pub use topology::{BridgeView, Location, PortView, Topology};
