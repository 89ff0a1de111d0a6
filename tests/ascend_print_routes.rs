//! The way that the planner takes can be seen: the decision with its numbers in the log, and `ASCEND_TRANSPORT_PRINT`
//! with a line for each way that the blocks of a batch went.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

mod ascend_pair;

use std::path::Path;
use std::sync::Mutex;

use ascend_pair::*;
use mooncake::config::Config;
use mooncake::plan::Direction;
use mooncake_test_support::wait_until;

/// What was logged since it was taken last. One test looks at it: the file has no other.
static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Log;

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        LINES.lock().unwrap().push(record.args().to_string());
    }

    fn flush(&self) {}
}

/// Takes the lines with `word`, when there are `count`.
fn take(word: &str, count: usize) -> Vec<String> {
    let seen = || -> Vec<String> {
        LINES.lock().unwrap().iter().filter(|line| line.contains(word)).cloned().collect()
    };
    let there = wait_until(LONG, || seen().len() >= count);
    let lines = seen();
    assert!(there && lines.len() == count, "{count} lines with {word:?} in {:?}", LINES.lock().unwrap());
    lines
}

/// The word behind `name`.
fn word<'a>(line: &'a str, name: &str) -> &'a str {
    let mut words = line.split(' ').skip_while(|word| *word != name);
    words.nth(1).unwrap_or_else(|| panic!("no {name} in {line:?}"))
}

/// Two servers that RoCE joins.
fn pair(config: &Config, folder: &Path) -> (Node, Node) {
    let path = folder.join("hccn.conf");
    std::fs::write(&path, "address_0=192.0.2.10\naddress_1=192.0.2.11\n").unwrap();
    let on = |server: &str| Config {
        hccn_conf: path.clone(),
        server_id: Some(server.to_owned()),
        ascend_print: true,
        ascend_aggregate: true,
        ..config.clone()
    };
    (node_with(0, &on("one"), false), node_with(1, &on("two"), false))
}

/// Short blocks apart from each other, and a long one behind every sixteenth.
fn blocks(near: u64, far: u64, with_long: bool) -> Vec<(u64, u64, u64)> {
    let mut blocks = Vec::new();
    for index in 0..16 {
        let at = index * 3 * MIB;
        blocks.extend((0..16).map(|small| at + small * 40_000).map(|at| (near + at, far + at, 16_000)));
        if with_long {
            blocks.push((near + at + MIB, far + at + MIB, 2 * MIB));
        }
    }
    blocks
}

#[test]
fn the_decision_and_each_way_are_told() {
    log::set_logger(&Log).unwrap();
    log::set_max_level(log::LevelFilter::Debug);
    let folder = tempfile::TempDir::new().unwrap();
    // Copies on the device are dear by the byte, so that long blocks are not worth a slot.
    let table = folder.path().join("costs");
    std::fs::write(&table, "a2-roce device_copy_gb_per_s 2 for a test\n").unwrap();
    let alone = Config { both_ends: false, ..Config::default() };
    let dear = Config { cost_table: Some(table), ..alone.clone() };
    for (config, with_long, decision, ways) in [
        (Config::default(), false, "both-ends", &[("both-ends", 256)][..]),
        (alone, false, "staged", &[("staged", 256)]),
        (dear, true, "split", &[("direct", 16), ("staged", 256)]),
    ] {
        let (a, b) = pair(&config, folder.path());
        let (near, far) = (a.buffer(48 * MIB), b.buffer(48 * MIB));
        let bytes = pattern(1, 48 * MIB);
        store(0, near, &bytes);
        // The first makes the channel, so that it is known what the link costs.
        a.must_transfer(&b, Direction::Write, &[(near, far, 64)]);
        take(" route ", 1);
        LINES.lock().unwrap().clear();

        let blocks = blocks(near, far, with_long);
        a.must_transfer(&b, Direction::Write, &blocks);
        let mut lines = take(" route ", ways.len());
        lines.sort_by_key(|line| word(line, "route").to_owned());
        for (line, (way, count)) in lines.iter().zip(ways) {
            assert_eq!((word(line, "route"), word(line, "link")), (*way, "RoCE"), "{line}");
            assert_eq!((word(line, "peer"), word(line, "node-1:1")), ("node-1:1", "write"), "{line}");
            let length_bytes = if *way == "direct" { 2 * MIB } else { 16_000 };
            let told = ["bytes", "blocks", "extents"].map(|name| word(line, name).parse::<u64>().unwrap());
            assert_eq!(told, [count * length_bytes, *count, *count], "{line}");
            assert!(word(line, "execute").parse::<u64>().unwrap() > 0, "{line}");
            assert!(line.contains(" GB/s "), "{line}");
            // A split group's numbers are told of the whole.
            let modelled = word(line, "modelled").parse::<u64>();
            assert_eq!(modelled.is_ok(), decision != "split" || *way == "direct", "{line}");
        }
        // The decision was taken once, for all of them, by numbers that are told with it.
        let total: u64 = blocks.iter().map(|block| block.2).sum();
        let told =
            take(&format!("{decision} on a2-roce: {} extents, {total} bytes, direct ", blocks.len()), 1);
        assert!(told[0].starts_with("node-1:1: "), "{told:?}");
        assert!(told[0].contains(" us, staged ") && told[0].contains(" us, chosen "), "{told:?}");
        assert_eq!(told[0].contains("staged below "), decision == "split", "{told:?}");

        let seen = load(1, far, 48 * MIB);
        for (local, _, length) in blocks {
            let (at, length) = ((local - near) as usize, length as usize);
            assert!(seen[at..at + length] == bytes[at..at + length], "{decision}: block at {at}");
        }
        for node in [&a, &b] {
            node.ascend.shutdown(soon()).unwrap();
            node.control.shutdown();
        }
        LINES.lock().unwrap().clear();
    }
}
