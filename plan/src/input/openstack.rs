//! What `openstack flavor|image|port show -f json` prints.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Flavor, Image, Input, InputError, Nic, Properties};

#[derive(Deserialize)]
struct FlavorShow {
    name: Option<String>,
    vcpus: i64,
    ram: i64,
    #[serde(default, alias = "extra_specs")]
    properties: Properties,
}

#[derive(Deserialize)]
struct ImageShow {
    name: Option<String>,
    #[serde(rename = "disk_format")]
    _disk_format: Option<String>,
    #[serde(default)]
    properties: Properties,
    // Every image has it, and nothing else that the client shows: a flavor given for an image is noticed.
    #[serde(rename = "min_ram")]
    _min_ram: i64,
}

#[derive(Deserialize)]
struct PortShow {
    id: String,
    name: Option<String>,
    mac_address: String,
    #[serde(alias = "binding:vnic_type")]
    binding_vnic_type: Option<String>,
    // Both are shown to administrators only; to others they are null.
    #[serde(alias = "binding:vif_type")]
    binding_vif_type: Option<String>,
    #[serde(default, alias = "binding:vif_details")]
    binding_vif_details: Properties,
}

impl Input {
    /// Takes a flavor from what `openstack flavor show -f json` printed. Properties that were said before stay.
    ///
    /// # Errors
    /// When it is not that.
    pub fn add_flavor(&mut self, text: &str, file: &Path) -> Result<(), InputError> {
        let shown: FlavorShow = read(text, file, "flavor")?;
        let before = self.flavor.take().unwrap_or_default();
        let mut properties = shown.properties;
        for (key, value) in before.properties.iter() {
            properties.set(key, value);
        }
        self.flavor = Some(Flavor { name: shown.name, vcpus: Some(shown.vcpus), ram: Some(shown.ram), properties });
        Ok(())
    }

    /// Takes an image from what `openstack image show -f json` printed. Properties that were said before stay.
    ///
    /// # Errors
    /// When it is not that.
    pub fn add_image(&mut self, text: &str, file: &Path) -> Result<(), InputError> {
        let shown: ImageShow = read(text, file, "image")?;
        let before = self.image.take().unwrap_or_default();
        let mut properties = shown.properties;
        for (key, value) in before.properties.iter() {
            properties.set(key, value);
        }
        self.image = Some(Image { name: shown.name, properties });
        Ok(())
    }

    /// Adds a NIC from what `openstack port show -f json` printed: named and placed as Neutron's vhost-user drivers do. A port
    /// that is not bound yet, or whose binding is not shown to whoever asked, gets the usual place.
    ///
    /// # Errors
    /// When it is not that, or the port is bound to something else than a vhost-user socket.
    pub fn add_port(&mut self, text: &str, file: &Path) -> Result<(), InputError> {
        let shown: PortShow = read(text, file, "port")?;
        let refuse = |what: String| Err(InputError::whole_file(file, what));
        let is_bound = match shown.binding_vif_type.as_deref() {
            Some("vhostuser") => true,
            // nova binds the port when the server is created.
            None | Some("unbound" | "") => false,
            Some("binding_failed") => {
                return refuse(
                    "binding_vif_type is binding_failed: no mechanism driver of Neutron's took the port on its host; \
                     see neutron-server's log, then openstack port set --host HOST"
                        .to_owned(),
                );
            }
            Some(other) => {
                return refuse(format!(
                    "binding_vif_type is {other}, and Ringway serves vhostuser only; bind the port by a mechanism driver \
                     that answers vhostuser on this host"
                ));
            }
        };
        if let Some(other) = shown.binding_vnic_type.as_deref().filter(|&vnic| !is_bound && vnic != "normal") {
            return refuse(format!(
                "binding_vnic_type is {other}, which will not be bound to a vhost-user socket; \
                 openstack port set --vnic-type normal"
            ));
        }
        let details = &shown.binding_vif_details;
        let id: String = shown.id.chars().take(11).collect();
        let name = format!("vhu{id}");
        let socket = match details.get("vhostuser_socket") {
            Some(path) => PathBuf::from(path),
            None if is_bound => {
                return refuse(
                    "binding_vif_details has no vhostuser_socket, and nova refuses such a port \
                     (VifDetailsMissingVhostuserSockPath); set vhostuser_socket_dir for the mechanism driver"
                        .to_owned(),
                );
            }
            None => Path::new("/var/lib/vhost_sockets").join(&name),
        };
        // Neutron says which end QEMU is; the switch is the other one.
        let mode = match details.get("vhostuser_mode") {
            None | Some("server") => "client",
            Some("client") => "server",
            Some(other) => {
                return refuse(format!("vhostuser_mode is {other}; Neutron knows server and client"));
            }
        };
        self.add_nic(Nic {
            name,
            socket: Some(socket),
            mode: Some(mode.to_owned()),
            mac: Some(shown.mac_address),
            also: [Some(shown.id), shown.name].into_iter().flatten().filter(|name| !name.is_empty()).collect(),
            is_unbound: !is_bound,
            ..Nic::default()
        });
        Ok(())
    }
}

