//! Promises 7, 8, 14, 15 and 19 for memory of hosts, by every route there is: copied by the kernel, mapped, by TCP.
//!
//! The files of those promises show them for NPUs, and promise 17 has no NPU in it. A restart on the same port is in
//! `host_engines`, hostile data clients in `tcp_server`, hostile data servers in `tcp_client`.
//!
//! Judged by order where that is possible: while a transfer to the peer that does not answer still waits, whole rounds
//! of transfers to the seven others end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

#[path = "promise/eight.rs"]
mod eight;
mod promise;

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use eight::Eight;
use mooncake_test_support::{SoftwareNpu, loopback};
use promise::{LIMIT, Peer, moving, software_npu};

const LENGTH: u64 = 1 << 20;
const BLOCK: u64 = 64 << 10;
const CONNECT: Duration = Duration::from_secs(3);
/// What a busy machine may add.
const SLACK: Duration = Duration::from_millis(1500);
/// Processor time that the whole process may use while one call waits for two seconds, in microseconds.
const WAITING_US: u64 = 50_000;

/// How memory of one process gets to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Kernel,
    Mapped,
    Tcp,
}

const ROUTES: [Route; 3] = [Route::Kernel, Route::Mapped, Route::Tcp];

impl Route {
    fn npu(self) -> SoftwareNpu {
        let npu = software_npu(1);
        if self == Self::Tcp { npu.variable("MC_FORCE_TCP", "1") } else { npu }
    }

    fn buffer(self, peer: &mut Peer, seed: u64) -> u64 {
        peer.host_buffer(if self == Self::Mapped { "pool" } else { "host" }, LENGTH, seed)
    }

    /// A process with a buffer.
    fn start(self, npu: &SoftwareNpu, seed: u64) -> (Peer, u64) {
        let mut peer = Peer::start(npu, None);
        let address = self.buffer(&mut peer, seed);
        (peer, address)
    }
}

fn eight(route: Route) -> Eight {
    let npu = route.npu().variable("ASCEND_CONNECT_TIMEOUT", &CONNECT.as_millis().to_string());
    Eight::new(route.start(&npu, 1), (0..8).map(|_| route.start(&npu, 2)).collect(), LENGTH, BLOCK)
}

#[test]
fn a_peer_that_does_not_answer_delays_nobody_else() {
    for route in ROUTES {
        let mut eight = eight(route);
        let name = eight.others[0].0.name();
        eight.a.must(&format!("open {name}"));
        // Frozen before it was ever connected: the kernel takes the connection, and nobody answers.
        eight.others[0].0.signal("STOP");
        let words = eight.words(0);
        let start = Instant::now();
        // Submitted on the thread that everything else is started from, too: accepting waits for no peer.
        let frozen: Vec<String> = (0..5).map(|_| eight.a.must(&format!("submit {words}"))).collect();
        for _ in 0..10 {
            eight.round();
        }
        let state = eight.a.must(&format!("status {} 0", frozen[0]));
        assert_eq!(
            state, "Waiting 0",
            "{route:?}: ten rounds with the others took longer than the frozen peer"
        );
        for batch in frozen {
            let failure = eight.a.must_fail(&format!("wait {batch} 30000"));
            assert!(matches!(failure.code(), "timeout" | "socket"), "{route:?} {failure:?}");
            assert_eq!(failure.text("peer"), name, "{failure:?}");
            assert!(!failure.text("advice").is_empty(), "{failure:?}");
        }
        // One connect timeout for all five: those behind the first fail fast. A busy machine gets some room.
        assert!(start.elapsed() < 3 * CONNECT, "{route:?} {:?}", start.elapsed());
        eight.others[0].0.signal("CONT");
        eight.others[0].0.child.kill();
        eight.end();
    }
}

