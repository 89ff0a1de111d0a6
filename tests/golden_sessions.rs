//! Sessions between upstream's released engines, captured on the loopback and kept byte for byte: our target answers
//! what theirs answered, and our initiator sends what theirs sent.
//!
//! Two things of a capture are not ours to repeat: addresses of memory, which are moved to ours where bytes are stored,
//! and the padding of a header, where upstream sends what was in its memory and we send zeros. A target before 0.3.12
//! takes any address, one before 0.3.10 serves one request a connection: those are left out where ours is the target.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

mod tcp;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::mpsc::channel;

use mooncake::config::Config;
use mooncake::deadline::Deadline;
use mooncake::endpoint::Endpoint;
use mooncake::error::{Code, Result};
use mooncake::handshake::{Listener, Responder, fetch_descriptor, probe, send_notify};
use mooncake::memory::ByteRange;
use mooncake::notify::Note;
use mooncake::plan::Direction;
use mooncake::segment::SegmentDescriptor;
use mooncake::transport::tcp::wire::{HEADER_BYTES, Header, OK, STATUS_BYTES, read_status};
use mooncake::transport::tcp::{Hold, Served};
use mooncake_test_support::loopback;
use parking_lot::Mutex;
use tcp::{LONG, Memory, Raw, address_of, connect, finished, run, serve, settings, target_of};

/// Number, text, whether the target says which addresses it takes.
const SESSIONS: [(&str, &str, bool); 10] = [
    ("01", include_str!("golden/sessions/01.txt"), true),
    ("02", include_str!("golden/sessions/02.txt"), true),
    ("03", include_str!("golden/sessions/03.txt"), true),
    ("04", include_str!("golden/sessions/04.txt"), true),
    ("05", include_str!("golden/sessions/05.txt"), true),
    ("06", include_str!("golden/sessions/06.txt"), false),
    ("07", include_str!("golden/sessions/07.txt"), true),
    ("08", include_str!("golden/sessions/08.txt"), false),
    ("09", include_str!("golden/sessions/09.txt"), true),
    ("10", include_str!("golden/sessions/10.txt"), true),
];

/// One connection, with all that either side sent.
#[derive(Default)]
struct Stream {
    handshake: bool,
    sent: Vec<u8>,
    answered: Vec<u8>,
    /// The capture ends before the connection did.
    cut: bool,
}

fn streams(text: &str) -> Vec<Stream> {
    let mut streams: Vec<Stream> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        if word == "stream" {
            streams.push(Stream { handshake: rest.ends_with("handshake"), ..Stream::default() });
            continue;
        }
        let stream = streams.last_mut().unwrap();
        let bytes = (0..rest.len() / 2).map(|place| u8::from_str_radix(&rest[2 * place..][..2], 16).unwrap());
        match word {
            ">" => stream.sent.extend(bytes),
            "<" => stream.answered.extend(bytes),
            "cut" => stream.cut = true,
            other => panic!("{other}"),
        }
    }
    streams
}

/// The type and the body of a handshake frame that is whole.
fn frame(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let length = usize::try_from(u64::from_le_bytes(bytes.get(..8)?.try_into().unwrap())).unwrap();
    (bytes.len() == 8 + length).then(|| (bytes[8], &bytes[9..]))
}

/// One request on a data connection, and its answer.
struct Exchange {
    header: Header,
    raw: [u8; HEADER_BYTES],
    body: Vec<u8>,
    answer: Vec<u8>,
}

impl Exchange {
    fn is_refused(&self) -> bool {
        self.header.confirmed && read_status(self.answer[..STATUS_BYTES].try_into().unwrap()) != Some(OK)
    }

    /// The bytes that were read.
    fn read(&self) -> &[u8] {
        if self.header.confirmed { &self.answer[STATUS_BYTES..] } else { &self.answer }
    }
}

/// The whole requests of a stream. Of what has no status it is not known how it ended.
fn exchanges(stream: &Stream) -> Vec<Exchange> {
    let (mut sent, mut answered) = (&stream.sent[..], &stream.answered[..]);
    let mut all = Vec::new();
    while sent.len() >= HEADER_BYTES {
        let raw: [u8; HEADER_BYTES] = sent[..HEADER_BYTES].try_into().unwrap();
        let header = Header::decode(&raw);
        let length = usize::try_from(header.length_bytes).unwrap();
        let body = if header.write { length } else { 0 };
        let status = if header.confirmed { STATUS_BYTES } else { 0 };
        let refused = status > 0
            && answered.len() >= status
            && read_status(answered[..status].try_into().unwrap()) != Some(OK);
        let answer = status + if header.write || refused { 0 } else { length };
        if sent.len() < HEADER_BYTES + body || answered.len() < answer {
            assert!(stream.cut || answered.is_empty(), "half a request in a whole stream");
            break;
        }
        all.push(Exchange {
            header,
            raw,
            body: sent[HEADER_BYTES..][..body].to_vec(),
            answer: answered[..answer].to_vec(),
        });
        (sent, answered) = (&sent[HEADER_BYTES + body..], &answered[answer..]);
    }
    all
}

