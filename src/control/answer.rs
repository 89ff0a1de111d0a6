//! The place for the answer to a peer's request.
//!
//! Invariants: a request is answered once; an answer that is dropped tells the peer that the request failed, and one
//! that cannot be queued ends the connection, so that the peer never waits for nobody; the request counts as being
//! served until then.

use std::sync::Arc;

use super::connection::Connection;
use super::frame::{Kind, encode};
use super::message::Message;
use crate::error::{Code, Error, Result, Stage};

/// Where the answer to one request of a peer goes.
pub struct Answer {
    connection: Arc<Connection>,
    request_id: u32,
    given: bool,
}

impl Answer {
    pub(super) fn new(connection: Arc<Connection>, request_id: u32) -> Self {
        Self { connection, request_id, given: false }
    }

    /// Answers.
    pub fn give(mut self, answer: Result<Message>) {
        self.send(&answer.unwrap_or_else(|error| Message::from(&error)));
    }

    fn send(&mut self, reply: &Message) {
        self.given = true;
        self.connection.end_request();
        let frame = encode(Kind::Reply, self.request_id, reply)
            .or_else(|error| encode(Kind::Reply, self.request_id, &Message::from(&error)));
        match frame {
            Ok(frame) => self.connection.queue_answer(frame),
            Err(error) => log::error!("no answer to a control request: {error}"),
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.given {
            let error = Error::new(Code::Internal, Stage::Connect, "a control request met a defect");
            self.send(&Message::from(&error));
        }
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("request_id", &self.request_id).finish_non_exhaustive()
    }
}
