//! Every function of upstream's master, in both releases: it is answered with meaning, or refused by its name.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // helpers outside of test functions

mod common;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use common::Master;
use mooncake_wire::frame::{RequestHeader, ResponseHeader};
use mooncake_wire::limits::MAX_RESPONSE_BODY_BYTES;
use mooncake_wire::{ErrorCode, Function, Profile, RpcError};

/// What is offered; the others belong to features that are not here.
const OFFERED: [&str; 34] = [
    "BatchExistKey",
    "BatchGetReplicaList",
    "BatchPutEnd",
    "BatchPutRevoke",
    "BatchPutStart",
    "BatchQueryIp",
    "BatchRemove",
    "BatchReplicaClear",
    "BatchUpsertEnd",
    "BatchUpsertRevoke",
    "BatchUpsertStart",
    "ExistKey",
    "FetchTasks",
    "GetFsdir",
    "GetReplicaList",
    "GetReplicaListByRegex",
    "GetStorageConfig",
    "GracefulUnmountSegment",
    "MountSegment",
    "Ping",
    "PutEnd",
    "PutRevoke",
    "PutStart",
    "QuerySegmentStatus",
    "QuerySegmentStatusById",
    "ReMountSegment",
    "Remove",
    "RemoveAll",
    "RemoveByRegex",
    "ServiceReady",
    "UnmountSegment",
    "UpsertEnd",
    "UpsertRevoke",
    "UpsertStart",
];

/// Sends a call as bytes; answers the error of the call itself and the body.
fn send(stream: &mut TcpStream, function: Function, body: &[u8]) -> (u8, Vec<u8>) {
    let header = RequestHeader {
        sequence: 1,
        function_id: function.id(),
        body_bytes: u32::try_from(body.len()).expect("fits"),
        attachment_bytes: 0,
    };
    let frame = [&header.encode()[..], body].concat();
    stream.write_all(&frame).expect("write");
    let mut bytes = [0; ResponseHeader::BYTES];
    stream.read_exact(&mut bytes).expect("answer");
    let header = ResponseHeader::decode(&bytes, MAX_RESPONSE_BODY_BYTES).expect("header");
    let mut body = vec![0; usize::try_from(header.body_bytes).expect("fits")];
    stream.read_exact(&mut body).expect("body");
    (header.error, body)
}

#[test]
fn each_is_answered_or_refused_by_its_name() {
    for profile in Profile::ALL {
        let master = Master::start(&[&format!("--wire_profile={}", profile.release())]);
        let mut stream = TcpStream::connect(master.rpc).expect("connect");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
        let (mut offered, mut refused) = (BTreeSet::new(), 0);
        for function in Function::ALL {
            let name = function.name();
            let Some(signature) = profile.signature(*function) else {
                let (error, _) = send(&mut stream, *function, &[]);
                assert_eq!(error, RpcError::NO_FUNCTION, "{name} is not of release {profile}");
                continue;
            };
            // The type of the arguments is right, and they are missing: who reads them says so.
            let body = signature.arguments_hash.map(u32::to_le_bytes);
            let (error, answer) = send(&mut stream, *function, body.as_ref().map_or(&[], |hash| hash));
            let reads_arguments = error == RpcError::INVALID_ARGUMENTS;
            if OFFERED.contains(&name) {
                assert_eq!(error != 0, signature.arguments_hash.is_some(), "{name}: {error}");
                offered.insert(name);
                continue;
            }
            if *function == Function::BatchEvictDiskReplica {
                assert!(reads_arguments, "its answer has an entry for each key");
                refused += 1;
                continue;
            }
            assert_eq!(error, 0, "{name} is answered, not dropped");
            let mut expected = signature.reply_hash.to_le_bytes().to_vec();
            expected.push(0);
            let code = match function {
                Function::QueryTask | Function::MarkTaskToComplete => ErrorCode::TASK_NOT_FOUND,
                _ => ErrorCode::UNAVAILABLE_IN_CURRENT_MODE,
            };
            expected.extend(code.0.to_le_bytes());
            assert_eq!(answer, expected, "{name} is refused in the type of its answer");
            refused += 1;
        }
        let absent: Vec<_> = OFFERED
            .iter()
            .filter(|name| !offered.contains(*name))
            .filter(|name| {
                let function = Function::ALL.iter().find(|function| function.name() == **name);
                profile.signature(*function.expect("a function")).is_some()
            })
            .collect();
        assert!(absent.is_empty(), "{absent:?}");
        assert_eq!(refused, if *profile == Profile::V0_3_13 { 30 } else { 25 }, "{profile}");
        let (_, page) = master.http("GET /metrics");
        let line = "master_copy_start_failures_total 1";
        assert!(page.lines().any(|found| found == line), "a refusal is counted");
    }
}
