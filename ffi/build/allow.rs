//! What is bound. A type that a listed function or type mentions comes along by itself.
//!
//! Functions are named one by one, so that this list is the whole surface the project may call.

/// Functions, by exact name.
pub(crate) const FUNCTIONS: &[&str] = &[
    // wrapper.h
    "dpdk_sys_errno",
    "dpdk_sys_set_errno",
    // EAL
    "rte_eal_cleanup",
    "rte_eal_get_runtime_dir",
    "rte_eal_has_hugepages",
    "rte_eal_has_pci",
    "rte_eal_init",
    "rte_eal_iova_mode",
    "rte_log_set_global_level",
    "rte_log_set_level_pattern",
    "rte_openlog_stream",
    "rte_strerror",
    "rte_version",
    // Threads, cores, NUMA nodes
    "rte_get_main_lcore",
    "rte_lcore_count",
    "rte_lcore_id",
    "rte_lcore_to_cpu_id",
    "rte_lcore_to_socket_id",
    "rte_socket_count",
    "rte_socket_id",
    "rte_socket_id_by_idx",
    "rte_thread_register",
    "rte_thread_unregister",
    // Devices that come and go
    "rte_dev_is_probed",
    "rte_dev_name",
    "rte_dev_probe",
    "rte_dev_remove",
    "rte_eal_hotplug_add",
    "rte_eal_hotplug_remove",
    // Memory; the two DMA functions carry DPDK's experimental mark, see the crate documentation
    "rte_dev_dma_map",
    "rte_dev_dma_unmap",
    "rte_extmem_register",
    "rte_extmem_unregister",
    "rte_free",
    "rte_malloc_get_socket_stats",
    "rte_malloc_socket",
    "rte_malloc_virt2iova",
    "rte_mem_virt2iova",
    "rte_zmalloc_socket",
    // Mempools and mbufs
    "rte_mempool_avail_count",
    "rte_mempool_cache_create",
    "rte_mempool_cache_flush",
    "rte_mempool_cache_free",
    "rte_mempool_default_cache",
    "rte_mempool_free",
    "rte_mempool_generic_get",
    "rte_mempool_generic_put",
    "rte_mempool_get_bulk",
    "rte_mempool_in_use_count",
    "rte_mempool_lookup",
    "rte_mempool_put_bulk",
    "rte_pktmbuf_alloc",
    "rte_pktmbuf_alloc_bulk",
    "rte_pktmbuf_attach_extbuf",
    "rte_pktmbuf_clone",
    "rte_pktmbuf_copy",
    "rte_pktmbuf_ext_shinfo_init_helper",
    "rte_pktmbuf_free",
    "rte_pktmbuf_free_bulk",
    "rte_pktmbuf_linearize",
    "rte_pktmbuf_pool_create",
    "rte_pktmbuf_pool_create_by_ops",
    "rte_pktmbuf_pool_create_extbuf",
    "rte_pktmbuf_reset",
    // Ports: discovery and configuration
    "rte_eth_dev_adjust_nb_rx_tx_desc",
    "rte_eth_dev_callback_register",
    "rte_eth_dev_callback_unregister",
    "rte_eth_dev_close",
    "rte_eth_dev_configure",
    "rte_eth_dev_count_avail",
    "rte_eth_dev_get_name_by_port",
    "rte_eth_dev_get_port_by_name",
    "rte_eth_dev_info_get",
    "rte_eth_dev_is_removed",
    "rte_eth_dev_is_valid_port",
    "rte_eth_dev_reset",
    "rte_eth_dev_rx_queue_start",
    "rte_eth_dev_rx_queue_stop",
    "rte_eth_dev_socket_id",
    "rte_eth_dev_start",
    "rte_eth_dev_stop",
    "rte_eth_dev_tx_queue_start",
    "rte_eth_dev_tx_queue_stop",
    "rte_eth_find_next",
    "rte_eth_rx_queue_info_get",
    "rte_eth_rx_queue_setup",
    "rte_eth_tx_queue_info_get",
    "rte_eth_tx_queue_setup",
    // Ports: addresses, MTU, link, offloads
    "rte_eth_allmulticast_disable",
    "rte_eth_allmulticast_enable",
    "rte_eth_dev_default_mac_addr_set",
    "rte_eth_dev_get_mtu",
    "rte_eth_dev_get_vlan_offload",
    "rte_eth_dev_rx_offload_name",
    "rte_eth_dev_set_link_down",
    "rte_eth_dev_set_link_up",
    "rte_eth_dev_set_mtu",
    "rte_eth_dev_set_vlan_offload",
    "rte_eth_dev_tx_offload_name",
    "rte_eth_link_get",
    "rte_eth_link_get_nowait",
    "rte_eth_link_speed_to_str",
    "rte_eth_macaddr_get",
    "rte_eth_promiscuous_disable",
    "rte_eth_promiscuous_enable",
    "rte_eth_promiscuous_get",
    // Ports: RSS
    "rte_eth_dev_rss_hash_conf_get",
    "rte_eth_dev_rss_hash_update",
    "rte_eth_dev_rss_reta_query",
    "rte_eth_dev_rss_reta_update",
    // Ports: counters
    "rte_eth_stats_get",
    "rte_eth_stats_reset",
    "rte_eth_xstats_get",
    "rte_eth_xstats_get_by_id",
    "rte_eth_xstats_get_id_by_name",
    "rte_eth_xstats_get_names",
    "rte_eth_xstats_get_names_by_id",
    "rte_eth_xstats_reset",
    // Ports: the data path, and interrupts for when it is quiet
    "rte_eth_dev_rx_intr_ctl_q_get_fd",
    "rte_eth_dev_rx_intr_disable",
    "rte_eth_dev_rx_intr_enable",
    "rte_eth_rx_burst",
    "rte_eth_rx_queue_count",
    "rte_eth_tx_burst",
    "rte_eth_tx_done_cleanup",
    "rte_eth_tx_prepare",
    // Flow rules
    "rte_flow_create",
    "rte_flow_destroy",
    "rte_flow_flush",
    "rte_flow_isolate",
    "rte_flow_query",
    "rte_flow_validate",
    // Bonds: the one driver with an API of its own. Its header declares more, among them five that the library of 22.11 forgets
    // to export.
    "rte_eth_bond_8023ad_slave_info",
    "rte_eth_bond_active_slaves_get",
    "rte_eth_bond_create",
    "rte_eth_bond_primary_get",
    "rte_eth_bond_slave_add",
    "rte_eth_bond_slave_remove",
    "rte_eth_bond_xmit_policy_set",
    // Hash tables, against which our own are measured
    "rte_hash_add_key",
    "rte_hash_add_key_data",
    "rte_hash_add_key_with_hash",
    "rte_hash_count",
    "rte_hash_crc",
    "rte_hash_create",
    "rte_hash_del_key",
    "rte_hash_free",
    "rte_hash_free_key_with_position",
    "rte_hash_hash",
    "rte_hash_lookup",
    "rte_hash_lookup_bulk",
    "rte_hash_lookup_bulk_data",
    "rte_hash_lookup_data",
    "rte_hash_lookup_with_hash",
    "rte_hash_lookup_with_hash_bulk",
    "rte_hash_reset",
    "rte_jhash",
];

