//! Which row of the table of costs a channel has, and where the table comes from.

use super::rank::{Chip, Link};
use crate::config::Config;
use crate::control::RankDevice;
use crate::plan::{CostTable, LinkClass};

/// The table that holds for this process: the built-in one, changed by the file that a setting names. A file that is
/// not right is reported, and changes nothing.
#[must_use]
pub fn table(config: &Config) -> CostTable {
    let Some(path) = &config.cost_table else { return CostTable::built_in() };
    CostTable::with_file(path).unwrap_or_else(|error| {
        log::warn!("{error}; the built-in costs hold");
        CostTable::built_in()
    })
}

/// The kind of link between two devices. Chips that the table does not know count as A2, whose descriptors are the
/// dearest.
#[must_use]
pub fn class_of(chip: Chip, link: Link, own: &RankDevice, peer: &RankDevice) -> LinkClass {
    match (chip, link) {
        (Chip::A3, Link::Hccs) if own.server_id == peer.server_id => LinkClass::A3Hccs,
        (Chip::A3, Link::Hccs) => LinkClass::A3HccsTwoServers,
        (Chip::A3, Link::Roce) => LinkClass::A3Roce,
        (Chip::A2 | Chip::Other, Link::Hccs) => LinkClass::A2Hccs,
        (Chip::A2 | Chip::Other, Link::Roce) => LinkClass::A2Roce,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank(server: &str) -> RankDevice {
        RankDevice {
            server_id: server.into(),
            device_id: 0,
            device_ip: None,
            super_device_id: None,
            super_pod_id: None,
            device_port: None,
            version: "1.2".into(),
            families: Vec::new(),
        }
    }

    #[test]
    fn servers_of_a_super_pod_are_told_apart() {
        let class = |chip, link, peer| class_of(chip, link, &rank("a"), &rank(peer));
        assert_eq!(class(Chip::A3, Link::Hccs, "a"), LinkClass::A3Hccs);
        assert_eq!(class(Chip::A3, Link::Hccs, "b"), LinkClass::A3HccsTwoServers);
        assert_eq!(class(Chip::A3, Link::Roce, "a"), LinkClass::A3Roce);
        assert_eq!(class(Chip::A2, Link::Hccs, "a"), LinkClass::A2Hccs);
        assert_eq!(class(Chip::Other, Link::Roce, "b"), LinkClass::A2Roce);
    }

    #[test]
    fn a_file_that_is_not_there_leaves_the_built_in_costs() {
        let config = Config { cost_table: Some("/nowhere/costs".into()), ..Config::default() };
        assert_eq!(table(&config), CostTable::built_in());
    }
}
