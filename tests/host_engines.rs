//! Host memory between two processes, by every route there is and both families of addresses.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

use std::io::BufRead;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mooncake::config::Config;
use mooncake::engine::{Direction, Engine, EngineOptions, Note, Request, TaskStatus};
use mooncake::error::Code;
use mooncake::memory::{HugePages, SharedMemory};
use mooncake_test_support::{Child, loopback, wait_until};

const LONG: Duration = Duration::from_secs(30);
const BUFFER: usize = 24 << 20;
const MIB: usize = 1 << 20;

/// How host memory gets from one process to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    /// Memory that the kernel copies from process to process.
    SameHost,
    /// Memory of our own making, which is mapped.
    Mapped,
    Tcp,
    /// The peer says that it runs elsewhere.
    OtherHost,
}

const ROUTES: [Route; 4] = [Route::SameHost, Route::Mapped, Route::Tcp, Route::OtherHost];

fn engine(host: &str, route: Route) -> Arc<Engine> {
    engine_with(host, Config { force_tcp: route == Route::Tcp, ..Config::default() })
}

fn engine_with(host: &str, config: Config) -> Arc<Engine> {
    Engine::new(EngineOptions {
        metadata: "P2PHANDSHAKE".into(),
        local_name: host.into(),
        device: None,
        auto_discover: false,
        config,
    })
    .unwrap()
}

fn pattern(seed: u64, length: usize) -> Vec<u8> {
    (0..length as u64)
        .map(|index| (index.wrapping_mul(31).wrapping_add(index >> 8).wrapping_add(seed * 7) % 253) as u8)
        .collect()
}

fn address(bytes: &[u8]) -> u64 {
    bytes.as_ptr().expose_provenance() as u64
}

/// Another process with an engine and a buffer; this very program, started to run only [`peer_process`].
struct Peer {
    child: Child,
    name: String,
    base: u64,
    asked: usize,
}

impl Peer {
    fn start(host: &str, route: Route) -> Self {
        Self::start_with(host, route, &[])
    }

    fn start_with(host: &str, route: Route, variables: &[(&str, String)]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "peer_process", "--nocapture", "--test-threads=1"]);
        command.env("HOST_ENGINES_PEER", host).envs(variables.iter().map(|(name, value)| (name, value)));
        if route == Route::OtherHost {
            command.env("MOONCAKE_TRANSFER_BOOT_ID", "another-boot");
        }
        if route == Route::Mapped {
            command.env("HOST_ENGINES_MAPPED", "1");
        }
        let child = Child::start(&mut command);
        let line = child.wait_for_line(LONG, |line| line.contains("ready "));
        let words: Vec<_> = line.split_once("ready ").unwrap().1.split(' ').collect();
        Self { child, name: words[0].to_owned(), base: words[1].parse().unwrap(), asked: 0 }
    }

    fn ask(&mut self, command: &str) -> String {
        self.asked += 1;
        let start = format!("answer {} ", self.asked);
        self.child.send(command);
        let line = self.child.wait_for_line(LONG, |line| line.starts_with(&start));
        line[start.len()..].to_owned()
    }
}

/// The peer's buffer.
enum Buffer {
    Private(Vec<u8>),
    Shared(SharedMemory),
}

impl Buffer {
    fn new() -> Self {
        if std::env::var_os("HOST_ENGINES_MAPPED").is_none() {
            return Self::Private(vec![0_u8; BUFFER]);
        }
        Self::Shared(SharedMemory::allocate(BUFFER as u64, HugePages::No).unwrap())
    }

    fn address(&self) -> u64 {
        match self {
            Self::Private(bytes) => address(bytes),
            Self::Shared(memory) => memory.address(),
        }
    }

    fn fill(&mut self, bytes: &[u8]) {
        match self {
            Self::Private(own) => own.copy_from_slice(bytes),
            Self::Shared(memory) => memory.write(0, bytes).unwrap(),
        }
    }

    fn load(&self, offset: usize, length: usize) -> Vec<u8> {
        match self {
            Self::Private(own) => std::hint::black_box(own)[offset..][..length].to_vec(),
            Self::Shared(memory) => {
                let mut bytes = vec![0; length];
                memory.read(offset as u64, &mut bytes).unwrap();
                bytes
            }
        }
    }
}

