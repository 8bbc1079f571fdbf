//! One ethdev, from its probe to its removal: what it can do, how it is set up, whether it is still there.
#![expect(unsafe_code, reason = "DPDK's calls of control")]

use std::ffi::{CStr, CString};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use dpdk_sys::*;

use super::eal::{Eal, error_text, last_error};
use super::mempool::{Mempool, Need, Pool, Pools};
use super::offload::abilities;
use super::port::{Info, Port};
use super::queue::{DriverKind, Queue, QueueId, RxQueue, SEGMENTS_MAX, TxQueue};
use crate::packet::{Abilities, ETHERNET_HEADER_LEN};

/// Descriptors of a queue, as far as the device allows.
const DESCRIPTORS: u16 = 1024;

/// Room of an mbuf: a frame of the usual MTU, in half a page.
const ROOM: u32 = RTE_MBUF_DEFAULT_DATAROOM;

/// Two tags, which no MTU counts.
const TAGS_LEN: u32 = 8;

/// What is asked of a device that has it. Of frames that come in, that checksums are checked;
const RX_OFFLOADS: u64 = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM | RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
/// of those that go out, that checksums are filled in and segments made.
const TX_OFFLOADS: u64 = RTE_ETH_TX_OFFLOAD_IPV4_CKSUM
    | RTE_ETH_TX_OFFLOAD_UDP_CKSUM
    | RTE_ETH_TX_OFFLOAD_TCP_CKSUM
    | RTE_ETH_TX_OFFLOAD_TCP_TSO
    | RTE_ETH_TX_OFFLOAD_MULTI_SEGS;

/// The driver that passes on what a peer on the same machine leaves undone: large frames of it never were small ones.
const VIRTIO: &CStr = c"net_virtio";

/// The driver of a TAP.
const TAP: &[u8] = b"net_tap";

/// An ethdev in use. To be closed, after its queues came back.
#[derive(Debug)]
pub(super) struct Device {
    number: u16,
    raw: *mut rte_device,
    /// The kernel's interface behind it, if it is named in the device's arguments, and its number there.
    interface: Option<(String, Option<u32>)>,
    pool: Option<(Arc<Mempool>, usize)>,
    is_started: bool,
}

/// What to set up.
struct Setup {
    info: rte_eth_dev_info,
    need: Need,
    rx_offloads: u64,
    tx_offloads: u64,
    can: Abilities,
    segments_max: usize,
    kind: DriverKind,
    steering: &'static str,
    rss: u64,
}

impl Device {
    /// Probes the device of `port`, sets up as many queues as are wanted and it has, and starts it. What is of use
    /// of it: its queues, by worker, and what it is.
    pub(super) fn open(port: &Port, eal: &mut Eal, pools: &mut Pools) -> Result<(Self, Vec<Queue>, Info), String> {
        eal.forget();
        let opened = Self::probe(&port.device).and_then(|mut device| match device.set_up(port, pools) {
            Ok((queues, info)) => Ok((device, queues, info)),
            Err(error) => {
                device.close(pools);
                Err(error)
            }
        });
        opened.map_err(|error| eal.explain(&error))
    }

    fn probe(device: &str) -> Result<Self, String> {
        let name = device.split(',').next().unwrap_or_default();
        let text = |text: &str| CString::new(text).map_err(|error| error.to_string());
        let (arguments, c_name) = (text(device)?, text(name)?);
        // SAFETY: EAL runs, this is its thread, and both are C strings.
        unsafe {
            let failed = rte_dev_probe(arguments.as_ptr());
            if failed != 0 {
                return Err(format!("no device {name}: {}", probe_error(failed)));
            }
            let mut number = u16::MAX;
            let mut info = rte_eth_dev_info::default();
            if rte_eth_dev_get_port_by_name(c_name.as_ptr(), &mut number) != 0
                || rte_eth_dev_info_get(number, &mut info) != 0
            {
                return Err(format!("device {name} is no NIC"));
            }
            let interface = device.split(',').find_map(|argument| argument.strip_prefix("iface="));
            let interface = interface.map(|name| (name.to_owned(), interface_number(name)));
            Ok(Self { number, raw: info.device, interface, pool: None, is_started: false })
        }
    }

