//! An engine's entry in a metadata service lives as long as the engine: told again where the service forgot it, and
//! taken out at the end, whatever the service and the peers do meanwhile.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

mod fickle;

use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use fickle::Fickle;
use mooncake::config::Config;
use mooncake::engine::{Direction, Engine, EngineOptions, Request};
use mooncake::error::Code;
use mooncake_test_support::{Child, wait_until};

const LONG: Duration = Duration::from_secs(60);
/// What an end may take at most; see the steps in `engine/shutdown.rs`.
const END_LIMIT: Duration = Duration::from_secs(20);
const LENGTH: usize = 5000;

fn engine(name: &str, uri: &str, check: Option<Duration>) -> Arc<Engine> {
    Engine::new(EngineOptions {
        metadata: uri.into(),
        local_name: name.into(),
        device: None,
        auto_discover: false,
        config: Config { metadata_check_interval: check, ..Config::default() },
    })
    .unwrap()
}

fn address(bytes: &[u8]) -> u64 {
    bytes.as_ptr().expose_provenance() as u64
}

fn read(engine: &Engine, name: &str, near: &[u8], far: u64) -> Result<(), String> {
    let segment = engine.open_segment(name, true).map_err(|error| error.to_string())?;
    let length_bytes = near.len() as u64;
    let request =
        Request { direction: Direction::Read, segment, local: address(near), remote: far, length_bytes };
    engine.transfer(&[request], None, None).map_err(|failure| failure.error.to_string())
}

/// One test at a time, also where all run in one process: one of them counts threads.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Threads of this process that look after an entry.
fn looking() -> usize {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let name = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("comm")).ok();
    threads.flatten().filter_map(name).filter(|name| name.trim() == "mct-entry").count()
}

#[test]
fn who_registers_nothing_more_is_known_again_after_the_service_forgot() {
    let _alone = alone();
    let service = Fickle::start();
    let target = engine("target", &service.uri, Some(Duration::from_millis(50)));
    let memory = vec![7_u8; LENGTH];
    target.register(address(&memory), LENGTH as u64, "*").unwrap();
    let both = service.keys();
    assert_eq!(both.len(), 2, "{both:?}");
    // All of it, the place of the listener alone, the descriptor alone.
    for end in ["", "rpc_meta%2Ftarget", "ram%2Ftarget"] {
        service.forget_one(end);
        assert!(wait_until(LONG, || service.keys() == both), "{end}: {:?}", service.keys());
        let newcomer = engine("newcomer", &service.uri, None);
        let near = vec![0_u8; LENGTH];
        read(&newcomer, "target", &near, address(&memory)).unwrap();
        assert!(std::hint::black_box(&near) == &memory);
        newcomer.probe("target").unwrap();
        newcomer.close();
    }
    // A service that knows the engine is told nothing, and one that refuses is asked again.
    let asked = service.asked();
    let told = service.changes().len();
    assert!(wait_until(LONG, || service.asked() >= asked + 6));
    assert_eq!(service.changes().len(), told);
    service.refuse(true);
    service.forget();
    assert!(wait_until(LONG, || service.changes().len() >= told + 2));
    service.refuse(false);
    assert!(wait_until(LONG, || service.keys() == both));
    target.close();
    assert_eq!(service.keys(), [""; 0]);
}

#[test]
fn news_that_was_not_taken_is_told_later() {
    let _alone = alone();
    let service = Fickle::start();
    let target = engine("target", &service.uri, Some(Duration::from_millis(50)));
    let memory = vec![7_u8; LENGTH];
    target.register(address(&memory), LENGTH as u64, "*").unwrap();
    service.refuse(true);
    let before = service.changes().len();
    target.unregister(address(&memory)).unwrap();
    service.refuse(false);
    let told = || {
        let changes = service.changes();
        changes.len() > before + 1 && changes.last().is_some_and(|(_, body)| body.contains("\"buffers\":[]"))
    };
    assert!(wait_until(LONG, told), "{:?}", service.changes());
    target.close();
}

