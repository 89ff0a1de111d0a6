//! Processes on software NPUs, through the C interface: the bytes arrive, and what goes wrong says so.

use std::time::Duration;

use mooncake_test_support::{SoftwareNpu, wait_until};

use crate::build::Program;
use crate::peer::{Peer, Region, Shape, moving, running};

const MIB: u64 = 1 << 20;

fn shape(block_bytes: u64, scattered: bool) -> Shape {
    Shape { block_bytes, scattered }
}

/// Reads all of `remote` into `local` and compares, then writes another pattern back and compares there.
fn both_ways(a: &mut Peer, local: Region, b: &mut Peer, remote: Region, shape: Shape) {
    b.fill(remote, 21);
    a.fill(local, 0);
    let name = b.name().to_owned();
    assert_eq!(a.must(&moving("read", local, &name, remote, shape)), remote.length_bytes.to_string());
    a.check(local, 21);
    a.fill(local, 22);
    a.must(&running("write", local, &name, remote, shape));
    b.check(remote, 22);
    a.check(local, 22);
}

#[test]
fn two_processes_on_two_devices_read_and_write() {
    let (program, npu) = (Program::compile("peer"), SoftwareNpu::new().devices(2));
    let (mut a, mut b) = (Peer::start(&program, &npu, 0), Peer::start(&program, &npu, 1));
    let local = a.region("npu", 8 * MIB, 0);
    let remote = b.region("npu", 8 * MIB, 0);
    for block_bytes in [4096, 65536, 8 * MIB] {
        for scattered in [false, true] {
            both_ways(&mut a, local, &mut b, remote, shape(block_bytes, scattered));
        }
    }
    a.quit();
    b.quit();
}

#[test]
fn both_directions_at_once() {
    let (program, npu) = (Program::compile("peer"), SoftwareNpu::new().devices(2));
    let (mut a, mut b) = (Peer::start(&program, &npu, 0), Peer::start(&program, &npu, 1));
    let (from_a, into_a) = (a.region("npu", 16 * MIB, 1), a.region("npu", 16 * MIB, 0));
    let (from_b, into_b) = (b.region("npu", 16 * MIB, 2), b.region("npu", 16 * MIB, 0));
    let (name_a, name_b) = (a.name().to_owned(), b.name().to_owned());
    // The first transfer of each side opens the channel, so the opens cross as well.
    for _ in 0..4 {
        let reading = a.begin(&moving("read", into_a, &name_b, from_b, shape(65536, true)));
        let other = b.begin(&moving("read", into_b, &name_a, from_a, shape(65536, true)));
        assert!(a.finish(reading).starts_with("ok"));
        assert!(b.finish(other).starts_with("ok"));
        a.check(into_a, 2);
        b.check(into_b, 1);
        a.fill(into_a, 0);
        b.fill(into_b, 0);
    }
    a.quit();
    b.quit();
}

#[test]
fn four_processes_with_four_others() {
    let (program, npu) = (Program::compile("peer"), SoftwareNpu::new().devices(8));
    let mut left: Vec<Peer> = (0..4).map(|device| Peer::start(&program, &npu, device)).collect();
    let mut right: Vec<Peer> = (4..8).map(|device| Peer::start(&program, &npu, device)).collect();
    let into: Vec<Vec<Region>> =
        left.iter_mut().map(|peer| (0..4).map(|_| peer.region("npu", 4 * MIB, 0)).collect()).collect();
    let from: Vec<Region> =
        (100..).zip(&mut right).map(|(seed, peer)| peer.region("npu", 4 * MIB, seed)).collect();
    let names: Vec<String> = right.iter().map(|peer| peer.name().to_owned()).collect();
    // Round by round each left peer reads from another right peer: in the end everyone has read from
    // everyone.
    for round in 0..4 {
        let pending: Vec<_> = left
            .iter_mut()
            .enumerate()
            .map(|(place, peer)| {
                let target = (place + round) % 4;
                peer.begin(&moving(
                    "read",
                    into[place][target],
                    &names[target],
                    from[target],
                    shape(65536, true),
                ))
            })
            .collect();
        for (peer, pending) in left.iter().zip(pending) {
            let answer = peer.finish(pending);
            assert!(answer.starts_with("ok"), "{answer}");
        }
    }
    for (place, peer) in left.iter_mut().enumerate() {
        for (seed, region) in (100..).zip(&into[place]) {
            peer.check(*region, seed);
        }
    }
    left.into_iter().chain(right).for_each(Peer::quit);
}

#[test]
fn one_device_with_three_others() {
    let (program, npu) = (Program::compile("peer"), SoftwareNpu::new().devices(4));
    let mut one = Peer::start(&program, &npu, 0);
    let from = one.region("npu", 4 * MIB, 7);
    let name = one.name().to_owned();
    let mut others: Vec<Peer> = (1..4).map(|device| Peer::start(&program, &npu, device)).collect();
    let into: Vec<Region> = others.iter_mut().map(|peer| peer.region("npu", 4 * MIB, 0)).collect();
    let pending: Vec<_> = others
        .iter_mut()
        .zip(&into)
        .map(|(peer, into)| peer.begin(&moving("read", *into, &name, from, shape(4096, true))))
        .collect();
    for (peer, pending) in others.iter().zip(pending) {
        let answer = peer.finish(pending);
        assert!(answer.starts_with("ok"), "{answer}");
    }
    for (peer, into) in others.iter_mut().zip(&into) {
        peer.check(*into, 7);
    }
    others.into_iter().for_each(Peer::quit);
    one.quit();
}

