//! Descriptors of released upstream versions are read, and written again byte for byte; hostile ones are
//! refused without harm.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

use mooncake::endpoint::Incarnation;
use mooncake::error::Code;
use mooncake::memory::{SharedFile, SharedRange};
use mooncake::segment::{BufferDescriptor, DeviceMemory, Ours, RankInfo, SegmentDescriptor, View};
use proptest::prelude::*;
use std::sync::Arc;

const GOLDEN: [(&str, &[u8]); 5] = [
    ("0.3.8", include_bytes!("golden/descriptors/tcp-0.3.8.json")),
    ("0.3.10.post2", include_bytes!("golden/descriptors/tcp-0.3.10.post2.json")),
    ("0.3.12", include_bytes!("golden/descriptors/tcp-0.3.12.json")),
    ("0.3.13.post1", include_bytes!("golden/descriptors/tcp-0.3.13.post1.json")),
    ("ascend 0.3.13.post1", include_bytes!("golden/descriptors/ascend-0.3.13.post1.json")),
];

fn golden(release: &str) -> &'static [u8] {
    GOLDEN.iter().find(|(name, _)| *name == release).unwrap().1
}

#[test]
fn captured_descriptors_are_written_as_upstream_wrote_them() {
    for (release, bytes) in GOLDEN {
        let descriptor =
            SegmentDescriptor::decode(bytes).unwrap_or_else(|error| panic!("{release}: {error}"));
        if bytes.windows(17).any(|part| part == b"tcp_proto_version") {
            let written = String::from_utf8(descriptor.encode()).unwrap();
            assert_eq!(written, String::from_utf8_lossy(bytes), "{release}");
        } else {
            // Releases before 0.3.12 have no version of the data protocol; we always write one.
            assert_eq!(descriptor.tcp_proto_version, 1, "{release}");
        }
        assert_eq!(SegmentDescriptor::decode(&descriptor.encode()).unwrap(), descriptor, "{release}");
    }
}

#[test]
fn captured_fields_are_understood() {
    let tcp = SegmentDescriptor::decode(golden("0.3.13.post1")).unwrap();
    assert_eq!((tcp.name.as_str(), tcp.protocol.as_str()), ("127.0.0.1:21181", "tcp"));
    assert_eq!((tcp.tcp_data_port, tcp.tcp_proto_version), (21171, 2));
    assert_eq!(tcp.tcp_data_host.as_deref(), Some("127.0.0.1"));
    assert_eq!(tcp.buffers[0].address, 139995470880784);
    let ascend = SegmentDescriptor::decode(golden("ascend 0.3.13.post1")).unwrap();
    assert_eq!(ascend.buffers[0].name, "npu:1");
    assert_eq!(ascend.buffers[0].device_id, Some(2));
    let rank = ascend.rank_info.unwrap();
    assert_eq!(rank.endpoints, ["127.0.0.1:20259"]);
    assert_eq!(
        rank,
        RankInfo { host_ip: "127.0.0.1".into(), endpoints: rank.endpoints.clone(), ..RankInfo::default() }
    );
    let old = SegmentDescriptor::decode(golden("0.3.8")).unwrap();
    assert_eq!(old.buffers.len(), 2);
    assert_eq!(old.buffers[0].length_bytes, 2 << 30);
}

#[test]
fn our_own_key_is_one_object_at_the_top_level() {
    let ours = Ours {
        version: 1,
        incarnation: Incarnation { id: 7, pid: 42, boot_id: "b".into() },
        control_port: 15123,
        epoch: 3,
        devices: vec![0, 1],
        memory: vec![DeviceMemory { address: 4096, length_bytes: 64, device: 1 }],
        shared: vec![SharedRange {
            address: 8192,
            file: SharedFile { descriptor: 9, inode: 77, length_bytes: 4096 },
        }],
    };
    let mut descriptor = SegmentDescriptor::decode(golden("0.3.13.post1")).unwrap();
    let plain = serde_json::from_slice::<serde_json::Value>(&descriptor.encode()).unwrap();
    descriptor.ours = Some(ours.clone());
    let bytes = descriptor.encode();
    let mut value = serde_json::from_slice::<serde_json::Value>(&bytes).unwrap();
    let keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
    let mut sorted = keys.clone();
    sorted.sort();
    assert_eq!(keys, sorted);
    assert!(value.as_object_mut().unwrap().shift_remove("mooncake_transfer").is_some());
    assert_eq!(value, plain, "nothing else changes");
    assert_eq!(SegmentDescriptor::decode(&bytes).unwrap().ours, Some(ours));
}

