//! What ports may do: the rules that the data path asks, made from the configuration once.
//!
//! `rules` is a port's whole policy, `guard` judges by the private head who may send what, `bucket` limits rates. Pure but for
//! the buckets, whose one writer is the worker that has the port's pairs. Ports are numbers here, and nothing is known of rings.

mod bucket;
mod guard;
mod rules;

pub use bucket::{Bucket, Limit};
pub use guard::Guard;
pub use rules::PortRules;
