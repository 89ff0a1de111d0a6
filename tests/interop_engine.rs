//! Upstream's released engine as a real peer: its initiator to our target and ours to its target.
//!
//! The wheels are made by `tests/interop/make_peers.sh`, which the first test runs when they are not there; a
//! machine that cannot have them skips, and the skip is counted.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

mod interop;

use std::time::Duration;

use interop::{LONG, NEWEST, Upstream, address, engine, missing, pattern};
use mooncake::config::Config;
use mooncake::engine::{Direction, Engine, EngineOptions, Note, Request};
use mooncake::error::Code;
use mooncake_test_support::wait_until;
use serde_json::json;

/// Ours is the initiator.
fn ours_to_theirs(release: &str, host: &str, variables: &[(&str, &str)]) -> bool {
    let Some(mut peer) = Upstream::start(release, host, variables) else { return false };
    let engine = engine(host);
    let segment = engine.open_segment(&peer.name, true).unwrap();
    let transfer = |direction, blocks: &[(u64, u64, u64)]| {
        let requests: Vec<_> = blocks
            .iter()
            .map(|&(local, remote, length_bytes)| Request { direction, segment, local, remote, length_bytes })
            .collect();
        engine.transfer(&requests, None, None).map_err(|failure| failure.error)
    };
    for (seed, length) in [(1, 1_usize), (2, 4096), (3, 3 << 20)] {
        let source = pattern(seed, length);
        let back = vec![0_u8; length];
        transfer(Direction::Write, &[(address(&source), peer.base + 99, length as u64)]).unwrap();
        // Version 1 proves nothing: the bytes may still be on their way.
        assert!(
            wait_until(LONG, || peer.ask(&json!(["check", seed, 99, length])) == json!(true)),
            "{release} {length}"
        );
        transfer(Direction::Read, &[(address(&back), peer.base + 99, length as u64)]).unwrap();
        assert!(std::hint::black_box(&back) == &source, "{release} {length}");
    }
    peer.ask(&json!(["fill", 4, 0, 64 * 4096]));
    let near = vec![0_u8; 64 * 4096];
    let blocks: Vec<_> =
        (0..64).map(|index| (address(&near) + index * 4096, peer.base + (63 - index) * 4096, 4096)).collect();
    transfer(Direction::Read, &blocks).unwrap();
    let (near, expected) = (std::hint::black_box(near), pattern(4, 64 * 4096));
    assert!(near.chunks(4096).eq(expected.chunks(4096).rev()), "{release}: a batch");
    let refused = transfer(Direction::Read, &[(address(&near), 0x1000, 64)]).unwrap_err();
    assert_eq!(refused.code(), Code::AddressNotRegistered, "{refused}");
    transfer(Direction::Read, &[(address(&near), peer.base, 64)]).unwrap();
    engine.close();
    true
}

/// Theirs is the initiator.
fn theirs_to_ours(release: &str, host: &str, variables: &[(&str, &str)]) -> bool {
    let Some(mut peer) = Upstream::start(release, host, variables) else { return false };
    let engine = engine(host);
    let buffer = vec![0_u8; 8 << 20];
    let base = address(&buffer);
    engine.register(base, 8 << 20, "*").unwrap();
    let name = engine.name().to_owned();
    let here =
        |offset: usize, length: usize| std::hint::black_box(&buffer).get(offset..offset + length).unwrap();
    for (seed, length) in [(1, 1_usize), (2, 4096), (3, 3 << 20)] {
        peer.ask(&json!(["fill", seed, 0, length]));
        assert_eq!(peer.ask(&json!(["write", name, 0, base + 77, length])), 0, "{release} {length}");
        // Version 1 proves nothing: the bytes may still be on their way.
        assert!(wait_until(LONG, || here(77, length) == pattern(seed, length)), "{release} {length}");
        assert_eq!(peer.ask(&json!(["read", name, 4 << 20, base + 77, length])), 0);
        assert_eq!(peer.ask(&json!(["check", seed, 4 << 20, length])), true, "{release} {length}");
    }
    let offsets: Vec<u64> = (0..32).map(|index| index * 8192).collect();
    let remotes: Vec<u64> = offsets.iter().rev().map(|offset| base + offset).collect();
    let lengths = vec![8192; 32];
    peer.ask(&json!(["fill", 5, 0, 32 * 8192]));
    for command in ["batch_write", "async_write"] {
        let answer = peer.ask(&json!([command, name, offsets, remotes, lengths]));
        assert_eq!(answer, 0, "{release} {command}");
        let expected = pattern(5, 32 * 8192);
        assert!(
            wait_until(LONG, || here(0, 32 * 8192).chunks(8192).eq(expected.chunks(8192).rev())),
            "{release}"
        );
    }
    assert_eq!(peer.ask(&json!(["first_buffer", name])), base);
    // What is not registered stays as it is; releases with status frames learn of it.
    let untouched = pattern(6, 4096);
    let answer = peer.ask(&json!(["write", name, 0, address(&untouched), 4096]));
    assert!(untouched == pattern(6, 4096), "{release}");
    if release == NEWEST && variables.is_empty() {
        assert_eq!(answer, -1);
    }
    // Upstream keeps a lane it was refused on in version 1, and finds out with the next request.
    let first = peer.ask(&json!(["read", name, 0, base, 64]));
    if variables != [("MC_TCP_PROTO", "1")] {
        assert_eq!(first, 0, "{release} {variables:?}: the next request is served");
    }
    assert_eq!(peer.ask(&json!(["read", name, 0, base, 64])), 0, "{release} {variables:?}");
    engine.close();
    true
}

