//! Where a frame goes: the flow table and what fills it.
//!
//! `table` is the lockless cache that the data path reads for every frame, from any words to any words, and `flows` says what
//! they are here; `memory` is what it lies in. `mac` is the shared MAC table that a miss consults; `hash` keys both. `affinity` remembers
//! to which of a guest's queues its flows belong. Nothing here knows of guests or NICs: ports and queues are numbers.

mod affinity;
mod atomics;
mod flows;
mod hash;
mod key;
mod mac;
mod mac_state;
mod memory;
pub mod table;
mod verdict;

pub use affinity::{Affinity, BEAT, QUIET, Queues};
pub use flows::{Flow, FlowReader, FlowTable, FlowView};
pub use hash::HashKey;
pub use key::FlowKey;
pub use mac::{Learnt, MacEntry, MacLimits, MacRef, MacTable, Station};
pub use table::{Candidates, Size, Stamp};
pub use verdict::{Action, Verdict};
