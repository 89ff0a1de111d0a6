//! What the tests share: hexadecimal, the recorded session, and a call of every type by its function.
#![allow(dead_code)] // each test file uses its part

use mooncake_wire::method::*;
use mooncake_wire::{DecodeError, Function, Profile};

pub fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

/// One call of the recorded session.
pub struct Recorded {
    pub function: Function,
    pub sequence: u32,
    pub request: Vec<u8>,
    pub response: Vec<u8>,
}

/// The recorded session of upstream's 0.3.13.post1 client and master.
pub fn session() -> Vec<Recorded> {
    let text = include_str!("../golden/coro_rpc_trace_0.3.13.txt");
    let mut calls = Vec::new();
    for line in text.lines() {
        if let Some((name, rest)) = line.split_once(" hdr=(21,0,0,0,seq=") {
            let sequence = rest.split(',').next().expect("sequence").parse().expect("number");
            let function = *Function::ALL.iter().find(|function| function.name() == name).expect("function");
            let request = unhex(rest.split_once("req=").expect("request").1);
            calls.push(Recorded { function, sequence, request, response: Vec::new() });
        } else if let Some(response) = line.trim().strip_prefix("resp=") {
            calls.last_mut().expect("call").response = unhex(response);
        }
    }
    calls
}

/// The same message as a sender without literals writes it.
pub fn without_literal(body: &[u8], literal: Option<&mooncake_wire::literal::Literal>) -> Vec<u8> {
    let Some(literal) = literal else {
        return body.to_vec();
    };
    if body[0] & 1 == 0 || body[4] & 4 == 0 {
        return body.to_vec();
    }
    let mut out = body[..4].to_vec();
    if body[4] & !4 == 0 {
        out[0] &= !1;
    } else {
        out.push(body[4] & !4);
    }
    out.extend_from_slice(&body[5 + literal.as_bytes().len() + 1..]);
    out
}

fn request<'a, M: Method<'a>>(profile: Profile, body: &'a [u8]) -> Result<Vec<u8>, DecodeError> {
    let call: M = profile.decode_request(body)?;
    let mut out = Vec::new();
    profile.encode_request(&call, &mut out).expect("what was read can be written");
    Ok(out)
}

fn reply<'a, M: Method<'a>>(profile: Profile, body: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let answer: M::Reply = profile.decode_reply::<M>(body)?;
    let mut out = Vec::new();
    profile.encode_reply::<M>(&answer, &mut out).expect("what was read can be written");
    Ok(out)
}

macro_rules! table {
    ($($name:ident,)*) => {
        /// Reads a request and writes it again; `None` for a function that is only refused.
        pub fn reread_request(profile: Profile, function: Function, body: &[u8]) -> Option<Result<Vec<u8>, DecodeError>> {
            match function {
                $(Function::$name => Some(request::<$name>(profile, body)),)*
                _ => None,
            }
        }
        /// Reads an answer and writes it again; `None` for a function that is only refused.
        pub fn reread_reply(profile: Profile, function: Function, body: &[u8]) -> Option<Result<Vec<u8>, DecodeError>> {
            match function {
                $(Function::$name => Some(reply::<$name>(profile, body)),)*
                _ => None,
            }
        }
    };
}

table! {
    ServiceReady, Ping, GetFsdir, GetStorageConfig, MountSegment, ReMountSegment, UnmountSegment, ExistKey,
    BatchExistKey, GetReplicaList, BatchGetReplicaList, GetReplicaListByRegex, BatchQueryIp, BatchReplicaClear,
    PutStart, PutEnd, PutRevoke, BatchPutStart, BatchPutEnd, BatchPutRevoke, Remove, RemoveByRegex, RemoveAll,
    FetchTasks, UpsertStart, UpsertEnd, UpsertRevoke, BatchUpsertStart, BatchUpsertEnd, BatchUpsertRevoke,
    BatchRemove, BatchEvictDiskReplica, QuerySegmentStatus, QuerySegmentStatusById, GracefulUnmountSegment,
}
