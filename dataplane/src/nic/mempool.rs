//! Mempools: where mbufs come from. A few for each NUMA node, by the room of their mbufs, shared by the ports there: a frame
//! that goes from NIC to NIC keeps its mbuf. Made with room for all ports that the plan names, and never given back.
#![expect(unsafe_code, reason = "DPDK's mempools")]

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;

use dpdk_sys::{
    RTE_PKTMBUF_HEADROOM, rte_mempool, rte_mempool_avail_count, rte_mempool_in_use_count, rte_pktmbuf_alloc_bulk,
    rte_pktmbuf_pool_create,
};

use super::double::Wire;
use super::eal::last_error;
use super::mbuf::Mbufs;

/// Mbufs that a thread keeps to itself at most.
const CACHE: usize = 256;

/// Mbufs that a worker holds beside those in descriptors, for a port: bursts under way, spare ones, and one and a half caches.
const HELD: usize = 128 + CACHE + CACHE / 2;

/// Bytes of an mbuf beside its buffer: the header, what the mempool adds, and what alignment costs.
const OVERHEAD: usize = 128 + 128;

/// What mbufs are taken from.
#[derive(Clone, Debug)]
pub(super) enum Pool {
    /// DPDK's.
    Mempool(Arc<Mempool>),
    /// The heap.
    Double(Arc<Wire>),
}

/// One of DPDK's, which lives until EAL ends.
#[derive(Debug)]
pub(super) struct Mempool {
    raw: NonNull<rte_mempool>,
    room: u32,
}

// SAFETY: DPDK's mempools serve any threads at a time.
unsafe impl Send for Mempool {}
// SAFETY: as above.
unsafe impl Sync for Mempool {}

impl Mempool {
    pub(super) fn as_ptr(&self) -> *mut rte_mempool {
        self.raw.as_ptr()
    }
}

impl Pool {
    /// Bytes that an mbuf of it holds.
    pub(super) fn room(&self) -> u32 {
        match self {
            Self::Mempool(pool) => pool.room,
            Self::Double(wire) => wire.mbuf_room(),
        }
    }

    /// Adds `count` empty mbufs, or none.
    #[inline]
    pub(super) fn alloc<const N: usize>(&self, count: usize, into: &mut Mbufs<N>) -> bool {
        match self {
            Self::Mempool(pool) => {
                // SAFETY: the pool lives; it writes as many pointers as asked for, or says that it cannot.
                let got = unsafe {
                    into.extend(count, |room, want| {
                        let failed = rte_pktmbuf_alloc_bulk(pool.raw.as_ptr(), room, want as u32) != 0;
                        if failed { 0 } else { want }
                    })
                };
                got == count
            }
            Self::Double(wire) => {
                for _ in 0..count {
                    let Some(mbuf) = wire.alloc() else { return false };
                    into.push(mbuf);
                }
                true
            }
        }
    }
}

/// What a port wants of a pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    /// NUMA node; `None` if it does not matter.
    pub(super) node: Option<u32>,
    /// Bytes that one mbuf must hold.
    pub(super) room: u32,
    /// Devices with so many queues each: 1, or the members of a bond.
    pub(super) members: u16,
    pub(super) rx_queues: u16,
    pub(super) rx_descriptors: u16,
    pub(super) tx_queues: u16,
    pub(super) tx_descriptors: u16,
}

impl Need {
    fn mbufs(&self) -> usize {
        let queues = usize::from(self.rx_queues.max(self.tx_queues));
        let descriptors = usize::from(self.rx_queues) * usize::from(self.rx_descriptors)
            + usize::from(self.tx_queues) * usize::from(self.tx_descriptors);
        usize::from(self.members) * descriptors + queues * HELD
    }

    fn arithmetic(&self, ports: usize) -> String {
        let Self { members, rx_queues, rx_descriptors, tx_queues, tx_descriptors, room, .. } = self;
        let (queues, size) = (rx_queues.max(tx_queues), mbuf_size(*room));
        let count = ports * self.mbufs();
        format!(
            "{ports} ports x ({members} devices x ({rx_queues} RX queues x {rx_descriptors} descriptors + {tx_queues} TX \
             queues x {tx_descriptors} descriptors) + {queues} queues x {HELD} held) = {count} mbufs x {size} bytes = {} MiB",
            (count * size).div_ceil(1 << 20)
        )
    }
}

fn mbuf_size(room: u32) -> usize {
    room as usize + RTE_PKTMBUF_HEADROOM as usize + OVERHEAD
}

/// How much of a mempool is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolUse {
    /// Its NUMA node, if it has one.
    pub node: Option<u32>,
    /// Bytes that an mbuf holds.
    pub room: u32,
    /// Mbufs of it, free or not.
    pub mbufs: usize,
    /// Mbufs that are with a NIC or a worker.
    pub in_use: usize,
}