#[test]
fn a_killed_peer_fails_fast_and_costs_the_others_nothing() {
    for route in ROUTES {
        let mut eight = eight(route);
        let words = eight.words(0);
        eight.a.must(&format!("transfer {words}"));
        eight.round();
        eight.others[0].0.child.kill();
        let start = Instant::now();
        for _ in 0..10 {
            let pending = eight.a.begin(&format!("& transfer {words}"));
            eight.round();
            let failure = eight.a.finish(pending).expect_err("the peer is dead");
            assert_eq!(failure.text("peer"), eight.others[0].0.name(), "{route:?} {failure:?}");
        }
        // Ten uses of a dead peer together cost less than one connect timeout would.
        assert!(start.elapsed() < 2 * CONNECT, "{route:?} {:?}", start.elapsed());
        eight.end();
    }
}

#[test]
fn a_peer_that_stands_still_for_a_while_is_used_again() {
    for route in ROUTES {
        let npu = route
            .npu()
            .variable("MOONCAKE_TRANSFER_CONTROL_PING_MS", "100")
            .variable("MOONCAKE_TRANSFER_CONTROL_SILENCE_MS", "600")
            .variable("MC_HANDSHAKE_CONNECT_TIMEOUT", "1")
            .variable("MOONCAKE_TRANSFER_HANDSHAKE_REPLY_MS", "500");
        let ((mut a, near), (b, far)) = (route.start(&npu, 1), route.start(&npu, 2));
        let name = b.name();
        let transfer = format!("transfer {}", moving("read", near, &name, far, LENGTH, BLOCK, 5000));
        a.must(&transfer);
        b.signal("STOP");
        // What needs no help of the peer goes on until its silence makes it count as lost.
        let start = Instant::now();
        let failure = loop {
            match a.ask(&transfer) {
                Ok(_) => assert!(start.elapsed() < LIMIT, "a silent peer is never declared lost"),
                Err(failure) => break failure,
            }
        };
        assert_eq!(failure.text("peer"), name, "{route:?} {failure:?}");
        a.fill(near, LENGTH, 1);
        b.signal("CONT");
        let start = Instant::now();
        while let Err(failure) = a.ask(&transfer) {
            assert_eq!(failure.text("peer"), name, "{route:?} {failure:?}");
            assert!(start.elapsed() < LIMIT, "{route:?} never again: {failure:?}");
        }
        assert!(a.holds(near, LENGTH, 2), "{route:?}");
        a.quit();
        b.quit();
    }
}

#[track_caller]
fn about(what: &str, took: Duration, limit_ms: u64) {
    let limit = Duration::from_millis(limit_ms);
    assert!(
        took + Duration::from_millis(20) >= limit,
        "{what}: {took:?} is shorter than its limit {limit:?}"
    );
    assert!(took < limit + SLACK, "{what}: {took:?} for a limit of {limit:?}");
}

#[test]
fn the_limit_of_a_transfer_and_of_a_wait_is_the_callers() {
    // By the other routes a peer that stands still delays nothing: its help is not needed.
    let npu = Route::Tcp.npu();
    let ((mut a, near), (b, far)) = (Route::Tcp.start(&npu, 1), Route::Tcp.start(&npu, 2));
    let name = b.name();
    let words = |limit_ms| moving("read", near, &name, far, LENGTH, LENGTH, limit_ms);
    a.must(&format!("transfer {}", words(0)));
    b.signal("STOP");
    for limit_ms in [100, 900] {
        let start = Instant::now();
        let failure = a.must_fail(&format!("transfer {}", words(limit_ms)));
        assert_eq!(failure.code(), "timeout", "{failure:?}");
        about("transfer", start.elapsed(), limit_ms);
    }
    let batch = a.must(&format!("submit {}", words(1200)));
    for limit_ms in [50, 400] {
        let start = Instant::now();
        let failure = a.must_fail(&format!("wait {batch} {limit_ms}"));
        assert_eq!(failure.code(), "timeout", "{failure:?}");
        about("wait", start.elapsed(), limit_ms);
    }
    let start = Instant::now();
    let failure = a.must_fail(&format!("wait {batch} 30000"));
    assert_eq!(failure.code(), "timeout", "{failure:?}");
    assert!(
        start.elapsed() < Duration::from_millis(1200) + SLACK,
        "the submission's limit does not end its task"
    );
    a.must(&format!("free {batch}"));
    b.signal("CONT");
    a.must(&format!("transfer {}", words(0)));
    assert!(a.holds(near, LENGTH, 2));
    a.quit();
    b.quit();
}

