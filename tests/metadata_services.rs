//! Engines that find each other by a metadata service: ours by itself, upstream's, and an etcd of the distribution.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

mod fickle;
mod interop;

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use fickle::Fickle;
use interop::{LONG, NEWEST, Upstream, address, engine_at, missing, pattern, peers, python_of};
use mooncake::config::Config;
use mooncake::deadline::Deadline;
use mooncake::engine::{Direction, Engine, EngineOptions, Note, Request};
use mooncake::error::Code;
use mooncake::metadata;
use mooncake_test_support::{Child, artifacts, loopback, skip, wait_until};
use serde_json::json;

/// A service and how engines are told of it. It ends with its value.
struct Service {
    uri: String,
    _child: Child,
    _scratch: Option<tempfile::TempDir>,
}

/// A port that was free a moment ago; the programs below cannot be told to choose one themselves.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Our own metadata server, part of the master.
fn ours() -> Option<Service> {
    ours_at(free_port())
}

fn ours_at(port: u16) -> Option<Service> {
    let mut command = Command::new(artifacts::program("mooncake_master"));
    command.args(["--rpc_port=0", "--port=0", "--metrics_port=0", "--rpc_address=127.0.0.1"]);
    command.args(["--metrics_host=127.0.0.1", "--enable_http_metadata_server"]);
    command.args([
        format!("--http_metadata_server_port={port}"),
        "--http_metadata_server_host=127.0.0.1".into(),
    ]);
    let child = Child::start(&mut command);
    let _line = child.wait_for_line(LONG, |line| line.contains("Master service started"));
    Some(Service { uri: format!("http://127.0.0.1:{port}/metadata"), _child: child, _scratch: None })
}

/// Upstream's.
fn theirs() -> Option<Service> {
    theirs_at(free_port())
}

fn theirs_at(port: u16) -> Option<Service> {
    let directory = peers(NEWEST)?;
    let mut command = python_of(&directory, NEWEST);
    command.args(["-m", "mooncake.http_metadata_server", "--host", "127.0.0.1", "--port", &port.to_string()]);
    let child = Child::start(&mut command);
    Some(started(format!("http://127.0.0.1:{port}/metadata"), child, None))
}

/// An etcd of the distribution.
fn etcd() -> Option<Service> {
    let program = etcd_program()?;
    let scratch = tempfile::tempdir().unwrap();
    let (client, peer) = (free_port(), free_port());
    let at = |port: u16| format!("http://127.0.0.1:{port}");
    let mut command = Command::new(program);
    command.arg("--data-dir").arg(scratch.path());
    command.args(["--listen-client-urls", &at(client), "--advertise-client-urls", &at(client)]);
    command.args(["--listen-peer-urls", &at(peer), "--initial-advertise-peer-urls", &at(peer)]);
    command.args(["--initial-cluster", &format!("default={}", at(peer))]);
    // Debian's is not released for every processor it runs on.
    command.env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH.replace("aarch64", "arm64"));
    let child = Child::start(&mut command);
    Some(started(format!("etcd://127.0.0.1:{client}"), child, Some(scratch)))
}

/// The system's etcd, or the distribution's package unpacked beside the other peers.
fn etcd_program() -> Option<PathBuf> {
    let profile = artifacts::profile_directory();
    let unpacked = profile.parent().unwrap().join("peers/etcd");
    let there = || {
        [PathBuf::from("/usr/bin/etcd"), unpacked.join("usr/bin/etcd")]
            .into_iter()
            .find(|path| path.is_file())
    };
    if let Some(program) = there() {
        return Some(program);
    }
    let scratch = tempfile::tempdir().unwrap();
    let script = "apt-get download --quiet etcd-server && dpkg --extract etcd-server*.deb \"$0\"";
    let mut command = Command::new("timeout");
    command.args(["120", "sh", "-c", script]).arg(&unpacked).current_dir(scratch.path());
    let _ = command.output();
    there()
}

