//! From a guest as nova and libvirt describe it to all that its vhost-user interfaces need, or the reason why not.
//!
//! [`Input`] is what an operator says, from a TOML file, from flags, or as `openstack … show -f json` prints it.
//! [`plan`] judges it by nova's, libvirt's, QEMU's and the switch's own rules ([`Rule`]) and counts what it costs; a
//! [`Plan`] is printed as libvirt's XML, QEMU's arguments, the switch's own records, JSON, or a page to read.
//!
//! Pure: no file, no socket, no question to the machine. What is true of the host comes in as a [`Host`].
//!
//! ```
//! use ringway_plan::{Host, Input, plan};
//!
//! let text = r#"
//! [flavor]
//! vcpus = 4
//! ram = 2048
//! [flavor.properties]
//! "hw:vif_multiqueue_enabled" = "true"
//! "hw:mem_page_size" = "large"
//! [[nic]]
//! name = "vm1"
//! "#;
//! let mut input = Input::from_toml(text, "vm1.toml".as_ref()).unwrap();
//! let made = plan(&input, &Host::default()).unwrap();
//! assert_eq!(made.nics[0].queue_pairs, 4);
//!
//! input.add_image_property("hw_vif_multiqueue_enabled", "false");
//! let refused = plan(&input, &Host::default()).unwrap_err();
//! assert!(refused[0].to_string().starts_with("hw:vif_multiqueue_enabled: "));
//! ```

mod host;
mod input;
mod made;
mod migrate;
mod nova;
mod output;
mod rules;

pub use host::{Host, HugePages, Node, NodePages, SwitchPort};
pub use input::{Input, InputError, Nic, Properties};
pub use made::{Arithmetic, Backing, Cell, Guest, GuestNic, Memory, Need, Plan, Warning};
pub use migrate::migrate;
pub use nova::{Physnet, nova_conf, provider_yaml};
pub use rules::{Refusal, Rule, plan};
