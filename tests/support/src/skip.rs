//! Counted skips: a test that cannot run on this machine leaves its name and its reason.

use std::fs::OpenOptions;
use std::io::Write;

/// The variable that names the file in which skips are counted.
const LOG_VARIABLE: &str = "MOONCAKE_TRANSFER_SKIP_LOG";

/// Records that the calling test does not run here, and why; the test then returns.
///
/// The name is that of the calling thread, which both runners set to the name of the test. The line
/// `name: reason` is appended in one write, so that tests running side by side do not mix their lines.
#[expect(clippy::print_stderr, reason = "a skipped test says so where its output is shown")]
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("unnamed test");
    let reason = reason.replace('\n', " ");
    let line = format!("{name}: {reason}\n");
    eprint!("skipped {line}");
    if let Some(path) = std::env::var_os(LOG_VARIABLE) {
        let mut log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap_or_else(|error| panic!("cannot open the skip log {}: {error}", path.display()));
        log.write_all(line.as_bytes()).expect("the skip log takes a line");
    }
}