#[test]
fn peer_process() {
    let Ok(host) = std::env::var("HOST_ENGINES_PEER") else { return };
    let engine = Engine::new(EngineOptions {
        metadata: "P2PHANDSHAKE".into(),
        local_name: host,
        device: None,
        auto_discover: false,
        config: Config::from_env(),
    })
    .unwrap();
    let mut buffer = Buffer::new();
    let base = buffer.address();
    engine.register(base, BUFFER as u64, "cpu:0").unwrap();
    println!("\nready {} {base}", engine.name());
    let mut extra: Vec<Vec<u8>> = Vec::new();
    let mut hammer: Option<std::thread::JoinHandle<Code>> = None;
    for (number, line) in (1..).zip(std::io::stdin().lock().lines()) {
        let line = line.unwrap();
        let words: Vec<_> = line.split(' ').collect();
        let figure = |index: usize| words[index].parse::<usize>().unwrap();
        let answer = match words[0] {
            "fill" => {
                buffer.fill(&pattern(figure(1) as u64, BUFFER));
                "done".to_owned()
            }
            // Whether length bytes at offset are the first of the pattern.
            "check" => {
                let (seed, offset, length) = (figure(1) as u64, figure(2), figure(3));
                (buffer.load(offset, length) == pattern(seed, length)).to_string()
            }
            "unregister" => code(engine.unregister(base)),
            "register" => code(engine.register(base, BUFFER as u64, "*")),
            "more" => {
                let bytes = pattern(figure(1) as u64, figure(2));
                let address = address(&bytes);
                engine.register(address, bytes.len() as u64, "*").unwrap();
                extra.push(bytes);
                address.to_string()
            }
            "notes" => {
                let notes =
                    engine.take_notes().into_iter().map(|note| format!("{}={}", note.name, note.message));
                notes.collect::<Vec<_>>().join(",")
            }
            // Writes all of its buffer there again and again, until that fails.
            "hammer" => {
                let (engine, name) = (Arc::clone(&engine), words[1].to_owned());
                let there = words[2].parse().unwrap();
                hammer = Some(std::thread::spawn(move || {
                    loop {
                        let segment = engine.open_segment(&name, true).unwrap();
                        let all = request(Direction::Write, segment, base, there, BUFFER);
                        if let Err(failure) = engine.transfer(&[all], None, None) {
                            break failure.error.code();
                        }
                    }
                }));
                "done".to_owned()
            }
            "hammered" => hammer.take().unwrap().join().unwrap().name().to_owned(),
            other => panic!("{other}"),
        };
        println!("answer {number} {answer}");
    }
    engine.close();
}

fn code(result: mooncake::error::Result<()>) -> String {
    result.map_or_else(|error| error.code().name().to_owned(), |()| "ok".to_owned())
}

fn request(direction: Direction, segment: i32, local: u64, remote: u64, length: usize) -> Request {
    Request { direction, segment, local, remote, length_bytes: length as u64 }
}

fn jobs(engine: &Engine) -> (u64, u64) {
    let text = engine.metrics_text();
    let value = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    (value("mooncake_transfer_same_host_jobs_total"), value("mooncake_transfer_tcp_jobs_total"))
}

/// Device and file number of every mapping of shared memory in a process that is as long as a buffer.
fn shared_mappings(process: u32) -> Vec<String> {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let file = |line: &str| {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let length = usize::from_str_radix(end, 16).ok()? - usize::from_str_radix(start, 16).ok()?;
        let file = words.skip(2).take(2).collect::<Vec<_>>().join(" ");
        (length == BUFFER && line.contains("/memfd:mooncake-transfer")).then_some(file)
    };
    maps.lines().filter_map(file).collect()
}

/// Pieces of the peer's buffer in this process's address space. Other tests of the process have peers of their own.
fn mapped_pieces(peer: &Peer) -> usize {
    let theirs = shared_mappings(peer.child.id());
    shared_mappings(std::process::id()).iter().filter(|file| theirs.contains(file)).count()
}

