//! `mooncake doctor`: what on this machine helps or hinders transfers.
//!
//! Each check is a function from what it looks at to findings, so that tests can show it other machines. A check
//! changes nothing. `fail` means that what was asked for cannot work (exit code 1); `warn` that it may not, or
//! will be slow.

mod cann;
mod machine;
mod settings;

use std::process::ExitCode;

use mooncake::config::Config;
use serde_json::{Value, json};

use crate::console::{self, Colour, paint, result};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    Warn,
    Fail,
}

impl Verdict {
    const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }

    const fn colour(self) -> Colour {
        match self {
            Self::Pass => Colour::Green,
            Self::Warn => Colour::Yellow,
            Self::Fail => Colour::Red,
        }
    }
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// What was looked at, in a word or two.
    pub(crate) check: &'static str,
    pub(crate) verdict: Verdict,
    /// What was found.
    pub(crate) found: String,
    /// More lines, for what has more to say.
    pub(crate) details: Vec<String>,
    /// What to do; empty when there is nothing to do.
    pub(crate) fix: String,
}

impl Finding {
    pub(crate) fn pass(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Pass, found: found.into(), details: Vec::new(), fix: String::new() }
    }

    pub(crate) fn warn(check: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warn, fix: fix.into(), ..Self::pass(check, found) }
    }

    pub(crate) fn fail(check: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fail, fix: fix.into(), ..Self::pass(check, found) }
    }

    pub(crate) fn details(mut self, details: Vec<String>) -> Self {
        self.details = details;
        self
    }

    fn to_json(&self) -> Value {
        json!({
            "check": self.check,
            "verdict": self.verdict.name(),
            "found": self.found,
            "details": self.details,
            "fix": self.fix,
        })
    }
}

/// Looks at everything and reports.
pub(crate) fn run(json: bool, symbols: bool) -> ExitCode {
    let (config, warnings) =
        Config::from_lookup(&|name| std::env::var_os(name).map(|text| text.to_string_lossy().into_owned()));
    let names: Vec<String> = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
    let mut findings =
        vec![Finding::pass("version", format!("mooncake-transfer {}", env!("CARGO_PKG_VERSION")))];
    findings.extend(cann::check(&config, symbols));
    findings.extend(machine::check(&config));
    findings.extend(settings::check(&config, &warnings, &names));
    let failed = findings.iter().any(|finding| finding.verdict == Verdict::Fail);
    if json {
        let rows: Vec<Value> = findings.iter().map(Finding::to_json).collect();
        result(json!({ "findings": rows, "ok": !failed }).to_string());
    } else {
        print(&findings);
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn print(findings: &[Finding]) {
    let coloured = console::is_terminal();
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    for finding in findings {
        let verdict = paint(finding.verdict.name(), finding.verdict.colour(), coloured);
        result(format!("{verdict}  {:width$}  {}", finding.check, finding.found));
        let margin = " ".repeat(width.saturating_add(8));
        for detail in &finding.details {
            result(format!("{margin}{detail}"));
        }
        if !finding.fix.is_empty() {
            result(format!("{margin}fix: {}", finding.fix));
        }
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    result(format!(
        "{} pass, {} warn, {} fail",
        count(Verdict::Pass),
        count(Verdict::Warn),
        count(Verdict::Fail)
    ));
}