#[test]
fn nothing_waits_for_a_frozen_peer_for_ever() {
    for route in ROUTES {
        let npu = route
            .npu()
            .variable("MOONCAKE_TRANSFER_HANDSHAKE_REPLY_MS", "400")
            .variable("MC_HANDSHAKE_CONNECT_TIMEOUT", "1")
            .variable("MC_TRANSFER_TIMEOUT", "5")
            .variable("MOONCAKE_TRANSFER_DRAIN_GRACE_MS", "300");
        let ((mut a, near), (b, far)) = (route.start(&npu, 1), route.start(&npu, 2));
        let name = b.name();
        let segment = a.must(&format!("open {name}"));
        let words = moving("read", near, &name, far, LENGTH, BLOCK, 0);
        a.must(&format!("transfer {words}"));
        b.signal("STOP");
        let fresh = a.must(&format!("host {LENGTH}"));
        for command in [
            // A note and a range that the cached descriptor does not have both need the peer.
            format!("note {segment} text"),
            format!("transfer {}", moving("read", near, &name, far.wrapping_add(1 << 40), 4096, 4096, 0)),
            format!("transfer {words}"),
            format!("register {fresh} {LENGTH} cpu:0"),
            format!("unregister {fresh}"),
            format!("unregister {near}"),
            "close".to_owned(),
        ] {
            let start = Instant::now();
            // Success and failure are both fine; what is not is to wait for the frozen one.
            let outcome = a.ask(&command);
            let took = start.elapsed();
            assert!(took < Duration::from_secs(5) + SLACK, "{route:?} {command} took {took:?}: {outcome:?}");
        }
        a.quit();
        b.signal("CONT");
        b.quit();
    }
}

#[test]
fn a_waiting_call_uses_no_processor() {
    for (route, connected) in
        [(Route::Kernel, false), (Route::Mapped, false), (Route::Tcp, false), (Route::Tcp, true)]
    {
        let npu = route.npu().variable("MC_HANDSHAKE_CONNECT_TIMEOUT", "2");
        let ((mut a, near), (b, far)) = (route.start(&npu, 1), route.start(&npu, 2));
        let name = b.name();
        let words = moving("read", near, &name, far, LENGTH, BLOCK, 2000);
        a.must(&format!("open {name}"));
        if connected {
            a.must(&format!("transfer {words}"));
        }
        b.signal("STOP");
        let batch = a.must(&format!("submit {words}"));
        let (start, before) = (Instant::now(), a.must("processor").parse::<u64>().unwrap());
        let failure = a.must_fail(&format!("wait {batch} 20000"));
        let used = a.must("processor").parse::<u64>().unwrap() - before;
        assert!(
            start.elapsed() > Duration::from_millis(1500),
            "{route:?}: it did not have to wait: {failure:?}"
        );
        assert_eq!(failure.text("peer"), name, "{failure:?}");
        assert!(
            used < WAITING_US,
            "{route:?}: {used} us of processor time in {:?} of waiting",
            start.elapsed()
        );
        b.signal("CONT");
        a.quit();
        b.quit();
    }
}

/// A peer of upstream's kind with one descriptor, whose data listener answers with bytes that a test thought up.
struct Rogue {
    name: String,
    asked: Arc<AtomicUsize>,
}

