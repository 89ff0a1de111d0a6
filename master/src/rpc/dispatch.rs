//! From a frame to the state and back.

use std::cell::Cell;

use mooncake_wire::codec::Map;
use mooncake_wire::error::EncodeError;
use mooncake_wire::frame::{self, RequestHeader};
use mooncake_wire::lists::{self, Entries};
use mooncake_wire::message;
use mooncake_wire::method::*;
use mooncake_wire::model::{StorageConfig, Uuid};
use mooncake_wire::{
    DecodeError, ErrorCode, Function, Outcome, Profile, RpcError, STORE_VERSION, other_releases,
};

use super::connection::Peer;
use super::tally::Tally;
use super::unavailable;
use crate::moment::Moment;
use crate::state::{PutRequest, State, pattern};

/// One call.
pub(super) struct Call<'c> {
    pub(super) state: &'c State,
    /// The release that is spoken whatever the peer shows.
    pub(super) fixed: Option<Profile>,
    pub(super) now: Moment,
    pub(super) header: RequestHeader,
    /// The function that the header names, if it is one.
    pub(super) function: Option<Function>,
    pub(super) body: &'c [u8],
    /// The client that has pinged or mounted by this call.
    pub(super) heard: Cell<Option<Uuid>>,
}

/// Whether a call looks at every object, so that it takes as long as there are many.
pub(super) const fn is_long(function: Function) -> bool {
    matches!(
        function,
        Function::GetReplicaListByRegex
            | Function::RemoveAll
            | Function::RemoveByRegex
            | Function::UnmountSegment
    )
}

/// Why a call was not carried out.
enum Failure {
    Decode(DecodeError),
    Encode(EncodeError),
}

impl<'c> Call<'c> {
    /// Appends the answer to `out`.
    pub(super) fn answer(&self, peer: &mut Peer, out: &mut Vec<u8>) {
        let Some(function) = self.function else {
            log::debug!("{}: unknown function id {:08x}", peer.address, self.header.function_id);
            self.refuse(out, RpcError::NO_FUNCTION, "the rpc function not registered");
            return;
        };
        let Some(profile) = self.profile(function, peer) else {
            let text = format!("invalid rpc arg: {}", self.complain(function, peer));
            self.refuse(out, RpcError::INVALID_ARGUMENTS, &text);
            return;
        };
        if profile.signature(function).is_none() {
            self.refuse(out, RpcError::NO_FUNCTION, "the rpc function not registered");
            return;
        }
        let done = match unavailable::answer(function) {
            Some(code) => self.unavailable(function, profile, code, out),
            None => self.call(function, profile, out),
        };
        if let Some(client) = self.heard.get() {
            peer.heard(self.state, client);
        }
        match done {
            Ok(()) => {}
            Err(Failure::Decode(error)) => {
                log::warn!("{}: {function}: {error}", peer.address);
                self.refuse(out, RpcError::INVALID_ARGUMENTS, &format!("invalid rpc arg: {error}"));
            }
            Err(Failure::Encode(error)) => {
                log::error!("{}: {function}: {error}", peer.address);
                self.refuse(out, RpcError::INTERRUPTED, &error.to_string());
            }
        }
    }

    /// The release of this call: the fixed one, else the one that its arguments belong to.
    fn profile(&self, function: Function, peer: &mut Peer) -> Option<Profile> {
        let hash = message::type_hash(self.body);
        let fits = |profile: &Profile| match profile.signature(function) {
            Some(signature) => signature.arguments_hash.is_none() || signature.arguments_hash == hash,
            None => true,
        };
        if let Some(fixed) = self.fixed {
            return Some(fixed).filter(fits);
        }
        let known = peer.profile.unwrap_or_default();
        if fits(&known) {
            return Some(known);
        }
        let shown = Profile::with_arguments(function, hash?).next()?;
        log::debug!("{}: speaks release {shown}", peer.address);
        peer.profile = Some(shown);
        Some(shown)
    }

    /// Says, once per connection, which release calls.
    fn complain(&self, function: Function, peer: &mut Peer) -> String {
        self.state.metrics().release_mismatches.increment();
        let hash = message::type_hash(self.body).unwrap_or(0);
        let known = Profile::with_arguments(function, hash).next().map(Profile::release);
        let release =
            known.or_else(|| other_releases::release_of(function, hash)).unwrap_or("unknown to this master");
        let spoken = self.fixed.map_or_else(
            || Profile::ALL.iter().map(|profile| profile.release()).collect::<Vec<_>>().join(" and "),
            |profile| profile.release().to_owned(),
        );
        let text =
            format!("{function}: arguments {hash:08x} are of release {release}; this master speaks {spoken}");
        if !std::mem::replace(&mut peer.complained, true) {
            log::warn!("{}: {text}", peer.address);
        }
        text
    }

