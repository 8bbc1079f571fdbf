//! A child process that cannot outlive its owner.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
pub use rustix::process::Signal;
use rustix::process::{Pid, WaitId, WaitIdOptions, kill_process_group, waitid};
use tempfile::TempDir;

use crate::wait_for;

/// How much of a log goes into an error message, or to stderr when a test panics.
const TAIL_LINES: usize = 25;

/// What to start, and how. Programs are looked up in `PATH` and in the `sbin` directories.
#[derive(Debug, Clone)]
pub struct Spawn {
    name: String,
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    cpus: Option<String>,
    line_buffered: bool,
    address_space: Option<u64>,
    grace: Duration,
}

impl Spawn {
    /// A program, named after itself in messages.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let program = program.as_ref().to_owned();
        let name = PathBuf::from(&program).file_name().unwrap_or(&program).to_string_lossy().into_owned();
        Self {
            name,
            program,
            args: Vec::new(),
            env: Vec::new(),
            cpus: None,
            line_buffered: false,
            address_space: None,
            grace: Duration::from_secs(5),
        }
    }

    /// What messages call it.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// One environment variable.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Confines it to one CPU, for as long as it does not choose for itself.
    #[must_use]
    pub fn cpu(mut self, cpu: usize) -> Self {
        self.cpus = Some(cpu.to_string());
        self
    }

    /// Makes the C library write whole lines at once, though its output is a file.
    #[must_use]
    pub fn line_buffered(mut self) -> Self {
        self.line_buffered = true;
        self
    }

    /// Bytes of addresses that it may have (RLIMIT_AS).
    #[must_use]
    pub fn address_space(mut self, bytes: u64) -> Self {
        self.address_space = Some(bytes);
        self
    }

    /// Between SIGTERM and SIGKILL when it is stopped; 5 s unless told.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Starts it, in a process group of its own.
    ///
    /// # Errors
    /// When it cannot be started. A program that does not exist is not known here: it ends with status 127.
    pub fn start(self) -> Result<Process> {
        let dir = crate::scratch_dir()?;
        let log = dir.path().join("log");
        let out = File::create(&log)?;
        let child = spawn_from_a_lasting_thread(self.command(out)?)
            .with_context(|| format!("{} cannot be started", self.name))?;
        Ok(Process { name: self.name, child, log, grace: self.grace, ended: None, _dir: dir })
    }

    /// Each helper becomes the next one, so that the child is the program itself in the end, with the child's pid.
    fn command(&self, out: File) -> Result<Command> {
        let mut words: Vec<OsString> = ["setpriv", "--pdeathsig", "KILL", "--"].map(OsString::from).into();
        if let Some(cpus) = &self.cpus {
            words.extend(["taskset", "-c", cpus].map(OsString::from));
        }
        if let Some(bytes) = self.address_space {
            words.extend(["prlimit".into(), format!("--as={bytes}").into()]);
        }
        if self.line_buffered {
            words.extend(["stdbuf", "-oL"].map(OsString::from));
        }
        words.push(self.program.clone());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .args(&self.args)
            .env("PATH", path_with_sbin())
            .env("NO_COLOR", "1")
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::piped())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0);
        Ok(command)
    }
}

/// A started process: its stdin is a pipe, its output a file. Dropping it ends its whole process group.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    grace: Duration,
    ended: Option<ExitStatus>,
    _dir: TempDir,
}

impl Process {
    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id, which is also that of its group.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended yet.
    pub fn is_running(&self) -> bool {
        // Looked at, not reaped: the pid stays ours until `stop`, `kill` or `wait`.
        let looking = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        self.ended.is_none() && matches!(waitid(WaitId::Pid(self.group()), looking), Ok(None))
    }

