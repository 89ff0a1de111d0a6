//! Promise 2: memory in flight cannot be unregistered, and after `unregister` no peer of ours touches the range.
//!
//! Tried by taking the mechanism out: without the pins of a job (`Job::pins` left empty) the first test fails; with
//! `Shared::withdraw_at_peers` doing nothing the second and the third fail, the third because the peer goes on
//! writing; without the withdrawal in `Shared::withdraw_remote` the peer goes on, too.

mod promise;

use std::time::{Duration, Instant};

use promise::{PAGE, Peer, moving, software_npu};

const DELAY_MS: u64 = 1500;

/// The withdrawal is answered after half of it.
const SHORT: [(&str, &str); 1] = [("MC_HANDSHAKE_CONNECT_TIMEOUT", "1")];

#[test]
fn our_own_transfer_makes_it_busy() {
    let npu = software_npu(2);
    let (mut a, mut b) = (Peer::start(&npu, Some(0)), Peer::start(&npu, Some(1)));
    let (near, far) = (a.buffer(0, PAGE, 1), b.buffer(1, PAGE, 2));
    let name = b.name();
    a.must(&format!("transfer {}", moving("write", near, &name, far, 4096, 4096, 0)));
    let earlier = a.count("HcclBatchPut");
    a.fault(&format!("set transfer=delay:{DELAY_MS}"));
    let batch = a.must(&format!("submit {}", moving("write", near, &name, far, PAGE, 65536, 0)));
    a.wait_for_calls("HcclBatchPut", earlier);
    let failure = a.must_fail(&format!("unregister {near}"));
    assert_eq!((failure.code(), failure.stage()), ("busy", "register"), "{failure:?}");
    assert!(!failure.text("advice").is_empty(), "{failure:?}");
    a.must(&format!("wait {batch} 20000"));
    assert!(b.holds(far, PAGE, 1), "the transfer did not end well");
    // Over for the waiter means free at once.
    a.must(&format!("unregister {near}"));
    a.quit();
    b.quit();
}

#[test]
fn a_peers_transfer_makes_it_busy() {
    let npu = software_npu(2);
    let (mut a, mut b) = (Peer::start_with(&npu, Some(0), &SHORT), Peer::start_with(&npu, Some(1), &SHORT));
    let (near, far) = (a.buffer(0, PAGE, 1), b.buffer(1, PAGE, 2));
    let name = b.name();
    for (direction, call) in [("write", "HcclBatchPut"), ("read", "HcclBatchGet")] {
        a.must(&format!("transfer {}", moving(direction, near, &name, far, 4096, 4096, 0)));
        let earlier = a.count(call);
        a.fault(&format!("set transfer=delay:{DELAY_MS}"));
        let batch = a.must(&format!("submit {}", moving(direction, near, &name, far, PAGE, PAGE, 0)));
        a.wait_for_calls(call, earlier);
        let start = Instant::now();
        let failure = b.must_fail(&format!("unregister {far}"));
        assert_eq!(failure.code(), "busy", "{failure:?}");
        assert_eq!(failure.text("peer"), a.name(), "who is it busy with? {failure:?}");
        assert!(start.elapsed() < Duration::from_millis(DELAY_MS), "busy was told too late to be of use");
        a.fault("clear");
        a.must(&format!("wait {batch} 20000"));
        // It stayed registered: the transfer arrived, and the next one does.
        a.must(&format!("transfer {}", moving("read", near, &name, far, PAGE, PAGE, 0)));
        assert!(a.holds(near, PAGE, 1));
    }
    b.must(&format!("unregister {far}"));
    a.quit();
    b.quit();
}

#[test]
fn after_it_no_peer_touches_the_range() {
    let npu = software_npu(3);
    let mut b = Peer::start_with(&npu, Some(2), &SHORT);
    let far = b.buffer(2, 2 * PAGE, 2);
    let kept = far + PAGE;
    // Two neighbours: one goes, the other stays in use all the time.
    b.must(&format!("unregister {far}"));
    b.must(&format!("register {far} {PAGE} npu:2"));
    b.must(&format!("register {kept} {PAGE} npu:2"));
    let name = b.name();
    let mut writers = [Peer::start_with(&npu, Some(0), &SHORT), Peer::start_with(&npu, Some(1), &SHORT)];
    let mut near = Vec::new();
    for (device, writer) in (0..).zip(&mut writers) {
        let address = writer.buffer(device, PAGE, 10);
        writer.must(&format!("transfer {}", moving("write", address, &name, far, PAGE, 65536, 0)));
        near.push(address);
    }
    let mut pending = Vec::new();
    for round in 0..150 {
        for (writer, &address) in writers.iter_mut().zip(&near) {
            let target = if round % 3 == 0 { kept } else { far };
            pending.push(
                writer.begin(&format!("transfer {}", moving("write", address, &name, target, PAGE, 4096, 0))),
            );
        }
    }
    // While they write. Busy is an honest answer, as long as it ends.
    let end = Instant::now() + promise::LIMIT;
    while let Err(failure) = b.ask(&format!("unregister {far}")) {
        assert_eq!(failure.code(), "busy", "{failure:?}");
        assert!(Instant::now() < end, "never free");
    }
    b.fill(far, PAGE, 77);
    let mut refused = 0;
    for (place, pending) in pending.into_iter().enumerate() {
        if let Err(failure) = writers[place % 2].finish(pending) {
            assert_eq!(failure.code(), "address-not-registered", "{failure:?}");
            refused += 1;
        }
    }
    assert!(b.holds(far, PAGE, 77), "a peer wrote after the range was withdrawn");
    assert!(refused > 0, "the writers had ended before the withdrawal");
    for (writer, &address) in writers.iter_mut().zip(&near) {
        let failure =
            writer.must_fail(&format!("transfer {}", moving("write", address, &name, far, 4096, 4096, 0)));
        assert_eq!(failure.code(), "address-not-registered", "{failure:?}");
        // The neighbour is as good as before.
        writer.must(&format!("transfer {}", moving("write", address, &name, kept, PAGE, 4096, 0)));
    }
    assert!(b.holds(kept, PAGE, 10));
    writers.into_iter().for_each(Peer::quit);
    b.quit();
}
