//! Peers that mean harm, or have a fault, leave the master serving the others.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // helpers outside of test functions

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use common::{Client, Master, Random, eventually, segment, uuid};
use mooncake_wire::frame::RequestHeader;
use mooncake_wire::method::{
    BatchExistKey, BatchPutEnd, BatchPutStart, ExistKey, GetReplicaListByRegex, Ping, ReMountSegment,
    ServiceReady,
};
use mooncake_wire::model::{ObjectMeta, Tenant};
use mooncake_wire::{Function, Profile, STORE_VERSION};

fn serves(master: &Master) {
    let mut client = master.client();
    assert_eq!(client.call(&ServiceReady {}), Ok(Ok(STORE_VERSION.to_owned())));
    assert_eq!(client.call(&ExistKey { key: b"k", tenant: Tenant::default() }), Ok(Ok(false)));
}

fn connect(master: &Master) -> TcpStream {
    let stream = TcpStream::connect(master.rpc).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
    stream
}

/// Whether the master closes the connection after these bytes.
fn closes(master: &Master, bytes: &[u8]) -> bool {
    let mut stream = connect(master);
    // It may close before everything is written.
    let _ = stream.write_all(bytes);
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

fn header(function_id: u32, body_bytes: u32) -> RequestHeader {
    RequestHeader { sequence: 1, function_id, body_bytes, attachment_bytes: 0 }
}

#[test]
fn frames_of_something_else_end_their_connection_only() {
    let master = Master::start(&[]);
    let mut patient = master.client();
    let id = Function::ExistKey.id();
    assert!(closes(&master, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
    for (at, byte) in [(0, 0), (1, 1), (2, 1)] {
        let mut bytes = header(id, 0).encode();
        bytes[at] = byte;
        assert!(closes(&master, &bytes), "byte {at}");
    }
    assert!(closes(&master, &header(id, u32::MAX).encode()), "a body of 4 GiB");
    let attachment = RequestHeader { attachment_bytes: u32::MAX, ..header(id, 0) };
    assert!(closes(&master, &attachment.encode()));
    assert_eq!(patient.call(&ServiceReady {}), Ok(Ok(STORE_VERSION.to_owned())));
    let (_, page) = master.http("GET /metrics");
    assert!(page.contains("\nmaster_connections_refused_total 6\n"), "{page}");
}

#[test]
fn bombs_and_wrong_hashes_are_answered_and_forgotten() {
    let master = Master::start(&[]);
    let mut stream = connect(&master);
    // A vector of 2^64-1 keys, a foreign hash, an empty body, an unknown function.
    let bomb = [0x63, 0x8d, 0xf7, 0x00, 0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    for (function_id, body, code) in [
        (Function::BatchExistKey.id(), &bomb[..], 4u8),
        (Function::ExistKey.id(), &[1, 2, 3, 4, 5][..], 4),
        (Function::ExistKey.id(), &[], 4),
        (0xdead_beef, &[], 11),
    ] {
        let length = u32::try_from(body.len()).expect("fits");
        stream.write_all(&header(function_id, length).encode()).expect("write");
        stream.write_all(body).expect("write");
        let mut answer = [0; 16];
        stream.read_exact(&mut answer).expect("answer");
        assert_eq!(answer[2], code);
        let rest = u32::from_le_bytes(*answer[8..].first_chunk().expect("length"));
        let mut text = vec![0; usize::try_from(rest).expect("fits")];
        stream.read_exact(&mut text).expect("text");
    }
    serves(&master);
}

#[test]
fn random_bytes_after_a_good_header() {
    let master = Master::start(&[]);
    let mut random = Random(7);
    for _ in 0..300 {
        let function = Function::ALL[usize::try_from(random.below(64)).expect("fits")];
        let mut body: Vec<u8> = (0..random.below(80)).map(|_| random.next().to_le_bytes()[0]).collect();
        // Half of them get past the hash.
        let signature = Profile::V0_3_13.signature(function).expect("signature");
        if let (Some(hash), 0, Some(head)) =
            (signature.arguments_hash, random.below(2), body.first_chunk_mut::<4>())
        {
            *head = hash.to_le_bytes();
        }
        let mut stream = connect(&master);
        stream
            .write_all(&header(function.id(), u32::try_from(body.len()).expect("fits")).encode())
            .expect("write");
        stream.write_all(&body).expect("write");
        let mut answer = [0; 16];
        stream.read_exact(&mut answer).expect("every whole frame is answered");
    }
    serves(&master);
}

#[test]
fn slow_senders_and_idle_connections_hold_nobody() {
    let master = Master::start(&[]);
    // Half a frame each: they wait, and nobody waits for them.
    let slow: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = connect(&master);
            stream.write_all(&header(Function::ExistKey.id(), 1 << 20).encode()).expect("write");
            stream.write_all(&[0; 1000]).expect("write");
            stream
        })
        .collect();
    serves(&master);
    let wanted = 10_000;
    let allowed = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(0);
    if allowed < wanted + 1000 {
        mooncake_test_support::skip(&format!(
            "this process may open {allowed} files, the test needs {wanted}"
        ));
        return;
    }
    let idle: Vec<TcpStream> = (0..wanted).map(|_| connect(&master)).collect();
    let open = || {
        let (_, page) = master.http("GET /metrics");
        let line = page.lines().find_map(|line| line.strip_prefix("master_open_connections "));
        line.and_then(|count| count.parse::<u64>().ok()).expect("count")
    };
    eventually("all are accepted", || open() >= wanted + 100);
    serves(&master);
    let status = std::fs::read_to_string(format!("/proc/{}/status", master.child.id())).expect("status");
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|line| line.trim().split(' ').next());
    let resident_kib: u64 = resident.and_then(|text| text.parse().ok()).expect("VmRSS");
    assert!(resident_kib < 200 << 10, "{resident_kib} KiB for ten thousand idle connections");
    drop((slow, idle));
    eventually("all are let go", || open() == 0);
    serves(&master);
}

#[test]
fn a_pipeline_is_answered_in_order() {
    let master = Master::start(&["--rpc_thread_num=1"]);
    let mut stream = connect(&master);
    let exist = BatchExistKey { keys: vec![b"a"; 1000], tenant: Tenant::default() };
    let find = GetReplicaListByRegex { pattern: b"a", ..GetReplicaListByRegex::default() };
    let mut out = Vec::new();
    for sequence in 0..500 {
        // Some are answered beside the thread of the connection.
        let function =
            if sequence % 10 == 7 { Function::GetReplicaListByRegex } else { Function::BatchExistKey };
        mooncake_wire::frame::request(&mut out, sequence, function.id(), |body| match function {
            Function::BatchExistKey => Profile::V0_3_13.encode_request(&exist, body),
            _ => Profile::V0_3_13.encode_request(&find, body),
        })
        .expect("frame");
    }
    let writer = stream.try_clone().expect("clone");
    std::thread::scope(|scope| {
        scope.spawn(move || (&writer).write_all(&out).expect("write"));
        for sequence in 0..500u32 {
            let mut answer = [0; 16];
            stream.read_exact(&mut answer).expect("answer");
            assert_eq!(u32::from_le_bytes(*answer[4..].first_chunk().expect("sequence")), sequence);
            let rest = u32::from_le_bytes(*answer[8..].first_chunk().expect("length"));
            let mut body = vec![0; usize::try_from(rest).expect("fits")];
            stream.read_exact(&mut body).expect("body");
        }
    });
    let _ = Client::connect(master.rpc, Profile::V0_3_13).expect("connect");
    serves(&master);
}

/// With one thread for all connections, a call that looks at every object does not hold the others up.
#[test]
fn a_long_call_holds_nobody() {
    let master = Master::start(&["--rpc_thread_num=1"]);
    let mut client = master.client();
    let mount = ReMountSegment { segments: vec![segment(1, "s", 1 << 40)], client: uuid(1) };
    client.call(&mount).expect("call").expect("mount");
    for start in (0..100_000u64).step_by(1000) {
        let names: Vec<String> = (start..start + 1000).map(|index| format!("{index:0300}")).collect();
        let keys: Vec<&[u8]> = names.iter().map(String::as_bytes).collect();
        let objects = keys.iter().map(|key| ObjectMeta { key, checksum: None }).collect();
        let begin = BatchPutStart {
            client: uuid(1),
            lengths: vec![64; keys.len()],
            keys,
            ..BatchPutStart::default()
        };
        assert!(client.call(&begin).expect("call").iter().all(Result::is_ok));
        let end = BatchPutEnd { client: uuid(1), objects, ..BatchPutEnd::default() };
        assert!(client.call(&end).expect("call").iter().all(Result::is_ok));
    }
    let mut other = master.client();
    let over = std::sync::atomic::AtomicBool::new(false);
    let meanwhile = std::thread::scope(|scope| {
        let long = scope.spawn(|| {
            // Nothing matches, and each key is looked at from each of its places.
            let pattern = b"(0[0-9]*){20}(1|[0-9]{50})x$".as_slice();
            let find = GetReplicaListByRegex { pattern, ..GetReplicaListByRegex::default() };
            let found = client.call(&find);
            over.store(true, std::sync::atomic::Ordering::Release);
            found
        });
        let mut calls = 0;
        while !over.load(std::sync::atomic::Ordering::Acquire) {
            other.call(&Ping { client: uuid(1) }).expect("call").expect("ping");
            calls += 1;
        }
        assert!(long.join().expect("thread").expect("call").is_ok_and(|found| found.0.is_empty()));
        calls
    });
    // One may wait for the thread to take the long call away, and one is answered when it is over.
    assert!(meanwhile > 3, "{meanwhile} calls were answered while the long one ran");
}

/// A sender of one byte now and then, and a reader that takes no answers, lose their connections; here after a moment.
#[test]
fn slowness_has_an_end() {
    use mooncake_master::moment::Clock;
    use mooncake_master::rpc::{Server, Settings};
    let state = std::sync::Arc::new(common::state(mooncake_master::policy::Policy::default()));
    let settings = Settings { frame_timeout: Duration::from_millis(300), ..Settings::default() };
    let server = std::sync::Arc::new(Server::new(std::sync::Arc::clone(&state), Clock::default(), settings));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("listen");
    let address = listener.local_addr().expect("address");
    let workers = mooncake_master::rpc::Workers::start(1).expect("threads");
    runtime.spawn(server.run(listener, workers));

    let mut slow = TcpStream::connect(address).expect("connect");
    slow.write_all(&header(Function::ExistKey.id(), 1 << 20).encode()).expect("write");
    eventually("the slow sender is closed, though it always sends something", || {
        slow.write_all(&[0]).is_err()
    });

    let mut deaf = TcpStream::connect(address).expect("connect");
    let exist = BatchExistKey { keys: vec![b"a"; 10_000], tenant: Tenant::default() };
    let mut frame = Vec::new();
    let id = Function::BatchExistKey.id();
    mooncake_wire::frame::request(&mut frame, 1, id, |body| Profile::V0_3_13.encode_request(&exist, body))
        .expect("frame");
    deaf.set_write_timeout(Some(Duration::from_secs(20))).expect("timeout");
    eventually("the one that takes no answers is closed", || deaf.write_all(&frame).is_err());
    assert_eq!(state.metrics().connections_refused.get(), 2);

    // One that is idle between two calls is no slow one.
    let mut idle = Client::connect(address, Profile::V0_3_13).expect("connect");
    assert_eq!(idle.call(&ServiceReady {}), Ok(Ok(STORE_VERSION.to_owned())));
    let quiet = std::time::Instant::now();
    eventually("longer than a frame may take", || quiet.elapsed() > Duration::from_millis(600));
    assert_eq!(idle.call(&ServiceReady {}), Ok(Ok(STORE_VERSION.to_owned())));
}