#[derive(Debug)]
struct Shared {
    pool: Arc<Mempool>,
    node: Option<u32>,
    /// Mbufs, and how many of them are spoken for.
    size: usize,
    taken: usize,
}

/// All mempools; on the thread of EAL.
#[derive(Debug)]
pub(super) struct Pools {
    /// Ports that the plan names: the first pool of a kind is made for so many.
    ports: usize,
    shared: Vec<Shared>,
}

impl Pools {
    pub(super) fn new(ports: usize) -> Self {
        Self { ports: ports.max(1), shared: Vec::new() }
    }

    /// A pool with enough mbufs for one more port, and how many are spoken for: to be given back when the port goes.
    pub(super) fn reserve(&mut self, need: &Need) -> Result<(Arc<Mempool>, usize), String> {
        let mbufs = need.mbufs();
        let fits = |shared: &&mut Shared| {
            // SAFETY: the pool lives.
            let there = unsafe { rte_mempool_avail_count(shared.pool.raw.as_ptr()) } as usize;
            // A driver that loses mbufs when it is closed does not tell.
            shared.node == need.node
                && shared.pool.room == need.room
                && (shared.size - shared.taken).min(there) >= mbufs
        };
        if let Some(shared) = self.shared.iter_mut().find(fits) {
            shared.taken += mbufs;
            return Ok((shared.pool.clone(), mbufs));
        }
        // All ports alike is a guess: a port that is larger than the others does not have to be refused for it.
        let all = if self.shared.is_empty() { self.ports } else { 1 };
        let (ports, pool) = match self.create(need, all) {
            Err(_) if all > 1 => (1, self.create(need, 1)?),
            made => (all, made?),
        };
        let pool = Arc::new(pool);
        self.shared.push(Shared { pool: pool.clone(), node: need.node, size: ports * mbufs, taken: mbufs });
        Ok((pool, mbufs))
    }

    pub(super) fn give_back(&mut self, pool: &Arc<Mempool>, mbufs: usize) {
        if let Some(shared) = self.shared.iter_mut().find(|shared| Arc::ptr_eq(&shared.pool, pool)) {
            shared.taken -= mbufs.min(shared.taken);
        }
    }

    /// How much of each is in use.
    pub(super) fn uses(&self) -> Vec<PoolUse> {
        let one = |shared: &Shared| PoolUse {
            node: shared.node,
            room: shared.pool.room,
            mbufs: shared.size,
            // SAFETY: the pool lives as long as EAL.
            in_use: unsafe { rte_mempool_in_use_count(shared.pool.as_ptr()) } as usize,
        };
        self.shared.iter().map(one).collect()
    }

    fn create(&self, need: &Need, ports: usize) -> Result<Mempool, String> {
        let name = CString::new(format!("ringway-{}", self.shared.len())).map_err(|error| error.to_string())?;
        let buffer = u16::try_from(need.room + RTE_PKTMBUF_HEADROOM).map_err(|_| "no mbuf is so large".to_owned())?;
        let node = need.node.map_or(dpdk_sys::SOCKET_ID_ANY, |node| node as i32);
        let mbufs = (ports * need.mbufs()) as u32;
        // SAFETY: EAL runs, and this is its thread.
        let raw = unsafe { rte_pktmbuf_pool_create(name.as_ptr(), mbufs, CACHE as u32, 0, buffer, node) };
        let Some(raw) = NonNull::new(raw) else {
            let place = need.node.map_or(String::new(), |node| format!(" on NUMA node {node}"));
            return Err(format!(
                "no memory for its mbufs{place} ({}): {}; raise `nic_memory_mib` or the number of huge pages, or use fewer \
                 `queues`",
                last_error(),
                need.arithmetic(ports)
            ));
        };
        Ok(Mempool { raw, room: need.room })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arithmetic_is_what_is_asked_for() {
        let need = Need {
            node: None,
            room: 2048,
            members: 2,
            rx_queues: 2,
            rx_descriptors: 1024,
            tx_queues: 4,
            tx_descriptors: 512,
        };
        assert_eq!(need.mbufs(), 2 * (2 * 1024 + 4 * 512) + 4 * HELD);
        let said = need.arithmetic(3);
        let begins =
            "3 ports x (2 devices x (2 RX queues x 1024 descriptors + 4 TX queues x 512 descriptors) + 4 queues x";
        assert!(said.starts_with(begins), "{said}");
        assert!(said.contains(&format!("= {} mbufs", 3 * need.mbufs())), "{said}");
    }
}
