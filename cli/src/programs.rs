//! Other programs of the installation, run in this one's place.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use crate::console::tell;

/// Becomes the program of that name, which lies beside this one; returns only when that fails.
pub(crate) fn replace_by(name: &str, flags: &[OsString]) -> ExitCode {
    let beside = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.join(name)));
    let Some(path) = beside.filter(|path| path.is_file()) else {
        tell(format!("error: {name} does not lie beside this program; it is part of the same installation"));
        return ExitCode::FAILURE;
    };
    let error = Command::new(&path).args(flags).exec();
    tell(format!("error: cannot run {}: {error}", path.display()));
    ExitCode::FAILURE
}
