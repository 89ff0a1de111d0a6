//! The handshake listener answers as upstream's does, byte for byte where it was captured, and nobody who speaks
//! nonsense, too slowly or not at all holds up anybody else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mooncake::config::Config;
use mooncake::deadline::Deadline;
use mooncake::endpoint::Endpoint;
use mooncake::error::{Code, Error, Result, Stage};
use mooncake::handshake::{Listener, Responder, fetch_descriptor, probe, send_notify};
use mooncake::metadata;
use mooncake::notify::{Note, NoteQueue};
use mooncake_test_support::loopback;
use proptest::prelude::*;

const LONG: Duration = Duration::from_secs(20);
const DESCRIPTOR: &[u8] = include_bytes!("golden/descriptors/tcp-0.3.13.post1.json");
const EMPTY_ENDPOINT: &[u8] = b"{\"local_gid\":\"\",\"local_lid\":0,\"local_nic_path\":\"\",\"payload\":\"\",\"peer_nic_path\":\"\",\"qp_num\":[],\"reply_msg\":\"\"}\n";
const NOTE_TAKEN: &[u8] = b"{\"name\":\"\",\"notify_msg\":\"success\"}\n";
const ALIVE: &[u8] = b"{\"status\":\"success\"}\n";

struct Engine {
    notes: NoteQueue,
    descriptor: Vec<u8>,
}

impl Responder for Engine {
    fn descriptor(&self) -> Vec<u8> {
        self.descriptor.clone()
    }

    fn notify(&self, note: Note) -> Result<()> {
        if note.name == "refuse" {
            return Err(Error::new(Code::TooManyRequests, Stage::Handshake, "scripted"));
        }
        self.notes.push(note)
    }
}

fn serve(config: &Config, descriptor: &[u8]) -> (Listener, Arc<Engine>) {
    let engine = Arc::new(Engine { notes: NoteQueue::new(100), descriptor: descriptor.to_vec() });
    let binding = Listener::bind(config).unwrap();
    let listener = binding.serve(Arc::clone(&engine) as Arc<dyn Responder>).unwrap();
    (listener, engine)
}

fn quick() -> Config {
    Config { handshake_session_timeout: Duration::from_millis(300), ..Config::default() }
}

fn endpoint(listener: &Listener) -> Endpoint {
    Endpoint::new(&loopback::host(), Some(listener.port())).unwrap()
}

fn soon() -> Deadline {
    Deadline::after(LONG)
}

fn open(listener: &Listener) -> TcpStream {
    let stream = loopback::connect(listener.port());
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

/// Sends raw bytes and reads to the end. A reset counts as the end, as a listener may drop unread input.
fn exchange(listener: &Listener, bytes: &[u8]) -> Vec<u8> {
    let mut stream = open(listener);
    let _ = stream.write_all(bytes);
    read_to_end(&mut stream)
}

fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut reply = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return reply,
            Ok(count) => reply.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return reply,
            Err(error) => panic!("the listener neither answers nor closes: {error}"),
        }
    }
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as u64 + 1).to_le_bytes().to_vec();
    bytes.push(kind);
    bytes.extend_from_slice(body);
    bytes
}

#[test]
fn every_type_is_answered_as_upstream_answers_it() {
    let (listener, engine) = serve(&Config::default(), DESCRIPTOR);
    for (kind, body, reply) in [
        (1, &b"{}\n"[..], DESCRIPTOR),
        (1, b"null", DESCRIPTOR),
        (1, DESCRIPTOR, DESCRIPTOR),
        (2, b"{\"name\":\"agentA\",\"notify_msg\":\"msg-body\"}\n", NOTE_TAKEN),
        (2, b"{}", NOTE_TAKEN),
        (3, b"{}\n", ALIVE),
        (3, b"{ } \n trailing garbage", ALIVE),
        (3, b"/* a */ { // b\n }", ALIVE),
        (0, b"{}\n", EMPTY_ENDPOINT),
    ] {
        let seen = exchange(&listener, &frame(kind, body));
        assert_eq!(seen, frame(kind, reply), "type {kind}, {:?}", String::from_utf8_lossy(body));
    }
    let note = Note { name: "agentA".into(), message: "msg-body".into() };
    assert_eq!(engine.notes.drain(), [note, Note::default()]);
}

