//! Client mode: the front end listens, we connect, keep trying, and follow it through its restarts.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::connection::{STACK_BYTES, serve_connection};
use super::port::{PairHost, Port};
use super::watch::Watch;

/// How long to wait before trying to connect again, when a connection has just ended, or a file has just appeared at the
/// socket's path: who makes the file listens a moment later.
const RETRY: Duration = Duration::from_millis(20);
/// Each time that nobody listens, it is twice as long, up to this. It is the appearing of the file that ends the wait.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// The thread that serves one port.
#[derive(Debug)]
pub struct Client;

impl Client {
    /// Starts serving `port`; it goes on as long as the process lives.
    pub fn start(port: Arc<Port>, host: Arc<dyn PairHost>, watch: Arc<Watch>) -> io::Result<()> {
        let name = format!("vhost-{}", port.name);
        thread::Builder::new().name(name).stack_size(STACK_BYTES).spawn(move || serve(&port, &host, &watch))?;
        Ok(())
    }
}

fn serve(port: &Arc<Port>, host: &Arc<dyn PairHost>, watch: &Watch) {
    let mut complained = None;
    let mut pause = RETRY;
    loop {
        // Before the attempt: what appears after it ends the wait that follows.
        let watched = watch.expect(&port.socket);
        match UnixStream::connect(&port.socket) {
            Ok(stream) => {
                (complained, pause) = (None, RETRY);
                tracing::info!("port {}: connected to {}", port.name, port.socket.display());
                serve_connection(port, host, stream);
                port.recover();
            }
            // That nobody listens yet is what this mode is for; anything else is said once.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {}
            Err(error) if complained == Some(error.kind()) => {}
            Err(error) => {
                complained = Some(error.kind());
                let why = format!("cannot connect to {}: {error}", port.socket.display());
                tracing::warn!("port {}: {why}", port.name);
                port.set_last_error(Some(why));
            }
        }
        let limit = if watched { RETRY_MAX } else { RETRY_MAX / 25 };
        pause = if watch.wait(pause) { RETRY } else { (pause * 2).min(limit) };
    }
}
