//! Promise 3: every failure names stage, peer, device, vendor code and text, and what to do.
//!
//! Each scripted fault of the software NPU is met by a transfer or a registration, and the record is looked at
//! field by field. Tried by taking the mechanism out: with an empty text in `Runtime::failure`, without its advice, or
//! without the peer and device that `Request::described` adds, the first three tests fail; without the `Reporter` of
//! the channels the last one does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

mod promise;

use promise::{Failure, PAGE, Peer, moving, software_npu};

struct Case {
    /// The scripted fault.
    fault: &'static str,
    function: &'static str,
    code: i64,
    stage: &'static str,
}

/// Looks at everything that a failure of a vendor's call has to tell.
fn check(case: &Case, failure: &Failure, peer: Option<&str>) {
    let what = format!("{}: {failure:?}", case.fault);
    assert_eq!(failure.stage(), case.stage, "{what}");
    assert_eq!(failure.0["device"].as_i64(), Some(0), "{what}");
    assert_eq!(failure.0["peer"].as_str(), peer, "{what}");
    assert_eq!(failure.text("vendor_function"), case.function, "{what}");
    assert_eq!(failure.0["vendor_code"].as_i64(), Some(case.code), "{what}");
    assert!(
        failure.text("vendor_text").contains("a scripted fault"),
        "the vendor's own words are missing; {what}"
    );
    assert!(failure.text("vendor_log").contains("plog"), "{what}");
    assert!(failure.text("message").contains(case.function), "{what}");
    let advice = failure.text("advice");
    assert!(!advice.is_empty() && !advice.contains('\n'), "one line of advice; {what}");
}

#[test]
fn a_registration_that_the_vendor_refuses() {
    let npu = software_npu(2);
    let mut a = Peer::start(&npu, Some(0));
    a.must("install ascend");
    let address = a.must(&format!("alloc 0 {PAGE}"));
    for (fault, code) in [("HcclRegisterGlobalMem=fail:3@1", 3), ("HcclRegisterGlobalMem=fail:15@1", 15)] {
        a.fault(&format!("set {fault}"));
        let failure = a.must_fail(&format!("register {address} {PAGE} npu:0"));
        let case = Case { fault, function: "HcclRegisterGlobalMem", code, stage: "register" };
        check(&case, &failure, None);
        assert_eq!(failure.0["range"][0].as_u64(), address.parse().ok(), "{failure:?}");
        assert_eq!(failure.0["range"][1].as_u64(), Some(PAGE), "{failure:?}");
    }
    // Nothing was left behind.
    a.fault("clear");
    a.must(&format!("register {address} {PAGE} npu:0"));
    a.quit();
}

#[test]
fn a_channel_that_cannot_be_made() {
    // A peer that waits for a partner who does not come gives up after this.
    let npu = software_npu(2).variable("ASCEND_CONNECT_TIMEOUT", "1000");
    let (mut a, mut b) = (Peer::start(&npu, Some(0)), Peer::start(&npu, Some(1)));
    let (near, far) = (a.buffer(0, PAGE, 1), b.buffer(1, PAGE, 2));
    let name = b.name();
    let words = moving("write", near, &name, far, 4096, 4096, 0);
    let cases = [
        ("aclrtCreateContext=fail:207001", "aclrtCreateContext", 207_001),
        ("aclrtCreateStreamWithConfig=fail:207008", "aclrtCreateStreamWithConfig", 207_008),
        ("HcclCommInitClusterInfoMemConfig=fail:1", "HcclCommInitClusterInfoMemConfig", 1),
        ("HcclCommBindMem=fail:4", "HcclCommBindMem", 4),
        ("HcclCommPrepare=fail:9", "HcclCommPrepare", 9),
    ];
    for (fault, function, code) in cases {
        a.fault(&format!("set {fault}"));
        let failure = a.must_fail(&format!("transfer {words}"));
        check(&Case { fault, function, code, stage: "connect" }, &failure, Some(&name));
        a.fault("clear");
        // One failed channel is one failed channel.
        a.must(&format!("transfer {words}"));
        // The next case makes a new one, since the memory has changed.
        a.buffer(0, PAGE, 1);
        b.must(&format!("unregister {far}"));
        b.must(&format!("register {far} {PAGE} npu:1"));
    }
    a.quit();
    b.quit();
}

