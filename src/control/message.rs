//! What two engines of this library say to each other, as JSON in the body of a frame.
//!
//! Fields may be added, never changed; a receiver ignores those it does not know. Nothing here is trusted:
//! addresses, devices and names are checked by whoever acts on them.

use serde::{Deserialize, Serialize};

use crate::endpoint::Incarnation;
use crate::error::{Code, Error, Stage};
use crate::transport::host::BoardPlace;

/// Version of this protocol; peers of another one are refused by both sides.
pub const PROTOCOL_VERSION: u32 = 1;

/// The first frame each way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`] of the sender.
    pub protocol: u32,
    /// Who the sender is.
    pub incarnation: Incarnation,
    /// Name of the sender's segment, for messages and logs.
    pub segment: String,
    /// Random number of this connection, chosen by the side that opens it and repeated by the other.
    pub connection: String,
    /// The process the opener wants to talk to: its incarnation's 32 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// The last connection between the two that the opener knows to be over. Lets the acceptor tell a peer
    /// that lost the connection from one whose opening crossed with its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
}

/// What memory a region is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegionKind {
    /// Memory of an NPU.
    Device,
    /// Memory of the host.
    Host,
}

/// One range that a channel makes reachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Region {
    /// First address, in the publisher's address space.
    pub address: u64,
    /// Length.
    pub length_bytes: u64,
    /// What memory it is.
    pub kind: RegionKind,
}

/// One rank of a channel, as it stands in the vendor's rank table.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RankDevice {
    /// Names the server; equal for devices of one server.
    pub server_id: String,
    /// Physical number of the device in its server.
    pub device_id: u32,
    /// Network address of the device, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_ip: Option<String>,
    /// Number of the device in its super pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub super_device_id: Option<String>,
    /// The super pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub super_pod_id: Option<String>,
    /// Port on the device, where one was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_port: Option<u16>,
    /// Version of the rank table: `1.0` or `1.2`.
    pub version: String,
    /// The families of one-sided calls that its CANN has; none named means the newer one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub families: Vec<String>,
}

/// The two ends of a channel, lower incarnation first.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChannelKey {
    /// The lower incarnation, 32 hexadecimal digits.
    pub lower: String,
    /// Its device, by the id it uses itself.
    pub lower_device: i32,
    /// The higher incarnation.
    pub higher: String,
    /// Its device.
    pub higher_device: i32,
}

/// "Let us make this channel": sent by the side that needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelOffer {
    /// Name of the communicator, equal at both ends and unique.
    pub channel: String,
    /// The two ends.
    pub key: ChannelKey,
    /// Registration epochs the offer is made under: the sender's, and the receiver's as far as known.
    pub generation: (u64, u64),
    /// Counts the attempts at one channel and generation.
    pub attempt: u32,
    /// The sender's rank.
    pub rank: RankDevice,
    /// What the sender binds.
    pub regions: Vec<Region>,
    /// The receiver's device, by the id the receiver uses itself.
    pub target_device: i32,
    /// Time the receiver has.
    pub timeout_ms: u64,
}

/// The answer to an offer that is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelAnswer {
    /// Name of the communicator, as offered.
    pub channel: String,
    /// The two ends, as offered.
    pub key: ChannelKey,
    /// Registration epochs: the sender's of the answer, and the other's as offered.
    pub generation: (u64, u64),
    /// The attempt, as offered.
    pub attempt: u32,
    /// The sender's rank.
    pub rank: RankDevice,
    /// What the sender binds.
    pub regions: Vec<Region>,
    /// The receiver's device, by the id the receiver uses itself.
    pub target_device: i32,
    /// Time the receiver has.
    pub timeout_ms: u64,
}

/// Version of the messages about slots; an agent refuses another one.
pub const STAGED_PROTOCOL: u32 = 1;

/// A slot of the sender's ring that the receiver may put into, or get from, until it gives it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotGrant {
    /// The sender's device, by the id the sender uses itself.
    pub device: i32,
    /// Number of the slot on that device.
    pub slot: u32,
    /// Counts the uses of the slot; the next request about it has to name it.
    pub sequence: u64,
    /// Where it begins, in the sender's address space.
    pub address: u64,
    /// How long it is.
    pub length_bytes: u64,
}

