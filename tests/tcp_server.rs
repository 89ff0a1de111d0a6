//! The data listener against plain sockets: every exchange upstream was seen to make, and hostile clients.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on fails, and its patterns are bytes"
)]

mod tcp;

use std::net::Shutdown;
use std::time::Duration;

use mooncake::transport::tcp::wire;
use mooncake_test_support::wait_until;
use proptest::prelude::*;
use tcp::{LONG, Memory, Raw, address_of, pattern, serve, settings};

const OK: [u8; 8] = *b"\0\0\0\0VTCM";
const REJECTED: [u8; 8] = *b"\x01\0\0\0VTCM";
const READ: u8 = 0;
const WRITE: u8 = 1;
const CONFIRMED: u8 = 0x80;

#[test]
fn answers_are_byte_for_byte_upstreams() {
    // The exchanges of the recorded session with a 0.3.13.post1 target, in its order.
    let buffer = vec![0_u8; 1 << 20];
    let base = address_of(&buffer);
    let memory = Memory::of(&[&buffer]);
    let server = serve(&memory);
    let mut client = Raw::to(server.port());
    client.send(&[Raw::header(WRITE, base, 4), b"WXYZ".to_vec(), Raw::header(READ, base, 4)].concat());
    assert_eq!(client.take(4), b"WXYZ");
    client.send(&Raw::header(READ | CONFIRMED, base, 4));
    assert_eq!(client.take(12), [OK.as_slice(), b"WXYZ"].concat());
    client.send(&[Raw::header(WRITE | CONFIRMED, base, 4), b"1234".to_vec()].concat());
    assert_eq!(client.take(8), OK);
    let pipelined = [
        Raw::header(WRITE | CONFIRMED, base, 4),
        b"1234".to_vec(),
        Raw::header(WRITE | CONFIRMED, base + 4, 4),
        b"5678".to_vec(),
        Raw::header(READ | CONFIRMED, base, 8),
    ];
    client.send(&pipelined.concat());
    assert_eq!(client.take(32), [OK.as_slice(), &OK, &OK, b"12345678"].concat());
    client.send(&[Raw::header(2, base, 4), Raw::header(0x82, base, 4)].concat());
    assert_eq!(client.take(16), [b"1234".as_slice(), &OK, b"1234"].concat());
    client.send(&Raw::header(READ | CONFIRMED, base + (1 << 20) - 1, 1));
    assert_eq!(client.take(9), [OK.as_slice(), b"\0"].concat());
}

#[test]
fn what_is_not_registered_is_refused_and_the_client_can_read_why() {
    let buffers = (pattern(1, 4096), pattern(2, 4096));
    let memory = Memory::of(&[&buffers.0, &buffers.1]);
    let server = serve(&memory);
    let base = address_of(&buffers.0);
    let bad = [
        (base, 0),
        (base, 4097),
        (base + 4095, 2),
        (0x10, 8),
        (u64::MAX - 2, 8),
        (base, u64::MAX),
        (base - 1, 2),
    ];
    for (address, length_bytes) in bad {
        for operation in [READ | CONFIRMED, WRITE | CONFIRMED] {
            let mut client = Raw::to(server.port());
            client.send(&Raw::header(operation, address, length_bytes));
            assert_eq!(client.rest(), REJECTED, "{operation:#x} {address:#x}+{length_bytes}");
        }
        let mut client = Raw::to(server.port());
        client.send(&Raw::header(READ, address, length_bytes));
        assert_eq!(client.rest(), b"", "{address:#x}+{length_bytes}");
    }
    // The whole body is under way when the refusal is; it must not be answered with a reset.
    let mut client = Raw::to(server.port());
    let body = vec![7_u8; 8 << 20];
    client.send(&Raw::header(WRITE | CONFIRMED, 0x10, body.len() as u64));
    client.send(&body);
    assert_eq!(client.rest(), REJECTED);
    assert!(buffers.0 == pattern(1, 4096) && buffers.1 == pattern(2, 4096), "nothing was written");
}

#[test]
fn memory_of_a_device_is_never_served() {
    use mooncake::memory::{ByteRange, Location, MemoryKind};
    let memory = Memory::of(&[]);
    let range = ByteRange::new(0x1000, 0x1000).unwrap();
    memory.0.insert(range, Location::Npu(Some(0)), MemoryKind::Device(0)).unwrap();
    let server = serve(&memory);
    let mut client = Raw::to(server.port());
    client.send(&Raw::header(READ | CONFIRMED, 0x1000, 8));
    assert_eq!(client.rest(), REJECTED);
}

#[test]
fn a_half_closed_client_gets_its_answers() {
    let buffer = pattern(3, 3 << 20);
    let memory = Memory::of(&[&buffer]);
    let server = serve(&memory);
    let mut client = Raw::to(server.port());
    client.send(&Raw::header(READ, address_of(&buffer), buffer.len() as u64));
    client.0.shutdown(Shutdown::Write).unwrap();
    assert!(client.rest() == buffer);
    // Version 1 has no other confirmation of a write than the end of the stream.
    let target = vec![0_u8; 1 << 20];
    let range = mooncake::memory::ByteRange::new(address_of(&target), 1 << 20).unwrap();
    let host = mooncake::memory::MemoryKind::Host;
    memory.0.insert(range, mooncake::memory::Location::Cpu(None), host).unwrap();
    let mut client = Raw::to(server.port());
    client.send(&Raw::header(WRITE, address_of(&target), 1 << 20));
    client.send(&buffer[..1 << 20]);
    client.0.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), b"");
    assert!(target == buffer[..1 << 20]);
}

