//! A master that keeps its word until it is told not to: it greets and mounts as one does, and then answers wrongly.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use mooncake_wire::codec::Map;
use mooncake_wire::frame::{self, RequestHeader};
use mooncake_wire::limits::MAX_REQUEST_BODY_BYTES;
use mooncake_wire::method::*;
use mooncake_wire::model::{Buffer, PingAnswer, Placement, Replica, ReplicaList, ReplicaStatus};
use mooncake_wire::{ErrorCode, Function, Method, Profile};

/// How it answers what is not part of a greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Bytes that are no frame.
    Garbage,
    /// The frame of another call.
    WrongSequence,
    /// A body of another type.
    WrongType,
    /// A frame that says it is longer than any may be.
    TooLong,
    /// A frame whose end never comes.
    Truncated,
    /// Half of a frame, and the connection ends.
    HalfAndGone,
    /// The connection ends.
    Gone,
    /// Nothing.
    Silence,
    /// One entry too few.
    TooFew,
    /// More bytes than the frame says.
    Trailing,
    /// Lengths inside of the body that its bytes do not hold.
    HugeCount,
    /// A replica at an endpoint that nobody has.
    Nowhere,
    /// The mounted segment's first bytes, by a lease that is over at once; so often, and then by a good one.
    LeaseIsOver(usize),
    /// The mounted segment's first bytes, which are gone when they are written; so often, and then it keeps its word.
    OwnerLeaves(usize),
    /// The same, but the connection ends before the first answer to the end of a put, and by the second the key is gone.
    EndIsLost,
}

pub const LIES: [Lie; 12] = [
    Lie::Garbage,
    Lie::WrongSequence,
    Lie::WrongType,
    Lie::TooLong,
    Lie::Truncated,
    Lie::HalfAndGone,
    Lie::Gone,
    Lie::Silence,
    Lie::TooFew,
    Lie::Trailing,
    Lie::HugeCount,
    Lie::Nowhere,
];

/// The listening fake; its threads end with the connections.
pub struct FakeMaster {
    pub address: String,
    pub connections: Arc<AtomicUsize>,
    /// How often a value was looked for.
    pub finds: Arc<AtomicUsize>,
    /// How often a value was said to be complete.
    pub ends: Arc<AtomicUsize>,
}

/// What the connections share.
#[derive(Clone)]
struct Memory {
    lie: Lie,
    finds: Arc<AtomicUsize>,
    ends: Arc<AtomicUsize>,
    /// Endpoint and address of the mounted segment.
    mounted: Arc<Mutex<Option<(String, u64)>>>,
}

impl FakeMaster {
    pub fn start(lie: Lie) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let finds = Arc::new(AtomicUsize::new(0));
        let ends = Arc::new(AtomicUsize::new(0));
        let memory =
            Memory { lie, finds: Arc::clone(&finds), ends: Arc::clone(&ends), mounted: Arc::default() };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                counted.fetch_add(1, Ordering::Relaxed);
                let memory = memory.clone();
                std::thread::spawn(move || serve(stream.unwrap(), &memory));
            }
        });
        Self { address, connections, finds, ends }
    }
}

fn serve(mut stream: TcpStream, memory: &Memory) -> Option<()> {
    loop {
        let mut head = [0; RequestHeader::BYTES];
        stream.read_exact(&mut head).ok()?;
        let header = RequestHeader::decode(&head, MAX_REQUEST_BODY_BYTES).ok()?;
        let mut body = vec![0; header.body_bytes as usize];
        stream.read_exact(&mut body).ok()?;
        let function = Function::from_id(header.function_id)?;
        let mut out = Vec::new();
        match honest(function, &body, header.sequence, &mut out, memory) {
            Some(()) => stream.write_all(&out).ok()?,
            None => lying(&mut stream, function, &body, header.sequence, memory)?,
        }
    }
}

fn reply<'a, M: Method<'a>>(answer: M::Reply, sequence: u32, out: &mut Vec<u8>) -> Option<()> {
    frame::response(out, sequence, 0, |body| Profile::V0_3_13.encode_reply::<M>(&answer, body)).ok()
}

