//! Bindings to the system's DPDK 22.11, generated at build time.
//!
//! What lives here: the functions, types and constants named in `build/allow.rs`, under their C names
//! and with their C meaning, and nothing else. What may not: safe wrappers, ownership, error types,
//! policy of any kind. Those belong to the crate that calls, next to the reasons why a call is sound;
//! a hand-written function here would be one whose contract neither DPDK nor a caller documents.
//!
//! # C that is not a symbol
//!
//! Much of DPDK is `static inline` in its headers, the burst functions included. Each listed one is
//! compiled into a real function, so from Rust it costs a call: cross the boundary once per burst and
//! read mbuf fields through [`rte_mbuf`] in between. `rte_errno`, a macro over a thread-local, is read
//! through [`dpdk_sys_errno`] and written through [`dpdk_sys_set_errno`]; the pair is declared in
//! `wrapper.h`, the only C of the project.
//!
//! # The installed DPDK
//!
//! Anything from 22.11 up to, not including, 23 is accepted: one LTS line, one ABI (`.so.23`). Debian
//! 12 has it in `libdpdk-dev`; `libclang-dev` and `pkg-config` serve the build. Linking is dynamic, and
//! EAL loads drivers from its plugin directory by itself. The C side is built with DPDK's own
//! `-march`, hence for the machine that builds: there is no cross compilation.
//!
//! Debian's build fixes limits that no run-time option lifts, among them
//!
//! | constant | value | what it bounds |
//! |---|---|---|
//! | [`RTE_MAX_ETHPORTS`] | 32 | ports of one process, virtual devices and bonding members included |
//! | [`RTE_MAX_QUEUES_PER_PORT`] | 1024 | queues of one port |
//! | [`RTE_MAX_LCORE`] | 128 | lcores and registered threads together |
//! | [`RTE_MEMPOOL_CACHE_MAX_SIZE`] | 512 | objects in a per-lcore mempool cache |
//!
//! [`rte_dev_dma_map`] and [`rte_dev_dma_unmap`] are marked experimental in 22.11. The mark warns C
//! callers of an unstable ABI; Rust callers get no such warning, so it is repeated here.

mod bindings {
    #![allow(
        clippy::all,
        clippy::ptr_as_ptr,
        clippy::undocumented_unsafe_blocks,
        missing_docs,
        non_camel_case_types,
        non_snake_case,
        non_upper_case_globals,
        unsafe_code,
        reason = "generated from C"
    )]

    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

pub use bindings::*;

// The mbuf is read and written field by field from Rust: exactly two cache lines, or nothing fits.
const _: () = assert!(size_of::<rte_mbuf>() == 128);
const _: () = assert!(align_of::<rte_mbuf>() == 64);
