//! How two processes find out that they run on one host, and that a process number means the same to both.
//!
//! The asking side makes up a number; the asked side writes it into its own memory and tells the address; the
//! asking side reads it there through the kernel. Who can do that has the right process. A peer that lies about
//! its number points to memory it cannot have written the number to.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::endpoint::random_bytes;
use crate::error::{Code, Error, Result, Stage};

/// Bytes of a challenge.
pub const CHALLENGE_BYTES: usize = 16;
/// Proofs that can be under way at a time; a later one takes the place of the first, which then fails.
const SLOTS: usize = 64;

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

    /// Whether these are the bytes of the number as a slot holds it.
    #[must_use]
    pub fn matches(&self, bytes: &[u8; CHALLENGE_BYTES]) -> bool {
        let [high, low] = self.0;
        bytes.iter().copied().eq(high.to_ne_bytes().into_iter().chain(low.to_ne_bytes()))
    }
}

/// Where the asked side writes numbers.
#[derive(Debug)]
pub struct ProofSlots {
    words: Box<[[AtomicU64; 2]]>,
    next: AtomicUsize,
}

impl Default for ProofSlots {
    fn default() -> Self {
        let words = (0..SLOTS).map(|_| [AtomicU64::new(0), AtomicU64::new(0)]).collect();
        Self { words, next: AtomicUsize::new(0) }
    }
}

impl ProofSlots {
    /// Writes a challenge down, and tells where.
    #[must_use]
    pub fn write(&self, challenge: &Challenge) -> u64 {
        let index = self.next.fetch_add(1, Ordering::Relaxed) % SLOTS;
        let Some(slot) = self.words.get(index) else { return 0 };
        for (word, value) in slot.iter().zip(challenge.0) {
            word.store(value, Ordering::SeqCst);
        }
        u64::try_from(slot.as_ptr().expose_provenance()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::host::HostPeer;

    #[test]
    fn what_was_written_is_seen_where_it_was_written() {
        let (slots, challenge) = (ProofSlots::default(), Challenge::new().unwrap());
        let myself = HostPeer::open(std::process::id()).unwrap();
        let address = slots.write(&Challenge::parse(&challenge.hex()).unwrap());
        assert!(myself.shows(&challenge, address).unwrap());
        assert!(!myself.shows(&Challenge::new().unwrap(), address).unwrap());
        assert!(myself.shows(&challenge, 8).is_err(), "no such memory");
    }

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
