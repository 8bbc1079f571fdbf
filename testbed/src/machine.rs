//! A machine in QEMU with NICs on its PCI bus, behind an IOMMU, for a switch that runs inside; at the other end of each NIC is a
//! kernel of this machine.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::process::run;
use crate::{Agent, Namespace, Process, Spawn, ringway_binary, workspace};

/// QEMU answers its monitor within this.
const MONITOR: Duration = Duration::from_secs(5);

/// Of which 384 MiB are huge pages.
const MEMORY_MIB: u32 = 1280;
const KERNEL_LINE: &str = "console=ttyS0 quiet panic=1 mitigations=off intel_iommu=on hugepages=192 ringway.nic=none";

/// A NIC of the machine.
#[derive(Debug, Clone, Copy)]
pub struct PciNic<'a> {
    /// QEMU's device and its properties, such as `virtio-net-pci,iommu_platform=on`.
    pub device: &'a str,
    /// Its slot on the first bus: it is `0000:00:SLOT.0`.
    pub slot: u8,
    /// Who is at its other end, made by [`Namespace::for_tap`].
    pub peer: &'a Namespace,
}

/// A machine: booting, running, or gone.
#[derive(Debug)]
pub struct Machine {
    process: Process,
    agent: Agent,
    monitor: PathBuf,
    console: PathBuf,
    _dir: TempDir,
}

impl Machine {
    /// Boots a machine that has the `ringway` binary, DPDK's drivers of such NICs and vfio, and waits until a shell in it answers.
    ///
    /// # Errors
    /// When its image cannot be made, or it does not boot; the ends of its log and console are in the message.
    pub fn boot(nics: &[PciNic<'_>]) -> Result<Self> {
        let dir = crate::scratch_dir()?;
        let at = |name: &str| dir.path().join(name);
        let binary = ringway_binary()?;
        let script = workspace().join("scripts/guest-image");
        let words = [OsStr::new("--machine"), dir.path().as_os_str(), binary.as_os_str()];
        run(&script.to_string_lossy(), &words).context("the machine's image")?;

        let (monitor, agent, console) = (at("monitor.sock"), at("agent.sock"), at("console"));
        let socket = |path: &PathBuf| format!("path={},server=on,wait=off", path.display());
        let mut spawn = Spawn::new("qemu-system-x86_64")
            .name("machine")
            // Emulated, whatever the host can: what is met is a driver and its device. Two CPUs, one of them for a worker.
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg,thread=multi", "-cpu", "max"])
            .args(["-machine", "q35", "-smp", "2", "-m", &MEMORY_MIB.to_string()])
            // Before whatever is to be behind it.
            .args(["-device", "intel-iommu"])
            .arg("-kernel")
            .arg(at("vmlinuz"))
            .arg("-initrd")
            .arg(at("initramfs.cpio.gz"))
            .args(["-append", KERNEL_LINE])
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .arg("-chardev")
            .arg(format!("socket,id=agent,{}", socket(&agent)))
            .args(["-serial", "chardev:agent", "-chardev"])
            .arg(format!("socket,id=monitor,{}", socket(&monitor)))
            .args(["-mon", "chardev=monitor,mode=readline"]);
        for PciNic { device, slot, peer } in nics {
            let id = peer.interface();
            spawn = spawn
                .arg("-netdev")
                .arg(format!("tap,id={id},ifname={id},script=no,downscript=no"))
                .arg("-device")
                .arg(format!("{device},netdev={id},addr={slot:#x},romfile="));
        }
        spawn = spawn.grace(Duration::from_secs(3));
        let machine = Self { process: spawn.start()?, agent: Agent::at(&agent), monitor, console, _dir: dir };
        machine.agent.wait_booted().map_err(|error| machine.failure(&format!("has not booted: {error:#}")))?;
        // QEMU has opened its ends by now.
        nics.iter().try_for_each(|nic| nic.peer.take_tap())?;
        Ok(machine)
    }

    /// Runs one line of shell in the machine, which has to succeed: its output.
    ///
    /// # Errors
    /// When it fails, or no answer comes within `timeout`.
    pub fn run(&self, command: &str, timeout: Duration) -> Result<String> {
        self.agent.run(command, timeout).map_err(|error| self.failure(&format!("{error:#}")))
    }

    /// Takes the cable of a NIC out, or puts it back in.
    ///
    /// # Errors
    /// When QEMU does not answer.
    pub fn set_link(&self, peer: &Namespace, up: bool) -> Result<()> {
        let mut monitor = UnixStream::connect(&self.monitor)?;
        monitor.set_read_timeout(Some(MONITOR))?;
        let command = format!("set_link {} {}\n", peer.interface(), if up { "on" } else { "off" });
        monitor.write_all(command.as_bytes())?;
        // It greets with a prompt, and gives the next one when it has obeyed.
        let (mut said, mut chunk) = (String::new(), [0; 512]);
        while said.matches("(qemu)").count() < 2 {
            let count = monitor.read(&mut chunk).context("QEMU's monitor does not answer")?;
            anyhow::ensure!(count > 0, "QEMU's monitor is gone");
            said.push_str(&String::from_utf8_lossy(&chunk[..count]));
        }
        Ok(())
    }

    fn failure(&self, what: &str) -> anyhow::Error {
        let console = String::from_utf8_lossy(&std::fs::read(&self.console).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = console.lines().collect();
        let end = lines[lines.len().saturating_sub(15)..].join("\n");
        self.process.failure(&format!("{what}; its console ends:\n{end}\n"))
    }
}
