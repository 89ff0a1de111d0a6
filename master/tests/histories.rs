//! Random histories against a plain model, with time under the test's control: lifecycle, leases, ownership, the two
//! put timeouts, and the bytes in use, to the byte.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // helpers outside of test functions

mod common;

use std::collections::BTreeMap;

use common::{MIB, Random, segment, state, uuid};
use mooncake_master::moment::Moment;
use mooncake_master::policy::Policy;
use mooncake_master::state::{PutRequest, State};
use mooncake_wire::model::{ObjectMeta, ReplicaType, ReplicateConfig, Uuid};
use mooncake_wire::{ErrorCode, Outcome};

const LEASE_MS: u64 = 100;
const DISCARD_MS: u64 = 300;
const RELEASE_MS: u64 = 1000;

struct Known {
    length: u64,
    owner: Uuid,
    started: Moment,
    complete: bool,
    lease_until: Moment,
}

/// The simplest thing that has the same rules: a map, and a list of space that nobody may use yet.
#[derive(Default)]
struct Model {
    objects: BTreeMap<Vec<u8>, Known>,
    quarantine: Vec<(Moment, u64)>,
}

fn taken(length: u64) -> u64 {
    length.next_multiple_of(64)
}

impl Model {
    fn used(&self) -> u64 {
        self.objects.values().map(|known| taken(known.length)).sum::<u64>()
            + self.quarantine.iter().map(|(_, length)| taken(*length)).sum::<u64>()
    }

    fn settle(&mut self, now: Moment) {
        self.quarantine.retain(|(until, _)| *until > now);
        self.objects.retain(|_, known| known.complete || known.started.after_ms(RELEASE_MS) > now);
    }

    fn start(&mut self, key: &[u8], length: u64, owner: Uuid, upsert: bool, now: Moment) -> Outcome<()> {
        if key.is_empty() || length == 0 {
            return Err(ErrorCode::INVALID_PARAMS);
        }
        let fresh = Known { length, owner, started: now, complete: false, lease_until: Moment::NEVER };
        if let Some(old) = self.objects.remove(key) {
            let young = now.since_ms(old.started) < DISCARD_MS;
            if !upsert && (old.complete || young) {
                self.objects.insert(key.to_vec(), old);
                return Err(ErrorCode::OBJECT_ALREADY_EXISTS);
            }
            let in_place = old.complete && old.length == length && old.lease_until <= now;
            let until = if old.complete { old.lease_until } else { old.started.after_ms(RELEASE_MS) };
            if !in_place && until > now {
                self.quarantine.push((until, old.length));
            }
            let lease_until = if in_place { old.lease_until } else { Moment::NEVER };
            self.objects.insert(key.to_vec(), Known { lease_until, ..fresh });
            return Ok(());
        }
        self.objects.insert(key.to_vec(), fresh);
        Ok(())
    }

    fn end(&mut self, key: &[u8], client: Uuid, now: Moment) -> Outcome<()> {
        let known = self.objects.get_mut(key).ok_or(ErrorCode::OBJECT_NOT_FOUND)?;
        if known.owner != client {
            return Err(ErrorCode::ILLEGAL_CLIENT);
        }
        if !known.complete {
            known.complete = true;
            known.lease_until = now;
        }
        Ok(())
    }

    fn revoke(&mut self, key: &[u8], client: Uuid) -> Outcome<()> {
        let known = self.objects.get(key).ok_or(ErrorCode::OBJECT_NOT_FOUND)?;
        if known.owner != client {
            return Err(ErrorCode::ILLEGAL_CLIENT);
        }
        if known.complete {
            return Err(ErrorCode::INVALID_WRITE);
        }
        self.objects.remove(key);
        Ok(())
    }

    fn exists(&mut self, key: &[u8], now: Moment) -> bool {
        match self.objects.get_mut(key).filter(|known| known.complete) {
            Some(known) => {
                known.lease_until = known.lease_until.max(now.after_ms(LEASE_MS));
                true
            }
            None => false,
        }
    }

    fn remove(&mut self, key: &[u8], force: bool, now: Moment) -> Outcome<()> {
        let known = self.objects.get(key).ok_or(ErrorCode::OBJECT_NOT_FOUND)?;
        if !known.complete {
            return Err(ErrorCode::REPLICA_IS_NOT_READY);
        }
        if !force && known.lease_until > now {
            return Err(ErrorCode::OBJECT_HAS_LEASE);
        }
        self.objects.remove(key);
        Ok(())
    }

