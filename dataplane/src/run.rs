//! A switch from start to end.

use std::sync::Arc;

use anyhow::Context;
use ringway_config::Plan;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::control::Server;
use crate::metrics;
use crate::switch::Switch;

/// Runs the switch that `plan` describes until SIGTERM or SIGINT. The sockets that this made, the control socket and those of
/// ports in server mode, are gone afterwards.
pub fn run(plan: &Plan) -> anyhow::Result<()> {
    raise_fd_limit();
    share_arenas();
    let mut signals = Signals::new([SIGTERM, SIGINT]).context("cannot listen for signals")?;
    let switch = Switch::start(plan)?;
    if let Some(address) = plan.metrics {
        metrics::serve(switch.clone(), address)?;
    }
    let _server = Server::start(switch.clone(), &plan.control_socket)?;
    switch.open_nics()?;
    let served = serve(plan, &switch, &mut signals);
    switch.close_nics();
    served
}

/// Serves guests until a signal comes.
fn serve(plan: &Plan, switch: &Arc<Switch>, signals: &mut Signals) -> anyhow::Result<()> {
    let _sockets = switch.serve()?;
    let cpus = switch.workers().iter().map(|worker| worker.cpu.to_string()).collect::<Vec<_>>().join(" ");
    let (ports, bridges) = (counted(plan.ports.len(), "port"), counted(switch.bridges.len(), "bridge"));
    tracing::info!("{ports} on {bridges}; workers on CPU {cpus}");
    if let Some(signal) = signals.forever().next() {
        tracing::info!("ends on signal {signal}");
    }
    Ok(())
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Threads of ports allocate little and seldom, and there may be a thousand: unless told, glibc gives each group of them an arena of
/// its own, which keeps what was once needed there. Workers allocate nothing.
#[expect(unsafe_code, reason = "the allocator's own setting")]
fn share_arenas() {
    // SAFETY: sets a number, before there is another thread.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
}

/// As many file descriptors as the system allows: each connection is two, each queue pair up to eight more, and the usual soft
/// limit of 1,024 is for programs that use select(2).
fn raise_fd_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!("the limit of file descriptors stays as it is: {error}");
    }
}
