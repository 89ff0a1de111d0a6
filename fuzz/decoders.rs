//! What a decoder must keep to, whatever the bytes: no panic, no memory beyond what is there, and what it takes it
//! writes again as something that it takes.
//!
//! One function a decoder. The fuzz targets and the replay of the seeds (`tests/fuzz_seeds.rs`) both use this file.

#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
#[path = "../wire/tests/common/mod.rs"]
mod wire_calls;

use mooncake::config::Config;
use mooncake::control;
use mooncake::endpoint::{Endpoint, Incarnation};
use mooncake::handshake::frame as handshake;
use mooncake::memory::Location;
use mooncake::segment::SegmentDescriptor;
use mooncake::topology::Topology;
use mooncake::transport::tcp::wire as tcp;
use mooncake_wire::frame::{RequestHeader, ResponseHeader};
use mooncake_wire::{Function, Profile, RpcError};

/// Longest body that the assemblers take here.
const LIMIT_BYTES: usize = 1 << 16;

/// A decoder under test.
pub type Decoder = fn(&[u8]);

/// All of them, by the name of the target and of the folder of its seeds.
#[allow(dead_code, reason = "a fuzz target uses one of them")]
pub const ALL: [(&str, Decoder); 7] = [
    ("handshake_frame", handshake_frame),
    ("descriptor", descriptor),
    ("control_frame", control_frame),
    ("tcp_data", tcp_data),
    ("wire_codec", wire_codec),
    ("endpoint", endpoint),
    ("settings", settings),
];

/// The first byte says how the rest is cut into pieces.
fn pieces(data: &[u8]) -> (usize, &[u8]) {
    let (first, rest) = data.split_first().unwrap_or((&0, &[]));
    (usize::from(*first).max(1), rest)
}

/// Upstream's handshake frame, in pieces and whole.
pub fn handshake_frame(data: &[u8]) {
    let (piece, data) = pieces(data);
    let read = |piece: usize| {
        let mut assembler = handshake::Assembler::new(LIMIT_BYTES);
        for bytes in data.chunks(piece) {
            let taken = assembler.push(bytes);
            assert!(assembler.held_bytes() <= 2 * data.len() + 64, "memory for what was only announced");
            match taken {
                Ok(true) => return Some(assembler.parts().map(|(kind, json)| (kind, json.to_vec()))),
                Ok(false) => {}
                Err(_) => return None,
            }
        }
        None
    };
    let whole = read(data.len().max(1));
    assert_eq!(whole, read(piece), "cut into pieces it is another message");
    if let Some(Some((kind, json))) = whole {
        let again = handshake::encode(kind, &json);
        let mut assembler = handshake::Assembler::new(LIMIT_BYTES);
        assert!(assembler.push(&again).unwrap_or(false));
        assert_eq!(assembler.parts(), Some((kind, json.as_slice())));
    }
}

/// A segment descriptor, of upstream or of ours.
pub fn descriptor(data: &[u8]) {
    let Ok(first) = SegmentDescriptor::decode(data) else { return };
    let written = first.encode();
    let second = SegmentDescriptor::decode(&written);
    assert!(second.is_ok_and(|second| second.same_content(&first) && second.encode() == written));
}

/// Frames of the control connection, in pieces, and the messages in them.
pub fn control_frame(data: &[u8]) {
    let (piece, data) = pieces(data);
    let mut assembler = control::frame::Assembler::new(LIMIT_BYTES);
    for mut bytes in data.chunks(piece) {
        while !bytes.is_empty() {
            let Ok(frame) = assembler.take(&mut bytes) else { return };
            assert!(assembler.held_bytes() <= 2 * data.len() + 64, "memory for what was only announced");
            if let Some((header, body)) = frame {
                assert_eq!(header.body_bytes, body.len());
                control_message(&body);
            }
        }
    }
    control_message(data);
}

fn control_message(body: &[u8]) {
    if let Ok(message) = serde_json::from_slice::<control::Message>(body) {
        let written = serde_json::to_vec(&message).unwrap_or_default();
        assert_eq!(serde_json::from_slice::<control::Message>(&written).ok(), Some(message));
    }
    if let Ok(hello) = serde_json::from_slice::<control::Hello>(body) {
        let written = serde_json::to_vec(&hello).unwrap_or_default();
        assert_eq!(serde_json::from_slice::<control::Hello>(&written).ok(), Some(hello));
    }
}

/// Headers and status frames of upstream's TCP data protocol.
pub fn tcp_data(data: &[u8]) {
    if let Some((bytes, _)) = data.split_first_chunk() {
        let header = tcp::Header::decode(bytes);
        assert_eq!(tcp::Header::decode(&header.encode()), header);
    }
    if let Some((bytes, _)) = data.split_first_chunk()
        && let Some(code) = tcp::read_status(*bytes)
    {
        assert_eq!(tcp::status(code), *bytes);
    }
}

/// Requests and answers of the master, in every profile: the first byte chooses the profile, the second the call.
pub fn wire_codec(data: &[u8]) {
    let [profile, function, body @ ..] = data else { return };
    let pick = |byte: u8, count: usize| usize::from(byte) % count;
    let (Some(&profile), Some(&function)) = (
        Profile::ALL.get(pick(*profile, Profile::ALL.len())),
        Function::ALL.get(pick(*function, Function::ALL.len())),
    ) else {
        return;
    };
    for again in [
        wire_calls::reread_request(profile, function, body),
        wire_calls::reread_reply(profile, function, body),
    ] {
        if let Some(Ok(written)) = again {
            assert!(written.len() <= body.len(), "longer than what it was read from");
        }
    }
    if let Some((bytes, _)) = body.split_first_chunk()
        && let Ok(header) = RequestHeader::decode(bytes, u32::MAX)
    {
        assert!(RequestHeader::decode(&header.encode(), u32::MAX).is_ok());
    }
    if let Some((bytes, _)) = body.split_first_chunk()
        && let Ok(header) = ResponseHeader::decode(bytes, u32::MAX)
    {
        assert!(ResponseHeader::decode(&header.encode(), u32::MAX).is_ok());
    }
    for error in [RpcError::NO_FUNCTION, u8::MAX] {
        drop(RpcError::decode(error, body));
    }
}

/// Names of peers and identities of processes.
pub fn endpoint(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(first) = text.parse::<Endpoint>() {
        let again = first.session().parse::<Endpoint>();
        let same = |second: &Endpoint| second.host == first.host && second.port == first.port;
        assert!(
            again.as_ref().is_ok_and(same),
            "{first:?} is written {} and read {again:?}",
            first.session()
        );
    }
    if let Ok(first) = serde_json::from_str::<Incarnation>(text) {
        let written = serde_json::to_string(&first).unwrap_or_default();
        assert_eq!(serde_json::from_str::<Incarnation>(&written).ok(), Some(first));
    }
}

/// What people configure: the priority matrix, locations, and the value of every environment variable.
pub fn settings(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(topology) = Topology::parse(text) {
        let written = topology.to_json();
        let again = Topology::parse(&written.to_string()).map(|topology| topology.to_json());
        assert!(again.is_ok_and(|again| again == written));
    }
    if let Ok(location) = text.parse::<Location>() {
        assert!(location.to_string().parse::<Location>().is_ok_and(|again| again == location));
    }
    // A value that cannot be used is a warning, and the default stands.
    let (config, _warnings) = Config::from_lookup(&|_| Some(text.to_owned()));
    assert!(config.rpc_port_min <= config.rpc_port_max && config.max_batch > 0);
}