/// Waits until the service answers.
fn started(uri: String, child: Child, scratch: Option<tempfile::TempDir>) -> Service {
    let store = metadata::connect(&uri, &Config::default()).unwrap();
    let answers = || {
        let outcome = store.fetch("nobody", Deadline::after(std::time::Duration::from_secs(1)));
        outcome.is_err_and(|error| error.to_string().contains("knows no such segment"))
    };
    assert!(wait_until(LONG, answers), "{uri} does not answer; it said:\n{}", child.output());
    Service { uri, _child: child, _scratch: scratch }
}

fn read(engine: &Engine, name: &str, near: &[u8], base: u64) -> Result<(), String> {
    let segment = engine.open_segment(name, true).map_err(|error| error.to_string())?;
    let length_bytes = near.len() as u64;
    let request =
        Request { direction: Direction::Read, segment, local: address(near), remote: base, length_bytes };
    engine.transfer(&[request], None, None).map_err(|failure| failure.error.to_string())
}

fn every_promise_of_a_service(service: &Service) {
    let uri = service.uri.as_str();
    let target = engine_at("target", uri);
    assert_eq!(target.name(), "target");
    let initiator = engine_at("pool/initiator:7", uri);
    assert_eq!(initiator.name(), "pool/initiator:7");
    let (far, near) = (pattern(1, 5000), vec![0_u8; 5000]);
    target.register(address(&far), 5000, "*").unwrap();
    read(&initiator, "target", &near, address(&far)).unwrap();
    assert!(std::hint::black_box(&near) == &far);
    assert!(initiator.open_segment("nobody", true).is_err_and(|error| error.code() == Code::Metadata));
    // Memory that is registered later is found; memory that was withdrawn is gone.
    let more = pattern(2, 5000);
    target.register(address(&more), 5000, "*").unwrap();
    read(&initiator, "target", &near, address(&more)).unwrap();
    assert!(std::hint::black_box(&near) == &more);
    target.unregister(address(&far)).unwrap();
    assert!(read(&initiator, "target", &near, address(&far)).unwrap_err().contains("address-not-registered"));
    // Notes and probes go to the place that the service names.
    initiator.probe("target").unwrap();
    let segment = initiator.open_segment("target", true).unwrap();
    initiator.send_note(segment, Note { name: "a".into(), message: "b".into() }).unwrap();
    assert_eq!(target.take_notes(), [Note { name: "a".into(), message: "b".into() }]);
    // The name of a living engine cannot be taken, that of one that has ended can.
    let again = || {
        Engine::new(EngineOptions {
            metadata: uri.into(),
            local_name: "target".into(),
            device: None,
            auto_discover: false,
            config: Config::default(),
        })
    };
    let taken = again().err().unwrap();
    assert!(taken.to_string().contains("the name is taken"), "{taken}");
    read(&initiator, "target", &near, address(&more)).unwrap();
    target.close();
    assert!(initiator.probe("target").is_err());
    let next = again().unwrap();
    let other = pattern(3, 5000);
    next.register(address(&other), 5000, "*").unwrap();
    let mut outcome = Ok(());
    assert!(
        wait_until(LONG, || {
            outcome = read(&initiator, "target", &near, address(&other));
            outcome.is_ok()
        }),
        "{outcome:?}"
    );
    assert!(std::hint::black_box(&near) == &other);
    // Another cluster's names are apart.
    let config = Config { cluster_id: Some("blue".into()), ..Config::default() };
    let blue = metadata::connect(uri, &config).unwrap();
    assert!(blue.fetch("target", Deadline::after(LONG)).is_err());
    next.close();
    let store = metadata::connect(uri, &Config::default()).unwrap();
    assert!(store.fetch("target", Deadline::after(LONG)).is_err(), "the descriptor went with its engine");
    assert!(store.locate("target", Deadline::after(LONG)).is_err());
    initiator.close();
}