#[test]
fn every_size_arrives_by_every_route_both_ways_and_both_families() {
    for host in ["127.0.0.1", "::1"] {
        for route in ROUTES {
            let mut peer = Peer::start(host, route);
            let engine = engine(host, route);
            let segment = engine.open_segment(&peer.name, true).unwrap();
            for (seed, length) in [(1, 1), (2, 4096), (3, 65_537), (4, 300 << 10), (5, 20 * MIB + 3)] {
                let source = pattern(seed, length);
                let back = vec![0_u8; length];
                let (there, note) =
                    (peer.base + 11 * seed, Note { name: "n".into(), message: seed.to_string() });
                engine
                    .transfer(
                        &[request(Direction::Write, segment, address(&source), there, length)],
                        Some(note),
                        None,
                    )
                    .unwrap();
                assert_eq!(
                    peer.ask(&format!("check {seed} {} {length}", 11 * seed)),
                    "true",
                    "{route:?} {host}"
                );
                engine
                    .transfer(&[request(Direction::Read, segment, address(&back), there, length)], None, None)
                    .unwrap();
                assert!(std::hint::black_box(&back) == &source, "{route:?} {host} {length}");
            }
            let (same_host, tcp) = jobs(&engine);
            assert_eq!(
                (same_host, tcp),
                if matches!(route, Route::SameHost | Route::Mapped) { (10, 0) } else { (0, 10) },
                "{route:?}"
            );
            assert_eq!(mapped_pieces(&peer), usize::from(route == Route::Mapped), "{route:?}");
            drop(engine);
            assert_eq!(mapped_pieces(&peer), 0, "a closed engine maps nothing");
            let mut notes = String::new();
            assert!(wait_until(LONG, || {
                let more = peer.ask("notes");
                notes = [notes.as_str(), more.as_str()].join(",");
                notes.matches("n=").count() == 5
            }));
        }
    }
}

#[test]
fn a_large_scattered_batch_arrives() {
    for route in ROUTES {
        let mut peer = Peer::start(&loopback::host(), route);
        peer.ask("fill 9");
        let engine = engine(&loopback::host(), route);
        let segment = engine.open_segment(&peer.name, true).unwrap();
        let (block, count) = (4096, 4096);
        let near = vec![0_u8; block * count];
        let requests: Vec<_> = (0..count)
            .map(|index| {
                let there = peer.base + ((count - 1 - index) * block) as u64;
                request(Direction::Read, segment, address(&near) + (index * block) as u64, there, block)
            })
            .collect();
        engine.transfer(&requests, None, None).unwrap();
        let expected = pattern(9, BUFFER);
        let near = std::hint::black_box(near);
        for index in 0..count {
            let there = (count - 1 - index) * block;
            assert!(near[index * block..][..block] == expected[there..][..block], "{route:?} block {index}");
        }
    }
}

#[test]
fn only_registered_memory_is_reached_and_new_memory_is_found() {
    for route in ROUTES {
        let mut peer = Peer::start(&loopback::host(), route);
        let engine = engine(&loopback::host(), route);
        let segment = engine.open_segment(&peer.name, true).unwrap();
        let near = vec![0_u8; 1000];
        let read = |remote, length| {
            engine
                .transfer(&[request(Direction::Read, segment, address(&near), remote, length)], None, None)
                .map_err(|failure| failure.error.code())
        };
        assert_eq!(read(peer.base + BUFFER as u64 - 10, 11), Err(Code::AddressNotRegistered), "{route:?}");
        assert_eq!(read(0x10, 8), Err(Code::AddressNotRegistered));
        let more: u64 = peer.ask("more 5 1000").parse().unwrap();
        read(more, 1000).unwrap();
        assert!(std::hint::black_box(&near) == &pattern(5, 1000));
        assert_eq!(peer.ask("unregister"), "ok");
        assert_eq!(read(peer.base, 8), Err(Code::AddressNotRegistered));
        assert_eq!(peer.ask("register"), "ok");
        read(peer.base, 8).unwrap();
    }
}

#[test]
fn memory_in_use_by_a_peer_cannot_be_withdrawn() {
    for route in ROUTES {
        let mut peer = Peer::start(&loopback::host(), route);
        let engine = engine(&loopback::host(), route);
        let segment = engine.open_segment(&peer.name, true).unwrap();
        let near = vec![0_u8; BUFFER];
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (engine, near, stop, base) = (&engine, &near, &stop, peer.base);
            let worker = scope.spawn(move || {
                let mut refused = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let all = request(Direction::Read, segment, address(near), base, BUFFER);
                    match engine.transfer(&[all], None, None) {
                        Ok(()) => {}
                        // Between two transfers the range may be withdrawn: then it is not there for a while.
                        Err(failure) => {
                            let text = failure.error.to_string();
                            assert_eq!(failure.error.code(), Code::AddressNotRegistered, "{text}");
                            // What was started before the withdrawal is served to its end.
                            assert!(!text.contains("refused"), "{text}");
                            refused += 1;
                        }
                    }
                }
                refused
            });
            let mut outcomes = Vec::new();
            for _ in 0..20 {
                let outcome = peer.ask("unregister");
                if outcome == "ok" {
                    assert_eq!(peer.ask("register"), "ok");
                }
                outcomes.push(outcome);
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            worker.join().unwrap();
            assert!(
                outcomes.iter().all(|outcome| outcome == "ok" || outcome == "busy"),
                "{route:?} {outcomes:?}"
            );
        });
    }
}

