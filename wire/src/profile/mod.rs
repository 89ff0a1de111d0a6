//! Release profiles: the layouts of one upstream release each.
//!
//! A profile is a marker type at compile time and a value of `Profile` at run time. Layouts that all profiles
//! share stand here, the others in the file of their release.

mod v0_3_11;
mod v0_3_13;

use crate::code::{ErrorCode, Outcome};
use crate::codec::{Pack, Reader, Shape, Unpack, Width, Writer, layout};
use crate::error::{DecodeError, EncodeError};
use crate::function::Function;
use crate::literal::{Literal, tags};
use crate::message;
use crate::method::{Arguments, Method};
use crate::model::{
    Buffer, Disk, DistributedFile, LocalDisk, PingAnswer, Placement, Replica, ReplicaStatus, ReplicaType,
    StorageConfig, TaskAssignment, Tenant, Uuid,
};

/// Layouts of release 0.3.13.
#[derive(Debug, Clone, Copy)]
pub struct V0_3_13;

/// Layouts of release 0.3.11.
#[derive(Debug, Clone, Copy)]
pub struct V0_3_11;

/// A release whose wire we speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Profile {
    /// 0.3.13 and its post release.
    #[default]
    V0_3_13,
    /// 0.3.11 and its post release, which the images of vLLM-Ascend pin.
    V0_3_11,
}

/// How a function's arguments and answer are spelled.
#[derive(Debug, Clone, Copy)]
pub struct Signature {
    /// Literal of the arguments; `None` if there are none.
    pub arguments: Option<Literal>,
    /// Hash of the arguments.
    pub arguments_hash: Option<u32>,
    /// Literal of the answer.
    pub reply: Literal,
    /// Hash of the answer.
    pub reply_hash: u32,
}

impl Signature {
    const fn new(arguments: Option<Literal>, reply: Literal) -> Self {
        let arguments_hash = match &arguments {
            Some(literal) => Some(literal.hash()),
            None => None,
        };
        Self { arguments, arguments_hash, reply, reply_hash: reply.hash() }
    }

    /// The signature of a call with meaning.
    const fn of<'a, P, M: Arguments<'a, P> + Method<'a>>() -> Self
    where
        M::Reply: Shape<P>,
    {
        Self::new(<M as Arguments<'a, P>>::LITERAL, <M::Reply as Shape<P>>::LITERAL)
    }

    /// The signature of a call that is only refused: one argument, or a tuple of several.
    const fn spelled<P, A: Shape<P>, R: Shape<P>>() -> Self {
        Self::new(Some(A::LITERAL), R::LITERAL)
    }

    /// The same, without arguments.
    const fn answer_only<P, R: Shape<P>>() -> Self {
        Self::new(None, R::LITERAL)
    }
}

/// `match function` over the calls with meaning; all other arms are given.
macro_rules! signatures {
    ($profile:ty, $function:expr, [$($method:ident),* $(,)?], { $($other:ident => $signature:expr,)* }) => {
        match $function {
            $(Function::$method => const { &Some(Signature::of::<$profile, $crate::method::$method>()) },)*
            $(Function::$other => const { &$signature },)*
        }
    };
}
pub(crate) use signatures;

struct Typed<P, M>(std::marker::PhantomData<(P, M)>);

impl<'a, P, M: Arguments<'a, P>> Typed<P, M> {
    const LITERAL: Option<Literal> = M::LITERAL;
    const HASH: Option<u32> = match &M::LITERAL {
        Some(literal) => Some(literal.hash()),
        None => None,
    };
}

fn encode_arguments<'a, P, M: Arguments<'a, P>>(method: &M, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let Some(hash) = Typed::<P, M>::HASH else {
        return Ok(());
    };
    let width = message::begin(out, hash, method.longest());
    let mut writer = Writer::new(out, width);
    method.pack(&mut writer);
    writer.finish()
}

fn decode_arguments<'a, P, M: Arguments<'a, P>>(body: &'a [u8]) -> Result<M, DecodeError> {
    match (const { &Typed::<P, M>::LITERAL }, Typed::<P, M>::HASH) {
        (Some(literal), Some(hash)) => M::unpack(&mut message::open(body, literal, hash)?),
        // A body on a call without arguments is ignored, as upstream does.
        _ => M::unpack(&mut Reader::new(&[], Width::One)),
    }
}

impl Profile {
    /// Every profile, newest first.
    pub const ALL: &[Self] = &[Self::V0_3_13, Self::V0_3_11];

