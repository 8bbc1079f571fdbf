//! The system's DPDK, as pkg-config describes it.

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

/// The way out of every missing-package error.
pub(crate) const INSTALL: &str = "install the Debian packages libdpdk-dev, libclang-dev and pkg-config";

const ENVIRONMENT: [&str; 4] = ["PKG_CONFIG", "PKG_CONFIG_PATH", "PKG_CONFIG_LIBDIR", "PKG_CONFIG_SYSROOT_DIR"];

/// Asked of the binary rather than of the `pkg-config` crate, which keeps `-I` and `-D` but has no
/// place for `-include rte_config.h` and `-march`; the headers need both.
pub(crate) struct Libdpdk {
    pub(crate) cflags: Vec<String>,
    libs: Vec<String>,
}

impl Libdpdk {
    pub(crate) fn find() -> Result<Self, String> {
        for variable in ENVIRONMENT {
            println!("cargo::rerun-if-env-changed={variable}");
        }
        accept(&pkg_config("--modversion")?.concat())?;
        let cflags = pkg_config("--cflags")?;
        let libs = pkg_config("--libs")?;

        for directory in cflags.iter().filter_map(|flag| flag.strip_prefix("-I")) {
            let directory = Path::new(directory);
            // Directories, not headers: a package carries its own build time in its files' mtimes, and
            // only the directory shows when it was unpacked here.
            if ["rte_config.h", "rte_ethdev.h"].iter().any(|header| directory.join(header).exists()) {
                println!("cargo::rerun-if-changed={}", directory.display());
            }
        }
        Ok(Self { cflags, libs })
    }

    /// Links dynamically. Drivers are not linked at all: EAL loads them from its plugin directory.
    pub(crate) fn link(&self) {
        for flag in &self.libs {
            if let Some(directory) = flag.strip_prefix("-L") {
                println!("cargo::rustc-link-search=native={directory}");
            } else if let Some(library) = flag.strip_prefix("-l") {
                println!("cargo::rustc-link-lib=dylib={library}");
            }
        }
        // The one driver with an API of its own, which pkg-config leaves out with all other drivers.
        println!("cargo::rustc-link-lib=dylib=rte_net_bond");
    }
}

fn accept(version: &str) -> Result<(), String> {
    let mut numbers = version.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(22), Some(minor)) if minor >= 11 => Ok(()),
        _ => Err(format!("libdpdk >= 22.11 and < 23 is needed, pkg-config found {version}; {INSTALL} of Debian 12")),
    }
}

fn pkg_config(question: &str) -> Result<Vec<String>, String> {
    let program = env::var_os("PKG_CONFIG").unwrap_or_else(|| OsString::from("pkg-config"));
    let output = Command::new(&program)
        .args([question, "libdpdk"])
        .output()
        .map_err(|error| format!("cannot run {}: {error}; {INSTALL}", program.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next().unwrap_or("pkg-config does not know libdpdk");
        return Err(format!("{said}; {INSTALL}"));
    }
    let answer = String::from_utf8(output.stdout).map_err(|error| format!("pkg-config {question} libdpdk: {error}"))?;
    Ok(answer.split_whitespace().map(str::to_owned).collect())
}
