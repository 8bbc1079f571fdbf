//! Workers: a thread pinned to a CPU, polling every ring that it owns.
//!
//! `poll` is the loop, `turns` whose turn it is where there is more to do than time, `walk` what happens to a burst, with its stages `heads`,
//! `judge`, `lookup` and `exit`, and `retag` where VLANs are; `sleep` is how a worker
//! waits when nothing moves, `pulse` what gets it out of a system call; `command` is the only way into a running worker,
//! `uplink` is how frames come from NICs and go to them; `topology` the table by which it finds receivers, and `hand_off` the ring to a receiver of another worker. Nothing here
//! allocates, locks or logs while frames move, and nothing here makes a system call but a guest's eventfd (and to sleep).

mod clock;
mod command;
mod counters;
mod cpus;
mod exit;
mod hand_off;
mod handle;
mod heads;
mod judge;
mod lookup;
mod poll;
mod pulse;
mod retag;
mod sleep;
mod topology;
mod turns;
mod uplink;
mod walk;

pub use clock::Clock;
pub use counters::{Mode, PathCounters, WorkerCounters};
pub use cpus::{first_of_each_node, parse_cpu_list};
pub use handle::{Worker, WorkerError};
pub use topology::{BridgeView, Location, PortView, Topology};
