//! Segments come, fall silent, leave and return; replicas are spread; readers never see what is gone.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // helpers outside of test functions

mod common;

use common::{MIB, place, put, segment, state, uuid};
use mooncake_master::moment::Moment;
use mooncake_master::policy::{Policy, Strategy};
use mooncake_master::state::{PutRequest, State};
use mooncake_wire::ErrorCode;
use mooncake_wire::model::{PingAnswer, ReplicateConfig};

fn owner_of(state: &State, address: u64) -> String {
    let segments = state.segments();
    let there = |base: u64, size: u64| (base..base + size).contains(&address);
    segments.iter().find(|segment| there(segment.base, segment.size)).expect("in a segment").name.to_string()
}

#[test]
fn silence_has_two_steps_and_one_heartbeat_ends_the_first() {
    let state = state(Policy::default());
    let (a, b) = (uuid(1), uuid(2));
    assert_eq!(state.ping(a, Moment(1)).client_status, PingAnswer::NEED_REMOUNT);
    state.mount(&segment(1, "a", MIB), a, Moment(1)).expect("mount");
    assert_eq!(
        state.ping(a, Moment(2)).client_status,
        PingAnswer::NEED_REMOUNT,
        "only a remount makes it known"
    );
    state.remount(&[segment(1, "a", MIB)], a, Moment(3)).expect("idempotent");
    assert_eq!(state.ping(a, Moment(4)).client_status, PingAnswer::OK);
    state.remount(&[segment(2, "b", MIB)], b, Moment(3)).expect("mount");
    let config = ReplicateConfig { preferred_segment: "a".into(), ..ReplicateConfig::default() };
    put(&state, a, b"k", 64, &config, Moment(5)).expect("space");

    let mut now = 4;
    while now < 4100 {
        now += 500;
        assert_eq!(state.ping(b, Moment(now)).client_status, PingAnswer::OK);
        state.look(Moment(now));
    }
    // `a` is suspect: read from, not written to.
    assert!(state.exists(b"k", Moment(now)));
    for index in 0..20 {
        let replicas =
            put(&state, b, format!("n{index}").as_bytes(), 64, &config, Moment(now)).expect("space");
        assert_eq!(owner_of(&state, place(&replicas[0]).0), "b");
    }
    assert_eq!(state.ping(a, Moment(now)).client_status, PingAnswer::OK);
    let replicas = put(&state, b, b"back", 64, &config, Moment(now)).expect("space");
    assert_eq!(owner_of(&state, place(&replicas[0]).0), "a");

    // Ten seconds of silence: expired, with everything in its memory.
    let end = now + 10_001;
    state.ping(b, Moment(end));
    state.look(Moment(end));
    assert!(!state.exists(b"k", Moment(end)) && !state.exists(b"back", Moment(end)));
    assert!(state.exists(b"n0", Moment(end)));
    assert_eq!(state.usage().1, MIB);
    assert_eq!(state.ping(a, Moment(end)).client_status, PingAnswer::NEED_REMOUNT);
    assert_eq!(state.totals(Moment(end)).objects, 20);
}

