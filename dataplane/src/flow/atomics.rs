//! The atomics of the flow table, in one place: the model checker (`tests/flow_model`) compiles the same table with its own.

pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
