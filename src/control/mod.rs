//! The persistent control connection of a peer pair (ours only).
pub mod message;
pub use message::{
    ChannelAnswer, ChannelKey, ChannelOffer, Failure, Hello, Message, Nonce, PROTOCOL_VERSION, RankDevice,
    Region, RegionKind,
};
