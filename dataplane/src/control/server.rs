//! The answering end: one thread a client, a bounded number of clients.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde_json::{Value, json};

use super::port::{Refusal, act};
use super::show::show;
use super::{Order, PortCommand, View};
use crate::socket::{ListenError, SocketFile};
use crate::switch::Switch;

/// A request is one line of at most this.
const LINE_MAX: u64 = 64 * 1024;
/// Clients served at a time; more are turned away.
const CLIENTS_MAX: usize = 32;
/// A client that does not take its answer is dropped after this.
const PATIENCE: Duration = Duration::from_secs(5);

/// A client that asks nothing for so long makes room for others.
const QUIET_MAX: Duration = Duration::from_secs(60);

/// Error codes of JSON-RPC 2.0, section 5.1.
const PARSE_ERROR: i32 = -32700;
const INVALID_REQUEST: i32 = -32600;
const METHOD_NOT_FOUND: i32 = -32601;
const INVALID_PARAMS: i32 = -32602;
/// One of those left to servers: what was asked for was understood, and not done.
const NOT_DONE: i32 = -32000;

/// The control socket; removed when dropped.
#[derive(Debug)]
pub struct Server {
    _file: SocketFile,
}

impl Server {
    /// Listens at `path`, readable and writable by owner and group, and answers on threads of its own.
    pub fn start(switch: Arc<Switch>, path: &Path) -> anyhow::Result<Self> {
        if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
            fs::create_dir(directory).with_context(|| {
                let directory = directory.display();
                format!("cannot make {directory} for the control socket; make it, or set `control_socket` elsewhere")
            })?;
        }
        let (file, listener) = SocketFile::listen(path).map_err(|error| match error {
            ListenError::InUse(_) => {
                let at = path.display();
                anyhow!("another switch answers at {at}; stop it, or set `control_socket` elsewhere")
            }
            ListenError::NotASocket(_) => anyhow!("{error}; remove it, or set `control_socket` elsewhere"),
            ListenError::System { .. } => error.into(),
        })?;
        thread::Builder::new().name("control".to_owned()).spawn(move || accept(&switch, &listener))?;
        Ok(Self { _file: file })
    }
}

fn accept(switch: &Arc<Switch>, listener: &UnixListener) {
    let clients = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            thread::sleep(Duration::from_millis(100)); // out of file descriptors, perhaps
            continue;
        };
        if clients.fetch_add(1, Ordering::Relaxed) >= CLIENTS_MAX {
            clients.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (switch, here) = (switch.clone(), clients.clone());
        let spawned = thread::Builder::new().name("control-client".to_owned()).spawn(move || {
            let _ = serve(&switch, &stream);
            here.fetch_sub(1, Ordering::Relaxed);
        });
        if spawned.is_err() {
            clients.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn serve(switch: &Switch, mut stream: &UnixStream) -> std::io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(QUIET_MAX))?;
    let mut lines = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        lines.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(());
        }
        let whole = line.ends_with(b"\n");
        let answer =
            if whole { answer(switch, &line) } else { Some(error(&Value::Null, PARSE_ERROR, "no whole line")) };
        if let Some(answer) = answer {
            stream.write_all(format!("{answer}\n").as_bytes())?;
        }
        if !whole {
            return Ok(());
        }
    }
}

/// The answer to one line; none to a notification (JSON-RPC 2.0, section 4.1).
fn answer(switch: &Switch, line: &[u8]) -> Option<Value> {
    let Ok(request) = serde_json::from_slice::<Value>(line) else {
        return Some(error(&Value::Null, PARSE_ERROR, "this is not JSON"));
    };
    let Some(method) = request["method"].as_str().filter(|_| request["jsonrpc"] == "2.0") else {
        return Some(error(&request["id"], INVALID_REQUEST, "this is not a request of JSON-RPC 2.0"));
    };
    let id = request.get("id")?;
    let result = if let Some(view) = View::ALL.into_iter().find(|view| view.method() == method) {
        show(switch, view)
    } else if let Some(command) = PortCommand::ALL.into_iter().find(|command| command.method() == method) {
        match act(switch, command, &request["params"]) {
            Ok(result) => result,
            Err(Refusal::Parameters(why)) => return Some(error(id, INVALID_PARAMS, &why)),
            Err(Refusal::NotDone(why)) => return Some(error(id, NOT_DONE, &why)),
        }
    } else if let Some(order) = Order::of(method, &request["params"]) {
        match order.map(|order| order.obey(switch)) {
            Ok(Ok(result)) => result,
            Err(why) => return Some(error(id, INVALID_PARAMS, &why)),
            Ok(Err(why)) => return Some(error(id, NOT_DONE, &why)),
        }
    } else {
        let commands = PortCommand::ALL.map(PortCommand::method);
        let known = [&View::ALL.map(View::method)[..], &commands, &Order::METHODS].concat().join(", ");
        return Some(error(id, METHOD_NOT_FOUND, &format!("there is no method {method}; there are {known}")));
    };
    Some(json!({"jsonrpc": "2.0", "id": id, "result": result}))
}

fn error(id: &Value, code: i32, message: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})
}