#[test]
fn memory_registered_later_is_reachable() {
    let (program, npu) = (Program::compile("peer"), SoftwareNpu::new().devices(2));
    let (mut a, mut b) = (Peer::start(&program, &npu, 0), Peer::start(&program, &npu, 1));
    let (local, remote) = (a.region("npu", 2 * MIB, 0), b.region("npu", 2 * MIB, 0));
    both_ways(&mut a, local, &mut b, remote, shape(65536, false));
    // The channel is open and its memory is frozen; both sides register more.
    let later = b.region("npu", 2 * MIB, 33);
    let name = b.name().to_owned();
    a.must(&moving("read", local, &name, later, shape(65536, false)));
    a.check(local, 33);
    let local_later = a.region("npu", 2 * MIB, 0);
    both_ways(&mut a, local_later, &mut b, later, shape(4096, true));
    both_ways(&mut a, local, &mut b, remote, shape(65536, true));
    // And what is withdrawn is refused.
    b.must(&format!("drop {}", later.number));
    let answer = a.ask(&moving("read", local, &name, later, shape(65536, false)));
    assert!(answer.starts_with("failed"), "{answer}");
    both_ways(&mut a, local, &mut b, remote, shape(65536, true));
    a.quit();
    b.quit();
}

#[test]
fn ten_thousand_blocks_in_one_batch() {
    let (program, npu) = (Program::compile("peer"), SoftwareNpu::new().devices(2));
    let (mut a, mut b) = (Peer::start(&program, &npu, 0), Peer::start(&program, &npu, 1));
    let length_bytes = 10_000 * 4096;
    let (local, remote) = (a.region("npu", length_bytes, 0), b.region("npu", length_bytes, 0));
    both_ways(&mut a, local, &mut b, remote, shape(4096, true));
    a.quit();
    b.quit();
}

#[test]
fn blocks_of_odd_size_and_the_real_block_size() {
    let (program, npu) = (Program::compile("peer"), SoftwareNpu::new().devices(2));
    let (mut a, mut b) = (Peer::start(&program, &npu, 0), Peer::start(&program, &npu, 1));
    for (block_bytes, count) in [(1000, 257), (131_072, 32), (8, 1000)] {
        let length_bytes = block_bytes * count;
        let (local, remote) = (a.region("npu", length_bytes, 0), b.region("npu", length_bytes, 0));
        both_ways(&mut a, local, &mut b, remote, shape(block_bytes, true));
    }
    a.quit();
    b.quit();
}

#[test]
fn a_block_beyond_two_gibibytes_is_split() {
    let (program, npu) = (Program::compile("peer"), SoftwareNpu::new().devices(2));
    let (mut a, mut b) = (Peer::start(&program, &npu, 0), Peer::start(&program, &npu, 1));
    let length_bytes = (2 << 30) + 100 * MIB + 4096;
    let (local, remote) = (a.region("npu", length_bytes, 0), b.region("npu", length_bytes, 44));
    let name = b.name().to_owned();
    a.must(&moving("read", local, &name, remote, shape(length_bytes, false)));
    a.check(local, 44);
    a.quit();
    b.quit();
}

#[test]
fn an_address_out_of_range_fails_alone() {
    let (program, npu) = (Program::compile("peer"), SoftwareNpu::new().devices(2));
    let (mut a, mut b) = (Peer::start(&program, &npu, 0), Peer::start(&program, &npu, 1));
    let (local, remote) = (a.region("npu", 2 * MIB, 0), b.region("npu", 2 * MIB, 3));
    let name = b.name().to_owned();
    let beyond = Region { address: remote.address + MIB, ..remote };
    for command in [
        moving("read", local, &name, beyond, shape(2 * MIB, false)),
        running("write", local, &name, beyond, shape(2 * MIB, false)),
    ] {
        let answer = a.ask(&command);
        assert!(answer.starts_with("failed address-not-registered"), "{answer}");
        assert!(answer.contains(&name), "{answer}");
        assert!(answer.contains(&format!("{:#x}", beyond.address)), "{answer}");
    }
    // Some blocks good, some bad: the batch fails, the good ones arrive, and the channel is as good as new.
    let answer = a.ask(&moving("read", local, &name, beyond, shape(65536, false)));
    assert!(answer.starts_with("failed address-not-registered"), "{answer}");
    b.check(remote, 3);
    both_ways(&mut a, local, &mut b, remote, shape(65536, true));
    a.quit();
    b.quit();
}