/// The descriptor of the target.
fn target_of_session(streams: &[Stream]) -> Option<SegmentDescriptor> {
    let metadata = streams.iter().find(|stream| stream.handshake && stream.sent.get(8) == Some(&1))?;
    SegmentDescriptor::decode(frame(&metadata.answered)?.1).ok()
}

/// What the target of a session published.
struct Publisher(Vec<u8>, Mutex<Vec<Note>>);

impl Responder for Publisher {
    fn descriptor(&self) -> Vec<u8> {
        self.0.clone()
    }

    fn notify(&self, note: Note) -> Result<()> {
        self.1.lock().push(note);
        Ok(())
    }
}

#[test]
fn handshakes_are_answered_as_upstream_answered_them() {
    let mut seen = [0; 4];
    for (number, text, _) in SESSIONS {
        for stream in streams(text).iter().filter(|stream| stream.handshake && !stream.cut) {
            let (kind, body) = frame(&stream.sent).unwrap();
            let descriptor = frame(&stream.answered).unwrap().1.to_vec();
            let publisher = Arc::new(Publisher(descriptor, Mutex::default()));
            let binding = Listener::bind(&Config::default()).unwrap();
            let listener = binding.serve(Arc::clone(&publisher) as Arc<dyn Responder>).unwrap();
            let mut client = Raw::to(listener.port());
            client.send(&stream.sent);
            assert_eq!(client.rest(), stream.answered, "session {number}, type {kind}");
            if kind == 2 {
                let note = publisher.1.lock().pop().unwrap();
                let sent: serde_json::Value = serde_json::from_slice(body).unwrap();
                assert_eq!(
                    (note.name.as_str(), note.message.as_str()),
                    (sent["name"].as_str().unwrap(), sent["notify_msg"].as_str().unwrap())
                );
            }
            seen[usize::from(kind)] += 1;
        }
    }
    assert!(seen[1] >= 9 && seen[2] >= 2 && seen[3] >= 1, "{seen:?}");
}

#[test]
fn handshakes_are_asked_as_upstream_asked_them() {
    let config = Config::default();
    for (number, text, _) in SESSIONS {
        for stream in streams(text).into_iter().filter(|stream| stream.handshake && !stream.cut) {
            let listener = loopback::listen();
            let peer = Endpoint::new(&loopback::host(), Some(listener.local_addr().unwrap().port())).unwrap();
            let (length, answer) = (stream.sent.len(), stream.answered.clone());
            let served = std::thread::spawn(move || {
                let mut client = listener.accept().unwrap().0;
                client.set_read_timeout(Some(LONG)).unwrap();
                let mut asked = vec![0; length];
                client.read_exact(&mut asked).unwrap();
                client.write_all(&answer).unwrap();
                let mut more = Vec::new();
                client.read_to_end(&mut more).unwrap();
                [asked, more].concat()
            });
            let (kind, body) = frame(&stream.sent).unwrap();
            let deadline = Deadline::after(LONG);
            match kind {
                1 => {
                    let descriptor = fetch_descriptor(&peer, body, &config, deadline).unwrap();
                    assert_eq!(descriptor, frame(&stream.answered).unwrap().1);
                }
                2 => {
                    let sent: serde_json::Value = serde_json::from_slice(body).unwrap();
                    let text = |key: &str| sent[key].as_str().unwrap().to_owned();
                    let note = Note { name: text("name"), message: text("notify_msg") };
                    send_notify(&peer, &note, &config, deadline).unwrap();
                }
                3 => probe(&peer, &config, deadline).unwrap(),
                other => panic!("type {other}"),
            }
            assert_eq!(served.join().unwrap(), stream.sent, "session {number}, type {kind}");
        }
    }
}

/// Memory of ours in the place of the captured target's buffer.
struct Moved {
    memory: Arc<Memory>,
    base: u64,
}

impl Served for Moved {
    fn pin(&self, range: ByteRange) -> Option<Hold> {
        self.memory.pin(range)
    }
}

