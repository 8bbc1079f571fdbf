//! A Linux guest in QEMU, started by the repository's `scripts/guest`, and a shell in it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use tempfile::TempDir;

use crate::process::run;
use crate::{Process, Spawn, wait_for, workspace};

/// Under software emulation, on a busy machine. With KVM it takes two seconds.
const BOOT: Duration = Duration::from_secs(120);
/// Between two empty lines to an agent that does not answer yet: its port loses what comes too early.
const KNOCK: Duration = Duration::from_millis(250);
const READY: &str = "__ringway_ready";
const DONE: &str = "__ringway_done ";

/// How guests run on this machine: `kvm`, or `tcg`, which is software emulation.
///
/// # Errors
/// When `scripts/guest` cannot tell, as without QEMU.
pub fn acceleration() -> Result<String> {
    let script = workspace().join("scripts/guest");
    Ok(run(&script.to_string_lossy(), &[OsStr::new("--acceleration")])?.trim().to_owned())
}

/// The image's initramfs with its agent on the first serial port, as `to`: for guests that have only one.
const ON_FIRST_PORT: &str = r#"set -eu
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
(cd "$here" && gzip -dc "$1" | cpio -id --quiet '*etc/agent' && sed -i s/ttyS1/ttyS0/g etc/agent && grep -q ttyS0 etc/agent)
(cd "$here" && find . | cpio -o -H newc --quiet -R 0:0) | gzip | cat "$1" - >"$2""#;

/// Writes the initramfs of `scripts/guest-image` to `to`, with its agent on the first serial port.
///
/// # Errors
/// When there is no image, or it is another one than this knows.
pub fn initramfs_with_one_serial_port(to: &Path) -> Result<()> {
    let image = workspace().join(".cache/guest/initramfs.cpio.gz");
    let words = ["-c", ON_FIRST_PORT, "sh"].map(OsStr::new);
    run("sh", &[&words[..], &[image.as_os_str(), to.as_os_str()]].concat()).map(drop)
}

/// What to boot. Made by [`Guest::builder`].
#[derive(Debug, Clone)]
pub struct GuestBuilder {
    name: String,
    socket: PathBuf,
    options: Vec<String>,
    qemu: Vec<String>,
}

impl GuestBuilder {
    /// Queue pairs, and as many vCPUs. One unless told.
    #[must_use]
    pub fn queues(self, pairs: u16) -> Self {
        self.option("--queues", pairs)
    }

    /// The address of eth0, such as `10.0.0.1/24`. None unless told.
    #[must_use]
    pub fn ip(self, cidr: &str) -> Self {
        self.option("--ip", cidr)
    }

    /// Its Ethernet address; made from its name unless told.
    #[must_use]
    pub fn mac(self, mac: &str) -> Self {
        self.option("--mac", mac)
    }

    /// Packed or split virtqueues. Packed unless told.
    #[must_use]
    pub fn packed(self, packed: bool) -> Self {
        self.option("--packed", if packed { "on" } else { "off" })
    }

    /// Memory in MiB.
    #[must_use]
    pub fn memory(self, mib: u32) -> Self {
        self.option("--mem", mib)
    }

    /// vCPUs.
    #[must_use]
    pub fn vcpus(self, count: u16) -> Self {
        self.option("--cpus", count)
    }

    /// The host CPU for all of QEMU's threads.
    #[must_use]
    pub fn cpu(self, cpu: usize) -> Self {
        self.option("--vm-cpu", cpu)
    }

    /// Descriptors in each virtqueue.
    #[must_use]
    pub fn ring_size(self, descriptors: u16) -> Self {
        self.option("--ring-size", descriptors)
    }

    /// More of the kernel's command line.
    pub fn kernel_line(self, text: &str) -> Self {
        self.option("--append", text)
    }

    /// More properties of QEMU's virtio-net-pci, such as `host_mtu=9000`.
    #[must_use]
    pub fn nic(self, properties: &str) -> Self {
        self.option("--nic", properties)
    }

    /// QEMU connects to its socket, where the switch listens, again and again. Otherwise it listens.
    #[must_use]
    pub fn connects(self) -> Self {
        self.option("--connects", "yes")
    }

    /// Any other option of `scripts/guest`.
    #[must_use]
    pub fn option(mut self, option: &str, value: impl ToString) -> Self {
        self.options.extend([option.to_owned(), value.to_string()]);
        self
    }

