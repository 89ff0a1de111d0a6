//! Measures transfers between two processes through the C interface; see `--help`.

use std::process::ExitCode;

use anyhow::Result;
use mooncake_transfer_bench::arguments::{Arguments, Mode};
use mooncake_transfer_bench::library::Library;
use mooncake_transfer_bench::{console, demo, initiator, profile, target};

fn main() -> ExitCode {
    let arguments = Arguments::read(std::env::args());
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            console::tell(format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    if let Some(name) = &arguments.profile
        && arguments.mode.is_none()
    {
        return profile::run(arguments, name);
    }
    // Upstream's default is the initiator, which is of no use without a target's name.
    let given = arguments.mode.or((!arguments.segment_id.is_empty()).then_some(Mode::Initiator));
    let Some(mode) = given else { return demo::run(arguments) };
    let library = Library::open(arguments.library.as_deref())?;
    match mode {
        Mode::Bare => profile::bare(arguments).map(|()| ExitCode::SUCCESS),
        Mode::Target => target::run(&library, arguments).map(|()| ExitCode::SUCCESS),
        Mode::Initiator => {
            let right = initiator::run(&library, arguments)?;
            Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}