#[test]
fn another_version_of_ours_is_refused_loudly() {
    let text = r#"{"name":"a:1","protocol":"tcp","mooncake_transfer":{"version":2,"shape":"unknown"}}"#;
    let error = SegmentDescriptor::decode(text.as_bytes()).unwrap_err();
    assert_eq!(error.code(), Code::Unsupported);
    assert!(error.to_string().contains("version 2"), "{error}");
}

#[test]
fn what_upstream_refuses_is_refused() {
    let with = |part: &str| format!(r#"{{"name":"a:1","protocol":"tcp",{part}}}"#);
    let cases = [
        (String::from("[]"), Code::MalformedJson),
        ("null\n".into(), Code::Metadata),
        ("{}".into(), Code::MalformedJson),
        (r#"{"name":"a:1","protocol":"smoke"}"#.into(), Code::MalformedJson),
        (r#"{"name":"a:1","protocol":["tcp","rdma"]}"#.into(), Code::MalformedJson),
        (r#"{"name":"","protocol":"tcp"}"#.into(), Code::MalformedJson),
        (with(r#""tcp_data_port":"12""#), Code::MalformedJson),
        (with(r#""tcp_data_port":65536"#), Code::MalformedJson),
        (with(r#""tcp_data_port":-1"#), Code::MalformedJson),
        (with(r#""tcp_data_host":7"#), Code::MalformedJson),
        (with(r#""buffers":{}"#), Code::MalformedJson),
        (with(r#""buffers":[7]"#), Code::MalformedJson),
        (with(r#""buffers":[{"name":"","addr":1,"length":1}]"#), Code::MalformedJson),
        (with(r#""buffers":[{"name":"x","addr":0,"length":1}]"#), Code::MalformedJson),
        (with(r#""buffers":[{"name":"x","addr":1,"length":0}]"#), Code::MalformedJson),
        (with(r#""buffers":[{"name":"x","addr":1}]"#), Code::MalformedJson),
        (with(r#""buffers":[{"name":"x","addr":"1","length":1}]"#), Code::MalformedJson),
        (with(r#""buffers":[{"name":"x","addr":18446744073709551615,"length":1}]"#), Code::MalformedJson),
        (with(r#""buffers":[{"name":"x","addr":1,"length":1,"device_id":4294967296}]"#), Code::MalformedJson),
        (with(r#""mooncake_transfer":7"#), Code::MalformedJson),
        (with(r#""rank_info":[]"#), Code::MalformedJson),
        (
            r#"{"name":"a:1","protocol":"rdma","devices":[{"name":"mlx5_0"}],
                "buffers":[{"name":"x","addr":1,"length":1,"rkey":[],"lkey":[]}]}"#
                .into(),
            Code::MalformedJson,
        ),
    ];
    for (text, code) in cases {
        match SegmentDescriptor::decode(text.as_bytes()) {
            Ok(descriptor) => panic!("{text} was taken as {descriptor:?}"),
            Err(error) => assert_eq!(error.code(), code, "{text}: {error}"),
        }
    }
}

#[test]
fn what_upstream_takes_is_taken() {
    for text in [
        r#"{"name":"a:1","protocol":"tcp"}"#,
        r#"{"name":"a:1","protocol":"tcp","buffers":[],"unknown":{"deep":[1,2]}} trailing"#,
        "// note\n{\"name\":\"a:1\",\"protocol\":\"tcp\"}",
        r#"{"name":"a:1","protocol":"rdma","devices":[{"name":"m"}],"buffers":[{"name":"x","addr":1,"length":1,"rkey":[5],"lkey":[6]}]}"#,
        r#"{"name":"a:1","protocol":"nvmeof","buffers":[{"file_path":"/x","length":1}]}"#,
    ] {
        assert!(SegmentDescriptor::decode(text.as_bytes()).is_ok(), "{text}");
    }
}

#[test]
fn ten_thousand_buffers_are_no_work() {
    let buffers = (1..=10_000u64)
        .map(|n| BufferDescriptor {
            name: "npu:0".into(),
            address: n << 20,
            length_bytes: 1 << 20,
            device_id: Some(0),
        })
        .collect();
    let descriptor =
        SegmentDescriptor { name: "a:1".into(), protocol: "ascend".into(), buffers, ..Default::default() };
    let read = SegmentDescriptor::decode(&descriptor.encode()).unwrap();
    let view = View::new(Arc::new(read));
    assert_eq!(view.find(5000 << 20, 1 << 20).unwrap().address, 5000 << 20);
    assert!(view.find((5000 << 20) + 1, 1 << 20).is_none());
}

fn buffer() -> impl Strategy<Value = BufferDescriptor> {
    ("[ -~]{1,20}|\\PC{1,5}", 1..u64::MAX / 2, 1..u64::MAX / 2, proptest::option::of(any::<i32>())).prop_map(
        |(name, address, length_bytes, device_id)| BufferDescriptor {
            name,
            address,
            length_bytes,
            device_id,
        },
    )
}

proptest! {
    #[test]
    fn any_descriptor_survives_the_wire(
        name in "\\PC{1,30}",
        buffers in proptest::collection::vec(buffer(), 0..8),
        tcp_data_port in any::<u16>(),
        tcp_proto_version in any::<u32>(),
        host in proptest::option::of("\\PC{0,20}"),
        ours in proptest::option::of((any::<u128>(), any::<u32>(), any::<u16>(), any::<u64>(), any::<Vec<i32>>())),
    ) {
        let ours = ours.map(|(id, pid, control_port, epoch, devices)| Ours {
            version: 1,
            incarnation: Incarnation { id, pid, boot_id: "boot".into() },
            control_port, epoch, devices, memory: Vec::new(), shared: Vec::new(),
        });
        let descriptor = SegmentDescriptor {
            name, protocol: "ascend".into(), buffers, tcp_data_port, tcp_proto_version,
            tcp_data_host: host.clone(), rdma_server_name: host, rank_info: Some(RankInfo::default()),
            timestamp: None, ours,
        };
        prop_assert_eq!(SegmentDescriptor::decode(&descriptor.encode()).unwrap(), descriptor);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in any::<Vec<u8>>()) {
        let _ = SegmentDescriptor::decode(&bytes);
    }
}

/// Seeds of the mutations; a seed that ever found something stays here.
const SEEDS: [u64; 8] = [1, 2, 3, 5, 8, 13, 0x6d6f_6f6e, 0x6361_6b65];

#[test]
fn mutated_captures_never_break_the_decoder_or_its_promises() {
    for seed in SEEDS {
        let mut state = seed;
        let mut next = move |bound: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % u64::try_from(bound).unwrap()).unwrap()
        };
        for (_, original) in GOLDEN {
            for _ in 0..500 {
                let mut bytes = original.to_vec();
                for _ in 0..=next(4) {
                    let at = next(bytes.len());
                    match next(5) {
                        0 => bytes[at] = u8::try_from(next(256)).unwrap(),
                        1 => bytes.truncate(at.max(1)),
                        2 => bytes.insert(at, b"{}[]\":,0-9eE.\\/*"[next(16)]),
                        3 => {
                            bytes.remove(at);
                            bytes.push(b'\n');
                        }
                        _ => {
                            let part = bytes[at..bytes.len().min(at + next(64) + 1)].to_vec();
                            let to = next(bytes.len());
                            bytes.splice(to..to, part);
                        }
                    }
                }
                if let Ok(descriptor) = SegmentDescriptor::decode(&bytes) {
                    assert!(!descriptor.name.is_empty());
                    for buffer in &descriptor.buffers {
                        assert!(buffer.address != 0 && buffer.length_bytes != 0 && !buffer.name.is_empty());
                        assert!(buffer.address.checked_add(buffer.length_bytes).is_some());
                    }
                    assert_eq!(SegmentDescriptor::decode(&descriptor.encode()).unwrap(), descriptor);
                }
            }
        }
    }
}
