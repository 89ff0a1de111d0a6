//! What can go wrong before the first call: no library, or a library without a function.

use crate::capability::Capability;
use crate::functions::{Library, Symbol};
use crate::options::Place;
use crate::release::{Release, Since};
use core::fmt;
use std::path::{Path, PathBuf};

/// A library that is open, and how it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Provenance {
    /// Which library.
    pub library: Library,
    /// The file it is mapped from, as the linker knows it.
    pub path: PathBuf,
    /// How it was found.
    pub place: Place,
}

impl fmt::Display for Provenance {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {} ({})", self.library, self.path.display(), self.place)
    }
}

/// A path that was tried in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// What was looked for.
    pub library: Library,
    /// The path, or a bare file name for the linker to search.
    pub path: PathBuf,
    /// Why it was tried.
    pub place: Place,
    /// Why it did not do.
    pub failure: AttemptFailure,
}

/// Why a path did not do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttemptFailure {
    /// The linker's text.
    NotOpened(String),
    /// The process has the same library from another file; two copies would each have half the state.
    SecondCopy {
        /// The file that is loaded.
        loaded: PathBuf,
    },
}

impl Attempt {
    /// Why it did not do, in words.
    fn reason(&self) -> String {
        match &self.failure {
            AttemptFailure::NotOpened(text) => {
                // The linker begins with the path, which stands beside it.
                let prefix = format!("{}: ", self.path.display());
                text.strip_prefix(&prefix).unwrap_or(text).to_owned()
            }
            AttemptFailure::SecondCopy { loaded } => {
                format!("refused, the process has loaded {}", loaded.display())
            }
        }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({}): {}", self.path.display(), self.place, self.reason())
    }
}

/// CANN was not found, or only a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadError {
    /// The libraries that were not found.
    pub missing: Vec<Library>,
    /// The libraries that were.
    pub libraries_found: Vec<Provenance>,
    /// Every path tried, in order, with the reason why it did not do.
    pub attempts: Vec<Attempt>,
}

impl fmt::Display for LoadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CANN was not found: no ")?;
        for (index, library) in self.missing.iter().enumerate() {
            if index > 0 {
                formatter.write_str(" and no ")?;
            }
            write!(formatter, "{library} ({})", library.file_names().join(" or "))?;
        }
        for provenance in &self.libraries_found {
            write!(formatter, "\n  found {provenance}")?;
        }
        for group in &groups(&self.attempts) {
            write!(formatter, "\n  tried {group}")?;
        }
        Ok(())
    }
}

impl core::error::Error for LoadError {}

/// Attempts in one directory that ended alike: a search that finds nothing fails in the same way file after file.
struct Group<'a> {
    directory: &'a Path,
    files: Vec<String>,
    place: Place,
    reason: String,
}

impl fmt::Display for Group<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = self.files.join(", ");
        match self.files.as_slice() {
            [file] => write!(formatter, "{}", self.directory.join(file).display())?,
            _ if self.directory.as_os_str().is_empty() => formatter.write_str(&files)?,
            _ => write!(formatter, "{}/ for {files}", self.directory.display())?,
        }
        write!(formatter, " ({}): {}", self.place, self.reason)
    }
}

/// All attempts, each in one group; the groups in the order of their first attempts.
fn groups(attempts: &[Attempt]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for attempt in attempts {
        let directory = attempt.path.parent().unwrap_or(Path::new(""));
        let file = attempt.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let reason = attempt.reason();
        let like = |group: &&mut Group<'_>| {
            group.directory == directory && group.place == attempt.place && group.reason == reason
        };
        match groups.iter_mut().find(like) {
            Some(group) if group.files.contains(&file) => {}
            Some(group) => group.files.push(file),
            None => groups.push(Group { directory, files: vec![file], place: attempt.place, reason }),
        }
    }
    groups
}

/// CANN is loaded, but lacks functions that were asked for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MissingSymbols {
    /// What they are needed for; `None` if single functions were asked for by name.
    pub capability: Option<Capability>,
    /// The functions that were not found.
    pub symbols: Vec<&'static Symbol>,
    /// Names asked for that this crate does not know at all.
    pub unknown: Vec<String>,
    /// The libraries in which they were looked for.
    pub searched: Vec<Provenance>,
    /// Paths tried in vain when CANN was loaded: a better installation may be among them.
    pub attempts: Vec<Attempt>,
}

impl MissingSymbols {
    /// The first release that certainly has all of them.
    #[must_use]
    pub fn first_release(&self) -> Option<Release> {
        self.symbols.iter().map(|symbol| symbol.since.certain).max()
    }
}

impl fmt::Display for MissingSymbols {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.capability {
            Some(capability) => {
                write!(formatter, "this CANN has no {capability}", capability = Bare(capability))?
            }
            None => formatter.write_str("this CANN lacks functions")?,
        }
        let mut sinces: Vec<Since> = Vec::new();
        for symbol in &self.symbols {
            if !sinces.contains(&symbol.since) {
                sinces.push(symbol.since);
            }
        }
        for since in sinces {
            let names: Vec<_> = self
                .symbols
                .iter()
                .filter(|symbol| symbol.since == since)
                .map(|symbol| symbol.name)
                .collect();
            write!(formatter, "\n  missing {}, first in {since}", names.join(", "))?;
        }
        if !self.unknown.is_empty() {
            write!(formatter, "\n  unknown to this crate: {}", self.unknown.join(", "))?;
        }
        for provenance in &self.searched {
            write!(formatter, "\n  searched {provenance}")?;
        }
        for group in &groups(&self.attempts) {
            write!(formatter, "\n  tried {group}")?;
        }
        Ok(())
    }
}

/// A capability's name without its article, for use after "no".
struct Bare(Capability);

impl fmt::Display for Bare {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.to_string();
        let name = name.strip_prefix("the ").unwrap_or(&name);
        match self.0 {
            // It is there, but not whole.
            Capability::Runtime => write!(formatter, "complete {name}"),
            _ => formatter.write_str(name),
        }
    }
}

impl core::error::Error for MissingSymbols {}
