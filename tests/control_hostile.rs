//! Peers that speak nonsense, too much, too slowly, out of turn or not at all harm nobody: not the loop, not other
//! peers, not memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use mooncake::config::Config;
use mooncake::control::connection::{MAX_INBOX_MESSAGES, MAX_SERVED_REQUESTS};
use mooncake::control::frame::{Assembler, Header, Kind, MAX_BODY_BYTES, encode};
use mooncake::control::{Connection, Control, Handler, Hello, Message, PROTOCOL_VERSION};
use mooncake::deadline::Deadline;
use mooncake::endpoint::Incarnation;
use mooncake::error::{Code, Error, Result};
use mooncake_test_support::loopback;
use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(20);

fn soon() -> Deadline {
    Deadline::after(LONG)
}

struct Engine {
    lost: Mutex<Sender<(Incarnation, Error)>>,
    hold: Mutex<()>,
}

impl Handler for Engine {
    fn request(&self, _: &Arc<Connection>, message: Message) -> Result<Message> {
        if matches!(message, Message::ChannelReady { .. } | Message::CloseChannel { .. }) {
            drop(self.hold.lock());
        }
        Ok(Message::Done)
    }

    fn lost(&self, peer: &Incarnation, why: &Error) {
        self.lost.lock().send((peer.clone(), why.clone())).unwrap();
    }
}

struct Target {
    incarnation: Incarnation,
    control: Control,
    engine: Arc<Engine>,
    lost: Receiver<(Incarnation, Error)>,
}

fn target(config: &Config) -> Target {
    let incarnation = Incarnation::new(None).unwrap();
    let (sender, lost) = channel();
    let engine = Arc::new(Engine { lost: Mutex::new(sender), hold: Mutex::new(()) });
    let handler = Arc::clone(&engine) as Arc<dyn Handler>;
    let control = Control::start(config, incarnation.clone(), "target:1", handler).unwrap();
    Target { incarnation, control, engine, lost }
}

fn quick() -> Config {
    Config {
        handshake_connect_timeout: Duration::from_millis(300),
        control_ping_interval: Duration::from_millis(50),
        control_silence_limit: Duration::from_millis(300),
        ..Config::default()
    }
}

/// A peer made by hand.
struct Raw {
    stream: TcpStream,
    assembler: Assembler,
    unread: Vec<u8>,
}

impl Raw {
    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(LONG)).unwrap();
        Self { stream, assembler: Assembler::new(MAX_BODY_BYTES), unread: Vec::new() }
    }

    fn open(target: &Target) -> Self {
        Self::new(loopback::connect(target.control.port()))
    }

    /// As a peer that was taken.
    fn greeted(target: &Target) -> (Self, Hello) {
        let mut raw = Self::open(target);
        let hello = hello(&target.incarnation);
        raw.send(Kind::Hello, 0, &hello);
        assert_eq!(raw.next().unwrap().0.kind, Kind::Hello);
        (raw, hello)
    }

    fn send(&mut self, kind: Kind, id: u32, body: &impl serde::Serialize) {
        self.stream.write_all(&encode(kind, id, body).unwrap()).unwrap();
    }

    /// The next frame that is no ping; `None` at the end of the stream.
    fn next(&mut self) -> Option<(Header, Value)> {
        loop {
            let mut rest = self.unread.as_slice();
            let frame = self.assembler.take(&mut rest).unwrap();
            self.unread = rest.to_vec();
            if let Some((header, body)) = frame {
                let body: Value = serde_json::from_slice(&body).unwrap();
                if body["type"] != "ping" {
                    return Some((header, body));
                }
                continue;
            }
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece) {
                Ok(0) => return None,
                Ok(count) => self.unread.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("neither an answer nor the end: {error}"),
            }
        }
    }

    /// The code of the refusal that ends the connection.
    fn refusal(&mut self) -> (bool, String) {
        let (header, body) = self.next().expect("closed without a word");
        assert_eq!(header.kind, Kind::Refused, "{body}");
        assert!(self.next().is_none());
        (body["retry"].as_bool().unwrap(), body["failure"]["code"].as_str().unwrap().to_owned())
    }
}