    fn set_up(&mut self, port: &Port, pools: &mut Pools) -> Result<(Vec<Queue>, Info), String> {
        let setup = self.plan(port)?;
        let Setup { need, .. } = setup;
        self.configure(port, &setup)?;
        let (pool, mbufs) = pools.reserve(&need)?;
        self.pool = Some((pool.clone(), mbufs));
        self.set_up_queues(&setup, &pool)?;
        let check = |what: &str, result: i32| if result < 0 { Err(failed(what, result)) } else { Ok(()) };
        // SAFETY: the port is configured, and this is the thread of EAL.
        unsafe {
            check("does not start", rte_eth_dev_start(self.number))?;
            self.is_started = true;
            // A bridge hears everything. Devices that always do need not know these calls.
            hears_all(port, "unicast to others", rte_eth_promiscuous_enable(self.number));
            hears_all(port, "all multicast", rte_eth_allmulticast_enable(self.number));
        }
        let queues = (0..need.rx_queues.max(need.tx_queues)).filter_map(|index| {
            let rx =
                (index < need.rx_queues).then(|| RxQueue::ethdev(self.number, index, setup.kind == DriverKind::Virtio));
            let pool = || Pool::Mempool(pool.clone());
            let tx = (index < need.tx_queues)
                .then(|| TxQueue::ethdev(self.number, index, pool(), setup.can, setup.segments_max, setup.kind));
            let (id, counters) = (QueueId { port: port.id, index }, port.counters(index));
            (rx.is_some() || tx.is_some()).then(|| Queue {
                id,
                rx,
                tx,
                counters,
                link: port.link.clone(),
                mtu: port.mtu,
                limit_out: None,
            })
        });
        Ok((queues.collect(), self.describe(&setup)))
    }

    /// What to ask of the device, of what it has.
    fn plan(&self, port: &Port) -> Result<Setup, String> {
        let mut info = rte_eth_dev_info::default();
        // SAFETY: the port is there, and `info` ours.
        let failed = unsafe { rte_eth_dev_info_get(self.number, &mut info) };
        if failed != 0 {
            return Err(self::failed("does not say what it can", failed));
        }
        let wanted = port.queues_wanted();
        let (rx_queues, tx_queues) = (wanted.min(info.max_rx_queues), wanted.min(info.max_tx_queues));
        if rx_queues == 0 || tx_queues == 0 {
            return Err(format!(
                "it has {} RX and {} TX queues, and one of each is the least; give it both",
                info.max_rx_queues, info.max_tx_queues
            ));
        }
        // SAFETY: a C string of the driver's.
        let driver = if info.driver_name.is_null() { c"" } else { unsafe { CStr::from_ptr(info.driver_name) } };
        let kind = match driver.to_bytes() {
            name if name.starts_with(VIRTIO.to_bytes()) => DriverKind::Virtio,
            b"net_af_packet" | b"net_af_xdp" | TAP => DriverKind::Kernel,
            _ => DriverKind::Other,
        };
        let is_virtio = kind == DriverKind::Virtio;
        let frame = u32::from(port.mtu) + ETHERNET_HEADER_LEN as u32 + TAGS_LEN;
        let can_scatter = info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_SCATTER != 0;
        let can_gather = info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MULTI_SEGS != 0;
        let room = if frame > ROOM && !(can_scatter && can_gather) { frame.next_multiple_of(64) } else { ROOM };
        let mut rx_offloads = RX_OFFLOADS;
        if frame > room || is_virtio {
            rx_offloads |= RTE_ETH_RX_OFFLOAD_SCATTER;
        }
        if is_virtio {
            rx_offloads |= RTE_ETH_RX_OFFLOAD_TCP_LRO;
        }
        let rx_offloads = rx_offloads & info.rx_offload_capa;
        // A TAP counts the headers of a segment against the MTU, and so refuses those of full size.
        let unfit = if driver.to_bytes() == TAP { RTE_ETH_TX_OFFLOAD_TCP_TSO } else { 0 };
        let tx_offloads = TX_OFFLOADS & info.tx_offload_capa & !unfit;
        let limit = info.tx_desc_lim.nb_seg_max;
        let segments_max = match (can_gather, limit) {
            (false, _) => 1,
            (true, 0) => SEGMENTS_MAX,
            (true, limit) => SEGMENTS_MAX.min(limit.into()),
        };
        let can = abilities(tx_offloads, is_virtio, room * segments_max as u32);
        let (mut rx_descriptors, mut tx_descriptors) = (DESCRIPTORS, DESCRIPTORS);
        // SAFETY: as above; it writes numbers only. What it does not do, the set-up of queues refuses.
        unsafe { rte_eth_dev_adjust_nb_rx_tx_desc(self.number, &mut rx_descriptors, &mut tx_descriptors) };
        // SAFETY: as above.
        let node = u32::try_from(unsafe { rte_eth_dev_socket_id(self.number) }).ok();
        let rss = info.flow_type_rss_offloads & (RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP);
        let steering = match (rx_queues, rss) {
            (1, _) => "none",
            (_, 0) => "driver",
            _ => "rss",
        };
        let need = Need { node, room, rx_queues, rx_descriptors, tx_queues, tx_descriptors };
        Ok(Setup { info, need, rx_offloads, tx_offloads, can, segments_max, kind, steering, rss })
    }

