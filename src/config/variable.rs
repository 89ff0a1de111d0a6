//! What one environment variable is: name, kind, unit, default, range, meaning.
//!
//! Reading goes through the description, so that the documentation cannot disagree with the code. An unusable
//! value is never fatal: it becomes a [`Warning`] and the default holds.

use std::fmt;

/// How the text of a variable is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number.
    Number {
        /// Taken when the variable is absent or unusable.
        default: u64,
        /// Smallest usable value.
        min: u64,
        /// Largest usable value.
        max: u64,
        /// What one is: `ms`, `s`, `bytes`, `port`, or a plain noun.
        unit: &'static str,
    },
    /// On when the variable is there, whatever it says.
    Presence,
    /// On when the text is exactly this.
    Exactly(&'static str),
    /// On when the text is a number other than 0.
    NotZero,
    /// Text as it is; absent and empty are the same.
    Text(&'static str),
}

/// One environment variable that has an effect here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Other names that are read when `name` is absent, in this order.
    pub aliases: &'static [&'static str],
    /// How its text is understood.
    pub kind: Kind,
    /// What it does, in one sentence.
    pub meaning: &'static str,
}

/// A setting that was not usable as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The variable, by the name under which it was found.
    pub name: String,
    /// What it said, shortened.
    pub value: String,
    /// What was wrong and what holds instead.
    pub text: String,
}

impl Warning {
    /// About a variable, with the beginning of its value.
    #[must_use]
    pub fn new(name: &str, value: &str, text: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.chars().take(SHOWN_CHARACTERS).collect(), text: text.into() }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={:?}: {}", self.name, self.value, self.text)
    }
}

impl Variable {
    /// The value that holds when the variable is absent, as text.
    #[must_use]
    pub fn default_text(&self) -> String {
        match self.kind {
            Kind::Number { default, .. } => default.to_string(),
            Kind::Presence | Kind::Exactly(_) | Kind::NotZero => "off".into(),
            Kind::Text(default) => default.into(),
        }
    }

    /// The unit of a number, else the kind of text.
    #[must_use]
    pub fn unit(&self) -> &'static str {
        match self.kind {
            Kind::Number { unit, .. } => unit,
            Kind::Presence | Kind::Exactly(_) | Kind::NotZero => "switch",
            Kind::Text(_) => "text",
        }
    }

    /// What values are usable, as text.
    #[must_use]
    pub fn range_text(&self) -> String {
        match self.kind {
            Kind::Number { min, max, .. } => format!("{min} to {max}"),
            Kind::Presence => "on when set to anything".into(),
            Kind::Exactly(on) => format!("on when {on}"),
            Kind::NotZero => "on when a number other than 0".into(),
            Kind::Text(_) => String::new(),
        }
    }
}

/// Longest part of a value that a warning repeats.
const SHOWN_CHARACTERS: usize = 80;

/// Reads variables and gathers warnings.
pub(super) struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    /// What was not usable so far.
    pub(super) warnings: Vec<Warning>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { lookup, warnings: Vec::new() }
    }

    /// The text of a variable and the name it was found under.
    pub(super) fn raw(&self, variable: &Variable) -> Option<(&'static str, String)> {
        std::iter::once(variable.name)
            .chain(variable.aliases.iter().copied())
            .find_map(|name| Some((name, (self.lookup)(name)?)))
    }

    pub(super) fn warn(&mut self, name: &str, value: &str, text: impl Into<String>) {
        self.warnings.push(Warning::new(name, value, text));
    }

    /// A number within its range; `None` when the variable is absent or unusable.
    pub(super) fn given_number(&mut self, variable: &Variable) -> Option<u64> {
        let Kind::Number { default, min, max, unit } = variable.kind else { return None };
        let (name, text) = self.raw(variable)?;
        match text.trim().parse::<u64>() {
            Ok(value) if (min..=max).contains(&value) => Some(value),
            Ok(_) => {
                self.warn(name, &text, format!("outside {min} to {max} {unit}; {default} holds"));
                None
            }
            Err(_) => {
                self.warn(name, &text, format!("no whole number of {unit}; {default} holds"));
                None
            }
        }
    }

    /// A number within its range, else the default.
    pub(super) fn number(&mut self, variable: &Variable) -> u64 {
        let default = match variable.kind {
            Kind::Number { default, .. } => default,
            _ => 0,
        };
        self.given_number(variable).unwrap_or(default)
    }

    /// A number as a smaller type; ranges in the table make the conversion exact.
    pub(super) fn number_as<T: TryFrom<u64> + Default>(&mut self, variable: &Variable) -> T {
        T::try_from(self.number(variable)).unwrap_or_default()
    }

    pub(super) fn switch(&mut self, variable: &Variable) -> bool {
        let Some((name, text)) = self.raw(variable) else { return false };
        match variable.kind {
            Kind::Presence => true,
            Kind::Exactly(on) => text == on,
            Kind::NotZero => match text.trim().parse::<i64>() {
                Ok(value) => value != 0,
                Err(_) => {
                    self.warn(name, &text, "no number; off holds");
                    false
                }
            },
            Kind::Number { .. } | Kind::Text(_) => false,
        }
    }

    /// Text that is there and not empty, else the default where there is one.
    pub(super) fn text(&mut self, variable: &Variable) -> Option<String> {
        let default = match variable.kind {
            Kind::Text(default) if !default.is_empty() => Some(default.to_owned()),
            _ => None,
        };
        self.raw(variable).map(|(_, text)| text.trim().to_owned()).filter(|text| !text.is_empty()).or(default)
    }
}
