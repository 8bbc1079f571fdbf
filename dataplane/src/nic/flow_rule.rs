//! Rules of an ethdev, by rte_flow.
#![expect(unsafe_code, reason = "DPDK's flow rules")]

use std::ffi::CStr;
use std::ptr::{NonNull, from_ref, null};

use dpdk_sys::*;

use super::steering::Rules;

/// The rules of an ethdev that runs.
#[derive(Debug)]
pub(super) struct FlowRules {
    /// DPDK's number of it.
    pub(super) number: u16,
}

/// A rule that DPDK holds.
#[derive(Debug)]
pub(super) struct FlowRule(NonNull<rte_flow>);

impl Rules for FlowRules {
    type Rule = FlowRule;

    fn create(&mut self, mac: [u8; 6], tag: Option<u16>, queue: u16) -> Result<FlowRule, String> {
        let mut attr = rte_flow_attr::default();
        attr.set_ingress(1);
        let (mut eth, mut eth_mask) = (rte_flow_item_eth::default(), rte_flow_item_eth::default());
        eth.__bindgen_anon_1.hdr.dst_addr = rte_ether_addr { addr_bytes: mac };
        eth_mask.__bindgen_anon_1.hdr.dst_addr = rte_ether_addr { addr_bytes: [0xff; 6] };
        let (mut vlan, mut vlan_mask) = (rte_flow_item_vlan::default(), rte_flow_item_vlan::default());
        vlan.__bindgen_anon_1.hdr.vlan_tci = tag.unwrap_or(0).to_be();
        vlan_mask.__bindgen_anon_1.hdr.vlan_tci = 0x0fff_u16.to_be();
        let item = |type_, spec: *const std::ffi::c_void, mask| rte_flow_item { type_, spec, last: null(), mask };
        let end = item(RTE_FLOW_ITEM_TYPE_END, null(), null());
        let tagged = item(RTE_FLOW_ITEM_TYPE_VLAN, from_ref(&vlan).cast(), from_ref(&vlan_mask).cast());
        let pattern = [
            item(RTE_FLOW_ITEM_TYPE_ETH, from_ref(&eth).cast(), from_ref(&eth_mask).cast()),
            if tag.is_some() { tagged } else { end },
            end,
        ];
        let queue = rte_flow_action_queue { index: queue };
        let actions = [
            rte_flow_action { type_: RTE_FLOW_ACTION_TYPE_QUEUE, conf: from_ref(&queue).cast() },
            rte_flow_action { type_: RTE_FLOW_ACTION_TYPE_END, conf: null() },
        ];
        let mut error = rte_flow_error::default();
        // SAFETY: the port runs, this is the thread of EAL; pattern and actions end as they have to, and all that they point to is
        // alive, here and above.
        let made = unsafe {
            let (pattern, actions) = (pattern.as_ptr(), actions.as_ptr());
            if rte_flow_validate(self.number, &attr, pattern, actions, &mut error) == 0 {
                NonNull::new(rte_flow_create(self.number, &attr, pattern, actions, &mut error))
            } else {
                None
            }
        };
        made.map(FlowRule).ok_or_else(|| {
            if error.message.is_null() {
                return "the driver does not say why".to_owned();
            }
            // SAFETY: a C string of the driver's.
            unsafe { CStr::from_ptr(error.message) }.to_string_lossy().into_owned()
        })
    }

    fn destroy(&mut self, FlowRule(rule): FlowRule) {
        let mut error = rte_flow_error::default();
        // SAFETY: the port runs, and holds the rule, which is forgotten here.
        unsafe { rte_flow_destroy(self.number, rule.as_ptr(), &mut error) };
    }
}