#[test]
fn a_client_without_connections_is_in_doubt_until_it_is_heard() {
    let state = state(Policy::default());
    let (a, b) = (uuid(1), uuid(2));
    state.remount(&[segment(1, "a", MIB)], a, Moment(1)).expect("mount");
    assert!(!state.heard_on(b, 20), "a stranger is not remembered");
    assert!(state.heard_on(a, 10) && state.heard_on(a, 11) && state.heard_on(a, 10));
    let here = ReplicateConfig { preferred_segment: "a".into(), ..ReplicateConfig::default() };
    let owners = |tag: &str, config: &ReplicateConfig, now: u64| -> Vec<String> {
        (0..20)
            .map(|index| {
                let replicas = put(&state, b, format!("{tag}{index}").as_bytes(), 64, config, Moment(now));
                owner_of(&state, place(&replicas.expect("space")[0]).0)
            })
            .collect()
    };
    // One connection of two closes: nothing changes.
    state.connection_closed(11, &[a]);
    state.look(Moment(2));
    assert_eq!(state.metrics().clients_doubted.get(), 0);
    // The last one closes. There is no other segment: it is used all the same.
    state.connection_closed(10, &[a]);
    state.look(Moment(3));
    assert_eq!(state.metrics().clients_doubted.get(), 1);
    assert_eq!(state.segment_status("a").expect("known").upstream(), (1, "OK"));
    assert!(owners("alone", &here, 3).iter().all(|owner| owner == "a"));

    // With another one it is passed over, also by who prefers it, and as a second replica.
    state.remount(&[segment(2, "b", MIB)], b, Moment(4)).expect("mount");
    assert!(owners("beside", &here, 4).iter().all(|owner| owner == "b"));
    let two = ReplicateConfig { replica_num: 2, ..ReplicateConfig::default() };
    assert_eq!(put(&state, b, b"once", 64, &two, Moment(4)).expect("space").len(), 1);
    assert!(state.exists(b"alone0", Moment(4)), "what lies there is read");
    // Before a put fails it is taken: this one fits nowhere else, and nothing can be evicted.
    let hard = ReplicateConfig { with_hard_pin: true, ..ReplicateConfig::default() };
    put(&state, b, b"large", MIB - 8192, &hard, Moment(20_000)).expect("beside");
    let replicas = put(&state, b, b"larger", MIB - 4096, &hard, Moment(20_001)).expect("the last resort");
    assert_eq!(owner_of(&state, place(&replicas[0]).0), "a");
    state.remove(b"larger", true, Moment(20_002)).expect("there");
    state.remove(b"large", true, Moment(20_002)).expect("there");

    // It is heard again, on another connection.
    assert_eq!(state.ping(a, Moment(20_003)).client_status, PingAnswer::OK);
    assert!(state.heard_on(a, 12));
    assert!(owners("again", &here, 20_003).iter().all(|owner| owner == "a"));
    let both = put(&state, b, b"both", 64, &two, Moment(20_003)).expect("space");
    assert_eq!(both.len(), 2);
    let first = |now| {
        let list = state.replicas(b"both", Moment(now)).expect("readable");
        list.replicas.iter().map(|replica| owner_of(&state, place(replica).0)).collect::<Vec<_>>()
    };
    // Readers are sent to the others first, whoever is in doubt.
    for (gone, connection, order) in [(a, 12, ["b", "a"]), (b, 13, ["a", "b"])] {
        assert!(state.heard_on(gone, connection));
        state.connection_closed(connection, &[gone]);
        assert_eq!(first(20_004), order);
        state.ping(gone, Moment(20_005));
    }
    // Silence goes on as ever: suspect, then expired.
    state.heard_on(a, 14);
    state.connection_closed(14, &[a]);
    for now in (20_500..29_500).step_by(500) {
        state.ping(b, Moment(now));
        state.look(Moment(now));
    }
    assert_eq!((state.metrics().clients_suspected.get(), state.metrics().clients_expired.get()), (1, 0));
    put(&state, b, b"large", MIB - 8192, &hard, Moment(29_500)).expect("beside");
    let refused = put(&state, b, b"nowhere", MIB - 4096, &hard, Moment(29_500));
    assert_eq!(refused, Err(ErrorCode::NO_AVAILABLE_HANDLE), "a suspect takes nothing");
    state.ping(b, Moment(30_100));
    state.look(Moment(30_100));
    assert_eq!(state.segments().len(), 1);
}

#[test]
fn nothing_of_a_client_in_doubt_is_evicted_for_space_that_is_short_elsewhere() {
    const PIECE: u64 = 64 << 10;
    let state = state(Policy::default());
    let (a, b) = (uuid(1), uuid(2));
    state.remount(&[segment(1, "a", MIB)], a, Moment(1)).expect("mount");
    let any = ReplicateConfig::default();
    let fill = |tag: &str, count: u64, now: u64| {
        for index in 0..count {
            let key = format!("{tag}{index}");
            put(&state, b, key.as_bytes(), PIECE, &any, Moment(now + index)).expect("space");
        }
    };
    let left = |tag: &str, count: u64, now: u64| {
        (0..count)
            .filter(|index| state.replicas(format!("{tag}{index}").as_bytes(), Moment(now)).is_ok())
            .count()
    };
    // The oldest lie with a, which has room; b, which has none, is the only one that is not in doubt.
    fill("old", 8, 1);
    assert!(state.heard_on(a, 10));
    state.connection_closed(10, &[a]);
    state.remount(&[segment(2, "b", MIB)], b, Moment(2)).expect("mount");
    fill("new", 16, 10_000);
    assert_eq!(state.metrics().evictions_in_put.get(), 0);
    fill("more", 40, 30_000);
    let evicted = state.metrics().evicted_objects.get();
    assert!((32..=40).contains(&evicted), "{evicted} objects had to go");
    assert_eq!(left("old", 8, 60_000), 8, "what lies with a makes no room at b");

    // What no single eviction makes room for goes to a: others need not go for it.
    let (before, evicted) = (state.metrics().evictions_in_put.get(), state.metrics().evicted_objects.get());
    let replicas = put(&state, b, b"long", 5 * PIECE, &any, Moment(90_000)).expect("with a");
    assert_eq!(owner_of(&state, place(&replicas[0]).0), "a");
    assert_eq!(state.metrics().evictions_in_put.get(), before + 1);
    assert!(state.metrics().evicted_objects.get() <= evicted + 1);
}

