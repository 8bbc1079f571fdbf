//! The device of a port, one ethdev or a bond of several: what it can do, how it is set up, its queues.
#![expect(unsafe_code, reason = "DPDK's calls of control")]

use std::sync::Arc;
use std::time::Instant;

use dpdk_sys::*;

use super::bond::{Bond, Changes};
use super::eal::{Eal, error_text};
use super::ethdev::{Ethdev, failed, static_name};
use super::flow_rule::FlowRules;
use super::mempool::{Mempool, Need, Pool, Pools};
use super::offload::abilities;
use super::port::{Info, MemberState, Port};
use super::queue::{DriverKind, Queue, QueueId, RxQueue, SEGMENTS_MAX, TxQueue};
use super::steering::{Steering, Target};
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

/// The driver of a TAP.
const TAP: &str = "net_tap";

/// A device in use. To be closed, after its queues came back.
#[derive(Debug)]
pub(super) struct Device {
    ethdev: Ethdev,
    bond: Option<Bond>,
    setup: Setup,
    /// Its rules, if it takes any; else why not.
    steering: Result<Steering<FlowRules>, String>,
    pool: Option<(Arc<Mempool>, usize)>,
}

/// What to set up.
#[derive(Debug)]
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
    /// Probes what is behind `port`, sets up as many queues as are wanted and it has, and starts it.
    pub(super) fn open(port: &Port, eal: &mut Eal, pools: &mut Pools, workers: u16) -> Result<Self, String> {
        eal.forget();
        let found = match port.bond {
            Some(mode) => Bond::make(port, mode, eal).map(|(ethdev, bond)| (ethdev, Some(bond))),
            None => Ethdev::probe(port.device()).map(|ethdev| (ethdev, None)),
        };
        let opened = found.and_then(|(ethdev, bond)| {
            let setup = match Self::plan(port, &ethdev, bond.as_ref()) {
                Ok(setup) => setup,
                Err(error) => {
                    ethdev.close();
                    bond.into_iter().for_each(Bond::close);
                    return Err(error);
                }
            };
            let mut device = Self { ethdev, bond, setup, steering: Err(String::new()), pool: None };
            match device.set_up(port, pools, workers) {
                Ok(()) => Ok(device),
                Err(error) => {
                    device.close(pools);
                    Err(error)
                }
            }
        });
        opened.map_err(|error| eal.explain(&error))
    }

    fn set_up(&mut self, port: &Port, pools: &mut Pools, workers: u16) -> Result<(), String> {
        self.configure(port, &self.setup)?;
        let (pool, mbufs) = pools.reserve(&self.setup.need)?;
        self.pool = Some((pool.clone(), mbufs));
        self.set_up_queues(&self.setup, &pool)?;
        self.start(workers)
    }

    /// Starts it, for the first time or after [`Device::stop`].
    pub(super) fn start(&mut self, workers: u16) -> Result<(), String> {
        if let Some(bond) = &self.bond {
            bond.has_memory(self.setup.need.tx_queues, self.setup.need.tx_descriptors)?;
        }
        self.ethdev.start()?;
        self.bond.as_mut().map_or(Ok(()), Bond::started)?;
        let queues = self.setup.need.rx_queues;
        self.steering = if queues > 1 {
            Steering::new(FlowRules { number: self.ethdev.number }, queues, workers)
        } else {
            Err("there is one RX queue".to_owned())
        };
        Ok(())
    }

    /// Whether it takes rules for stations.
    pub(super) fn steers(&self) -> bool {
        self.steering.is_ok()
    }

    /// Leads frames for these stations, and no others, to their workers.
    pub(super) fn steer(&mut self, targets: &[Target], port: &Port) {
        if let Ok(steering) = &mut self.steering {
            steering.follow(targets);
            let (held, refused) = steering.held();
            port.set_flow_rules(held, refused.map(str::to_owned));
        }
    }

    /// Stops it; it stays as it is set up. Its queues have come back.
    pub(super) fn stop(&mut self) {
        if let Ok(steering) = &mut self.steering {
            steering.follow(&[]); // some drivers keep rules over a stop, and some do not
        }
        self.ethdev.stop();
        if let Some(bond) = &mut self.bond {
            bond.stopped();
        }
    }

    /// Its queues, by number. To be asked for once each time that it was started, or its bond changed.
    pub(super) fn queues(&self, port: &Port) -> Vec<Queue> {
        let Setup { need, can, segments_max, kind, .. } = &self.setup;
        let Some((pool, _)) = &self.pool else { return Vec::new() };
        let queue = |index| {
            let rx = (index < need.rx_queues)
                .then(|| RxQueue::ethdev(self.ethdev.number, index, *kind == DriverKind::Virtio));
            let pool = || Pool::Mempool(pool.clone());
            let tx = (index < need.tx_queues)
                .then(|| TxQueue::ethdev(self.ethdev.number, index, pool(), *can, *segments_max, *kind));
            Queue {
                id: QueueId { port: port.id, index },
                bond: self.bond.as_ref().filter(|_| rx.is_some() && tx.is_some()).map(|bond| bond.of_queue(index)),
                rx,
                tx,
                counters: port.counters(index),
                link: port.link.clone(),
                mtu: port.mtu,
                limit_out: None,
            }
        };
        (0..need.rx_queues.max(need.tx_queues)).map(queue).collect()
    }

    /// What to ask of the device, of what it has.
    fn plan(port: &Port, ethdev: &Ethdev, bond: Option<&Bond>) -> Result<Setup, String> {
        let info = ethdev.info()?;
        let wanted = port.queues_wanted();
        let (rx_queues, tx_queues) = (wanted.min(info.max_rx_queues), wanted.min(info.max_tx_queues));
        if rx_queues == 0 || tx_queues == 0 {
            return Err(format!(
                "it has {} RX and {} TX queues, and one of each is the least; give it both",
                info.max_rx_queues, info.max_tx_queues
            ));
        }
        // SAFETY: a C string of the driver's.
        let drivers = bond.map_or_else(|| vec![unsafe { static_name(info.driver_name) }], Bond::drivers);
        let kind = DriverKind::of(&drivers);
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
        let unfit = if drivers.iter().any(|name| name == TAP) { RTE_ETH_TX_OFFLOAD_TCP_TSO } else { 0 };
        let tx_offloads = TX_OFFLOADS & info.tx_offload_capa & !unfit;
        let limit = info.tx_desc_lim.nb_seg_max;
        let segments_max = match (can_gather, limit) {
            (false, _) => 1,
            (true, 0) => SEGMENTS_MAX,
            (true, limit) => SEGMENTS_MAX.min(limit.into()),
        };
        let can = abilities(tx_offloads, is_virtio, room * segments_max as u32);
        let (mut rx_descriptors, mut tx_descriptors) = (DESCRIPTORS, DESCRIPTORS);
        // SAFETY: the port is there; it writes numbers only. What it does not do, the set-up of queues refuses.
        unsafe { rte_eth_dev_adjust_nb_rx_tx_desc(ethdev.number, &mut rx_descriptors, &mut tx_descriptors) };
        let node = bond.map_or(ethdev.node(), Bond::node);
        let members = port.devices.len() as u16;
        let rss = info.flow_type_rss_offloads & (RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP);
        let steering = match (rx_queues, rss) {
            (1, _) => "none",
            (_, 0) => "driver",
            _ => "rss",
        };
        let need = Need { node, room, members, rx_queues, rx_descriptors, tx_queues, tx_descriptors };
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
            |wanted: &rte_eth_conf| unsafe { rte_eth_dev_configure(self.ethdev.number, rx_queues, tx_queues, wanted) };
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
            let set = rte_eth_dev_set_mtu(self.ethdev.number, port.mtu);
            rte_eth_dev_get_mtu(self.ethdev.number, &mut mtu);
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
            let result = unsafe {
                rte_eth_rx_queue_setup(self.ethdev.number, queue, rx_descriptors, node, &wanted, pool.as_ptr())
            };
            if result != 0 {
                return Err(failed(&format!("RX queue {queue} cannot be set up"), result));
            }
        }
        for queue in 0..tx_queues {
            let mut wanted = setup.info.default_txconf;
            wanted.offloads = setup.tx_offloads;
            // SAFETY: as above.
            let result = unsafe { rte_eth_tx_queue_setup(self.ethdev.number, queue, tx_descriptors, node, &wanted) };
            if result != 0 {
                return Err(failed(&format!("TX queue {queue} cannot be set up"), result));
            }
        }
        Ok(())
    }

    /// What it is.
    pub(super) fn info(&self) -> Info {
        let setup = &self.setup;
        let mut mac = rte_ether_addr::default();
        // SAFETY: the port is there; all names are C strings that live for ever.
        let (driver, rx, tx) = unsafe {
            rte_eth_macaddr_get(self.ethdev.number, &mut mac);
            (
                static_name(setup.info.driver_name),
                bits(setup.rx_offloads)
                    .map(|bit| format!("rx {}", static_name(rte_eth_dev_rx_offload_name(bit))))
                    .collect(),
                bits(setup.tx_offloads)
                    .map(|bit| format!("tx {}", static_name(rte_eth_dev_tx_offload_name(bit))))
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
            steering: if self.steers() { "flow_rules" } else { setup.steering },
            flow_rules_refused: self.steering.as_ref().err().cloned(),
            offloads: [rx, tx].concat(),
        }
    }

    /// Looks whether the cable is in, and what of a bond is of use.
    pub(super) fn look_at_link(&self, port: &Port) {
        let (is_up, speed) = self.ethdev.link();
        match &self.bond {
            None => port.link.set(is_up && self.ethdev.interface_is_up(), speed),
            Some(bond) => {
                let members = bond.look();
                port.link.set(is_up && members.iter().any(|member| member.state == MemberState::Active), speed);
                port.set_members(members);
            }
        }
    }

    /// Why it cannot be used any more, if that is so.
    pub(super) fn gone(&self) -> Option<String> {
        match &self.bond {
            None => self.ethdev.gone(),
            Some(bond) => bond.gone(),
        }
    }

    /// What has to be changed of its bond, for which its queues have to come back.
    pub(super) fn changes(&mut self, now: Instant, eal: &mut Eal) -> Changes {
        self.bond.as_mut().map_or_else(Changes::default, |bond| bond.changes(now, eal))
    }

    /// Changes its bond. Its queues have come back.
    pub(super) fn change(&mut self, changes: Changes, eal: &mut Eal) {
        if let Some(bond) = &mut self.bond {
            bond.change(changes, eal);
        }
    }

    /// The driver's own counters.
    pub(super) fn xstats(&self) -> Vec<(String, u64)> {
        self.ethdev.xstats()
    }

    /// Stops and removes it. Its queues must have come back.
    pub(super) fn close(self, pools: &mut Pools) {
        self.ethdev.close();
        self.bond.into_iter().for_each(Bond::close);
        if let Some((pool, mbufs)) = &self.pool {
            pools.give_back(pool, *mbufs);
        }
    }
}

fn bits(of: u64) -> impl Iterator<Item = u64> {
    (0..u64::BITS).map(|bit| 1 << bit).filter(move |bit| of & bit != 0)
}