    fn remove_where(&mut self, force: bool, now: Moment, wanted: impl Fn(&[u8]) -> bool) -> i64 {
        let before = self.objects.len();
        self.objects
            .retain(|key, known| !(known.complete && (force || known.lease_until <= now) && wanted(key)));
        i64::try_from(before - self.objects.len()).expect("fits")
    }
}

fn policy() -> Policy {
    Policy {
        lease_ttl_ms: LEASE_MS,
        put_discard_ms: DISCARD_MS,
        put_release_ms: RELEASE_MS,
        client_ttl_ms: u64::MAX,
        eviction_high_watermark: 1.0,
        ..Policy::default()
    }
}

fn check(state: &State, model: &Model, now: Moment) {
    assert_eq!(state.usage().0, model.used(), "bytes in use at {now:?}");
    let totals = state.totals(now);
    assert_eq!(totals.objects, model.objects.len());
    let mut keys: Vec<Vec<u8>> = Vec::new();
    state.for_each_key(|key| keys.push(key.to_vec()));
    keys.sort();
    let complete: Vec<Vec<u8>> =
        model.objects.iter().filter(|(_, known)| known.complete).map(|(key, _)| key.clone()).collect();
    assert_eq!(keys, complete);
}

#[test]
fn random_histories_agree_with_the_model() {
    for seed in 0..60u64 {
        let mut random = Random(seed);
        let state = state(policy());
        let mut model = Model::default();
        let mut now = Moment(1);
        state.remount(&[segment(1, "a", 64 * MIB), segment(2, "b", 64 * MIB)], uuid(9), now).expect("mount");
        let config = ReplicateConfig::default();
        for step in 0..400 {
            now = now.after_ms(random.below(60));
            // The model forgets at once what the state forgets when it is looked at.
            state.look(now);
            model.settle(now);
            let key = format!("key{}", random.below(12)).into_bytes();
            let client = uuid(random.below(2));
            let request = PutRequest { client, config: &config, now };
            let context = format!("seed {seed} step {step}");
            match random.below(16) {
                0..=3 => {
                    let length = if random.below(20) == 0 { 0 } else { 1 + random.below(3) * 5000 };
                    let got =
                        state.put_start(&request, &key, length).map(|replicas| assert_eq!(replicas.len(), 1));
                    assert_eq!(got, model.start(&key, length, client, false, now), "{context}");
                }
                4 => {
                    let length = 1 + random.below(3) * 5000;
                    let got = state.upsert_start(&request, &key, length).map(|_| ());
                    assert_eq!(got, model.start(&key, length, client, true, now), "{context}");
                }
                5..=8 => {
                    let meta = ObjectMeta { key: &key, checksum: Some(7) };
                    let got = state.put_end(client, &meta, ReplicaType::ALL, now);
                    assert_eq!(got, model.end(&key, client, now), "{context}");
                }
                9 => {
                    let got = state.put_revoke(client, &key, ReplicaType::ALL);
                    assert_eq!(got, model.revoke(&key, client), "{context}");
                }
                10 | 11 => assert_eq!(state.exists(&key, now), model.exists(&key, now), "{context}"),
                12 => {
                    let processing = model.objects.get(&key).is_some_and(|known| !known.complete);
                    let found = model.exists(&key, now);
                    match state.replicas(&key, now) {
                        Ok(list) => {
                            assert!(found && list.lease_ttl_ms == LEASE_MS && list.checksum == Some(7))
                        }
                        Err(ErrorCode::REPLICA_IS_NOT_READY) => assert!(processing, "{context}"),
                        Err(code) => assert!(!found && !processing && code == ErrorCode::OBJECT_NOT_FOUND),
                    }
                }
                13 | 14 => {
                    let force = random.below(2) == 0;
                    assert_eq!(state.remove(&key, force, now), model.remove(&key, force, now), "{context}");
                }
                _ => {
                    let force = random.below(4) == 0;
                    if random.below(3) == 0 {
                        assert_eq!(
                            state.remove_all(force, now),
                            model.remove_where(force, now, |_| true),
                            "{context}"
                        );
                    } else {
                        let pattern = mooncake_master::state::pattern(b"y[0-5]").expect("pattern");
                        let wanted = |key: &[u8]| {
                            key.len() == 4 && key[3] <= b'5' || key == b"key10" || key == b"key11"
                        };
                        let got = state.remove_by_pattern(&pattern, force, now);
                        assert_eq!(got, model.remove_where(force, now, wanted), "{context}");
                    }
                }
            }
            check(&state, &model, now);
        }
    }
}

