//! The one error of the library: a code, the stage it happened in, and every fact a person needs to act.
//!
//! An [`Error`] is a pointer to a [`Record`]; passing it around costs a word. The record is also what the
//! C ABI hands out as "last error": it is kept per thread by [`set_last`] and read by [`last`].
//!
//! Invariants: a record always has a code, a stage and a message; everything else is there when it is known.
//! Texts are lower case without a full stop, so that they can be joined.

use std::cell::RefCell;
use std::fmt;

/// Result of the core.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as a closed set.
///
/// Upstream has two numberings for one set of meanings (`error.h`, negative, and `Status::Code`, positive);
/// [`Code::negative`] and [`Code::status`] give them. Codes without an upstream twin map to the nearest one,
/// so that a caller written for upstream sees a number it knows.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// An argument is not usable as given.
    InvalidArgument,
    /// A bounded resource is used up (batch capacity, queue, id space).
    TooManyRequests,
    /// The address range lies in no registered buffer.
    AddressNotRegistered,
    /// The object is in use by transfers in flight.
    Busy,
    /// No such device.
    DeviceNotFound,
    /// The range overlaps one that is registered already.
    AddressOverlapped,
    /// No transport here can serve the request.
    NotSupportedTransport,
    /// A host name did not resolve.
    Dns,
    /// A socket could not be opened, connected, read or written.
    Socket,
    /// A message was not the JSON it should be.
    MalformedJson,
    /// The peer refused.
    RejectHandshake,
    /// The metadata service failed or has no such entry.
    Metadata,
    /// A peer's data endpoint is missing or broken.
    Endpoint,
    /// No usable device context.
    Context,
    /// Memory could not be had or mapped.
    Memory,
    /// The clock could not be read.
    Clock,
    /// The function is part of the interface but not offered here.
    NotImplemented,
    /// The deadline passed; what was started is quiet again.
    Timeout,
    /// The caller cancelled; what was started is quiet again.
    Cancelled,
    /// The deadline passed and what was started could not be made quiet; the handle stays valid.
    StillRunning,
    /// The peer is another process than the one this name stood for.
    StaleIncarnation,
    /// A library or one of its functions is missing.
    LibraryUnavailable,
    /// A vendor call failed; see [`Record::vendor`].
    Vendor,
    /// A limit of the machine or the vendor forbids it.
    Unsupported,
    /// The handle was made before a fork, or by another engine, or is closed.
    StaleHandle,
    /// A defect of this library.
    Internal,
}

impl Code {
    /// The negative number of upstream's `error.h` (registration, open, notify, probe).
    #[must_use]
    pub const fn negative(self) -> i32 {
        match self {
            Self::TooManyRequests => -2,
            Self::AddressNotRegistered => -3,
            Self::Busy | Self::StillRunning => -4,
            Self::DeviceNotFound => -6,
            Self::AddressOverlapped => -7,
            Self::Dns => -101,
            Self::Socket | Self::Timeout => -102,
            Self::MalformedJson => -103,
            Self::RejectHandshake => -104,
            Self::Metadata => -200,
            Self::Endpoint | Self::StaleIncarnation => -201,
            Self::Context | Self::Vendor | Self::LibraryUnavailable => -202,
            Self::Clock => -301,
            Self::Memory => -302,
            Self::NotImplemented | Self::NotSupportedTransport | Self::Unsupported => -303,
            Self::InvalidArgument | Self::Cancelled | Self::StaleHandle | Self::Internal => -1,
        }
    }