    fn refuse(&self, out: &mut Vec<u8>, code: u8, text: &str) {
        if let Err(error) = RpcError::respond(out, self.header.sequence, code, text) {
            log::error!("a refusal could not be written: {error}");
        }
    }

    fn unavailable(
        &self,
        function: Function,
        profile: Profile,
        code: ErrorCode,
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        if function == Function::BatchEvictDiskReplica {
            return self
                .run::<BatchEvictDiskReplica<'_>>(profile, out, |call| vec![Err(code); call.keys.len()]);
        }
        if let Some(calls) = self.state.metrics().calls(function) {
            calls.single(true);
        }
        frame::response(out, self.header.sequence, 0, |body| profile.encode_refusal(function, code, body))
            .map_err(Failure::Encode)
    }

    /// Reads the arguments, runs the call, writes its answer.
    fn run<M: Method<'c>>(
        &self,
        profile: Profile,
        out: &mut Vec<u8>,
        run: impl FnOnce(M) -> M::Reply,
    ) -> Result<(), Failure>
    where
        M::Reply: Tally,
    {
        let reply = run(profile.decode_request::<M>(self.body).map_err(Failure::Decode)?);
        if let Some(calls) = self.state.metrics().calls(M::FUNCTION) {
            reply.tally(calls);
        }
        frame::response(out, self.header.sequence, 0, |body| profile.encode_reply::<M>(&reply, body))
            .map_err(Failure::Encode)
    }

    /// Reads the arguments of a batch and runs it; the answer is written by whoever knows it, entry by entry.
    fn tell<M: Method<'c>>(
        &self,
        profile: Profile,
        out: &mut Vec<u8>,
        count: impl FnOnce(&M) -> usize,
        run: impl FnOnce(&M, &mut Entries<'_>),
    ) -> Result<(), Failure> {
        let call = profile.decode_request::<M>(self.body).map_err(Failure::Decode)?;
        let (count, mut failed) = (count(&call), 0);
        let longest_name = self.state.longest_name();
        frame::response(out, self.header.sequence, 0, |body| {
            lists::encode_entries::<M>(profile, body, count, longest_name, |entries| {
                run(&call, entries);
                failed = entries.failed();
            })
        })
        .map_err(Failure::Encode)?;
        if let Some(calls) = self.state.metrics().calls(M::FUNCTION) {
            calls.batch(count, failed);
        }
        Ok(())
    }

    fn call(&self, function: Function, profile: Profile, out: &mut Vec<u8>) -> Result<(), Failure> {
        let (state, now) = (self.state, self.now);
        match function {
            Function::ServiceReady => {
                self.run::<ServiceReady>(profile, out, |_| Ok(STORE_VERSION.to_owned()))
            }
            Function::GetFsdir => self.run::<GetFsdir>(profile, out, |_| Ok(String::new())),
            Function::GetStorageConfig => self.run::<GetStorageConfig>(profile, out, |_| {
                Ok(StorageConfig { fsdir: String::new(), enable_disk_eviction: true, quota_bytes: 0 })
            }),
            Function::Ping => self.run::<Ping>(profile, out, |call| {
                self.heard.set(Some(call.client));
                Ok(state.ping(call.client, now))
            }),
            Function::MountSegment => self.run::<MountSegment>(profile, out, |call| {
                self.heard.set(Some(call.client));
                state.mount(&call.segment, call.client, now)
            }),
            Function::ReMountSegment => self.run::<ReMountSegment>(profile, out, |call| {
                self.heard.set(Some(call.client));
                state.remount(&call.segments, call.client, now)
            }),
            Function::UnmountSegment => {
                self.run::<UnmountSegment>(profile, out, |call| state.unmount(call.segment, call.client))
            }
            Function::GracefulUnmountSegment => self.run::<GracefulUnmountSegment>(profile, out, |call| {
                state.unmount_later(call.segment, call.client, call.grace_ms, now)
            }),
            Function::BatchQueryIp => {
                self.run::<BatchQueryIp>(profile, out, |call| Ok(Map(state.hosts(&call.clients))))
            }
            Function::QuerySegmentStatus => self.run::<QuerySegmentStatus>(profile, out, |call| {
                state.segment_status(&call.name).map(|status| status.upstream().0)
            }),
            Function::QuerySegmentStatusById => self.run::<QuerySegmentStatusById>(profile, out, |call| {
                state.segment_status_by_id(call.segment).map(|status| status.upstream().0)
            }),
            Function::FetchTasks => self.run::<FetchTasks>(profile, out, |_| Ok(Vec::new())),
            Function::ExistKey => {
                self.run::<ExistKey<'_>>(profile, out, |call| Ok(state.exists(call.key, now)))
            }
            Function::BatchExistKey => self.tell::<BatchExistKey<'_>>(
                profile,
                out,
                |call| call.keys.len(),
                |call, entries| state.tell_exists(&call.keys, now, entries),
            ),
            Function::GetReplicaList => {
                self.run::<GetReplicaList<'_>>(profile, out, |call| state.replicas(call.key, now))
            }
            Function::BatchGetReplicaList => self.tell::<BatchGetReplicaList<'_>>(
                profile,
                out,
                |call| call.keys.len(),
                |call, entries| state.tell_replicas(&call.keys, now, entries),
            ),
            Function::GetReplicaListByRegex => self.run::<GetReplicaListByRegex<'_>>(profile, out, |call| {
                pattern(call.pattern).map(|pattern| Map(state.replicas_by_pattern(&pattern, now)))
            }),
            Function::BatchReplicaClear => self.run::<BatchReplicaClear<'_>>(profile, out, |call| {
                Ok(state.clear_replicas(&call.keys, call.client, &call.segment_name, now))
            }),
            Function::PutStart => self.run::<PutStart<'_>>(profile, out, |call| {
                state.put_start(
                    &PutRequest { client: call.client, config: &call.config, now },
                    call.key,
                    call.length,
                )
            }),
            Function::PutEnd => self.run::<PutEnd<'_>>(profile, out, |call| {
                state.put_end(call.client, &call.object, call.replica_type, now)
            }),
            Function::PutRevoke => self.run::<PutRevoke<'_>>(profile, out, |call| {
                state.put_revoke(call.client, call.key, call.replica_type)
            }),
            Function::BatchPutStart => self.tell::<BatchPutStart<'_>>(
                profile,
                out,
                |call| call.keys.len(),
                |call, entries| {
                    let request = PutRequest { client: call.client, config: &call.config, now };
                    state.tell_put_start(&request, &call.keys, &call.lengths, entries);
                },
            ),
            Function::BatchPutEnd => self.tell::<BatchPutEnd<'_>>(
                profile,
                out,
                |call| call.objects.len(),
                |call, entries| {
                    state.tell_put_end(call.client, &call.objects, call.replica_type, now, entries);
                },
            ),
            Function::BatchPutRevoke => self.run::<BatchPutRevoke<'_>>(profile, out, |call| {
                call.keys.iter().map(|key| state.put_revoke(call.client, key, call.replica_type)).collect()
            }),
            Function::UpsertStart => self.run::<UpsertStart<'_>>(profile, out, |call| {
                state.upsert_start(
                    &PutRequest { client: call.client, config: &call.config, now },
                    call.key,
                    call.length,
                )
            }),
            Function::UpsertEnd => self.run::<UpsertEnd<'_>>(profile, out, |call| {
                state.put_end(call.client, &call.object, call.replica_type, now)
            }),
            Function::UpsertRevoke => self.run::<UpsertRevoke<'_>>(profile, out, |call| {
                state.put_revoke(call.client, call.key, call.replica_type)
            }),
            Function::BatchUpsertStart => self.tell::<BatchUpsertStart<'_>>(
                profile,
                out,
                |call| call.keys.len(),
                |call, entries| {
                    let request = PutRequest { client: call.client, config: &call.config, now };
                    state.tell_upsert_start(&request, &call.keys, &call.lengths, entries);
                },
            ),
            Function::BatchUpsertEnd => self.tell::<BatchUpsertEnd<'_>>(
                profile,
                out,
                |call| call.objects.len(),
                |call, entries| {
                    state.tell_put_end(call.client, &call.objects, Default::default(), now, entries);
                },
            ),
            Function::BatchUpsertRevoke => self.run::<BatchUpsertRevoke<'_>>(profile, out, |call| {
                call.keys.iter().map(|key| state.put_revoke(call.client, key, Default::default())).collect()
            }),
            Function::Remove => {
                self.run::<Remove<'_>>(profile, out, |call| state.remove(call.key, call.force, now))
            }
            Function::BatchRemove => self.run::<BatchRemove<'_>>(profile, out, |call| {
                call.keys.iter().map(|key| state.remove(key, call.force, now)).collect()
            }),
            Function::RemoveByRegex => self.run::<RemoveByRegex<'_>>(profile, out, |call| -> Outcome<i64> {
                pattern(call.pattern).map(|pattern| state.remove_by_pattern(&pattern, call.force, now))
            }),
            Function::RemoveAll => {
                self.run::<RemoveAll<'_>>(profile, out, |call| state.remove_all(call.force, now))
            }
            // `unavailable` lists the others.
            _ => self.unavailable(function, profile, ErrorCode::NOT_SUPPORTED, out),
        }
    }
}