impl Rogue {
    fn start(buffers: &str, answer: &'static [u8]) -> Self {
        let (handshake, data) = (loopback::listen(), loopback::listen());
        let name = handshake.local_addr().unwrap().to_string();
        let (port, host) = (data.local_addr().unwrap().port(), loopback::host());
        let json = format!(
            r#"{{"name":"{name}","protocol":"tcp","buffers":[{buffers}],"tcp_data_host":"{host}","tcp_data_port":{port},"tcp_proto_version":2}}"#
        );
        std::thread::spawn(move || {
            for client in handshake.incoming() {
                let mut client = client.unwrap();
                client.set_read_timeout(Some(LIMIT)).unwrap();
                let mut head = [0; 9];
                if client.read_exact(&mut head).is_err() {
                    continue;
                }
                let mut body =
                    vec![0; usize::try_from(u64::from_le_bytes(head[..8].try_into().unwrap())).unwrap() - 1];
                let _ = client.read_exact(&mut body);
                let mut frame = u64::try_from(json.len() + 1).unwrap().to_le_bytes().to_vec();
                frame.push(head[8]);
                frame.extend_from_slice(json.as_bytes());
                // A client that left does not want it.
                let _ = client.write_all(&frame);
            }
        });
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        std::thread::spawn(move || {
            for client in data.incoming() {
                let mut client = client.unwrap();
                let counter = Arc::clone(&counter);
                std::thread::spawn(move || {
                    let mut header = [0; 24];
                    while client.read_exact(&mut header).is_ok() {
                        counter.fetch_add(1, Ordering::SeqCst);
                        if client.write_all(answer).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { name, asked }
    }
}

#[test]
fn a_rogue_publisher_of_host_memory_changes_nothing_here() {
    let npu = Route::Tcp.npu();
    let (mut a, near) = Route::Tcp.start(&npu, 1);
    let guard = a.host_buffer("host", LENGTH, 7);
    let (most, length) = (u64::MAX, LENGTH);
    let descriptors = [
        format!(r#"{{"name":"x","addr":{most},"length":{most}}}"#),
        format!(r#"{{"name":"x","addr":1,"length":{most}}}"#),
        format!(r#"{{"name":"x","addr":{},"length":4096}}"#, most - 4095),
        r#"{"name":"x","addr":0,"length":0}"#.to_owned(),
        r#"{"name":"x","addr":-1,"length":1e300}"#.to_owned(),
        // Addresses of ours, and the same ones twice.
        format!(
            r#"{{"name":"x","addr":{guard},"length":{length}}},{{"name":"x","addr":{guard},"length":{length}}}"#
        ),
        r#""text",7,null,[],{}"#.to_owned(),
    ];
    let mut served = 0;
    for text in &descriptors {
        // Too little, too much, a refusal that goes on, another program's answer.
        for answer in [
            &b"\0\0\0\0VTC"[..],
            &[0x56; 4096],
            b"\x01\0\0\0VTCMVTCMVTCM",
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
        ] {
            let rogue = Rogue::start(text, answer);
            if a.ask(&format!("open {}", rogue.name)).is_ok() {
                for remote in [guard, 4096, most - 4095, 1, most] {
                    for direction in ["read", "write"] {
                        let words = moving(direction, near, &rogue.name, remote, 4096, 4096, 300);
                        let failure = a.must_fail(&format!("transfer {words}"));
                        assert!(!failure.text("message").is_empty());
                    }
                }
            }
            served += rogue.asked.load(Ordering::SeqCst);
        }
    }
    assert!(served > 0, "no rogue was ever asked for data");
    assert!(a.holds(guard, LENGTH, 7), "memory that no transfer named was changed");
    let (mut b, far) = Route::Tcp.start(&npu, 3);
    a.must(&format!("transfer {}", moving("read", near, &b.name(), far, LENGTH, BLOCK, 0)));
    assert!(a.holds(near, LENGTH, 3), "a peer that is right is reached as before");
    b.must(&format!("transfer {}", moving("read", far, &a.name(), guard, LENGTH, BLOCK, 0)));
    assert!(b.holds(far, LENGTH, 7));
    a.quit();
    b.quit();
}
