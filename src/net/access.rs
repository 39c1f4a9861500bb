//! Who may connect to a listener, by address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::config::AccessRule;

/// Whether the rules let this address in: the first that fits decides, and without one everybody may.
#[must_use]
pub fn allows(rules: &BTreeMap<u16, AccessRule>, address: IpAddr) -> bool {
    let address = address.to_canonical();
    let fits = |rule: &&AccessRule| rule.network.is_none_or(|network| network.contains(&address));
    rules.values().find(fits).is_none_or(|rule| rule.allow)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rule = |allow, network: &str| AccessRule { allow, network: network.parse().ok() };
        let rules = BTreeMap::from([
            (1, rule(false, "192.0.2.7/32")),
            (2, rule(true, "192.0.2.0/24")),
            (3, rule(true, "2001:db8::/32")),
            (9, rule(false, "all")),
        ]);
        for (address, want) in [
            ("192.0.2.7", false),
            ("192.0.2.8", true),
            ("::ffff:192.0.2.8", true),
            ("192.0.3.8", false),
            ("2001:db8:1::1", true),
            ("2001:db9::1", false),
        ] {
            assert_eq!(allows(&rules, address.parse().unwrap()), want, "{address}");
        }
        assert!(allows(&BTreeMap::new(), IpAddr::from([192, 0, 2, 1])), "without a rule everybody may");
        let only = BTreeMap::from([(1, rule(false, "192.0.2.0/24"))]);
        assert!(allows(&only, IpAddr::from([198, 51, 100, 1])), "none fits");
    }
}