#[test]
fn a_transfer_that_the_vendor_refuses_or_breaks() {
    let npu = software_npu(2);
    let (mut a, mut b) = (Peer::start(&npu, Some(0)), Peer::start(&npu, Some(1)));
    let (near, far) = (a.buffer(0, PAGE, 1), b.buffer(1, PAGE, 2));
    let name = b.name();
    let cases = [
        ("HcclBatchPut=fail:4@1", "write", "HcclBatchPut", 4),
        ("HcclBatchGet=fail:15@1", "read", "HcclBatchGet", 15),
        ("aclrtRecordEvent=fail:107003@1", "write", "aclrtRecordEvent", 107_003),
    ];
    for (fault, direction, function, code) in cases {
        let words = moving(direction, near, &name, far, PAGE, 65536, 0);
        a.must(&format!("transfer {words}"));
        a.fault(&format!("set {fault}"));
        let failure = a.must_fail(&format!("transfer {words}"));
        check(&Case { fault, function, code, stage: "submit" }, &failure, Some(&name));
        a.fault("clear");
        a.must(&format!("transfer {words}"));
    }
    // A task on the device that fails is told by the call that waits for it.
    for fault in ["transfer=fail:507057@1", "transfer=fail:507013@1", "link=down"] {
        let words = moving("write", near, &name, far, PAGE, 65536, 0);
        a.must(&format!("transfer {words}"));
        a.fault(&format!("set {fault}"));
        let failure = a.must_fail(&format!("transfer {words}"));
        let code = [507_013, 507_056].into_iter().find(|code| fault.contains(&code.to_string()));
        let code = code.unwrap_or(if fault == "link=down" { 507_056 } else { 507_057 });
        assert_eq!(failure.0["vendor_code"].as_i64(), Some(code), "{fault}: {failure:?}");
        assert_eq!(failure.stage(), "execute", "{fault}: {failure:?}");
        assert_eq!(failure.text("peer"), name, "{fault}: {failure:?}");
        assert_eq!(failure.0["device"].as_i64(), Some(0), "{fault}: {failure:?}");
        assert!(!failure.text("vendor_text").is_empty(), "{fault}: {failure:?}");
        assert!(!failure.text("advice").is_empty(), "{fault}: {failure:?}");
        a.fault("clear");
        a.must(&format!("transfer {words}"));
    }
    a.quit();
    b.quit();
}

#[test]
fn a_failure_is_logged_once_and_success_only_after_success() {
    let npu = software_npu(2);
    let loud = [("MC_LOG_LEVEL", "INFO"), ("ASCEND_TRANSPORT_PRINT", "1")];
    let (mut a, mut b) = (Peer::start_with(&npu, Some(0), &loud), Peer::start(&npu, Some(1)));
    let (near, far) = (a.buffer(0, PAGE, 1), b.buffer(1, PAGE, 2));
    let name = b.name();
    let words = moving("write", near, &name, far, PAGE, 65536, 0);
    a.fault("set HcclBatchPut=fail:4");
    for _ in 0..20 {
        a.must_fail(&format!("transfer {words}"));
    }
    let output = a.child.output();
    let told =
        output.lines().filter(|line| line.starts_with("WARN") && line.contains("HcclBatchPut")).count();
    assert!((1..=2).contains(&told), "{told} lines about one failure that came 20 times:\n{output}");
    assert!(!output.contains("GB/s"), "a success was logged that there was not:\n{output}");
    a.fault("clear");
    a.must(&format!("transfer {words}"));
    let _line = a.child.wait_for_line(promise::LIMIT, |line| line.contains("GB/s"));
    a.quit();
    b.quit();
}
