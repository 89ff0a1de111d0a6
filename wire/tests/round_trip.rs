//! Properties: what is written is read again, in both profiles, whatever the values and the width of the lengths.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // helpers outside of test functions

use std::sync::Arc;

use mooncake_wire::code::Outcome;
use mooncake_wire::codec::Map;
use mooncake_wire::lists::{Entries, MemoryReplica, Names, encode_entries};
use mooncake_wire::method::*;
use mooncake_wire::model::*;
use mooncake_wire::{EncodeError, ErrorCode, Method, Profile};
use proptest::prelude::*;

fn uuid() -> impl Strategy<Value = Uuid> {
    any::<(u64, u64)>().prop_map(|(first, second)| Uuid { first, second })
}

/// Mostly short, at times longer than one length byte can say.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![4 => prop::collection::vec(any::<u8>(), 0..40), 1 => prop::collection::vec(any::<u8>(), 250..300)]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![4 => ".{0,20}", 1 => "[a-z:]{250,270}"]
}

fn shared() -> impl Strategy<Value = Arc<str>> {
    text().prop_map(Arc::from)
}

fn buffer() -> impl Strategy<Value = Buffer> {
    (any::<u64>(), any::<u64>(), shared(), shared()).prop_map(|(size, address, protocol, endpoint)| Buffer {
        size,
        address,
        protocol,
        endpoint,
    })
}

fn placement() -> impl Strategy<Value = Placement> {
    prop_oneof![
        buffer().prop_map(Placement::Memory),
        buffer().prop_map(Placement::NvmeOverFabrics),
        (text(), any::<u64>()).prop_map(|(path, size)| Placement::Disk(Disk { path, size })),
        (uuid(), any::<u64>(), text()).prop_map(|(client, size, endpoint)| Placement::LocalDisk(LocalDisk {
            client,
            size,
            endpoint
        })),
    ]
}

fn replica() -> impl Strategy<Value = Replica> {
    (any::<u64>(), placement(), 0..6i32).prop_map(|(id, placement, code)| Replica {
        id,
        placement,
        status: ReplicaStatus::from_code(code),
    })
}

/// Replicas in memory, as a master of ours has them.
fn memory_list() -> impl Strategy<Value = Outcome<ReplicaList>> {
    let replica = (any::<u64>(), buffer(), 2..4i32).prop_map(|(id, buffer, code)| Replica {
        id,
        placement: Placement::Memory(buffer),
        status: ReplicaStatus::from_code(code),
    });
    let list = (prop::collection::vec(replica, 0..3), any::<u64>(), any::<Option<u64>>());
    let found = list
        .prop_map(|(replicas, lease_ttl_ms, checksum)| Ok(ReplicaList { replicas, lease_ttl_ms, checksum }));
    prop_oneof![found, code().prop_map(Err)]
}

fn names(replica: &Replica) -> Names {
    let Placement::Memory(buffer) = &replica.placement else { panic!("a replica in memory") };
    Names::new(&buffer.protocol, &buffer.endpoint)
}

fn borrowed<'n>((replica, names): (&Replica, &'n Names)) -> MemoryReplica<'n> {
    let Placement::Memory(buffer) = &replica.placement else { panic!("a replica in memory") };
    MemoryReplica {
        id: replica.id,
        size: buffer.size,
        address: buffer.address,
        names,
        status: replica.status,
    }
}