    /// The positive number of upstream's `Status::Code` (submit, status, free).
    #[must_use]
    pub const fn status(self) -> i32 {
        match self {
            Self::InvalidArgument | Self::Cancelled | Self::StaleHandle | Self::Internal => 1,
            Self::TooManyRequests => 2,
            Self::AddressNotRegistered => 3,
            Self::Busy | Self::StillRunning => 4,
            Self::DeviceNotFound => 6,
            Self::AddressOverlapped => 7,
            Self::NotSupportedTransport | Self::Unsupported => 8,
            Self::Dns => 101,
            Self::Socket | Self::Timeout => 102,
            Self::MalformedJson => 103,
            Self::RejectHandshake => 104,
            Self::Metadata => 200,
            Self::Endpoint | Self::StaleIncarnation => 201,
            Self::Context | Self::Vendor | Self::LibraryUnavailable => 202,
            Self::Clock => 301,
            Self::Memory => 302,
            Self::NotImplemented => 999,
        }
    }

    /// Stable name, as printed and as handed to C.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidArgument => "invalid-argument",
            Self::TooManyRequests => "too-many-requests",
            Self::AddressNotRegistered => "address-not-registered",
            Self::Busy => "busy",
            Self::DeviceNotFound => "device-not-found",
            Self::AddressOverlapped => "address-overlapped",
            Self::NotSupportedTransport => "not-supported-transport",
            Self::Dns => "dns",
            Self::Socket => "socket",
            Self::MalformedJson => "malformed-json",
            Self::RejectHandshake => "reject-handshake",
            Self::Metadata => "metadata",
            Self::Endpoint => "endpoint",
            Self::Context => "context",
            Self::Memory => "memory",
            Self::Clock => "clock",
            Self::NotImplemented => "not-implemented",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::StillRunning => "still-running",
            Self::StaleIncarnation => "stale-incarnation",
            Self::LibraryUnavailable => "library-unavailable",
            Self::Vendor => "vendor",
            Self::Unsupported => "unsupported",
            Self::StaleHandle => "stale-handle",
            Self::Internal => "internal",
        }
    }
}

/// Where in the life of a transfer the error arose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Reading settings and arguments.
    Configure,
    /// Opening the vendor's libraries.
    Load,
    /// Turning a name into an address or a descriptor.
    Resolve,
    /// Talking to the peer's handshake listener.
    Handshake,
    /// Making a channel or a lane.
    Connect,
    /// Registering or withdrawing memory.
    Register,
    /// Checking and queueing a request.
    Submit,
    /// Moving bytes.
    Execute,
    /// Making quiet what was started.
    Drain,
}

impl Stage {
    /// Stable name, as printed and as handed to C.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Configure => "configure",
            Self::Load => "load",
            Self::Resolve => "resolve",
            Self::Handshake => "handshake",
            Self::Connect => "connect",
            Self::Register => "register",
            Self::Submit => "submit",
            Self::Execute => "execute",
            Self::Drain => "drain",
        }
    }
}

/// What the vendor's library said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vendor {
    /// The function that failed, as the vendor spells it.
    pub function: &'static str,
    /// Its return value: an `aclError` or an `HcclResult`.
    pub code: i32,
    /// The text of `aclGetRecentErrMsg`, fetched on the same thread; empty when there was none.
    pub text: String,
    /// Where the vendor writes its own log, when known.
    pub plog: Option<String>,
}

/// Everything known about one failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What went wrong.
    pub code: Code,
    /// Where.
    pub stage: Stage,
    /// One sentence with the facts.
    pub message: String,
    /// The peer it concerns, as the caller named it.
    pub peer: Option<String>,
    /// The device it concerns (the id `aclrtSetDevice` takes).
    pub device: Option<i32>,
    /// The address range it concerns: start and length in bytes.
    pub range: Option<(u64, u64)>,
    /// What the vendor said.
    pub vendor: Option<Vendor>,
    /// What to do, in one line.
    pub advice: Option<String>,
}

/// A failure; see [`Record`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(Box<Record>);

impl Error {
    /// A failure with the three facts that are always known.
    #[must_use]
    pub fn new(code: Code, stage: Stage, message: impl Into<String>) -> Self {
        Self(Box::new(Record {
            code,
            stage,
            message: message.into(),
            peer: None,
            device: None,
            range: None,
            vendor: None,
            advice: None,
        }))
    }

