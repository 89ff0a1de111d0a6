//! Every release of CANN from 8.1 on moves bytes between NPUs, also when the two sides have different ones.
//!
//! Releases before 8.3 have the older family of one-sided calls alone; later ones have both.
//! Tried by taking the mechanism out: with the family not agreed on, the mixed pairs do not connect.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

mod ascend_pair;
mod promise;

use ascend_pair::{MIB, allocate, free, inside, load, node, node_with, pattern, store};
use mooncake::config::Config;
use mooncake::memory::{ByteRange, MemoryKind};
use mooncake::plan::Direction;
use mooncake_test_support::SoftwareNpu;
use promise::{PAGE, Peer, moving};

/// Which family a release's transfers are to use.
const EXCHANGE: &str = "HcclExchangeMemDesc";
const PREPARE: &str = "HcclCommPrepare";

fn npu(release: &str) -> SoftwareNpu {
    promise::software_npu(2).variable("CANN_SIM_RELEASE", release)
}

/// Write, read, memory that comes later, memory that goes, a peer that is killed and comes back.
fn works_between(a_release: &str, b_release: &str, meeting: &str) {
    let npu = promise::software_npu(2);
    let start = |device, release| Peer::start_with(&npu, Some(device), &[("CANN_SIM_RELEASE", release)]);
    let (mut a, mut b) = (start(0, a_release), start(1, b_release));
    let (near, far) = (a.buffer(0, 4 * PAGE, 1), b.buffer(1, 4 * PAGE, 2));
    let name = b.name();
    // 512 blocks: more than one call takes.
    a.must(&format!("transfer {}", moving("write", near, &name, far, 4 * PAGE, 16384, 0)));
    assert!(b.holds(far, 4 * PAGE, 1));
    b.fill(far, 4 * PAGE, 3);
    a.must(&format!("transfer {}", moving("read", near, &name, far, 4 * PAGE, 16384, 0)));
    assert!(a.holds(near, 4 * PAGE, 3));
    for peer in [&a, &b] {
        assert!(peer.count(meeting) > 0, "{meeting} was not called");
        let other = if meeting == PREPARE { EXCHANGE } else { PREPARE };
        assert_eq!(peer.count(other), 0, "{other} was called");
    }

    // Memory of both sides that the channel does not know yet.
    let (near_later, far_later) = (a.buffer(0, PAGE, 4), b.buffer(1, PAGE, 5));
    a.must(&format!("transfer {}", moving("write", near_later, &name, far_later, PAGE, 65536, 0)));
    assert!(b.holds(far_later, PAGE, 4));

    // What is taken back is out of reach, and what stays is not.
    b.must(&format!("unregister {far_later}"));
    let failure =
        a.must_fail(&format!("transfer {}", moving("read", near_later, &name, far_later, 4096, 4096, 0)));
    assert_eq!(failure.code(), "address-not-registered", "{failure:?}");
    a.must(&format!("transfer {}", moving("read", near, &name, far, 4 * PAGE, PAGE, 0)));
    a.must(&format!("unregister {near_later}"));
    a.must(&format!("transfer {}", moving("write", near, &name, far, PAGE, PAGE, 0)));

    // Another process in the place of the killed one.
    b.child.kill();
    let mut b = start(1, b_release);
    let far = b.buffer(1, PAGE, 6);
    let name = b.name();
    a.must(&format!("transfer {}", moving("read", near, &name, far, PAGE, 65536, 0)));
    assert!(a.holds(near, PAGE, 6));
    a.quit();
    b.quit();
}

#[test]
fn release_8_1() {
    works_between("8.1", "8.1", EXCHANGE);
}

#[test]
fn release_8_2() {
    works_between("8.2", "8.2", EXCHANGE);
}

#[test]
fn release_8_3() {
    works_between("8.3", "8.3", PREPARE);
}

#[test]
fn release_8_5() {
    works_between("8.5", "8.5", PREPARE);
}

#[test]
fn release_9_0() {
    works_between("9.0", "9.0", PREPARE);
}

#[test]
fn release_9_1() {
    works_between("9.1", "9.1", PREPARE);
}

