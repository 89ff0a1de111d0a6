//! Errors of the call itself: the function was not carried out. What a function decides travels in its answer.

use crate::codec::layout;
use crate::error::{DecodeError, EncodeError};
use crate::frame;
use crate::message;
use crate::profile::V0_3_13;

/// A response with this error byte carries a code above 255 in its body.
const EXTENDED: u8 = 255;

/// Why a call was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Default, thiserror::Error)]
#[error("rpc error {code}: {message}")]
pub struct RpcError {
    /// The code.
    pub code: u16,
    /// The peer's words.
    pub message: String,
}

layout!(V0_3_13, RpcError { code: u16, message: String });

impl RpcError {
    /// The arguments are not what the function takes: most often another release.
    pub const INVALID_ARGUMENTS: u8 = 4;
    /// The function failed.
    pub const INTERRUPTED: u8 = 10;
    /// The function does not exist.
    pub const NO_FUNCTION: u8 = 11;
    /// The request is too long.
    pub const MESSAGE_TOO_LARGE: u8 = 14;

    /// Appends a response frame that says so.
    ///
    /// # Errors
    /// The message does not fit in a frame.
    pub fn respond(out: &mut Vec<u8>, sequence: u32, code: u8, text: &str) -> Result<(), EncodeError> {
        frame::response(out, sequence, code, |body| {
            message::encode::<V0_3_13, String>(&text.to_owned(), body)
        })
    }

    /// Reads the body of a response whose error byte is not 0.
    ///
    /// # Errors
    /// The body is not of that form.
    pub fn decode(error: u8, body: &[u8]) -> Result<Self, DecodeError> {
        if error == EXTENDED {
            message::decode::<V0_3_13, Self>(body)
        } else {
            Ok(Self { code: u16::from(error), message: message::decode::<V0_3_13, String>(body)? })
        }
    }

    /// The body of this error, for codes above 255.
    ///
    /// # Errors
    /// Never for a message that fits in memory.
    pub fn encode_extended(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        message::encode::<V0_3_13, Self>(self, out)
    }
}