#[test]
fn a_silent_client_stalls_nobody_and_an_idle_one_is_kept() {
    let buffer = pattern(4, 1 << 20);
    let memory = Memory::of(&[&buffer]);
    let server = serve(&memory);
    let base = address_of(&buffer);
    let mut idle = Raw::to(server.port());
    idle.send(&Raw::header(READ, base, 4));
    assert_eq!(idle.take(4), buffer[..4]);
    // Many clients stop in every place they can: no header, half a header, half a body, an answer not taken.
    let mut silent = Vec::new();
    for round in 0..64 {
        let mut client = Raw::to(server.port());
        match round % 4 {
            0 => {}
            1 => client.send(&Raw::header(READ, base, 4)[..11]),
            2 => client.send(&[Raw::header(WRITE, base + 4096, 4096), vec![buffer[4096]; 1]].concat()),
            _ => (0..40).for_each(|_| client.send(&Raw::header(READ, base, 1 << 20))),
        }
        silent.push(client);
    }
    for _ in 0..8 {
        let mut client = Raw::to(server.port());
        for _ in 0..50 {
            client.send(&Raw::header(READ | CONFIRMED, base, 64));
            assert_eq!(client.take(72), [OK.as_slice(), &buffer[..64]].concat());
        }
    }
    idle.send(&Raw::header(READ, base, 8));
    assert_eq!(idle.take(8), buffer[..8]);
}

#[test]
fn a_client_that_stops_half_way_loses_its_pin() {
    let buffer = pattern(5, 1 << 16);
    let memory = Memory::of(&[&buffer]);
    let mut short = settings();
    short.progress_timeout = Duration::from_millis(200);
    let server =
        mooncake::transport::tcp::Tcp::start(short, std::sync::Arc::clone(&memory) as std::sync::Arc<_>)
            .unwrap();
    let base = address_of(&buffer);
    let mut stalled = Raw::to(server.port());
    stalled.send(&Raw::header(WRITE | CONFIRMED, base, 1000));
    let region = memory.0.snapshot().1.remove(0);
    assert!(wait_until(LONG, || region.in_flight() == 1));
    assert!(memory.0.remove(base).is_err(), "in use");
    assert!(wait_until(LONG, || region.in_flight() == 0));
    assert_eq!(stalled.rest(), b"");
    memory.0.remove(base).unwrap();
    let mut late = Raw::to(server.port());
    late.send(&Raw::header(READ | CONFIRMED, base, 8));
    assert_eq!(late.rest(), REJECTED);
}

#[test]
fn large_transfers_leave_room_for_small_ones() {
    let buffer = vec![9_u8; 64 << 20];
    let memory = Memory::of(&[&buffer]);
    let server = serve(&memory);
    let (base, port) = (address_of(&buffer), server.port());
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = Raw::to(port);
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    client.send(&Raw::header(READ | CONFIRMED, base, 64 << 20));
                    assert_eq!(client.take((64 << 20) + 8)[8], 9);
                }
            });
        }
        // Every small request is answered while the large ones go on without end.
        let mut client = Raw::to(port);
        for _ in 0..100 {
            client.send(&Raw::header(READ | CONFIRMED, base, 16));
            assert_eq!(client.take(24)[..8], OK);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_closed_server_closes_its_clients() {
    let buffer = pattern(6, 4096);
    let memory = Memory::of(&[&buffer]);
    let server = serve(&memory);
    let mut client = Raw::to(server.port());
    client.send(&Raw::header(READ, address_of(&buffer), 4));
    assert_eq!(client.take(4), buffer[..4]);
    server.shutdown();
    assert_eq!(client.rest(), b"");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever a client sends, registered memory that it does not name stays as it is, and others are served.
    #[test]
    fn mutated_requests_do_no_harm(
        flips in prop::collection::vec((0_usize..72, any::<u8>()), 1..12),
        cut in 1_usize..400,
    ) {
        let guarded = pattern(7, 4096);
        let open = vec![0_u8; 4096];
        let memory = Memory::of(&[&open]);
        let server = serve(&memory);
        let mut bytes = [
            Raw::header(WRITE | CONFIRMED, address_of(&open), 100), vec![1; 100],
            Raw::header(READ | CONFIRMED, address_of(&open), 100),
            Raw::header(READ, address_of(&open), 100),
        ].concat();
        for (at, byte) in flips {
            bytes[at] ^= byte;
        }
        bytes.truncate(cut);
        let mut client = Raw::to(server.port());
        client.send(&bytes);
        client.0.shutdown(Shutdown::Write).unwrap();
        let answer = client.rest();
        prop_assert!(answer.len() <= 4096 * 3 + 24);
        prop_assert!(guarded == pattern(7, 4096));
        let mut other = Raw::to(server.port());
        other.send(&Raw::header(READ | CONFIRMED, address_of(&open), 1));
        prop_assert_eq!(wire::read_status(other.take(9)[..8].try_into().unwrap()), Some(wire::OK));
    }
}
