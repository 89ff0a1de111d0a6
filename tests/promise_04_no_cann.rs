//! Promise 4: importing, creating and talking work with no CANN; CANN is opened on the first use of an NPU.
//!
//! Tried by taking the mechanism out: with `Shared::npu` called in `Engine::new` both tests fail.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

mod promise;

use mooncake_test_support::SoftwareNpu;
use promise::{PAGE, Peer, software_npu};
use tempfile::TempDir;

#[test]
fn everything_but_npu_memory_works_without_cann() {
    let nothing = TempDir::new().unwrap();
    let path = nothing.path().to_str().unwrap();
    let npu = SoftwareNpu::new().variable("MOONCAKE_TRANSFER_CANN_PATH", path);
    let (mut a, mut b) = (Peer::start(&npu, None), Peer::start(&npu, None));
    let name = b.name();
    let segment = a.must(&format!("open {name}"));
    a.must(&format!("probe {name}"));
    a.must(&format!("note {segment} hello"));
    assert_eq!(b.must("notes"), "hello");
    let memory = a.must("host 65536");
    for location in ["cpu:0", "*"] {
        a.must(&format!("register {memory} 65536 {location}"));
        a.must(&format!("unregister {memory}"));
    }
    // What cannot work says what is missing and where it was looked for.
    let failure = a.must_fail("install ascend");
    assert_eq!((failure.code(), failure.stage()), ("library-unavailable", "load"), "{failure:?}");
    assert!(failure.text("message").contains(path), "{failure:?}");
    assert!(failure.text("advice").contains("MOONCAKE_TRANSFER_CANN_PATH"), "{failure:?}");
    let failure = a.must_fail(&format!("register {memory} 65536 npu:0"));
    assert_eq!(failure.code(), "library-unavailable", "{failure:?}");
    a.must(&format!("probe {name}"));
    a.quit();
    b.quit();
}

#[test]
fn cann_is_opened_by_the_first_use_of_an_npu_and_not_before() {
    let npu = software_npu(2);
    let (mut a, mut b) = (Peer::start(&npu, None), Peer::start(&npu, None));
    let name = b.name();
    let segment = a.must(&format!("open {name}"));
    a.must(&format!("note {segment} hello"));
    let memory = a.must("host 65536");
    a.must(&format!("register {memory} 65536 cpu:0"));
    assert_eq!(a.must("libraries libcann_sim"), "0");
    assert_eq!(b.must("libraries libcann_sim"), "0");
    a.must("install ascend");
    assert_ne!(a.must("libraries libcann_sim"), "0");
    assert_eq!(b.must("libraries libcann_sim"), "0");
    // Without a device of the thread the memory says which; nothing was bound by opening.
    let failure = a.must_fail(&format!("register {memory} {PAGE} npu:0"));
    assert_eq!(failure.code(), "invalid-argument", "{failure:?}");
    a.quit();
    b.quit();
}
