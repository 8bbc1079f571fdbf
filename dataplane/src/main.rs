//! The command line: thin. What it does is in the library.

mod plan;
mod simulate;
mod words;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use ringway::control::{Client, Order, PortCommand, View};
use tracing::Level;

/// A userspace host switch for virtual machines: guests plug in over vhost-user with packed virtqueues.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the switch in the foreground until SIGTERM or SIGINT.
    Run {
        /// The configuration: control socket, metrics address, workers, bridges and ports, in TOML.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// How much is logged on standard error.
        #[arg(long, value_enum, default_value_t = Log::Info)]
        log: Log,
    },
    /// Plan a guest: queue pairs, libvirt's XML, the switch's ports, and why not.
    Plan(Box<plan::Plan>),
    /// Start and end workers of a running switch; simulate how queues are placed on them.
    #[command(subcommand)]
    Workers(Workers),
    /// Move a queue pair of a running switch to another worker.
    Move {
        /// The queue pair, such as `vm1/0`.
        queue: String,
        /// The worker's number, as `ringway show workers` has it.
        #[arg(long, value_name = "WORKER")]
        to: u16,
        #[command(flatten)]
        socket: Socket,
    },
    /// Start, stop, remove or add a NIC port of a running switch. Done twice, it is as if done once.
    Port {
        /// What to do.
        #[arg(value_enum)]
        what: PortCommand,
        /// The port's name.
        name: String,
        /// Print JSON, for machines.
        #[arg(long)]
        json: bool,
        /// The control socket of the switch.
        #[arg(long, value_name = "PATH", env = "RINGWAY_SOCKET", default_value = "/run/ringway/control.sock")]
        socket: PathBuf,
    },
    /// Ask a running switch what it is doing.
    Show {
        /// What to show.
        #[arg(value_enum)]
        what: View,
        /// Print JSON, for machines.
        #[arg(long)]
        json: bool,
        /// The control socket of the switch.
        #[arg(long, value_name = "PATH", env = "RINGWAY_SOCKET", default_value = "/run/ringway/control.sock")]
        socket: PathBuf,
    },
}

/// What can be done with workers.
#[derive(Subcommand)]
enum Workers {
    /// Start a worker on a CPU that has none.
    Add {
        /// The CPU.
        #[arg(long, value_name = "NUMBER")]
        cpu: usize,
        #[command(flatten)]
        socket: Socket,
    },
    /// Move all that a worker has to others, and end it.
    Remove {
        /// Its number, as `ringway show workers` has it.
        #[arg(value_name = "WORKER")]
        number: u16,
        #[command(flatten)]
        socket: Socket,
    },
    /// Simulate many guests on machines of several sockets: load of each worker, remote memory, moves. Needs no switch.
    Simulate(simulate::Simulate),
}

#[derive(Args)]
struct Socket {
    /// The control socket of the switch.
    #[arg(
        id = "socket",
        long = "socket",
        value_name = "PATH",
        env = "RINGWAY_SOCKET",
        default_value = "/run/ringway/control.sock"
    )]
    path: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Log {
    Error,
    Warn,
    Info,
    Debug,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return wrong_usage(&error),
    };
    let done = match arguments.command {
        Command::Run { config, log } => run(&config, log),
        Command::Plan(arguments) => return plan::command(&arguments),
        Command::Port { what, name, json, socket } => port(what, &name, json, &socket),
        Command::Show { what, json, socket } => show(what, json, &socket),
        Command::Workers(Workers::Add { cpu, socket }) => order(&Order::AddWorker { cpu }, &socket),
        Command::Workers(Workers::Simulate(simulate)) => simulate::command(&simulate),
        Command::Workers(Workers::Remove { number, socket }) => order(&Order::RemoveWorker { worker: number }, &socket),
        Command::Move { queue, to, socket } => order(&Order::MoveQueue { queue, worker: to }, &socket),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringway: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Help and version are no errors; everything else is one line, and status 2 as is the custom.
fn wrong_usage(error: &clap::Error) -> ExitCode {
    use ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    match error.kind() {
        DisplayHelp | DisplayVersion | DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
        }
        _ => eprintln!("ringway: {}", words::usage(error)),
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

fn run(config: &std::path::Path, log: Log) -> anyhow::Result<()> {
    let level = match log {
        Log::Error => Level::ERROR,
        Log::Warn => Level::WARN,
        Log::Info => Level::INFO,
        Log::Debug => Level::DEBUG,
    };
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .with_target(false)
        .init();
    ringway::run(&ringway_config::load(config)?)
}

/// Says what came of it, if there is something to say.
fn order(order: &Order, socket: &Socket) -> anyhow::Result<()> {
    let answer = Client::connect(&socket.path)?.order(order)?;
    match order {
        Order::AddWorker { cpu } => println!("worker {} runs on CPU {cpu}", answer["worker"]),
        Order::RemoveWorker { .. } => {}
        Order::MoveQueue { queue, worker } if answer["moved"] == false => {
            println!("{queue} is with worker {worker} already");
        }
        Order::MoveQueue { .. } => {}
    }
    Ok(())
}

/// A port that was to run and does not, as yet, is a failure, also of the command.
fn port(what: PortCommand, name: &str, json: bool, socket: &std::path::Path) -> anyhow::Result<()> {
    let answer = Client::connect(socket)?.act(what, name)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&answer)?);
    } else if answer["state"] != "failed" {
        println!("{}", what.text(&answer));
    }
    anyhow::ensure!(answer["state"] != "failed", "port {}", what.text(&answer));
    Ok(())
}

fn show(what: View, json: bool, socket: &std::path::Path) -> anyhow::Result<()> {
    let answer = Client::connect(socket)?.show(what)?;
    let text = if json { serde_json::to_string_pretty(&answer)? } else { what.table(&answer) };
    words::print(&format!("{}\n", text.trim_end()))
}