fn upstream_shares(service: &Service) -> bool {
    let Some(mut peer) = Upstream::start_with(NEWEST, &["127.0.0.1", &service.uri, "17777"], &[]) else {
        return false;
    };
    let engine = engine_at("ours", &service.uri);
    let buffer = vec![0_u8; 4096];
    engine.register(address(&buffer), 4096, "*").unwrap();
    peer.ask(&json!(["fill", 1, 0, 4096]));
    assert_eq!(peer.ask(&json!(["write", "ours", 0, address(&buffer), 4096])), 0);
    assert!(std::hint::black_box(&buffer) == &pattern(1, 4096));
    peer.ask(&json!(["fill", 2, 0, 4096]));
    read(&engine, "127.0.0.1:17777", &buffer, peer.base).unwrap();
    assert!(std::hint::black_box(&buffer) == &pattern(2, 4096));
    engine.probe("127.0.0.1:17777").unwrap();
    let segment = engine.open_segment("127.0.0.1:17777", true).unwrap();
    engine.send_note(segment, Note { name: "n".into(), message: "m".into() }).unwrap();
    assert!(wait_until(LONG, || peer.ask(&json!(["notes"])) == json!([["n", "m"]])));
    // Upstream's metadata server, and ours in its place, refuse a killed engine's name to upstream's next one.
    if !service.uri.starts_with("etcd") {
        engine.close();
        return true;
    }
    // Started again it has the name and other ports, and nothing but the content of its descriptor tells so.
    peer.child.kill();
    assert!(read(&engine, "127.0.0.1:17777", &buffer, peer.base).is_err());
    let mut next = Upstream::start_with(NEWEST, &["127.0.0.1", &service.uri, "17777"], &[]).unwrap();
    next.ask(&json!(["fill", 3, 0, 4096]));
    let mut outcome = Ok(());
    let reached = wait_until(LONG, || {
        outcome = read(&engine, "127.0.0.1:17777", &buffer, next.base);
        outcome.is_ok()
    });
    assert!(reached, "{outcome:?}");
    assert!(std::hint::black_box(&buffer) == &pattern(3, 4096));
    engine.close();
    true
}

#[test]
fn by_our_own_metadata_server() {
    let service = ours().unwrap();
    every_promise_of_a_service(&service);
    if !upstream_shares(&service) {
        missing(NEWEST);
    }
}

#[test]
fn by_upstreams_metadata_server() {
    let Some(service) = theirs() else { return missing(NEWEST) };
    every_promise_of_a_service(&service);
    assert!(upstream_shares(&service));
}

#[test]
fn by_etcd() {
    let Some(service) = etcd() else { return skip("no etcd here, and its package cannot be had") };
    every_promise_of_a_service(&service);
    if !upstream_shares(&service) {
        missing(NEWEST);
    }
}

#[test]
fn a_service_that_forgot_everything_is_told_again() {
    for start in [ours_at, theirs_at] {
        let port = free_port();
        let Some(service) = start(port) else { return missing(NEWEST) };
        let uri = service.uri.clone();
        let (target, initiator) = (engine_at("target", &uri), engine_at("initiator", &uri));
        let (first, second, near) = (pattern(1, 5000), pattern(2, 5000), vec![0_u8; 5000]);
        target.register(address(&first), 5000, "*").unwrap();
        read(&initiator, "target", &near, address(&first)).unwrap();
        let own = vec![0_u8; 5000];
        target.register(address(&own), 5000, "*").unwrap();
        let mut upstream = Upstream::start_with(NEWEST, &["127.0.0.1", &uri, "17778"], &[]);
        let mut write = |seed: u64| {
            let Some(peer) = &mut upstream else { return };
            peer.ask(&json!(["fill", seed, 0, 5000]));
            assert_eq!(peer.ask(&json!(["write", "target", 0, address(&own), 5000])), 0);
            assert!(std::hint::black_box(&own) == &pattern(seed, 5000));
        };
        write(5);
        // Both keep everything in memory. Whether the port is free at once is the kernel's business.
        drop(service);
        let again = start(port).expect("it started before");
        let store = metadata::connect(&uri, &Config::default()).unwrap();
        assert!(store.fetch("target", Deadline::after(LONG)).is_err(), "it has forgotten");
        // Who knows each other needs no service.
        read(&initiator, "target", &near, address(&first)).unwrap();
        write(6);
        // The next registration says all of it again, so that newcomers find the engine, and its listener, too.
        target.register(address(&second), 5000, "*").unwrap();
        let newcomer = engine_at("newcomer", &uri);
        read(&newcomer, "target", &near, address(&second)).unwrap();
        assert!(std::hint::black_box(&near) == &second);
        read(&newcomer, "target", &near, address(&first)).unwrap();
        assert!(std::hint::black_box(&near) == &first);
        newcomer.probe("target").unwrap();
        if let Some(mut next) = Upstream::start_with(NEWEST, &["127.0.0.1", &uri, "17779"], &[]) {
            next.ask(&json!(["fill", 7, 0, 5000]));
            assert_eq!(next.ask(&json!(["write", "target", 0, address(&own), 5000])), 0);
            assert!(std::hint::black_box(&own) == &pattern(7, 5000));
            assert_eq!(next.ask(&json!(["probe", "target"])), 0);
        }
        for engine in [target, initiator, newcomer] {
            engine.close();
        }
        drop(again);
    }
}