/// The writer stands still in the middle of whatever it does, so that it answers nothing and stops nothing. What it
/// wrote last may be under way: then the range stays registered, and the answer says who has it. Otherwise nothing
/// of it arrives any more when it goes on.
///
/// Tried without the closing of the boards (`close_at_peers` doing nothing): the first round with mapped memory fails.
#[test]
fn a_peer_that_stands_still_does_not_touch_what_was_withdrawn() {
    for route in [Route::SameHost, Route::Mapped, Route::Tcp] {
        let mut writer = Peer::start(&loopback::host(), route);
        let config = Config {
            force_tcp: route == Route::Tcp,
            handshake_connect_timeout: Duration::from_secs(1),
            ..Config::default()
        };
        let engine = engine_with(&loopback::host(), config);
        let shared = SharedMemory::allocate(BUFFER as u64, HugePages::No).unwrap();
        let private = vec![0_u8; BUFFER];
        let base = if route == Route::Mapped { shared.address() } else { address(&private) };
        let first_byte = || {
            let mut byte = [0];
            shared.read(0, &mut byte).unwrap();
            byte[0] | std::hint::black_box(&private)[0]
        };
        for round in 0..3 {
            // Its pattern begins with 7.
            writer.ask("fill 1");
            engine.register(base, BUFFER as u64, "cpu:0").unwrap();
            writer.ask(&format!("hammer {} {base}", engine.name()));
            assert!(wait_until(LONG, || first_byte() != 0), "{route:?} {round}");
            let pid = writer.child.id();
            signal(pid, "-STOP");
            assert!(wait_until(LONG, || stands_still(pid)));
            let outcome = engine.unregister(base);
            if let Err(error) = &outcome {
                assert_eq!(error.code(), Code::Busy, "{error}");
                if route != Route::Tcp {
                    assert_eq!(error.record().peer.as_deref(), Some(writer.name.as_str()), "{error}");
                }
                signal(pid, "-CONT");
                assert!(wait_until(LONG, || engine.unregister(base).is_ok()));
            }
            // Nobody else uses the memory from here on, which is what is tested.
            zero(&engine, base);
            if outcome.is_ok() {
                signal(pid, "-CONT");
            }
            assert_ne!(writer.ask("hammered"), "ok");
            let mut seen = vec![1_u8; BUFFER];
            if route == Route::Mapped {
                shared.read(0, &mut seen).unwrap();
            } else {
                seen.copy_from_slice(std::hint::black_box(&private));
            }
            assert!(seen.iter().all(|byte| *byte == 0), "{route:?} {round}: written after it was withdrawn");
        }
    }
}

fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args([name, &pid.to_string()]).status().unwrap();
    assert!(status.success());
}

/// Whether all threads of a process are stopped.
fn stands_still(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
    })
}

/// Fills a buffer with zeros by a copy within the engine.
fn zero(engine: &Engine, base: u64) {
    let zeros = vec![0_u8; BUFFER];
    let all = request(Direction::Read, 0, base, address(&zeros), BUFFER);
    engine.register(address(&zeros), BUFFER as u64, "cpu:0").unwrap();
    engine.transfer(&[all], None, None).unwrap();
    engine.unregister(address(&zeros)).unwrap();
}

#[test]
fn a_killed_peer_is_an_error_soon_and_delays_nobody_else() {
    for route in ROUTES {
        let mut dying = Peer::start(&loopback::host(), route);
        let living = Peer::start(&loopback::host(), route);
        let engine = engine(&loopback::host(), route);
        let (bad, good) = (
            engine.open_segment(&dying.name, true).unwrap(),
            engine.open_segment(&living.name, true).unwrap(),
        );
        let near = vec![0_u8; 4096];
        let read = |segment, base| {
            engine.transfer(&[request(Direction::Read, segment, address(&near), base, 4096)], None, None)
        };
        read(bad, dying.base).unwrap();
        read(good, living.base).unwrap();
        dying.child.kill();
        let started = Instant::now();
        let failure = read(bad, dying.base).unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
        assert!(failure.error.to_string().contains(&dying.name), "{route:?} {}", failure.error);
        for _ in 0..10 {
            assert!(read(bad, dying.base).is_err());
            read(good, living.base).unwrap();
        }
    }
}