#[test]
fn overlapping_registration_is_refused_on_the_device() {
    let (program, npu) = (Program::compile("peer"), SoftwareNpu::new().devices(2));
    let mut a = Peer::start(&program, &npu, 0);
    let region = a.region("npu", 2 * MIB, 0);
    a.must(&format!("drop {}", region.number));
    let answer = a.ask(&format!("drop {}", region.number));
    assert!(answer.starts_with("failed address-not-registered"), "{answer}");
    a.quit();
}

#[test]
fn a_peer_that_is_not_there_is_an_error_that_names_it() {
    let (program, npu) = (Program::compile("peer"), SoftwareNpu::new().devices(2));
    let mut a = Peer::start(&program, &npu, 0);
    let mut b = Peer::start(&program, &npu, 1);
    for command in ["open 127.0.0.1:1", "probe 127.0.0.1:1", "open no-such-host.invalid:15000"] {
        let answer = a.ask(command);
        assert!(answer.starts_with("failed"), "{answer}");
        assert!(answer.contains(command.split(' ').next_back().unwrap()), "{answer}");
    }
    // One that dies: what is asked of it afterwards fails in bounded time, and others are served as before.
    let (local, remote) = (a.region("npu", 2 * MIB, 0), b.region("npu", 2 * MIB, 9));
    let name = b.name().to_owned();
    both_ways(&mut a, local, &mut b, remote, shape(65536, false));
    let mut c = Peer::start(&program, &npu, 1);
    let other = c.region("npu", 2 * MIB, 5);
    b.kill();
    let dead = a.begin(&format!("{} 3000", moving("read", local, &name, remote, shape(65536, false))));
    let answer = a.finish(dead);
    assert!(answer.starts_with("failed"), "{answer}");
    assert!(answer.contains(&name), "{answer}");
    let failed =
        wait_until(Duration::from_secs(30), || a.ask(&format!("probe {name}")).starts_with("failed"));
    assert!(failed);
    both_ways(&mut a, local, &mut c, other, shape(65536, false));
    a.quit();
    c.quit();
}

#[test]
fn a_frozen_peer_costs_its_deadline_and_nothing_else() {
    let (program, npu) = (Program::compile("peer"), SoftwareNpu::new().devices(3));
    let (mut a, mut b) = (Peer::start(&program, &npu, 0), Peer::start(&program, &npu, 1));
    let mut c = Peer::start(&program, &npu, 2);
    let (local, frozen) = (a.region("npu", 2 * MIB, 0), b.region("npu", 2 * MIB, 6));
    let other = c.region("npu", 2 * MIB, 8);
    let name = b.name().to_owned();
    a.must(&format!("open {name}"));
    b.signal("STOP");
    let answer = a.ask(&format!("{} 1500", running("read", local, &name, frozen, shape(65536, false))));
    b.signal("CONT");
    assert!(answer.starts_with("failed timeout"), "{answer}");
    assert!(answer.contains(&name), "{answer}");
    both_ways(&mut a, local, &mut c, other, shape(65536, false));
    // And it is reachable again when it goes on, without anybody's doing.
    let read = running("read", local, &name, frozen, shape(65536, false));
    let back = wait_until(Duration::from_secs(30), || a.ask(&read).starts_with("ok"));
    assert!(back, "{}", a.ask(&read));
    a.check(local, 6);
    a.quit();
    b.quit();
    c.quit();
}

#[test]
fn two_engines_on_one_host_exchange_notes_and_probes() {
    let (program, npu) = (Program::compile("peer"), SoftwareNpu::new().devices(2));
    let (mut a, mut b) = (Peer::start(&program, &npu, 0), Peer::start(&program, &npu, 1));
    let (name_a, name_b) = (a.name().to_owned(), b.name().to_owned());
    a.must(&format!("probe {name_b}"));
    assert_eq!(b.must("notes"), "");
    a.must(&format!("notify {name_b} request-1 ready"));
    a.must(&format!("notify {name_b} request-2 ready"));
    assert_eq!(b.must("notes"), "request-1=ready request-2=ready");
    assert_eq!(b.must("notes"), "");
    b.must(&format!("notify {name_a} request-1 done"));
    assert_eq!(a.must("notes"), "request-1=done");
    b.must("destroy");
    assert!(a.ask(&format!("probe {name_b}")).starts_with("failed"));
    a.quit();
}

#[test]
fn host_memory_and_npu_memory_of_one_process() {
    let (program, npu) = (Program::compile("peer"), SoftwareNpu::new().devices(2));
    let mut a = Peer::start(&program, &npu, 0);
    let host = a.region("host", 4 * MIB, 11);
    let device = a.region("npu", 4 * MIB, 12);
    let own = a.name().to_owned();
    a.must(&moving("write", host, &own, device, shape(65536, true)));
    a.check(device, 11);
    a.fill(device, 13);
    a.must(&moving("write", device, &own, host, shape(4096, true)));
    a.check(host, 13);
    let second = a.region("npu", 4 * MIB, 0);
    a.must(&moving("read", second, &own, device, shape(4 * MIB, false)));
    a.check(second, 13);
    a.quit();
}