fn hello(expected: &Incarnation) -> Hello {
    Hello {
        protocol: PROTOCOL_VERSION,
        incarnation: Incarnation::new(None).unwrap(),
        segment: "raw:1".into(),
        connection: format!("{:032x}", rand()),
        expected: Some(expected.hex()),
        previous: None,
    }
}

fn rand() -> u128 {
    u128::from_le_bytes(mooncake::endpoint::random_bytes().unwrap())
}

/// The target still serves: a new peer comes in and gets an answer.
fn assert_serves(target: &Target) {
    let (mut raw, _) = Raw::greeted(target);
    raw.send(Kind::Request, 7, &Message::Withdrawn);
    let (header, body) = raw.next().unwrap();
    assert_eq!((header.kind, header.request_id, body), (Kind::Reply, 7, json!({"type": "done"})));
}

#[test]
fn a_first_frame_that_is_no_hello_is_refused_with_the_reason() {
    let target = target(&Config::default());
    let good = hello(&target.incarnation);
    let mut other_version = encode(Kind::Hello, 0, &good).unwrap();
    other_version[4] = 2;
    let mut bomb = encode(Kind::Hello, 0, &good).unwrap();
    bomb[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    let changed = |key: &str, value: Value| {
        let mut hello = json!(good);
        hello[key] = value;
        encode(Kind::Hello, 0, &hello).unwrap()
    };
    let stale = Incarnation::new(None).unwrap();
    for (bytes, code) in [
        (b"GET /metadata HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), "reject-handshake"),
        (b"\x04\0\0\0\0\0\0\0\x03{}\n and then some".to_vec(), "reject-handshake"),
        (other_version, "unsupported"),
        (bomb, "reject-handshake"),
        (encode(Kind::Request, 1, &Message::Ping).unwrap(), "reject-handshake"),
        (encode(Kind::Reply, 1, &Message::Done).unwrap(), "reject-handshake"),
        (encode(Kind::Hello, 0, &"x".repeat(20_000)).unwrap(), "reject-handshake"),
        (encode(Kind::Hello, 0, &json!([1, 2])).unwrap(), "reject-handshake"),
        (encode(Kind::Hello, 0, &json!(null)).unwrap(), "reject-handshake"),
        (changed("protocol", json!(2)), "unsupported"),
        (changed("protocol", json!("1")), "reject-handshake"),
        (changed("incarnation", json!({"id": "zz", "pid": 1, "boot": ""})), "reject-handshake"),
        (changed("incarnation", json!(target.incarnation)), "reject-handshake"),
        (changed("expected", json!(stale.hex())), "stale-incarnation"),
        (changed("expected", json!(null)), "stale-incarnation"),
        (changed("expected", json!("not hexadecimal")), "stale-incarnation"),
        (changed("segment", json!("s".repeat(5000))), "reject-handshake"),
        (changed("previous", json!({"address": -1})), "reject-handshake"),
    ] {
        let mut raw = Raw::open(&target);
        raw.stream.write_all(&bytes).unwrap();
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
        assert_eq!(raw.refusal(), (false, code.to_owned()), "{shown}");
    }
    assert!(target.lost.try_recv().is_err(), "strangers are no loss");
    assert_serves(&target);
}

#[test]
fn callers_that_say_nothing_are_dropped_and_lock_nobody_out() {
    let target = target(&quick());
    let mut silent: Vec<Raw> = (0..600).map(|_| Raw::open(&target)).collect();
    assert_serves(&target);
    for raw in &mut silent {
        assert!(raw.next().is_none());
    }
    // One byte at a time does not prolong it.
    let mut slow = Raw::open(&target);
    let before = Instant::now();
    let bytes = encode(Kind::Hello, 0, &"x".repeat(10_000)).unwrap();
    let taken = bytes.iter().take_while(|byte| {
        std::thread::sleep(Duration::from_millis(1));
        slow.stream.write_all(&[**byte]).is_ok()
    });
    assert!(taken.count() < bytes.len());
    assert!(before.elapsed() < LONG);
}

#[test]
fn a_peer_that_falls_silent_is_lost_in_bounded_time() {
    let target = target(&quick());
    let (raw, hello) = Raw::greeted(&target);
    let connection = target.control.connection(&hello.incarnation).unwrap();
    let before = Instant::now();
    let error = connection.request(Message::Withdrawn, soon()).unwrap_err();
    assert_eq!(error.code(), Code::Timeout, "{error}");
    let (who, why) = target.lost.recv_timeout(LONG).unwrap();
    assert_eq!(who, hello.incarnation);
    assert!(why.to_string().contains("silent"), "{why}");
    assert!(before.elapsed() < LONG / 2);
    drop(raw);
}

#[test]
fn frames_out_of_turn_end_the_connection_or_are_ignored() {
    let target = target(&Config::default());
    let second_hello = encode(Kind::Hello, 0, &hello(&target.incarnation)).unwrap();
    let mut unknown_kind = encode(Kind::OneWay, 0, &Message::Pong).unwrap();
    unknown_kind[5] = 77;
    let mut too_long = encode(Kind::OneWay, 0, &Message::Pong).unwrap();
    too_long[12..16].copy_from_slice(&(u32::try_from(MAX_BODY_BYTES).unwrap() + 1).to_le_bytes());
    for bytes in [second_hello, unknown_kind, too_long, b"no frame at all, certainly".to_vec()] {
        let (mut raw, hello) = Raw::greeted(&target);
        raw.stream.write_all(&bytes).unwrap();
        assert!(raw.next().is_none());
        assert_eq!(target.lost.recv_timeout(LONG).unwrap().0, hello.incarnation);
    }
    let (mut raw, _) = Raw::greeted(&target);
    raw.send(Kind::Reply, 99, &Message::Done);
    raw.send(Kind::Reply, 0, &json!("nobody asked"));
    raw.send(Kind::OneWay, 0, &json!({"type": "of a later release"}));
    raw.send(Kind::OneWay, 5, &json!([]));
    raw.send(Kind::Request, 1, &Message::Withdrawn);
    assert_eq!(raw.next().unwrap().1, json!({"type": "done"}));
}

#[test]
fn a_request_that_cannot_be_read_is_answered_so() {
    let target = target(&Config::default());
    let (mut raw, _) = Raw::greeted(&target);
    for (id, body) in [
        (1, json!({"type": "of a later release"})),
        (2, json!({"type": "withdraw", "ranges": "all", "epoch": 1})),
        (3, json!({"type": "withdraw", "ranges": [[-1, 2]], "epoch": 1})),
        (4, json!({"type": "open_channel", "channel": 7})),
        (5, json!([])),
        (6, json!(null)),
        (7, json!({"type": "open_slot", "protocol": 1, "device": 0.5, "wait_ms": 0})),
        (8, json!({"type": "open_slot", "protocol": 1, "device": 1_i64 << 40, "wait_ms": 0})),
        (9, json!({"type": "move_slot", "device": 0, "slot": 0, "sequence": 1, "gather": 1, "blocks": []})),
        (10, json!({"type": "release_slot", "device": 0, "slot": -1, "sequence": 1})),
        (11, json!({"type": "stop_slot", "device": 0, "slot": 1_u64 << 32, "sequence": 1})),
        (12, json!({"type": "move_direct", "device": 0, "channel": "c", "number": 1, "put": true})),
    ] {
        raw.send(Kind::Request, id, &body);
        let (header, answer) = raw.next().unwrap();
        assert_eq!((header.kind, header.request_id), (Kind::Reply, id));
        assert_eq!(answer["code"], "malformed-json", "{body}");
    }
}

#[test]
fn a_flood_of_requests_is_answered_with_too_many() {
    let target = target(&Config::default());
    let (mut raw, _) = Raw::greeted(&target);
    let held = target.engine.hold.lock();
    let count = u32::try_from(MAX_SERVED_REQUESTS).unwrap() + 50;
    for id in 1..=count {
        raw.send(Kind::Request, id, &Message::ChannelReady { channel: String::new() });
    }
    for _ in 0..50 {
        assert_eq!(raw.next().unwrap().1["code"], "too-many-requests");
    }
    drop(held);
    for _ in 0..MAX_SERVED_REQUESTS {
        assert_eq!(raw.next().unwrap().1, json!({"type": "done"}));
    }
    assert_serves(&target);
}

#[test]
fn a_flood_of_messages_ends_the_connection() {
    let target = target(&Config::default());
    let (mut raw, hello) = Raw::greeted(&target);
    let held = target.engine.hold.lock();
    let message = encode(Kind::OneWay, 0, &Message::CloseChannel { channel: String::new() }).unwrap();
    for _ in 0..MAX_INBOX_MESSAGES + 10 {
        if raw.stream.write_all(&message).is_err() {
            break;
        }
    }
    let (who, why) = target.lost.recv_timeout(LONG).unwrap();
    assert_eq!((who, why.code()), (hello.incarnation, Code::TooManyRequests));
    drop(held);
    assert_serves(&target);
}

#[test]
fn a_peer_that_reads_nothing_costs_bounded_memory_and_time() {
    // Long enough to fill the queue on a busy machine before the silence ends it.
    let target = target(&Config { control_silence_limit: Duration::from_secs(4), ..quick() });
    let (raw, hello) = Raw::greeted(&target);
    let connection = target.control.connection(&hello.incarnation).unwrap();
    let large = Message::CloseChannel { channel: "x".repeat(1 << 20) };
    let error = (0..1000).find_map(|_| connection.send(large.clone()).err()).expect("a bound");
    assert_eq!(error.code(), Code::TooManyRequests, "{error}");
    // It does not answer pings either, and is given up.
    assert_eq!(target.lost.recv_timeout(LONG).unwrap().0, hello.incarnation);
    assert_serves(&target);
    drop(raw);
}

#[test]
fn a_second_connection_of_a_peer_waits_or_replaces_the_first() {
    let target = target(&Config::default());
    let (mut first, mut again) = Raw::greeted(&target);
    let first_id = again.connection.clone();
    again.connection = format!("{:032x}", rand());
    let mut second = Raw::open(&target);
    second.send(Kind::Hello, 0, &again);
    assert_eq!(second.refusal(), (true, "busy".into()), "the first is alive");
    // A peer that has lost the first says so; then the first is given up, and the loss told.
    again.previous = Some(first_id);
    let mut third = Raw::open(&target);
    third.send(Kind::Hello, 0, &again);
    assert_eq!(third.refusal(), (true, "busy".into()));
    assert!(first.next().is_none());
    assert_eq!(target.lost.recv_timeout(LONG).unwrap().0, again.incarnation);
    let deadline = soon();
    loop {
        let mut next = Raw::open(&target);
        next.send(Kind::Hello, 0, &again);
        if next.next().unwrap().0.kind == Kind::Hello {
            break;
        }
        assert!(!deadline.expired());
    }
    assert!(target.lost.try_recv().is_err(), "told once");
}

/// A listener that gives every caller the same answer to its hello, and keeps the connection when asked to.
fn fake(answer: impl Fn(&Hello) -> Vec<u8> + Send + 'static, callers: usize, keep: bool) -> u16 {
    let listener = loopback::listen();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for _ in 0..callers {
            let Ok((stream, _)) = listener.accept() else { return };
            let mut raw = Raw::new(stream);
            let Some((_, body)) = raw.next() else { continue };
            let hello: Hello = serde_json::from_value(body).unwrap();
            let _ = raw.stream.write_all(&answer(&hello));
            if keep {
                kept.push(raw);
            }
        }
        // Until the other side closes.
        for mut raw in kept {
            let _ = raw.stream.read(&mut [0; 16]);
        }
    });
    port
}

