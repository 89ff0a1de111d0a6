//! The result for people: lines on a terminal, or Markdown for an issue.

use std::io::{self, Write};

use crate::case::Line;
use crate::suite::{Finished, Verdict};

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::AsExpected => "ok",
        Verdict::Differs => "DIFFERS",
        Verdict::Measured => "measured",
        Verdict::Undecided => "undecided",
        Verdict::BrokeOff => "BROKE OFF",
    }
}

/// What machine it is.
pub fn heading(output: &mut dyn Write, machine: &Finished) -> io::Result<()> {
    for line in &machine.lines {
        if let Line::Measured { what, seen } = line {
            writeln!(output, "{what}: {seen}")?;
        }
    }
    writeln!(output)
}

/// One case: its question, and each observation with what was expected and seen.
pub fn text(output: &mut dyn Write, result: &Finished) -> io::Result<()> {
    let case = result.case;
    writeln!(
        output,
        "{:9} {} [{}] {} ms",
        word(result.verdict()),
        case.name,
        case.source,
        result.duration.as_millis()
    )?;
    writeln!(output, "          {}", case.question)?;
    for line in &result.lines {
        match line {
            Line::Check { what, expected, seen } if expected == seen => {
                writeln!(output, "          - {what}: expected and seen {seen}")?;
            }
            Line::Check { what, expected, seen } => {
                writeln!(output, "          ! {what}: expected {expected}, seen {seen}")?;
            }
            Line::Measured { what, seen } => writeln!(output, "          = {what}: {seen}")?,
            Line::Cannot(reason) => writeln!(output, "          ? {reason}")?,
            Line::End => {}
        }
    }
    if let Some(broken) = &result.broken {
        writeln!(output, "          ! its process broke off: {broken}")?;
    }
    Ok(())
}

fn count(results: &[Finished], verdict: Verdict) -> usize {
    results.iter().filter(|result| result.verdict() == verdict).count()
}

fn totals(results: &[Finished]) -> String {
    format!(
        "{} cases: {} as expected, {} differ, {} broke off, {} undecided, {} measured",
        results.len(),
        count(results, Verdict::AsExpected),
        count(results, Verdict::Differs),
        count(results, Verdict::BrokeOff),
        count(results, Verdict::Undecided),
        count(results, Verdict::Measured)
    )
}

/// The counts.
pub fn summary(output: &mut dyn Write, results: &[Finished]) -> io::Result<()> {
    writeln!(output, "\n{}", totals(results))
}

/// A cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// The whole result for an issue: the machine, then what differs, then the rest.
pub fn markdown(output: &mut dyn Write, machine: &Finished, results: &[Finished]) -> io::Result<()> {
    writeln!(output, "### cann-probe {}\n", env!("CARGO_PKG_VERSION"))?;
    for line in &machine.lines {
        if let Line::Measured { what, seen } = line {
            writeln!(output, "- {what}: `{seen}`")?;
        }
    }
    writeln!(output, "\n{}\n", totals(results))?;
    writeln!(output, "| case | source | observation | expected | seen |\n|---|---|---|---|---|")?;
    let mut row = |result: &Finished, what: &str, expected: &str, seen: &str| {
        let case = result.case;
        writeln!(
            output,
            "| {} | {} | {} | {} | {} |",
            case.name,
            case.source,
            cell(what),
            cell(expected),
            cell(seen)
        )
    };
    let mut any = false;
    for result in results {
        for line in &result.lines {
            if let Line::Check { what, expected, seen } = line
                && expected != seen
            {
                any = true;
                row(result, what, expected, &format!("**{seen}**"))?;
            }
        }
        if let Some(broken) = &result.broken {
            any = true;
            row(result, result.case.question, "an end", &format!("**broke off**: {broken}"))?;
        }
    }
    if !any {
        writeln!(output, "| | | nothing differs | | |")?;
    }
    writeln!(output, "\n<details><summary>Every observation</summary>\n")?;
    for result in results {
        let case = result.case;
        writeln!(
            output,
            "**{}** {} ({}): {}\n",
            word(result.verdict()),
            case.name,
            case.source,
            case.question
        )?;
        for line in &result.lines {
            match line {
                Line::Check { what, expected, seen } => {
                    writeln!(output, "- {what}: expected {expected}, seen {seen}")?;
                }
                Line::Measured { what, seen } => writeln!(output, "- {what}: {seen}")?,
                Line::Cannot(reason) => writeln!(output, "- undecided: {reason}")?,
                Line::End => {}
            }
        }
        writeln!(output)?;
    }
    writeln!(output, "</details>")
}
