//! Promise 5: any thread may call; the device is explicit and the caller's binding is restored.
//!
//! Tried by taking the mechanism out: with `Ascend::attach(0)` added to `Shared::open_npu`, or with `device_for_caller`
//! answering 0, the first test finds calls on device 0; with a registration run on the caller's thread, bound to the
//! device and not restored, the second test fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

mod promise;

use mooncake_test_support::loopback;
use promise::{PAGE, Peer, moving, software_npu};

#[test]
fn eight_threads_on_eight_devices_never_touch_device_0() {
    let npu = software_npu(10);
    let mut crowd = Peer::start(&npu, Some(1));
    let mut target = Peer::start(&npu, Some(9));
    let remote = target.buffer(9, 8 * PAGE, 0);
    let name = target.name();
    crowd.must(&format!("crowd 1 8 {name} {remote} {PAGE}"));
    for place in 0..8 {
        assert!(target.holds(remote + place * PAGE, PAGE, place + 1), "the part of device {}", place + 1);
    }
    let calls = crowd.fault("calls");
    let on_device =
        |device: u32| calls.split(';').filter(|call| call.contains(&format!("/{device} "))).count();
    for device in 1..=8 {
        assert!(on_device(device) > 10, "device {device} was not used: {calls}");
    }
    assert_eq!(on_device(0), 0, "device 0 was used: {calls}");
    assert_eq!(on_device(9), 0, "the peer's device was used: {calls}");
    crowd.quit();
    target.quit();
}

#[test]
fn a_thread_without_a_device_may_call_and_stays_without_one() {
    let npu = software_npu(3);
    let (mut a, mut b) = (Peer::start(&npu, Some(1)), Peer::start(&npu, Some(2)));
    let (near, far) = (a.buffer(1, PAGE, 1), b.buffer(2, PAGE, 2));
    let name = b.name();
    let fresh = a.must(&format!("alloc 1 {PAGE}"));
    let commands = [
        format!("open {name}"),
        format!("transfer {}", moving("read", near, &name, far, PAGE, 4096, 0)),
        format!("register {fresh} {PAGE} *"),
        format!("unregister {fresh}"),
    ];
    for command in &commands {
        // `&` is a thread of its own.
        let pending = a.begin(&format!("& bound {command}"));
        let answer = a.finish(pending).unwrap_or_else(|failure| panic!("{command}: {failure:?}"));
        assert!(answer.starts_with("None None"), "{command} left the thread with {answer}");
    }
    for command in &commands {
        // The main thread has device 1.
        let answer = a.must(&format!("bound {command}"));
        assert!(answer.starts_with("Some(1) Some(1)"), "{command} left the thread with {answer}");
    }
    assert!(a.holds(near, PAGE, 2));
    a.quit();
    b.quit();
}

/// The local name for a physical device.
fn named(device: u32) -> String {
    format!("{}:0:npu_{device}", loopback::bracketed())
}

#[test]
fn a_name_is_physical_and_a_disagreement_names_both() {
    let npu = software_npu(2).variable("CANN_SIM_PHYSICAL_IDS", "4,6");
    let mut right = Peer::try_start_as(&named(6), &npu, Some(1), &[]).unwrap();
    right.must("install ascend");
    right.quit();
    let mut wrong = Peer::try_start_as(&named(4), &npu, Some(1), &[]).unwrap();
    let failure = wrong.must_fail("install ascend");
    assert_eq!(failure.code(), "invalid-argument", "{failure:?}");
    let message = failure.text("message");
    assert!(
        message.contains("NPU 4") && message.contains("device 1") && message.contains("NPU 6"),
        "{message}"
    );
    wrong.quit();
    // No device is bound: the name finds it.
    let mut found = Peer::try_start_as(&named(6), &npu, None, &[]).unwrap();
    found.must("install ascend");
    found.quit();
    let mut absent = Peer::try_start_as(&named(1), &npu, None, &[]).unwrap();
    let failure = absent.must_fail("install ascend");
    assert_eq!(failure.code(), "device-not-found", "{failure:?}");
    absent.quit();
}
