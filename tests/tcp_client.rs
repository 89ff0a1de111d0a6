//! The client side of the TCP transport: against our own server, and against peers that misbehave.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on fails, and its patterns are bytes"
)]

mod tcp;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mooncake::batch::{Stop, TaskStatus, Waited};
use mooncake::deadline::Deadline;
use mooncake::error::Code;
use mooncake::plan::Direction;
use mooncake::transport::tcp::wire::{HEADER_BYTES, Header, OK, REJECTED, status};
use mooncake::transport::tcp::{Served, Tcp};
use mooncake_test_support::{loopback, wait_until};
use proptest::prelude::*;
use tcp::{
    LONG, Memory, address_of, connect, finished, job, must, pattern, run, serve, settings, target, target_of,
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

#[test]
fn both_versions_move_every_size_both_ways() {
    let far = vec![0_u8; 40 << 20];
    let memory = Memory::of(&[&far]);
    let server = serve(&memory);
    let client = serve(&Memory::of(&[]));
    for version in [1, 2, 3] {
        let peer = connect(&client, server.port(), version);
        for (seed, length) in [(1, 1), (2, 7), (3, 4096), (4, 65_537), (5, 3 << 20), (6, (33 << 20) + 5)] {
            let source = pattern(seed, length);
            let mut back = vec![0_u8; length];
            let length_bytes = length as u64;
            let offset = seed * 4099;
            let there = address_of(&far) + offset;
            must(&client, &peer, Direction::Write, &[(address_of(&source), there, length_bytes)]);
            assert!(far[offset as usize..][..length] == source, "version {version}, {length} bytes there");
            must(&client, &peer, Direction::Read, &[(target_of(&mut back), there, length_bytes)]);
            assert!(back == source, "version {version}, {length} bytes back");
        }
    }
}

#[test]
fn a_batch_is_pipelined_over_few_lanes() {
    let far = pattern(1, 32 << 20);
    let memory = Memory::of(&[&far]);
    let server = serve(&memory);
    let client = serve(&Memory::of(&[]));
    let peer = connect(&client, server.port(), 2);
    let mut near = vec![0_u8; 32 << 20];
    let base = target_of(&mut near);
    let count = 4096;
    let blocks: Vec<_> = (0..count)
        .map(|index| {
            let mirrored = count - 1 - index;
            (base + index * 8 * KIB, address_of(&far) + mirrored * 8 * KIB, 8 * KIB)
        })
        .collect();
    must(&client, &peer, Direction::Read, &blocks);
    for index in 0..count as usize {
        let mirrored = count as usize - 1 - index;
        assert!(near[index * 8192..][..8192] == far[mirrored * 8192..][..8192], "block {index}");
    }
    assert!((1..=4).contains(&peer.live_lanes()), "{} lanes", peer.live_lanes());
}

#[test]
fn many_threads_share_a_peer() {
    let far = vec![0_u8; 8 << 20];
    let memory = Memory::of(&[&far]);
    let server = serve(&memory);
    let client = serve(&Memory::of(&[]));
    let peer = connect(&client, server.port(), 2);
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let (client, peer, far) = (&client, &peer, &far);
            scope.spawn(move || {
                for round in 0..30 {
                    let source = pattern(thread * 100 + round, 1 << 16);
                    let mut back = vec![0_u8; 1 << 16];
                    let there = address_of(far) + thread * MIB;
                    must(client, peer, Direction::Write, &[(address_of(&source), there, 64 * KIB)]);
                    must(client, peer, Direction::Read, &[(target_of(&mut back), there, 64 * KIB)]);
                    assert!(back == source);
                }
            });
        }
    });
}

/// Whoever finds a lane's lock taken leaves his request to the one who holds it, be that the loop that looks at
/// deadlines every 20 ms. Forgotten, it waits until its time is over.
#[test]
fn no_request_is_left_behind_by_who_looks_at_deadlines() {
    let far = vec![0_u8; 1 << 20];
    let memory = Memory::of(&[&far]);
    let server = serve(&memory);
    let client = serve(&Memory::of(&[]));
    let peer = connect(&client, server.port(), 2);
    let mut near = vec![0_u8; 1 << 16];
    let until = Instant::now() + Duration::from_secs(4);
    for length_bytes in (0..).map(|round| [8 * KIB, 64 * KIB][round % 2]) {
        for direction in [Direction::Write, Direction::Read] {
            let block = (target_of(&mut near), address_of(&far), length_bytes);
            let (batch, job) = job(direction, &[block], Duration::from_secs(5));
            client.submit(job, &peer);
            let (outcome, error) = finished(&batch);
            assert!(outcome.is_success(), "{error:?}");
        }
        if Instant::now() > until {
            break;
        }
    }
}