#[test]
fn an_opener_survives_every_kind_of_listener() {
    let target = target(&Config::default());
    let expected = Incarnation::new(None).unwrap();
    let own = expected.clone();
    let answered = move |hello: &Hello| Hello { incarnation: own.clone(), expected: None, ..hello.clone() };
    let good = answered.clone();
    let short = Duration::from_millis(150);
    type Answer = Box<dyn Fn(&Hello) -> Vec<u8> + Send>;
    let hello_frame = |hello: &Hello| encode(Kind::Hello, 0, hello).unwrap();
    let cases: Vec<(Answer, bool, Duration, Code)> = vec![
        (Box::new(|_| Vec::new()), false, LONG, Code::RejectHandshake),
        (Box::new(|_| Vec::new()), true, short, Code::Timeout),
        (Box::new(|_| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()), true, LONG, Code::RejectHandshake),
        (Box::new(|_| b"MCTC\x01\x01".to_vec()), true, short, Code::Timeout),
        (Box::new(|_| b"MCTC\x02\x01\0\0\0\0\0\0\0\0\0\0".to_vec()), true, LONG, Code::Unsupported),
        (
            Box::new(|_| b"MCTC\x01\x01\0\0\0\0\0\0\xff\xff\xff\xff".to_vec()),
            true,
            LONG,
            Code::RejectHandshake,
        ),
        (Box::new(|_| encode(Kind::Request, 1, &Message::Ping).unwrap()), true, LONG, Code::RejectHandshake),
        (Box::new(move |hello| hello_frame(hello)), true, LONG, Code::StaleIncarnation),
        (
            Box::new({
                let answered = answered.clone();
                move |hello| hello_frame(&Hello { protocol: 9, ..answered(hello) })
            }),
            true,
            LONG,
            Code::Unsupported,
        ),
        (
            Box::new(move |hello| hello_frame(&Hello { connection: "other".into(), ..answered(hello) })),
            true,
            LONG,
            Code::RejectHandshake,
        ),
    ];
    for (number, (answer, keep, time, code)) in cases.into_iter().enumerate() {
        let port = fake(answer, 1, keep);
        let before = Instant::now();
        let error =
            target.control.connect(&loopback::host(), port, &expected, Deadline::after(time)).unwrap_err();
        assert_eq!(error.code(), code, "case {number}: {error}");
        assert!(before.elapsed() < LONG / 2, "case {number}");
    }
    let later = json!({"retry": true, "failure": {"code": "busy", "stage": "handshake", "message": "later"}});
    let port = fake(move |_| encode(Kind::Refused, 0, &later).unwrap(), 1000, false);
    let error = target
        .control
        .connect(&loopback::host(), port, &expected, Deadline::after(Duration::from_millis(300)))
        .unwrap_err();
    assert!(matches!(error.code(), Code::Timeout | Code::Socket), "{error}");
    let port = fake(move |hello| hello_frame(&good(hello)), 1, false);
    // Taken, then gone: a loss, and no failure of the opening.
    target.control.connect(&loopback::host(), port, &expected, soon()).unwrap();
    assert_eq!(target.lost.recv_timeout(LONG).unwrap().0, expected);
}

#[test]
fn garbage_before_and_after_the_hello_does_no_harm() {
    let target = target(&quick());
    let mut runner = proptest::test_runner::TestRunner::new_with_rng(
        ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() },
        proptest::test_runner::TestRng::from_seed(proptest::test_runner::RngAlgorithm::ChaCha, &[11; 32]),
    );
    let shapes = (any::<bool>(), 0u8..8, any::<u32>(), any::<Option<u32>>(), any::<Vec<u8>>());
    runner
        .run(&shapes, |(greeted, kind, id, length, body)| {
            let mut bytes = b"MCTC\x01".to_vec();
            bytes.extend_from_slice(&[kind, 0, 0]);
            bytes.extend_from_slice(&id.to_le_bytes());
            bytes.extend_from_slice(&length.unwrap_or(u32::try_from(body.len()).unwrap()).to_le_bytes());
            bytes.extend(body);
            let mut raw = if greeted { Raw::greeted(&target).0 } else { Raw::open(&target) };
            let _ = raw.stream.write_all(&bytes);
            Ok(())
        })
        .unwrap();
    assert_serves(&target);
}