#[test]
fn release_9_2() {
    works_between("9.2", "9.2", PREPARE);
}

#[test]
fn an_older_and_a_newer_release_take_the_older_calls() {
    works_between("8.2", "9.1", EXCHANGE);
    works_between("8.5", "8.2", EXCHANGE);
}

/// Faults of the older calls are failures with the vendor's words, and the next transfer works.
#[test]
fn a_refused_exchange_fails_the_transfer_and_the_next_one_works() {
    let npu = npu("8.2");
    let (mut a, mut b) = (Peer::start(&npu, Some(0)), Peer::start(&npu, Some(1)));
    let (far, name) = (b.buffer(1, PAGE, 2), b.name());
    for (function, code) in [("HcclRegisterMem", 3), (EXCHANGE, 13), ("HcclEnableMemAccess", 4)] {
        // Memory that no channel has yet.
        let near = a.buffer(0, PAGE, 1);
        let words = moving("read", near, &name, far, PAGE, 65536, 0);
        a.fault(&format!("set {function}=fail:{code}@1"));
        let failure = a.must_fail(&format!("transfer {words}"));
        let text = failure.0.to_string();
        assert!(text.contains(function), "{text}");
        a.fault("clear");
        let start = std::time::Instant::now();
        while let Err(failure) = a.ask(&format!("transfer {words}")) {
            assert!(start.elapsed() < promise::LIMIT, "never again: {failure:?}");
            // The back-off of the peer's state, not of the test.
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert!(a.holds(near, PAGE, 2));
    }
    a.quit();
    b.quit();
}

/// Nothing of a device is left behind by channels that came and went.
#[test]
fn channels_of_the_older_family_give_everything_back() {
    if !inside("channels_of_the_older_family_give_everything_back", &[("CANN_SIM_RELEASE", "8.2")]) {
        return;
    }
    let a = node(0);
    let near = a.buffer(2 * MIB);
    let mut free_bytes = Vec::new();
    for round in 0..4_u64 {
        let b = node(1);
        let far = b.buffer(2 * MIB);
        store(0, near, &pattern(round, MIB));
        a.must_transfer(&b, Direction::Write, &[(near, far, MIB)]);
        assert!(load(1, far, MIB) == pattern(round, MIB));
        b.release(far, 2 * MIB);
        b.ascend.shutdown(ascend_pair::soon()).unwrap();
        b.control.shutdown();
        drop(b);
        let gone = || a.ascend.channels().is_empty();
        assert!(mooncake_test_support::wait_until(ascend_pair::LONG, gone), "the channel to go");
        // As much as fits, so that what a channel keeps shows.
        free_bytes.push(largest(1));
    }
    assert!(free_bytes.windows(2).all(|pair| pair[0] == pair[1]), "{free_bytes:?}");
}

/// The longest piece of memory, in MiB, that a device still gives.
fn largest(device: i32) -> u64 {
    let fits = |mib: u64| {
        ascend_pair::on_device(device, |runtime| match runtime.allocate_device(mib * MIB) {
            Ok(address) => {
                runtime.free_device(address).unwrap();
                true
            }
            Err(_) => false,
        })
    };
    let (mut low, mut high) = (0, 1 << 20);
    while low + 1 < high {
        let middle = (low + high) / 2;
        if fits(middle) { low = middle } else { high = middle }
    }
    low
}

#[test]
fn host_memory_goes_over_roce_with_the_older_family() {
    let settings = [("CANN_SIM_RELEASE", "8.2"), ("HCCL_INTRA_ROCE_ENABLE", "1")];
    if !inside("host_memory_goes_over_roce_with_the_older_family", &settings) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hccn.conf");
    std::fs::write(&path, "address_0=29.1.0.10\naddress_1=29.1.0.11\n").unwrap();
    let config = Config { intra_roce: true, hccn_conf: path, ..Config::default() };
    let (a, b) = (node_with(0, &config, false), node_with(1, &config, false));
    let far = b.buffer(2 * MIB);
    let host = pattern(3, 3 * MIB);
    let near = ascend_pair::address_of(&host);
    let range = ByteRange::new(near, 3 * MIB).unwrap();
    assert!(a.ascend.register(range, MemoryKind::Host, 0).unwrap());
    a.must_transfer(&b, Direction::Write, &[(near + 5, far + 7, MIB)]);
    assert!(load(1, far + 7, MIB) == host[5..MIB as usize + 5]);
    // Device memory in pieces that HCCS would not take.
    let small = allocate(0, MIB);
    a.register(small + 100, 5000);
    a.must_transfer(&b, Direction::Read, &[(small + 100, far + 7, 5000)]);
    assert!(load(0, small + 100, 5000) == host[5..5005]);
    a.unregister(near, 3 * MIB).unwrap();
    a.unregister(small + 100, 5000).unwrap();
    free(0, small);
}

/// Host memory over HCCS goes through slots; copies with the host are batched where the release can.
fn host_memory_by_slots(release: &str, is_batched: bool) {
    let (a, b) = host_memory_by_slots_of(&npu(release), None);
    assert_eq!(a.count("aclrtMemcpyBatch") > 0, is_batched);
    a.quit();
    b.quit();
}

fn host_memory_by_slots_of(npu: &SoftwareNpu, fault: Option<&str>) -> (Peer, Peer) {
    // Else host memory of one machine would go by its own short way.
    let apart = [("MOONCAKE_TRANSFER_SAME_HOST", "0")];
    let start = |device| Peer::start_with(npu, Some(device), &apart);
    let (mut a, mut b) = (start(0), start(1));
    if let Some(fault) = fault {
        a.fault(fault);
    }
    let far = b.buffer(1, PAGE, 2);
    a.must("install ascend");
    let near: u64 = a.must(&format!("host {PAGE}")).parse().unwrap();
    a.must(&format!("fill {near} {PAGE} 1"));
    a.must(&format!("register {near} {PAGE} cpu:0"));
    a.must(&format!("transfer {}", moving("write", near, &b.name(), far, PAGE, 8192, 0)));
    assert!(b.holds(far, PAGE, 1));
    b.fill(far, PAGE, 3);
    a.must(&format!("transfer {}", moving("read", near, &b.name(), far, PAGE, 8192, 0)));
    assert!(a.holds(near, PAGE, 3));
    (a, b)
}

#[test]
fn copies_with_the_host_are_batched_where_the_release_can() {
    host_memory_by_slots("8.1", false);
    host_memory_by_slots("8.2", true);
    host_memory_by_slots("9.2", true);
}

/// A release says what ought to be there; what is asked is what is there.
#[test]
fn functions_that_a_newer_release_lacks_are_done_without() {
    let lacks =
        ["aclrtMemcpyBatch", "aclrtMemcpyBatchAsync", "aclrtGetPhyDevIdByLogicDevId", "aclrtGetDeviceInfo"];
    let npu = npu("9.1").variable("CANN_SIM_HIDE", &lacks.join(","));
    let (a, b) = host_memory_by_slots_of(&npu, None);
    for function in lacks {
        assert_eq!(a.count(function), 0, "{function}");
    }
    assert!(a.count("rtGetDevicePhyIdByIndex") > 0 && a.count("aclrtMemcpyAsync") > 0);
    a.quit();
    b.quit();
}

/// Virtual machines and old drivers have the function and refuse the call.
#[test]
fn a_driver_that_refuses_batched_copies_gets_one_copy_after_another() {
    let (a, b) = host_memory_by_slots_of(&npu("9.1"), Some("set aclrtMemcpyBatch=fail:207000"));
    assert!(a.count("aclrtMemcpyBatch") > 0 && a.count("aclrtMemcpyAsync") > 0);
    a.quit();
    b.quit();
}

/// Before 8.5 only the inner runtime tells the place of a device in a super pod.
#[test]
fn a_super_pod_of_an_older_release_connects_over_hccs() {
    let settings = [("CANN_SIM_RELEASE", "8.2"), ("CANN_SIM_SOC", "Ascend910_9392")];
    if !inside("a_super_pod_of_an_older_release_connects_over_hccs", &settings) {
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
