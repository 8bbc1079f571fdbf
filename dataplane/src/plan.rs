//! `ringway plan`: reads files and flags, gathers what is true of this host, prints what `ringway-plan` makes of it.

mod host;

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use ringway_plan::{Host, Input, InputError, Nic, Physnet, Refusal, migrate, nova_conf, plan, provider_yaml};

/// More than any flavor, and an end to /dev/zero.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

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
#[command(next_help_heading = "The guest")]
struct GuestFlags {
    /// All of it in TOML; docs/openstack.md has the keys.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// What `openstack flavor show -f json` printed.
    #[arg(long, value_name = "FILE")]
    flavor: Option<PathBuf>,
    /// What `openstack image show -f json` printed.
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// What `openstack port show -f json` printed: a NIC, with its socket and address. Can be repeated.
    #[arg(long, value_name = "FILE")]
    port: Vec<PathBuf>,
    /// A property of the flavor, such as hw:vif_multiqueue_enabled=true. Can be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    flavor_property: Vec<String>,
    /// A property of the image, such as hw_virtio_packed_ring=true. Can be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    image_property: Vec<String>,
    /// A NIC: name=vm1, and any of bridge, socket, mode=client|server, mac, mtu, queues, throughput=high|medium|low,
    /// mask_features (separated by +). Can be repeated.
    #[arg(long, value_name = "KEY=VALUE,...")]
    nic: Vec<String>,
    /// The domain's name.
    #[arg(long)]
    name: Option<String>,
    /// Virtual CPUs.
    #[arg(long, value_name = "COUNT")]
    vcpus: Option<i64>,
    /// Memory in MiB.
    #[arg(long, value_name = "MIB")]
    memory: Option<i64>,
    /// Huge pages of so many KiB (2048 or 1048576), for a guest that nova does not start.
    #[arg(long, value_name = "KIB")]
    page_size: Option<i64>,
    /// NUMA nodes, for a guest that nova does not start.
    #[arg(long, value_name = "COUNT")]
    numa_nodes: Option<i64>,
    /// The most queue pairs for any NIC of the guest.
    #[arg(long, value_name = "COUNT")]
    queues_max: Option<i64>,
    /// MSI-X vectors that the guest's kernel has [default: 200].
    #[arg(long, value_name = "COUNT")]
    vectors_max: Option<i64>,
    /// nova.conf, [libvirt] max_queues.
    #[arg(long, value_name = "COUNT")]
    max_queues: Option<i64>,
    /// nova.conf, [libvirt] rx_queue_size.
    #[arg(long, value_name = "DESCRIPTORS")]
    rx_queue_size: Option<i64>,
    /// nova.conf, [libvirt] tx_queue_size.
    #[arg(long, value_name = "DESCRIPTORS")]
    tx_queue_size: Option<i64>,
    /// nova.conf, [libvirt] file_backed_memory.
    #[arg(long, value_name = "MIB")]
    file_backed_memory: Option<i64>,
    /// qemu.conf, memory_backing_dir.
    #[arg(long, value_name = "PATH")]
    memory_backing_dir: Option<PathBuf>,
    /// qemu.conf, max_files.
    #[arg(long, value_name = "COUNT")]
    max_files: Option<i64>,
    /// The hosts' libvirt, such as 9.0.0, if it is to be judged.
    #[arg(long, value_name = "VERSION")]
    libvirt_version: Option<String>,
    /// The hosts' QEMU, such as 7.2, if it is to be judged.
    #[arg(long, value_name = "VERSION")]
    qemu_version: Option<String>,
    /// What is known of the guest's traffic. Can be repeated.
    #[arg(long, value_enum, value_name = "KIND")]
    traffic: Vec<TrafficKind>,
    /// Queue pairs that the guest enables [default: as many as it has vCPUs].
    #[arg(long, value_name = "COUNT")]
    queues_enabled: Option<i64>,
    /// kvm or qemu, which is software emulation [default: kvm].
    #[arg(long, value_name = "TYPE")]
    virt_type: Option<String>,
    /// The QEMU that libvirt starts.
    #[arg(long, value_name = "PATH")]
    emulator: Option<PathBuf>,
    /// A qcow2 image to boot from.
    #[arg(long, value_name = "PATH")]
    disk: Option<PathBuf>,
    /// A kernel to boot directly.
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,
    /// Its initramfs.
    #[arg(long, value_name = "PATH")]
    initrd: Option<PathBuf>,
    /// Its command line.
    #[arg(long, value_name = "TEXT")]
    cmdline: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TrafficKind {
    /// Mostly small packets go out.
    SmallOutgoing,
    /// One connection makes nearly all of it.
    OneConnection,
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
    /// A physical network of Neutron's, and the kernel's name of the NIC that carries it. Can be repeated.
    #[arg(long, value_name = "NAME[=INTERFACE]")]
    physnet: Vec<String>,
}

/// Prints what was asked for; what is wrong goes to standard error, a line each, and with `--json` to standard output as well.
pub(crate) fn command(arguments: &Plan) -> ExitCode {
    match text(arguments) {
        Ok(Ok(text)) => {
            // A reader that has seen enough closes the pipe; that is no error.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Ok(Err(refusals)) => {
            if arguments.output.json {
                println!("{:#}", serde_json::json!({ "refusals": refusals }));
            }
            for refusal in &refusals {
                eprintln!("ringway plan: {refusal}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("ringway plan: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn text(arguments: &Plan) -> anyhow::Result<Result<String, Vec<Refusal>>> {
    let Plan { guest, output, hosts } = arguments;
    let here = host::gather(hosts.switch_config.as_deref())?;
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
    let made = match plan(&input(guest)?, &here) {
        Ok(made) => made,
        Err(refusals) => return Ok(Err(refusals)),
    };
    if let Some(path) = &hosts.migrate_to {
        let there = Host::from_json(&read(path)?, path)?;
        if let Err(refusals) = migrate(&made, &there) {
            return Ok(Err(refusals));
        }
        if !here.offers("log_all") || !there.offers("log_all") {
            eprintln!(
                "ringway plan: {} keeps everything, but live migration needs dirty logging, which is not in both switches: shut the guest down and start it there",
                there.name
            );
        }
    }
    let wants_page = !(output.xml || output.qemu || output.config || output.json || output.interface.is_some());
    // The page has them already.
    if !wants_page && !output.json && std::io::stderr().is_terminal() {
        for warning in &made.warnings {
            eprintln!("ringway plan: warning: {}: {}", warning.about, warning.text);
        }
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

fn input(flags: &GuestFlags) -> anyhow::Result<Input> {
    let mut input = match &flags.file {
        Some(path) => Input::from_toml(&read(path)?, path)?,
        None => Input::default(),
    };
    if let Some(path) = &flags.flavor {
        input.add_flavor(&read(path)?, path)?;
    }
    if let Some(path) = &flags.image {
        input.add_image(&read(path)?, path)?;
    }
    for path in &flags.port {
        input.add_port(&read(path)?, path)?;
    }
    for said in &flags.flavor_property {
        let (key, value) = key_and_value("--flavor-property", said)?;
        input.add_flavor_property(key, value);
    }
    for said in &flags.image_property {
        let (key, value) = key_and_value("--image-property", said)?;
        input.add_image_property(key, value);
    }
    for said in &flags.nic {
        input.nic.push(nic(said)?);
    }
    let guest = &mut input.guest;
    let numbers = [
        (&mut guest.vcpus, flags.vcpus),
        (&mut guest.memory_mib, flags.memory),
        (&mut guest.page_size_kib, flags.page_size),
        (&mut guest.numa_nodes, flags.numa_nodes),
        (&mut guest.queues_max, flags.queues_max),
        (&mut guest.vectors_max, flags.vectors_max),
        (&mut input.libvirt.max_queues, flags.max_queues),
        (&mut input.libvirt.rx_queue_size, flags.rx_queue_size),
        (&mut input.libvirt.tx_queue_size, flags.tx_queue_size),
        (&mut input.libvirt.file_backed_memory, flags.file_backed_memory),
        (&mut input.qemu.max_files, flags.max_files),
        (&mut input.traffic.queues_enabled, flags.queues_enabled),
    ];
    for (key, said) in numbers {
        *key = said.or(*key);
    }
    let texts = [
        (&mut guest.name, &flags.name),
        (&mut guest.virt_type, &flags.virt_type),
        (&mut guest.cmdline, &flags.cmdline),
        (&mut input.libvirt.version, &flags.libvirt_version),
        (&mut input.qemu.version, &flags.qemu_version),
    ];
    for (key, said) in texts {
        *key = said.clone().or(key.take());
    }
    let paths = [
        (&mut guest.emulator, &flags.emulator),
        (&mut guest.disk, &flags.disk),
        (&mut guest.kernel, &flags.kernel),
        (&mut guest.initrd, &flags.initrd),
        (&mut input.qemu.memory_backing_dir, &flags.memory_backing_dir),
    ];
    for (key, said) in paths {
        *key = said.clone().or(key.take());
    }
    input.traffic.small_outgoing |= flags.traffic.contains(&TrafficKind::SmallOutgoing);
    input.traffic.one_connection |= flags.traffic.contains(&TrafficKind::OneConnection);
    Ok(input)
}

fn nic(said: &str) -> anyhow::Result<Nic> {
    let mut nic = Nic::default();
    let number = |key: &str, value: &str| {
        value.parse::<i64>().with_context(|| format!("--nic: {key}={value} is no number; write one like {key}=4"))
    };
    for part in said.split(',') {
        let (key, value) = key_and_value("--nic", part)?;
        let text = || Some(value.to_owned());
        match key {
            "name" => value.clone_into(&mut nic.name),
            "bridge" => nic.bridge = text(),
            "socket" => nic.socket = Some(PathBuf::from(value)),
            "mode" => nic.mode = text(),
            "mac" => nic.mac = text(),
            "mtu" => nic.mtu = Some(number(key, value)?),
            "queues" => nic.queues = Some(number(key, value)?),
            "throughput" => nic.throughput = text(),
            "mask_features" => nic.mask_features = value.split('+').map(str::to_owned).collect(),
            _ => bail!(
                "--nic: unknown key `{key}`; use one of name, bridge, socket, mode, mac, mtu, queues, throughput, mask_features"
            ),
        }
    }
    Ok(nic)
}

fn key_and_value<'a>(flag: &str, said: &'a str) -> anyhow::Result<(&'a str, &'a str)> {
    let parts = said.split_once('=').filter(|(key, _)| !key.is_empty());
    parts.with_context(|| format!("{flag}: `{}` is not KEY=VALUE; put an = between the two", said.escape_debug()))
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

/// A file as text, as long as it is not too large.
fn read(path: &Path) -> Result<String, InputError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        let what = format!("cannot be read: {error}; name a file that exists and that this user may read");
        return Err(InputError::whole_file(path, what));
    }
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(InputError::whole_file(path, format!("is larger than {FILE_BYTES_MAX} bytes; name another file")));
    }
    String::from_utf8(bytes).map_err(|_| InputError::whole_file(path, "not UTF-8; save it as UTF-8"))
}