    /// The release, as flags and messages name it.
    #[must_use]
    pub const fn release(self) -> &'static str {
        match self {
            Self::V0_3_13 => "0.3.13",
            Self::V0_3_11 => "0.3.11",
        }
    }

    /// The profile of a release named as `release` does, or with a post suffix.
    #[must_use]
    pub fn from_release(release: &str) -> Option<Self> {
        let base = release.split_once(".post").map_or(release, |(base, _)| base);
        Self::ALL.iter().copied().find(|profile| profile.release() == base)
    }

    /// How `function` is spelled; `None` if the release does not have it.
    #[must_use]
    pub fn signature(self, function: Function) -> Option<&'static Signature> {
        match self {
            Self::V0_3_13 => v0_3_13::signature(function).as_ref(),
            Self::V0_3_11 => v0_3_11::signature(function).as_ref(),
        }
    }

    /// The profiles whose arguments of `function` have this hash.
    pub fn with_arguments(function: Function, hash: u32) -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(move |profile| {
            profile.signature(function).is_some_and(|signature| signature.arguments_hash == Some(hash))
        })
    }

    /// Appends the body of a request.
    ///
    /// # Errors
    /// The value has no form in this release.
    pub fn encode_request<'a, M: Method<'a>>(self, method: &M, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Self::V0_3_13 => encode_arguments::<V0_3_13, M>(method, out),
            Self::V0_3_11 => encode_arguments::<V0_3_11, M>(method, out),
        }
    }

    /// Reads the body of a request.
    ///
    /// # Errors
    /// It is of another type, truncated, or out of a limit.
    pub fn decode_request<'a, M: Method<'a>>(self, body: &'a [u8]) -> Result<M, DecodeError> {
        match self {
            Self::V0_3_13 => decode_arguments::<V0_3_13, M>(body),
            Self::V0_3_11 => decode_arguments::<V0_3_11, M>(body),
        }
    }

    /// Appends the body of an answer.
    ///
    /// # Errors
    /// The value has no form in this release.
    pub fn encode_reply<'a, M: Method<'a>>(
        self,
        reply: &M::Reply,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        match self {
            Self::V0_3_13 => message::encode::<V0_3_13, M::Reply>(reply, out),
            Self::V0_3_11 => message::encode::<V0_3_11, M::Reply>(reply, out),
        }
    }

    /// The type code of an answer.
    pub(crate) fn reply_hash<'a, M: Method<'a>>(self) -> u32 {
        match self {
            Self::V0_3_13 => message::hash_of::<V0_3_13, M::Reply>(),
            Self::V0_3_11 => message::hash_of::<V0_3_11, M::Reply>(),
        }
    }

    /// Reads the body of an answer.
    ///
    /// # Errors
    /// It is of another type, truncated, or out of a limit.
    pub fn decode_reply<'a, M: Method<'a>>(self, body: &[u8]) -> Result<M::Reply, DecodeError> {
        match self {
            Self::V0_3_13 => message::decode::<V0_3_13, M::Reply>(body),
            Self::V0_3_11 => message::decode::<V0_3_11, M::Reply>(body),
        }
    }

    /// Appends the answer `code` to a call whose answer is an `expected`: it needs the call's hash, not its values.
    ///
    /// # Errors
    /// The release does not have the function, or it answers something else.
    pub fn encode_refusal(
        self,
        function: Function,
        code: ErrorCode,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let missing = EncodeError::NoFunction { function: function.name(), release: self.release() };
        let signature = self.signature(function).ok_or(missing)?;
        if signature.reply.as_bytes().first() != Some(&tags::EXPECTED) {
            return Err(missing);
        }
        out.extend_from_slice(&signature.reply_hash.to_le_bytes());
        out.push(0);
        out.extend_from_slice(&code.0.to_le_bytes());
        Ok(())
    }
}

impl std::fmt::Display for Profile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.release())
    }
}

