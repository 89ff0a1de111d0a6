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
use mooncake_test_support::{Child, loopback, wait_until};
use serde_json::{Value, json};

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

/// Threads of this process of that name.
fn threads(name: &str) -> usize {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let name_of = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("comm")).ok();
    threads.flatten().filter_map(name_of).filter(|found| found.trim() == name).count()
}

/// Threads of this process that look after an entry. A thread has the name of who started it until it names itself,
/// so this waits until none but the caller has the caller's.
fn looking() -> usize {
    let own = std::fs::read_to_string("/proc/thread-self/comm").unwrap();
    assert!(wait_until(LONG, || threads(own.trim()) == 1), "a thread that does not name itself");
    threads("mct-entry")
}

/// A descriptor as the service has it, apart from its time.
fn content(descriptor: &str) -> Value {
    let mut content: Value = serde_json::from_str(descriptor).unwrap();
    content["timestamp"] = json!("");
    content
}

/// A descriptor as another engine of ours would write it.
fn of_another(descriptor: &str) -> String {
    let mut other = content(descriptor);
    let id = &mut other["mooncake_transfer"]["incarnation"]["id"];
    assert_eq!(id.as_str().map(str::len), Some(32));
    *id = json!("0".repeat(32));
    other.to_string()
}

/// A descriptor as an engine of another kind would write it.
fn of_another_kind(descriptor: &str) -> String {
    let mut other = content(descriptor);
    assert!(other.as_object_mut().unwrap().shift_remove("mooncake_transfer").is_some());
    other.to_string()
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
    // Most looks are at the place alone.
    let looks = || (service.looks_at("rpc_meta%2Ftarget"), service.looks_at("ram%2Ftarget"));
    let (places, descriptors) = looks();
    assert!(wait_until(LONG, || looks().1 >= descriptors + 2));
    let (places, descriptors) = (looks().0 - places, looks().1 - descriptors);
    assert!(places > 5 * (descriptors - 1), "{places} looks at the place, {descriptors} at the descriptor");
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
    target.unregister(address(&memory)).unwrap();
    let stands = || service.value("ram%2Ftarget").unwrap();
    let names_none = || stands().contains("\"buffers\":[]");
    assert!(!names_none(), "{}", stands());
    service.refuse(false);
    assert!(wait_until(LONG, names_none), "{}", stands());
    target.close();
}

#[test]
fn a_name_that_another_engine_took_is_left_to_it() {
    let _alone = alone();
    let service = Fickle::start();
    let target = engine("target", &service.uri, Some(Duration::from_millis(20)));
    let memory = vec![7_u8; LENGTH];
    target.register(address(&memory), LENGTH as u64, "*").unwrap();
    // There is something to say, so that the engine is not just quiet because all is well.
    service.refuse(true);
    target.unregister(address(&memory)).unwrap();
    let descriptor = of_another(&service.value("ram%2Ftarget").unwrap());
    let place = r#"{"ip_or_host_name":"127.0.0.1","rpc_port":9}"#;
    service.replace("rpc_meta%2Ftarget", place);
    service.replace("ram%2Ftarget", &descriptor);
    // The look that began before that is over after two requests more.
    let asked = service.asked();
    assert!(wait_until(LONG, || service.asked() >= asked + 5));
    service.refuse(false);
    let (asked, told) = (service.asked(), service.changes().len());
    assert!(wait_until(LONG, || service.asked() >= asked + 5));
    let error = target.register(address(&memory), LENGTH as u64, "*").unwrap_err();
    assert_eq!(error.code(), Code::Metadata, "{error}");
    assert!(error.to_string().contains("127.0.0.1:9"), "{error}");
    target.close();
    assert_eq!(service.changes().len(), told, "{:?}", service.changes());
    assert_eq!(service.value("rpc_meta%2Ftarget").as_deref(), Some(place));
    assert_eq!(service.value("ram%2Ftarget"), Some(descriptor));
}

#[test]
fn what_others_wrote_over_a_living_engine_s_descriptor_is_told_again() {
    let _alone = alone();
    let service = Fickle::start();
    let target = engine("target", &service.uri, Some(Duration::from_millis(20)));
    let memory = vec![7_u8; LENGTH];
    let older = service.value("ram%2Ftarget").unwrap();
    target.register(address(&memory), LENGTH as u64, "*").unwrap();
    let own = service.value("ram%2Ftarget").unwrap();
    // Another's late word, one of another kind, and a late one of this engine itself.
    for other in [of_another(&own), of_another_kind(&own), older] {
        service.replace("ram%2Ftarget", &other);
        let again = || content(&service.value("ram%2Ftarget").unwrap()) == content(&own);
        assert!(wait_until(LONG, again), "{:?} over {other}", service.value("ram%2Ftarget"));
    }
    target.close();
    assert_eq!(service.keys(), [""; 0]);
}

#[test]
fn the_end_takes_out_what_is_its_own() {
    type Writer = fn(&str) -> String;
    let _alone = alone();
    // Whose descriptor stands at the end, whether the place of the engine does, and how many keys are left.
    let cases: [(Writer, bool, usize); 5] = [
        (of_another, true, 2), // one that has the same address after this engine
        (of_another, false, 1),
        (of_another_kind, false, 1),
        (of_another_kind, true, 0), // whose place it is not
        (str::to_owned, false, 0),
    ];
    for (index, (descriptor, place, left)) in cases.into_iter().enumerate() {
        let service = Fickle::start();
        let target = engine("target", &service.uri, None);
        service.replace("ram%2Ftarget", &descriptor(&service.value("ram%2Ftarget").unwrap()));
        if !place {
            service.forget_one("rpc_meta%2Ftarget");
        }
        target.close();
        assert_eq!(service.keys().len(), left, "case {index}: {:?}", service.changes());
    }
}

#[test]
fn the_entry_goes_although_the_service_does_not_say_whose_it_is() {
    let _alone = alone();
    let service = Fickle::start();
    let target = engine("target", &service.uri, None);
    service.hide(true);
    target.close();
    assert_eq!(service.keys(), [""; 0], "{:?}", service.changes());
}

#[test]
fn nobody_looks_where_there_is_nothing_to_forget() {
    let _alone = alone();
    // Those of tests before this one end in their own time.
    assert!(wait_until(LONG, || looking() == 0));
    let service = Fickle::start();
    let alone = engine(&loopback::host(), "P2PHANDSHAKE", Some(LONG * 100));
    assert_eq!(looking(), 0, "peer to peer");
    let off = engine("off", &service.uri, None);
    assert_eq!(looking(), 0, "turned off");
    let on = engine("on", &service.uri, Some(LONG * 100));
    assert_eq!(looking(), 1);
    let begun = Instant::now();
    for engine in [alone, off, on] {
        engine.close();
    }
    assert!(begun.elapsed() < LONG, "nobody waits for the next look");
    assert!(wait_until(LONG, || looking() == 0));
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
    let asked = service.be_silent();
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
