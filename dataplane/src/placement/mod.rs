//! Which worker has which queue, and how many workers there are. Pure: values in, values out.
//!
//! A [`Scene`] is one moment of a switch: `topology` the machine, `scene` workers, ports, queues and who talks to whom.
//! `workers` chooses the CPUs that workers run on, `scale` how many, where that is left to us. `choose` finds a worker for
//! what has none, `balance` looks in a dry run for what would better be elsewhere, and `rebalance` decides when that is
//! carried out; `cost` is what both of them weigh, `reason` says why. Nothing of this starts a thread, touches a ring, or reads
//! the clock; time and lots come in. Only `host` reads the machine and its processes. `simulate` runs the same planner on
//! machines that are not there.

mod balance;
mod choose;
mod cost;
pub mod host;
mod reason;
mod rebalance;
mod scale;
mod scene;
pub mod simulate;
#[cfg(test)]
mod tests;
mod topology;
mod workers;

pub use balance::{GAIN_MIN, Move, Plan};
pub use choose::Planner;
pub use cost::{COMFORT, NOMINAL};
pub use reason::{Basis, Compromise, MoveReason, Why};
pub use rebalance::{LOOK_SECONDS, Look, Rebalancer};
pub use scale::{Activity, Resize, Scaler};
pub use scene::{Granularity, Home, Pin, Policy, PortFacts, Queue, Ring, Scene, Seat, Traffic, UnitId};
pub use topology::{Cpu, CpuSet, LOCAL_DISTANCE, Node, NodeId, Topology};
pub use workers::{NoCpus, Usable, Wanted};
