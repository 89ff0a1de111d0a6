//! Questions of an initiator to its target, carried by notifications of the engine itself.
//!
//! An initiator has to learn where the target's buffers are, and a write can be verified only where it
//! arrived. Each question has a number and gets one answer with that number.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::arena::Verdict;
use crate::library::Engine;
use crate::placement::Placement;

/// The name of notifications that carry a question.
pub const QUESTION: &str = "mooncake-bench-question";
/// The name of notifications that carry an answer.
pub const ANSWER: &str = "mooncake-bench-answer";

/// How often a waiting process looks for notifications.
pub const LOOK_EVERY: Duration = Duration::from_millis(1);
/// How long a target may take to verify what was written.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// A buffer of the target.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct RemoteBuffer {
    /// Where it starts.
    pub address: u64,
    /// Its length.
    pub length_bytes: u64,
    /// The seed of its contents.
    pub seed: u64,
}

/// What is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Where the buffers are.
    Buffers,
    /// Whether the blocks of these slots arrived, sent from the buffer with this seed.
    Verify {
        /// Where the blocks lie.
        placement: Placement,
        /// How many slots were written, from the first one on.
        slots: u64,
        /// The seed of the sender's buffer.
        seed: u64,
    },
}

/// A question with its number and the name to answer to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Question {
    /// Its number.
    pub id: u64,
    /// The engine that asks.
    pub from: String,
    /// What is asked.
    pub ask: Ask,
}

/// What is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The target's buffers.
    Buffers(Vec<RemoteBuffer>),
    /// What the check found.
    Verdict(Verdict),
    /// The target could not do it.
    Failed(String),
}

/// An answer with the number of its question.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The question's number.
    pub id: u64,
    /// What is answered.
    pub reply: Reply,
}

/// An engine as the exchange needs it, behind the C interface or not.
pub trait Carrier {
    /// The name that peers open.
    ///
    /// # Errors
    /// If the engine does not tell it.
    fn own_name(&self) -> Result<String>;

    /// Sends a notification to an open segment.
    ///
    /// # Errors
    /// If the peer does not take it.
    fn send(&self, segment: i32, name: &str, message: &str) -> Result<()>;

    /// Takes the notifications that arrived: names and messages.
    ///
    /// # Errors
    /// If the engine does not answer.
    fn take(&self) -> Result<Vec<(String, String)>>;
}

impl Carrier for Engine<'_> {
    fn own_name(&self) -> Result<String> {
        self.local_name()
    }

    fn send(&self, segment: i32, name: &str, message: &str) -> Result<()> {
        self.send_note(segment, name, message)
    }

    fn take(&self) -> Result<Vec<(String, String)>> {
        self.take_notes()
    }
}

/// The initiator's end.
pub struct Client<'engine, E> {
    engine: &'engine E,
    own_name: String,
    segment: i32,
    next: u64,
}

impl<'engine, E: Carrier> Client<'engine, E> {
    /// A client that asks the target behind an open segment.
    ///
    /// # Errors
    /// If the engine does not tell its own name.
    pub fn new(engine: &'engine E, segment: i32) -> Result<Self> {
        // A number that another initiator of this target, or an earlier one of this name, does not use.
        let start = u64::from(std::process::id()) << 32;
        Ok(Self { engine, own_name: engine.own_name()?, segment, next: start })
    }

    /// Where the target's buffers are.
    ///
    /// # Errors
    /// If it does not answer within `limit`.
    pub fn buffers(&mut self, limit: Duration) -> Result<Vec<RemoteBuffer>> {
        match self.ask(Ask::Buffers, limit)? {
            Reply::Buffers(buffers) => Ok(buffers),
            other => bail!("the target answered {other:?}"),
        }
    }

    /// Lets the target verify what was written to it.
    ///
    /// # Errors
    /// If it does not answer, or cannot read its memory.
    pub fn verify(&mut self, placement: Placement, slots: u64, seed: u64) -> Result<Verdict> {
        match self.ask(Ask::Verify { placement, slots, seed }, ANSWER_LIMIT)? {
            Reply::Verdict(verdict) => Ok(verdict),
            other => bail!("the target answered {other:?}"),
        }
    }

    fn ask(&mut self, ask: Ask, limit: Duration) -> Result<Reply> {
        self.next += 1;
        let question = Question { id: self.next, from: self.own_name.clone(), ask };
        self.engine.send(self.segment, QUESTION, &serde_json::to_string(&question)?)?;
        let end = Instant::now() + limit;
        loop {
            for (name, message) in self.engine.take()? {
                if name != ANSWER {
                    continue;
                }
                let answer: Answer =
                    serde_json::from_str(&message).context("the target's answer is not understood")?;
                if answer.id == question.id {
                    return Ok(answer.reply);
                }
            }
            if Instant::now() >= end {
                bail!("the target did not answer in {limit:?}; was it started by this program?");
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}
