//! Client mode: the front end listens, we connect, keep trying, and follow it through its restarts.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use vhost::vhost_user::{BackendReqHandler, Error, VhostUserBackendReqHandlerMut};

use super::early_enable;
use super::port::{PairHost, Port};
use super::session::Session;

/// How long to wait before trying to connect again.
const RETRY: Duration = Duration::from_millis(100);

/// How long a port is shut whose front end held a worker up.
const SHUT: Duration = Duration::from_secs(10);

/// A session needs little stack; a thousand ports must not cost a gigabyte of it.
const STACK_BYTES: usize = 128 * 1024;

/// The thread that serves one port.
#[derive(Debug)]
pub struct Client;

impl Client {
    /// Starts serving `port`; it goes on as long as the process lives.
    pub fn start(port: Arc<Port>, host: Arc<dyn PairHost>) -> io::Result<()> {
        let name = format!("vhost-{}", port.name);
        thread::Builder::new().name(name).stack_size(STACK_BYTES).spawn(move || serve(&port, &host))?;
        Ok(())
    }
}

fn serve(port: &Arc<Port>, host: &Arc<dyn PairHost>) {
    let mut complained = None;
    loop {
        match UnixStream::connect(&port.socket) {
            Ok(stream) => {
                complained = None;
                tracing::info!("port {}: connected to {}", port.name, port.socket.display());
                serve_connection(port, host, stream);
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
        if port.take_offence() {
            thread::sleep(SHUT);
        }
        thread::sleep(RETRY);
    }
}

/// Serves one connection until it ends.
pub fn serve_connection(port: &Arc<Port>, host: &Arc<dyn PairHost>, stream: UnixStream) {
    port.set_connected(true);
    let session = Arc::new(Mutex::new(Session::new(port.clone(), host.clone())));
    let error = match stream.try_clone() {
        Ok(peek) => {
            let peek = Arc::new(peek);
            port.set_stream(&peek);
            let mut requests = BackendReqHandler::from_stream(stream, session.clone());
            loop {
                match serve_message(&peek, &session, &mut requests) {
                    Ok(()) | Err(Error::SocketRetry(_)) => {}
                    Err(error) => break error,
                }
            }
        }
        Err(error) => Error::SocketError(error),
    };
    let lost_memory = {
        let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
        session.end();
        session.lost_memory()
    };
    port.set_connected(false);
    if let Some(why) = lost_memory {
        tracing::warn!("port {}: the connection is closed, {why}", port.name);
        port.set_last_error(Some(why));
        return;
    }
    match error {
        Error::Disconnected | Error::SocketBroken(_) | Error::PartialMessage => {
            tracing::info!("port {}: the front end is gone", port.name);
        }
        error => {
            tracing::warn!("port {}: the connection is closed, {error}", port.name);
            port.set_last_error(Some(error.to_string()));
        }
    }
}

fn serve_message(
    peek: &UnixStream,
    session: &Arc<Mutex<Session>>,
    requests: &mut BackendReqHandler<Mutex<Session>>,
) -> Result<(), Error> {
    let Some(message) = early_enable::take(peek).map_err(Error::SocketBroken)? else {
        return requests.handle_request();
    };
    let (done, reply) = {
        let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
        (session.set_vring_enable(message.index, message.enable), message.need_reply && session.replies())
    };
    if reply {
        early_enable::reply(peek, done.is_err()).map_err(Error::SocketBroken)?;
    }
    done
}
