//! The switch's own records.

use std::path::Path;

use serde::Serialize;

use crate::{GuestNic, Plan};

#[derive(Serialize)]
struct Records<'a> {
    port: Vec<Record<'a>>,
}

/// As `ringway-config` reads it; what is the default there is left out.
#[derive(Serialize)]
struct Record<'a> {
    name: &'a str,
    kind: &'static str,
    bridge: &'a str,
    socket: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u16>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    mask_features: &'a [String],
}

impl Plan {
    /// A `[[port]]` record for each NIC, to append to the switch's configuration.
    pub fn config(&self) -> String {
        let port = self.nics.iter().map(record).collect();
        // Strings and numbers in tables: there is nothing that TOML could not hold.
        toml::to_string(&Records { port }).unwrap_or_default()
    }
}

fn record(nic: &GuestNic) -> Record<'_> {
    Record {
        name: &nic.name,
        kind: "vhost-user",
        bridge: &nic.bridge,
        socket: &nic.socket,
        mode: (!nic.qemu_listens).then_some("server"),
        mtu: nic.mtu,
        mask_features: &nic.mask_features,
    }
}