/// "Copy between your slot and your memory": the blocks stand in the slot one behind another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotMove {
    /// The slot, as it was granted.
    pub device: i32,
    /// Its number.
    pub slot: u32,
    /// Its current sequence number.
    pub sequence: u64,
    /// From the blocks into the slot, instead of out of it.
    pub gather: bool,
    /// Address and length of each block.
    pub blocks: Vec<(u64, u64)>,
    /// Time the receiver has.
    pub timeout_ms: u64,
}

/// "Move these blocks between your memory and mine, over our channel, from your side."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectMove {
    /// The receiver's device, by the id the receiver uses itself; -1 for whichever it works with.
    pub device: i32,
    /// Name of the communicator, which both sides have ready.
    pub channel: String,
    /// Chosen by the sender; another one for each order of its that is under way.
    pub number: u64,
    /// The receiver puts, instead of gets.
    pub put: bool,
    /// The receiver's address, the sender's address, and the length of each block.
    pub blocks: Vec<(u64, u64, u64)>,
    /// Time the receiver has.
    pub timeout_ms: u64,
}

/// Names one use of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotUse {
    /// The receiver's device, as it was granted.
    pub device: i32,
    /// Number of the slot.
    pub slot: u32,
    /// Its sequence number.
    pub sequence: u64,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Message {
    /// Are you there? Answered by the connection itself.
    Ping,
    /// Yes.
    Pong,
    /// The sender ends the connection in good order; what it closes without this word, it lost.
    Bye,
    /// Let us make this channel.
    OpenChannel(ChannelOffer),
    /// Agreed; both sides go on.
    ChannelAccepted(ChannelAnswer),
    /// The sender has made its end of the communicator and bound its memory, and meets the receiver in the vendor's
    /// prepare as soon as that has said the same: who fails before leaves nobody waiting there.
    ChannelBound {
        /// Name of the communicator.
        channel: String,
    },
    /// The sender's end of the channel is up.
    ChannelReady {
        /// Name of the communicator.
        channel: String,
    },
    /// The sender's end could not be made or broke.
    ChannelFailed {
        /// Name of the communicator.
        channel: String,
        /// What happened, for people.
        reason: String,
    },
    /// The sender gives the channel up; the receiver should, too.
    CloseChannel {
        /// Name of the communicator.
        channel: String,
    },
    /// The sender takes memory back: stop touching it, and answer [`Message::Withdrawn`] when nothing does.
    Withdraw {
        /// Address and length of each range.
        ranges: Vec<(u64, u64)>,
        /// The sender's registration epoch after the change.
        epoch: u64,
    },
    /// Nothing of the sender touches the withdrawn ranges any more.
    Withdrawn,
    /// Write this number on a board that we share and answer [`Message::Proof`], so that I can look for it there.
    Prove {
        /// 32 hexadecimal digits.
        challenge: String,
    },
    /// The number stands there, on the board of the two.
    Proof(BoardPlace),
    /// Let me use a slot of your ring; answered by [`Message::SlotGranted`] when one is free.
    OpenSlot {
        /// [`STAGED_PROTOCOL`] of the sender.
        protocol: u32,
        /// The receiver's device, by the id the receiver uses itself; -1 for whichever it works with.
        device: i32,
        /// How long the sender wants to wait for one.
        wait_ms: u64,
    },
    /// The slot is the receiver's until it gives it back.
    SlotGranted(SlotGrant),
    /// Copy between a slot and memory; answered by [`Message::SlotMoved`] when the bytes are where they belong.
    MoveSlot(SlotMove),
    /// It is done.
    SlotMoved {
        /// What the next request about the slot has to name.
        sequence: u64,
        /// Others wait for a slot: give this one back as soon as you can.
        wanted: bool,
    },
    /// Stop what runs on the slot; its request is answered when it is quiet.
    StopSlot(SlotUse),
    /// The slot is the receiver's own again; nothing of the sender touches it any more.
    ReleaseSlot(SlotUse),
    /// Put or get these blocks; answered by [`Message::Done`] when the bytes are where they belong, and by a failure
    /// when nothing of it runs any more.
    MoveDirect(DirectMove),
    /// Stop that order; it is answered when it is quiet.
    StopDirect {
        /// [`DirectMove::number`].
        number: u64,
    },
    /// The request failed.
    Failed(Failure),
    /// The request is done.
    Done,
}