    /// More arguments for QEMU.
    #[must_use]
    pub fn qemu(mut self, args: &[&str]) -> Self {
        self.qemu.extend(args.iter().map(|&arg| arg.to_owned()));
        self
    }

    /// Starts QEMU and returns at once. It boots when the switch has connected; then [`Guest::wait_booted`].
    ///
    /// # Errors
    /// When it cannot be started at all.
    pub fn start(self) -> Result<Guest> {
        let dir = crate::scratch_dir()?;
        let (agent, console) = (dir.path().join("agent.sock"), dir.path().join("console"));
        let process = Spawn::new(workspace().join("scripts/guest"))
            .name(format!("guest {}", self.name))
            .arg(&self.name)
            .arg("--socket")
            .arg(&self.socket)
            .arg("--agent")
            .arg(&agent)
            .arg("--console")
            .arg(&console)
            .args(&self.options)
            .arg("--")
            .args(&self.qemu)
            .start()?;
        Ok(Guest { process, agent, console, _dir: dir })
    }
}

/// A guest: booting, running, or gone.
#[derive(Debug)]
pub struct Guest {
    process: Process,
    agent: PathBuf,
    console: PathBuf,
    _dir: TempDir,
}

impl Guest {
    /// A guest to boot whose QEMU listens at `socket`.
    pub fn builder(name: &str, socket: impl AsRef<Path>) -> GuestBuilder {
        let socket = socket.as_ref().to_owned();
        GuestBuilder { name: name.to_owned(), socket, options: Vec::new(), qemu: Vec::new() }
    }

    /// Waits until a shell in the guest answers.
    ///
    /// # Errors
    /// When QEMU ends, or two minutes pass; the ends of its log and console are in the message.
    pub fn wait_booted(&self) -> Result<()> {
        let look = || match self.exec("true", Duration::from_secs(5)) {
            Ok((0, _)) => Some(true),
            _ => (!self.process.is_running()).then_some(false),
        };
        let booted = wait_for("boot", BOOT, look);
        if let Ok(true) = booted { Ok(()) } else { Err(self.failure("has not booted")) }
    }

    /// Runs one line of shell in the guest: its exit status and output, stdout and stderr as they came.
    ///
    /// # Errors
    /// When no answer comes within `timeout`.
    pub fn exec(&self, command: &str, timeout: Duration) -> Result<(i32, String)> {
        Agent::at(&self.agent)
            .exec(command, timeout)
            .map_err(|error| self.failure(&format!("does not answer \"{command}\" within {timeout:?}: {error:#}")))
    }

    /// As [`Guest::exec`], for a command that has to succeed: its output.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&self, command: &str, timeout: Duration) -> Result<String> {
        match self.exec(command, timeout)? {
            (0, output) => Ok(output),
            (status, output) => bail!("{}: \"{command}\" ended with {status}: {output}", self.process.name()),
        }
    }

    /// Everything that its kernel said.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.console).unwrap_or_default()).into_owned()
    }

    /// QEMU's process, for its log, its pid, or to kill it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    fn failure(&self, what: &str) -> anyhow::Error {
        let console = self.console();
        let lines: Vec<&str> = console.lines().collect();
        let end = lines[lines.len().saturating_sub(10)..].join("\n");
        self.process.failure(&format!("{what}; its console ends:\n{end}\n"))
    }
}

/// A shell in a guest of `scripts/guest-image`, whoever started it: through the socket or the terminal that QEMU makes of its
/// serial port.
#[derive(Debug, Clone)]
pub struct Agent(PathBuf);

impl Agent {
    /// The agent behind a socket, or behind a terminal, which somebody else has made raw and holds open: QEMU forgets one that
    /// nobody has open.
    pub fn at(path: impl AsRef<Path>) -> Self {
        Self(path.as_ref().to_owned())
    }

    /// Runs one line of shell in the guest: its exit status and output, stdout and stderr as they came.
    ///
    /// # Errors
    /// When no answer comes within `timeout`.
    pub fn exec(&self, command: &str, timeout: Duration) -> Result<(i32, String)> {
        Talk::connect(&self.0, Instant::now() + timeout)?.exec(command)
    }

