//! The recorded session of upstream's released client and master as golden bytes.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // helpers outside of test functions

mod common;

use common::{reread_reply, reread_request, session, unhex, without_literal};
use mooncake_wire::frame::{self, RequestHeader, ResponseHeader};
use mooncake_wire::limits::{MAX_REQUEST_BODY_BYTES, MAX_RESPONSE_BODY_BYTES};
use mooncake_wire::method::{BatchPutStart, ExistKey, GetReplicaList, MountSegment, PutStart};
use mooncake_wire::model::{Buffer, Placement, Replica, ReplicaStatus, ReplicateConfig, Tenant, Uuid};
use mooncake_wire::{DecodeError, Function, Profile};

const NEWEST: Profile = Profile::V0_3_13;

#[test]
fn every_message_is_read_and_written_again_as_it_was() {
    let calls = session();
    assert_eq!(calls.len(), 24);
    for call in &calls {
        let signature = NEWEST.signature(call.function).expect("signature");
        let request = reread_request(NEWEST, call.function, &call.request).expect("typed").expect("request");
        assert_eq!(
            request,
            without_literal(&call.request, signature.arguments.as_ref()),
            "{}",
            call.function
        );
        let response = reread_reply(NEWEST, call.function, &call.response).expect("typed").expect("response");
        assert_eq!(response, without_literal(&call.response, Some(&signature.reply)), "{}", call.function);
        // What we send is read as well as what upstream sends.
        assert_eq!(reread_request(NEWEST, call.function, &request).expect("typed"), Ok(request));
        assert_eq!(reread_reply(NEWEST, call.function, &response).expect("typed"), Ok(response));
    }
}

#[test]
fn values_mean_what_upstream_meant() {
    let calls = session();
    let of = |function| calls.iter().find(move |call| call.function == function).expect("call");

    let mount: MountSegment = NEWEST.decode_request(&of(Function::MountSegment).request).expect("mount");
    assert_eq!(
        mount.segment.id,
        Uuid { first: 9_676_144_519_753_595_146, second: 17_821_342_163_502_711_229 }
    );
    assert_eq!(mount.segment.name, "127.0.0.1:51080");
    assert_eq!((mount.segment.base, mount.segment.size), (139_728_640_802_816, 67_108_864));
    assert_eq!(
        (mount.segment.te_endpoint.as_str(), mount.segment.protocol.as_str()),
        ("127.0.0.1:15103", "tcp")
    );

    let start: PutStart<'_> = NEWEST.decode_request(&of(Function::PutStart).request).expect("put");
    assert_eq!((start.key, start.length), (b"k1".as_slice(), 5000));
    assert_eq!(start.client, mount.client);
    assert_eq!(start.config, ReplicateConfig::default());
    assert_eq!(start.tenant, Tenant::default());

    let list = NEWEST.decode_reply::<GetReplicaList<'_>>(&of(Function::GetReplicaList).response);
    let list = list.expect("reply").expect("found");
    let buffer = Buffer {
        size: 5000,
        address: 139_728_640_802_816,
        protocol: "tcp".into(),
        endpoint: "127.0.0.1:15103".into(),
    };
    assert_eq!(
        list.replicas,
        [Replica { id: 1, placement: Placement::Memory(buffer), status: ReplicaStatus::Complete }]
    );
    assert_eq!((list.lease_ttl_ms, list.checksum), (10_000, None));

    let batch: BatchPutStart<'_> =
        NEWEST.decode_request(&of(Function::BatchPutStart).request).expect("batch");
    assert_eq!(batch.keys.len(), batch.lengths.len());
    assert_eq!((batch.keys[0], batch.lengths[0]), (b"a".as_slice(), 300));
}

#[test]
fn the_smallest_frames_of_a_call() {
    let exist = ExistKey { key: b"k1", tenant: Tenant::default() };
    let mut out = Vec::new();
    frame::request(&mut out, 0, Function::ExistKey.id(), |body| NEWEST.encode_request(&exist, body))
        .expect("frame");
    assert_eq!(out, unhex("1500000000000000095f38890f00000000000000d81ef97c026b310764656661756c74"));
    let header =
        RequestHeader::decode(out.first_chunk().expect("header"), MAX_REQUEST_BODY_BYTES).expect("header");
    assert_eq!(header.function_id, 0x8938_5f09);
    assert_eq!(header.body_bytes, 15);

    let mut out = Vec::new();
    frame::response(&mut out, 7, 0, |body| NEWEST.encode_reply::<ExistKey<'_>>(&Ok(true), body))
        .expect("frame");
    assert_eq!(out, unhex("15000000070000000600000000000000d200e8900101"));
    let header =
        ResponseHeader::decode(out.first_chunk().expect("header"), MAX_RESPONSE_BODY_BYTES).expect("header");
    assert_eq!((header.error, header.sequence, header.body_bytes, header.attachment_bytes), (0, 7, 6, 0));
}

#[test]
fn a_literal_that_is_not_ours_and_a_body_cut_short_are_refused() {
    let call = session().into_iter().find(|call| call.function == Function::PutStart).expect("call");
    let mut wrong = call.request.clone();
    wrong[9] ^= 1;
    assert_eq!(NEWEST.decode_request::<PutStart<'_>>(&wrong), Err(DecodeError::Literal));
    for length in 0..call.request.len() {
        let cut = NEWEST.decode_request::<PutStart<'_>>(&call.request[..length]);
        assert!(cut.is_err(), "{length} bytes");
    }
    // More bytes than the arguments take are ignored, as upstream does.
    let mut long = call.request.clone();
    long.extend_from_slice(&[0xff; 9]);
    assert!(NEWEST.decode_request::<PutStart<'_>>(&long).is_ok());
    // Another release's call is told by its hash.
    assert_eq!(
        Profile::V0_3_11.decode_request::<PutStart<'_>>(&call.request),
        Err(DecodeError::Hash { got: 0xe385_bd0e, expected: 0x5ddd_cc88 })
    );
}

#[test]
fn wider_lengths_than_needed_are_accepted() {
    // ExistKey("k1"), lengths of eight and of two bytes, without literal.
    let eight = unhex("d91ef97c1802000000000000006b31070000000000000064656661756c74");
    let two = unhex("d91ef97c0802006b31070064656661756c74");
    for body in [eight, two] {
        let call: ExistKey<'_> = NEWEST.decode_request(&body).expect("call");
        assert_eq!((call.key, call.tenant), (b"k1".as_slice(), Tenant::default()));
    }
}
