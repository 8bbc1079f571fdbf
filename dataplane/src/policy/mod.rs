//! What ports may do: the rules that the data path asks, made from the configuration once.
//!
//! `rules` is a port's whole policy, `guard` judges by the private head who may send what, `bucket` limits rates. Pure but for
//! the buckets, from which all workers take that have queues of the port. Ports are numbers here, and nothing is known of rings.

mod bucket;
mod guard;
mod rules;

pub use bucket::{Bucket, Limit};
pub use guard::Guard;
pub use rules::PortRules;
