//! What an operator does with ports while the switch runs.

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::nic::{Action, PortState};
use crate::switch::Switch;

/// A command for a port; its method on the control socket is `port.` and its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PortCommand {
    /// Frames go in and out.
    Start,
    /// None do; its device stays as it is set up.
    Stop,
    /// None do, and its device is given back, for others to use.
    Remove,
    /// A removed port is put into use again.
    Add,
}

/// Why a command was not done: the fault of who asked, or not.
pub(super) enum Refusal {
    Parameters(String),
    NotDone(String),
}

impl PortCommand {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Start, Self::Stop, Self::Remove, Self::Add];

    /// Its method.
    #[must_use]
    pub fn method(self) -> &'static str {
        match self {
            Self::Start => "port.start",
            Self::Stop => "port.stop",
            Self::Remove => "port.remove",
            Self::Add => "port.add",
        }
    }

    fn action(self) -> Action {
        match self {
            Self::Start => Action::Start,
            Self::Stop => Action::Stop,
            Self::Remove => Action::Remove,
            Self::Add => Action::Add,
        }
    }

    /// The answer for people.
    #[must_use]
    pub fn text(self, answer: &Value) -> String {
        let [name, state] = ["port", "state"].map(|key| answer[key].as_str().unwrap_or("?"));
        match answer["last_error"].as_str() {
            Some(error) if state == PortState::Failed.as_str() => format!("{name} {state}: {error}; it is tried again"),
            _ if answer["changed"] == false => format!("{name} {state}, as before"),
            _ => format!("{name} {state}"),
        }
    }
}

/// Does a command; the answer is an object.
pub(super) fn act(switch: &Switch, command: PortCommand, parameters: &Value) -> Result<Value, Refusal> {
    let refuse = |why: String| Err(Refusal::Parameters(why));
    let Some(name) = parameters["name"].as_str() else {
        return refuse(format!("{} needs the name of a port: {{\"name\": \"uplink\"}}", command.method()));
    };
    let Some(port) = switch.nics.iter().find(|port| port.name == name) else {
        let known = switch.nics.iter().map(|port| port.name.as_str()).collect::<Vec<_>>().join(", ");
        return refuse(match (switch.ports.iter().any(|port| port.name == name), known.is_empty()) {
            (true, _) => format!("port {name} is a guest's, and comes and goes with it; only NIC ports can be told"),
            (false, true) => format!("there is no port {name}, and no NIC port at all"),
            (false, false) => format!("there is no port {name}; NIC ports are {known}"),
        });
    };
    let changed = switch.act_on_nic(port.id, command.action()).map_err(|why| Refusal::NotDone(why.to_string()))?;
    let (state, last_error) = (port.state().as_str(), port.last_error());
    Ok(json!({ "port": name, "state": state, "changed": changed, "last_error": last_error }))
}
