//! What the NPU transport does when the vendor's library fails, hangs, or goes on after it was told to stop.
//!
//! Each test runs in a process of its own, whose software NPU has the faults scripted.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

mod ascend_pair;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ascend_pair::*;
use cann_sys::LoadOptions;
use mooncake::batch::Waited;
use mooncake::config::Config;
use mooncake::deadline::Deadline;
use mooncake::endpoint::Incarnation;
use mooncake::error::Code;
use mooncake::memory::{ByteRange, MemoryKind};
use mooncake::plan::Direction;
use mooncake::transport::ascend::{Ascend, Runtime};
use mooncake_test_support::{artifacts, wait_until};

/// One line to the software NPU of this process, and its answer.
fn ask(line: &str) -> String {
    let namespace = std::env::var("CANN_SIM_NAMESPACE").unwrap();
    let name = format!("cann-sim-fault/{namespace}/{}", std::process::id());
    let mut socket = UnixStream::connect_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap();
    socket.write_all(line.as_bytes()).unwrap();
    socket.write_all(b"\n").unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

fn faults(rules: &str) {
    let line = if rules.is_empty() { "clear".to_owned() } else { format!("set {rules}") };
    assert_eq!(ask(&line).trim(), "ok", "{line}");
}

/// Settings of an engine whose link is RoCE, also inside a server.
fn roce() -> Config {
    let path = std::env::temp_dir().join(format!("hccn-{}.conf", std::process::id()));
    let text: String = (0..8).map(|device| format!("address_{device}=29.1.0.{}\n", device + 10)).collect();
    std::fs::write(&path, text).unwrap();
    Config { intra_roce: true, hccn_conf: path, drain_grace: Duration::from_secs(1), ..Config::default() }
}

#[test]
fn late_bytes_do_not_reach_memory_that_was_given_back() {
    if !inside("late_bytes_do_not_reach_memory_that_was_given_back", &[("HCCL_INTRA_ROCE_ENABLE", "1")]) {
        return;
    }
    let config = roce();
    let (a, b) = (node_with(0, &config, false), node_with(1, &config, false));
    let (near, far) = (a.buffer(2 * MIB), b.buffer(2 * MIB));
    a.must_transfer(&b, Direction::Write, &[(near, far, MIB)]);
    assert_eq!(a.ascend.channels()[0].link, "RoCE");
    faults("transfer=late:1500@1");
    let (batch, submitted) =
        a.start(&b, Direction::Write, &[(near, far, MIB)], Deadline::after(Duration::from_millis(200)));
    submitted.unwrap();
    let (outcome, error) = finished(&batch);
    assert_eq!((outcome.failed, error.unwrap().code()), (1, Code::Timeout));
    let mine = pattern(1, MIB);
    store(1, far, &mine);
    // Well past the moment when the bytes were to land.
    let end = Instant::now() + Duration::from_secs(2);
    assert!(wait_until(Duration::from_secs(10), || Instant::now() > end));
    assert!(load(1, far, MIB) == mine, "bytes came after the transfer was over");
    a.must_transfer(&b, Direction::Write, &[(near, far, MIB)]);
}

#[test]
fn what_cannot_be_stopped_is_reported_and_stays_waiting() {
    if !inside("what_cannot_be_stopped_is_reported_and_stays_waiting", &[]) {
        return;
    }
    let config = Config { drain_grace: Duration::from_millis(300), ..Config::default() };
    let (a, b) = (node_with(0, &config, false), node_with(1, &config, false));
    let (near, far) = (a.buffer(2 * MIB), b.buffer(2 * MIB));
    a.must_transfer(&b, Direction::Write, &[(near, far, 10)]);
    faults("transfer=stuck:3000@1");
    let begun = Instant::now();
    let (batch, submitted) =
        a.start(&b, Direction::Write, &[(near, far, MIB)], Deadline::after(Duration::from_millis(200)));
    submitted.unwrap();
    match batch.wait(Deadline::after(LONG)) {
        Waited::Stuck(error) => assert_eq!(error.code(), Code::StillRunning, "{error}"),
        other => panic!("{other:?}"),
    }
    assert!(begun.elapsed() < Duration::from_millis(2500), "{:?}", begun.elapsed());
    assert!(!batch.is_finished());
    // The device becomes quiet in the end, and then the task is over.
    assert!(wait_until(LONG, || batch.is_finished()));
    assert!(begun.elapsed() >= Duration::from_millis(2500), "{:?}", begun.elapsed());
    a.must_transfer(&b, Direction::Write, &[(near, far, 10)]);
}

#[test]
fn a_delayed_transfer_is_aborted_before_it_moves_a_byte() {
    if !inside("a_delayed_transfer_is_aborted_before_it_moves_a_byte", &[]) {
        return;
    }
    let (a, b) = (node(0), node(1));
    let (near, far) = (a.buffer(2 * MIB), b.buffer(2 * MIB));
    let before = pattern(2, MIB);
    store(1, far, &before);
    a.must_transfer(&b, Direction::Read, &[(near + MIB, far, 10)]);
    faults("transfer=delay:20000@1");
    let begun = Instant::now();
    let (late, submitted) =
        a.start(&b, Direction::Write, &[(near, far, MIB)], Deadline::after(Duration::from_millis(200)));
    submitted.unwrap();
    // On the same channel, behind it, with all the time it wants.
    let (patient, submitted) = a.start(&b, Direction::Read, &[(near, far, MIB)], soon());
    submitted.unwrap();
    assert_eq!(finished(&late).1.unwrap().code(), Code::Timeout);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(finished(&patient).0.is_success(), "{:?}", patient.first_error());
    assert!(load(1, far, MIB) == before && load(0, near, MIB) == before);
}

#[test]
fn a_call_that_takes_longer_than_its_limit_fails_before_the_deadline() {
    if !inside("a_call_that_takes_longer_than_its_limit_fails_before_the_deadline", &[]) {
        return;
    }
    let limited = Config { ascend_transfer_timeout: Duration::from_millis(300), ..Config::default() };
    let (a, b) = (node_with(0, &limited, false), node(1));
    let (near, far) = (a.buffer(2 * MIB), b.buffer(2 * MIB));
    a.must_transfer(&b, Direction::Write, &[(near, far, MIB)]);
    faults("transfer=delay:60000@1");
    let begun = Instant::now();
    let (outcome, error) = a.transfer(&b, Direction::Write, &[(near, far, MIB)]);
    let error = error.unwrap();
    assert_eq!((outcome.failed, error.code()), (1, Code::Timeout), "{error}");
    assert!(error.to_string().contains("ASCEND_TRANSFER_TIMEOUT"), "{error}");
    assert!(begun.elapsed() < ascend_pair::LONG, "{:?}", begun.elapsed());
    faults("");
    a.must_transfer(&b, Direction::Write, &[(near, far, MIB)]);
}

#[test]
fn a_refused_call_fails_its_request_with_the_vendors_words() {
    if !inside("a_refused_call_fails_its_request_with_the_vendors_words", &[]) {
        return;
    }
    let (a, b) = (node(0), node(1));
    let (near, far) = (a.buffer(2 * MIB), b.buffer(2 * MIB));
    let blocks: Vec<_> = (0..400).map(|index| (near + index * 4096, far + index * 4096, 4096)).collect();
    a.must_transfer(&b, Direction::Write, &blocks);
    faults("HcclBatchPut=fail:15@2");
    let (outcome, error) = a.transfer(&b, Direction::Write, &blocks);
    assert_eq!(outcome.failed, 400 - 256, "the first call was sound");
    let error = error.unwrap();
    let vendor = error.record().vendor.clone().unwrap();
    assert_eq!((vendor.function, vendor.code), ("HcclBatchPut", 15), "{error}");
    assert!(!vendor.text.is_empty() && vendor.plog.is_some(), "{error}");
    assert_eq!(error.record().peer.as_deref(), Some("node-1:1"));
    a.must_transfer(&b, Direction::Write, &blocks);
}

#[test]
fn a_failed_stream_costs_its_channel_only() {
    if !inside("a_failed_stream_costs_its_channel_only", &[]) {
        return;
    }
    let (a, b, c) = (node(0), node(1), node(2));
    let (near, far, other) = (a.buffer(2 * MIB), b.buffer(2 * MIB), c.buffer(2 * MIB));
    a.must_transfer(&b, Direction::Write, &[(near, far, 10)]);
    a.must_transfer(&c, Direction::Write, &[(near, other, 10)]);
    let kept = a.ascend.channels().iter().find(|channel| channel.remote_device == 2).unwrap().name.clone();
    faults("transfer=fail:507057@1");
    let (outcome, error) = a.transfer(&b, Direction::Write, &[(near, far, 4096), (near + 8192, far, 4096)]);
    assert_eq!(outcome.failed, 2);
    let error = error.unwrap();
    assert_eq!(error.code(), Code::Endpoint, "{error}");
    assert!(error.to_string().contains("507057") && error.record().advice.is_some(), "{error}");
    a.must_transfer(&c, Direction::Write, &[(near, other, 10)]);
    assert!(a.ascend.channels().iter().any(|channel| channel.name == kept));
    a.must_transfer(&b, Direction::Write, &[(near, far, 4096)]);
}

#[test]
fn an_init_that_is_unavailable_is_tried_again() {
    if !inside("an_init_that_is_unavailable_is_tried_again", &[]) {
        return;
    }
    let (a, b) = (node(0), node(1));
    let (near, far) = (a.buffer(2 * MIB), b.buffer(2 * MIB));
    faults("HcclCommInitClusterInfoMemConfig=fail:7@1;HcclCommInitClusterInfoMemConfig=fail:7@3");
    a.must_transfer(&b, Direction::Write, &[(near, far, 10)]);
}

#[test]
fn a_taken_port_is_given_up_for_another() {
    if !inside("a_taken_port_is_given_up_for_another", &[]) {
        return;
    }
    // The side that did not fail stays in the vendor's call for this long, and keeps its memory bound.
    let config = Config { ascend_connect_timeout: Duration::from_secs(3), ..Config::default() };
    let (a, b) = (node_with(0, &config, false), node_with(1, &config, false));
    let (near, far) = (a.buffer(2 * MIB), b.buffer(2 * MIB));
    for _ in 0..3 {
        faults("HcclCommPrepare=fail:19@1");
        let begun = Instant::now();
        a.must_transfer(&b, Direction::Write, &[(near, far, 10)]);
        assert!(
            begun.elapsed() < Duration::from_millis(2500),
            "waited for the other side: {:?}",
            begun.elapsed()
        );
        faults("");
        a.unregister(near, 2 * MIB).unwrap();
        a.register(near, 2 * MIB);
    }
}

#[test]
fn a_prepare_that_fails_names_the_cause() {
    if !inside("a_prepare_that_fails_names_the_cause", &[]) {
        return;
    }
    let (a, b) = (node(0), node(1));
    let (near, far) = (a.buffer(2 * MIB), b.buffer(2 * MIB));
    faults("HcclCommPrepare=fail:9");
    let (_, error) = a.transfer(&b, Direction::Write, &[(near, far, 10)]);
    let text = error.unwrap().to_string();
    assert!(text.contains("HcclCommPrepare") && text.contains("HCCL_INTRA_ROCE_ENABLE"), "{text}");
    faults("");
    a.must_transfer(&b, Direction::Write, &[(near, far, 10)]);
}

#[test]
fn a_call_that_hangs_delays_its_channel_only() {
    if !inside("a_call_that_hangs_delays_its_channel_only", &[]) {
        return;
    }
    let config = Config { drain_grace: Duration::from_millis(300), ..Config::default() };
    let (a, b, c) = (node_with(0, &config, false), node(1), node(2));
    let (near, far, other) = (a.buffer(2 * MIB), b.buffer(2 * MIB), c.buffer(2 * MIB));
    a.must_transfer(&b, Direction::Write, &[(near, far, 10)]);
    a.must_transfer(&c, Direction::Write, &[(near, other, 10)]);
    faults("HcclBatchPut=delay:3000@1");
    let begun = Instant::now();
    let (hung, submitted) =
        a.start(&b, Direction::Write, &[(near, far, 10)], Deadline::after(Duration::from_millis(300)));
    submitted.unwrap();
    let (behind, submitted) =
        a.start(&b, Direction::Write, &[(near, far, 10)], Deadline::after(Duration::from_millis(300)));
    submitted.unwrap();
    for _ in 0..100 {
        a.must_transfer(&c, Direction::Read, &[(near, other, 4096)]);
    }
    // What has not begun is over at its deadline although the worker hangs.
    assert_eq!(finished(&behind).1.unwrap().code(), Code::Timeout);
    assert!(begun.elapsed() < Duration::from_millis(2500), "{:?}", begun.elapsed());
    // The one in the call is told of as stuck, and over when the call returns.
    match hung.wait(soon()) {
        Waited::Stuck(error) => assert_eq!(error.code(), Code::StillRunning, "{error}"),
        other => panic!("{other:?}"),
    }
    assert!(begun.elapsed() < Duration::from_millis(2900), "{:?}", begun.elapsed());
    assert!(wait_until(LONG, || hung.is_finished()));
}

/// What waits is handed over together, so that one request is launched while another one's bytes are on their way.
#[test]
fn requests_that_wait_are_launched_one_behind_another() {
    if !inside("requests_that_wait_are_launched_one_behind_another", &[]) {
        return;
    }
    let (a, b) = (node(0), node(1));
    let (near, far) = (a.buffer(2 * MIB), b.buffer(2 * MIB));
    a.must_transfer(&b, Direction::Write, &[(near, far, 10)]);
    // The other two come while the first is being launched.
    faults("HcclBatchPut=delay:3000@1");
    assert_eq!(ask("reset").trim(), "ok");
    let batches: Vec<_> = (0..3)
        .map(|_| {
            let (batch, submitted) = a.start(&b, Direction::Write, &[(near, far, 10)], soon());
            submitted.unwrap();
            batch
        })
        .collect();
    for batch in batches {
        assert!(finished(&batch).0.is_success(), "{:?}", batch.first_error());
    }
    let log = ask("log");
    let calls: Vec<&str> = log.split(';').filter_map(|call| call.split([' ', '/']).nth(1)).collect();
    let puts: Vec<usize> = (0..calls.len()).filter(|call| calls[*call] == "HcclBatchPut").collect();
    assert_eq!(puts.len(), 3, "{log}");
    assert!(
        !calls[..puts[2]].contains(&"aclrtSynchronizeEventWithTimeout"),
        "a wait between launches: {log}"
    );
}

#[test]
fn no_call_goes_to_a_device_nobody_named() {
    if !inside("no_call_goes_to_a_device_nobody_named", &[]) {
        return;
    }
    let (a, b) = (node(4), node(5));
    let (near, far) = (a.buffer(4 * MIB), b.buffer(4 * MIB));
    std::thread::scope(|scope| {
        for index in 0..8 {
            let (a, b) = (&a, &b);
            scope.spawn(move || {
                let (near, far) = (near + index * 4096, far + index * 4096);
                a.must_transfer(b, Direction::Write, &[(near, far, 4096)]);
                b.must_transfer(a, Direction::Write, &[(far, near, 4096)]);
            });
        }
    });
    let calls = ask("calls");
    assert!(calls.contains("HcclBatchPut/4") && calls.contains("HcclBatchPut/5"), "{calls}");
    for call in calls.trim().split(';') {
        let (name, _) = call.rsplit_once(' ').unwrap();
        let (_, device) = name.rsplit_once('/').unwrap();
        assert!(["4", "5", "-"].contains(&device), "{call}");
    }
}

#[test]
fn host_memory_and_small_pages_go_over_roce() {
    if !inside("host_memory_and_small_pages_go_over_roce", &[("HCCL_INTRA_ROCE_ENABLE", "1")]) {
        return;
    }
    let config = roce();
    let (a, b) = (node_with(0, &config, false), node_with(1, &config, false));
    let far = b.buffer(2 * MIB);
    let small = allocate(0, 8192);
    a.register(small + 100, 5000);
    let host = pattern(3, 3 * MIB);
    let near = host.as_ptr().expose_provenance() as u64;
    let range = ByteRange::new(near, 3 * MIB).unwrap();
    assert!(a.ascend.register(range, MemoryKind::Host, 0).unwrap());
    a.must_transfer(&b, Direction::Write, &[(near + 5, far + 7, MIB)]);
    assert!(load(1, far + 7, MIB) == host[5..MIB as usize + 5]);
    a.must_transfer(&b, Direction::Read, &[(small + 100, far + 7, 5000)]);
    assert!(load(0, small + 100, 5000) == host[5..5005]);
    a.unregister(near, 3 * MIB).unwrap();
    a.unregister(small + 100, 5000).unwrap();
}

#[test]
fn a_release_without_one_sided_calls_is_named_with_what_it_lacks() {
    let hidden = "HcclRegisterGlobalMem,HcclExchangeMemDesc,HcclEnableMemAccess";
    if !inside("a_release_without_one_sided_calls_is_named_with_what_it_lacks", &[("CANN_SIM_HIDE", hidden)])
    {
        return;
    }
    let runtime: Arc<Runtime> = Runtime::load(&LoadOptions::only(artifacts::software_npu())).unwrap();
    let error = Ascend::start(runtime, &Config::default(), Incarnation::new(None).unwrap()).err().unwrap();
    assert_eq!(error.code(), Code::LibraryUnavailable, "{error}");
    let text = error.to_string();
    assert!(text.contains("HcclRegisterGlobalMem") && text.contains("CANN 8."), "{text}");
}

#[test]
fn a_super_pod_connects_over_hccs() {
    if !inside("a_super_pod_connects_over_hccs", &[("CANN_SIM_SOC", "Ascend910_9392")]) {
        return;
    }
    let (a, b) = (node(0), node(1));
    let (near, far) = (a.buffer(2 * MIB), b.buffer(2 * MIB));
    let bytes = pattern(4, MIB);
    store(0, near, &bytes);
    a.must_transfer(&b, Direction::Write, &[(near, far, MIB)]);
    assert!(load(1, far, MIB) == bytes);
    assert_eq!(a.ascend.channels()[0].link, "HCCS");
}
