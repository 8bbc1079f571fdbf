//! A guest's port: everything between a vhost-user socket and frames in private memory.
//!
//! `client` and `server` are the two ways to a front end, `connection` is one that is there; `session` speaks the protocol
//! and owns what the front end has said; `memory` maps what it shares, of which a `segment` can be touched; `ring` takes and
//! gives back descriptor chains; `pair` is what a worker owns, two rings and their counters; `spare` is what lies idle of it, `frame` is what is read of
//! a frame, and `deliver` is the one copy, with `finish` for what is to be done to a frame under way. Nothing here knows of
//! bridges, flows or NICs, and nothing that a guest wrote is read outside `segment` and `ring`.

mod client;
mod connection;
mod cursor;
mod deliver;
mod early_enable;
mod features;
mod fill;
mod finish;
mod frame;
mod mapping;
pub mod memory;
mod notifier;
mod pair;
mod port;
pub mod ring;
mod segment;
mod server;
mod session;
mod sigbus;
mod spare;
mod watch;

pub use client::Client;
pub use connection::serve_connection;
pub use cursor::Room;
pub use deliver::{Delivered, Frames, set_bits};
pub use features::Features;
pub use finish::{Finisher, Short, Shortage, Sink};
pub use frame::{FRAME_LEN_MAX, FrameHead, HEAD_LEN};
pub use notifier::{Eventfd, Offence, Rung};
pub use pair::{Notifier, Owed, PairCounters, PairId, QueuePair};
pub use port::{PairHost, PairInfo, Port, PortState, QUEUE_PAIRS_MAX};
pub use server::Server;
pub use session::Session;
pub use spare::SparePair;
pub use watch::Watch;