#[test]
fn engines_of_both_kinds_that_start_again_are_found_by_their_names() {
    for start in [ours_at, theirs_at] {
        let Some(service) = start(free_port()) else { return missing(NEWEST) };
        let uri = service.uri.clone();
        let ours = engine_at("ours", &uri);
        let buffer = vec![0_u8; 4096];
        ours.register(address(&buffer), 4096, "*").unwrap();
        // Upstream asks once for a descriptor and keeps it for ever, unless it is told not to.
        let name = "127.0.0.1:17780";
        let upstream = || {
            let variables = [("MC_DISABLE_METACACHE", "1")];
            Upstream::start_with(NEWEST, &["127.0.0.1", &uri, "17780"], &variables)
        };
        let Some(mut old) = upstream() else { return missing(NEWEST) };
        old.ask(&json!(["fill", 1, 0, 4096]));
        read(&ours, name, &buffer, old.base).unwrap();
        assert!(std::hint::black_box(&buffer) == &pattern(1, 4096));
        // It takes its entries out when it ends in good order. After a crash neither service lets it have its name
        // again: they refuse to overwrite where an engine listens, and it does not remove that itself.
        old.child.close_input();
        assert!(old.child.wait(LONG).success(), "{}", old.child.output());
        assert!(read(&ours, name, &buffer, old.base).is_err());
        let mut new = upstream().unwrap();
        new.ask(&json!(["fill", 2, 0, 4096]));
        let mut outcome = Ok(());
        let reached = wait_until(LONG, || {
            outcome = read(&ours, name, &buffer, new.base);
            outcome.is_ok()
        });
        assert!(reached, "{outcome:?}");
        assert!(std::hint::black_box(&buffer) == &pattern(2, 4096));
        // The other way round: ours ends, and comes back with the name and other ports.
        new.ask(&json!(["fill", 3, 0, 4096]));
        assert_eq!(new.ask(&json!(["write", "ours", 0, address(&buffer), 4096])), 0);
        assert!(std::hint::black_box(&buffer) == &pattern(3, 4096));
        ours.close();
        assert_ne!(new.ask(&json!(["write", "ours", 0, address(&buffer), 4096])), 0);
        let next = engine_at("ours", &uri);
        let other = vec![0_u8; 4096];
        next.register(address(&other), 4096, "*").unwrap();
        new.ask(&json!(["fill", 4, 0, 4096]));
        assert!(wait_until(LONG, || new.ask(&json!(["write", "ours", 0, address(&other), 4096])) == 0));
        assert!(std::hint::black_box(&other) == &pattern(4, 4096));
        assert!(std::hint::black_box(&buffer) == &pattern(3, 4096), "what only the old one had");
        next.close();
    }
}

#[test]
fn a_service_that_does_not_answer_is_named_in_time() {
    let port = free_port();
    let started = std::time::Instant::now();
    for uri in [format!("http://127.0.0.1:{port}/metadata"), format!("etcd://127.0.0.1:{port}")] {
        let error = Engine::new(EngineOptions {
            metadata: uri,
            local_name: "alone".into(),
            device: None,
            auto_discover: false,
            config: Config::default(),
        })
        .err()
        .unwrap();
        assert_eq!(error.code(), Code::Metadata, "{error}");
        assert!(error.to_string().contains(&port.to_string()), "{error}");
    }
    assert!(started.elapsed() < std::time::Duration::from_secs(20));
}

