//! The calls: argument struct, answer type and layout of each function that we send or answer with meaning.
//!
//! Between the two profiles the argument lists differ only in the trailing tenant and in what an `ObjectMeta` is,
//! so one declaration serves both.

use crate::code::Outcome;
use crate::codec::{Map, Pack, Reader, Shape, Unpack, Writer};
use crate::error::DecodeError;
use crate::function::Function;
use crate::literal::{Literal, tags};
use crate::model::{
    ObjectMeta, PingAnswer, Replica, ReplicaList, ReplicaType, ReplicateConfig, Segment, StorageConfig,
    TaskAssignment, Tenant, Uuid,
};
use crate::profile::{V0_3_11, V0_3_13};

/// The argument list of a call in the profile `P`.
pub trait Arguments<'a, P>: Sized {
    /// Its literal; `None` for a call without arguments, whose body is empty.
    const LITERAL: Option<Literal>;
    /// Longest string or container inside.
    fn longest(&self) -> usize;
    /// Writes the payload.
    fn pack(&self, writer: &mut Writer<'_>);
    /// Reads the payload.
    ///
    /// # Errors
    /// The message is truncated, a length is above its limit, or a byte is out of range.
    fn unpack(reader: &mut Reader<'a>) -> Result<Self, DecodeError>;
}

/// A value that may stand in an answer: it is written and read in every profile.
pub trait Answer:
    Pack<V0_3_13> + Pack<V0_3_11> + for<'r> Unpack<'r, V0_3_13> + for<'r> Unpack<'r, V0_3_11>
{
}

impl<T> Answer for T where
    T: Pack<V0_3_13> + Pack<V0_3_11> + for<'r> Unpack<'r, V0_3_13> + for<'r> Unpack<'r, V0_3_11>
{
}

/// A call.
pub trait Method<'a>: Arguments<'a, V0_3_13> + Arguments<'a, V0_3_11> {
    /// The function that is called.
    const FUNCTION: Function;
    /// What it answers.
    type Reply: Answer;
}

/// One argument is spelled as itself, several as a tuple.
#[expect(
    clippy::indexing_slicing,
    reason = "evaluated at compile time, where a wrong index is a build error"
)]
const fn argument_list(members: &[Literal]) -> Option<Literal> {
    match members.len() {
        0 => None,
        1 => Some(members[0]),
        _ => {
            let mut literal = Literal::tag(tags::STRUCT);
            let mut index = 0;
            while index < members.len() {
                literal = literal.then(&members[index]);
                index += 1;
            }
            Some(literal.with(tags::END))
        }
    }
}

macro_rules! arguments {
    ($profile:ty, $name:ident $(<$life:lifetime>)? { $($field:ident: $type:ty,)* }) => {
        impl<'a> Arguments<'a, $profile> for $name$(<$life>)? {
            const LITERAL: Option<Literal> = argument_list(&[$(<$type as Shape<$profile>>::LITERAL),*]);
            fn longest(&self) -> usize {
                0usize $(.max(<$type as Pack<$profile>>::longest(&self.$field)))*
            }
            #[allow(unused_variables)] // a call without arguments writes nothing
            fn pack(&self, writer: &mut Writer<'_>) {
                $(<$type as Pack<$profile>>::pack(&self.$field, writer);)*
            }
            #[allow(unused_variables, clippy::needless_update)] // the same, and nothing is left to default
            fn unpack(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
                Ok(Self {
                    $($field: <$type as Unpack<'a, $profile>>::unpack(reader)?,)*
                    ..Default::default()
                })
            }
        }
    };
}

macro_rules! methods {
    ($(
        $(#[$doc:meta])*
        $name:ident { $($field:ident: $type:ty),* } -> $reply:ty;
    )*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Default)]
        #[allow(missing_docs)] // the fields are the arguments; their types say what they are
        pub struct $name { $(pub $field: $type,)* }
        arguments!(V0_3_13, $name { $($field: $type,)* });
        arguments!(V0_3_11, $name { $($field: $type,)* });
        impl<'a> Method<'a> for $name {
            const FUNCTION: Function = Function::$name;
            type Reply = $reply;
        }
    )*};
}