#[test]
fn the_oldest_protocol_without_a_type_is_answered_without_one() {
    let (listener, _) = serve(&Config::default(), DESCRIPTOR);
    let mut request = 3u64.to_le_bytes().to_vec();
    request.extend_from_slice(b"{}\n");
    let mut reply = (EMPTY_ENDPOINT.len() as u64).to_le_bytes().to_vec();
    reply.extend_from_slice(EMPTY_ENDPOINT);
    assert_eq!(exchange(&listener, &request), reply);
}

#[test]
fn what_upstream_closes_on_is_closed_on_without_a_reply() {
    let (listener, engine) = serve(&Config::default(), DESCRIPTOR);
    let length = |length: u64| length.to_le_bytes().to_vec();
    for bytes in [
        length(0),
        length((1 << 20) + 1),
        length(u64::MAX),
        frame(1, b""),
        frame(1, b"garbage"),
        frame(3, b"{\"a\":"),
        frame(4, b"{}\n"),
        frame(0x7f, b"{}\n"),
        frame(0x80, b"{}\n"),
        frame(0xff, b"{}\n"),
        frame(2, b"[1]"),
        frame(2, b"{\"name\":7}"),
        frame(2, b"{\"name\":\"refuse\"}"),
        frame(1, "[".repeat(1 << 19).as_bytes()),
    ] {
        let seen = exchange(&listener, &bytes);
        assert!(
            seen.is_empty(),
            "{:?} to {:?}",
            String::from_utf8_lossy(&seen),
            &bytes[..bytes.len().min(20)]
        );
    }
    assert!(engine.notes.drain().is_empty());
    probe(&endpoint(&listener), &Config::default(), soon()).unwrap();
}

#[test]
fn the_greatest_length_is_still_taken() {
    let (listener, _) = serve(&Config::default(), DESCRIPTOR);
    let mut body = b"{}".to_vec();
    body.resize((1 << 20) - 1, b' ');
    assert_eq!(exchange(&listener, &frame(3, &body)), frame(3, ALIVE));
}

#[test]
fn the_reply_is_followed_by_the_end_of_the_stream_at_once() {
    // Upstream's client reads one frame, others read to the end: neither waits for a timeout.
    let (listener, _) = serve(&Config { handshake_session_timeout: LONG, ..Config::default() }, DESCRIPTOR);
    let before = Instant::now();
    assert_eq!(exchange(&listener, &frame(3, b"{}")), frame(3, ALIVE));
    assert!(before.elapsed() < LONG);
}

#[test]
fn silent_slow_and_lingering_clients_hold_up_nobody() {
    // Their time is long enough to show that the others do not wait for it.
    let config = Config { handshake_session_timeout: LONG, ..Config::default() };
    let (listener, _) = serve(&config, DESCRIPTOR);
    let mut kept = Vec::new();
    for number in 0..60 {
        let mut stream = open(&listener);
        match number % 4 {
            0 => {}
            1 => stream.write_all(&[1, 2, 3]).unwrap(),
            2 => stream.write_all(&frame(1, b"{}")[..10]).unwrap(),
            _ => stream.write_all(&frame(1, b"{}")).unwrap(),
        }
        kept.push(stream);
    }
    let before = Instant::now();
    for _ in 0..50 {
        probe(&endpoint(&listener), &Config::default(), soon()).unwrap();
    }
    assert!(before.elapsed() < LONG / 2, "{:?}", before.elapsed());
    drop(kept);
}

#[test]
fn a_client_that_does_not_go_on_is_closed_in_bounded_time() {
    let (listener, _) = serve(&quick(), DESCRIPTOR);
    for bytes in [&b""[..], b"\x01", &frame(1, b"{}")[..9]] {
        let mut stream = open(&listener);
        stream.write_all(bytes).unwrap();
        assert!(read_to_end(&mut stream).is_empty());
    }
    // One byte at a time does not prolong it.
    let mut stream = open(&listener);
    let mut endless = frame(1, &[b' '; 100_000]).into_iter();
    let before = Instant::now();
    for byte in endless.by_ref() {
        if stream.write_all(&[byte]).is_err() {
            break;
        }
        std::thread::yield_now();
        std::thread::sleep(Duration::from_millis(1));
        assert!(before.elapsed() < LONG, "still taken");
    }
    assert!(endless.next().is_some());
}

#[test]
fn more_clients_than_places_displace_the_oldest() {
    let config = Config { handshake_max_sessions: 8, handshake_session_timeout: LONG, ..Config::default() };
    let (listener, _) = serve(&config, DESCRIPTOR);
    let mut silent: Vec<TcpStream> = (0..50).map(|_| open(&listener)).collect();
    probe(&endpoint(&listener), &Config::default(), soon()).unwrap();
    assert!(read_to_end(&mut silent[0]).is_empty(), "the first has been closed");
}

