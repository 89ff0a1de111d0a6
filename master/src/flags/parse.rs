//! The gflags syntax: `-flag=v`, `--flag=v`, `--flag v`, `--flag`, `--noflag`; `--flagfile`, `--fromenv`,
//! `--tryfromenv`, `--undefok`. Arguments that are no flags are ignored, as upstream does.

use std::collections::BTreeMap;

use super::FlagError;
use super::duration::{parse_duration_ms, parse_size_bytes};
use super::table::{FLAGS, Flag, Kind};

/// Flag files that name flag files end here.
const MAX_FILE_DEPTH: usize = 8;

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Print the flags; exits with 1, as upstream does.
    Help,
    /// Print the version.
    Version,
    /// Start.
    Run(Flags),
}

/// The flags that were set, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    values: BTreeMap<&'static str, String>,
}

impl Flags {
    /// Whether it was set.
    #[must_use]
    pub fn is_set(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The value that was set.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Sets a flag, if the value is one of its kind.
    ///
    /// # Errors
    /// It is not.
    pub fn set(&mut self, flag: &'static Flag, value: &str) -> Result<(), FlagError> {
        let value = value.trim();
        let good = match flag.kind {
            Kind::Bool => boolean(value).is_some(),
            Kind::Int => value.parse::<i64>().is_ok(),
            Kind::UInt => value.parse::<u64>().is_ok(),
            Kind::Float => value.parse::<f64>().is_ok_and(f64::is_finite),
            Kind::Text => true,
            Kind::Duration => parse_duration_ms(value).is_some(),
            Kind::Size => parse_size_bytes(value).is_some(),
        };
        if !good {
            let (name, kind) = (flag.name, flag.kind.name());
            return Err(FlagError::exit(format!(
                "ERROR: illegal value '{value}' specified for {kind} flag '{name}'"
            )));
        }
        let value = match boolean(value) {
            Some(value) if flag.kind == Kind::Bool => value.to_string(),
            _ => value.to_owned(),
        };
        self.values.insert(flag.name, value);
        Ok(())
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "1" => Some(true),
        "false" | "f" | "no" | "n" | "0" => Some(false),
        _ => None,
    }
}

pub(super) fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

struct Parser<'e> {
    flags: Flags,
    unknown: Vec<String>,
    tolerated: Vec<String>,
    command: Option<Command>,
    environment: &'e dyn Fn(&str) -> Option<String>,
}

