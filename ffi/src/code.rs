//! The numbers of `enum mooncake_transfer_code` and `enum mooncake_transfer_stage`.

use std::ffi::{CStr, c_char, c_int};

use mooncake::error::{Code, Error, Stage};

/// Every code with its number and its name closed by NUL.
const CODES: [(Code, c_int, &CStr); 26] = [
    (Code::InvalidArgument, -1, c"invalid-argument"),
    (Code::TooManyRequests, -2, c"too-many-requests"),
    (Code::AddressNotRegistered, -3, c"address-not-registered"),
    (Code::Busy, -4, c"busy"),
    (Code::DeviceNotFound, -6, c"device-not-found"),
    (Code::AddressOverlapped, -7, c"address-overlapped"),
    (Code::Dns, -101, c"dns"),
    (Code::Socket, -102, c"socket"),
    (Code::MalformedJson, -103, c"malformed-json"),
    (Code::RejectHandshake, -104, c"reject-handshake"),
    (Code::Metadata, -200, c"metadata"),
    (Code::Endpoint, -201, c"endpoint"),
    (Code::Context, -202, c"context"),
    (Code::Clock, -301, c"clock"),
    (Code::Memory, -302, c"memory"),
    (Code::NotImplemented, -303, c"not-implemented"),
    (Code::NotSupportedTransport, -1001, c"not-supported-transport"),
    (Code::Timeout, -1002, c"timeout"),
    (Code::Cancelled, -1003, c"cancelled"),
    (Code::StillRunning, -1004, c"still-running"),
    (Code::StaleIncarnation, -1005, c"stale-incarnation"),
    (Code::LibraryUnavailable, -1006, c"library-unavailable"),
    (Code::Vendor, -1007, c"vendor"),
    (Code::Unsupported, -1008, c"unsupported"),
    (Code::StaleHandle, -1009, c"stale-handle"),
    (Code::Internal, -1010, c"internal"),
];

/// The number of a code.
pub(crate) fn number(code: Code) -> c_int {
    let internal = -1010;
    CODES.iter().find(|(known, _, _)| *known == code).map_or(internal, |(_, number, _)| *number)
}

/// The number of a failure: what the functions of our own header return.
pub(crate) fn of(error: &Error) -> c_int {
    number(error.code())
}

/// The number of a stage.
pub(crate) fn stage_number(stage: Stage) -> c_int {
    match stage {
        Stage::Configure => 0,
        Stage::Load => 1,
        Stage::Resolve => 2,
        Stage::Handshake => 3,
        Stage::Connect => 4,
        Stage::Register => 5,
        Stage::Submit => 6,
        Stage::Execute => 7,
        Stage::Drain => 8,
    }
}

fn name(code: c_int) -> &'static CStr {
    if code == 0 {
        return c"ok";
    }
    CODES.iter().find(|(_, number, _)| *number == code).map_or(c"unknown", |(_, _, name)| *name)
}

export! {
    /// Name of a code.
    fn mooncake_transfer_code_name(code: c_int) -> *const c_char,
    failure |_| c"unknown".as_ptr(), {
        Ok(name(code).as_ptr())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_core_and_numbers_are_unique() {
        for (position, (code, number, text)) in CODES.iter().enumerate() {
            assert_eq!(text.to_str().unwrap(), code.name());
            assert_eq!(name(*number), *text);
            assert!(CODES[..position].iter().all(|(other, value, _)| other != code && value != number));
            if *number > -1000 {
                assert_eq!(*number, code.negative(), "{}", code.name());
            }
        }
        assert_eq!(name(0), c"ok");
        assert_eq!(name(5), c"unknown");
    }
}
