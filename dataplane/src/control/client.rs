//! The asking end.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use serde_json::{Value, json};

use super::{Order, PortCommand, View};

/// A switch answers at once; one that does not is stuck.
const PATIENCE: Duration = Duration::from_secs(5);

/// A NIC may take its time to start.
const NIC_PATIENCE: Duration = Duration::from_secs(60);

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
        self.call(view.method(), &json!({}))
    }

    /// Does something with a port.
    pub fn act(&mut self, command: PortCommand, port: &str) -> anyhow::Result<Value> {
        self.stream.get_ref().set_read_timeout(Some(NIC_PATIENCE))?;
        self.call(command.method(), &json!({ "name": port }))
    }

    /// Has the switch do something with its workers.
    pub fn order(&mut self, order: &Order) -> anyhow::Result<Value> {
        self.call(order.method(), &order.parameters())
    }

    fn call(&mut self, method: &str, params: &Value) -> anyhow::Result<Value> {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
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
