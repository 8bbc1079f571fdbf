//! The asking end.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use serde_json::{Value, json};

use super::{Order, View};

/// A switch answers at once; one that does not is stuck.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection to a running switch.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the control socket at `path`.
    pub fn connect(path: &Path) -> anyhow::Result<Self> {
        let at = path.display();
        let stream = UnixStream::connect(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => anyhow!(
                "no switch answers at {at}; start one with `ringway run --config FILE`, or name its socket with --socket"
            ),
            ErrorKind::PermissionDenied => {
                anyhow!("permission denied at {at}; run this as root or as a member of the socket's group")
            }
            _ => anyhow!("cannot connect to {at}: {error}"),
        })?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Asks for a view.
    pub fn show(&mut self, view: View) -> anyhow::Result<Value> {
        self.ask(&json!({"jsonrpc": "2.0", "id": 1, "method": view.method()}))
    }

    /// Has the switch do something.
    pub fn order(&mut self, order: &Order) -> anyhow::Result<Value> {
        self.ask(&json!({"jsonrpc": "2.0", "id": 1, "method": order.method(), "params": order.parameters()}))
    }

    fn ask(&mut self, request: &Value) -> anyhow::Result<Value> {
        self.stream.get_mut().write_all(format!("{request}\n").as_bytes()).context("the switch does not listen")?;
        let mut line = String::new();
        self.stream.read_line(&mut line).context("the switch does not answer")?;
        if line.is_empty() {
            bail!("the switch closed the connection; it is ending, or has as many clients as it takes");
        }
        let mut answer: Value = serde_json::from_str(&line).context("the switch answers nonsense")?;
        match answer.get("error") {
            Some(error) => bail!("the switch refuses: {}", error["message"].as_str().unwrap_or("without a reason")),
            None => Ok(answer["result"].take()),
        }
    }
}