/// Reads a command line without its first word.
///
/// # Errors
/// A flag is unknown or its value is not of its kind.
pub fn parse(
    arguments: &[String],
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Command, FlagError> {
    let mut parser = Parser {
        flags: Flags::default(),
        unknown: Vec::new(),
        tolerated: Vec::new(),
        command: None,
        environment,
    };
    parser.arguments(arguments, 0)?;
    parser.unknown.retain(|name| !parser.tolerated.contains(name));
    if let Some(command) = parser.command {
        return Ok(command);
    }
    if !parser.unknown.is_empty() {
        let lines: Vec<_> =
            parser.unknown.iter().map(|name| format!("ERROR: unknown command line flag '{name}'")).collect();
        return Err(FlagError::exit(lines.join("\n")));
    }
    Ok(Command::Run(parser.flags))
}

impl Parser<'_> {
    fn arguments(&mut self, arguments: &[String], depth: usize) -> Result<(), FlagError> {
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            if argument == "--" {
                return Ok(());
            }
            let Some(text) = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) else {
                continue;
            };
            if text.is_empty() {
                continue;
            }
            let (name, value) = match text.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (text, None),
            };
            // Dashes inside a name are as good as underscores.
            let name = name.replace('-', "_");
            if self.special(&name, value.as_deref(), &mut rest, depth)? {
                continue;
            }
            match (find(&name), value) {
                (Some(flag), Some(value)) => self.flags.set(flag, &value)?,
                (Some(flag), None) if flag.kind == Kind::Bool => self.flags.set(flag, "true")?,
                (Some(flag), None) => {
                    let Some(value) = rest.next() else {
                        return Err(FlagError::exit(format!("ERROR: flag '{name}' is missing its argument")));
                    };
                    self.flags.set(flag, value)?;
                }
                (None, value) => match name.strip_prefix("no").and_then(find) {
                    Some(flag) if flag.kind == Kind::Bool && value.is_none() => {
                        self.flags.set(flag, "false")?
                    }
                    _ => self.unknown.push(name),
                },
            }
        }
        Ok(())
    }

    /// Flags about flags; true if this was one.
    fn special<'a>(
        &mut self,
        name: &str,
        value: Option<&str>,
        rest: &mut impl Iterator<Item = &'a String>,
        depth: usize,
    ) -> Result<bool, FlagError> {
        match name {
            "help" | "helpfull" | "helpshort" | "helpon" | "helpmatch" | "helppackage" | "helpxml" => {
                self.command.get_or_insert(Command::Help);
                return Ok(true);
            }
            "version" => {
                self.command.get_or_insert(Command::Version);
                return Ok(true);
            }
            "flagfile" | "fromenv" | "tryfromenv" | "undefok" => {}
            _ => return Ok(false),
        }
        let Some(value) = value.map(str::to_owned).or_else(|| rest.next().cloned()) else {
            return Err(FlagError::exit(format!("ERROR: flag '{name}' is missing its argument")));
        };
        for part in value.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match name {
                "flagfile" => self.file(part, depth)?,
                "undefok" => {
                    self.tolerated.push(part.to_owned());
                    self.tolerated.push(format!("no{part}"));
                }
                _ => self.set_by_environment(part, name == "fromenv")?,
            }
        }
        Ok(true)
    }

    fn set_by_environment(&mut self, name: &str, required: bool) -> Result<(), FlagError> {
        let Some(flag) = find(name) else {
            self.unknown.push(name.to_owned());
            return Ok(());
        };
        match (self.environment)(&format!("FLAGS_{name}")) {
            Some(value) => self.flags.set(flag, &value),
            None if required => Err(FlagError::exit(format!("ERROR: FLAGS_{name} not found in environment"))),
            None => Ok(()),
        }
    }

    fn file(&mut self, path: &str, depth: usize) -> Result<(), FlagError> {
        if depth >= MAX_FILE_DEPTH {
            return Err(FlagError::exit(format!("ERROR: flag files are nested too deep at '{path}'")));
        }
        let text = std::fs::read_to_string(path)
            .map_err(|error| FlagError::exit(format!("ERROR: cannot read flag file '{path}': {error}")))?;
        let lines: Vec<String> =
            text.lines().map(str::trim).filter(|line| line.starts_with('-')).map(str::to_owned).collect();
        self.arguments(&lines, depth + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<Command, FlagError> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(&words, &|name| (name == "FLAGS_eviction_ratio").then(|| "0.2".to_owned()))
    }

    fn flags(line: &str) -> Flags {
        match run(line) {
            Ok(Command::Run(flags)) => flags,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn every_spelling() {
        for line in
            ["--port 50088", "--port=50088", "-port=50088", "-port 50088", "stray --port=1 --port 50088"]
        {
            assert_eq!(flags(line).get("port"), Some("50088"), "{line}");
        }
        for (line, value) in [
            ("--enable_metric_reporting", "true"),
            ("--noenable_metric_reporting", "false"),
            ("--enable_metric_reporting=no", "false"),
            ("-logtostderr --enable_metric_reporting=1", "true"),
        ] {
            assert_eq!(flags(line).get("enable_metric_reporting"), Some(value), "{line}");
        }
        assert_eq!(flags("--fromenv=eviction_ratio").get("eviction_ratio"), Some("0.2"));
        assert_eq!(flags("--tryfromenv=port").get("port"), None);
        assert_eq!(flags("--undefok=foo --foo=1 -nofoo").get("port"), None);
        assert_eq!(run("--help"), Ok(Command::Help));
        assert_eq!(run("--version"), Ok(Command::Version));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, text) in [
            ("--bogus=1", "ERROR: unknown command line flag 'bogus'"),
            ("--port=x", "ERROR: illegal value 'x' specified for int64 flag 'port'"),
            (
                "--default_kv_lease_ttl=10q",
                "ERROR: illegal value '10q' specified for string flag 'default_kv_lease_ttl'",
            ),
            ("--port", "ERROR: flag 'port' is missing its argument"),
            ("--fromenv=port", "ERROR: FLAGS_port not found in environment"),
        ] {
            assert_eq!(run(line), Err(FlagError::exit(text.to_owned())), "{line}");
        }
    }

    #[test]
    fn flag_files() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("flags");
        std::fs::write(&path, "# comment\n--port=7\n-noenable_metric_reporting\n").expect("file");
        let flags = flags(&format!("--flagfile={} --rpc_port=8", path.display()));
        assert_eq!((flags.get("port"), flags.get("rpc_port")), (Some("7"), Some("8")));
        assert_eq!(flags.get("enable_metric_reporting"), Some("false"));
        std::fs::write(&path, format!("--flagfile={}", path.display())).expect("file");
        assert!(run(&format!("--flagfile={}", path.display())).is_err());
    }

    #[test]
    fn every_default_is_of_its_kind() {
        let mut flags = Flags::default();
        for flag in FLAGS {
            assert_eq!(flags.set(flag, flag.default), Ok(()), "{}", flag.name);
        }
    }
}
