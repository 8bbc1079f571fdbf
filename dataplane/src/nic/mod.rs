//! A DPDK port: everything between an ethdev and frames in mbufs.
//!
//! `eal` starts DPDK, on the first need, and is the thread on which every call of control is made; `ethdev` is one of DPDK's
//! ports, from its probe to its removal, `bond` several as one, `device` either as it is set up for use; `keeper` keeps all of
//! them as the plan and the operator want them; `port` is what the rest of the house sees of one. `bonded`, `mempool`, `mbuf` and `queue` are the data path: values that move into the worker that uses them, and cross to C
//! once a burst. `steering` leads frames to the worker that they are for, by `flow_rule`. `offload` translates what is left undone of a frame. `double` is a NIC of the heap, for tests without EAL.
//! Nothing here knows of bridges or flows; of `guest` only the piece of memory that is copied from and to is used.

mod bond;
mod bonded;
mod device;
pub mod double;
mod eal;
mod ethdev;
mod flow_rule;
mod keeper;
mod mbuf;
mod mempool;
mod offload;
mod port;
mod queue;
mod steering;

pub(crate) use eal::register_thread;
pub use keeper::{Action, Host, Keeper, NotDone, Orders};
pub use mbuf::{Mbuf, Mbufs, Received};
pub use mempool::PoolUse;
pub use offload::TxFlags;
pub use port::{Info, Link, Member, MemberState, Port, PortState, QueueCounters};
pub use queue::{Queue, QueueId, RxQueue, SEGMENTS_MAX, Sent, TxQueue};
pub use steering::Target;

/// Frames received or sent at a time.
pub const BURST: usize = crate::guest::ring::BURST;