#[test]
fn ours_reads_and_writes_the_newest() {
    for host in ["127.0.0.1", "localhost"] {
        if !ours_to_theirs(NEWEST, host, &[]) {
            return missing(NEWEST);
        }
    }
}

#[test]
fn the_newest_reads_and_writes_ours() {
    // Pooled lanes, a connection for each request, and its first version of the protocol.
    for variables in [&[][..], &[("MC_TCP_ENABLE_CONNECTION_POOL", "0")], &[("MC_TCP_PROTO", "1")]] {
        if !theirs_to_ours(NEWEST, "127.0.0.1", variables) {
            return missing(NEWEST);
        }
    }
}

#[test]
fn both_ways_over_ipv6() {
    let variables = [("MC_USE_IPV6", "1")];
    if !ours_to_theirs(NEWEST, "::1", &variables) || !theirs_to_ours(NEWEST, "::1", &variables) {
        missing(NEWEST);
    }
}

#[test]
fn both_ways_with_0_3_10_post2() {
    let release = "0.3.10.post2";
    // It checks no address and dies of a wrong one: ours must not send any.
    if !ours_to_theirs(release, "127.0.0.1", &[]) || !theirs_to_ours(release, "127.0.0.1", &[]) {
        missing(release);
    }
}

#[test]
fn both_ways_with_0_3_8() {
    let release = "0.3.8";
    // It checks no address and dies of a wrong one: ours must not send any.
    if !ours_to_theirs(release, "127.0.0.1", &[]) || !theirs_to_ours(release, "127.0.0.1", &[]) {
        missing(release);
    }
}

#[test]
fn notes_and_probes_go_both_ways() {
    let Some(mut peer) = Upstream::start(NEWEST, "127.0.0.1", &[]) else {
        return missing(NEWEST);
    };
    let engine = engine("127.0.0.1");
    let buffer = vec![0_u8; 4096];
    engine.register(address(&buffer), 4096, "cpu:0").unwrap();
    engine.probe(&peer.name).unwrap();
    assert_eq!(peer.ask(&json!(["probe", engine.name()])), 0);
    let segment = engine.open_segment(&peer.name, true).unwrap();
    engine.send_note(segment, Note { name: "ours".into(), message: "by itself".into() }).unwrap();
    let source = pattern(1, 64);
    let request = Request {
        direction: Direction::Write,
        segment,
        local: address(&source),
        remote: peer.base,
        length_bytes: 64,
    };
    engine
        .transfer(&[request], Some(Note { name: "ours".into(), message: "attached".into() }), None)
        .unwrap();
    let mut notes = Vec::new();
    assert!(wait_until(LONG, || {
        notes.extend(peer.ask(&json!(["notes"])).as_array().unwrap().clone());
        notes.len() == 2
    }));
    assert_eq!(json!(notes), json!([["ours", "by itself"], ["ours", "attached"]]));
    let name = engine.name();
    let answer = peer.ask(&json!(["notify", name, 0, address(&buffer), 64, "theirs", "with bytes"]));
    assert_eq!(answer, 0);
    let mut notes = Vec::new();
    assert!(wait_until(LONG, || {
        notes.extend(engine.take_notes());
        !notes.is_empty()
    }));
    assert_eq!(notes, [Note { name: "theirs".into(), message: "with bytes".into() }]);
}