#[test]
fn before_a_put_fails_room_is_made_with_a_client_in_doubt() {
    const PIECE: u64 = 64 << 10;
    let state = state(Policy { lease_ttl_ms: 10_000, ..Policy::default() });
    let (a, b) = (uuid(1), uuid(2));
    state.remount(&[segment(1, "a", MIB)], a, Moment(1)).expect("mount");
    let any = ReplicateConfig::default();
    let one = |key: &str, now: u64| {
        put(&state, b, key.as_bytes(), PIECE, &any, Moment(now))
            .map(|replicas| owner_of(&state, place(&replicas[0]).0))
    };
    let evicted = || state.metrics().evicted_objects.get();
    for index in 0..16 {
        assert_eq!(one(&format!("cold{index}"), 1).as_deref(), Ok("a"));
    }
    // A full pool that has no other segment goes on.
    assert!(state.heard_on(a, 10));
    state.connection_closed(10, &[a]);
    for index in 0..16 {
        assert_eq!(one(&format!("alone{index}"), 10_000).as_deref(), Ok("a"));
    }
    assert!((16..24).contains(&evicted()), "{} objects had to go", evicted());

    // So does one whose other segment is full of what may not be evicted.
    state.remount(&[segment(2, "b", MIB)], b, Moment(20_000)).expect("mount");
    for index in 0..16 {
        let key = format!("warm{index}");
        // What was evicted last has left room with a, which is in doubt: nothing goes there.
        assert_eq!(one(&key, 20_000).as_deref(), Ok("b"));
        assert!(state.exists(key.as_bytes(), Moment(20_000)));
    }
    for index in 0..16 {
        assert_eq!(one(&format!("late{index}"), 20_001).as_deref(), Ok("a"));
    }
    let before = evicted();
    assert!((28..48).contains(&before), "{before} objects had to go");

    // Of one that is silent nothing goes, be it the oldest: no put goes there.
    let c = uuid(3);
    state.ping(a, Moment(21_000));
    state.remount(&[segment(3, "c", MIB)], c, Moment(21_000)).expect("mount");
    let there = ReplicateConfig { preferred_segment: "c".into(), ..ReplicateConfig::default() };
    for index in 0..16 {
        let replicas = put(&state, b, format!("quiet{index}").as_bytes(), PIECE, &there, Moment(5000));
        assert_eq!(owner_of(&state, place(&replicas.expect("space")[0]).0), "c");
    }
    state.ping(a, Moment(25_500));
    state.ping(b, Moment(25_500));
    state.look(Moment(25_500));
    assert_eq!(state.metrics().clients_suspected.get(), 1);
    assert!(state.heard_on(a, 11));
    state.connection_closed(11, &[a]);
    for index in 0..16 {
        assert_eq!(one(&format!("last{index}"), 25_501).as_deref(), Ok("a"));
    }
    assert!(evicted() > before);
    let quiet =
        (0..16).filter(|index| state.replicas(format!("quiet{index}").as_bytes(), Moment(25_502)).is_ok());
    assert_eq!(quiet.count(), 16);
    // And when the one in doubt is silent, too, a put fails, and nothing goes.
    let before = evicted();
    state.ping(b, Moment(29_600));
    state.look(Moment(29_600));
    assert_eq!((state.metrics().clients_suspected.get(), state.metrics().clients_expired.get()), (2, 0));
    assert_eq!(one("never", 29_600), Err(ErrorCode::NO_AVAILABLE_HANDLE));
    assert_eq!(evicted(), before);
}

