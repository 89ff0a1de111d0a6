//! Requests about slots and orders, whole and broken, sent as bytes to a relay agent that is in use: each is answered,
//! memory that was not registered stays as it is, and the agent serves others afterwards.
//!
//! The decoder alone is fuzzed in `fuzz/`, and sound messages in any order are in `ascend_staged`; here broken ones meet
//! slots that are lent and memory that is registered.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

mod ascend_pair;

use std::io::{Read, Write};
use std::net::TcpStream;

use ascend_pair::*;
use mooncake::config::Config;
use mooncake::control::frame::{Assembler, Kind, MAX_BODY_BYTES, encode};
use mooncake::control::{Hello, PROTOCOL_VERSION};
use mooncake::endpoint::{Incarnation, random_bytes};
use mooncake::plan::Direction;
use mooncake_test_support::{loopback, wait_until};
use serde_json::Value;

/// Header of a frame: magic, version, kind, two bytes of nothing, the request's number, the body's length.
const HEADER_BYTES: usize = 16;

/// Requests; `#` is a number, `@` a number that may be an address, `USE` which slot and which use of it.
const REQUESTS: [&str; 7] = [
    r#"{"type":"open_slot","protocol":1,"device":-1,"wait_ms":0}"#,
    r#"{"type":"move_slot","device":1,USE,"gather":true,"blocks":[[@,#]],"timeout_ms":5000}"#,
    r#"{"type":"move_slot","device":1,USE,"gather":false,"blocks":[[@,#],[@,#]],"timeout_ms":5000}"#,
    r#"{"type":"stop_slot","device":1,USE}"#,
    r#"{"type":"release_slot","device":1,USE}"#,
    r#"{"type":"move_direct","device":1,"channel":"c","number":#,"put":true,"blocks":[[@,@,#]],"timeout_ms":5000}"#,
    r#"{"type":"stop_direct","number":#}"#,
];

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    /// One of them.
    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    /// Changes some bytes: others in their place, some left out, some twice.
    fn breaks(&mut self, text: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            let at = self.below(text.len());
            let end = (at + self.below(12)).min(text.len());
            match self.below(4) {
                0 => text[at] ^= 1 << self.below(8),
                1 => text[at] = self.of(&["{", "}", "[", "-", "\"", ":", "9", "\0"]).as_bytes()[0],
                2 if end - at < text.len() => drop(text.drain(at..end)),
                _ => text.splice(at..at, text[at..end].to_vec()).for_each(drop),
            }
        }
    }
}

/// A peer that sends bytes.
struct Raw {
    stream: TcpStream,
    assembler: Assembler,
    unread: Vec<u8>,
    id: u32,
}

impl Raw {
    fn greeted(node: &Node) -> Self {
        let stream = loopback::connect(node.control.port());
        stream.set_read_timeout(Some(LONG)).unwrap();
        let mut raw = Self { stream, assembler: Assembler::new(MAX_BODY_BYTES), unread: Vec::new(), id: 0 };
        let hello = Hello {
            protocol: PROTOCOL_VERSION,
            incarnation: Incarnation::new(None).unwrap(),
            segment: "raw:1".into(),
            connection: format!("{:032x}", u128::from_le_bytes(random_bytes().unwrap())),
            expected: Some(node.incarnation.hex()),
            previous: None,
        };
        raw.stream.write_all(&encode(Kind::Hello, 0, &hello).unwrap()).unwrap();
        assert_eq!(raw.next().0, Kind::Hello);
        raw
    }

    /// The next frame that is none of the engine's own questions.
    fn next(&mut self) -> (Kind, u32, Value) {
        loop {
            let mut rest = self.unread.as_slice();
            let frame = self.assembler.take(&mut rest).unwrap();
            self.unread = rest.to_vec();
            if let Some((header, body)) = frame {
                if matches!(header.kind, Kind::Reply | Kind::Hello) {
                    return (header.kind, header.request_id, serde_json::from_slice(&body).unwrap());
                }
                continue;
            }
            let mut piece = [0; 4096];
            let count = self.stream.read(&mut piece).expect("an answer in time");
            assert!(count > 0, "the connection was closed");
            self.unread.extend_from_slice(&piece[..count]);
        }
    }