/// The calls of a greeting, of a mount and of the heartbeat.
fn honest(function: Function, body: &[u8], sequence: u32, out: &mut Vec<u8>, memory: &Memory) -> Option<()> {
    match function {
        Function::ServiceReady => reply::<ServiceReady>(Ok("2.0.0".into()), sequence, out),
        Function::Ping => {
            let answer = PingAnswer { view_version: 0, client_status: PingAnswer::OK };
            reply::<Ping>(Ok(answer), sequence, out)
        }
        Function::MountSegment => {
            let call: MountSegment = Profile::V0_3_13.decode_request(body).ok()?;
            *memory.mounted.lock().unwrap() = Some((call.segment.te_endpoint, call.segment.base));
            reply::<MountSegment>(Ok(()), sequence, out)
        }
        Function::ReMountSegment => reply::<ReMountSegment>(Ok(()), sequence, out),
        Function::UnmountSegment => reply::<UnmountSegment>(Ok(()), sequence, out),
        Function::BatchGetReplicaList if keys(body) == 0 => {
            reply::<BatchGetReplicaList>(Vec::new(), sequence, out)
        }
        Function::BatchPutStart if starts(body) == 0 => reply::<BatchPutStart>(Vec::new(), sequence, out),
        Function::BatchPutRevoke => {
            let call: BatchPutRevoke = Profile::V0_3_13.decode_request(body).ok()?;
            reply::<BatchPutRevoke>(call.keys.iter().map(|_| Ok(())).collect(), sequence, out)
        }
        _ => None,
    }
}

fn keys(body: &[u8]) -> usize {
    Profile::V0_3_13.decode_request::<BatchGetReplicaList>(body).map_or(0, |call| call.keys.len())
}

fn starts(body: &[u8]) -> usize {
    Profile::V0_3_13.decode_request::<BatchPutStart>(body).map_or(0, |call| call.keys.len())
}

fn lying(
    stream: &mut TcpStream,
    function: Function,
    body: &[u8],
    sequence: u32,
    memory: &Memory,
) -> Option<()> {
    let lie = memory.lie;
    let mut out = Vec::new();
    let mounted = memory
        .mounted
        .lock()
        .unwrap()
        .clone()
        .filter(|_| matches!(lie, Lie::LeaseIsOver(_) | Lie::OwnerLeaves(_) | Lie::EndIsLost));
    let (endpoint, address) = mounted.unwrap_or_else(|| ("127.0.0.1:1".to_owned(), 4096));
    // The answer that would be right in shape.
    let replica = |size| Replica {
        id: 1,
        placement: Placement::Memory(Buffer {
            size,
            address,
            protocol: "tcp".into(),
            endpoint: endpoint.as_str().into(),
        }),
        status: ReplicaStatus::Complete,
    };
    let fewer = usize::from(lie == Lie::TooFew);
    match function {
        Function::BatchGetReplicaList => {
            let finds = memory.finds.fetch_add(1, Ordering::Relaxed);
            let lease_ttl_ms =
                if matches!(lie, Lie::LeaseIsOver(times) if finds < times) { 0 } else { 10_000 };
            let list = ReplicaList { replicas: vec![replica(5)], lease_ttl_ms, checksum: None };
            reply::<BatchGetReplicaList>(vec![Ok(list); keys(body) - fewer], sequence, &mut out)
        }
        Function::BatchPutStart => {
            reply::<BatchPutStart>(vec![Ok(vec![replica(5)]); starts(body) - fewer], sequence, &mut out)
        }
        Function::BatchPutEnd if matches!(lie, Lie::OwnerLeaves(_) | Lie::EndIsLost) => {
            let call: BatchPutEnd = Profile::V0_3_13.decode_request(body).ok()?;
            let ends = memory.ends.fetch_add(1, Ordering::Relaxed);
            if (lie, ends) == (Lie::EndIsLost, 0) {
                return None;
            }
            let gone = match lie {
                Lie::OwnerLeaves(times) => ends < times,
                _ => ends == 1,
            };
            let answer = if gone { Err(ErrorCode::OBJECT_NOT_FOUND) } else { Ok(()) };
            reply::<BatchPutEnd>(vec![answer; call.objects.len()], sequence, &mut out)
        }
        Function::BatchExistKey => {
            let call: BatchExistKey = Profile::V0_3_13.decode_request(body).ok()?;
            reply::<BatchExistKey>(vec![Ok(true); call.keys.len() - fewer], sequence, &mut out)
        }
        _ => reply::<GetReplicaListByRegex>(Ok(Map::default()), sequence, &mut out),
    }?;
    match lie {
        Lie::Garbage => out.iter_mut().for_each(|byte| *byte ^= 0xa5),
        Lie::WrongSequence => out[4] ^= 1,
        Lie::WrongType => out[16] ^= 2,
        Lie::TooLong => out[8..12].copy_from_slice(&u32::MAX.to_le_bytes()),
        Lie::Truncated | Lie::HalfAndGone => out.truncate(out.len() - 1),
        Lie::Gone | Lie::Silence => out.clear(),
        Lie::TooFew | Lie::Nowhere | Lie::LeaseIsOver(_) | Lie::OwnerLeaves(_) | Lie::EndIsLost => {}
        Lie::Trailing => out.extend_from_slice(b"more"),
        Lie::HugeCount => {
            // The number of elements follows the type's hash.
            if let Some(count) = out.get_mut(20) {
                *count = 255;
            }
        }
    }
    stream.write_all(&out).ok()?;
    (!matches!(lie, Lie::Gone | Lie::HalfAndGone)).then_some(())
}