#[test]
fn a_search_in_vain_is_not_repeated_before_a_time_that_grows_with_all_it_went_through() {
    let state = state(Policy { lease_ttl_ms: 1000, ..Policy::default() });
    let (a, b) = (uuid(1), uuid(2));
    let any = ReplicateConfig::default();
    state.remount(&[segment(1, "a", 64 * MIB)], a, Moment(1)).expect("mount");
    for index in 0..25_000 {
        put(&state, b, format!("small{index}").as_bytes(), 64, &any, Moment(1)).expect("space");
    }
    assert!(state.heard_on(a, 10));
    state.connection_closed(10, &[a]);
    state.remount(&[segment(2, "b", MIB)], b, Moment(2)).expect("mount");
    let owner = |key: &str, now: u64| {
        let replicas = put(&state, b, key.as_bytes(), MIB, &any, Moment(now)).expect("with a there is room");
        owner_of(&state, place(&replicas[0]).0)
    };
    assert_eq!(owner("leased", 3), "b");
    assert!(state.exists(b"leased", Moment(5012 - 1000)));
    // That goes through 25,000 objects of a for the one of b: 5 ms beside the 10.
    assert_eq!(owner("first", 5000), "a");
    assert_eq!(owner("within the pause", 5014), "a");
    assert_eq!(owner("after the pause", 5015), "b");
    assert_eq!(state.metrics().evicted_objects.get(), 1);
}

#[test]
fn replicas_go_to_different_names_as_far_as_there_are_any() {
    let state = state(Policy::default());
    let segments = [segment(1, "a", MIB), segment(2, "b", MIB), segment(3, "b", MIB)];
    state.remount(&segments, uuid(9), Moment(1)).expect("mount");
    for index in 0..20u64 {
        let config = ReplicateConfig { replica_num: 3, ..ReplicateConfig::default() };
        let key = format!("k{index}");
        let replicas = put(&state, uuid(1), key.as_bytes(), 64, &config, Moment(2)).expect("space");
        let mut names: Vec<_> = replicas.iter().map(|replica| owner_of(&state, place(replica).0)).collect();
        names.sort();
        assert_eq!(names, ["a", "b"], "best effort: two of three");
    }
    assert_eq!(state.metrics().put_partial_allocations.get(), 20);
    // One copy goes with its segment, the other is still there.
    state.unmount(uuid(1), uuid(9)).expect("unmount");
    let list = state.replicas(b"k0", Moment(3)).expect("the other copy");
    assert_eq!(list.replicas.len(), 1);
    assert_eq!(owner_of(&state, place(&list.replicas[0]).0), "b");
    state.unmount(uuid(2), uuid(9)).expect("unmount");
    state.unmount(uuid(3), uuid(8)).expect("somebody else's is not taken");
    assert_eq!(state.usage().1, MIB);
    state.unmount(uuid(3), uuid(9)).expect("unmount");
    assert_eq!(state.replicas(b"k0", Moment(4)), Err(ErrorCode::OBJECT_NOT_FOUND));
    assert_eq!((state.totals(Moment(4)).objects, state.metadata_bytes()), (0, 0));
}

#[test]
fn a_batch_stays_on_the_node_of_its_first_key() {
    let state = state(Policy::default());
    let segments: Vec<_> =
        (1..=8).map(|index| segment(index, &format!("10.0.0.{index}:8790:npu_0"), MIB)).collect();
    state.remount(&segments, uuid(9), Moment(1)).expect("mount");
    let config = ReplicateConfig { prefer_alloc_in_same_node: true, ..ReplicateConfig::default() };
    let request = PutRequest { client: uuid(1), config: &config, now: Moment(2) };
    let keys: Vec<Vec<u8>> = (0..16).map(|index| format!("k{index}").into_bytes()).collect();
    let borrowed: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let answers = state.batch_put_start(&request, &borrowed, &[1000; 16]);
    let owners: Vec<_> =
        answers.iter().map(|answer| owner_of(&state, place(&answer.as_ref().expect("space")[0]).0)).collect();
    assert!(owners.iter().all(|owner| *owner == owners[0]), "{owners:?}");
    // With a host, its own node is taken.
    let config = ReplicateConfig { host_id: "10.0.0.5".into(), ..config };
    let replicas = put(&state, uuid(1), b"local", 64, &config, Moment(2)).expect("space");
    assert_eq!(owner_of(&state, place(&replicas[0]).0), "10.0.0.5:8790:npu_0");
}

