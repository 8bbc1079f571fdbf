//! The guest's side of virtio-net, as a library: a driver double.
//!
//! It proves rules (of rings, of the protocol, of what a broken guest may do to its neighbours) that a real guest cannot be
//! made to break; it never stands in for the real peers where interworking or speed is shown. Nothing here shares code
//! with the switch: both sides are written from the specifications, so that a misreading shows.
//!
//! | module | what lives there |
//! |---|---|
//! | [`memory`] | guest memory in memfds, and a small allocator |
//! | [`queue`] | a virtqueue from the driver's side; `packed` and `split` know the layouts |
//! | [`front_end`] | the vhost-user socket: listens, negotiates, and sends whatever it is told to, also what it should not |
//! | [`guest`] | the three together: a NIC that sends and receives frames |
//! | [`net_header`] | what is said of a frame in front of it |
//! | [`hostile`] | a driver that changes its rings and buffers at random while the device looks |
//! | [`frame`], [`wait`] | frames to send, and waiting with an end |

pub mod frame;
pub mod front_end;
pub mod guest;
pub mod hostile;
pub mod memory;
pub mod net_header;
mod packed;
pub mod queue;
mod split;
pub mod wait;

pub use front_end::{FrontEnd, Listener, Message};
pub use guest::{Guest, Options, Pair};
pub use memory::{DriverMemory, Span, Window};
pub use net_header::NetHeader;
pub use queue::{Areas, Completion, Layout, Piece, Queue, RawDescriptor, Rules};
pub use wait::{PATIENCE, eventually};