#[test]
fn a_refused_request_harms_no_other() {
    let far = pattern(2, 1 << 20);
    let memory = Memory::of(&[&far]);
    let server = serve(&memory);
    let client = serve(&Memory::of(&[]));
    let peer = connect(&client, server.port(), 2);
    for direction in [Direction::Read, Direction::Write] {
        let mut near = if direction == Direction::Read { vec![0; 1 << 20] } else { far.clone() };
        let base = target_of(&mut near);
        let mut blocks: Vec<_> = (0..64)
            .map(|index| (base + index * 16 * KIB, address_of(&far) + index * 16 * KIB, 16 * KIB))
            .collect();
        for bad in [0, 13, 63] {
            blocks[bad].1 = 0x10;
        }
        let (outcome, error) = finished(&run(&client, &peer, direction, &blocks));
        assert_eq!(outcome.failed, 3, "{error:?}");
        let error = error.unwrap();
        assert_eq!(error.code(), Code::AddressNotRegistered, "{error}");
        assert!(error.to_string().contains("peer") && error.to_string().contains("0x10"), "{error}");
    }
}

#[test]
fn unmapped_local_memory_is_an_error_and_no_crash() {
    let far = pattern(3, 1 << 20);
    let memory = Memory::of(&[&far]);
    let server = serve(&memory);
    let client = serve(&Memory::of(&[]));
    let peer = connect(&client, server.port(), 2);
    let mut near = far.clone();
    let base = target_of(&mut near);
    for direction in [Direction::Read, Direction::Write] {
        let blocks = [
            (base, address_of(&far), 1000),
            (8, address_of(&far), 1000),
            (base + 2000, address_of(&far) + 2000, 10),
        ];
        let (outcome, error) = finished(&run(&client, &peer, direction, &blocks));
        assert_eq!(outcome.failed, 1, "{error:?}");
        assert_eq!(error.unwrap().code(), Code::InvalidArgument);
    }
    assert!(near == far);
}

/// A peer whose behaviour a test writes down; each connection runs `script` on a thread.
struct Fake {
    port: u16,
}

impl Fake {
    fn start(script: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> Self {
        let listener = loopback::listen();
        let port = listener.local_addr().unwrap().port();
        let script = Arc::new(script);
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let (script, stream) = (Arc::clone(&script), stream.unwrap());
                std::thread::spawn(move || script(number, stream));
            }
        });
        Self { port }
    }
}

fn header(stream: &mut TcpStream) -> Option<Header> {
    let mut bytes = [0; HEADER_BYTES];
    stream.read_exact(&mut bytes).ok()?;
    Some(Header::decode(&bytes))
}

/// Serves writes and reads properly, without looking at addresses: reads give 7s.
fn well_behaved(mut stream: TcpStream) {
    while let Some(request) = header(&mut stream) {
        let mut bytes = vec![7; usize::try_from(request.length_bytes).unwrap()];
        if request.write && stream.read_exact(&mut bytes).is_err() {
            return;
        }
        let answer = if request.write { Vec::new() } else { bytes };
        let head = if request.confirmed { status(OK).to_vec() } else { Vec::new() };
        if stream.write_all(&[head, answer].concat()).is_err() {
            return;
        }
    }
}

#[test]
fn the_first_version_uses_one_connection_for_each_request() {
    // As a 0.3.8 target does it: the connection is closed after one request.
    let connections = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    let fake = Fake::start(move |_, mut stream| {
        counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let request = header(&mut stream).unwrap();
        assert!(!request.confirmed);
        let mut bytes = vec![7; usize::try_from(request.length_bytes).unwrap()];
        if request.write {
            stream.read_exact(&mut bytes).unwrap();
        } else {
            stream.write_all(&bytes).unwrap();
        }
    });
    let client = serve(&Memory::of(&[]));
    let peer = connect(&client, fake.port, 1);
    let mut near = vec![0_u8; 1 << 20];
    let base = target_of(&mut near);
    let blocks: Vec<_> = (0..20).map(|index| (base + index * 5000, 0x1000 + index * 7000, 4096)).collect();
    must(&client, &peer, Direction::Write, &blocks);
    must(&client, &peer, Direction::Read, &blocks);
    assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 40);
    assert!((0..20).all(|index| near[index * 5000..][..4096].iter().all(|byte| *byte == 7)));
}