#[test]
fn data_requests_are_answered_as_upstream_answered_them() {
    let (mut answered, mut refused) = (0, 0);
    for (number, text, checks_addresses) in SESSIONS {
        let streams = streams(text);
        let Some(target) = target_of_session(&streams).filter(|_| checks_addresses) else { continue };
        let theirs = target.buffers[0].address;
        let buffer = vec![0_u8; 1 << 20];
        let ours = Moved { memory: Memory::of(&[&buffer]), base: address_of(&buffer) };
        let base = ours.base;
        let server = mooncake::transport::tcp::Tcp::start(settings(), Arc::new(ours)).unwrap();
        let inside = |address: u64| (theirs..theirs + (1 << 20)).contains(&address);
        let here = |address: u64| if inside(address) { address - theirs + base } else { address };
        for stream in streams.iter().filter(|stream| !stream.handshake) {
            let mut client = Raw::to(server.port());
            let mut closed = false;
            for exchange in exchanges(stream) {
                let Header { address, length_bytes, write, confirmed } = exchange.header;
                assert!(!closed, "session {number}: a request after a refusal");
                let known = inside(address);
                if known && !write {
                    // What the buffer held then.
                    let mut other = Raw::to(server.port());
                    let put = Header { write: true, confirmed: true, address: here(address), length_bytes };
                    other.send(&[&put.encode()[..], exchange.read()].concat());
                    assert_eq!(read_status(other.take(STATUS_BYTES).try_into().unwrap()), Some(OK));
                }
                // All but the address is as it was captured, the garbage too.
                let mut raw = exchange.raw;
                raw[8..16].copy_from_slice(&here(address).to_le_bytes());
                client.send(&[&raw[..], &exchange.body].concat());
                assert_eq!(client.take(exchange.answer.len()), exchange.answer, "session {number}");
                answered += 1;
                closed = exchange.is_refused() || !known;
                refused += usize::from(closed);
                if write && known {
                    // Version 1 says nothing of a write; what comes after it on the connection is served after it.
                    let offset = usize::try_from(here(address) - base).unwrap();
                    let there =
                        || std::hint::black_box(&buffer)[offset..][..exchange.body.len()] == exchange.body;
                    assert!(mooncake_test_support::wait_until(LONG, there), "session {number}, {confirmed}");
                }
            }
            // Nothing but the answers, and a refusal ends the connection by itself.
            if !closed {
                client.0.shutdown(Shutdown::Write).unwrap();
            }
            assert_eq!(client.rest(), b"", "session {number}");
        }
    }
    assert!(answered >= 50 && refused >= 4, "{answered} answered, {refused} refused");
}

#[test]
fn data_requests_are_sent_as_upstream_sent_them() {
    let client = serve(&Memory::of(&[]));
    let mut count = 0;
    for (number, text, _) in SESSIONS {
        let all = streams(text);
        for exchange in all.iter().filter(|stream| !stream.handshake).flat_map(exchanges) {
            let listener = loopback::listen();
            let port = listener.local_addr().unwrap().port();
            let (length, answer) = (HEADER_BYTES + exchange.body.len(), exchange.answer.clone());
            let (done, asked) = channel();
            std::thread::spawn(move || {
                // A lane is opened before its first request.
                let mut peer = listener.accept().unwrap().0;
                peer.set_read_timeout(Some(LONG)).unwrap();
                let mut request = vec![0; length];
                peer.read_exact(&mut request).unwrap();
                peer.write_all(&answer).unwrap();
                let _ = peer.shutdown(Shutdown::Write);
                // Nothing more comes before the client is done with the connection.
                let mut more = Vec::new();
                let _ = peer.read_to_end(&mut more);
                let _ = done.send([request, more].concat());
            });
            let version = if exchange.header.confirmed { 2 } else { 1 };
            let peer = connect(&client, port, version);
            let mut near = exchange.body.clone();
            near.resize(usize::try_from(exchange.header.length_bytes).unwrap(), 0);
            let direction = if exchange.header.write { Direction::Write } else { Direction::Read };
            let block = (target_of(&mut near), exchange.header.address, exchange.header.length_bytes);
            let (outcome, error) = finished(&run(&client, &peer, direction, &[block]));
            if exchange.is_refused() {
                assert_eq!(
                    error.map(|error| error.code()),
                    Some(Code::AddressNotRegistered),
                    "session {number}"
                );
            } else {
                assert!(outcome.is_success(), "session {number}: {error:?}");
                assert!(exchange.header.write || std::hint::black_box(&near) == exchange.read());
            }
            let mut expected = exchange.raw.to_vec();
            expected[HEADER_BYTES - 7..].fill(0);
            expected.extend(&exchange.body);
            assert_eq!(asked.recv_timeout(LONG).unwrap(), expected, "session {number}");
            count += 1;
        }
    }
    assert!(count >= 60, "{count}");
}
