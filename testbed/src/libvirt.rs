//! libvirt's daemon with its QEMU driver, beside whatever libvirt the machine runs: own configuration, sockets and state, no
//! service. What it starts lives in its process namespace and ends with it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::OFlags;
use tempfile::TempDir;

use crate::process::run;
use crate::{Agent, Process, Spawn, wait_for};

const READY: Duration = Duration::from_secs(40);

/// Nobody but the test's own user is served, and no part of the machine is asked for what it may not have.
const QEMU_CONF: &str = r#"
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
remember_owner = 0
"#;
const LIBVIRTD_CONF: &str = "auth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\n";
/// Debian's package of the daemon alone does not make the user that it is built with, and without one there is no driver.
const USER: &str = "libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "libvirt-qemu:x:64055:\n";

/// Runs in namespaces of its own: what is mounted here nobody else sees. In a root that is no mount point (chroot) that cannot
/// be asked for, and has to be so already. The shell stays, to reap what the daemons leave behind.
const START: &str = r#"set -eu
if ! mount --make-rprivate / 2>/dev/null && grep -q ' shared:' /proc/self/mountinfo; then
    echo "what is mounted here would be seen outside: use a root that is a mount point" >&2
    exit 1
fi
mount --bind "$1/etc" /etc/libvirt
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/group" /etc/group
exec 3<"$1"
mount --bind "/proc/self/fd/3/var" /var
mount --bind "/proc/self/fd/3/run" /run
exec 3<&-
virtlogd -d -p /run/virtlogd.pid
libvirtd -p /run/libvirtd.pid &
wait $!"#;

/// A running libvirtd.
#[derive(Debug)]
pub struct Libvirt {
    process: Process,
    uri: String,
    dir: TempDir,
}

impl Libvirt {
    /// Starts virtlogd and libvirtd, and waits until they answer.
    ///
    /// # Errors
    /// When they do not; the end of their log is in the message.
    pub fn start() -> Result<Self> {
        let dir = crate::scratch_dir()?;
        let at = |name: &str| dir.path().join(name);
        for directory in ["run", "etc", "var/lib/libvirt", "var/log/libvirt", "var/cache/libvirt", "var/tmp"] {
            fs::create_dir_all(at(directory))?;
        }
        fs::write(at("etc/qemu.conf"), QEMU_CONF)?;
        fs::write(at("etc/libvirtd.conf"), LIBVIRTD_CONF)?;
        for (name, line) in [("passwd", USER), ("group", GROUP)] {
            let table = fs::read_to_string(Path::new("/etc").join(name))?;
            let known = table.lines().any(|entry| entry.starts_with("libvirt-qemu:"));
            fs::write(at(name), if known { table } else { format!("{table}{line}") })?;
        }
        let process = Spawn::new("unshare")
            .name("libvirtd")
            .args(["--mount", "--propagation", "unchanged", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["sh", "-c", START, "sh"])
            .arg(dir.path())
            .start()?;
        let socket = at("run/libvirt/libvirt-sock");
        let libvirt = Self { process, uri: format!("qemu+unix:///system?socket={}", socket.display()), dir };
        let look = || match libvirt.virsh(&["version"]) {
            Ok(_) => Some(true),
            Err(_) => (!libvirt.process.is_running()).then_some(false),
        };
        match wait_for("libvirtd", READY, look) {
            Ok(true) => Ok(libvirt),
            Ok(false) => Err(libvirt.process.failure("ended")),
            Err(_) => Err(libvirt.process.failure("does not answer")),
        }
    }

    /// `virsh`: what it printed.
    ///
    /// # Errors
    /// When it fails; what it said is in the message.
    pub fn virsh(&self, words: &[&str]) -> Result<String> {
        let mut all = vec![OsStr::new("-c"), OsStr::new(&self.uri)];
        all.extend(words.iter().map(OsStr::new));
        run("virsh", &all).with_context(|| format!("virsh {}", words.join(" ")))
    }

    /// `virsh COMMAND [DOMAIN] FILE` with this XML in the file.
    ///
    /// # Errors
    /// As [`Libvirt::virsh`].
    pub fn virsh_with(&self, words: &[&str], xml: &str) -> Result<String> {
        let file = self.dir.path().join("document.xml");
        fs::write(&file, xml)?;
        let file = file.to_string_lossy();
        self.virsh(&[words, &[file.as_ref()]].concat())
    }

    /// The process ids of a domain's QEMU, which are seen from outside its namespace: none once it is gone.
    ///
    /// # Errors
    /// When libvirtd's namespace cannot be looked into, as after its end.
    pub fn qemus(&self, domain: &str) -> Result<Vec<u32>> {
        let wanted = format!("guest={domain},").into_bytes();
        let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid"));
        // Another libvirt may have a domain of that name.
        let ours = namespace(self.child()?).context("libvirtd's namespace is gone")?;
        let mut pids = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            // A process that ends meanwhile is none of them.
            let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { continue };
            let mut words = line.split(|&byte| byte == 0);
            let is_named =
                words.any(|word| word == b"-name") && words.next().is_some_and(|name| name.starts_with(&wanted));
            if is_named && namespace(pid).is_ok_and(|namespace| namespace == ours) {
                pids.push(pid);
            }
        }
        Ok(pids)
    }

    /// The shell in the namespaces, `unshare`'s only child.
    fn child(&self) -> Result<u32> {
        let pid = self.process.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let first = children.split_whitespace().next().context("libvirtd's shell has ended")?;
        Ok(first.parse()?)
    }

    /// The terminal of a running domain's first serial port.
    ///
    /// # Errors
    /// When it runs not, or has none.
    pub fn console(&self, domain: &str) -> Result<Console> {
        let path = PathBuf::from(self.virsh(&["ttyconsole", domain])?.trim());
        run("stty", &[OsStr::new("-F"), path.as_os_str(), OsStr::new("raw"), OsStr::new("-echo")])?;
        let flags = OFlags::NOCTTY.bits().cast_signed();
        let held = fs::File::options().read(true).custom_flags(flags).open(&path)?;
        Ok(Console { path, _held: held })
    }

    /// What QEMU of this domain wrote, from its command line on.
    pub fn qemu_log(&self, domain: &str) -> String {
        let path: PathBuf = self.dir.path().join("var/log/libvirt/qemu").join(format!("{domain}.log"));
        String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
    }
}

/// A domain's serial port as a raw terminal, held open: QEMU forgets one that nobody has open.
#[derive(Debug)]
pub struct Console {
    path: PathBuf,
    _held: fs::File,
}

impl Console {
    /// The agent behind it, if the guest has its agent there.
    pub fn agent(&self) -> Agent {
        Agent::at(&self.path)
    }
}
