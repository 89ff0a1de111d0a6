//! Why a call of the store did not succeed: upstream's number, and the record of what happened when there is one.

use std::fmt;
use std::sync::Arc;

use mooncake_wire::ErrorCode;

use crate::error::{Code, Error, Stage};

/// What a call of the store gives.
pub type Outcome<T> = Result<T, Failure>;

/// A failure of the store. Cloning it costs a count: one cause is often that of many keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    code: ErrorCode,
    cause: Option<Arc<Error>>,
}

impl Failure {
    /// A failure with the record of what happened.
    #[must_use]
    pub fn new(code: ErrorCode, cause: Error) -> Self {
        Self { code, cause: Some(Arc::new(cause)) }
    }

    /// An argument that cannot be used, and why.
    pub(super) fn refused(why: impl Into<String>) -> Self {
        Self::new(ErrorCode::INVALID_PARAMS, Error::new(Code::InvalidArgument, Stage::Submit, why))
    }

    /// The number that Python and C give.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// What happened, when more is known than the number says.
    #[must_use]
    pub fn cause(&self) -> Option<&Error> {
        self.cause.as_deref()
    }

    /// The failure as an error of the core, for a last error.
    #[must_use]
    pub fn to_error(&self) -> Error {
        if let Some(cause) = &self.cause {
            return (**cause).clone();
        }
        let code = match self.code {
            ErrorCode::INVALID_PARAMS | ErrorCode::INVALID_KEY | ErrorCode::BUFFER_OVERFLOW => {
                Code::InvalidArgument
            }
            ErrorCode::NO_AVAILABLE_HANDLE => Code::TooManyRequests,
            ErrorCode::RPC_FAIL => Code::Socket,
            ErrorCode::RPC_TIMEOUT => Code::Timeout,
            ErrorCode::OBJECT_HAS_LEASE | ErrorCode::OBJECT_REPLICA_BUSY => Code::Busy,
            ErrorCode::NOT_SUPPORTED => Code::NotImplemented,
            ErrorCode::TRANSFER_FAIL => Code::Endpoint,
            _ => Code::Metadata,
        };
        Error::new(code, Stage::Execute, self.to_string())
    }
}

impl From<ErrorCode> for Failure {
    fn from(code: ErrorCode) -> Self {
        Self { code, cause: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): ", self.code.name(), self.code.0)?;
        match &self.cause {
            Some(cause) => write!(f, "{cause}"),
            None => f.write_str(self.code.sentence()),
        }
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_number_name_and_reason() {
        let plain = Failure::from(ErrorCode::OBJECT_NOT_FOUND);
        let sentence = ErrorCode::OBJECT_NOT_FOUND.sentence();
        assert_eq!(plain.to_string(), format!("OBJECT_NOT_FOUND (-704): {sentence}"));
        assert_eq!(plain.to_error().code(), Code::Metadata);
        let caused = Failure::refused("the key is empty");
        assert_eq!(caused.code(), ErrorCode::INVALID_PARAMS);
        assert!(caused.to_string().contains("the key is empty"), "{caused}");
        assert_eq!(caused.to_error().code(), Code::InvalidArgument);
    }

    #[test]
    fn every_code_has_a_sentence() {
        for code in ErrorCode::ALL {
            let sentence = code.sentence();
            assert!(sentence.ends_with('.') && sentence.len() > 4, "{code}: {sentence:?}");
        }
    }
}
