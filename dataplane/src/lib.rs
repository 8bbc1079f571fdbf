//! Ringway: a userspace host switch for virtual machines.
//!
//! QEMU guests plug in over vhost-user with packed virtqueues; poll-mode workers forward their frames through a
//! lockless flow table with one copy a frame. The rooms, from the bottom up; imports run downward only:
//!
//! | room | what lives there |
//! |---|---|
//! | [`account`], [`cpu`] | counters and drop reasons; what is asked of the CPU directly |
//! | [`packet`], [`socket`] | bytes to meaning; listening at a path |
//! | [`flow`], [`policy`] | the flow table and the MAC table; what ports may do |
//! | [`guest`] | a vhost-user port: protocol session, memory, virtqueues |
//! | [`nic`] | a DPDK port: EAL, mempools, mbufs, queues |
//! | [`worker`] | the poll loop and the walk of a burst |
//! | [`placement`] | which worker has which queue, planned |
//! | [`switch`] | what the parts make together |
//! | [`metrics`], [`control`] | seen and asked from outside |

pub mod account;
pub mod control;
pub mod cpu;
pub mod flow;
pub mod guest;
pub mod metrics;
pub mod nic;
pub mod packet;
pub mod placement;
pub mod policy;
mod run;
pub mod socket;
pub mod switch;
pub mod worker;

pub use run::run;