#[test]
fn strategies() {
    let free = state(Policy { strategy: Strategy::FreeRatioFirst, ..Policy::default() });
    free.remount(&[segment(1, "a", MIB), segment(2, "b", MIB)], uuid(9), Moment(1)).expect("mount");
    let fill = ReplicateConfig { preferred_segment: "a".into(), ..ReplicateConfig::default() };
    put(&free, uuid(1), b"fill", MIB / 2, &fill, Moment(2)).expect("space");
    for index in 0..8 {
        let replicas =
            put(&free, uuid(1), format!("k{index}").as_bytes(), 64, &ReplicateConfig::default(), Moment(2));
        assert_eq!(owner_of(&free, place(&replicas.expect("space")[0]).0), "b", "the emptier one");
    }
    let local = state(Policy { strategy: Strategy::LocalFirst, ..Policy::default() });
    local.remount(&[segment(1, "h1:1", MIB), segment(2, "h2:1", MIB)], uuid(9), Moment(1)).expect("mount");
    let here = ReplicateConfig { host_id: "h2".into(), ..ReplicateConfig::default() };
    for index in 0..8 {
        let replicas =
            put(&local, uuid(1), format!("k{index}").as_bytes(), 64, &here, Moment(2)).expect("space");
        assert_eq!(owner_of(&local, place(&replicas[0]).0), "h2:1");
    }
}

#[test]
fn a_returning_empty_segment_is_ramped_not_flooded() {
    let state = state(Policy { ramp_ms: 30_000, client_ttl_ms: u64::MAX, ..Policy::default() });
    state
        .remount(&[segment(1, "a", 64 * MIB), segment(2, "b", 64 * MIB)], uuid(9), Moment(1))
        .expect("mount");
    state.remount(&[segment(3, "c", 64 * MIB)], uuid(8), Moment(100_000)).expect("joins later");
    let share = |at: u64, tag: &str| {
        (0..2000u64)
            .filter(|index| {
                let key = format!("{tag}{index}");
                let replicas =
                    put(&state, uuid(1), key.as_bytes(), 64, &ReplicateConfig::default(), Moment(at));
                owner_of(&state, place(&replicas.expect("space")[0]).0) == "c"
            })
            .count()
    };
    let (young, half, full) = (share(100_001, "x"), share(115_000, "y"), share(130_000, "z"));
    assert!((20..150).contains(&young), "{young} of 2000");
    assert!(half > young && half < full, "{young} {half} {full}");
    assert!((500..850).contains(&full), "{full} of 2000");
    // It is not starved when the others are full.
    let alone = ReplicateConfig { replica_num: 3, ..ReplicateConfig::default() };
    assert_eq!(put(&state, uuid(1), b"three", 64, &alone, Moment(100_001)).expect("space").len(), 3);
}

#[test]
fn a_graceful_unmount_serves_to_the_end() {
    let state = state(Policy::default());
    state.remount(&[segment(1, "a", MIB)], uuid(9), Moment(1)).expect("mount");
    put(&state, uuid(1), b"k", 64, &ReplicateConfig::default(), Moment(2)).expect("space");
    assert_eq!(state.unmount_later(uuid(1), uuid(8), 100, Moment(3)), Err(ErrorCode::INVALID_PARAMS));
    state.unmount_later(uuid(1), uuid(9), 1000, Moment(3)).expect("leaving");
    assert_eq!(state.segment_status("a").expect("known").upstream(), (4, "GRACEFULLY_UNMOUNTING"));
    let refused = put(&state, uuid(1), b"n", 64, &ReplicateConfig::default(), Moment(4));
    assert_eq!(refused, Err(ErrorCode::NO_AVAILABLE_HANDLE));
    state.look(Moment(1002));
    assert!(state.exists(b"k", Moment(1002)));
    state.look(Moment(1003));
    assert!(!state.exists(b"k", Moment(1003)));
    assert_eq!(state.segment_status("a"), Err(ErrorCode::SEGMENT_NOT_FOUND));
}

#[test]
fn replicas_are_cleared_by_their_owner_only() {
    let state = state(Policy::default());
    state.remount(&[segment(1, "a", MIB), segment(2, "b", MIB)], uuid(9), Moment(1)).expect("mount");
    let two = ReplicateConfig { replica_num: 2, ..ReplicateConfig::default() };
    put(&state, uuid(1), b"mine", 64, &two, Moment(2)).expect("space");
    put(&state, uuid(2), b"yours", 64, &two, Moment(2)).expect("space");
    let keys: [&[u8]; 3] = [b"mine", b"yours", b"none"];
    let names = |cleared: Vec<Box<[u8]>>| cleared.iter().map(|key| key.to_vec()).collect::<Vec<_>>();
    assert_eq!(names(state.clear_replicas(&keys, uuid(1), "a", Moment(3))), [b"mine"]);
    assert_eq!(state.replicas(b"mine", Moment(3)).expect("one left").replicas.len(), 1);
    assert!(state.clear_replicas(&keys, uuid(1), "", Moment(4)).is_empty(), "it has a lease now");
    assert_eq!(names(state.clear_replicas(&keys, uuid(1), "", Moment(20_000))), [b"mine"]);
    assert!(!state.exists(b"mine", Moment(20_001)) && state.exists(b"yours", Moment(20_001)));
    assert_eq!(
        state.hosts(&[uuid(9), uuid(7)]),
        [(uuid(9), vec!["10.0.0.1".to_owned(), "10.0.0.2".to_owned()])]
    );
}

