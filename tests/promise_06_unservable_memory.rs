//! Promise 6: memory that no route can serve fails at registration, with the reason; what one link cannot take goes by
//! another, or by slots.
//!
//! Tried by taking the mechanism out: with the refusal of misaligned ranges in `registration::acquire` skipped, the
//! first test fails; with it done whether or not a RoCE link is there, the second; whether or not slots are there, the
//! third.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

mod promise;

use promise::{PAGE, Peer, moving, software_npu};
use tempfile::TempDir;

/// Turns staging off, so that what HCCS does not take has no route but RoCE.
const NO_SLOTS: (&str, &str) = ("MOONCAKE_TRANSFER_STAGED_SLOTS", "0");

/// A small allocation, which does not lie on a huge page.
const SMALL: u64 = 64 << 10;

#[test]
fn it_fails_at_registration_with_address_and_remainder() {
    let npu = software_npu(2);
    let mut a = Peer::start_with(&npu, Some(0), &[NO_SLOTS]);
    // A small neighbour first, so that the address is no multiple of the page.
    a.must(&format!("alloc 0 {SMALL}"));
    let address: u64 = a.must(&format!("alloc 0 {SMALL}")).parse().unwrap();
    let remainder = address % PAGE;
    assert_ne!(remainder, 0);
    let failure = a.must_fail(&format!("register {address} {SMALL} npu:0"));
    assert_eq!((failure.code(), failure.stage()), ("invalid-argument", "register"), "{failure:?}");
    assert_eq!(failure.0["range"][0].as_u64(), Some(address), "{failure:?}");
    let message = failure.text("message");
    assert!(message.contains(&remainder.to_string()), "which remainder? {message}");
    assert!(!failure.text("advice").is_empty(), "{failure:?}");
    // Nothing is left of it, and good memory is as good as before.
    a.buffer(0, PAGE, 1);
    a.quit();
}

#[test]
fn what_hccs_cannot_take_goes_by_roce() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("hccn.conf");
    std::fs::write(&path, "address_0=192.0.2.10\naddress_1=192.0.2.11\n").unwrap();
    let npu = software_npu(2).variable("MOONCAKE_TRANSFER_HCCN_CONF", path.to_str().unwrap());
    // Two servers are joined by RoCE; inside one it would be HCCS.
    let server = |name| [("MOONCAKE_TRANSFER_SERVER_ID", name), NO_SLOTS];
    let mut a = Peer::start_with(&npu, Some(0), &server("one"));
    let mut b = Peer::start_with(&npu, Some(1), &server("two"));
    a.must(&format!("alloc 0 {SMALL}"));
    let near = a.buffer(0, SMALL, 1);
    assert_ne!(near % PAGE, 0);
    let far = b.buffer(1, SMALL, 2);
    let name = b.name();
    a.must(&format!("transfer {}", moving("read", near, &name, far, SMALL, 4096, 0)));
    assert!(a.holds(near, SMALL, 2));
    // To a peer that only HCCS reaches it cannot go; the transfer says why, and what to do.
    let mut c = Peer::start_with(&npu, Some(1), &server("one"));
    let far = c.buffer(1, SMALL, 3);
    let name = c.name();
    let failure = a.must_fail(&format!("transfer {}", moving("read", near, &name, far, SMALL, 4096, 0)));
    assert_eq!(failure.code(), "not-supported-transport", "{failure:?}");
    assert!(failure.text("message").contains("2 MiB"), "{failure:?}");
    assert!(failure.text("advice").contains("HCCL_INTRA_ROCE_ENABLE"), "{failure:?}");
    c.quit();
    a.quit();
    b.quit();
}

#[test]
fn what_hccs_cannot_take_goes_by_slots_where_there_is_no_roce() {
    let npu = software_npu(2);
    let (mut a, mut b) = (Peer::start(&npu, Some(0)), Peer::start(&npu, Some(1)));
    for peer in [(&mut a, 0), (&mut b, 1)] {
        peer.0.must(&format!("alloc {} {SMALL}", peer.1));
    }
    let (near, far) = (a.buffer(0, SMALL, 1), b.buffer(1, SMALL, 2));
    assert!(near % PAGE != 0 && far % PAGE != 0);
    let name = b.name();
    a.must(&format!("transfer {}", moving("read", near, &name, far, SMALL, 4096, 0)));
    assert!(a.holds(near, SMALL, 2));
    a.fill(near, SMALL, 3);
    a.must(&format!("transfer {}", moving("write", near, &name, far, SMALL, 1024, 0)));
    assert!(b.holds(far, SMALL, 3));
    // Once it is over, both can take their memory back.
    a.must(&format!("unregister {near}"));
    b.must(&format!("unregister {far}"));
    a.quit();
    b.quit();
}