#[test]
fn a_client_that_half_closes_after_its_request_gets_the_reply() {
    let (listener, _) = serve(&Config::default(), DESCRIPTOR);
    let mut stream = open(&listener);
    stream.write_all(&frame(1, b"{}\n")).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut stream), frame(1, DESCRIPTOR));
}

#[test]
fn a_large_descriptor_arrives_whole() {
    let large = vec![b' '; (1 << 20) - 2];
    let mut descriptor = b"{".to_vec();
    descriptor.extend_from_slice(&large[..large.len() - 1]);
    descriptor.push(b'}');
    let (listener, _) = serve(&Config::default(), &descriptor);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let seen = fetch_descriptor(&endpoint(&listener), b"", &Config::default(), soon()).unwrap();
                assert_eq!(seen.len(), descriptor.len());
            });
        }
    });
}

#[test]
fn the_client_asks_a_listener() {
    let config = Config::default();
    let (listener, engine) = serve(&config, DESCRIPTOR);
    let peer = endpoint(&listener);
    assert_eq!(fetch_descriptor(&peer, DESCRIPTOR, &config, soon()).unwrap(), DESCRIPTOR);
    let long = vec![b' '; 2 << 20];
    assert_eq!(
        fetch_descriptor(&peer, &long, &config, soon()).unwrap(),
        DESCRIPTOR,
        "its own is not sent then"
    );
    let note = Note { name: "n".into(), message: "ünïcode \" \n".into() };
    send_notify(&peer, &note, &config, soon()).unwrap();
    assert_eq!(engine.notes.drain(), [note]);
    send_notify(&peer, &Note::default(), &config, soon()).unwrap();
    let refused = Note { name: "refuse".into(), message: String::new() };
    let error = send_notify(&peer, &refused, &config, soon()).unwrap_err();
    assert_eq!(error.code(), Code::Socket, "{error}");
    let metadata = metadata::connect("P2PHANDSHAKE", &config).unwrap();
    let descriptor = metadata.fetch(&peer.session(), soon()).unwrap();
    assert_eq!(descriptor.tcp_data_port, 21171);
}

#[test]
fn a_peer_without_a_segment_is_an_error_by_name() {
    let config = Config::default();
    let (listener, _) = serve(&config, b"null\n");
    let name = endpoint(&listener).session();
    let error = metadata::connect("P2PHANDSHAKE", &config).unwrap().fetch(&name, soon()).unwrap_err();
    assert_eq!(error.code(), Code::Metadata);
    assert_eq!(error.record().peer.as_deref(), Some(name.as_str()));
}

#[test]
fn nobody_there_is_an_error_at_once() {
    let config = Config::default();
    let port = {
        let (listener, _) = serve(&config, DESCRIPTOR);
        listener.port()
    };
    let peer = Endpoint::new(&loopback::host(), Some(port)).unwrap();
    let error = probe(&peer, &config, soon()).unwrap_err();
    assert_eq!((error.code(), error.code().negative()), (Code::Socket, -102));
    assert!(error.to_string().contains(&port.to_string()), "{error}");
    let nowhere: Endpoint = "no-such-host.invalid:15000".parse().unwrap();
    assert_eq!(probe(&nowhere, &config, soon()).unwrap_err().code().negative(), -101);
}

/// A listener that answers one client with a script, then keeps the connection for as long as asked.
fn fake(reply: Vec<u8>, keep_open: bool) -> (Endpoint, std::thread::JoinHandle<()>) {
    let listener = loopback::listen();
    let peer = Endpoint::new(&loopback::host(), Some(listener.local_addr().unwrap().port())).unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let mut head = [0; 9];
        stream.read_exact(&mut head).unwrap();
        let _ = stream.write_all(&reply);
        if keep_open {
            // Until the client closes, as upstream's listener does.
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
        }
    });
    (peer, thread)
}

