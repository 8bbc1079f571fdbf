//! `ringway plan`: reads files and flags, gathers what is true of this host, prints what `ringway-plan` makes of it.

mod flags;
mod host;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use flags::{GuestFlags, read};
use ringway_plan::{Host, Physnet, Refusal, migrate, nova_conf, plan, provider_yaml};

use crate::words::{one_line, print};

/// What `ringway plan` is told.
#[derive(Args)]
#[command(after_help = "\
Later words win over earlier ones: --file first, then what OpenStack printed, then flags.

Examples:
  ringway plan --vcpus 4 --memory 2048 --nic name=vm1,queues=4
  openstack flavor show -f json net.large >flavor.json
  openstack image show -f json debian-12 >image.json
  openstack port show -f json web1 >port.json
  ringway plan --flavor flavor.json --image image.json --port port.json
  ringway plan --file web1.toml --xml | virsh define /dev/stdin
  ringway plan --file web1.toml --config >>/etc/ringway/ringway.toml
  ringway plan --host >here.json     # there: ringway plan --file web1.toml --migrate-to here.json")]
pub(crate) struct Plan {
    #[command(flatten)]
    guest: GuestFlags,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    hosts: Hosts,
}

#[derive(Args)]
#[command(next_help_heading = "What is printed; without any, a page to read")]
#[group(multiple = false)]
struct Output {
    /// libvirt's domain.
    #[arg(long)]
    xml: bool,
    /// libvirt's <interface> of one NIC, for virsh attach-device.
    #[arg(long, value_name = "NIC")]
    interface: Option<String>,
    /// A command line for QEMU.
    #[arg(long)]
    qemu: bool,
    /// [[port]] records for the switch's own configuration.
    #[arg(long)]
    config: bool,
    /// All of it as JSON, or why not.
    #[arg(long)]
    json: bool,
    /// nova's provider.yaml: traits of what this switch offers. Needs no guest.
    #[arg(long)]
    provider_yaml: bool,
    /// Lines for nova.conf from this host's NUMA topology. Needs no guest.
    #[arg(long)]
    nova_conf: bool,
}

#[derive(Args)]
#[command(next_help_heading = "Hosts")]
struct Hosts {
    /// Describe this host as JSON, for --migrate-to on another one. Needs no guest.
    #[arg(long)]
    host: bool,
    /// Refuse unless that host keeps the guest's features, queue pairs and MTU.
    #[arg(long, value_name = "HOST.json")]
    migrate_to: Option<PathBuf>,
    /// The configuration of this host's switch: its ports and its workers' CPUs become part of the description.
    #[arg(long, value_name = "FILE")]
    switch_config: Option<PathBuf>,
    /// The control socket of this host's switch: if it runs, its limit of open files is the one that counts.
    #[arg(long, value_name = "PATH", env = "RINGWAY_SOCKET", default_value = "/run/ringway/control.sock")]
    socket: PathBuf,
    /// A physical network of Neutron's, and the kernel's name of the NIC that carries it. Can be repeated.
    #[arg(long, value_name = "NAME[=INTERFACE]")]
    physnet: Vec<String>,
}

/// Prints what was asked for; what is wrong goes to standard error, a line each, and with `--json` to standard output as well.
pub(crate) fn command(arguments: &Plan) -> ExitCode {
    let wrong: Vec<String> = match text(arguments) {
        Ok(Ok(text)) => match print(&text) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => vec![format!("{error:#}")],
        },
        Ok(Err(refusals)) => refusals.iter().map(Refusal::to_string).collect(),
        Err(error) => vec![format!("{error:#}")],
    };
    let wrong: Vec<String> = wrong.iter().map(|line| one_line(line)).collect();
    if arguments.output.json {
        // Whoever reads no standard output still has the lines below.
        let _ = print(&format!("{:#}\n", serde_json::json!({ "refusals": wrong })));
    }
    for line in &wrong {
        tell(line);
    }
    ExitCode::FAILURE
}

/// A line on standard error. Nobody is left to be told that it is closed.
fn tell(line: &str) {
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("ringway plan: {line}\n"));
}

fn text(arguments: &Plan) -> anyhow::Result<Result<String, Vec<Refusal>>> {
    let Plan { guest, output, hosts } = arguments;
    let here = host::gather(hosts.switch_config.as_deref(), &hosts.socket)?;
    if hosts.host {
        return Ok(Ok(format!("{}\n", serde_json::to_string_pretty(&here)?)));
    }
    if output.provider_yaml {
        return Ok(Ok(provider_yaml(&here)));
    }
    if output.nova_conf {
        let physnets = hosts.physnet.iter().map(|said| physnet(said)).collect::<anyhow::Result<Vec<_>>>()?;
        return Ok(Ok(nova_conf(&here, &physnets)));
    }
    let made = match plan(&flags::input(guest)?, &here) {
        Ok(made) => made,
        Err(refusals) => return Ok(Err(refusals)),
    };
    if let Some(path) = &hosts.migrate_to {
        let there = Host::from_json(&read(path)?, path)?;
        if let Err(refusals) = migrate(&made, &there) {
            return Ok(Err(refusals));
        }
        if !here.offers("log_all") || !there.offers("log_all") {
            tell(&one_line(&format!(
                "{} keeps everything, but live migration needs dirty logging, which is not in both switches: shut the guest down and start it there",
                there.name
            )));
        }
    }
    let wants_page = !(output.xml || output.qemu || output.config || output.json || output.interface.is_some());
    // The page and JSON have them already.
    if !wants_page && !output.json {
        for warning in &made.warnings {
            tell(&one_line(&format!("warning: {}: {}", warning.about, warning.text)));
        }
    }
    if output.interface.is_some() && !made.guest.msix {
        tell(
            "warning: libvirt gives a NIC that is plugged into a running guest its vectors all the same, and this QEMU crashes; \
             before, in the guest: for bus in /sys/bus/pci/devices/*/msi_bus; do echo 0 >$bus; done",
        );
    }
    Ok(Ok(if output.xml {
        made.xml()
    } else if output.qemu {
        made.qemu()
    } else if output.config {
        made.config()
    } else if output.json {
        format!("{}\n", serde_json::to_string_pretty(&made)?)
    } else if let Some(name) = &output.interface {
        let known = || made.nics.iter().map(|nic| nic.name.as_str()).collect::<Vec<_>>().join(", ");
        let nic = made.nics.iter().find(|nic| &nic.name == name);
        made.interface_xml(nic.with_context(|| format!("there is no NIC {name}; use one of {}", known()))?)
    } else {
        made.page()
    }))
}

fn physnet(said: &str) -> anyhow::Result<Physnet> {
    let (name, interface) = match said.split_once('=') {
        Some((name, interface)) => (name, Some(interface)),
        None => (said, None),
    };
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(is_allowed) {
        bail!("--physnet: `{}` names no physical network; use letters, digits, -, _ and .", name.escape_debug());
    }
    let node = interface.map(host::node_of_interface).transpose()?.flatten();
    Ok(Physnet { name: name.to_owned(), node })
}