#[test]
fn a_socket_the_peer_has_closed_is_not_used_again() {
    // Each connection serves one request properly and is closed by the peer.
    let fake = Fake::start(|_, mut stream| {
        if let Some(request) = header(&mut stream) {
            let mut bytes = vec![0; usize::try_from(request.length_bytes).unwrap()];
            stream.read_exact(&mut bytes).unwrap();
            stream.write_all(&status(OK)).unwrap();
        }
    });
    let client = serve(&Memory::of(&[]));
    let peer = connect(&client, fake.port, 2);
    let source = pattern(4, 4096);
    for round in 0..20 {
        must(&client, &peer, Direction::Write, &[(address_of(&source), 0x1000, 4096)]);
        assert!(wait_until(LONG, || peer.live_lanes() == 0), "round {round}");
    }
}

#[test]
fn every_wrong_answer_is_a_failure() {
    let answers = [status(REJECTED).to_vec(), status(5).to_vec(), b"\0\0\0\0XXXX".to_vec(), Vec::new()];
    for answer in answers {
        let bytes = answer.clone();
        let fake = Fake::start(move |_, mut stream| {
            let _ = header(&mut stream);
            let _ = stream.write_all(&bytes);
        });
        let client = serve(&Memory::of(&[]));
        let peer = connect(&client, fake.port, 2);
        let mut near = vec![0_u8; 4096];
        let blocks = [(target_of(&mut near), 0x1000, 4096)];
        let (outcome, error) = finished(&run(&client, &peer, Direction::Read, &blocks));
        assert_eq!(outcome.failed, 1, "{answer:?}");
        let expected = if answer.ends_with(b"VTCM") { Code::AddressNotRegistered } else { Code::Socket };
        assert_eq!(error.as_ref().map(|error| error.code()), Some(expected), "{error:?}");
        assert_eq!(near, [0; 4096]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// A peer answers pipelined reads and writes with frames that were changed, cut or followed by more: what it did not
    /// confirm is not reported as done, memory beside what was named stays as it is, and the client goes on.
    #[test]
    fn mutated_answers_do_no_harm(
        flips in prop::collection::vec((0_usize..64, 1_u8..), 0..4),
        cut in 1_usize..200,
        more in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        const LENGTH: usize = 24;
        // The right answers to: read 24 bytes, write 24 bytes, read 24 bytes.
        let body = vec![7_u8; LENGTH];
        let right = [&status(OK)[..], &body, &status(OK), &status(OK), &body].concat();
        let mut wrong = right.clone();
        for (at, flip) in flips {
            let place = at % wrong.len();
            wrong[place] ^= flip;
        }
        wrong.truncate(cut);
        let whole = wrong.len() == right.len();
        wrong.extend(if whole { more } else { Vec::new() });
        let answer = wrong.clone();
        let fake = Fake::start(move |number, mut stream| {
            // What a refusal leaves unserved is asked for once more, elsewhere.
            if number > 0 {
                return;
            }
            // All requests first, so that the answers come in one piece.
            let _ = stream.read_exact(&mut [0; 3 * HEADER_BYTES + LENGTH]);
            let _ = stream.write_all(&answer);
        });
        let mut one_lane = settings();
        one_lane.lanes = 1;
        let client = Tcp::start(one_lane, Memory::of(&[]) as Arc<dyn Served>).unwrap();
        let peer = connect(&client, fake.port, 2);
        let mut near = vec![1_u8; 4 * LENGTH];
        let base = target_of(&mut near);
        let (batch, reads) = job(Direction::Read, &[(base + LENGTH as u64, 0x1000, LENGTH as u64)], LONG);
        let (middle, write) = job(Direction::Write, &[(base, 0x2000, LENGTH as u64)], LONG);
        let (last, again) = job(Direction::Read, &[(base + 2 * LENGTH as u64, 0x3000, LENGTH as u64)], LONG);
        for part in [reads, write, again] {
            client.submit(part, &peer);
        }
        let outcomes = [finished(&batch).0, finished(&middle).0, finished(&last).0];
        // How far the answer goes on as it should, in frames: a status with its body is one.
        let ends = [8 + LENGTH, 16 + LENGTH, right.len()];
        let is_ok = |start: usize| wrong.get(start..start + 8) == Some(&status(OK)[..]);
        let mut good = true;
        for ((outcome, end), start) in outcomes.iter().zip(ends).zip([0, 8 + LENGTH, 16 + LENGTH]) {
            good = good && is_ok(start) && wrong.len() >= end;
            prop_assert_eq!(outcome.is_success(), good, "{:?} {:?}", outcomes, wrong);
        }
        prop_assert!(near[..LENGTH].iter().chain(&near[3 * LENGTH..]).all(|byte| *byte == 1), "beside what was named");
        for (place, outcome) in [(LENGTH, outcomes[0]), (2 * LENGTH, outcomes[2])] {
            if outcome.is_success() {
                let sent = if place == LENGTH { &wrong[8..8 + LENGTH] } else { &wrong[24 + LENGTH..24 + 2 * LENGTH] };
                prop_assert_eq!(&near[place..place + LENGTH], sent);
            }
        }
        client.shutdown();
    }
}

#[test]
fn an_early_refusal_ends_a_long_write() {
    let fake = Fake::start(|_, mut stream| {
        let _ = header(&mut stream);
        stream.write_all(&status(REJECTED)).unwrap();
        // The rest is not read: the client must not need that.
        let _ = wait_until(LONG, || matches!(stream.peek(&mut [0]), Ok(0) | Err(_)));
    });
    let client = serve(&Memory::of(&[]));
    let peer = connect(&client, fake.port, 2);
    let source = vec![1_u8; 64 << 20];
    let batch = run(&client, &peer, Direction::Write, &[(address_of(&source), 0x1000, 64 * MIB)]);
    let (outcome, error) = finished(&batch);
    assert_eq!(outcome.failed, 1);
    assert_eq!(error.unwrap().code(), Code::AddressNotRegistered);
}

#[test]
fn a_silent_peer_ends_at_the_deadline_and_memory_is_quiet() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let fake = Fake::start(move |_, mut stream| {
        let Some(request) = header(&mut stream) else { return };
        let _ = released.lock().unwrap().recv();
        let _ = stream.write_all(&status(OK));
        let _ = stream.write_all(&vec![7; usize::try_from(request.length_bytes).unwrap()]);
    });
    let client = serve(&Memory::of(&[]));
    let peer = connect(&client, fake.port, 2);
    let mut near = vec![0_u8; 4096];
    let (batch, job) =
        job(Direction::Read, &[(target_of(&mut near), 0x1000, 4096)], Duration::from_millis(150));
    let started = Instant::now();
    client.submit(job, &peer);
    let (outcome, error) = finished(&batch);
    assert_eq!(outcome.failed, 1);
    assert_eq!(error.unwrap().code(), Code::Timeout);
    assert!(started.elapsed() >= Duration::from_millis(150));
    // The late answer must not reach the memory.
    drop(release);
    assert!(wait_until(LONG, || peer.live_lanes() == 0));
    assert_eq!(near, [0; 4096]);
}

#[test]
fn a_cancelled_read_is_quiet_and_the_lane_lives_on() {
    let fake = Fake::start(|_, mut stream| {
        // Half of the first answer, then the rest once the next request is there.
        let request = header(&mut stream).unwrap();
        let half = usize::try_from(request.length_bytes / 2).unwrap();
        stream.write_all(&[status(OK).to_vec(), vec![7; half]].concat()).unwrap();
        let second = header(&mut stream).unwrap();
        stream.write_all(&vec![8; half]).unwrap();
        let answer = vec![9; usize::try_from(second.length_bytes).unwrap()];
        stream.write_all(&[status(OK).to_vec(), answer].concat()).unwrap();
        well_behaved(stream);
    });
    let client = serve(&Memory::of(&[]));
    let peer = connect(&client, fake.port, 2);
    let mut near = vec![0_u8; 8192];
    let base = target_of(&mut near);
    let first = run(&client, &peer, Direction::Read, &[(base, 0x1000, 4096)]);
    let last_of_half = || std::hint::black_box(&near)[2047];
    assert!(wait_until(LONG, || last_of_half() == 7));
    first.stop(Stop::Cancelled);
    let (outcome, error) = finished(&first);
    assert_eq!((outcome.failed, error.unwrap().code()), (1, Code::Cancelled));
    must(&client, &peer, Direction::Read, &[(base + 4096, 0x1000, 4096)]);
    assert!(near[..2048].iter().all(|byte| *byte == 7));
    assert!(near[2048..4096].iter().all(|byte| *byte == 0), "bytes came after the failure was told");
    assert!(near[4096..].iter().all(|byte| *byte == 9));
    assert_eq!(peer.live_lanes(), 1);
}

#[test]
fn a_cancelled_write_stops_and_harms_no_other() {
    // The peer reads nothing of the long write until it is told to.
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(Some(released));
    let fake = Fake::start(move |number, stream| {
        if number == 0 {
            let released = released.lock().unwrap().take().unwrap();
            let _ = released.recv();
        }
        well_behaved(stream);
    });
    let mut one_lane = settings();
    one_lane.lanes = 1;
    let client = Tcp::start(one_lane, Memory::of(&[]) as Arc<dyn Served>).unwrap();
    let peer = connect(&client, fake.port, 2);
    let source = vec![1_u8; 256 << 20];
    let long = run(&client, &peer, Direction::Write, &[(address_of(&source), 0x1000, 256 * MIB)]);
    let other = run(&client, &peer, Direction::Write, &[(address_of(&source), 0x1000, 4096)]);
    long.stop(Stop::Cancelled);
    let (outcome, error) = finished(&long);
    assert_eq!((outcome.failed, error.unwrap().code()), (1, Code::Cancelled));
    drop(release);
    let (outcome, error) = finished(&other);
    assert!(outcome.is_success(), "{error:?}");
}

#[test]
fn a_peer_that_is_gone_is_known_at_once() {
    let listener = loopback::listen();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let client = serve(&Memory::of(&[]));
    let error = client.connect(&target(port, 2), Deadline::after(LONG)).err().unwrap();
    assert_eq!(error.code(), Code::Socket, "{error}");
    // Without lanes of its own a version 1 peer is found to be gone by the request.
    let peer = connect(&client, port, 1);
    let source = pattern(5, 64);
    let (outcome, error) =
        finished(&run(&client, &peer, Direction::Write, &[(address_of(&source), 0x1000, 64)]));
    assert_eq!((outcome.failed, error.unwrap().code()), (1, Code::Socket));
    assert!(!peer.is_usable());
}

#[test]
fn a_restarted_peer_is_reached_again_where_nothing_was_sent() {
    let far = pattern(6, 4096);
    let memory = Memory::of(&[&far]);
    let server = serve(&memory);
    let client = serve(&Memory::of(&[]));
    let peer = connect(&client, server.port(), 2);
    let mut near = vec![0_u8; 4096];
    must(&client, &peer, Direction::Read, &[(target_of(&mut near), address_of(&far), 4096)]);
    let port = server.port();
    drop(server);
    assert!(wait_until(LONG, || peer.live_lanes() == 0), "the end of an idle lane is seen");
    assert!(!peer.is_usable());
    let mut same_port = settings();
    same_port.ports = (port, port);
    let mut again = None;
    assert!(wait_until(LONG, || {
        again = Tcp::start(same_port.clone(), Arc::clone(&memory) as Arc<dyn Served>).ok();
        again.is_some()
    }));
    near.fill(0);
    must(&client, &peer, Direction::Read, &[(target_of(&mut near), address_of(&far), 4096)]);
    assert!(near == far && peer.is_usable());
}

#[test]
fn closing_fails_what_is_under_way() {
    let fake = Fake::start(|_, stream| {
        let mut bytes = [0; 1];
        let _ = wait_until(LONG, || matches!(stream.peek(&mut bytes), Ok(0) | Err(_)));
    });
    let client = serve(&Memory::of(&[]));
    let peer = connect(&client, fake.port, 2);
    let mut near = vec![0_u8; 4096];
    let batch = run(&client, &peer, Direction::Read, &[(target_of(&mut near), 0x1000, 4096)]);
    assert_eq!(batch.poll(0).unwrap().0, TaskStatus::Waiting);
    client.shutdown();
    let (outcome, error) = finished(&batch);
    assert_eq!((outcome.failed, error.unwrap().code()), (1, Code::StaleHandle));
}

#[test]
fn a_waiting_call_uses_no_processor_time() {
    let fake = Fake::start(|_, stream| {
        let mut bytes = [0; 1];
        let _ = wait_until(LONG, || matches!(stream.peek(&mut bytes), Ok(0) | Err(_)));
    });
    let client = serve(&Memory::of(&[]));
    let peer = connect(&client, fake.port, 2);
    let mut near = vec![0_u8; 64];
    let batch = run(&client, &peer, Direction::Read, &[(target_of(&mut near), 0x1000, 64)]);
    let before = thread_ticks();
    assert_eq!(batch.wait(Deadline::after(Duration::from_millis(500))), Waited::Late);
    // One tick is 10 ms; the wait itself is 50 of them.
    assert!(thread_ticks() - before <= 3, "{} ticks", thread_ticks() - before);
    client.shutdown();
}

/// Processor time of the calling thread, in ticks.
fn thread_ticks() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let fields: Vec<_> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
