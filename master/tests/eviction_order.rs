//! Who is evicted, in which order, and who never: against a plain sort of everything.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // helpers outside of test functions

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{MIB, Random, put, segment, state, uuid};
use mooncake_master::moment::Moment;
use mooncake_master::policy::Policy;
use mooncake_master::state::State;
use mooncake_wire::ErrorCode;
use mooncake_wire::model::{ReplicateConfig, SoftPinAction};

fn keys(state: &State) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    state.for_each_key(|key| {
        keys.insert(String::from_utf8(key.to_vec()).expect("text"));
    });
    keys
}

fn plain() -> ReplicateConfig {
    ReplicateConfig::default()
}

#[test]
fn a_put_on_a_full_pool_evicts_the_oldest_within_the_call() {
    let state = state(Policy { eviction_ratio: 0.1, lease_ttl_ms: 100, ..Policy::default() });
    state.remount(&[segment(1, "a", 64 * MIB)], uuid(9), Moment(1)).expect("mount");
    for index in 0..64u64 {
        put(&state, uuid(1), format!("k{index:02}").as_bytes(), MIB, &plain(), Moment(10 + index))
            .expect("space");
    }
    assert_eq!(state.usage(), (64 * MIB, 64 * MIB));
    // The first ten are read, so that they are the youngest when their leases are over.
    for index in 0..10 {
        assert!(state.exists(format!("k{index:02}").as_bytes(), Moment(1000)));
    }
    let now = Moment(2000);
    put(&state, uuid(1), b"new", MIB, &plain(), now).expect("evicts and retries");
    let left = keys(&state);
    assert!(left.contains("new"));
    // Above the watermark of 0.9 by 0.1: the ratio is added, a fifth of 64 goes, rounded up.
    let gone: Vec<u64> = (0..64).filter(|index| !left.contains(&format!("k{index:02}"))).collect();
    assert_eq!(gone, (10..23).collect::<Vec<_>>());
    assert_eq!(state.metrics().evicted_objects.get(), 13);
    assert_eq!(state.metrics().evictions_in_put.get(), 1);
}

#[test]
fn a_lease_protects_and_a_pool_of_leases_is_full() {
    let state = state(Policy { lease_ttl_ms: 1000, ..Policy::default() });
    state.remount(&[segment(1, "a", 4 * MIB)], uuid(9), Moment(1)).expect("mount");
    for key in ["a", "b", "c", "d"] {
        put(&state, uuid(1), key.as_bytes(), MIB, &plain(), Moment(10)).expect("space");
        assert!(state.exists(key.as_bytes(), Moment(10)));
    }
    assert_eq!(put(&state, uuid(1), b"e", MIB, &plain(), Moment(1009)), Err(ErrorCode::NO_AVAILABLE_HANDLE));
    assert_eq!(keys(&state).len(), 4);
    put(&state, uuid(1), b"e", MIB, &plain(), Moment(1030)).expect("the leases are over");
}

#[test]
fn hard_pins_stay_and_soft_pins_go_last() {
    let state = state(Policy { lease_ttl_ms: 1, ..Policy::default() });
    state.remount(&[segment(1, "a", 4 * MIB)], uuid(9), Moment(1)).expect("mount");
    let hard = ReplicateConfig { with_hard_pin: true, ..plain() };
    let soft = ReplicateConfig { soft_pin_action: SoftPinAction::Enable, ..plain() };
    put(&state, uuid(1), b"hard", MIB, &hard, Moment(10)).expect("space");
    put(&state, uuid(1), b"soft", MIB, &soft, Moment(11)).expect("space");
    put(&state, uuid(1), b"old", MIB, &plain(), Moment(12)).expect("space");
    put(&state, uuid(1), b"young", MIB, &plain(), Moment(13)).expect("space");
    let set = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<BTreeSet<_>>();
    put(&state, uuid(1), b"1", MIB, &hard, Moment(100)).expect("old goes");
    assert_eq!(keys(&state), set(&["hard", "soft", "young", "1"]));
    put(&state, uuid(1), b"2", MIB, &hard, Moment(200)).expect("young goes");
    assert_eq!(keys(&state), set(&["hard", "soft", "1", "2"]));
    put(&state, uuid(1), b"3", MIB, &hard, Moment(300)).expect("soft goes when nothing else is left");
    assert_eq!(keys(&state), set(&["hard", "1", "2", "3"]));
    assert_eq!(put(&state, uuid(1), b"4", MIB, &plain(), Moment(400)), Err(ErrorCode::NO_AVAILABLE_HANDLE));
    // A hard pin does not stand in the way of a removal.
    assert_eq!(state.remove(b"1", false, Moment(500)), Ok(()));
}

