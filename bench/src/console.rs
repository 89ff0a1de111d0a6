//! The two outputs of a program: results go to standard output, everything else to standard error.
//!
//! A reader who closed the pipe does not make a benchmark fail: such errors are left out of account.

use std::io::Write;

/// A line of the result.
pub fn result(line: impl AsRef<str>) {
    let mut output = std::io::stdout().lock();
    let _closed = writeln!(output, "{}", line.as_ref()).and_then(|()| output.flush());
}

/// A line for the person or script that watches.
pub fn tell(line: impl AsRef<str>) {
    let mut output = std::io::stderr().lock();
    let _closed = writeln!(output, "{}", line.as_ref()).and_then(|()| output.flush());
}