/// Types no listed function mentions: `rte_flow` passes its items and actions as `void *`.
pub(crate) const TYPES: &[&str] = &[
    "rte_eth_event_type",
    "rte_flow_action_(count|jump|mark|port_id|queue|rss|ethdev|of_set_vlan_vid)",
    "rte_flow_action_type",
    "rte_flow_item_(any|eth|ipv4|ipv6|tcp|udp|vlan|vxlan)",
    "rte_flow_item_type",
    "rte_flow_query_count",
    "rte_lcore_role_t",
];

/// Constants: macros and enumerators that belong to no listed type.
pub(crate) const CONSTANTS: &[&str] = &[
    "BALANCE_XMIT_POLICY_.*",
    "BONDING_MODE_.*",
    "E_RTE_.*",
    "LCORE_ID_ANY",
    "RTE_CACHE_LINE_SIZE",
    "RTE_ETHER_.*",
    "RTE_ETH_.*",
    "RTE_HASH_.*",
    "RTE_LOG_.*",
    "RTE_MAX_(ETHPORTS|LCORE|NUMA_NODES|QUEUES_PER_PORT)",
    "RTE_MBUF_.*",
    "RTE_MEMPOOL_(CACHE_MAX_SIZE|NAMESIZE)",
    "RTE_PKTMBUF_HEADROOM",
    "RTE_VER_.*",
    "SOCKET_ID_ANY",
];

/// Refuses bindings that lack a listed function: bindgen passes over a name it does not find, and the
/// first to notice would be a caller in another crate.
pub(crate) fn check(bindings: &str) -> Result<(), String> {
    let bound: std::collections::HashSet<&str> = bindings
        .split("pub fn ")
        .skip(1)
        .map(|rest| {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            &rest[..end.unwrap_or(rest.len())]
        })
        .collect();
    let missing: Vec<&str> = FUNCTIONS.iter().copied().filter(|name| !bound.contains(name)).collect();
    if missing.is_empty() { Ok(()) } else { Err(format!("the DPDK headers declare no {}", missing.join(", "))) }
}