#[test]
fn the_client_survives_every_kind_of_peer() {
    let config = Config::default();
    let cases: Vec<(Vec<u8>, bool, Code)> = vec![
        (vec![], false, Code::Socket),
        (frame(1, b"{}")[..9].to_vec(), false, Code::Socket),
        (frame(3, b"{}"), true, Code::Socket),
        (frame(0xff, b"{}"), true, Code::Socket),
        (0u64.to_le_bytes().to_vec(), true, Code::MalformedJson),
        (u64::MAX.to_le_bytes().to_vec(), true, Code::MalformedJson),
        (frame(1, b"HTTP/1.1 400 Bad Request"), true, Code::MalformedJson),
        (vec![], true, Code::Timeout),
        (frame(1, b"{}")[..10].to_vec(), true, Code::Timeout),
    ];
    for (reply, keep_open, code) in cases {
        let (peer, thread) = fake(reply.clone(), keep_open);
        let before = Instant::now();
        let deadline =
            Deadline::after(Duration::from_millis(if code == Code::Timeout { 150 } else { 20_000 }));
        let error =
            metadata::connect("P2PHANDSHAKE", &config).unwrap().fetch(&peer.session(), deadline).unwrap_err();
        assert_eq!(error.code(), code, "{reply:?}: {error}");
        assert!(error.record().peer.is_some());
        assert!(before.elapsed() < LONG / 2);
        thread.join().unwrap();
    }
}

#[test]
fn the_client_closes_right_after_the_reply() {
    let (peer, thread) = fake(frame(1, DESCRIPTOR), true);
    assert_eq!(fetch_descriptor(&peer, b"", &Config::default(), soon()).unwrap(), DESCRIPTOR);
    thread.join().unwrap();
}

#[test]
fn sixty_four_listeners_start_at_once_without_collision() {
    // A narrow range: most attempts meet a port that is taken.
    let config = Config { rpc_port_min: 15_400, rpc_port_max: 15_540, ..Config::default() };
    let barrier = std::sync::Barrier::new(64);
    let listeners: Vec<Listener> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..64)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    serve(&config, DESCRIPTOR).0
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let ports: std::collections::HashSet<u16> = listeners.iter().map(Listener::port).collect();
    assert_eq!(ports.len(), 64);
    for listener in &listeners {
        probe(&endpoint(listener), &Config::default(), soon()).unwrap();
    }
}

#[test]
fn shutdown_frees_the_port_and_ends_clients() {
    let config = Config::default();
    let (listener, _) = serve(&config, DESCRIPTOR);
    let mut silent = open(&listener);
    let port = listener.port();
    listener.shutdown();
    listener.shutdown();
    assert!(read_to_end(&mut silent).is_empty());
    let again = Config { rpc_port_min: port, rpc_port_max: port, ..config };
    // Another test may hold the port by now; then the bind says so.
    match Listener::bind(&again) {
        Ok(binding) => assert_eq!(binding.port(), port),
        Err(error) => assert!(TcpStream::connect((loopback::address(), port)).is_ok(), "{error}"),
    }
}

#[test]
fn ipv6_works_as_ipv4_does() {
    let config = Config { use_ipv6: true, ..Config::default() };
    let (listener, _) = serve(&config, DESCRIPTOR);
    if TcpStream::connect(("::1", listener.port())).is_err() {
        mooncake_test_support::skip("this machine has no IPv6 loopback");
        return;
    }
    let peer: Endpoint = format!("[::1]:{}", listener.port()).parse().unwrap();
    assert_eq!(fetch_descriptor(&peer, b"", &config, soon()).unwrap(), DESCRIPTOR);
}

#[test]
fn garbage_of_every_shape_does_no_harm() {
    let (listener, _) = serve(&quick(), DESCRIPTOR);
    let before = open_descriptors();
    let mut runner = proptest::test_runner::TestRunner::new_with_rng(
        ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() },
        proptest::test_runner::TestRng::from_seed(proptest::test_runner::RngAlgorithm::ChaCha, &[7; 32]),
    );
    let shapes = (any::<Option<u64>>(), any::<u8>(), proptest::collection::vec(any::<u8>(), 0..200));
    runner
        .run(&shapes, |(length, kind, body)| {
            let mut bytes = length.unwrap_or(body.len() as u64 + 1).to_le_bytes().to_vec();
            bytes.push(kind);
            bytes.extend(body);
            let mut stream = open(&listener);
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(Shutdown::Write);
            read_to_end(&mut stream);
            Ok(())
        })
        .unwrap();
    probe(&endpoint(&listener), &Config::default(), soon()).unwrap();
    let deadline = soon();
    while open_descriptors() > before + 40 {
        assert!(!deadline.expired(), "descriptors leak: {} before, {} now", before, open_descriptors());
        std::thread::yield_now();
    }
}

/// Descriptors of this process; other tests of the file run beside and hold some.
fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
