//! Every variable that released upstream engines read is honoured here, taken without a word, or refused by name with
//! the reason; what is none of upstream's and none of ours is told once a process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

mod promise;

use mooncake::config::{Config, Kind, Variable, refused, table, unread};
use promise::{Peer, software_npu};

/// Name and upstream's default of each variable.
fn upstreams() -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines = include_str!("golden/upstream_variables.txt").lines();
    lines.filter(|line| !line.starts_with('#')).map(|line| line.split_once(' ').unwrap_or((line, "")))
}

fn read(name: &str, value: &str) -> (Config, usize) {
    let lookup = |asked: &str| (asked == name).then(|| value.to_owned());
    let (config, warnings) = Config::from_lookup(&lookup);
    (config, warnings.len())
}

#[test]
fn each_is_known() {
    let mut count = 0;
    for (name, _) in upstreams() {
        assert!(unread([name]).is_empty(), "{name} would be reported as one that nobody reads");
        count += 1;
    }
    assert!(count > 130, "{count}");
}

#[test]
fn each_is_taken_without_a_word_where_upstreams_engine_for_hosts_reads_it() {
    // Those of the NPU transports may be refused, by name.
    for (name, default) in
        upstreams().filter(|(name, _)| name.starts_with("MC_") && !name.contains("UBSHMEM"))
    {
        for value in [default, "1"] {
            assert!(refused(&[(name.to_owned(), value.to_owned())]).is_empty(), "{name}={value}");
        }
    }
}

#[test]
fn upstreams_default_changes_nothing_and_raises_no_warning() {
    for (name, default) in upstreams().filter(|(_, default)| !default.is_empty()) {
        let (config, warnings) = read(name, default);
        assert_eq!(warnings, 0, "{name}={default}");
        let same = Config {
            // To be asked for a level, and to be asked for the vendor's own class, is not the same as not to be asked.
            log_level: None,
            rdma_traffic_class: None,
            rdma_service_level: None,
            ..config
        };
        if name != "ASCEND_TRANSPORT_TRANSFER_TIMEOUT" {
            assert_eq!(same, Config::default(), "{name}={default}");
        }
    }
}

/// A value that asks for something else than the default.
fn other_value(row: &Variable) -> String {
    match row.kind {
        Kind::Number { default, min, max, .. } => {
            let wanted = if default < max { default + 1 } else { min };
            // Classes come in fours.
            if row.name == table::ASCEND_RDMA_TC.name { "136".to_owned() } else { wanted.to_string() }
        }
        Kind::Presence | Kind::NotZero => "1".to_owned(),
        Kind::Exactly(on) => on.to_owned(),
        Kind::Text(_) if row.name == table::LOG_LEVEL.name => "DEBUG".to_owned(),
        Kind::Text(_) if row.name == table::STORE_NODES.name => "all".to_owned(),
        Kind::Text(_) => "0".to_owned(),
    }
}

#[test]
fn each_row_of_the_table_changes_a_setting_under_each_of_its_names() {
    for row in table::APPLIED {
        for name in row.aliases.iter().chain([&row.name]) {
            let value = other_value(row);
            let (config, warnings) = read(name, &value);
            assert_ne!(config, Config::default(), "{name}={value} changes nothing");
            assert_eq!(warnings, 0, "{name}={value}");
        }
    }
}

#[test]
fn what_nobody_reads_is_told_once_a_process() {
    let variables = [
        ("MC_FORCE_TPC", "1"),
        ("MOONCAKE_NOBODY", "1"),
        ("MC_GID_INDEX", "3"),
        ("ASCEND_AUTO_CONNECT", "0"),
    ];
    let mut peer = Peer::start_with(&software_npu(1), None, &variables);
    // Each engine reads the settings again.
    peer.must("engines 3");
    let output = peer.child.output();
    let told = |text: &str| output.lines().filter(|line| line.contains(text)).count();
    assert_eq!(told("MC_FORCE_TPC is set but not used; did you mean MC_FORCE_TCP?"), 1, "{output}");
    assert_eq!(told("MOONCAKE_NOBODY is set but not used"), 1, "{output}");
    assert_eq!(told("MC_GID_INDEX"), 0, "{output}");
    assert_eq!(told("ASCEND_AUTO_CONNECT"), 1, "{output}");
    peer.quit();
}