#[test]
fn a_peer_that_ends_is_an_error_soon_and_its_successor_is_reached() {
    // Upstream cannot take its old port again while the kernel remembers connections of it, so that the
    // successor has another name.
    let Some(mut old) = Upstream::start(NEWEST, "127.0.0.1", &[]) else { return missing(NEWEST) };
    let initiator = engine("127.0.0.1");
    let near = vec![0_u8; 4096];
    let read = |peer: &Upstream| {
        let segment = initiator.open_segment(&peer.name, true).map_err(|error| error.to_string())?;
        let request = Request {
            direction: Direction::Read,
            segment,
            local: address(&near),
            remote: peer.base,
            length_bytes: 4096,
        };
        initiator.transfer(&[request], None, None).map_err(|failure| failure.error.to_string())
    };
    old.ask(&json!(["fill", 1, 0, 4096]));
    read(&old).unwrap();
    assert!(std::hint::black_box(&near) == &pattern(1, 4096));
    old.child.kill();
    let started = std::time::Instant::now();
    for _ in 0..3 {
        assert!(read(&old).unwrap_err().contains(&old.name));
    }
    assert!(started.elapsed() < Duration::from_secs(20));
    let mut new = Upstream::start(NEWEST, "127.0.0.1", &[]).unwrap();
    new.ask(&json!(["fill", 2, 0, 4096]));
    read(&new).unwrap();
    assert!(std::hint::black_box(&near) == &pattern(2, 4096));
    // Theirs reaches each of our engines, one after the other's end.
    for seed in [3, 4] {
        let target = engine("127.0.0.1");
        let buffer = vec![0_u8; 4096];
        target.register(address(&buffer), 4096, "*").unwrap();
        new.ask(&json!(["fill", seed, 0, 4096]));
        assert_eq!(new.ask(&json!(["write", target.name(), 0, address(&buffer), 4096])), 0);
        assert!(std::hint::black_box(&buffer) == &pattern(seed, 4096));
        target.close();
        assert_ne!(new.ask(&json!(["write", target.name(), 0, address(&buffer), 4096])), 0);
    }
}

/// Where an engine of ours serves data.
fn data_port(name: &str) -> u16 {
    let metadata = mooncake::metadata::connect("P2PHANDSHAKE", &Config::default()).unwrap();
    metadata.fetch(name, mooncake::deadline::Deadline::after(LONG)).unwrap().tcp_data_port
}

#[test]
fn our_engine_started_again_on_its_ports_is_reached_by_theirs() {
    // Upstream keeps the first descriptor of a name for ever, so that a successor has to have the data port, too.
    let Some(mut peer) = Upstream::start(NEWEST, "127.0.0.1", &[]) else { return missing(NEWEST) };
    let first = 20_500 + (std::process::id() % 900) as u16 * 3;
    let start = || {
        let config = Config { rpc_port_min: first, rpc_port_max: first + 2, ..Config::default() };
        Engine::new(EngineOptions {
            metadata: "P2PHANDSHAKE".into(),
            local_name: "127.0.0.1".into(),
            device: None,
            auto_discover: false,
            config,
        })
        .ok()
    };
    let old = start().expect("three free ports");
    let (name, port) = (old.name().to_owned(), data_port(old.name()));
    let before = vec![0_u8; 4096];
    old.register(address(&before), 4096, "*").unwrap();
    peer.ask(&json!(["fill", 1, 0, 4096]));
    assert_eq!(peer.ask(&json!(["write", name, 0, address(&before), 4096])), 0);
    assert!(std::hint::black_box(&before) == &pattern(1, 4096));
    old.close();
    drop(old);
    let mut new = None;
    assert!(wait_until(LONG, || {
        new = start().filter(|engine| engine.name() == name && data_port(engine.name()) == port);
        new.is_some()
    }));
    let new = new.unwrap();
    let after = vec![0_u8; 4096];
    new.register(address(&after), 4096, "*").unwrap();
    peer.ask(&json!(["fill", 2, 0, 4096]));
    // A connection that upstream has kept is found dead by its first use.
    assert!(wait_until(LONG, || peer.ask(&json!(["write", name, 0, address(&after), 4096])) == 0));
    assert!(std::hint::black_box(&after) == &pattern(2, 4096));
    assert_ne!(peer.ask(&json!(["write", name, 0, address(&before), 4096])), 0, "what only the old one had");
    assert!(std::hint::black_box(&before) == &pattern(1, 4096));
    new.close();
}
