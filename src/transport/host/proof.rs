//! How two processes find out that they run on one host, and that a process number means the same to both.
//!
//! The asking side makes up a number; the asked side writes it on a board ([`super::layout`]) and tells where; the
//! asking side opens the board in the process of the peer's number and finds it there. Who can do that has the right
//! process. A peer that lies about its number points to a process that has no such board.

use crate::endpoint::random_bytes;
use crate::error::{Code, Error, Result, Stage};

/// Bytes of a challenge.
pub const CHALLENGE_BYTES: usize = 16;

/// A number made up by who asks for a proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge([u64; 2]);

impl Challenge {
    /// A random one.
    ///
    /// # Errors
    /// When the kernel gives no random bytes.
    pub fn new() -> Result<Self> {
        Ok(Self([u64::from_le_bytes(random_bytes()?), u64::from_le_bytes(random_bytes()?)]))
    }

    /// As it travels: 32 hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> String {
        let [high, low] = self.0;
        format!("{high:016x}{low:016x}")
    }

    /// Reads what [`Challenge::hex`] wrote.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] for anything else.
    pub fn parse(text: &str) -> Result<Self> {
        let word = |range| {
            let digits: &str =
                text.get(range).filter(|digits: &&str| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
            u64::from_str_radix(digits, 16).ok()
        };
        match (text.len(), word(0..16), word(16..32)) {
            (32, Some(high), Some(low)) => Ok(Self([high, low])),
            _ => {
                Err(Error::new(Code::InvalidArgument, Stage::Connect, "a challenge is 32 hexadecimal digits"))
            }
        }
    }

    /// The two words of the number.
    pub(super) fn words(&self) -> [u64; 2] {
        self.0
    }

    /// Whether these are the bytes of the number as a board holds it.
    #[must_use]
    pub fn matches(&self, bytes: &[u8; CHALLENGE_BYTES]) -> bool {
        let [high, low] = self.0;
        bytes.iter().copied().eq(high.to_ne_bytes().into_iter().chain(low.to_ne_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn only_whole_numbers_are_taken() {
        let text = Challenge::new().unwrap().hex();
        for bad in [
            &text[1..],
            &format!("{text}0"),
            "",
            &text.replace(|_: char| true, "+"),
            "\u{e9}".repeat(16).as_str(),
        ] {
            assert!(Challenge::parse(bad).is_err(), "{bad}");
        }
    }
}