    /// Names the peer, unless one is named already.
    #[must_use]
    pub fn peer(mut self, peer: impl Into<String>) -> Self {
        self.0.peer.get_or_insert_with(|| peer.into());
        self
    }

    /// Names the device, unless one is named already.
    #[must_use]
    pub fn device(mut self, device: i32) -> Self {
        self.0.device.get_or_insert(device);
        self
    }

    /// Names the address range, unless one is named already.
    #[must_use]
    pub fn range(mut self, start: u64, length_bytes: u64) -> Self {
        self.0.range.get_or_insert((start, length_bytes));
        self
    }

    /// Adds what the vendor said.
    #[must_use]
    pub fn vendor(mut self, vendor: Vendor) -> Self {
        self.0.vendor = Some(vendor);
        self
    }

    /// Says what to do, unless something was said already.
    #[must_use]
    pub fn advice(mut self, advice: impl Into<String>) -> Self {
        self.0.advice.get_or_insert_with(|| advice.into());
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// Where.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.0.stage
    }

    /// All facts.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.0
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = &*self.0;
        write!(f, "{} failed ({}): {}", record.stage.name(), record.code.name(), record.message)?;
        if let Some(peer) = &record.peer {
            write!(f, "; peer {peer}")?;
        }
        if let Some(device) = record.device {
            write!(f, "; device {device}")?;
        }
        if let Some((start, length_bytes)) = record.range {
            write!(f, "; range {start:#x}+{length_bytes}")?;
        }
        if let Some(vendor) = &record.vendor {
            write!(f, "; {} returned {}", vendor.function, vendor.code)?;
            if !vendor.text.is_empty() {
                write!(f, " ({})", vendor.text.trim())?;
            }
            if let Some(plog) = &vendor.plog {
                write!(f, "; vendor log {plog}")?;
            }
        }
        if let Some(advice) = &record.advice {
            write!(f, "; {advice}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

thread_local! {
    static LAST: RefCell<Option<Error>> = const { RefCell::new(None) };
}

/// Keeps `error` as the calling thread's last error. A thread whose destructors run keeps none any more.
pub fn set_last(error: Error) {
    let _ending = LAST.try_with(|slot| *slot.borrow_mut() = Some(error));
}

/// The calling thread's last error, if a call failed on it since [`clear_last`].
#[must_use]
pub fn last() -> Option<Error> {
    LAST.try_with(|slot| slot.borrow().clone()).ok().flatten()
}

/// Forgets the calling thread's last error.
pub fn clear_last() {
    let _ending = LAST.try_with(|slot| *slot.borrow_mut() = None);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_every_known_fact() {
        let error = Error::new(Code::Vendor, Stage::Connect, "prepare timed out after 3000 ms")
            .peer("10.0.0.2:15044")
            .device(3)
            .range(0x1000, 64)
            .vendor(Vendor {
                function: "HcclCommPrepare",
                code: 9,
                text: "EI0006".into(),
                plog: Some("/root/ascend/log/debug/plog".into()),
            })
            .advice("check that the peer runs with the same HCCL_INTRA_ROCE_ENABLE");
        let text = error.to_string();
        for part in [
            "connect failed (vendor)",
            "3000 ms",
            "10.0.0.2:15044",
            "device 3",
            "0x1000+64",
            "HcclCommPrepare returned 9",
            "EI0006",
            "plog",
            "HCCL_INTRA_ROCE_ENABLE",
        ] {
            assert!(text.contains(part), "{part} missing in {text}");
        }
    }

    #[test]
    fn first_fact_wins() {
        let error = Error::new(Code::Socket, Stage::Connect, "x").peer("a").peer("b");
        assert_eq!(error.record().peer.as_deref(), Some("a"));
    }

    #[test]
    fn last_error_is_per_thread() {
        set_last(Error::new(Code::Dns, Stage::Resolve, "x"));
        std::thread::spawn(|| assert!(last().is_none())).join().unwrap();
        assert_eq!(last().map(|error| error.code()), Some(Code::Dns));
        clear_last();
        assert!(last().is_none());
    }
}
