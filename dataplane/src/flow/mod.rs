//! Where a frame goes: the flow table and what fills it.
//!
//! `table` is the lockless cache that the data path reads for every frame; `mac` is the shared MAC table that a
//! miss consults; `hash` keys both. Nothing here knows of guests or NICs: ports are numbers.

mod hash;
mod key;
mod mac;
mod mac_state;
mod table;
mod verdict;

pub use hash::HashKey;
pub use key::FlowKey;
pub use mac::{Learnt, MacEntry, MacLimits, MacRef, MacTable, Station};
pub use table::{Candidates, Flow, FlowReader, FlowTable, FlowView, Stamp};
pub use verdict::{Action, Verdict};