/// What a master writes for each of these keys, entry by entry, is what the value says.
fn entries_are<'a, M: Method<'a>>(
    profile: Profile,
    value: &M::Reply,
    count: usize,
    longest_name: usize,
    mut entry: impl FnMut(&mut Entries<'_>, usize),
) -> Result<(), TestCaseError> {
    let (mut expected, mut written) = (Vec::new(), Vec::new());
    profile.encode_reply::<M>(value, &mut expected).expect("encode");
    let encoded = encode_entries::<M>(profile, &mut written, count, longest_name, |entries| {
        (0..count).for_each(|index| entry(entries, index));
    });
    prop_assert_eq!(encoded, Ok(()));
    prop_assert_eq!(written, expected);
    let short = encode_entries::<M>(profile, &mut Vec::new(), count + 1, longest_name, |entries| {
        (0..count).for_each(|index| entry(entries, index));
    });
    prop_assert!(short.is_err(), "an entry is missing");
    Ok(())
}

fn code() -> impl Strategy<Value = ErrorCode> {
    any::<i32>().prop_map(ErrorCode)
}

/// A configuration that release 0.3.11 can express as well.
fn config() -> impl Strategy<Value = ReplicateConfig> {
    let pins = (any::<bool>(), any::<bool>(), any::<bool>(), any::<u8>());
    (any::<u64>(), any::<u64>(), pins, prop::collection::vec(text(), 0..4), text()).prop_map(
        |(
            replica_num,
            nof_replica_num,
            (soft, hard, same_node, data_type),
            preferred_segments,
            preferred_segment,
        )| {
            ReplicateConfig {
                replica_num,
                nof_replica_num,
                soft_pin_action: if soft { SoftPinAction::Enable } else { SoftPinAction::Preserve },
                with_hard_pin: hard,
                preferred_segments,
                preferred_segment,
                prefer_alloc_in_same_node: same_node,
                data_type,
                ..ReplicateConfig::default()
            }
        },
    )
}

fn request<'a, M: Method<'a> + PartialEq + std::fmt::Debug>(
    profile: Profile,
    call: &M,
    body: &'a mut Vec<u8>,
) -> Result<(), TestCaseError> {
    profile.encode_request(call, body).expect("encode");
    let body: &'a [u8] = body;
    prop_assert_eq!(&profile.decode_request::<M>(body).expect("decode"), call);
    Ok(())
}

fn reply<'a, M: Method<'a>>(profile: Profile, answer: &M::Reply) -> Result<(), TestCaseError>
where
    M::Reply: PartialEq + std::fmt::Debug,
{
    let mut body = Vec::new();
    profile.encode_reply::<M>(answer, &mut body).expect("encode");
    prop_assert_eq!(&profile.decode_reply::<M>(&body).expect("decode"), answer);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn requests(
        client in uuid(),
        keys in prop::collection::vec(bytes(), 0..6),
        lengths in prop::collection::vec(any::<u64>(), 0..6),
        config in config(),
        tenant in bytes(),
        kind in any::<i32>(),
        checksum in any::<Option<u64>>(),
    ) {
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let replica_type = ReplicaType(kind);
        for profile in Profile::ALL.iter().copied() {
            let newest = profile == Profile::V0_3_13;
            let tenant = if newest { Tenant(&tenant) } else { Tenant::default() };
            let checksum = checksum.filter(|_| newest);
            let objects: Vec<_> = keys.iter().map(|key| ObjectMeta { key, checksum }).collect();
            request(profile, &BatchExistKey { keys: keys.clone(), tenant }, &mut Vec::new())?;
            request(profile, &BatchPutEnd { client, objects, replica_type, tenant }, &mut Vec::new())?;
            let start = BatchPutStart {
                client, keys: keys.clone(), lengths: lengths.clone(), config: config.clone(), tenant,
            };
            request(profile, &start, &mut Vec::new())?;
            let evict = BatchEvictDiskReplica { client, keys: keys.clone(), tenant, replica_type };
            request(profile, &evict, &mut Vec::new())?;
        }
    }

    #[test]
    fn segments(id in uuid(), name in text(), te_endpoint in text(), protocol in text(), host_id in text(), base: u64) {
        for profile in Profile::ALL.iter().copied() {
            let host_id = if profile == Profile::V0_3_13 { host_id.clone() } else { String::new() };
            let segment = Segment {
                id, name: name.clone(), base, size: !base, te_endpoint: te_endpoint.clone(), protocol: protocol.clone(), host_id,
            };
            request(profile, &ReMountSegment { segments: vec![segment; 2], client: id }, &mut Vec::new())?;
        }
    }

    #[test]
    fn lists_written_by_entries_have_the_bytes_of_the_value(
        lists in prop_oneof![
            prop::collection::vec(memory_list(), 0..5),
            // More keys than one length byte can say.
            prop::collection::vec(memory_list(), 254..300),
        ],
    ) {
        let names: Vec<Vec<Names>> = lists.iter()
            .map(|list| list.iter().flat_map(|list| &list.replicas).map(names).collect()).collect();
        let longest_name = names.iter().flatten().map(Names::longest).max().unwrap_or(0);
        for profile in Profile::ALL.iter().copied() {
            entries_are::<BatchGetReplicaList<'_>>(profile, &lists, lists.len(), longest_name, |entries, index| {
                match &lists[index] {
                    Ok(list) => entries.readable(
                        list.replicas.iter().zip(&names[index]).map(borrowed), list.lease_ttl_ms, list.checksum),
                    Err(code) => entries.error(*code),
                }
            })?;
            let started: Vec<Outcome<Vec<Replica>>> =
                lists.iter().cloned().map(|list| list.map(|list| list.replicas)).collect();
            entries_are::<BatchPutStart<'_>>(profile, &started, lists.len(), longest_name, |entries, index| {
                match &started[index] {
                    Ok(replicas) => entries.replicas(replicas.iter().zip(&names[index]).map(borrowed)),
                    Err(code) => entries.error(*code),
                }
            })?;
            // A name that was not announced is told by an error, never cut.
            if lists.len() < 256 && longest_name > 255 {
                let written = encode_entries::<BatchPutStart<'_>>(profile, &mut Vec::new(), lists.len(), 0, |entries| {
                    for (list, names) in started.iter().zip(&names) {
                        match list {
                            Ok(replicas) => entries.replicas(replicas.iter().zip(names).map(borrowed)),
                            Err(code) => entries.error(*code),
                        }
                    }
                });
                prop_assert!(written.is_err());
            }
        }
    }

    #[test]
    fn flags_and_ends_written_by_entries_have_the_bytes_of_the_value(
        flags in prop::collection::vec(prop_oneof![any::<bool>().prop_map(Ok), code().prop_map(Err)], 0..300),
    ) {
        for profile in Profile::ALL.iter().copied() {
            entries_are::<BatchExistKey<'_>>(profile, &flags, flags.len(), 0, |entries, index| match flags[index] {
                Ok(flag) => entries.flag(flag),
                Err(code) => entries.error(code),
            })?;
            let ends: Vec<Outcome<()>> = flags.iter().map(|flag| flag.map(|_| ())).collect();
            entries_are::<BatchPutEnd<'_>>(profile, &ends, ends.len(), 0, |entries, index| match ends[index] {
                Ok(()) => entries.done(),
                Err(code) => entries.error(code),
            })?;
        }
    }

    #[test]
    fn replies(
        lists in prop::collection::vec(
            prop_oneof![prop::collection::vec(replica(), 0..4).prop_map(Ok), code().prop_map(Err)], 0..5),
        lease: u64,
        keys in prop::collection::vec(bytes(), 0..4),
        id in uuid(),
    ) {
        for profile in Profile::ALL.iter().copied() {
            reply::<BatchPutStart<'_>>(profile, &lists)?;
            let found: Vec<Outcome<ReplicaList>> = lists.iter().cloned()
                .map(|list| list.map(|replicas| ReplicaList { replicas, lease_ttl_ms: lease, checksum: None })).collect();
            reply::<BatchGetReplicaList<'_>>(profile, &found)?;
            let by_key = keys.iter().map(|key| (key.clone().into_boxed_slice(),
                lists.first().cloned().and_then(Result::ok).unwrap_or_default())).collect();
            reply::<GetReplicaListByRegex<'_>>(profile, &Ok(Map(by_key)))?;
            reply::<BatchQueryIp>(profile, &Ok(Map(vec![(id, vec!["10.0.0.1".to_owned()])])))?;
            reply::<BatchReplicaClear<'_>>(profile, &Ok(keys.iter().map(|key| key.clone().into()).collect()))?;
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        for profile in Profile::ALL.iter().copied() {
            let _ = profile.decode_request::<BatchPutStart<'_>>(&body);
            let _ = profile.decode_reply::<BatchGetReplicaList<'_>>(&body);
        }
    }
}