    fn configure(&self, port: &Port, setup: &Setup) -> Result<(), String> {
        let mut wanted = rte_eth_conf::default();
        wanted.rxmode.offloads = setup.rx_offloads;
        wanted.txmode.offloads = setup.tx_offloads;
        if setup.steering == "rss" {
            wanted.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
            wanted.rx_adv_conf.rss_conf.rss_hf = setup.rss;
        }
        let Need { rx_queues, tx_queues, .. } = setup.need;
        // SAFETY: the port is there, `wanted` ours.
        let configure =
            |wanted: &rte_eth_conf| unsafe { rte_eth_dev_configure(self.number, rx_queues, tx_queues, wanted) };
        wanted.rxmode.mtu = port.mtu.into();
        let mut result = configure(&wanted);
        if result != 0 {
            // Some drivers do not know how long their frames may be until their interface was asked.
            wanted.rxmode.mtu = 0;
            result = configure(&wanted);
        }
        if result != 0 {
            return Err(failed("cannot be set up", result));
        }
        let mut mtu = 0;
        // SAFETY: as above.
        unsafe {
            let set = rte_eth_dev_set_mtu(self.number, port.mtu);
            rte_eth_dev_get_mtu(self.number, &mut mtu);
            if set != 0 && mtu < port.mtu {
                return Err(format!(
                    "does not take an MTU of {} bytes ({}); write `mtu = {mtu}`, or give the device larger frames",
                    port.mtu,
                    error_text(set)
                ));
            }
        }
        Ok(())
    }

    fn set_up_queues(&self, setup: &Setup, pool: &Mempool) -> Result<(), String> {
        let Need { node, rx_queues, rx_descriptors, tx_queues, tx_descriptors, .. } = setup.need;
        let node = node.unwrap_or(SOCKET_ID_ANY as u32);
        for queue in 0..rx_queues {
            let mut wanted = setup.info.default_rxconf;
            wanted.offloads = setup.rx_offloads;
            // SAFETY: configured, `wanted` ours, and the pool lives as long as EAL.
            let result =
                unsafe { rte_eth_rx_queue_setup(self.number, queue, rx_descriptors, node, &wanted, pool.as_ptr()) };
            if result != 0 {
                return Err(failed(&format!("RX queue {queue} cannot be set up"), result));
            }
        }
        for queue in 0..tx_queues {
            let mut wanted = setup.info.default_txconf;
            wanted.offloads = setup.tx_offloads;
            // SAFETY: as above.
            let result = unsafe { rte_eth_tx_queue_setup(self.number, queue, tx_descriptors, node, &wanted) };
            if result != 0 {
                return Err(failed(&format!("TX queue {queue} cannot be set up"), result));
            }
        }
        Ok(())
    }

    fn describe(&self, setup: &Setup) -> Info {
        let mut mac = rte_ether_addr::default();
        // SAFETY: the port is there; all names are C strings that live for ever.
        let (driver, rx, tx) = unsafe {
            rte_eth_macaddr_get(self.number, &mut mac);
            let name = |name: *const std::ffi::c_char| {
                if name.is_null() { String::new() } else { CStr::from_ptr(name).to_string_lossy().into_owned() }
            };
            (
                name(setup.info.driver_name),
                bits(setup.rx_offloads).map(|bit| format!("rx {}", name(rte_eth_dev_rx_offload_name(bit)))).collect(),
                bits(setup.tx_offloads)
                    .map(|bit| format!("tx {}", name(rte_eth_dev_tx_offload_name(bit))))
                    .collect::<Vec<_>>(),
            )
        };
        let Need { node, rx_queues, rx_descriptors, tx_queues, tx_descriptors, .. } = setup.need;
        let [a, b, c, d, e, f] = mac.addr_bytes;
        Info {
            driver,
            mac: format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"),
            node,
            rx_queues,
            tx_queues,
            rx_descriptors,
            tx_descriptors,
            steering: setup.steering,
            offloads: [rx, tx].concat(),
        }
    }