// The UUID is upstream's one trivially serialisable struct, so its literal ends with its alignment.
impl<P> Shape<P> for Uuid {
    const LITERAL: Literal = Literal::tag(tags::STRUCT)
        .with(tags::U64)
        .with(tags::U64)
        .with(tags::SIZE_8)
        .with(tags::SIZE_8)
        .with(tags::END);
    const MINIMUM_BYTES: usize = 16;
}

impl<P> Pack<P> for Uuid {
    fn longest(&self) -> usize {
        0
    }
    fn pack(&self, writer: &mut Writer<'_>) {
        writer.bytes(&self.first.to_le_bytes());
        writer.bytes(&self.second.to_le_bytes());
    }
}

impl<'a, P> Unpack<'a, P> for Uuid {
    fn unpack(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let first = u64::from_le_bytes(reader.array()?);
        let second = u64::from_le_bytes(reader.array()?);
        Ok(Self { first, second })
    }
}

/// Gives a type the layout of another one in some profile.
macro_rules! as_other {
    ([$($generic:tt)*] $profile:ty, $name:ty, $other:ty, $to:expr, $from:expr) => {
        impl<'a, $($generic)*> Shape<$profile> for $name {
            const LITERAL: Literal = <$other as Shape<$profile>>::LITERAL;
            const MINIMUM_BYTES: usize = <$other as Shape<$profile>>::MINIMUM_BYTES;
        }
        impl<'a, $($generic)*> Pack<$profile> for $name {
            fn longest(&self) -> usize {
                let to: fn(&$name) -> $other = $to;
                <$other as Pack<$profile>>::longest(&to(self))
            }
            fn pack(&self, writer: &mut Writer<'_>) {
                let to: fn(&$name) -> $other = $to;
                <$other as Pack<$profile>>::pack(&to(self), writer);
            }
        }
        impl<'a, $($generic)*> Unpack<'a, $profile> for $name {
            fn unpack(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
                let from: fn($other) -> Result<$name, DecodeError> = $from;
                from(<$other as Unpack<'a, $profile>>::unpack(reader)?)
            }
        }
    };
}
pub(crate) use as_other;

as_other!([P] P, ErrorCode, i32, |code| code.0, |code| Ok(ErrorCode(code)));
as_other!([P] P, ReplicaType, i32, |kind| kind.0, |kind| Ok(ReplicaType(kind)));
as_other!([P] P, ReplicaStatus, i32, |status| status.code(), |code| Ok(ReplicaStatus::from_code(code)));
as_other!([P] P, Tenant<'a>, &'a [u8], |tenant| tenant.0, |name| Ok(Tenant(name)));

/// A replica in memory is a struct of one buffer, not the buffer itself; so is one on a fabric.
struct OneBuffer;

impl OneBuffer {
    const fn literal(buffer: &Literal) -> Literal {
        Literal::tag(tags::STRUCT).then(buffer).with(tags::END)
    }
}

