//! Releases of CANN and when a function first appeared.

use core::fmt;

/// A release of CANN, in order. The runtime's own version number is another one: see [`Release::acl_version`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[allow(non_camel_case_types, reason = "a release number has dots, an identifier cannot")]
pub enum Release {
    /// 8.1.RC1, the oldest this crate knows.
    V8_1,
    /// 8.2.RC1
    V8_2,
    /// 8.3.RC1
    V8_3,
    /// 8.5.0
    V8_5,
    /// 9.0.0
    V9_0,
    /// 9.1.0
    V9_1,
}

impl Release {
    /// `(major, minor)` of `aclrtGetVersion` in this release. From 9.0 on the number stands still at 1.17.
    #[must_use]
    pub const fn acl_version(self) -> (i32, i32) {
        match self {
            Self::V8_1 => (1, 13),
            Self::V8_2 => (1, 14),
            Self::V8_3 => (1, 15),
            Self::V8_5 => (1, 16),
            Self::V9_0 | Self::V9_1 => (1, 17),
        }
    }

    /// The release's number as the vendor writes it.
    #[must_use]
    pub const fn version(self) -> &'static str {
        match self {
            Self::V8_1 => "8.1.RC1",
            Self::V8_2 => "8.2.RC1",
            Self::V8_3 => "8.3.RC1",
            Self::V8_5 => "8.5.0",
            Self::V9_0 => "9.0.0",
            Self::V9_1 => "9.1.0",
        }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "CANN {}", self.version())
    }
}

/// The first release that has a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Since {
    /// The release in which the function certainly is.
    pub certain: Release,
    /// An earlier one in which it probably is: the vendor's own products of that time used it, but no
    /// public header or library shows it.
    pub perhaps: Option<Release>,
}

impl fmt::Display for Since {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.certain)?;
        match self.perhaps {
            Some(earlier) => write!(formatter, " (unverified: already {earlier})"),
            None => Ok(()),
        }
    }
}