#[test]
fn soft_pins_are_kept_where_that_is_asked_for_and_end_by_themselves() {
    let policy =
        Policy { evict_soft_pinned: false, lease_ttl_ms: 1, soft_pin_ttl_ms: 5000, ..Policy::default() };
    let state = state(policy);
    state.remount(&[segment(1, "a", MIB)], uuid(9), Moment(1)).expect("mount");
    let soft = ReplicateConfig { soft_pin_action: SoftPinAction::Enable, ..plain() };
    put(&state, uuid(1), b"soft", MIB, &soft, Moment(10)).expect("space");
    assert_eq!(state.totals(Moment(5009)).soft_pinned, 1);
    assert_eq!(put(&state, uuid(1), b"x", MIB, &plain(), Moment(5009)), Err(ErrorCode::NO_AVAILABLE_HANDLE));
    assert_eq!(state.totals(Moment(5010)).soft_pinned, 0);
    put(&state, uuid(1), b"x", MIB, &plain(), Moment(5030)).expect("the pin is over");
}

#[test]
fn a_group_goes_whole_and_one_lease_keeps_it() {
    let state = state(Policy { lease_ttl_ms: 1000, eviction_ratio: 0.01, ..Policy::default() });
    state.remount(&[segment(1, "a", 8 * MIB)], uuid(9), Moment(1)).expect("mount");
    let grouped = |group: &str| ReplicateConfig { group_ids: Some(vec![group.to_owned()]), ..plain() };
    let start = |key: &str, config: &ReplicateConfig, now| {
        put(&state, uuid(1), key.as_bytes(), MIB, config, Moment(now)).expect("space");
    };
    for (index, key) in ["g1", "g2", "g3"].iter().enumerate() {
        start(key, &grouped("g"), 10 + index as u64);
    }
    for (index, key) in ["h1", "h2"].iter().enumerate() {
        start(key, &grouped("h"), 20 + index as u64);
    }
    for (index, key) in ["s1", "s2", "s3"].iter().enumerate() {
        start(key, &plain(), 30 + index as u64);
    }
    // The oldest group holds one lease.
    assert!(state.exists(b"g2", Moment(5000)));
    start("new", &plain(), 5001);
    let left = keys(&state);
    assert!(left.contains("g1") && left.contains("g2") && left.contains("g3"), "{left:?}");
    assert!(!left.contains("h1") && !left.contains("h2"), "the next oldest goes whole: {left:?}");
}

