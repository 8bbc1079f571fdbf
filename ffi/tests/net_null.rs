//! One burst through two null ports, one given on EAL's command line and one plugged in later.
//!
//! The lengths, counters and pool levels checked here come from C and are read through the generated
//! structs, so a wrong layout or a wrapper bound to the wrong function shows. EAL starts once per
//! process: this file has one test.

#![expect(unsafe_code, reason = "calls the bindings")]
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr::{null, null_mut};

use dpdk_sys::*;

const BURST: usize = 32;
const FRAME: u32 = 200;
/// One less than a power of two, which is what a mempool's ring holds.
const POOL: u32 = 1023;

/// Queue setup takes the node unsigned.
const ANY_NODE: u32 = SOCKET_ID_ANY as u32;

#[test]
fn a_burst_crosses_two_null_ports_and_every_mbuf_returns() {
    let _directory = start_eal();

    // SAFETY: EAL is up; the names are C strings that outlive the calls.
    let (pool, twin) = unsafe {
        let room = RTE_MBUF_DEFAULT_BUF_SIZE as u16;
        let create = || rte_pktmbuf_pool_create(c"pool".as_ptr(), POOL, 64, 0, room, SOCKET_ID_ANY);
        (create(), create())
    };
    assert!(!pool.is_null(), "{}", last_error());
    assert!(twin.is_null(), "two pools of one name");
    assert_eq!(errno(), 17, "EEXIST, read through the wrapper of rte_errno");

    let arguments = CString::new(format!("size={FRAME}")).unwrap();
    // SAFETY: EAL is up; all three are C strings.
    let plugged = unsafe { rte_eal_hotplug_add(c"vdev".as_ptr(), c"net_null1".as_ptr(), arguments.as_ptr()) };
    assert_eq!(plugged, 0);
    // SAFETY: EAL is up.
    assert_eq!(unsafe { rte_eth_dev_count_avail() }, 2);
    let from = start_port(c"net_null0", pool);
    let to = start_port(c"net_null1", pool);
    assert_ne!(from, to);
    assert_eq!(level(pool), (POOL, 0), "the ports took mbufs while idle");

    let mut burst = [null_mut::<rte_mbuf>(); BURST];
    // SAFETY: the port is started, its queue 0 is polled by this thread only, and `burst` has room.
    let received = unsafe { rte_eth_rx_burst(from, 0, burst.as_mut_ptr(), BURST as u16) };
    assert_eq!(usize::from(received), BURST);
    assert_eq!(level(pool), (POOL - BURST as u32, BURST as u32));
    for &mbuf in &burst {
        // SAFETY: a received mbuf is ours until it is sent or freed.
        let mbuf = unsafe { &*mbuf };
        assert_eq!(mbuf.pool, pool);
        assert_eq!((mbuf.pkt_len, u32::from(mbuf.data_len)), (FRAME, FRAME));
        assert_eq!((mbuf.port, mbuf.nb_segs, mbuf.refcnt), (from, 1, 1));
        assert_eq!(u32::from(mbuf.data_off), RTE_PKTMBUF_HEADROOM);
    }

    // SAFETY: as for the reception; the mbufs pass to the driver, which frees what it accepts.
    let sent = unsafe { rte_eth_tx_burst(to, 0, burst.as_mut_ptr(), received) };
    assert_eq!(sent, received);
    assert_eq!(level(pool), (POOL, 0), "a sent mbuf did not return");

    let (seen, given) = (stats(from), stats(to));
    assert_eq!((seen.ipackets, seen.opackets), (BURST as u64, 0));
    assert_eq!((given.ipackets, given.opackets), (0, BURST as u64));
    // The driver counts no bytes; its per-queue counters lie further into the struct.
    assert_eq!((seen.q_ipackets[0], given.q_opackets[0]), (BURST as u64, BURST as u64));
    assert_eq!((seen.rx_nombuf, given.oerrors), (0, 0));

    // SAFETY: no other thread uses the ports; the pool is full again, so nothing points into it.
    unsafe {
        for port in [from, to] {
            assert_eq!(rte_eth_dev_stop(port), 0);
            assert_eq!(rte_eth_dev_close(port), 0);
        }
        assert_eq!(rte_eth_dev_count_avail(), 0);
        rte_mempool_free(pool);
        assert_eq!(rte_eal_cleanup(), 0);
    }
}