fn read<T: DeserializeOwned>(text: &str, file: &Path, what: &str) -> Result<T, InputError> {
    let mend = format!("give it what `openstack {what} show -f json` prints");
    // A list would be read as fields in their order.
    if text.trim_start().starts_with('[') {
        return Err(InputError::at_line(file, 1, format!("no {what}: this is a list; {mend}")));
    }
    serde_json::from_str(text).map_err(|error| {
        let said = error.to_string();
        let said = said.split(" at line ").next().unwrap_or_default();
        InputError::at_line(file, error.line().max(1), format!("no {what}: {said}; {mend}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAVOR: &str = r#"{
        "OS-FLV-DISABLED:disabled": false, "OS-FLV-EXT-DATA:ephemeral": 0, "access_project_ids": null,
        "description": null, "disk": 20, "id": "4", "name": "net.large", "os-flavor-access:is_public": true,
        "properties": {"hw:vif_multiqueue_enabled": "true", "hw:mem_page_size": "large"},
        "ram": 4096, "rxtx_factor": 1.0, "swap": 0, "vcpus": 4
    }"#;
    const IMAGE: &str = r#"{
        "checksum": "a", "container_format": "bare", "disk_format": "qcow2", "id": "i", "min_disk": 0, "min_ram": 0,
        "name": "debian-12", "status": "active", "tags": [],
        "properties": {"hw_virtio_packed_ring": "true", "os_hash_algo": "sha512", "os_hidden": false, "stores": ["a"],
                       "locations": [{"url": "x"}]}
    }"#;
    const PORT: &str = r#"{
        "admin_state_up": true, "binding_host_id": "c1", "binding_vif_type": "vhostuser",
        "binding_vif_details": {"vhostuser_mode": "server", "port_filter": false,
                                "vhostuser_socket": "/var/lib/vhost_sockets/vhu01234567-89"},
        "id": "01234567-89ab-cdef-0123-456789abcdef", "mac_address": "fa:16:3e:00:00:01", "name": ""
    }"#;

    fn line(result: Result<(), InputError>) -> String {
        let said = result.unwrap_err().to_string();
        assert_eq!(said.lines().count(), 1);
        said
    }

    #[test]
    fn flavor_image_and_port_are_read_as_the_client_prints_them() {
        let mut input = Input::default();
        input.add_flavor_property("hw:virtio_packed_ring", "true");
        input.add_flavor(FLAVOR, Path::new("f")).unwrap();
        input.add_image(IMAGE, Path::new("i")).unwrap();
        input.add_port(PORT, Path::new("p")).unwrap();
        let flavor = input.flavor.unwrap();
        assert_eq!((flavor.vcpus, flavor.ram), (Some(4), Some(4096)));
        assert_eq!(flavor.properties.get("hw:virtio_packed_ring"), Some("true"));
        assert_eq!(flavor.properties.get("hw:mem_page_size"), Some("large"));
        let properties = input.image.unwrap().properties;
        assert_eq!(properties.get("os_hidden"), Some("false"));
        assert_eq!(properties.get("stores"), None);
        let nic = &input.nic[0];
        assert_eq!(nic.name, "vhu01234567-89");
        assert_eq!(nic.socket.as_deref(), Some(Path::new("/var/lib/vhost_sockets/vhu01234567-89")));
        assert_eq!((nic.mode.as_deref(), nic.mac.as_deref()), (Some("client"), Some("fa:16:3e:00:00:01")));
    }

    /// As nova finds it, and as a user who is no administrator sees it.
    #[test]
    fn a_port_without_a_server_has_the_usual_place() {
        let id = r#""id": "01234567-89ab-cdef-0123-456789abcdef", "mac_address": "fa:16:3e:00:00:01", "name": "web1""#;
        for binding in [
            r#""binding_vif_type": "unbound", "binding_vif_details": {}, "binding_vnic_type": "normal""#,
            r#""binding_vif_type": null, "binding_vif_details": null, "binding_vnic_type": "normal", "binding_profile": null"#,
            r#""binding_vif_type": "", "binding_vif_details": """#,
            r#""description": null"#,
        ] {
            let mut input = Input::default();
            input.add_port(&format!("{{{id}, {binding}}}"), Path::new("p")).unwrap();
            let nic = &input.nic[0];
            assert!(nic.is_unbound, "{binding}");
            assert_eq!(nic.socket.as_deref(), Some(Path::new("/var/lib/vhost_sockets/vhu01234567-89")));
            assert_eq!((nic.mode.as_deref(), nic.mac.as_deref()), (Some("client"), Some("fa:16:3e:00:00:01")));
            input.add_nic(Nic { name: "web1".to_owned(), queues: Some(2), ..Nic::default() });
            assert_eq!((input.nic.len(), input.nic[0].queues), (1, Some(2)));
            // Bound in the meantime: what Neutron says now holds.
            input.add_port(PORT, Path::new("p")).unwrap();
            assert!(input.nic.len() == 1 && !input.nic[0].is_unbound);
        }
    }

    #[test]
    fn what_is_something_else_is_refused_in_a_line() {
        let mut input = Input::default();
        assert_eq!(
            line(input.add_flavor("{\n\"vcpus\": \"4\"}", Path::new("f.json"))),
            "f.json:2: no flavor: invalid type: string \"4\", expected i64; give it what `openstack flavor show -f json` prints"
        );
        assert!(line(input.add_image(FLAVOR, Path::new("f"))).contains("missing field `min_ram`"));
        assert!(
            line(input.add_port(&format!(" [{PORT}]"), Path::new("p"))).starts_with("p:1: no port: this is a list; ")
        );
        assert!(line(input.add_flavor("", Path::new("f"))).starts_with("f:1: no flavor: EOF"));
        assert!(line(input.add_port(&PORT.replace("\"vhostuser\"", "\"ovs\""), Path::new("p"))).contains("is ovs"));
        let failed = PORT.replace("\"vhostuser\"", "\"binding_failed\"");
        assert!(line(input.add_port(&failed, Path::new("p"))).contains("neutron-server's log"));
        let direct = PORT.replace("\"vhostuser\"", "\"unbound\", \"binding_vnic_type\": \"direct\"");
        assert!(line(input.add_port(&direct, Path::new("p"))).contains("--vnic-type normal"));
        assert!(
            line(input.add_port(&PORT.replace("vhostuser_socket\"", "x\""), Path::new("p")))
                .contains("VifDetailsMissingVhostuserSockPath")
        );
        assert!(line(input.add_port(&PORT.replace("\"server\"", "\"both\""), Path::new("p"))).contains("both"));
        assert_eq!(input, Input::default());
    }
}
