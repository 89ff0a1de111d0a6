//! The life of our view of one peer: Unknown, Connecting, Ready, Suspect, Dead.
//!
//! A pure state machine; time is an argument. Invariants: at most one attempt to connect is under way; while a
//! back-off runs every use fails at once with the error that started it; the back-off is bounded by
//! [`BACK_OFF_CAP`], so that a peer that returns is used again within that time plus one connect.

use std::time::{Duration, Instant};

use crate::error::Error;

/// First pause after a failed attempt.
pub const BACK_OFF_FIRST: Duration = Duration::from_millis(50);
/// Longest pause after a failed attempt.
pub const BACK_OFF_CAP: Duration = Duration::from_secs(1);
/// Failed attempts in a row after which a peer counts as dead rather than suspect.
pub const ATTEMPTS_UNTIL_DEAD: u32 = 3;

/// What the caller of [`PeerState::begin`] has to do.
#[derive(Debug)]
pub enum Step<T> {
    /// Use this connection.
    Use(T),
    /// Connect now and report with [`PeerState::connected`] or [`PeerState::failed`].
    Connect,
    /// Somebody else is connecting; wait for the outcome.
    Wait,
    /// Fail now; the peer failed a moment ago.
    FailFast(Error),
}

/// The name of a state, for reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerCondition {
    /// Never used.
    Unknown,
    /// An attempt is under way.
    Connecting,
    /// In use.
    Ready,
    /// Failed or lost; the next use after the back-off tries again.
    Suspect,
    /// Failed [`ATTEMPTS_UNTIL_DEAD`] times in a row; still tried again after the back-off.
    Dead,
}

impl PeerCondition {
    /// Stable name for metrics and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Connecting => "connecting",
            Self::Ready => "ready",
            Self::Suspect => "suspect",
            Self::Dead => "dead",
        }
    }
}

#[derive(Debug)]
enum State<T> {
    Unknown,
    Connecting { attempts: u32 },
    Ready(T),
    Backing { attempts: u32, until: Instant, error: Error },
}

/// Our view of one peer; `T` is what a ready peer is used through.
#[derive(Debug)]
pub struct PeerState<T>(State<T>);

impl<T> Default for PeerState<T> {
    fn default() -> Self {
        Self(State::Unknown)
    }
}

impl<T: Clone> PeerState<T> {
    /// Asks what to do for a use at `now`; moves to Connecting when the answer is [`Step::Connect`].
    pub fn begin(&mut self, now: Instant) -> Step<T> {
        match &self.0 {
            State::Ready(link) => Step::Use(link.clone()),
            State::Connecting { .. } => Step::Wait,
            State::Unknown => {
                self.0 = State::Connecting { attempts: 0 };
                Step::Connect
            }
            State::Backing { attempts, until, error } => {
                if now < *until {
                    Step::FailFast(error.clone())
                } else {
                    let attempts = *attempts;
                    self.0 = State::Connecting { attempts };
                    Step::Connect
                }
            }
        }
    }

    /// The link, when the peer is ready.
    pub fn ready(&self) -> Option<T> {
        match &self.0 {
            State::Ready(link) => Some(link.clone()),
            _ => None,
        }
    }

    /// The attempt succeeded.
    pub fn connected(&mut self, link: T) {
        self.0 = State::Ready(link);
    }

    /// The attempt failed at `now`; uses fail fast until the back-off is over.
    pub fn failed(&mut self, now: Instant, error: Error) {
        let attempts = match &self.0 {
            State::Connecting { attempts } | State::Backing { attempts, .. } => *attempts,
            State::Unknown | State::Ready(_) => 0,
        };
        let pause = BACK_OFF_FIRST.saturating_mul(1_u32 << attempts.min(8)).min(BACK_OFF_CAP);
        self.0 = State::Backing {
            attempts: attempts.saturating_add(1),
            until: now.checked_add(pause).unwrap_or(now),
            error,
        };
    }

    /// The attempt was given up before it could tell anything about the peer: the next use connects at once, and
    /// the count of failures stays.
    pub fn given_up(&mut self, now: Instant, error: Error) {
        if let State::Connecting { attempts } = &self.0 {
            self.0 = match *attempts {
                0 => State::Unknown,
                attempts => State::Backing { attempts, until: now, error },
            };
        }
    }