macro_rules! tenant_methods {
    ($(
        $(#[$doc:meta])*
        $name:ident { $($field:ident: $type:ty),* } -> $reply:ty;
    )*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Default)]
        #[expect(missing_docs, reason = "the fields are the arguments; their types say what they are")]
        pub struct $name<'a> { $(pub $field: $type,)* pub tenant: Tenant<'a> }
        arguments!(V0_3_13, $name<'a> { $($field: $type,)* tenant: Tenant<'a>, });
        arguments!(V0_3_11, $name<'a> { $($field: $type,)* });
        impl<'a> Method<'a> for $name<'a> {
            const FUNCTION: Function = Function::$name;
            type Reply = $reply;
        }
    )*};
}

methods! {
    /// The first call of a connection; answers the version of the store.
    ServiceReady {} -> Outcome<String>;
    /// Where the shared file system is; empty is none.
    GetFsdir {} -> Outcome<String>;
    /// Where the shared file system is and how much it may hold.
    GetStorageConfig {} -> Outcome<StorageConfig>;
    /// A sign of life; answers whether the client must mount again.
    Ping { client: Uuid } -> Outcome<PingAnswer>;
    /// Lends a segment to the pool; again for the same id is success.
    MountSegment { segment: Segment, client: Uuid } -> Outcome<()>;
    /// Lends all segments of a client; the call that makes the client known.
    ReMountSegment { segments: Vec<Segment>, client: Uuid } -> Outcome<()>;
    /// Takes a segment back; an unknown one is success.
    UnmountSegment { segment: Uuid, client: Uuid } -> Outcome<()>;
    /// Takes a segment back after a time in which it is still read.
    GracefulUnmountSegment { segment: Uuid, client: Uuid, grace_ms: u64 } -> Outcome<()>;
    /// The names of the hosts of some clients' segments.
    BatchQueryIp { clients: Vec<Uuid> } -> Outcome<Map<Uuid, Vec<String>>>;
    /// State of the segments of this name.
    QuerySegmentStatus { name: String } -> Outcome<i32>;
    /// State of one segment.
    QuerySegmentStatusById { segment: Uuid } -> Outcome<i32>;
    /// The tasks that wait for a client.
    FetchTasks { client: Uuid, limit: u64 } -> Outcome<Vec<TaskAssignment>>;
}

