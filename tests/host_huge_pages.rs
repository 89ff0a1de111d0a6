//! Registered memory is put together into huge pages while transfers read and write it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

use std::io::BufRead;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use mooncake::config::Config;
use mooncake::engine::{Direction, Engine, EngineOptions, Request};
use mooncake_test_support::Child;

const LONG: Duration = Duration::from_secs(60);
const BUFFER: usize = 48 << 20;
const BLOCK: usize = 768 << 10;

fn engine() -> Arc<Engine> {
    Engine::new(EngineOptions {
        metadata: "P2PHANDSHAKE".into(),
        local_name: "127.0.0.1".into(),
        device: None,
        auto_discover: false,
        config: Config::from_env(),
    })
    .unwrap()
}

fn address(bytes: &[u8]) -> u64 {
    bytes.as_ptr().expose_provenance() as u64
}

fn pattern(seed: usize) -> Vec<u8> {
    (0..BUFFER).map(|index| (index * 31 + (index >> 12) * 7 + seed * 11) as u8).collect()
}

/// Bytes of the process in huge pages.
fn huge_bytes(pid: u32) -> u64 {
    let facts = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = facts.lines().find_map(|line| line.strip_prefix("AnonHugePages:")).unwrap();
    line.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}

/// Not a test by itself: the other process of the test below.
#[test]
fn peer_process() {
    if std::env::var_os("HOST_HUGE_PAGES_PEER").is_none() {
        return;
    }
    let engine = engine();
    let mut memory = pattern(0);
    println!("\nready {} {}", engine.name(), address(&memory));
    let mut lines = std::io::stdin().lock().lines();
    while let Some(line) = lines.next() {
        let round: usize = line.unwrap().parse().unwrap();
        // Fresh pages each time, so that they are put together anew; registered, and used at once.
        memory = pattern(round);
        engine.register(address(&memory), BUFFER as u64, "cpu:0").unwrap();
        println!("round {round} at {}", address(&memory));
        assert_eq!(lines.next().unwrap().unwrap(), "look");
        let right = std::hint::black_box(&memory) == &pattern(round + 100);
        engine.unregister(address(&memory)).unwrap();
        println!("done {round} {right}");
    }
    drop(memory);
}

fn round(engine: &Engine, peer: &mut Child, name: &str, number: usize) {
    peer.send(&number.to_string());
    let start = format!("round {number} at ");
    let line = peer.wait_for_line(LONG, |line| line.starts_with(&start));
    let remote: u64 = line[start.len()..].trim().parse().unwrap();
    let segment = engine.open_segment(name, true).unwrap();
    let local = vec![0_u8; BUFFER];
    engine.register(address(&local), BUFFER as u64, "cpu:0").unwrap();
    let move_all = |direction: Direction| {
        let requests: Vec<Request> = (0..BUFFER / BLOCK)
            .map(|index| Request {
                direction,
                local: address(&local) + (index * BLOCK) as u64,
                segment,
                remote: remote + (index * BLOCK) as u64,
                length_bytes: BLOCK as u64,
            })
            .collect();
        engine.transfer(&requests, None, Some(LONG)).map_err(|failure| failure.error).unwrap();
    };
    for _ in 0..3 {
        move_all(Direction::Read);
        assert!(std::hint::black_box(&local) == &pattern(number), "round {number}: other bytes were read");
        move_all(Direction::Write);
    }
    let mut local = local;
    local.copy_from_slice(&pattern(number + 100));
    let local = std::hint::black_box(local);
    let requests = [Request {
        direction: Direction::Write,
        local: address(&local),
        segment,
        remote,
        length_bytes: BUFFER as u64,
    }];
    engine.transfer(&requests, None, Some(LONG)).map_err(|failure| failure.error).unwrap();
    peer.send("look");
    let start = format!("done {number} ");
    let line = peer.wait_for_line(LONG, |line| line.starts_with(&start));
    assert_eq!(&line[start.len()..], "true", "round {number}: other bytes were written");
    engine.unregister(address(&local)).unwrap();
}

#[test]
fn bytes_stay_right_while_pages_are_put_together() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "peer_process", "--nocapture", "--test-threads=1"]);
    command.env("HOST_HUGE_PAGES_PEER", "1");
    let mut peer = Child::start(&mut command);
    let line = peer.wait_for_line(LONG, |line| line.contains("ready "));
    let name = line.split_once("ready ").unwrap().1.split(' ').next().unwrap().to_owned();
    let engine = engine();
    let mut huge = 0;
    for number in 1..=4 {
        round(&engine, &mut peer, &name, number);
        huge = huge.max(huge_bytes(peer.id()));
    }
    if huge == 0 {
        mooncake_test_support::skip(
            "this kernel puts no pages together, so that nothing was in the way of the transfers",
        );
    }
}