    /// A ready link broke at `now`. The next use connects at once: a peer that was restarted is there again.
    pub fn lost(&mut self, now: Instant, error: Error) {
        if matches!(self.0, State::Ready(_)) {
            self.0 = State::Backing { attempts: 0, until: now, error };
        }
    }

    /// The peer reached us: whatever back-off runs is over.
    pub fn heard_from(&mut self) {
        if matches!(self.0, State::Backing { .. }) {
            self.0 = State::Unknown;
        }
    }

    /// The state's name.
    #[must_use]
    pub fn condition(&self) -> PeerCondition {
        match &self.0 {
            State::Unknown => PeerCondition::Unknown,
            State::Connecting { .. } => PeerCondition::Connecting,
            State::Ready(_) => PeerCondition::Ready,
            State::Backing { attempts, .. } if *attempts >= ATTEMPTS_UNTIL_DEAD => PeerCondition::Dead,
            State::Backing { .. } => PeerCondition::Suspect,
        }
    }

    /// The error that explains why the peer is not used, if any.
    #[must_use]
    pub fn error(&self) -> Option<Error> {
        match &self.0 {
            State::Backing { error, .. } => Some(error.clone()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Code, Stage};

    fn error(text: &str) -> Error {
        Error::new(Code::Socket, Stage::Connect, text)
    }

    #[test]
    fn one_attempt_at_a_time() {
        let now = Instant::now();
        let mut state = PeerState::<u32>::default();
        assert!(matches!(state.begin(now), Step::Connect));
        assert!(matches!(state.begin(now), Step::Wait));
        state.connected(7);
        assert!(matches!(state.begin(now), Step::Use(7)));
    }

    #[test]
    fn fails_fast_with_the_cause_while_backing_off() {
        let now = Instant::now();
        let mut state = PeerState::<u32>::default();
        assert!(matches!(state.begin(now), Step::Connect));
        state.failed(now, error("refused"));
        match state.begin(now) {
            Step::FailFast(cause) => assert_eq!(cause.record().message, "refused"),
            other => panic!("{other:?}"),
        }
        assert!(matches!(state.begin(now + BACK_OFF_FIRST), Step::Connect));
    }

    #[test]
    fn the_back_off_grows_to_its_cap_and_no_further() {
        let mut now = Instant::now();
        let mut state = PeerState::<u32>::default();
        for attempt in 0..40 {
            assert!(matches!(state.begin(now), Step::Connect), "attempt {attempt}");
            state.failed(now, error("refused"));
            now += BACK_OFF_CAP;
        }
        assert_eq!(state.condition(), PeerCondition::Dead);
    }

    #[test]
    fn a_lost_link_is_tried_again_at_once() {
        let now = Instant::now();
        let mut state = PeerState::<u32>::default();
        let _ = state.begin(now);
        state.connected(1);
        state.lost(now, error("reset"));
        assert_eq!(state.condition(), PeerCondition::Suspect);
        assert!(matches!(state.begin(now), Step::Connect));
    }

    #[test]
    fn an_attempt_that_tells_nothing_is_no_failure() {
        let now = Instant::now();
        let mut state = PeerState::<u32>::default();
        let _ = state.begin(now);
        state.given_up(now, error("no time"));
        assert_eq!(state.condition(), PeerCondition::Unknown);
        let mut later = now;
        for _ in 0..ATTEMPTS_UNTIL_DEAD {
            assert!(matches!(state.begin(later), Step::Connect));
            state.failed(later, error("refused"));
            later += BACK_OFF_CAP;
        }
        assert!(matches!(state.begin(later), Step::Connect));
        state.given_up(later, error("no time"));
        assert_eq!(state.condition(), PeerCondition::Dead, "what was known of the peer is still known");
        assert!(matches!(state.begin(later), Step::Connect));
    }

    #[test]
    fn a_dead_peer_that_calls_is_tried_at_once() {
        let now = Instant::now();
        let mut state = PeerState::<u32>::default();
        let _ = state.begin(now);
        state.failed(now, error("refused"));
        state.heard_from();
        assert!(matches!(state.begin(now), Step::Connect));
    }
}
