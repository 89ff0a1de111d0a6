//! Where memory lies: what a caller says, and what it turns out to be.

use std::fmt;
use std::str::FromStr;

use crate::error::{Code, Error, Result, Stage};

/// What a range of memory is, once it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MemoryKind {
    /// Memory of the host.
    Host,
    /// Memory of the device with this id (the one `aclrtSetDevice` takes).
    Device(i32),
}

impl MemoryKind {
    /// The device, when it is device memory.
    #[must_use]
    pub const fn device(self) -> Option<i32> {
        match self {
            Self::Host => None,
            Self::Device(id) => Some(id),
        }
    }
}

/// Where the caller says that memory lies.
///
/// Upstream's Ascend transport takes the prefixes `cpu` and `npu` and the wildcard, and nothing else; the
/// text is published as the buffer's name, so [`fmt::Display`] gives it back as upstream spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Location {
    /// `*`: to be found out from the pointer.
    Any,
    /// `cpu:N`: host memory; `None` for a bare `cpu`.
    Cpu(Option<u32>),
    /// `npu:N`: device memory; `None` for a bare `npu`, which stands for the device the caller has bound.
    Npu(Option<u32>),
}

impl Location {
    /// The location of a classified range.
    #[must_use]
    pub fn of(kind: MemoryKind) -> Self {
        match kind {
            MemoryKind::Host => Self::Cpu(Some(0)),
            MemoryKind::Device(id) => Self::Npu(u32::try_from(id).ok()),
        }
    }
}

impl FromStr for Location {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = || {
            Error::new(
                Code::InvalidArgument,
                Stage::Register,
                format!("unknown memory location '{}'", text.escape_default()),
            )
            .advice(
                "use \"cpu:N\" for host memory, \"npu:N\" for device memory or \"*\" to have it found out",
            )
        };
        let number = |rest: &str| -> Result<Option<u32>> {
            match rest.strip_prefix(':') {
                None if rest.is_empty() => Ok(None),
                Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                    digits.parse().map(Some).map_err(|_| refuse())
                }
                _ => Err(refuse()),
            }
        };
        if text == "*" {
            Ok(Self::Any)
        } else if let Some(rest) = text.strip_prefix("cpu") {
            number(rest).map(Self::Cpu)
        } else if let Some(rest) = text.strip_prefix("npu") {
            number(rest).map(Self::Npu)
        } else {
            Err(refuse())
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Cpu(None) => f.write_str("cpu"),
            Self::Npu(None) => f.write_str("npu"),
            Self::Cpu(Some(node)) => write!(f, "cpu:{node}"),
            Self::Npu(Some(id)) => write!(f, "npu:{id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn accepted_forms_print_as_given() {
        for text in ["*", "cpu", "cpu:0", "cpu:7", "npu", "npu:0", "npu:15"] {
            assert_eq!(text.parse::<Location>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_accepted_forms() {
        for text in
            ["", "gpu:0", "cuda:0", "cpu:", "cpu0", "npu:-1", "npu:x", "npu:+1", "npu:99999999999", "* "]
        {
            let error = text.parse::<Location>().unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{text}");
            let advice = error.record().advice.clone().unwrap();
            assert!(["cpu:N", "npu:N", "\"*\""].iter().all(|form| advice.contains(form)), "{advice}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC*") {
            if let Ok(location) = text.parse::<Location>() {
                prop_assert_eq!(location.to_string().parse::<Location>().unwrap(), location);
            }
        }
    }
}
