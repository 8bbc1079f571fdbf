//! The switch as numbers: counters to Prometheus text, and the page that serves it.
//!
//! A scrape reads counters and never touches a worker. Naming follows Prometheus's conventions, the prefix is `ringway_`.
//! Directions are the switch's: a frame received came from a guest, one transmitted went to a guest.

mod collect;
mod families;
mod http;

pub use collect::collect;
pub use http::serve;