/// EAL without huge pages or devices, on one CPU this process may use. It makes one directory, named
/// after this process: `--in-memory`, which would make none, excludes `--no-huge`.
fn start_eal() -> RuntimeDirectory {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let cpus = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    let cpu = cpus.split([',', '-']).next().unwrap();
    let arguments: Vec<*mut c_char> = [
        "net_null",
        "--no-huge",
        "--no-shconf",
        "--file-prefix",
        &format!("dpdk-sys-{}", std::process::id()),
        "-m",
        "256",
        "--no-pci",
        "--no-telemetry",
        "--lcores",
        &format!("0@{cpu}"),
        "--vdev",
        &format!("net_null0,size={FRAME}"),
    ]
    .into_iter()
    // EAL may keep pointers into its arguments.
    .map(|argument| CString::new(argument).unwrap().into_raw())
    .collect();
    let mut argv = arguments.clone();
    // SAFETY: `argv` holds as many C strings as told, none ever freed.
    let parsed = unsafe { rte_eal_init(arguments.len() as c_int, argv.as_mut_ptr()) };
    assert!(parsed >= 0, "{}", last_error());
    // SAFETY: EAL is up.
    assert_eq!(unsafe { rte_lcore_id() }, 0, "EAL runs on the lcore it was given");
    // SAFETY: as above; the answer is a C string.
    RuntimeDirectory(unsafe { CStr::from_ptr(rte_eal_get_runtime_dir()) }.to_str().unwrap().to_owned())
}

/// EAL's directory, which outlives `rte_eal_cleanup`.
struct RuntimeDirectory(String);

impl Drop for RuntimeDirectory {
    fn drop(&mut self) {
        // It refuses to remove a directory that holds anything, which would be worth a look.
        if let Err(error) = std::fs::remove_dir(&self.0) {
            eprintln!("{}: {error}", self.0);
        }
    }
}

/// Configures one queue each way and starts the port.
fn start_port(name: &CStr, pool: *mut rte_mempool) -> u16 {
    let mut port = u16::MAX;
    let mut info = rte_eth_dev_info::default();
    let configuration = rte_eth_conf::default();
    // SAFETY: every pointer is to a live local or to the pool; null asks for the driver's defaults.
    unsafe {
        assert_eq!(rte_eth_dev_get_port_by_name(name.as_ptr(), &mut port), 0, "{name:?}");
        assert_eq!(rte_eth_dev_info_get(port, &mut info), 0);
        assert_eq!(CStr::from_ptr(info.driver_name), c"net_null");
        assert_eq!(rte_eth_dev_configure(port, 1, 1, &configuration), 0);
        assert_eq!(rte_eth_rx_queue_setup(port, 0, 256, ANY_NODE, null(), pool), 0);
        assert_eq!(rte_eth_tx_queue_setup(port, 0, 256, ANY_NODE, null()), 0);
        assert_eq!(rte_eth_dev_start(port), 0);
    }
    port
}

/// Mbufs in the pool and mbufs out of it; what sits in a per-lcore cache counts as in.
fn level(pool: *const rte_mempool) -> (u32, u32) {
    // SAFETY: the pool is live.
    unsafe { (rte_mempool_avail_count(pool), rte_mempool_in_use_count(pool)) }
}

fn stats(port: u16) -> rte_eth_stats {
    let mut stats = rte_eth_stats::default();
    // SAFETY: `stats` is a live local.
    assert_eq!(unsafe { rte_eth_stats_get(port, &mut stats) }, 0);
    stats
}

fn errno() -> c_int {
    // SAFETY: reads a thread-local integer.
    unsafe { dpdk_sys_errno() }
}

fn last_error() -> String {
    // SAFETY: the text is the thread's own until its next call.
    unsafe { CStr::from_ptr(rte_strerror(errno())) }.to_string_lossy().into_owned()
}