/// What upstream's engine was recorded to change in an HTTP service, from its start to its end, with one registration:
/// the keys as they are written in the request, in order.
const RECORDED: [&str; 5] = [
    "PUT /metadata?key=mooncake%2Frpc_meta%2Fininame%3A17777",
    "PUT /metadata?key=mooncake%2Fram%2Fininame%3A17777",
    "PUT /metadata?key=mooncake%2Fram%2Fininame%3A17777",
    "DELETE /metadata?key=mooncake%2Frpc_meta%2Fininame%3A17777",
    "DELETE /metadata?key=mooncake%2Fram%2Fininame%3A17777",
];

#[test]
fn a_service_is_told_what_upstream_was_recorded_to_tell() {
    let service = Fickle::start();
    let engine = engine_at("ininame:17777", &service.uri);
    let port = engine.rpc_port();
    let buffer = pattern(1, 65_536);
    engine.register(address(&buffer), 65_536, "*").unwrap();
    engine.close();
    let changes = service.changes();
    assert_eq!(changes.iter().map(|(request, _)| request.as_str()).collect::<Vec<_>>(), RECORDED);
    let (_, place) = &changes[0];
    let host = loopback::host();
    assert_eq!(*place, format!(r#"{{"ip_or_host_name":"{host}","rpc_port":{port}}}"#));
    // Upstream's keys stand in the same order, with values of the same kinds; ours is one object more.
    let recorded = r#"{"buffers":[{"addr":0,"length":65536,"name":"ininame:17777"}],"name":"ininame:17777","protocol":"tcp","rdma_server_name":"","tcp_data_host":"127.0.0.1","tcp_data_port":0,"tcp_proto_version":2,"timestamp":""}"#;
    let recorded: serde_json::Value = serde_json::from_str(recorded).unwrap();
    let mut told: serde_json::Value = serde_json::from_str(&changes[2].1).unwrap();
    assert!(told.as_object_mut().unwrap().shift_remove("mooncake_transfer").is_some());
    assert_eq!(told["buffers"][0]["addr"], address(&buffer));
    assert!(told["tcp_data_port"].as_u64().is_some_and(|port| port > 0));
    assert!(told["timestamp"].as_str().is_some_and(|time| time.len() == "2026-11-22 09:34:12.853961".len()));
    assert_eq!(told["tcp_data_host"], host);
    told["tcp_data_host"] = "127.0.0.1".into();
    told["buffers"][0]["addr"] = 0.into();
    told["tcp_data_port"] = 0.into();
    told["timestamp"] = "".into();
    assert_eq!(told.to_string(), recorded.to_string());
    assert!(!changes[2].1.ends_with('\n'), "compact, and without the line feed of the other stores");
}

#[test]
fn a_service_that_takes_no_news_leaves_nothing_half_registered() {
    let service = Fickle::start();
    let (target, initiator) = (engine_at("target", &service.uri), engine_at("initiator", &service.uri));
    let (first, second, near) = (pattern(1, 5000), pattern(2, 5000), vec![0_u8; 5000]);
    target.register(address(&first), 5000, "*").unwrap();
    read(&initiator, "target", &near, address(&first)).unwrap();
    service.refuse(true);
    // An error means that nothing is registered: not for peers, not for the engine, and again once the service is well.
    let error = target.register(address(&second), 5000, "*").unwrap_err();
    assert_eq!(error.code(), Code::Metadata, "{error}");
    assert!(
        read(&initiator, "target", &near, address(&second)).unwrap_err().contains("address-not-registered")
    );
    let error = target.unregister(address(&second)).unwrap_err();
    assert_eq!(error.code(), Code::AddressNotRegistered, "{error}");
    // What is withdrawn is withdrawn, whatever the service still says.
    target.unregister(address(&first)).unwrap();
    assert!(read(&initiator, "target", &near, address(&first)).is_err());
    service.refuse(false);
    target.register(address(&second), 5000, "*").unwrap();
    read(&initiator, "target", &near, address(&second)).unwrap();
    assert!(std::hint::black_box(&near) == &second);
    target.close();
    initiator.close();
}
