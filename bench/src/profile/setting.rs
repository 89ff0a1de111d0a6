//! The profiles that are measured, and what each needs to be in force.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use mooncake::plan::{CostTable, Direction, LinkClass, LinkCosts, Slots, gain};

/// The engine's slots, where no variable changes them, and how many of them one peer has under way.
const SLOT_BYTES: u64 = 4 << 20;
const SLOTS: u32 = 4;

/// One profile.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// What it stands for.
    pub text: &'static str,
    /// The link is RoCE, also inside a server.
    pub is_roce: bool,
    /// The two sides are on servers of their own.
    pub is_two_servers: bool,
    /// How many times slower than hardware, so that this machine can move the bytes in time.
    pub slowdown: u32,
}

const SETTINGS: [Setting; 5] = [
    Setting {
        name: "a2-hccs",
        text: "Ascend 910B, two NPUs of a server over HCCS",
        is_roce: false,
        is_two_servers: false,
        slowdown: 20,
    },
    Setting {
        name: "a2-roce",
        text: "Ascend 910B, two NPUs over RoCE",
        is_roce: true,
        is_two_servers: false,
        slowdown: 20,
    },
    Setting {
        name: "a3-hccs",
        text: "Ascend 910_93, two NPUs of a server over HCCS",
        is_roce: false,
        is_two_servers: false,
        slowdown: 100,
    },
    Setting {
        name: "a3-hccs-2node",
        text: "Ascend 910_93, two NPUs of two servers of a super pod over HCCS",
        is_roce: false,
        is_two_servers: true,
        slowdown: 100,
    },
    Setting {
        name: "a3-roce",
        text: "Ascend 910_93, two NPUs over RoCE",
        is_roce: true,
        is_two_servers: false,
        slowdown: 40,
    },
];

impl Setting {
    /// The profiles of these names, joined by commas, or all.
    ///
    /// # Errors
    /// If there is no such profile.
    pub fn named(names: &str) -> Result<Vec<Self>> {
        if names == "all" {
            return Ok(SETTINGS.to_vec());
        }
        let find = |name: &str| {
            SETTINGS.into_iter().find(|setting| setting.name == name).with_context(|| {
                let known: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
                format!("there is no profile {name:?}; there are {}, and all", known.join(", "))
            })
        };
        names.split(',').map(find).collect()
    }
}

/// A table of costs with the launches that are measured; with `stage_all` everything that can be is staged by it.
pub fn costs(stage_all: bool, launches_per_device: bool) -> String {
    let mut text = String::new();
    for class in LinkClass::ALL {
        // Writing to a String cannot fail.
        let _always = writeln!(
            text,
            "{} launch_per_device {} as the software NPU has it",
            class.name(),
            u8::from(launches_per_device)
        );
        if stage_all {
            let _always = writeln!(text, "{} direct_weight 1000000 to measure staging alone", class.name());
        }
    }
    text
}

/// How much faster than direct a long staged run can be by the engine's table of costs.
pub fn limit(profile: &str, operation: &str, block_bytes: u64, launches_per_device: bool) -> Option<f64> {
    let costs = LinkCosts { launches_per_device, ..CostTable::built_in().costs(LinkClass::named(profile)?) };
    let direction = if operation == "write" { Direction::Write } else { Direction::Read };
    let slots = Slots { slot_bytes: SLOT_BYTES, count: SLOTS };
    Some(gain::limit(&costs, &slots, direction, u32::try_from(block_bytes).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_has_costs_in_the_engines_table() {
        for setting in SETTINGS {
            assert!(LinkClass::named(setting.name).is_some(), "{}", setting.name);
        }
        assert_eq!(Setting::named("all").unwrap().len(), SETTINGS.len());
        assert_eq!(Setting::named("a3-roce,a2-hccs").unwrap().len(), 2);
        assert!(Setting::named("a9").is_err() && Setting::named("a2-hccs,").is_err());
    }

    #[test]
    fn the_table_that_stages_all_is_one_the_engine_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("costs");
        std::fs::write(&path, costs(true, false)).unwrap();
        let table = mooncake::plan::CostTable::with_file(&path).unwrap();
        let costs = table.costs(LinkClass::A3Hccs);
        assert!(costs.direct_weight > 1000.0 && !costs.launches_per_device);
        assert!(limit("a2-roce", "write", 65536, true).unwrap() > 1.8);
    }
}
