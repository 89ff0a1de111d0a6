//! A batch answers for each key what the single call answers, whatever the number of keys and the length of names: its
//! answer is written from the objects, theirs from a value.
#![allow(clippy::expect_used)] // helpers outside of test functions

mod common;

use common::{Client, MIB, Master, segment, uuid};
use mooncake_wire::method::*;
use mooncake_wire::model::{ObjectMeta, Placement, ReplicateConfig, Segment};
use mooncake_wire::{ErrorCode, Profile};

/// Puts, ends and reads `count` keys by batches, and compares with the single calls.
fn compare(client: &mut Client, space: &str, count: usize, replicas: u64) -> Vec<String> {
    let names: Vec<String> = (0..count).map(|index| format!("{space} {index}")).collect();
    let mut keys: Vec<&[u8]> = names.iter().map(String::as_bytes).collect();
    // What cannot be put stands between what can: nothing, and a key for the second time.
    keys.insert(count / 2, b"");
    keys.push(names.first().expect("a key").as_bytes());
    let lengths = vec![100; keys.len()];
    let config = ReplicateConfig { replica_num: replicas, ..ReplicateConfig::default() };
    let start =
        BatchPutStart { client: uuid(1), keys: keys.clone(), lengths, config, ..BatchPutStart::default() };
    let started = client.call(&start).expect("call");
    assert_eq!(started.len(), keys.len());
    assert_eq!(started.iter().filter(|answer| answer.is_ok()).count(), count);
    assert_eq!(started.get(count / 2), Some(&Err(ErrorCode::INVALID_PARAMS)));
    assert_eq!(started.last(), Some(&Err(ErrorCode::OBJECT_ALREADY_EXISTS)));
    let early = BatchGetReplicaList { keys: keys.clone(), ..BatchGetReplicaList::default() };
    let early = client.call(&early).expect("call");
    let not_ready = early.iter().filter(|answer| **answer == Err(ErrorCode::REPLICA_IS_NOT_READY));
    assert_eq!(not_ready.count(), count + 1);

    let objects = keys.iter().map(|key| ObjectMeta { key, checksum: None }).collect();
    let end = BatchPutEnd { client: uuid(1), objects, ..BatchPutEnd::default() };
    let ended = client.call(&end).expect("call");
    assert_eq!(ended.iter().filter(|answer| answer.is_ok()).count(), count + 1);
    assert_eq!(ended.get(count / 2), Some(&Err(ErrorCode::OBJECT_NOT_FOUND)));

    keys.push(b"nobody put this");
    let exist = BatchExistKey { keys: keys.clone(), ..BatchExistKey::default() };
    let exist = client.call(&exist).expect("call");
    let get = BatchGetReplicaList { keys: keys.clone(), ..BatchGetReplicaList::default() };
    let lists = client.call(&get).expect("call");
    assert_eq!((exist.len(), lists.len()), (keys.len(), keys.len()));
    let mut endpoints = Vec::new();
    for (key, (exists, list)) in keys.iter().zip(exist.into_iter().zip(lists)) {
        assert_eq!(client.call(&ExistKey { key, ..ExistKey::default() }), Ok(exists));
        let single = client.call(&GetReplicaList { key, ..GetReplicaList::default() });
        assert_eq!(single, Ok(list.clone()));
        for replica in list.into_iter().flat_map(|list| list.replicas) {
            if let Placement::Memory(buffer) = replica.placement {
                endpoints.push(buffer.endpoint.to_string());
            }
        }
    }
    // What the writer was told is what the readers are told.
    let told = started.into_iter().flatten().flatten().map(|replica| replica.placement);
    let told: Vec<String> = told
        .filter_map(|placement| match placement {
            Placement::Memory(buffer) => Some(buffer.endpoint.to_string()),
            _ => None,
        })
        .collect();
    // The first key was asked for twice.
    let again = usize::try_from(replicas).expect("fits");
    assert_eq!(endpoints.get(..told.len()), Some(&*told));
    assert_eq!(endpoints.len(), told.len() + again);
    endpoints
}

#[test]
fn a_batch_answers_what_single_calls_answer() {
    for profile in Profile::ALL.iter().copied() {
        let master = Master::start(&[]);
        let mut client = Client::connect(master.rpc, profile).expect("connect");
        let lend = |client: &mut Client, number: u64, endpoint: String| {
            let segment = Segment { te_endpoint: endpoint, ..segment(number, &format!("s{number}"), MIB) };
            let mount = ReMountSegment { segments: vec![segment], client: uuid(1) };
            client.call(&mount).expect("call").expect("mount");
        };
        lend(&mut client, 1, "10.0.0.1:12300".into());
        // Longer than what is written as one block.
        lend(&mut client, 2, format!("{}:1", "long".repeat(20)));
        for count in [1, 2, 20, 254, 300] {
            let endpoints = compare(&mut client, &format!("short {count}"), count, 2);
            assert!(endpoints.iter().any(|endpoint| endpoint.len() < 20));
            assert!(endpoints.iter().any(|endpoint| endpoint.len() > 80));
        }
        // Longer than one length byte can say: the lengths of every answer are wider from now on.
        lend(&mut client, 3, format!("{}:1", "l".repeat(300)));
        for count in [1, 20, 300] {
            let endpoints = compare(&mut client, &format!("wide {count}"), count, 3);
            assert!(endpoints.iter().any(|endpoint| endpoint.len() == 302));
        }
    }
}
