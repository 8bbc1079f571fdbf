//! Asking a running switch: JSON-RPC 2.0, one message a line, over a Unix socket. The same binary is the client.
//!
//! `server` and `client` are the two ends; `view` is what can be asked for, `show` answers it, `table` prints it for people; `port`
//! and `order` are what can be done, with NICs and with workers.

mod client;
mod order;
mod port;
mod server;
mod show;
mod table;
mod view;

pub use client::Client;
pub use order::Order;
pub use port::PortCommand;
pub use server::Server;
pub use table::layout;
pub use view::View;