#[test]
fn a_name_that_another_engine_took_is_left_to_it() {
    let _alone = alone();
    let service = Fickle::start();
    let target = engine("target", &service.uri, Some(Duration::from_millis(20)));
    service.replace("rpc_meta%2Ftarget", r#"{"ip_or_host_name":"127.0.0.1","rpc_port":9}"#);
    let (asked, told) = (service.asked(), service.changes().len());
    assert!(wait_until(LONG, || service.asked() >= asked + 5));
    assert_eq!(service.changes().len(), told);
    target.close();
}

#[test]
fn nobody_looks_where_there_is_nothing_to_forget() {
    let _alone = alone();
    // Those of tests before this one end in their own time.
    let before = 0;
    assert!(wait_until(LONG, || looking() == before));
    let alone = engine("127.0.0.1", "P2PHANDSHAKE", Some(Duration::from_millis(20)));
    assert_eq!(looking(), before);
    let service = Fickle::start();
    let off = engine("off", &service.uri, None);
    assert_eq!(looking(), before);
    let on = engine("on", &service.uri, Some(LONG * 100));
    // The thread names itself once it runs.
    assert!(wait_until(LONG, || looking() == before + 1));
    let begun = Instant::now();
    for engine in [alone, off, on] {
        engine.close();
    }
    assert!(begun.elapsed() < LONG, "nobody waits for the next look");
    assert!(wait_until(LONG, || looking() == before));
}

#[test]
fn news_on_its_way_at_the_end_leaves_no_entry() {
    let _alone = alone();
    let service = Fickle::start();
    let target = engine("target", &service.uri, None);
    let memory = vec![7_u8; LENGTH];
    let told = service.changes().len();
    service.be_late();
    std::thread::scope(|scope| {
        let registering = scope.spawn(|| target.register(address(&memory), LENGTH as u64, "*"));
        assert!(wait_until(LONG, || service.changes().len() > told), "the news is on its way");
        target.close();
        // What the caller is told depends on whether the end came before the answer.
        if let Err(error) = registering.join().unwrap() {
            assert!(matches!(error.code(), Code::StaleHandle | Code::Metadata), "{error}");
        }
    });
    assert_eq!(service.keys(), [""; 0], "{:?}", service.changes());
}

#[test]
fn the_end_is_bounded_beside_a_service_that_does_not_answer() {
    let _alone = alone();
    let service = Fickle::start();
    let target = engine("target", &service.uri, Some(Duration::from_millis(10)));
    let memory = vec![7_u8; LENGTH];
    let asked = service.asked();
    service.be_silent();
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| target.open_segment("nobody", true));
        let registering = scope.spawn(|| target.register(address(&memory), LENGTH as u64, "*"));
        // The two, and the look at the entry.
        assert!(wait_until(LONG, || service.asked() >= asked + 3), "they wait for the service");
        let begun = Instant::now();
        target.close();
        assert!(begun.elapsed() < END_LIMIT, "{:?}", begun.elapsed());
        assert!(opening.join().unwrap().is_err());
        assert!(registering.join().unwrap().is_err());
        assert!(begun.elapsed() < END_LIMIT, "{:?}", begun.elapsed());
    });
}

/// Not a test by itself: what [`the_entry_goes_although_a_peer_does_not_answer`] runs in another process.
#[test]
fn reading_process() {
    let Some(uri) = std::env::var_os("METADATA_ENTRY_SERVICE") else { return };
    let far = std::env::var("METADATA_ENTRY_FAR").unwrap().parse().unwrap();
    let reader = engine("reader", &uri.to_string_lossy(), None);
    let near = vec![0_u8; LENGTH];
    read(&reader, "target", &near, far).unwrap();
    println!("has read");
    let _ = std::io::stdin().read_line(&mut String::new());
}

fn signal(process: u32, name: &str) {
    assert!(Command::new("kill").args([name, &process.to_string()]).status().unwrap().success());
}

#[test]
fn the_entry_goes_although_a_peer_does_not_answer() {
    let _alone = alone();
    let service = Fickle::start();
    let target = engine("target", &service.uri, None);
    let memory = vec![7_u8; LENGTH];
    target.register(address(&memory), LENGTH as u64, "*").unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "reading_process", "--nocapture", "--test-threads=1"]);
    command.env("METADATA_ENTRY_SERVICE", &service.uri);
    command.env("METADATA_ENTRY_FAR", address(&memory).to_string());
    let child = Child::start(&mut command);
    let _line = child.wait_for_line(LONG, |line| line.contains("has read"));
    signal(child.id(), "-STOP");
    let begun = Instant::now();
    target.close();
    let ended = begun.elapsed();
    signal(child.id(), "-CONT");
    assert!(ended < END_LIMIT, "{ended:?}");
    let left: Vec<String> = service.keys().into_iter().filter(|key| key.ends_with("%2Ftarget")).collect();
    assert_eq!(left, [""; 0], "{:?}", service.changes());
}
