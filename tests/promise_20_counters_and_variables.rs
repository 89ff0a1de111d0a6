//! Promise 20: counters never go down, and each is documented. A variable nobody reads is reported.
//!
//! Both pages, the engine's and the master's, while everything that is counted happens. Tried with the number of
//! objects printed as a counter: the first test fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

mod store;

use std::collections::BTreeMap;
use std::process::Command;

use mooncake::store::{ReplicateConfig, Store};
use mooncake_test_support::artifacts;
use store::{MIB, Master, options, pattern};

/// Kind of each family; each has a sentence, and each line a family.
fn families(page: &str) -> BTreeMap<String, String> {
    let kinds: BTreeMap<String, String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect();
    for name in kinds.keys() {
        let help = page.lines().find_map(|line| line.strip_prefix(&format!("# HELP {name} ")));
        assert!(help.is_some_and(|help| help.len() > 3), "{name} has no sentence");
    }
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split([' ', '{']).next().unwrap();
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        assert!(kinds.contains_key(name) || base.is_some_and(|base| kinds.contains_key(base)), "{line}");
    }
    kinds
}

/// Values of everything that only grows: counters and histograms.
fn growing(page: &str) -> BTreeMap<String, f64> {
    let kinds = families(page);
    let only_grows = |name: &str| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        [Some(name), base]
            .into_iter()
            .flatten()
            .any(|name| kinds.get(name).is_some_and(|kind| kind == "counter" || kind == "histogram"))
    };
    page.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .filter(|(name, _)| only_grows(name.split('{').next().unwrap_or(name)))
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

#[test]
fn counters_of_engine_and_master_only_grow() {
    let master = Master::start(&["--default_kv_lease_ttl=1", "--client_ttl=2"]);
    let owner = store::store(&master, 16 * MIB);
    let mut guest = Some(Store::setup(options(&master.address, 16 * MIB)).unwrap());
    let pages = |owner: &Store| [master.page("/metrics"), owner.engine().metrics_text()];
    let mut before = pages(&owner).map(|page| growing(&page));
    assert!(before[0].len() > 100 && before[1].len() > 20, "{} and {}", before[0].len(), before[1].len());
    let mut moved = 0;
    for step in 0..8_u64 {
        for index in 0..20_u64 {
            let key = format!("k{}", step * 20 + index);
            let _ = owner.put(key.as_bytes(), &pattern(index, MIB as usize), &ReplicateConfig::default());
            let _ = owner.get(key.as_bytes());
        }
        match step {
            2 => drop(owner.remove_by_regex("^k1", true).unwrap()),
            3 => guest.take().unwrap().close(),
            5 => drop(owner.remove_all(true).unwrap()),
            _ => drop(owner.is_exist(b"none").unwrap()),
        }
        let after = pages(&owner).map(|page| growing(&page));
        for (before, after) in before.iter().zip(&after) {
            for (name, old) in before {
                let new = after.get(name).unwrap_or_else(|| panic!("{name} is gone"));
                assert!(new >= old, "step {step}: {name} was {old} and is {new}");
                moved += usize::from(new > old);
            }
        }
        before = after;
    }
    assert!(moved > 50, "{moved} steps of counters");
}

/// A process of ours that is given a variable with a slip in its name says so, and which was meant.
#[test]
fn a_variable_nobody_reads_is_reported() {
    let output = Command::new(artifacts::program("mooncake"))
        .arg("doctor")
        .env("MC_TRANSFER_TIMEOUTT", "5")
        .env("MOONCAKE_TRANSFER_NO_SUCH_THING", "1")
        .output()
        .unwrap();
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(text.contains("MC_TRANSFER_TIMEOUTT") && text.contains("MC_TRANSFER_TIMEOUT"), "{text}");
    assert!(text.contains("MOONCAKE_TRANSFER_NO_SUCH_THING"), "{text}");
}
