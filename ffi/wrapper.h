/*
 * What bindgen reads. `static inline` functions, DPDK's and those at the end, are compiled into
 * callable ones by the build script; no other C is written in this project.
 */
#ifndef DPDK_SYS_WRAPPER_H
#define DPDK_SYS_WRAPPER_H

#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_flow.h>
#include <rte_hash.h>
#include <rte_hash_crc.h>
#include <rte_jhash.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <rte_memory.h>
#include <rte_mempool.h>
#include <rte_version.h>

#include <rte_eth_bond.h>
#include <rte_eth_bond_8023ad.h>

/* `rte_errno` is a macro over a thread-local variable, which bindgen cannot bind. */
static inline int dpdk_sys_errno(void)
{
	return rte_errno;
}

static inline void dpdk_sys_set_errno(int value)
{
	rte_errno = value;
}

#endif
