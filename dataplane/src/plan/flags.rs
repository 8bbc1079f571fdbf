//! What `ringway plan` is told of a guest.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::{Args, ValueEnum};
use ringway_plan::{Input, InputError, Nic};

/// More than any flavor, and an end to /dev/zero.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

#[derive(Args)]
#[command(next_help_heading = "The guest")]
pub(super) struct GuestFlags {
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
    /// A NIC, or more of one that is known (by name, or by its Neutron port's name or id): name=vm1, and any of bridge, socket, mode=client|server, mac, mtu, queues, throughput=high|medium|low,
    /// mask_features (separated by +). Can be repeated.
    #[arg(long, value_name = "KEY=VALUE,...")]
    nic: Vec<String>,
    /// The domain's name.
    #[arg(long)]
    name: Option<String>,
    /// Virtual CPUs.
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true)]
    vcpus: Option<i64>,
    /// Memory in MiB.
    #[arg(long, value_name = "MIB", allow_negative_numbers = true)]
    memory: Option<i64>,
    /// Huge pages of so many KiB (2048 or 1048576), for a guest that nova does not start.
    #[arg(long, value_name = "KIB", allow_negative_numbers = true)]
    page_size: Option<i64>,
    /// Packed rings, for a guest that nova does not start [default: on, where the switch and the versions said can].
    #[arg(long, value_enum, value_name = "on|off", hide_possible_values = true)]
    packed: Option<OnOff>,
    /// NUMA nodes, for a guest that nova does not start.
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true)]
    numa_nodes: Option<i64>,
    /// The most queue pairs for any NIC of the guest.
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true)]
    queues_max: Option<i64>,
    /// MSI-X vectors that the guest's kernel has [default: 200].
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true)]
    vectors_max: Option<i64>,
    /// MSI-X vectors of its other devices [default: those of the plan's own domain].
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true)]
    vectors_other: Option<i64>,
    /// nova.conf, [libvirt] max_queues.
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true)]
    max_queues: Option<i64>,
    /// nova.conf, [libvirt] rx_queue_size.
    #[arg(long, value_name = "DESCRIPTORS", allow_negative_numbers = true)]
    rx_queue_size: Option<i64>,
    /// nova.conf, [libvirt] tx_queue_size.
    #[arg(long, value_name = "DESCRIPTORS", allow_negative_numbers = true)]
    tx_queue_size: Option<i64>,
    /// nova.conf, [libvirt] file_backed_memory.
    #[arg(long, value_name = "MIB", allow_negative_numbers = true)]
    file_backed_memory: Option<i64>,
    /// qemu.conf, memory_backing_dir.
    #[arg(long, value_name = "PATH")]
    memory_backing_dir: Option<PathBuf>,
    /// qemu.conf, max_files.
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true)]
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
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true)]
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
enum OnOff {
    On,
    Off,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TrafficKind {
    /// Mostly small packets go out.
    SmallOutgoing,
    /// One connection makes nearly all of it.
    OneConnection,
}

/// What they say, with the files that they name.
pub(super) fn input(flags: &GuestFlags) -> anyhow::Result<Input> {
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
        input.add_nic(nic(said)?);
    }
    let guest = &mut input.guest;
    let numbers = [
        (&mut guest.vcpus, flags.vcpus),
        (&mut guest.memory_mib, flags.memory),
        (&mut guest.page_size_kib, flags.page_size),
        (&mut guest.numa_nodes, flags.numa_nodes),
        (&mut guest.queues_max, flags.queues_max),
        (&mut guest.vectors_max, flags.vectors_max),
        (&mut guest.vectors_other, flags.vectors_other),
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
    guest.packed = flags.packed.map(|said| said == OnOff::On).or(guest.packed);
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
        value.parse::<i64>().map_err(|_| anyhow!("--nic: {key}={value} is no number; write one like {key}=4"))
    };
    let mut keys = Vec::new();
    for part in said.split(',') {
        let (key, value) = key_and_value("--nic", part)?;
        if keys.contains(&key) {
            bail!("--nic: {key} is there twice; leave one of them out");
        }
        keys.push(key);
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

/// A file as text, as long as it is not too large.
pub(super) fn read(path: &Path) -> Result<String, InputError> {
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
