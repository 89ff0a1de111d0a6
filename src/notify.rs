//! Notes: small messages that peers leave for the application, kept until it fetches them.
//!
//! Invariants: notes come out in the order they came in, each once; the queue is bounded in number and bytes, and
//! a full one refuses the new note, so that the sender learns of it.

use std::collections::VecDeque;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result, Stage};

/// Bytes of all notes that wait to be fetched.
pub const MAX_WAITING_BYTES: usize = 64 << 20;

/// One note. Missing fields are empty, as upstream reads them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Note {
    /// Who or what it is about; the application's own meaning.
    #[serde(default)]
    pub name: String,
    /// The text.
    #[serde(default, rename = "notify_msg")]
    pub message: String,
}

impl Note {
    fn size_bytes(&self) -> usize {
        self.name.len().saturating_add(self.message.len())
    }
}

#[derive(Default)]
struct Waiting {
    notes: VecDeque<Note>,
    size_bytes: usize,
}

/// The notes an engine has received and the application has not fetched.
pub struct NoteQueue {
    limit: usize,
    waiting: Mutex<Waiting>,
}

impl NoteQueue {
    /// A queue for `limit` notes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, waiting: Mutex::default() }
    }

    /// Adds a note.
    ///
    /// # Errors
    /// [`Code::TooManyRequests`] when the queue is full.
    pub fn push(&self, note: Note) -> Result<()> {
        let mut waiting = self.waiting.lock();
        let size_bytes = waiting.size_bytes.saturating_add(note.size_bytes());
        if waiting.notes.len() >= self.limit || size_bytes > MAX_WAITING_BYTES {
            return Err(Error::new(
                Code::TooManyRequests,
                Stage::Handshake,
                format!("{} notes wait to be fetched; no more are taken", waiting.notes.len()),
            )
            .advice("fetch notifications more often, or raise MOONCAKE_TRANSFER_MAX_NOTES"));
        }
        waiting.size_bytes = size_bytes;
        waiting.notes.push_back(note);
        Ok(())
    }

    /// Takes all notes out.
    #[must_use]
    pub fn drain(&self) -> Vec<Note> {
        std::mem::take(&mut *self.waiting.lock()).notes.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(name: &str, message: &str) -> Note {
        Note { name: name.into(), message: message.into() }
    }

    #[test]
    fn notes_come_out_once_in_order() {
        let queue = NoteQueue::new(10);
        queue.push(note("a", "1")).unwrap();
        queue.push(note("b", "2")).unwrap();
        assert_eq!(queue.drain(), [note("a", "1"), note("b", "2")]);
        assert!(queue.drain().is_empty());
    }

    #[test]
    fn a_full_queue_refuses_and_recovers() {
        let queue = NoteQueue::new(2);
        queue.push(note("", "")).unwrap();
        queue.push(note("", "")).unwrap();
        assert_eq!(queue.push(note("", "")).unwrap_err().code(), Code::TooManyRequests);
        assert_eq!(queue.drain().len(), 2);
        queue.push(note("", "")).unwrap();
        let large = note("", &"x".repeat(MAX_WAITING_BYTES));
        assert!(queue.push(large.clone()).is_ok());
        assert_eq!(queue.push(note("x", "")).unwrap_err().code(), Code::TooManyRequests);
    }

    #[test]
    fn the_json_is_upstreams() {
        let text = serde_json::to_string(&note("agentA", "msg-body")).unwrap();
        assert_eq!(text, r#"{"name":"agentA","notify_msg":"msg-body"}"#);
        assert_eq!(serde_json::from_str::<Note>("{}").unwrap(), Note::default());
    }
}