tenant_methods! {
    /// Whether an object is readable; true grants a lease.
    ExistKey { key: &'a [u8] } -> Outcome<bool>;
    /// `ExistKey` of many.
    BatchExistKey { keys: Vec<&'a [u8]> } -> Vec<Outcome<bool>>;
    /// The replicas of an object; grants a lease.
    GetReplicaList { key: &'a [u8] } -> Outcome<ReplicaList>;
    /// `GetReplicaList` of many.
    BatchGetReplicaList { keys: Vec<&'a [u8]> } -> Vec<Outcome<ReplicaList>>;
    /// The replicas of all objects whose key the pattern finds.
    GetReplicaListByRegex { pattern: &'a [u8] } -> Outcome<Map<Box<[u8]>, Vec<Replica>>>;
    /// Allocates space for a new object.
    PutStart { client: Uuid, key: &'a [u8], length: u64, config: ReplicateConfig } -> Outcome<Vec<Replica>>;
    /// Makes an object readable.
    PutEnd { client: Uuid, object: ObjectMeta<'a>, replica_type: ReplicaType } -> Outcome<()>;
    /// Gives up a put.
    PutRevoke { client: Uuid, key: &'a [u8], replica_type: ReplicaType } -> Outcome<()>;
    /// `PutStart` of many.
    BatchPutStart { client: Uuid, keys: Vec<&'a [u8]>, lengths: Vec<u64>, config: ReplicateConfig } -> Vec<Outcome<Vec<Replica>>>;
    /// `PutEnd` of many.
    BatchPutEnd { client: Uuid, objects: Vec<ObjectMeta<'a>>, replica_type: ReplicaType } -> Vec<Outcome<()>>;
    /// `PutRevoke` of many.
    BatchPutRevoke { client: Uuid, keys: Vec<&'a [u8]>, replica_type: ReplicaType } -> Vec<Outcome<()>>;
    /// Allocates space for a new value of an object that may exist.
    UpsertStart { client: Uuid, key: &'a [u8], length: u64, config: ReplicateConfig } -> Outcome<Vec<Replica>>;
    /// Makes the new value readable.
    UpsertEnd { client: Uuid, object: ObjectMeta<'a>, replica_type: ReplicaType } -> Outcome<()>;
    /// Gives up an upsert.
    UpsertRevoke { client: Uuid, key: &'a [u8], replica_type: ReplicaType } -> Outcome<()>;
    /// `UpsertStart` of many.
    BatchUpsertStart { client: Uuid, keys: Vec<&'a [u8]>, lengths: Vec<u64>, config: ReplicateConfig } -> Vec<Outcome<Vec<Replica>>>;
    /// `UpsertEnd` of many.
    BatchUpsertEnd { client: Uuid, objects: Vec<ObjectMeta<'a>> } -> Vec<Outcome<()>>;
    /// `UpsertRevoke` of many.
    BatchUpsertRevoke { client: Uuid, keys: Vec<&'a [u8]> } -> Vec<Outcome<()>>;
    /// Removes an object; force overrides leases.
    Remove { key: &'a [u8], force: bool } -> Outcome<()>;
    /// `Remove` of many.
    BatchRemove { keys: Vec<&'a [u8]>, force: bool } -> Vec<Outcome<()>>;
    /// Removes all objects whose key the pattern finds; answers how many.
    RemoveByRegex { pattern: &'a [u8], force: bool } -> Outcome<i64>;
    /// Removes all objects; answers how many.
    RemoveAll { force: bool } -> i64;
}

/// Drops the file replicas of some objects. It stands here so that its answer has one entry for each key.
#[derive(Debug, Clone, PartialEq, Default)]
#[expect(missing_docs, reason = "the fields are the arguments; their types say what they are")]
pub struct BatchEvictDiskReplica<'a> {
    pub client: Uuid,
    pub keys: Vec<&'a [u8]>,
    pub tenant: Tenant<'a>,
    pub replica_type: ReplicaType,
}
arguments!(V0_3_13, BatchEvictDiskReplica<'a> {
    client: Uuid, keys: Vec<&'a [u8]>, tenant: Tenant<'a>, replica_type: ReplicaType,
});
arguments!(V0_3_11, BatchEvictDiskReplica<'a> { client: Uuid, keys: Vec<&'a [u8]>, replica_type: ReplicaType, });
impl<'a> Method<'a> for BatchEvictDiskReplica<'a> {
    const FUNCTION: Function = Function::BatchEvictDiskReplica;
    type Reply = Vec<Outcome<()>>;
}

/// Drops the caller's replicas of some objects; answers the keys that were dropped. It has no tenant.
#[derive(Debug, Clone, PartialEq, Default)]
#[expect(missing_docs, reason = "the fields are the arguments; their types say what they are")]
pub struct BatchReplicaClear<'a> {
    pub keys: Vec<&'a [u8]>,
    pub client: Uuid,
    pub segment_name: String,
}
arguments!(V0_3_13, BatchReplicaClear<'a> { keys: Vec<&'a [u8]>, client: Uuid, segment_name: String, });
arguments!(V0_3_11, BatchReplicaClear<'a> { keys: Vec<&'a [u8]>, client: Uuid, segment_name: String, });
impl<'a> Method<'a> for BatchReplicaClear<'a> {
    const FUNCTION: Function = Function::BatchReplicaClear;
    type Reply = Outcome<Vec<Box<[u8]>>>;
}