#[test]
fn a_thousand_keys_and_a_long_key_widen_the_lengths() {
    let long = vec![7u8; 70_000];
    for count in [1usize, 255, 256, 70_000] {
        let keys: Vec<&[u8]> = vec![b"key".as_slice(); count];
        let call = BatchExistKey { keys, tenant: Tenant::default() };
        let mut body = Vec::new();
        Profile::V0_3_13.encode_request(&call, &mut body).expect("encode");
        assert_eq!(Profile::V0_3_13.decode_request::<BatchExistKey<'_>>(&body).expect("decode"), call);
        let metainfo = match count {
            0..=255 => None,
            256..=65_535 => Some(0x08),
            _ => Some(0x10),
        };
        assert_eq!((body[0] & 1 == 1).then(|| body[4]), metainfo);
    }
    let call = ExistKey { key: &long, tenant: Tenant::default() };
    let mut body = Vec::new();
    Profile::V0_3_11.encode_request(&call, &mut body).expect("encode");
    assert_eq!(Profile::V0_3_11.decode_request::<ExistKey<'_>>(&body).expect("decode"), call);
}

#[test]
fn what_a_release_lacks_is_an_error_or_its_default() {
    let file = Placement::DistributedFile(DistributedFile {
        path: "p".into(),
        shard: 3,
        ..DistributedFile::default()
    });
    let answer = Ok(vec![Replica { id: 1, placement: file, status: ReplicaStatus::Complete }]);
    let mut body = Vec::new();
    assert!(Profile::V0_3_13.encode_reply::<PutStart<'_>>(&answer, &mut body).is_ok());
    assert_eq!(Profile::V0_3_13.decode_reply::<PutStart<'_>>(&body), Ok(answer.clone()));
    assert!(matches!(
        Profile::V0_3_11.encode_reply::<PutStart<'_>>(&answer, &mut Vec::new()),
        Err(EncodeError::NotInRelease { release: "0.3.11", .. })
    ));

    let config = ReplicateConfig {
        soft_pin_ttl_ms: Some(5),
        group_ids: Some(vec!["g".into()]),
        host_id: "h".into(),
        ..ReplicateConfig::default()
    };
    let start = PutStart { client: Uuid::default(), key: b"k", length: 1, config, tenant: Tenant(b"other") };
    let mut body = Vec::new();
    Profile::V0_3_11.encode_request(&start, &mut body).expect("encode");
    let read: PutStart<'_> = Profile::V0_3_11.decode_request(&body).expect("decode");
    assert_eq!(read.config, ReplicateConfig::default());
    assert_eq!(read.tenant, Tenant::default());
}