#[test]
fn a_restarted_peer_is_another_process() {
    for route in ROUTES {
        // Few ports, so that the name comes back within some attempts.
        let first = 23_000 + (std::process::id() as u16 % 400) * 10 + route as u16 * 3;
        let ports = [("MC_MIN_RPC_PORT", first.to_string()), ("MC_MAX_RPC_PORT", (first + 2).to_string())];
        let mut old = Peer::start_with(&loopback::host(), route, &ports);
        old.ask("fill 1");
        let engine = engine(&loopback::host(), route);
        let segment = engine.open_segment(&old.name, true).unwrap();
        let near = vec![0_u8; 4096];
        let read = |base| {
            engine.transfer(&[request(Direction::Read, segment, address(&near), base, 4096)], None, None)
        };
        read(old.base).unwrap();
        assert!(std::hint::black_box(&near) == &pattern(1, 4096));
        old.child.kill();
        let mut new = None;
        assert!(wait_until(LONG, || {
            let peer = Peer::start_with(&loopback::host(), route, &ports);
            if peer.name == old.name {
                new = Some(peer);
            }
            new.is_some()
        }));
        let mut new = new.unwrap();
        new.ask("fill 2");
        // The first call finds the new process by itself, or says in words that there is another.
        let mut outcome = Ok(());
        assert!(
            wait_until(LONG, || {
                outcome = read(new.base).map_err(|failure| failure.error.to_string());
                outcome.is_ok()
            }),
            "{route:?} {outcome:?}"
        );
        assert!(std::hint::black_box(&near) == &pattern(2, 4096));
    }
}

#[test]
fn many_engines_start_at_once_without_a_collision() {
    let engines: Vec<_> = std::thread::scope(|scope| {
        let started: Vec<_> =
            (0..64).map(|_| scope.spawn(|| engine(&loopback::host(), Route::Tcp))).collect();
        started.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let names: std::collections::HashSet<_> = engines.iter().map(|engine| engine.name().to_owned()).collect();
    assert_eq!(names.len(), 64);
    for engine in &engines {
        engine.close();
    }
}

#[test]
fn a_bad_block_fails_its_task_alone() {
    for route in [Route::SameHost, Route::Tcp] {
        let mut peer = Peer::start(&loopback::host(), route);
        peer.ask("fill 4");
        let engine = engine(&loopback::host(), route);
        let segment = engine.open_segment(&peer.name, true).unwrap();
        // Small, so that it is done at once, and large, so that threads share it; contiguous at the far side, so
        // that the tasks beside the bad one may be one copy.
        for (block, count) in [(64, 300), (64 << 10, 40)] {
            let near = vec![0_u8; block * count];
            let bad = [7, count - 1];
            let requests: Vec<_> = (0..count)
                .map(|index| {
                    // No process has anything in its first page.
                    let local =
                        if bad.contains(&index) { 64 } else { address(&near) + (index * block) as u64 };
                    let there = peer.base + (index * block) as u64;
                    request(Direction::Read, segment, local, there, block)
                })
                .collect();
            let batch = engine.allocate_batch(count).unwrap();
            engine.submit(batch, &requests, None, None).unwrap();
            assert_eq!(engine.wait(batch, LONG).unwrap_err().code(), Code::InvalidArgument, "{route:?}");
            let expected = pattern(4, BUFFER);
            let near = std::hint::black_box(near);
            for index in 0..count {
                let state = engine.status(batch, index).unwrap();
                if bad.contains(&index) {
                    assert_eq!(state.status, TaskStatus::Failed, "{route:?} {index}");
                    continue;
                }
                assert_eq!(
                    (state.status, state.transferred_bytes),
                    (TaskStatus::Completed, block as u64),
                    "{route:?} task {index} of {count}: {:?}",
                    engine.task_error(batch, index)
                );
                let place = index * block;
                assert!(near[place..][..block] == expected[place..][..block], "{route:?} {index}");
            }
            engine.free_batch(batch).unwrap();
        }
    }
}
