//! Upstream's settings of how a peer's descriptor is kept, and of the address under a metadata service.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

use std::io::{BufRead, BufReader, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mooncake::config::Config;
use mooncake::engine::{Direction, Engine, EngineOptions, Request};
use mooncake_test_support::{loopback, wait_until};

const LONG: Duration = Duration::from_secs(30);

fn engine(metadata: &str, name: &str, config: Config) -> Arc<Engine> {
    Engine::new(EngineOptions {
        metadata: metadata.into(),
        local_name: name.into(),
        device: None,
        auto_discover: false,
        config,
    })
    .unwrap()
}

/// How often an engine was asked for its descriptor.
fn asked(engine: &Engine) -> u64 {
    let text = engine.metrics_text();
    let line =
        text.lines().find(|line| line.starts_with("mooncake_transfer_handshakes_served_total")).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn without_a_cache_every_transfer_asks_again() {
    for no_metadata_cache in [false, true] {
        let target = engine("P2PHANDSHAKE", &loopback::host(), Config::default());
        let initiator =
            engine("P2PHANDSHAKE", &loopback::host(), Config { no_metadata_cache, ..Config::default() });
        let (far, near) = (vec![7_u8; 4096], vec![0_u8; 4096]);
        let address = |bytes: &[u8]| u64::try_from(bytes.as_ptr().expose_provenance()).unwrap();
        target.register(address(&far), 4096, "cpu:0").unwrap();
        let segment = initiator.open_segment(target.name(), true).unwrap();
        let read = || {
            let (local, remote) = (address(&near), address(&far));
            let request = Request { direction: Direction::Read, segment, local, remote, length_bytes: 4096 };
            initiator.transfer(&[request], None, None).unwrap();
        };
        read();
        let before = asked(&target);
        (0..5).for_each(|_| read());
        assert!(std::hint::black_box(&near) == &far);
        assert_eq!(asked(&target) - before, if no_metadata_cache { 5 } else { 0 });
        initiator.open_segment(target.name(), true).unwrap();
        assert_eq!(asked(&target) - before, if no_metadata_cache { 6 } else { 0 });
        initiator.close();
        target.close();
    }
}

#[test]
fn descriptors_are_asked_for_again_in_the_background() {
    let target = engine("P2PHANDSHAKE", &loopback::host(), Config::default());
    let interval = Duration::from_millis(10);
    let config = Config { metadata_refresh_interval: Some(interval), ..Config::default() };
    let initiator = engine("P2PHANDSHAKE", &loopback::host(), config);
    initiator.open_segment(target.name(), true).unwrap();
    let before = asked(&target);
    assert!(wait_until(LONG, || asked(&target) >= before + 3));
    // An engine that closes does not wait for the interval, however long it is.
    let config = Config { metadata_refresh_interval: Some(LONG * 100), ..Config::default() };
    let patient = engine("P2PHANDSHAKE", &loopback::host(), config);
    let started = Instant::now();
    patient.close();
    assert!(started.elapsed() < LONG);
    initiator.close();
    target.close();
}

/// Takes whatever is put and knows nothing: enough for an engine to start.
fn service() -> String {
    let listener = loopback::listen();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let (mut line, mut length, mut first) = (String::new(), 0, String::new());
            while stream.read_line(&mut line).is_ok_and(|count| count > 2) {
                if first.is_empty() {
                    first.clone_from(&line);
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            let _ = std::io::Read::read_exact(&mut stream, &mut body);
            let answer = if first.starts_with("GET") {
                "HTTP/1.1 404 Not Found\r\nContent-Length: 18\r\nConnection: close\r\n\r\nmetadata not found"
            } else {
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
            };
            let _ = stream.get_mut().write_all(answer.as_bytes());
        }
    });
    format!("http://{}/metadata", loopback::session(port))
}

#[test]
fn the_port_of_the_name_is_bound_where_upstream_is_told_to() {
    let uri = service();
    let mut outcome = None;
    assert!(
        wait_until(LONG, || {
            // It may be taken by somebody else before the engine has it.
            let port = loopback::listen().local_addr().unwrap().port();
            let options = EngineOptions {
                metadata: uri.clone(),
                local_name: loopback::session(port),
                device: None,
                auto_discover: false,
                config: Config { legacy_rpc_port: true, ..Config::default() },
            };
            outcome = Engine::new(options).ok().map(|engine| (port, engine));
            outcome.is_some()
        }),
        "no port could be bound"
    );
    let (port, engine_there) = outcome.unwrap();
    assert_eq!(engine_there.host_and_port(), (loopback::host(), port));
    engine_there.close();
    let free = engine(&uri, &loopback::session(7), Config::default());
    assert_ne!(free.rpc_port(), 7, "without the variable the port comes from the range");
    free.close();
}
