//! The version, closed by NUL.

use std::ffi::{CStr, c_char};

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => c"",
};

export! {
    /// Version of the library.
    fn mooncake_transfer_version() -> *const c_char,
    failure |_| c"".as_ptr(), {
        Ok(VERSION.as_ptr())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_the_same_version() {
        let header = include_str!("../../include/mooncake_transfer.h");
        let line = format!("#define MOONCAKE_TRANSFER_VERSION \"{}\"", env!("CARGO_PKG_VERSION"));
        assert!(header.contains(&line), "no line {line}");
        assert_eq!(VERSION.to_str(), Ok(env!("CARGO_PKG_VERSION")));
    }
}
