//! A child process that cannot outlive its test, with its output captured line by line.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::wait_until;

/// A running child process; dropping it kills it by its id and reaps it.
///
/// Its two outputs are read by a thread each, so that the child never blocks on a full pipe. Its input is a
/// pipe: [`Child::send`] writes a line, [`Child::close_input`] ends it.
pub struct Child {
    process: std::process::Child,
    output: Arc<Output>,
    readers: Vec<JoinHandle<()>>,
    program: String,
}

#[derive(Default)]
struct Output {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    /// The lines of both outputs, in the order in which they came.
    all: Vec<Line>,
    /// How many of the two outputs have ended.
    ended: usize,
}

struct Line {
    stream: Stream,
    text: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    Output,
    Error,
}

impl Lines {
    fn text(&self, wanted: impl Fn(Stream) -> bool) -> String {
        let lines = self.all.iter().filter(|line| wanted(line.stream));
        lines.map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n")
    }
}

impl Child {
    /// Starts `command` with all three standard streams captured.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let program = command.get_program().to_string_lossy().into_owned();
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {program}: {error}"));
        let output = Arc::new(Output::default());
        let stdout = process.stdout.take().expect("the standard output is a pipe");
        let stderr = process.stderr.take().expect("the standard error is a pipe");
        let readers = vec![collect(stdout, Stream::Output, &output), collect(stderr, Stream::Error, &output)];
        Self { process, output, readers, program }
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits for a line that `wanted` accepts, among those already seen too, at most `limit`.
    ///
    /// # Panics
    /// If the line does not come in time, or the child's outputs end without it; the text shows all there was.
    #[must_use]
    pub fn wait_for_line(&self, limit: Duration, wanted: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + limit;
        let mut lines = self.output.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = 0;
        loop {
            if let Some(line) = lines.all.iter().skip(seen).find(|line| wanted(&line.text)) {
                return line.text.clone();
            }
            seen = lines.all.len();
            let remaining = end.saturating_duration_since(Instant::now());
            if lines.ended == 2 || remaining.is_zero() {
                let why = if lines.ended == 2 { "ended" } else { "said nothing of it in time" };
                panic!("{} {why}; its output:\n{}", self.program, lines.text(|_| true));
            }
            lines =
                self.output.changed.wait_timeout(lines, remaining).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Writes a line to the child's standard input.
    ///
    /// # Panics
    /// If the input is closed.
    pub fn send(&mut self, line: &str) {
        let input = self.process.stdin.as_mut().expect("the input is open");
        writeln!(input, "{line}").and_then(|()| input.flush()).expect("the child reads its input");
    }

    /// Ends the child's standard input.
    pub fn close_input(&mut self) {
        drop(self.process.stdin.take());
    }

    /// Waits at most `limit` for the child to end by itself.
    ///
    /// # Panics
    /// If it does not; the text shows what it had said.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let mut status = None;
        let _ended = wait_until(limit, || {
            status = self.process.try_wait().expect("the child can be waited for");
            status.is_some()
        });
        let Some(status) = status else {
            panic!("{} did not end in {limit:?}; its output:\n{}", self.program, self.output());
        };
        self.join_readers();
        status
    }

    /// Tells whether the child is still running.
    pub fn is_running(&mut self) -> bool {
        self.process.try_wait().expect("the child can be asked").is_none()
    }

    /// Kills the child by its id and reaps it.
    pub fn kill(&mut self) {
        // A child that has ended already is what we want; the wait below reaps it in both cases.
        let _already_ended = self.process.kill();
        let _status = self.process.wait();
        self.join_readers();
    }

    /// All it has said until now, both outputs in the order in which the lines came.
    #[must_use]
    pub fn output(&self) -> String {
        self.output.lines.lock().unwrap_or_else(PoisonError::into_inner).text(|_| true)
    }

    /// What it has written to its standard output until now.
    #[must_use]
    pub fn standard_output(&self) -> String {
        let lines = self.output.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.text(|stream| stream == Stream::Output)
    }

    fn join_readers(&mut self) {
        // A grandchild may hold the pipe open: then the readers are left to end with it.
        let ended = || self.output.lines.lock().unwrap_or_else(PoisonError::into_inner).ended == 2;
        if wait_until(Duration::from_secs(2), ended) {
            for reader in self.readers.drain(..) {
                let _joined = reader.join();
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

fn collect(source: impl Read + Send + 'static, stream: Stream, output: &Arc<Output>) -> JoinHandle<()> {
    let output = Arc::clone(output);
    std::thread::spawn(move || {
        let mut reader = BufReader::new(source);
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let count = reader.read_until(b'\n', &mut bytes).unwrap_or(0);
            let mut lines = output.lines.lock().unwrap_or_else(PoisonError::into_inner);
            if count == 0 {
                lines.ended += 1;
            } else {
                let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
                lines.all.push(Line { stream, text });
            }
            output.changed.notify_all();
            if count == 0 {
                return;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Child {
        Child::start(Command::new("sh").arg("-c").arg(script))
    }

    #[test]
    fn lines_of_both_outputs_are_seen() {
        let mut child = shell("echo out; echo err >&2; read x; echo got $x; exit 3");
        assert_eq!(child.wait_for_line(Duration::from_secs(10), |line| line == "out"), "out");
        assert_eq!(child.wait_for_line(Duration::from_secs(10), |line| line.starts_with("er")), "err");
        child.send("this");
        assert_eq!(child.wait_for_line(Duration::from_secs(10), |line| line.contains("got")), "got this");
        assert_eq!(child.wait(Duration::from_secs(10)).code(), Some(3));
        assert_eq!(child.standard_output(), "out\ngot this");
    }

    #[test]
    #[should_panic(expected = "ended; its output:\nonly this")]
    fn a_child_that_ends_without_the_line_fails_the_test() {
        let child = shell("echo only this");
        let _line = child.wait_for_line(Duration::from_secs(10), |line| line == "something else");
    }

    #[test]
    fn a_dropped_child_is_gone() {
        let child = shell("echo here; exec sleep 1000");
        let _line = child.wait_for_line(Duration::from_secs(10), |line| line == "here");
        let entry = std::path::PathBuf::from(format!("/proc/{}", child.id()));
        assert!(entry.exists());
        drop(child);
        assert!(wait_until(Duration::from_secs(10), || !entry.exists()));
    }
}
