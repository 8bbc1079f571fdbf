//! What control may have the switch do, beside telling.

use serde_json::{Value, json};

use crate::guest::PairId;
use crate::switch::{QueueRef, Switch};

/// An order; its method on the control socket, and its parameters by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Start a worker on this CPU. The answer has its number.
    AddWorker {
        /// The CPU.
        cpu: usize,
    },
    /// Move all that a worker has to others, and end it.
    RemoveWorker {
        /// Its number.
        worker: u16,
    },
    /// Move a queue pair to a worker. The answer says whether it was with another.
    MoveQueue {
        /// Its name, such as `vm1/0`.
        queue: String,
        /// The worker's number.
        worker: u16,
    },
}

impl Order {
    /// The methods there are.
    pub const METHODS: [&'static str; 3] = ["workers.add", "workers.remove", "queue.move"];

    /// Its method.
    #[must_use]
    pub fn method(&self) -> &'static str {
        let [add, remove, move_queue] = Self::METHODS;
        match self {
            Self::AddWorker { .. } => add,
            Self::RemoveWorker { .. } => remove,
            Self::MoveQueue { .. } => move_queue,
        }
    }

    /// Its parameters.
    #[must_use]
    pub fn parameters(&self) -> Value {
        match self {
            Self::AddWorker { cpu } => json!({ "cpu": cpu }),
            Self::RemoveWorker { worker } => json!({ "worker": worker }),
            Self::MoveQueue { queue, worker } => json!({ "queue": queue, "worker": worker }),
        }
    }

    /// The order that a request is, or what is wrong with its parameters. None if it is none.
    pub(super) fn of(method: &str, parameters: &Value) -> Option<Result<Self, String>> {
        let number = |name: &str, max: u64| {
            let number = parameters[name].as_u64().filter(|&number| number <= max);
            number.ok_or_else(|| format!("`{name}` has to be a number from 0 to {max}"))
        };
        let worker = || number("worker", u16::MAX.into()).map(|number| number as u16);
        let [add, remove, move_queue] = Self::METHODS;
        if method == add {
            Some(number("cpu", 1023).map(|cpu| Self::AddWorker { cpu: cpu as usize }))
        } else if method == remove {
            Some(worker().map(|worker| Self::RemoveWorker { worker }))
        } else if method == move_queue {
            let queue = parameters["queue"].as_str().ok_or("`queue` has to be a name such as \"vm1/0\"");
            let queue = queue.map_err(str::to_owned);
            Some(queue.and_then(|queue| Ok(Self::MoveQueue { queue: queue.to_owned(), worker: worker()? })))
        } else {
            None
        }
    }

    /// Does it.
    pub(super) fn obey(&self, switch: &Switch) -> Result<Value, String> {
        match self {
            Self::AddWorker { cpu } => {
                let number = switch.add_worker(*cpu).map_err(|error| error.to_string())?;
                Ok(json!({ "worker": number }))
            }
            Self::RemoveWorker { worker } => {
                switch.remove_worker(*worker).map_err(|error| error.to_string())?;
                Ok(json!({}))
            }
            Self::MoveQueue { queue, worker } => {
                let id = pair(switch, queue)
                    .ok_or_else(|| format!("there is no queue pair `{queue}`; `ringway show queues` lists them"))?;
                let moved = switch.move_pair(id, *worker).map_err(|error| format!("{queue}: {error}"))?;
                Ok(json!({ "moved": moved, "worker": switch.worker_of(QueueRef::Pair(id)) }))
            }
        }
    }
}

/// The pair of a name such as `vm1/0`.
fn pair(switch: &Switch, name: &str) -> Option<PairId> {
    let (port, index) = name.rsplit_once('/')?;
    let port = switch.ports.iter().find(|known| known.name == port)?;
    Some(PairId { port: port.id, index: index.parse().ok()? })
}