/// Many objects with random ages, leases and pins; the watermark's eviction takes exactly what a sort takes.
#[test]
fn like_a_sort_of_everything() {
    for seed in 0..40 {
        let mut random = Random(seed);
        let ratio = [0.05, 0.1, 0.3][usize::try_from(random.below(3)).expect("fits")];
        let watermark = 0.5;
        let policy = Policy {
            eviction_ratio: ratio,
            eviction_high_watermark: watermark,
            lease_ttl_ms: 50,
            soft_pin_ttl_ms: 1_000_000,
            ..Policy::default()
        };
        let state = state(policy);
        let count = 100 + random.below(100);
        state.remount(&[segment(1, "a", 200 * 64)], uuid(9), Moment(1)).expect("mount");
        let mut model: BTreeMap<String, (u64, bool, bool)> = BTreeMap::new();
        for index in 0..count {
            let at = 10 + random.below(300);
            let (soft, hard) = (random.below(4) == 0, random.below(6) == 0);
            let action = if soft { SoftPinAction::Enable } else { SoftPinAction::Preserve };
            let config = ReplicateConfig { soft_pin_action: action, with_hard_pin: hard, ..plain() };
            let key = format!("k{index:03}");
            put(&state, uuid(1), key.as_bytes(), 64, &config, Moment(at)).expect("space");
            let mut lease = at;
            if random.below(3) == 0 {
                let read = 300 + random.below(100);
                assert!(state.exists(key.as_bytes(), Moment(read)));
                lease = read + 50;
            }
            model.insert(key, (lease, soft, hard));
        }
        let now = 420;
        state.evict_if_needed(Moment(now));

        let used = count as f64 / 200.0;
        let over = used - watermark;
        let (mut expected, evictable): (BTreeSet<String>, Vec<_>) =
            (model.keys().cloned().collect(), model.iter().filter(|(_, (_, _, hard))| !hard).collect());
        if over > 0.0 {
            let target = ratio.max(over + ratio);
            let lower = (target / 2.0).max(over);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a small count
            let part = |fraction: f64| (fraction * evictable.len() as f64).ceil() as usize;
            let take = |soft_pinned: bool, wanted: usize| -> Vec<String> {
                let mut ages: Vec<u64> = evictable
                    .iter()
                    .filter(|(_, (lease, soft, _))| *lease <= now && *soft == soft_pinned)
                    .map(|(_, (lease, _, _))| *lease)
                    .collect();
                ages.sort_unstable();
                let Some(cutoff) = ages.get(wanted.min(ages.len()).wrapping_sub(1)).copied() else {
                    return Vec::new();
                };
                evictable
                    .iter()
                    .filter(|(_, (lease, soft, _))| *lease <= cutoff && *soft == soft_pinned)
                    .map(|(key, _)| (*key).clone())
                    .collect()
            };
            let first = take(false, part(target));
            let missing = part(lower).saturating_sub(first.len());
            let second = if missing > 0 { take(true, missing) } else { Vec::new() };
            for key in first.iter().chain(&second) {
                expected.remove(key);
            }
        }
        assert_eq!(keys(&state), expected, "seed {seed}");
        assert_eq!(state.usage().0, expected.len() as u64 * 64, "seed {seed}");
    }
}

#[test]
fn metadata_stays_under_its_budget_and_is_given_back() {
    let budget = 200_000;
    let policy = Policy { metadata_budget_bytes: budget, lease_ttl_ms: 1, ..Policy::default() };
    let state = state(policy);
    state.remount(&[segment(1, "a", 1 << 40)], uuid(9), Moment(1)).expect("mount");
    for index in 0..10_000u64 {
        let now = Moment(10 + index);
        put(&state, uuid(1), format!("key-{index:06}").as_bytes(), 64, &plain(), now)
            .expect("evicts for metadata");
        state.evict_if_needed(now);
        assert!(state.metadata_bytes() <= budget);
    }
    let left = keys(&state);
    assert!(
        left.contains("key-009999") && !left.contains("key-000000") && left.len() > 300,
        "{}",
        left.len()
    );
    state.remove_all(true, Moment(100_000));
    assert_eq!((state.metadata_bytes(), state.usage().0), (0, 0));
}

#[test]
fn an_upsert_keeps_the_pins_of_its_key() {
    let state = state(Policy { lease_ttl_ms: 1, ..Policy::default() });
    state.remount(&[segment(1, "a", 4 * MIB)], uuid(9), Moment(1)).expect("mount");
    let pinned = ReplicateConfig { with_hard_pin: true, soft_pin_action: SoftPinAction::Enable, ..plain() };
    put(&state, uuid(1), b"k", 100, &pinned, Moment(10)).expect("space");
    let config = plain();
    for (length, now) in [(100, 20), (3000, 30)] {
        let request =
            mooncake_master::state::PutRequest { client: uuid(2), config: &config, now: Moment(now) };
        state.upsert_start(&request, b"k", length).expect("in place, then elsewhere");
        let meta = mooncake_wire::model::ObjectMeta { key: b"k", checksum: None };
        state.put_end(uuid(2), &meta, Default::default(), Moment(now)).expect("end");
        assert_eq!(state.totals(Moment(now)).soft_pinned, 1);
    }
    for index in 0..10 {
        put(&state, uuid(1), format!("n{index}").as_bytes(), MIB, &plain(), Moment(100 + index))
            .expect("evicts");
    }
    assert!(keys(&state).contains("k"), "it is hard-pinned still");
    // Taking the soft pin back is said explicitly.
    let off = ReplicateConfig { soft_pin_action: SoftPinAction::Disable, ..plain() };
    let request = mooncake_master::state::PutRequest { client: uuid(2), config: &off, now: Moment(300) };
    state.upsert_start(&request, b"k", 3000).expect("in place");
    assert_eq!(state.totals(Moment(300)).soft_pinned, 0);
}
