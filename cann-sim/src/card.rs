//! The network cards of the NPUs: which address each has, as `hccn.conf` says.
//!
//! Without a `CANN_SIM_HCCN_CONF` every card has whatever address a rank table gives it. With one, a card has
//! the address of its line and no other; a card without a line (or a file that is not there) has none, and
//! RoCE cannot come up on it. HCCL then answers 19 when it prepares (inferred: facts 2.4 point 4 gives 19 for
//! what the card refuses).

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::rank_table::Rank;
use crate::settings::settings;
use crate::status::{Fail, Outcome, hccl};

/// Addresses by physical id.
pub type Addresses = BTreeMap<u32, IpAddr>;

/// The addresses in the text of an `hccn.conf` (facts 3): `address_K=` first, else `IPv6address_K=`; of
/// several lines for one card the first counts.
pub fn parse(text: &str) -> Addresses {
    let mut addresses = Addresses::new();
    for prefix in ["address_", "IPv6address_"] {
        for line in text.lines() {
            let Some((id, address)) = line.trim().strip_prefix(prefix).and_then(|rest| rest.split_once('='))
            else {
                continue;
            };
            if let (Ok(id), Ok(address)) = (id.trim().parse(), address.trim().parse()) {
                addresses.entry(id).or_insert(address);
            }
        }
    }
    addresses
}

/// Whether the card of our NPU has the address that the rank table gives it.
pub fn check(own: &Rank) -> Outcome {
    let Some(addresses) = &settings().card_addresses else { return Ok(()) };
    let real = addresses.get(&own.device_id);
    if real.is_some_and(|real| own.device_ips.contains(real)) {
        return Ok(());
    }
    let named: Vec<_> = own.device_ips.iter().map(IpAddr::to_string).collect();
    let real = real.map_or_else(|| "no address".to_owned(), IpAddr::to_string);
    Err(Fail::new(
        hccl::E_NETWORK,
        format!(
            "the card of NPU {} has {real} in hccn.conf; the rank table gives it {}",
            own.device_id,
            named.join(",")
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_hccn_conf() {
        let text = "IPv6address_0=fe80::1\naddress_0=29.1.0.10\nnetmask_0=255.255.0.0\naddress_0=29.1.0.99\n\
                    address_3 = x\nIPv6address_5=fe80::5\n";
        let addresses = parse(text);
        assert_eq!(addresses.len(), 2);
        assert_eq!(addresses[&0].to_string(), "29.1.0.10");
        assert_eq!(addresses[&5].to_string(), "fe80::5");
        assert!(parse("").is_empty());
    }
}