    /// Looks whether the cable is in.
    pub(super) fn look_at_link(&self, port: &Port) {
        let mut link = rte_eth_link::default();
        // SAFETY: the port is there, `link` ours.
        let known = unsafe { rte_eth_link_get_nowait(self.number, &mut link) } == 0;
        port.link.set(known && link.link_status() != 0 && self.interface_is_up(), link.link_speed);
    }

    /// Drivers that look at their interface only when they start see nothing of this.
    fn interface_is_up(&self) -> bool {
        let Some((name, _)) = &self.interface else { return true };
        let state = fs::read_to_string(Path::new("/sys/class/net").join(name).join("operstate"));
        !matches!(state.as_deref().map(str::trim), Ok("down" | "lowerlayerdown" | "notpresent"))
    }

    /// Why it cannot be used any more, if that is so.
    pub(super) fn gone(&self) -> Option<String> {
        // SAFETY: the port is there.
        if unsafe { rte_eth_dev_is_removed(self.number) } == 1 {
            return Some("the device was removed; it is looked for again every second".to_owned());
        }
        let (name, number) = self.interface.as_ref()?;
        let is_same = number.is_none() || interface_number(name) == *number;
        (!is_same).then(|| format!("interface {name} is gone; it is looked for again every second"))
    }

    /// The driver's own counters.
    pub(super) fn xstats(&self) -> Vec<(String, u64)> {
        // SAFETY: the port is there; both arrays have as many places as said.
        unsafe {
            let count = rte_eth_xstats_get_names(self.number, std::ptr::null_mut(), 0).max(0) as usize;
            let mut names = vec![rte_eth_xstat_name { name: [0; 64] }; count];
            let mut values = vec![rte_eth_xstat { id: 0, value: 0 }; count];
            let named = rte_eth_xstats_get_names(self.number, names.as_mut_ptr(), count as u32);
            let valued = rte_eth_xstats_get(self.number, values.as_mut_ptr(), count as u32);
            if named != count as i32 || valued != count as i32 {
                return Vec::new();
            }
            let text = |name: &rte_eth_xstat_name| {
                name.name.iter().take_while(|&&c| c != 0).map(|&c| char::from(c as u8)).collect::<String>()
            };
            let value = |value: &rte_eth_xstat| Some((text(names.get(value.id as usize)?), value.value));
            values.iter().filter_map(value).collect()
        }
    }

    /// Stops and removes it. Its queues must have come back.
    pub(super) fn close(self, pools: &mut Pools) {
        // SAFETY: the port is there, nobody polls it, and this is the thread of EAL.
        unsafe {
            if self.is_started {
                rte_eth_dev_stop(self.number);
            }
            rte_eth_dev_close(self.number);
            rte_dev_remove(self.raw);
        }
        if let Some((pool, mbufs)) = &self.pool {
            pools.give_back(pool, *mbufs);
        }
    }
}

/// Says so if it does not.
fn hears_all(port: &Port, what: &str, result: i32) {
    if result != 0 && result != -libc::ENOTSUP {
        let why = error_text(result);
        tracing::warn!(
            "port {}: the device will not hear {what} ({why}); a virtual function has to be trusted",
            port.name
        );
    }
}

fn failed(what: &str, error: i32) -> String {
    format!("{what}: {}", error_text(error))
}

fn probe_error(error: i32) -> String {
    // SAFETY: counts ports.
    if unsafe { rte_eth_dev_count_avail() } as u32 >= RTE_MAX_ETHPORTS {
        return format!("this build of DPDK holds {RTE_MAX_ETHPORTS} NICs, and there are as many; remove a port");
    }
    if error == -1 { last_error() } else { error_text(error) }
}

fn bits(of: u64) -> impl Iterator<Item = u64> {
    (0..u64::BITS).map(|bit| 1 << bit).filter(move |bit| of & bit != 0)
}

/// The kernel's number of an interface, which no other has after it.
fn interface_number(name: &str) -> Option<u32> {
    fs::read_to_string(Path::new("/sys/class/net").join(name).join("ifindex")).ok()?.trim().parse().ok()
}
