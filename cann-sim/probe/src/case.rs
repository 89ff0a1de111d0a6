//! What a case is: a question, where the expectation comes from, and the observations it makes.
//!
//! A case runs in a process of its own and tells its observations as lines on the standard output, so that a
//! crash or a hang of one costs the others nothing and keeps what was seen before it.

use std::fmt::{self, Display};
use std::io::Write as _;

/// Why a case could not come to its end.
#[derive(Debug, Clone)]
pub enum Stop {
    /// The machine or this CANN lacks what the question needs.
    Cannot(String),
}

impl Stop {
    /// A function is not there.
    pub fn missing(name: &str) -> Self {
        Self::Cannot(format!("this CANN has no {name}"))
    }
}

impl Display for Stop {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cannot(reason) => formatter.write_str(reason),
        }
    }
}

/// What a case answers.
pub type Answer<T = ()> = Result<T, Stop>;

/// One case.
#[derive(Clone, Copy)]
pub struct Case {
    /// Name for the command line.
    pub name: &'static str,
    /// Section of the fact sheet that the expectation comes from.
    pub source: &'static str,
    /// The question in words.
    pub question: &'static str,
    /// Variables that the case's process gets.
    pub variables: &'static [(&'static str, &'static str)],
    /// What it does.
    pub run: fn(&mut crate::probe::Probe) -> Answer,
}

/// What every line of a case begins with; other output (CANN may log there) is not ours.
pub const MARK: &str = "@@";

/// One line of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// Something with an expectation.
    Check {
        /// What was looked at.
        what: String,
        /// By the model.
        expected: String,
        /// On this machine.
        seen: String,
    },
    /// Something without one: a number to calibrate the model with, or an open question.
    Measured {
        /// What was looked at.
        what: String,
        /// On this machine.
        seen: String,
    },
    /// The case cannot be decided here.
    Cannot(String),
    /// The case came to its end.
    End,
}

impl Line {
    /// Prints the line for the suite.
    pub fn tell(&self) {
        let text = match self {
            Self::Check { what, expected, seen } => format!("{MARK}\tcheck\t{what}\t{expected}\t{seen}"),
            Self::Measured { what, seen } => format!("{MARK}\tmeasured\t{what}\t{seen}"),
            Self::Cannot(reason) => format!("{MARK}\tcannot\t{}", reason.replace(['\n', '\t'], " ")),
            Self::End => format!("{MARK}\tend"),
        };
        let mut output = std::io::stdout().lock();
        // A suite that is gone wants to hear nothing.
        if writeln!(output, "{text}").and_then(|()| output.flush()).is_err() {
            std::process::exit(1);
        }
    }

    /// Reads a line; `None` for what is no line of a case.
    pub fn read(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split('\t').collect();
        match words.as_slice() {
            [MARK, "check", what, expected, seen] => Some(Self::Check {
                what: (*what).to_owned(),
                expected: (*expected).to_owned(),
                seen: (*seen).to_owned(),
            }),
            [MARK, "measured", what, seen] => {
                Some(Self::Measured { what: (*what).to_owned(), seen: (*seen).to_owned() })
            }
            [MARK, "cannot", reason] => Some(Self::Cannot((*reason).to_owned())),
            [MARK, "end"] => Some(Self::End),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_others_are_not_ours() {
        assert_eq!(Line::read("[INFO] RUNTIME(123,probe): end"), None);
        assert_eq!(Line::read("@@\tcheck\ttoo\tfew"), None);
        assert_eq!(
            Line::read("@@\tcheck\tfree\t0\t1"),
            Some(Line::Check { what: "free".to_owned(), expected: "0".to_owned(), seen: "1".to_owned() })
        );
        assert_eq!(Line::read("@@\tend"), Some(Line::End));
    }
}