#[test]
fn a_late_writer_is_told_and_its_space_is_kept_until_it_cannot_write() {
    let state = state(policy());
    let config = ReplicateConfig::default();
    let (first, second) = (uuid(1), uuid(2));
    state.remount(&[segment(1, "a", MIB)], uuid(9), Moment(1)).expect("mount");
    let start =
        |client, now| state.put_start(&PutRequest { client, config: &config, now: Moment(now) }, b"k", 1000);
    let end = |client, now| {
        state.put_end(client, &ObjectMeta { key: b"k", checksum: None }, ReplicaType::ALL, Moment(now))
    };
    let old = common::place(&start(first, 10).expect("space")[0]);
    assert_eq!(start(second, 10 + DISCARD_MS - 1), Err(ErrorCode::OBJECT_ALREADY_EXISTS));
    let new = common::place(&start(second, 10 + DISCARD_MS).expect("pre-empted")[0]);
    assert_ne!(old.0, new.0, "the old writer may still write there");
    assert_eq!(end(first, 400), Err(ErrorCode::ILLEGAL_CLIENT));
    assert_eq!(end(second, 401), Ok(()));
    assert_eq!(end(second, 402), Ok(()), "again is success");
    assert_eq!(state.usage().0, 2048);
    state.look(Moment(10 + RELEASE_MS - 1));
    assert_eq!(state.usage().0, 2048);
    state.look(Moment(10 + RELEASE_MS));
    assert_eq!(state.usage().0, 1024);
    // One that was never pre-empted may end late.
    let meta = ObjectMeta { key: b"late", checksum: None };
    state
        .put_start(&PutRequest { client: first, config: &config, now: Moment(5000) }, b"late", 5)
        .expect("space");
    assert_eq!(state.put_end(first, &meta, ReplicaType::ALL, Moment(5000 + RELEASE_MS - 1)), Ok(()));
}

#[test]
fn bad_requests_have_their_codes() {
    let state = state(Policy::default());
    let now = Moment(1);
    state.remount(&[segment(1, "a", MIB)], uuid(9), now).expect("mount");
    let try_put = |config: &ReplicateConfig, key: &[u8], length| {
        state.put_start(&PutRequest { client: uuid(1), config, now }, key, length).map(|_| ())
    };
    let good = ReplicateConfig::default();
    let with = |change: fn(&mut ReplicateConfig)| {
        let mut config = ReplicateConfig::default();
        change(&mut config);
        config
    };
    assert_eq!(try_put(&good, b"", 1), Err(ErrorCode::INVALID_PARAMS));
    assert_eq!(try_put(&good, b"k", 0), Err(ErrorCode::INVALID_PARAMS));
    assert_eq!(try_put(&with(|config| config.replica_num = 0), b"k", 1), Err(ErrorCode::INVALID_PARAMS));
    assert_eq!(
        try_put(&with(|config| config.soft_pin_ttl_ms = Some(5)), b"k", 1),
        Err(ErrorCode::INVALID_PARAMS)
    );
    assert_eq!(try_put(&good, b"k", 2 * MIB), Err(ErrorCode::NO_AVAILABLE_HANDLE));
    assert_eq!(try_put(&good, &[0; 8192], 1), Ok(()));
    assert_eq!(try_put(&good, "schlüssel\0".as_bytes(), 1), Ok(()));
    let groups = with(|config| config.group_ids = Some(vec!["g".into()]));
    let request = PutRequest { client: uuid(1), config: &groups, now };
    let both = state.batch_put_start(&request, &[b"x", b"y"], &[1, 1]);
    assert_eq!(both, vec![Err(ErrorCode::INVALID_PARAMS), Err(ErrorCode::INVALID_PARAMS)]);
    let empty = state.batch_put_start(&request, &[b"x", b"y"], &[1]);
    assert_eq!(empty.len(), 2);
    assert!(mooncake_master::state::pattern(b"(").is_err());
    let mut wrong = segment(5, "z", MIB);
    wrong.base = 0;
    assert_eq!(state.mount(&wrong, uuid(9), now), Err(ErrorCode::INVALID_PARAMS));
    assert_eq!(state.unmount(uuid(77), uuid(9)), Ok(()), "an unknown segment is unmounted already");
}