/// Threads put, read, remove and evict the same keys; in the end every byte is accounted for.
#[test]
fn threads_agree_on_every_byte() {
    let state = state(Policy { lease_ttl_ms: 1, ramp_ms: 0, ..Policy::default() });
    let segments: Vec<_> = (1..=4).map(|index| segment(index, &format!("s{index}"), MIB)).collect();
    state.remount(&segments, uuid(9), Moment(1)).expect("mount");
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (state, segments) = (&state, &segments);
            scope.spawn(move || {
                let mut random = common::Random(thread);
                for step in 0..20_000u64 {
                    let now = Moment(10 + step);
                    let key = format!("k{}", random.below(300));
                    match random.below(8) {
                        0..=3 => {
                            let config = ReplicateConfig {
                                replica_num: 1 + random.below(2),
                                ..ReplicateConfig::default()
                            };
                            let _ = put(
                                state,
                                uuid(thread),
                                key.as_bytes(),
                                1 + random.below(40_000),
                                &config,
                                now,
                            );
                        }
                        4 => drop(state.remove(key.as_bytes(), true, now)),
                        5 => drop(state.replicas(key.as_bytes(), now)),
                        6 if step % 2000 == 0 => {
                            let one = &segments[usize::try_from(random.below(4)).expect("fits")];
                            state.unmount(one.id, uuid(9)).expect("unmount");
                            state.mount(one, uuid(9), now).expect("mount");
                        }
                        _ => state.tick(now),
                    }
                }
            });
        }
    });
    let now = Moment(10_000_000);
    state.look(now);
    state.look(now);
    let mut held = 0;
    let pattern = mooncake_master::state::pattern(b"").expect("pattern");
    for (_, replicas) in state.replicas_by_pattern(&pattern, now) {
        held += replicas.iter().map(|replica| place(replica).1.next_multiple_of(64)).sum::<u64>();
    }
    assert_eq!(state.usage().0, held);
    state.remove_all(true, now);
    assert_eq!((state.usage().0, state.metadata_bytes(), state.totals(now).objects), (0, 0, 0));
}

#[test]
fn memory_that_another_process_has_now_is_no_segment_any_more() {
    let state = state(Policy::default());
    let old = segment(1, "a", MIB);
    state.remount(std::slice::from_ref(&old), uuid(1), Moment(1)).expect("mount");
    put(&state, uuid(1), b"k", 64, &ReplicateConfig::default(), Moment(2)).expect("space");
    // Its process has ended without a word. Another one has its port: first with other memory, then with some that
    // overlaps. An engine elsewhere may have the same addresses.
    let beside = mooncake_wire::model::Segment { id: uuid(2), base: old.base + MIB, ..old.clone() };
    state.mount(&beside, uuid(2), Moment(3)).expect("mount");
    let elsewhere =
        mooncake_wire::model::Segment { id: uuid(3), te_endpoint: "10.0.0.9:1".into(), ..old.clone() };
    state.mount(&elsewhere, uuid(3), Moment(3)).expect("mount");
    assert!(state.exists(b"k", Moment(4)));
    assert_eq!(state.segments().len(), 3);
    let over = mooncake_wire::model::Segment { id: uuid(4), base: old.base + MIB - 1, ..old.clone() };
    state.mount(&over, uuid(4), Moment(5)).expect("mount");
    assert!(!state.exists(b"k", Moment(6)), "a reader would get the new process's bytes");
    let mut left: Vec<_> = state.segments().iter().map(|segment| segment.id).collect();
    left.sort_unstable();
    assert_eq!(left, [uuid(3), uuid(4)], "both that it overlaps are gone");
    // The dead one's last words change nothing.
    state.unmount(old.id, uuid(1)).expect("it is gone already");
    assert_eq!(state.segments().len(), 2);
}
