//! Engines that find each other by a metadata service: ours by itself, upstream's, and an etcd of the distribution.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

mod interop;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use interop::{LONG, NEWEST, Upstream, address, engine_at, missing, pattern, peers, python_of};
use mooncake::config::Config;
use mooncake::deadline::Deadline;
use mooncake::engine::{Direction, Engine, EngineOptions, Note, Request};
use mooncake::error::Code;
use mooncake::metadata;
use mooncake_test_support::{Child, artifacts, skip, wait_until};
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
    let port = free_port();
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
    let directory = peers(NEWEST)?;
    let port = free_port();
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

/// A store of keys and values by HTTP that can be told to refuse news.
struct Fickle {
    uri: String,
    refuses: Arc<AtomicBool>,
}

impl Fickle {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let uri = format!("http://127.0.0.1:{}/metadata", listener.local_addr().unwrap().port());
        let refuses = Arc::new(AtomicBool::new(false));
        let refused = Arc::clone(&refuses);
        let values: Arc<Mutex<HashMap<String, Vec<u8>>>> = Arc::default();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (refused, values) = (Arc::clone(&refused), Arc::clone(&values));
                std::thread::spawn(move || serve(stream, &refused, &values));
            }
        });
        Self { uri, refuses }
    }
}

/// One request after another, until the client goes.
fn serve(
    mut stream: TcpStream,
    refuses: &AtomicBool,
    values: &Mutex<HashMap<String, Vec<u8>>>,
) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let mut first = String::new();
        reader.read_line(&mut first).ok().filter(|length| *length > 0)?;
        let (mut length, mut line) = (0, String::new());
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).ok()?;
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let mut words = first.split(' ');
        let (method, key) = (words.next()?, words.next()?.to_owned());
        let mut values = values.lock().unwrap();
        let (status, answer) = match method {
            "PUT" if refuses.load(Ordering::SeqCst) => ("500 No", Vec::new()),
            "PUT" => (values.insert(key, body), ("200 OK", Vec::new())).1,
            "DELETE" => (values.remove(&key), ("200 OK", Vec::new())).1,
            _ => values.get(&key).map_or(("404 Not Found", Vec::new()), |value| ("200 OK", value.clone())),
        };
        drop(values);
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", answer.len());
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&answer)).ok()?;
    }
}

#[test]
fn a_service_that_takes_no_news_leaves_nothing_half_registered() {
    let service = Fickle::start();
    let (target, initiator) = (engine_at("target", &service.uri), engine_at("initiator", &service.uri));
    let (first, second, near) = (pattern(1, 5000), pattern(2, 5000), vec![0_u8; 5000]);
    target.register(address(&first), 5000, "*").unwrap();
    read(&initiator, "target", &near, address(&first)).unwrap();
    service.refuses.store(true, Ordering::SeqCst);
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
    service.refuses.store(false, Ordering::SeqCst);
    target.register(address(&second), 5000, "*").unwrap();
    read(&initiator, "target", &near, address(&second)).unwrap();
    assert!(std::hint::black_box(&near) == &second);
    target.close();
    initiator.close();
}
