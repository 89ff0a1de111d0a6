//! `cann-probe`: asks an installed CANN how it behaves, and says where that differs from the software NPU's
//! model.
//!
//! It uses the vendor's C ABI only, bound at run time, and so runs against whatever CANN the dynamic loader
//! finds: the software NPU, or the real one. Each case is a question with an expectation and the place in the
//! fact sheet it comes from; each runs in a process of its own. On the software NPU every case is as
//! expected. On hardware `--markdown` prints the differences and the open answers as a text for an issue.
//!
//! Two NPUs are wanted; a case that needs what the machine lacks says so and is counted as undecided. RoCE
//! cases need the addresses of the NPUs' ports (`/etc/hccn.conf`, the vendor's tool, or `--addresses`).
//!
//! Exit code: 0 if nothing differs, 1 if something does or a case broke off, 2 if there is no CANN.

mod case;
mod cases;
mod code;
mod gate;
mod pair;
mod probe;
mod report;
mod role;
mod suite;
mod table;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use case::{Case, Line};
use probe::{Choice, Probe};

/// Asks an installed CANN how it behaves, and says where that differs from the software NPU's model.
#[derive(Parser)]
#[command(name = "cann-probe", version)]
struct Arguments {
    #[command(flatten)]
    choice: Choice,
    /// Print the result as Markdown, to paste into an issue
    #[arg(long)]
    markdown: bool,
    /// Print the cases with their questions and run none
    #[arg(long)]
    list: bool,
    /// Run only the cases whose name or source contains this text (may be repeated)
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Seconds after which a case is ended and counted as broken off
    #[arg(long, value_name = "SECONDS", default_value_t = 180)]
    case_timeout_s: u64,
    /// One case in this process; how the suite runs it
    #[arg(long, hide = true)]
    case: Option<String>,
    /// The second process of a case
    #[arg(long, hide = true, requires = "case")]
    role: Option<String>,
    /// What that process is given
    #[arg(long = "argument", hide = true, allow_hyphen_values = true)]
    given: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut output = std::io::stdout();
    if arguments.list {
        for case in cases::all() {
            // A reader that is gone wants to hear nothing.
            let _ = writeln!(output, "{:36} {:26} {}", case.name, case.source, case.question);
        }
        return ExitCode::SUCCESS;
    }
    if let Some(name) = &arguments.case {
        let found = cases::all().chain([&suite::MACHINE]).find(|case| case.name == name.as_str());
        return match found {
            Some(case) => run_one(case, &arguments),
            None => ExitCode::from(2),
        };
    }
    let wanted = |case: &Case| {
        let of = |text: &String| case.name.contains(text.as_str()) || case.source.contains(text.as_str());
        arguments.only.is_empty() || arguments.only.iter().any(of)
    };
    let limit = Duration::from_secs(arguments.case_timeout_s);
    let machine = suite::run(&suite::MACHINE, &arguments.choice, limit);
    if let Some(reason) = suite::no_cann(&machine) {
        let _ = writeln!(std::io::stderr(), "cann-probe: {reason}");
        return ExitCode::from(2);
    }
    let progress = |result: &suite::Finished| {
        if !arguments.markdown {
            let _ = report::text(&mut std::io::stdout(), result);
        }
    };
    if !arguments.markdown {
        let _ = report::heading(&mut output, &machine);
    }
    let mut results = Vec::new();
    for case in cases::all().filter(|case| wanted(case)) {
        let result = suite::run(case, &arguments.choice, limit);
        progress(&result);
        results.push(result);
    }
    let written = if arguments.markdown {
        report::markdown(&mut output, &machine, &results)
    } else {
        report::summary(&mut output, &results)
    };
    match written {
        Ok(()) if results.iter().all(suite::Finished::is_as_expected) => ExitCode::SUCCESS,
        _ => ExitCode::from(1),
    }
}

/// Runs one case, or the second process of one, in this process.
fn run_one(case: &'static Case, arguments: &Arguments) -> ExitCode {
    let mut probe = match Probe::load(arguments.choice.clone(), case.name) {
        Ok(probe) => probe,
        Err(reason) => {
            Line::Cannot(format!("no CANN: {reason}")).tell();
            return ExitCode::from(2);
        }
    };
    if let Some(role) = &arguments.role {
        role::run(&probe, role, &arguments.given);
        return ExitCode::SUCCESS;
    }
    if let Err(stop) = suite::start(&probe).and_then(|()| (case.run)(&mut probe)) {
        Line::Cannot(stop.to_string()).tell();
    }
    gate::open();
    Line::End.tell();
    // Not by returning: exit handlers of the vendor's libraries would judge what the case left open.
    std::io::stdout().flush().map_or(ExitCode::FAILURE, |()| {
        // SAFETY: ends the process without running exit handlers; everything was written.
        unsafe { libc::_exit(0) }
    })
}
