//! A network namespace at the other end of a veth pair: a kernel's TCP stack behind a NIC port.

use std::ffi::OsStr;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;

use crate::Spawn;
use crate::process::run;

/// The kernel's end, inside.
const INSIDE: &str = "eth0";

/// A namespace with one interface, `eth0`, whose peer is an interface of this machine. Both are gone when it is dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    interface: String,
    address: String,
    mtu: u16,
}

impl Namespace {
    /// A namespace whose `eth0` has an address such as `10.0.0.1/24`. The kernel inside makes its checksums and segments itself,
    /// before the veth: who reads packets from a socket cannot tell that they are still to be made.
    ///
    /// # Errors
    /// When this process may not make one.
    pub fn new(address: &str, mtu: u16) -> Result<Self> {
        let namespace = Self::bare(address, mtu);
        ip(&["netns", "add", &namespace.name])?;
        namespace.plug()?;
        Ok(namespace)
    }

    /// Names that nobody else has, and nothing yet that they name.
    fn bare(address: &str, mtu: u16) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // Interface names have 15 characters at most.
        let number = format!("{:x}{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let (name, interface) = (format!("ringway-{number}"), format!("rw{number}"));
        Self { name, interface, address: address.to_owned(), mtu }
    }

    /// A namespace whose `eth0` will be a TAP device, for QEMU to open while it is still [`Namespace::interface`] outside;
    /// [`Namespace::take_tap`] then moves it inside.
    ///
    /// # Errors
    /// When this process may not make one.
    pub fn for_tap(address: &str, mtu: u16) -> Result<Self> {
        let namespace = Self::bare(address, mtu);
        ip(&["netns", "add", &namespace.name])?;
        ip(&["tuntap", "add", "dev", &namespace.interface, "mode", "tap"])?;
        Ok(namespace)
    }

    /// Moves the TAP device of [`Namespace::for_tap`] inside, where it goes on being what it is to who has it open.
    ///
    /// # Errors
    /// When it is there already.
    pub fn take_tap(&self) -> Result<()> {
        let Self { name, interface, address, mtu } = self;
        ip(&["link", "set", interface, "netns", name, "name", INSIDE])?;
        self.run(&format!(
            "sysctl -qw net.ipv6.conf.{INSIDE}.disable_ipv6=1 && ip link set lo up && \
             ip link set {INSIDE} mtu {mtu} && ip addr add {address} dev {INSIDE} && ip link set {INSIDE} up"
        ))?;
        Ok(())
    }

    /// The interface outside, for a NIC port.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Makes the pair of interfaces; to be called again after [`Namespace::unplug`].
    ///
    /// # Errors
    /// When it is there already.
    pub fn plug(&self) -> Result<()> {
        let Self { name, interface, address, mtu } = self;
        let mtu = mtu.to_string();
        ip(&[
            "link", "add", interface, "mtu", &mtu, "type", "veth", "peer", "name", INSIDE, "mtu", &mtu, "netns", name,
        ])?;
        // What the kernel says on this end would be counted with the rest.
        run("sysctl", &words(&["-qw", &format!("net.ipv6.conf.{interface}.disable_ipv6=1")]))?;
        ip(&["link", "set", interface, "up"])?;
        self.run(&format!(
            "ip link set lo up && ethtool -K {INSIDE} tx off tso off gso off >/dev/null && \
             ip addr add {address} dev {INSIDE} && ip link set {INSIDE} up"
        ))?;
        Ok(())
    }

    /// Takes the pair of interfaces away, as when a NIC is pulled.
    ///
    /// # Errors
    /// When it is not there.
    pub fn unplug(&self) -> Result<()> {
        ip(&["link", "del", &self.interface])
    }

    /// Takes the cable out, or puts it back in.
    ///
    /// # Errors
    /// When there is no interface.
    pub fn set_link(&self, up: bool) -> Result<()> {
        ip(&["link", "set", &self.interface, if up { "up" } else { "down" }])
    }

    /// Runs a shell command inside, to its end; what it wrote.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&self, command: &str) -> Result<String> {
        run("ip", &words(&["netns", "exec", &self.name, "sh", "-c", command]))
    }

    /// A program to be started inside.
    #[must_use]
    pub fn spawn(&self, program: &str) -> Spawn {
        Spawn::new("ip").args(["netns", "exec", &self.name, program]).name(program)
    }

    /// The Ethernet address of `eth0`.
    ///
    /// # Errors
    /// When there is no interface.
    pub fn mac(&self) -> Result<String> {
        Ok(self.run(&format!("cat /sys/class/net/{INSIDE}/address"))?.trim().to_owned())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.unplug();
        let _ = ip(&["netns", "del", &self.name]);
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    run("ip", &words(arguments)).map(|_| ())
}

fn words<'a>(words: &'a [&'a str]) -> Vec<&'a OsStr> {
    words.iter().map(OsStr::new).collect()
}