    /// CPU time that its threads took so far, in user mode and in the kernel, to a hundredth of a second.
    ///
    /// # Errors
    /// When it has ended.
    pub fn cpu_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        cpu_time(&stat).with_context(|| self.failure("has no CPU time").to_string())
    }

    /// Writes one line to its stdin.
    ///
    /// # Errors
    /// When it has ended, or closed its stdin.
    pub fn send_line(&self, line: &str) -> Result<()> {
        let mut stdin = self.child.stdin.as_ref().context("stdin is closed")?;
        stdin
            .write_all(format!("{line}\n").as_bytes())
            .map_err(|error| self.failure(&format!("takes no input: {error}")))
    }

    /// Everything that it wrote so far, stdout and stderr as they came.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How many bytes it wrote so far: a place to wait from, see [`Process::wait_for_line_after`].
    pub fn log_len(&self) -> usize {
        fs::metadata(&self.log).map_or(0, |log| usize::try_from(log.len()).unwrap_or(usize::MAX))
    }

    /// What it wrote from byte `start` on.
    pub fn log_after(&self, start: usize) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(start..).unwrap_or_default()).into_owned()
    }

    /// The last `lines` lines that it wrote.
    pub fn tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Waits for a line that contains `text`, since the beginning, and returns it.
    ///
    /// # Errors
    /// When it ends, or `timeout` passes, without that line; the end of its log is in the message.
    pub fn wait_for_line(&self, text: &str, timeout: Duration) -> Result<String> {
        self.wait_for_line_after(0, text, timeout)
    }

    /// Waits for a line that contains `text` after byte `start` of its log, and returns it.
    ///
    /// # Errors
    /// As [`Process::wait_for_line`].
    pub fn wait_for_line_after(&self, start: usize, text: &str, timeout: Duration) -> Result<String> {
        let found = wait_for(text, timeout, || {
            let over = !self.is_running(); // before the look, so that last words count
            let line = self.log_after(start).lines().find(|line| line.contains(text)).map(str::to_owned);
            if line.is_none() && over { Some(None) } else { line.map(Some) }
        });
        match found {
            Ok(Some(line)) => Ok(line),
            Ok(None) => Err(self.failure(&format!("ended without saying \"{text}\""))),
            Err(_) => Err(self.failure(&format!("did not say \"{text}\" within {timeout:?}"))),
        }
    }

    /// An error about this process, with the end of its log.
    pub fn failure(&self, what: &str) -> anyhow::Error {
        anyhow!("{} (pid {}) {what}; its last words:\n{}", self.name, self.pid(), self.tail(TAIL_LINES))
    }

    /// Sends a signal to its process group.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if !self.is_running() {
            bail!("{} has ended", self.name);
        }
        Ok(kill_process_group(self.group(), signal)?)
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When `timeout` passes first.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        match wait_for("its end", timeout, || (!self.is_running()).then_some(())) {
            Ok(()) => self.reap(),
            Err(_) => Err(self.failure(&format!("did not end within {timeout:?}"))),
        }
    }

    /// SIGTERM, patience, SIGKILL. What is left of its group goes with it. Harmless when it has ended.
    ///
    /// # Errors
    /// When its status cannot be read.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.end(Some(Signal::TERM))
    }

    /// SIGKILL at once, as when a machine runs out of memory: no clean-up in the process runs.
    ///
    /// # Errors
    /// When its status cannot be read.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.end(None)
    }

    fn end(&mut self, gently: Option<Signal>) -> Result<ExitStatus> {
        if self.ended.is_some() {
            return self.reap();
        }
        if let Some(signal) = gently {
            let _ = kill_process_group(self.group(), signal);
            let _ = wait_for("", self.grace, || (!self.is_running()).then_some(()));
        }
        // Not reaped yet, so the number of the group cannot be anybody else's.
        let _ = kill_process_group(self.group(), Signal::KILL);
        self.reap()
    }

    fn reap(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.ended {
            return Ok(status);
        }
        let status = self.child.wait()?;
        self.ended = Some(status);
        Ok(status)
    }

    fn group(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            let state = if self.is_running() { "running" } else { "ended" };
            eprintln!("--- {} (pid {}, {state}), last {TAIL_LINES} lines", self.name, self.pid());
            eprintln!("{}\n---", self.tail(TAIL_LINES));
        }
        let _ = self.stop();
    }
}

/// The kernel sends a parent-death signal when the *thread* that started the child ends. A test may well start peers from
/// a thread of its own, so one thread that never ends starts them all.
fn spawn_from_a_lasting_thread(command: Command) -> io::Result<Child> {
    type Order = (Command, Sender<io::Result<Child>>);
    static STARTER: LazyLock<Sender<Order>> = LazyLock::new(|| {
        let (orders, inbox) = channel::<Order>();
        thread::spawn(move || {
            for (mut command, reply) in inbox {
                let _ = reply.send(command.spawn());
            }
        });
        orders
    });
    let (reply, answer) = channel();
    let gone = |_| io::Error::other("the thread that starts processes is gone");
    STARTER.send((command, reply)).map_err(|_| gone(()))?;
    answer.recv().map_err(|_| gone(()))?
}

/// Fields 14 and 15 of `/proc/PID/stat`, in ticks that are a hundredth of a second to every program. The second field is a
/// name in parentheses that may hold anything.
fn cpu_time(stat: &str) -> Option<Duration> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(Duration::from_millis(10 * (ticks()? + ticks()?)))
}

/// Daemons live in `sbin`, which a user's `PATH` may lack.
pub(crate) fn path_with_sbin() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin");
    path
}

/// Runs a short command to its end and returns its stdout.
pub(crate) fn run(program: &str, args: &[&OsStr]) -> Result<String> {
    let out = Command::new(program).args(args).env("PATH", path_with_sbin()).stdin(Stdio::null()).output();
    let out = out.with_context(|| format!("{program} cannot be started"))?;
    if !out.status.success() {
        bail!("{program} {args:?}: {}: {}", out.status, String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_user_and_system_time() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 123 45 6 7 20 0 1 0 100 4096 10";
        assert_eq!(cpu_time(stat), Some(Duration::from_millis(1680)));
        assert_eq!(cpu_time("7 (a) S 1"), None);
    }
}
