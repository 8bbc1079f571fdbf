//! What bindgen has to be told about DPDK's object-like macros.

use bindgen::callbacks::{IntKind, ParseCallbacks, Token};

/// Fields that hold these are `uint64_t`; a constant typed after its value would need a cast half of
/// the time.
const WIDE: [&str; 5] =
    ["RTE_ETH_RX_OFFLOAD_", "RTE_ETH_TX_OFFLOAD_", "RTE_ETH_DEV_CAPA_", "RTE_ETH_RSS_", "RTE_MBUF_F_"];

/// A count of table entries, not a set of flags.
const NARROW: &str = "RTE_ETH_RSS_RETA_SIZE_";

#[derive(Debug)]
pub(crate) struct Macros;

impl ParseCallbacks for Macros {
    fn int_macro(&self, name: &str, _value: i64) -> Option<IntKind> {
        let wide = WIDE.iter().any(|prefix| name.starts_with(prefix)) && !name.starts_with(NARROW);
        wide.then_some(IntKind::U64)
    }

    /// Writes `RTE_BIT64(7)` out as the number it is: bindgen evaluates expressions, but expands no
    /// function-like macro.
    fn modify_macro(&self, name: &str, tokens: &mut Vec<Token>) {
        // The two macros' own definitions have a parameter there, not a number.
        if matches!(name, "RTE_BIT32" | "RTE_BIT64") {
            return;
        }
        let mut at = 1;
        while at + 3 < tokens.len() {
            let call = matches!(&*tokens[at].raw, b"RTE_BIT32" | b"RTE_BIT64")
                && &*tokens[at + 1].raw == b"("
                && &*tokens[at + 3].raw == b")";
            let bit = std::str::from_utf8(&tokens[at + 2].raw).ok().and_then(|number| number.parse::<u32>().ok());
            if let (true, Some(value)) = (call, bit.and_then(|bit| 1u64.checked_shl(bit))) {
                tokens[at + 2].raw = value.to_string().into_bytes().into();
                tokens.remove(at + 3);
                tokens.drain(at..at + 2);
            }
            at += 1;
        }
    }
}
