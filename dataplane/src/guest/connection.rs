//! One connection of a front end, from its first message to its end.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use vhost::vhost_user::{BackendReqHandler, Error, VhostUserBackendReqHandlerMut};

use super::early_enable;
use super::port::{PairHost, Port};
use super::session::Session;

/// A session needs little stack; a thousand ports must not cost a gigabyte of it.
pub(super) const STACK_BYTES: usize = 128 * 1024;

/// Serves the connection until it ends, whoever ends it.
pub fn serve_connection(port: &Arc<Port>, host: &Arc<dyn PairHost>, stream: UnixStream) {
    port.set_connected(true);
    let session = Arc::new(Mutex::new(Session::new(port.clone(), host.clone())));
    let error = match stream.try_clone() {
        Ok(peek) => {
            let peek = Arc::new(peek);
            port.set_stream(&peek);
            let mut requests = BackendReqHandler::from_stream(stream, session.clone());
            let error = loop {
                match serve_message(&peek, &session, &mut requests) {
                    Ok(()) | Err(Error::SocketRetry(_)) => {}
                    Err(error) => break error,
                }
            };
            // Others may hold the socket, too; the front end is to see now that it is over.
            let _ = peek.shutdown(Shutdown::Both);
            error
        }
        Err(error) => Error::SocketError(error),
    };
    let unbearable = {
        let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
        session.end();
        session.unbearable()
    };
    port.set_connected(false);
    port.set_refused(unbearable.is_some() || is_refusal(&error));
    if let Some(why) = unbearable {
        tracing::warn!("port {}: the connection is closed, {why}", port.name);
        port.set_last_error(Some(why));
        return;
    }
    if is_refusal(&error) {
        tracing::warn!("port {}: the connection is closed, {error}", port.name);
        port.set_last_error(Some(error.to_string()));
    } else {
        tracing::info!("port {}: the front end is gone", port.name);
    }
}

/// Whether it was we who ended the connection.
fn is_refusal(error: &Error) -> bool {
    !matches!(error, Error::Disconnected | Error::SocketBroken(_) | Error::PartialMessage)
}

fn serve_message(
    peek: &UnixStream,
    session: &Arc<Mutex<Session>>,
    requests: &mut BackendReqHandler<Mutex<Session>>,
) -> Result<(), Error> {
    let message = early_enable::take(peek).map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidData => Error::ReqHandlerError(error),
        _ => Error::SocketBroken(error),
    })?;
    let Some(message) = message else { return requests.handle_request() };
    let (done, reply) = {
        let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
        (session.set_vring_enable(message.index, message.enable), message.need_reply && session.replies())
    };
    let replied = if reply { early_enable::reply(peek, done.is_err()) } else { Ok(()) };
    // Why it was refused says more than that nobody was left to be told.
    done.and(replied.map_err(Error::SocketBroken))
}