    /// Sends a body that may be anything in a frame that is right, and waits for its answer.
    fn ask(&mut self, body: &[u8]) -> Value {
        self.id += 1;
        let mut frame = encode(Kind::Request, self.id, &0).unwrap();
        frame.truncate(HEADER_BYTES);
        frame[12..16].copy_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
        frame.extend_from_slice(body);
        self.stream.write_all(&frame).unwrap();
        let (kind, id, answer) = self.next();
        assert_eq!((kind, id), (Kind::Reply, self.id), "{answer}");
        answer
    }
}

#[test]
fn broken_requests_to_an_agent_in_use_are_answered_and_reach_nothing() {
    let config = Config { staged_slot_bytes: 64 << 10, staged_slots: 6, ..Config::default() };
    let (a, b) = (node_with(0, &config, false), node_with(1, &config, false));
    let (near, far) = (a.buffer(2 * MIB), b.buffer(2 * MIB));
    let secret = allocate(1, 2 * MIB);
    let bytes = pattern(1, 2 * MIB);
    store(1, secret, &bytes);
    let numbers = [
        "0",
        "1",
        "64",
        "4096",
        "-1",
        "65537",
        "18446744073709551615",
        "18446744073709551616",
        "1e3",
        "null",
    ];
    let addresses = [far.to_string(), (far + MIB).to_string()];
    let wild = [secret, secret + MIB, far - 8, far + 2 * MIB - 8].map(|address| address.to_string());

    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut raw = Raw::greeted(&b);
    let mut grants: Vec<(u64, u64)> = Vec::new();
    let (mut granted, mut moved, mut unreadable, mut refused) = (0, 0, 0, 0);
    for _ in 0..4000 {
        let which = (!grants.is_empty()).then(|| random.below(grants.len()));
        let (slot, sequence) = which.map_or((0, 0), |which| grants[which]);
        let mut text = String::new();
        for letter in random.of(&REQUESTS).chars() {
            match letter {
                '#' if random.below(4) > 0 => text.push_str("64"),
                '#' => text.push_str(random.of(&numbers)),
                '@' if random.below(6) > 0 => text.push_str(&addresses[random.below(addresses.len())]),
                '@' => text.push_str(&wild[random.below(wild.len())]),
                other => text.push(other),
            }
        }
        let using = format!(r#""slot":{slot},"sequence":{sequence}"#);
        let mut body = text.replace("USE", &using).into_bytes();
        if random.below(3) == 0 {
            random.breaks(&mut body);
        }
        let answer = raw.ask(&body);
        if let Some(code) = answer["code"].as_str() {
            refused += 1;
            unreadable += u32::from(code == "malformed-json");
            assert_ne!(code, "internal", "{answer}");
        }
        match answer["type"].as_str() {
            Some("slot_granted") => {
                granted += 1;
                grants.push((answer["slot"].as_u64().unwrap(), answer["sequence"].as_u64().unwrap()));
            }
            Some("slot_moved") => {
                moved += 1;
                let sequence = answer["sequence"].as_u64().unwrap();
                grants.iter_mut().filter(|grant| grant.0 == slot).for_each(|grant| grant.1 = sequence);
            }
            Some(_) => {}
            None => panic!("no answer: {answer}"),
        }
        // A refusal may have taken the slot, and a release has: those that are known stay few, and are tried once more.
        if grants.len() > 4 {
            grants.remove(0);
        }
    }
    assert!(
        granted > 20 && moved > 20 && unreadable > 200 && refused > unreadable,
        "{granted} granted, {moved} moved, {unreadable} unreadable, {refused} refused"
    );
    assert!(load(1, secret, 2 * MIB) == bytes, "memory that nobody registered was written");
    assert_eq!(b.ranges.holds(far), 0);
    drop(raw);
    assert!(wait_until(LONG, || b.ascend.staged().slots_in_use == 0), "{:?}", b.ascend.staged());
    // And it serves a peer that is right.
    store(0, near, &pattern(2, 2 * MIB));
    a.must_transfer_by(&b, Direction::Write, &[(near, far, 2 * MIB)], STAGED);
    assert!(load(1, far, 2 * MIB) == pattern(2, 2 * MIB));
}
