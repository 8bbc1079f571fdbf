//! A network namespace at the other end of a veth pair, or of several: a kernel's TCP stack behind a NIC port.

use std::ffi::OsStr;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use crate::Spawn;
use crate::process::run;

/// A veth pair of which both ends are interfaces of this machine. Gone when it is dropped.
#[derive(Debug)]
pub struct Cable {
    ends: [String; 2],
}

impl Cable {
    /// Lays one. What the kernel says by itself does not go through it.
    ///
    /// # Errors
    /// When this process may not.
    pub fn lay() -> Result<Self> {
        let number = number();
        let cable = Self { ends: ["a", "b"].map(|end| format!("rw{number}{end}")) };
        let [near, far] = &cable.ends;
        ip(&["link", "add", near, "type", "veth", "peer", "name", far])?;
        for end in &cable.ends {
            be_silent(end)?;
            ip(&["link", "set", end, "up"])?;
        }
        Ok(cable)
    }

    /// The interface at one end, and at the other.
    #[must_use]
    pub fn ends(&self) -> [&str; 2] {
        self.ends.each_ref().map(String::as_str)
    }

    /// Takes the cable out at its first end, or puts it back in: the other end hears of it.
    ///
    /// # Errors
    /// When there is no interface.
    pub fn set_link(&self, up: bool) -> Result<()> {
        ip(&["link", "set", &self.ends[0], if up { "up" } else { "down" }])
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        let _ = ip(&["link", "del", &self.ends[0]]);
    }
}

/// A namespace with `eth0`, or with several such interfaces in a bridge, `br0`. Each has its peer among this machine's interfaces.
/// All are gone when it is dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    interfaces: Vec<String>,
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
        Self::with_ports(address, mtu, 1)
    }

    /// As [`Namespace::new`], with `ports` interfaces; if there are several, their bridge has the address.
    ///
    /// # Errors
    /// As [`Namespace::new`].
    pub fn with_ports(address: &str, mtu: u16, ports: usize) -> Result<Self> {
        let number = number();
        let interfaces = (0..ports).map(|port| format!("rw{number}{}", ["", "b", "c", "d"][port])).collect();
        let namespace = Self { name: format!("ringway-{number}"), interfaces, address: address.to_owned(), mtu };
        ip(&["netns", "add", &namespace.name])?;
        if ports > 1 {
            let make =
                "ip link add br0 type bridge forward_delay 0 && ethtool -K br0 tx off tso off gso off >/dev/null";
            // Unless told, it takes that of some interface, and another when that one goes.
            let keep = "ip link set br0 address $(cat /sys/class/net/br0/address)";
            namespace.run(&format!("{make} && {keep} && ip addr add {address} dev br0 && ip link set br0 up"))?;
        }
        (0..ports).try_for_each(|port| namespace.plug_port(port))?;
        Ok(namespace)
    }

    /// A namespace whose `eth0` will be a TAP device, for QEMU to open while it is still [`Namespace::interface`] outside;
    /// [`Namespace::take_tap`] then moves it inside.
    ///
    /// # Errors
    /// When this process may not make one.
    pub fn for_tap(address: &str, mtu: u16) -> Result<Self> {
        let number = number();
        let interfaces = vec![format!("rw{number}")];
        let namespace = Self { name: format!("ringway-{number}"), interfaces, address: address.to_owned(), mtu };
        ip(&["netns", "add", &namespace.name])?;
        ip(&["tuntap", "add", "dev", namespace.interface(), "mode", "tap"])?;
        Ok(namespace)
    }

    /// Moves the TAP device of [`Namespace::for_tap`] inside, where it goes on being what it is to who has it open.
    ///
    /// # Errors
    /// When it is there already.
    pub fn take_tap(&self) -> Result<()> {
        let Self { name, address, mtu, .. } = self;
        ip(&["link", "set", self.interface(), "netns", name, "name", "eth0"])?;
        self.run(&format!(
            "sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1 && ip link set lo up && \
             ip link set eth0 mtu {mtu} && ip addr add {address} dev eth0 && ip link set eth0 up"
        ))?;
        Ok(())
    }

    /// The interface outside, for a NIC port; of several the first.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interfaces[0]
    }

    /// The interfaces outside.
    #[must_use]
    pub fn interfaces(&self) -> &[String] {
        &self.interfaces
    }

    /// Makes the pair of interfaces; to be called again after [`Namespace::unplug`].
    ///
    /// # Errors
    /// When it is there already.
    pub fn plug(&self) -> Result<()> {
        self.plug_port(0)
    }

    /// As [`Namespace::plug`], for one of several.
    ///
    /// # Errors
    /// When it is there already, or there are not so many.
    pub fn plug_port(&self, port: usize) -> Result<()> {
        let Self { name, address, mtu, .. } = self;
        let (interface, inside, mtu) = (self.port(port)?, format!("eth{port}"), mtu.to_string());
        ip(&[
            "link", "add", interface, "mtu", &mtu, "type", "veth", "peer", "name", &inside, "mtu", &mtu, "netns", name,
        ])?;
        // What the kernel says on this end would be counted with the rest.
        be_silent(interface)?;
        ip(&["link", "set", interface, "up"])?;
        let place = if self.interfaces.len() > 1 {
            format!("ip link set {inside} master br0")
        } else {
            format!("ip addr add {address} dev {inside}")
        };
        let quiet = format!("ethtool -K {inside} tx off tso off gso off >/dev/null");
        self.run(&format!("ip link set lo up && {quiet} && {place} && ip link set {inside} up"))?;
        Ok(())
    }

    /// Takes the pair of interfaces away, as when a NIC is pulled.
    ///
    /// # Errors
    /// When it is not there.
    pub fn unplug(&self) -> Result<()> {
        self.unplug_port(0)
    }

    /// As [`Namespace::unplug`], for one of several.
    ///
    /// # Errors
    /// When it is not there.
    pub fn unplug_port(&self, port: usize) -> Result<()> {
        ip(&["link", "del", self.port(port)?])
    }

    /// Takes the cable out, or puts it back in.
    ///
    /// # Errors
    /// When there is no interface.
    pub fn set_link(&self, up: bool) -> Result<()> {
        self.set_link_of(0, up)
    }

    /// As [`Namespace::set_link`], for one of several.
    ///
    /// # Errors
    /// When there is no interface.
    pub fn set_link_of(&self, port: usize, up: bool) -> Result<()> {
        ip(&["link", "set", self.port(port)?, if up { "up" } else { "down" }])
    }

    fn port(&self, port: usize) -> Result<&str> {
        self.interfaces.get(port).map(String::as_str).with_context(|| format!("no port {port}"))
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
        Ok(self.run("cat /sys/class/net/eth0/address")?.trim().to_owned())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        for interface in &self.interfaces {
            let _ = ip(&["link", "del", interface]);
        }
        let _ = ip(&["netns", "del", &self.name]);
    }
}

/// Interface names have 15 characters at most.
fn number() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{:x}{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// The kernel says nothing by itself on an interface.
fn be_silent(interface: &str) -> Result<()> {
    run("sysctl", &words(&["-qw", &format!("net.ipv6.conf.{interface}.disable_ipv6=1")])).map(|_| ())
}

fn ip(arguments: &[&str]) -> Result<()> {
    run("ip", &words(arguments)).map(|_| ())
}

fn words<'a>(words: &'a [&'a str]) -> Vec<&'a OsStr> {
    words.iter().map(OsStr::new).collect()
}
