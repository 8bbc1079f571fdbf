//! Server mode: we listen, the front end connects, and connects again after each of its restarts.
//!
//! A port is one NIC and has one front end. Who connects while another is served takes its place: a front end that was
//! restarted may be there before the kernel has told us of the old one's end.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::connection::{STACK_BYTES, serve_connection};
use super::port::{PairHost, Port};

/// How long to wait when there is no file descriptor or thread for a connection.
const RETRY: Duration = Duration::from_millis(100);

/// The thread that accepts the connections of one port.
#[derive(Debug)]
pub struct Server;

impl Server {
    /// Starts serving `port` to whoever connects to `listener`; it goes on as long as the process lives.
    pub fn start(port: Arc<Port>, host: Arc<dyn PairHost>, listener: UnixListener) -> io::Result<()> {
        let name = format!("accept-{}", port.name);
        thread::Builder::new().name(name).stack_size(STACK_BYTES).spawn(move || accept(&port, &host, &listener))?;
        Ok(())
    }
}

/// A connection that is served.
struct Served {
    stream: UnixStream,
    thread: JoinHandle<()>,
}

impl Served {
    /// Ends it, if it has not ended by itself. Its pairs are back afterwards.
    fn end(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        let _ = self.thread.join();
    }
}

fn accept(port: &Arc<Port>, host: &Arc<dyn PairHost>, listener: &UnixListener) {
    let mut served: Option<Served> = None;
    loop {
        let Ok((stream, _)) = listener.accept() else {
            thread::sleep(RETRY);
            continue;
        };
        if let Some(before) = served.take() {
            if !before.thread.is_finished() {
                tracing::info!("port {}: another front end takes over", port.name);
            }
            before.end();
        }
        port.recover();
        tracing::info!("port {}: a front end has connected at {}", port.name, port.socket.display());
        served = begin(port, host, stream).inspect_err(|error| tracing::warn!("port {}: {error}", port.name)).ok();
    }
}

fn begin(port: &Arc<Port>, host: &Arc<dyn PairHost>, stream: UnixStream) -> io::Result<Served> {
    let (port, host, ours) = (port.clone(), host.clone(), stream.try_clone()?);
    let thread = thread::Builder::new().name(format!("vhost-{}", port.name)).stack_size(STACK_BYTES);
    let thread = thread.spawn(move || serve_connection(&port, &host, stream))?;
    Ok(Served { stream: ours, thread })
}
