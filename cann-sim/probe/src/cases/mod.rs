//! The cases, by what they ask about. Each names the section of the fact sheet that its expectation comes
//! from.

mod communicator;
mod copies;
mod memory;
mod one_sided;
mod sharing;
mod speed;
mod streams;
mod symbols;

use crate::case::Case;

/// Every case, in the order in which they run.
pub fn all() -> impl Iterator<Item = &'static Case> {
    [
        symbols::CASES,
        streams::CASES,
        memory::CASES,
        copies::CASES,
        sharing::CASES,
        communicator::CASES,
        one_sided::CASES,
        speed::CASES,
    ]
    .into_iter()
    .flatten()
}

/// One line of a list of cases.
macro_rules! cases {
    ($($name:ident, $source:literal, $question:literal $(, $variable:literal = $value:literal)*;)+) => {
        /// The cases of this module.
        pub const CASES: &[$crate::case::Case] = &[$($crate::case::Case {
            name: stringify!($name),
            source: concat!("facts/cann.md ", $source),
            question: $question,
            variables: &[$(($variable, $value)),*],
            run: $name,
        }),+];
    };
}
pub(crate) use cases;