/// The alternatives of `Placement`; the last one only where `$extra` names it.
macro_rules! placement {
    ($profile:ty, $release:literal, [$($extra:ident)?]) => {
        impl Shape<$profile> for Placement {
            const LITERAL: Literal = {
                let buffer = OneBuffer::literal(&<Buffer as Shape<$profile>>::LITERAL);
                Literal::tag(tags::VARIANT)
                    .then(&buffer)
                    .then(&buffer)
                    .then(&<Disk as Shape<$profile>>::LITERAL)
                    .then(&<LocalDisk as Shape<$profile>>::LITERAL)
                    $(.then(&<$extra as Shape<$profile>>::LITERAL))?
                    .with(tags::END)
            };
            const MINIMUM_BYTES: usize = 1 + <Disk as Shape<$profile>>::MINIMUM_BYTES;
        }
        impl Pack<$profile> for Placement {
            fn longest(&self) -> usize {
                match self {
                    Self::Memory(buffer) | Self::NvmeOverFabrics(buffer) => Pack::<$profile>::longest(buffer),
                    Self::Disk(disk) => Pack::<$profile>::longest(disk),
                    Self::LocalDisk(disk) => Pack::<$profile>::longest(disk),
                    Self::DistributedFile(file) => file.path.len(),
                }
            }
            fn pack(&self, writer: &mut Writer<'_>) {
                match self {
                    Self::Memory(buffer) => {
                        writer.bytes(&[0]);
                        Pack::<$profile>::pack(buffer, writer);
                    }
                    Self::NvmeOverFabrics(buffer) => {
                        writer.bytes(&[1]);
                        Pack::<$profile>::pack(buffer, writer);
                    }
                    Self::Disk(disk) => {
                        writer.bytes(&[2]);
                        Pack::<$profile>::pack(disk, writer);
                    }
                    Self::LocalDisk(disk) => {
                        writer.bytes(&[3]);
                        Pack::<$profile>::pack(disk, writer);
                    }
                    $(Self::$extra(file) => {
                        writer.bytes(&[4]);
                        Pack::<$profile>::pack(file, writer);
                    })?
                    #[allow(unreachable_patterns)] // reached where the release lacks the last alternative
                    _ => writer.fail(EncodeError::NotInRelease {
                        what: "a replica in a distributed file system",
                        release: $release,
                    }),
                }
            }
        }
        impl<'a> Unpack<'a, $profile> for Placement {
            fn unpack(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
                match reader.byte()? {
                    0 => Ok(Self::Memory(Unpack::<'a, $profile>::unpack(reader)?)),
                    1 => Ok(Self::NvmeOverFabrics(Unpack::<'a, $profile>::unpack(reader)?)),
                    2 => Ok(Self::Disk(Unpack::<'a, $profile>::unpack(reader)?)),
                    3 => Ok(Self::LocalDisk(Unpack::<'a, $profile>::unpack(reader)?)),
                    $(4 => Ok(Self::$extra(Unpack::<'a, $profile>::unpack(reader)?)),)?
                    value => Err(DecodeError::Range { what: "replica placement", value }),
                }
            }
        }
    };
}

placement!(V0_3_13, "0.3.13", [DistributedFile]);
placement!(V0_3_11, "0.3.11", []);

macro_rules! shared_layouts {
    ($profile:ty) => {
        layout!($profile, Buffer {
            size: u64, address: u64, protocol: std::sync::Arc<str>, endpoint: std::sync::Arc<str>,
        });
        layout!($profile, Disk { path: String, size: u64 });
        layout!($profile, LocalDisk { client: Uuid, size: u64, endpoint: String });
        layout!($profile, Replica { id: u64, placement: Placement, status: ReplicaStatus });
        layout!($profile, PingAnswer { view_version: i64, client_status: i32 });
        layout!($profile, StorageConfig { fsdir: String, enable_disk_eviction: bool, quota_bytes: u64 });
        layout!($profile, TaskAssignment {
            id: Uuid, kind: i32, payload: String, created_at_ms: i64, max_retry_attempts: u32,
        });
    };
}

shared_layouts!(V0_3_13);
shared_layouts!(V0_3_11);

/// Spellings of types that occur only in calls we refuse; tuples, since a struct is spelled as one.
mod refused {
    use crate::model::{Replica, Uuid};

    pub(super) type Text = Box<[u8]>;
    pub(super) type Texts = Vec<Text>;
    pub(super) type TaskItem = (Text, Text, i64);
    pub(super) type StorageObject = (i64, i64, i64, i64, Text);
    pub(super) type TaskState = (Uuid, i32, i32, i64, i64, Uuid, Text);
    pub(super) type TaskComplete = (Uuid, i32, Text);
    pub(super) type NofSegment = (Uuid, Text, u64, u64, Text);
    pub(super) type NofOwner = (Uuid, Uuid);
    pub(super) type CopyAnswer = (Replica, Vec<Replica>);
    pub(super) type MoveAnswer = (Replica, Option<Replica>);

    /// A struct of one member.
    pub(super) struct Promotion;
}

impl<P> Shape<P> for refused::Promotion
where
    Replica: Shape<P>,
{
    const LITERAL: Literal = OneBuffer::literal(&<Replica as Shape<P>>::LITERAL);
    const MINIMUM_BYTES: usize = <Replica as Shape<P>>::MINIMUM_BYTES;
}

/// A refused call's answer.
type Refused<T> = Outcome<T>;