/// An error, as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// [`Code::name`].
    pub code: String,
    /// [`Stage::name`].
    pub stage: String,
    /// The whole text.
    pub message: String,
}

/// Longest text of a failure that is sent or taken.
const MAX_FAILURE_CHARACTERS: usize = 4096;

const CODES: [Code; 26] = [
    Code::InvalidArgument,
    Code::TooManyRequests,
    Code::AddressNotRegistered,
    Code::Busy,
    Code::DeviceNotFound,
    Code::AddressOverlapped,
    Code::NotSupportedTransport,
    Code::Dns,
    Code::Socket,
    Code::MalformedJson,
    Code::RejectHandshake,
    Code::Metadata,
    Code::Endpoint,
    Code::Context,
    Code::Memory,
    Code::Clock,
    Code::NotImplemented,
    Code::Timeout,
    Code::Cancelled,
    Code::StillRunning,
    Code::StaleIncarnation,
    Code::LibraryUnavailable,
    Code::Vendor,
    Code::Unsupported,
    Code::StaleHandle,
    Code::Internal,
];

const STAGES: [Stage; 9] = [
    Stage::Configure,
    Stage::Load,
    Stage::Resolve,
    Stage::Handshake,
    Stage::Connect,
    Stage::Register,
    Stage::Submit,
    Stage::Execute,
    Stage::Drain,
];

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self {
            code: error.code().name().to_owned(),
            stage: error.stage().name().to_owned(),
            message: error.to_string().chars().take(MAX_FAILURE_CHARACTERS).collect(),
        }
    }
}

impl Failure {
    /// The error the sender had, told as the peer's. A code or stage of a newer release counts as a defect of
    /// the peer while connecting.
    #[must_use]
    pub fn to_error(&self, peer: &str) -> Error {
        let code = CODES.into_iter().find(|code| code.name() == self.code).unwrap_or(Code::Internal);
        let stage = STAGES.into_iter().find(|stage| stage.name() == self.stage).unwrap_or(Stage::Connect);
        let text: String = self.message.chars().take(MAX_FAILURE_CHARACTERS).collect();
        Error::new(code, stage, format!("the peer reports: {text}")).peer(peer)
    }
}

impl From<&Error> for Message {
    fn from(error: &Error) -> Self {
        Self::Failed(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_and_stage_survives_the_wire() {
        for code in CODES {
            for stage in STAGES {
                let error = Failure::from(&Error::new(code, stage, "why")).to_error("h:1");
                assert_eq!((error.code(), error.stage()), (code, stage));
                assert_eq!(error.record().peer.as_deref(), Some("h:1"));
            }
        }
    }

    #[test]
    fn a_code_of_a_newer_release_is_still_an_error() {
        let failure = Failure { code: "new".into(), stage: "newer".into(), message: "text".into() };
        assert_eq!(failure.to_error("p").code(), Code::Internal);
    }

    #[test]
    fn messages_are_tagged_objects() {
        let text =
            serde_json::to_string(&Message::Withdraw { ranges: vec![(u64::MAX, 1)], epoch: 2 }).unwrap();
        assert_eq!(text, r#"{"type":"withdraw","ranges":[[18446744073709551615,1]],"epoch":2}"#);
        let error = Error::new(Code::Vendor, Stage::Connect, "x");
        let text = serde_json::to_string(&Message::from(&error)).unwrap();
        assert!(text.starts_with(r#"{"type":"failed","code":"vendor","stage":"connect""#), "{text}");
        assert_eq!(serde_json::from_str::<Message>(r#"{"type":"ping","more":1}"#).unwrap(), Message::Ping);
        assert!(serde_json::from_str::<Message>(r#"{"type":"unheard_of"}"#).is_err());
    }
}
