//! Bytes of a peer that means harm, or has a fault: an error, never a panic, never memory for what is not there.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // helpers outside of test functions

mod common;

use common::{reread_reply, reread_request, session, unhex};
use mooncake_wire::frame::{RequestHeader, ResponseHeader};
use mooncake_wire::limits::{
    MAX_ATTACHMENT_BYTES, MAX_ELEMENTS, MAX_REQUEST_BODY_BYTES, MAX_RESPONSE_BODY_BYTES, MAX_STRING_BYTES,
};
use mooncake_wire::method::{BatchExistKey, ExistKey};
use mooncake_wire::{DecodeError, ErrorCode, Function, Profile, RpcError};

/// A small generator with a seed: a failing case can be run again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).expect("fits")
    }
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        let byte = random.next().to_le_bytes()[0];
        match random.below(6) {
            0 if !bytes.is_empty() => bytes[at] = byte,
            1 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            2 => bytes.insert(at, byte),
            3 if !bytes.is_empty() => drop(bytes.remove(at)),
            4 => bytes.truncate(at),
            _ if !bytes.is_empty() => bytes[at] = 0xff,
            _ => {}
        }
    }
}

#[test]
fn mutations_of_the_recorded_session() {
    let calls = session();
    let seeds: Vec<u64> = include_str!("golden/mutation_seeds.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| u64::from_str_radix(line, 16).expect("seed"))
        .collect();
    assert!(seeds.len() >= 8);
    let (mut accepted, mut refused) = (0u32, 0u32);
    for seed in seeds {
        let mut random = Random(seed);
        for _ in 0..4000 {
            let call = &calls[random.below(calls.len())];
            let profile = if random.below(4) == 0 { Profile::V0_3_11 } else { Profile::V0_3_13 };
            let (mut request, mut response) = (call.request.clone(), call.response.clone());
            mutate(&mut random, &mut request);
            mutate(&mut random, &mut response);
            for (again, bytes) in [
                (reread_request(profile, call.function, &request).expect("typed"), request),
                (reread_reply(profile, call.function, &response).expect("typed"), response),
            ] {
                match again {
                    // A message that was read, written again, is never longer than what it was read from.
                    Ok(written) => {
                        assert!(written.len() <= bytes.len(), "seed {seed:x}: {bytes:02x?}");
                        accepted += 1;
                    }
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(accepted > 1000 && refused > 1000, "{accepted} accepted, {refused} refused");
}

#[test]
fn length_bombs_are_refused_before_anything_is_reserved() {
    // BatchExistKey with a vector of 2^32-1 and of 2^64-1 strings, in a body of a few bytes.
    for (body, length) in [
        ("638df70010ffffffff", u64::from(u32::MAX)),
        ("638df70018ffffffffffffffff", u64::MAX),
        ("638df70008ffff01", 0xffff),
    ] {
        let body = unhex(body);
        let result = Profile::V0_3_13.decode_request::<BatchExistKey<'_>>(&body);
        assert!(
            matches!(result, Err(DecodeError::Length { length: got, .. }) if got == length),
            "{result:?}"
        );
    }
    // A string longer than its message.
    let body = unhex("d81ef97cff6b31");
    let result = Profile::V0_3_13.decode_request::<ExistKey<'_>>(&body);
    assert_eq!(result, Err(DecodeError::Length { length: 255, limit: 2 }));
}

#[test]
fn frames_of_something_else_are_refused() {
    let good = RequestHeader { sequence: 1, function_id: 2, body_bytes: 3, attachment_bytes: 0 };
    assert_eq!(RequestHeader::decode(&good.encode(), 3), Ok(good));
    let with = |at: usize, byte: u8| {
        let mut bytes = good.encode();
        bytes[at] = byte;
        RequestHeader::decode(&bytes, MAX_REQUEST_BODY_BYTES)
    };
    assert_eq!(with(0, b'G'), Err(DecodeError::Magic(b'G')));
    assert_eq!(with(1, 1), Err(DecodeError::Version(1)));
    assert_eq!(with(2, 1), Err(DecodeError::Serialization(1)));
    assert_eq!(with(3, 9), Ok(good), "the message type is ignored");
    assert!(matches!(with(15, 0xff), Err(DecodeError::Length { .. })), "a body of 4 GiB");
    let limit = usize::try_from(MAX_ATTACHMENT_BYTES).expect("fits");
    assert!(matches!(with(19, 1), Err(DecodeError::Length { limit: got, .. }) if got == limit));

    let answer = ResponseHeader { error: 4, sequence: 1, body_bytes: 3, attachment_bytes: 0 };
    assert_eq!(ResponseHeader::decode(&answer.encode(), 3), Ok(answer));
    assert!(ResponseHeader::decode(&answer.encode(), 2).is_err());
}

#[test]
fn errors_of_the_call_itself() {
    let mut out = Vec::new();
    RpcError::respond(&mut out, 5, RpcError::INVALID_ARGUMENTS, "invalid rpc arg").expect("frame");
    let header = ResponseHeader::decode(out.first_chunk().expect("header"), 100).expect("header");
    assert_eq!((header.error, header.sequence), (4, 5));
    let error = RpcError::decode(header.error, &out[16..]).expect("body");
    assert_eq!(error, RpcError { code: 4, message: "invalid rpc arg".into() });

    let far = RpcError { code: 1234, message: "far".into() };
    let mut body = Vec::new();
    far.encode_extended(&mut body).expect("body");
    assert_eq!(RpcError::decode(255, &body), Ok(far));
}

#[test]
fn a_refusal_has_the_hash_of_the_answer_it_replaces() {
    let mut out = Vec::new();
    Profile::V0_3_13
        .encode_refusal(Function::QueryTask, ErrorCode::TASK_NOT_FOUND, &mut out)
        .expect("refusal");
    assert_eq!(out, unhex("e67dd50200").into_iter().chain((-1400i32).to_le_bytes()).collect::<Vec<_>>());
    assert!(Profile::V0_3_11.encode_refusal(Function::PollRemoveAll, ErrorCode::OK, &mut out).is_err());
    assert!(Profile::V0_3_13.encode_refusal(Function::RemoveAll, ErrorCode::OK, &mut out).is_err());
}

/// A body in which everything is there: only the limits say no.
#[test]
fn every_length_has_its_limit_though_the_bytes_are_there() {
    let four_wide = |hash: [u8; 4]| -> Vec<u8> {
        let mut body = hash.to_vec();
        body[0] |= 1;
        body.push(2 << 3);
        body
    };
    let length = |count: usize| u32::try_from(count).expect("fits").to_le_bytes();
    // ExistKey with a key of so many bytes.
    let with_key = |bytes: usize| {
        let mut body = four_wide([0xd8, 0x1e, 0xf9, 0x7c]);
        body.extend_from_slice(&length(bytes));
        body.resize(body.len() + bytes, b'k');
        body.extend_from_slice(&length(0));
        body
    };
    let longest = with_key(MAX_STRING_BYTES);
    let call = Profile::V0_3_13.decode_request::<ExistKey<'_>>(&longest).expect("the longest key");
    assert_eq!(call.key.len(), MAX_STRING_BYTES);
    let longer = with_key(MAX_STRING_BYTES + 1);
    let refused = Profile::V0_3_13.decode_request::<ExistKey<'_>>(&longer).expect_err("too long");
    assert_eq!(refused, DecodeError::Length { length: MAX_STRING_BYTES as u64 + 1, limit: MAX_STRING_BYTES });

    // BatchExistKey with so many empty keys.
    let with_keys = |count: usize| {
        let mut body = four_wide([0x62, 0x8d, 0xf7, 0x00]);
        body.extend_from_slice(&length(count));
        body.resize(body.len() + 4 * count, 0);
        body.extend_from_slice(&length(0));
        body
    };
    let most = with_keys(MAX_ELEMENTS);
    assert_eq!(
        Profile::V0_3_13.decode_request::<BatchExistKey<'_>>(&most).expect("the most keys").keys.len(),
        MAX_ELEMENTS
    );
    let more = with_keys(MAX_ELEMENTS + 1);
    let refused = Profile::V0_3_13.decode_request::<BatchExistKey<'_>>(&more).expect_err("too many");
    assert!(matches!(refused, DecodeError::Length { limit: MAX_ELEMENTS, .. }), "{refused:?}");

    // Frames: the longest body and attachment, and one byte more.
    let header = |body_bytes, attachment_bytes| {
        let header = RequestHeader { sequence: 1, function_id: 2, body_bytes, attachment_bytes };
        RequestHeader::decode(&header.encode(), MAX_REQUEST_BODY_BYTES)
    };
    assert!(header(MAX_REQUEST_BODY_BYTES, MAX_ATTACHMENT_BYTES).is_ok());
    assert!(header(MAX_REQUEST_BODY_BYTES + 1, 0).is_err());
    assert!(header(0, MAX_ATTACHMENT_BYTES + 1).is_err());
    let answer = |body_bytes| {
        let header = ResponseHeader { error: 0, sequence: 1, body_bytes, attachment_bytes: 0 };
        ResponseHeader::decode(&header.encode(), MAX_RESPONSE_BODY_BYTES)
    };
    assert!(answer(MAX_RESPONSE_BODY_BYTES).is_ok() && answer(MAX_RESPONSE_BODY_BYTES + 1).is_err());
}