    /// As [`Agent::exec`], for a command that has to succeed: its output.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&self, command: &str, timeout: Duration) -> Result<String> {
        match self.exec(command, timeout)? {
            (0, output) => Ok(output),
            (status, output) => bail!("\"{command}\" ended with {status}: {output}"),
        }
    }

    /// Waits until the guest has booted and its shell answers.
    ///
    /// # Errors
    /// When two minutes pass first.
    pub fn wait_booted(&self) -> Result<()> {
        wait_for("boot", BOOT, || {
            self.exec("true", Duration::from_secs(5)).is_ok_and(|(status, _)| status == 0).then_some(())
        })
    }
}

/// A guest's serial port from outside.
enum Line {
    Socket(UnixStream),
    Terminal(File),
}

impl Line {
    fn open(path: &Path) -> io::Result<Self> {
        if std::fs::metadata(path)?.file_type().is_char_device() {
            let flags = OFlags::NOCTTY.bits().cast_signed();
            return Ok(Self::Terminal(File::options().read(true).write(true).custom_flags(flags).open(path)?));
        }
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(KNOCK))?;
        stream.set_write_timeout(Some(KNOCK))?;
        Ok(Self::Socket(stream))
    }

    /// What has come, after [`KNOCK`] at most.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Socket(stream) => stream.read(into),
            Self::Terminal(file) => {
                let patience = Timespec { tv_sec: 0, tv_nsec: i64::from(KNOCK.subsec_nanos()) };
                let ready = poll(&mut [PollFd::new(&*file, PollFlags::IN)], Some(&patience))?;
                if ready == 0 { Err(io::ErrorKind::TimedOut.into()) } else { file.read(into) }
            }
        }
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        match self {
            Self::Socket(stream) => stream.write_all(text),
            Self::Terminal(file) => file.write_all(text),
        }
    }
}

/// The client of the agent in the guest; `scripts/guest-image` specifies the protocol.
struct Talk {
    line: Line,
    unread: Vec<u8>,
    end: Instant,
}

impl Talk {
    fn connect(path: &Path, end: Instant) -> Result<Self> {
        let line = loop {
            match Line::open(path) {
                Ok(line) => break line,
                Err(error) if Instant::now() >= end => return Err(error).context("nobody listens"),
                Err(_) => sleep(Duration::from_millis(50)), // QEMU is about to make it
            }
        };
        Ok(Self { line, unread: Vec::new(), end })
    }

    fn exec(&mut self, command: &str) -> Result<(i32, String)> {
        loop {
            self.send("")?;
            // Lines before it are an earlier command's.
            if self.read_until(READY, Instant::now() + KNOCK)?.is_some() {
                break;
            }
            if Instant::now() >= self.end {
                bail!("no agent");
            }
        }
        // An answer that an earlier client did not wait for may still be on its way: ours comes after what nobody else asked.
        static ASKED: AtomicU64 = AtomicU64::new(0);
        let mark = format!("__ringway_{}_{}", std::process::id(), ASKED.fetch_add(1, Ordering::Relaxed));
        self.send(&format!("echo {mark}"))?;
        for wanted in [mark.as_str(), DONE] {
            self.read_until(wanted, self.end)?.context("the agent does not answer")?;
        }
        self.send(command)?;
        let output = self.read_until(DONE, self.end)?.context("it takes longer")?;
        let (output, status) = output;
        let ours: Vec<&str> = output.lines().skip_while(|&line| line == READY).collect();
        let status = status.trim().parse().with_context(|| format!("no exit status: {status}"))?;
        Ok((status, ours.iter().map(|line| format!("{line}\n")).collect()))
    }

    fn send(&mut self, line: &str) -> Result<()> {
        Ok(self.line.write(format!("{line}\n").as_bytes())?)
    }

    /// Reads whole lines up to one that begins with `mark`: all before it, and its rest. None when `end` comes first.
    fn read_until(&mut self, mark: &str, end: Instant) -> Result<Option<(String, String)>> {
        let mut before = String::new();
        loop {
            while let Some(length) = self.unread.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=length).collect();
                let line = String::from_utf8_lossy(&line);
                match line.strip_prefix(mark) {
                    Some(rest) => return Ok(Some((before, rest.to_owned()))),
                    None => before.push_str(&line),
                }
            }
            if Instant::now() >= end {
                return Ok(None);
            }
            let mut chunk = [0; 4096];
            match self.line.read(&mut chunk) {
                Ok(0) => bail!("the agent's socket is closed"),
                Ok(count) => self.unread.extend(&chunk[..count]),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
