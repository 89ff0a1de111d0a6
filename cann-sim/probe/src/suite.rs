//! Runs cases, each in a process of its own with a limit, and keeps what they told.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::case::{Answer, Case, Line};
use crate::probe::{Choice, Probe, acl};

/// The case that only says what machine this is.
pub const MACHINE: Case =
    Case { name: "machine", source: "", question: "What is installed?", variables: &[], run: machine };

/// What the report says of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every observation is as expected.
    AsExpected,
    /// At least one observation differs.
    Differs,
    /// Numbers only.
    Measured,
    /// The machine lacks what the question needs.
    Undecided,
    /// The process died or ran into its limit.
    BrokeOff,
}

/// A case that was run.
pub struct Finished {
    /// Which.
    pub case: &'static Case,
    /// What it told, without its end.
    pub lines: Vec<Line>,
    /// How its process ended, if not well; with the last line it wrote on its error output.
    pub broken: Option<String>,
    /// How long it took.
    pub duration: Duration,
}

impl Finished {
    /// The word for the case.
    pub fn verdict(&self) -> Verdict {
        let differs = |line: &Line| matches!(line, Line::Check { expected, seen, .. } if expected != seen);
        if self.lines.iter().any(differs) {
            Verdict::Differs
        } else if self.broken.is_some() {
            Verdict::BrokeOff
        } else if self.lines.iter().any(|line| matches!(line, Line::Cannot(_))) {
            Verdict::Undecided
        } else if self.lines.iter().any(|line| matches!(line, Line::Check { .. })) {
            Verdict::AsExpected
        } else {
            Verdict::Measured
        }
    }

    /// Whether nothing speaks against the model.
    pub fn is_as_expected(&self) -> bool {
        !matches!(self.verdict(), Verdict::Differs | Verdict::BrokeOff)
    }
}

/// What every case's process does first, as an application would. `aclInit` twice is no mistake.
pub fn start(probe: &Probe) -> Answer {
    let code = acl!(probe, aclInit(std::ptr::null()));
    if code == cann_sys::ACL_ERROR_REPEAT_INITIALIZE { Ok(()) } else { crate::probe::need("aclInit", code) }
}

fn machine(probe: &mut Probe) -> Answer {
    for found in probe.cann.provenance() {
        probe.measured(&found.library.to_string(), found.path.display());
    }
    let (major, minor) = probe.acl_version()?;
    probe.measured("ACL version", format!("{major}.{minor}"));
    probe.measured("chip", probe.soc_name()?);
    probe.measured("NPUs", probe.device_count()?);
    probe.measured("NPUs used", format!("{:?}", probe.choice.devices));
    probe.measured("machine", std::env::consts::ARCH);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    probe.measured("kernel", kernel.trim());
    Ok(())
}

/// Why there is no CANN, if the case could not load it.
pub fn no_cann(result: &Finished) -> Option<String> {
    match (result.lines.as_slice(), &result.broken) {
        ([Line::Cannot(reason)], _) => Some(reason.clone()),
        ([], broken) => Some(broken.clone().unwrap_or_else(|| "the first process said nothing".to_owned())),
        _ => None,
    }
}

/// Runs one case in a process of its own.
pub fn run(case: &'static Case, choice: &Choice, limit: Duration) -> Finished {
    let start = Instant::now();
    let (lines, broken) = run_process(case, choice, limit)
        .unwrap_or_else(|error| (Vec::new(), Some(format!("its process could not be started: {error}"))));
    Finished { case, lines, broken, duration: start.elapsed() }
}

fn run_process(
    case: &'static Case,
    choice: &Choice,
    limit: Duration,
) -> std::io::Result<(Vec<Line>, Option<String>)> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(choice.arguments())
        .args(["--case", case.name])
        .envs(case.variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (sender, receiver) = mpsc::channel();
    if let Some(output) = child.stdout.take() {
        std::thread::spawn(move || {
            // Ends when every process of the case has closed the pipe, or nobody listens.
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some(line) = Line::read(&line)
                    && sender.send(line).is_err()
                {
                    break;
                }
            }
        });
    }
    let errors = child.stderr.take().map(|mut errors| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            // What could be read is enough.
            let _ = errors.read_to_end(&mut text);
            String::from_utf8_lossy(&text).lines().last().unwrap_or("").to_owned()
        })
    });
    let end = Instant::now() + limit;
    let mut lines = Vec::new();
    let broken = loop {
        match receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(Line::End) => break None,
            Ok(line) => lines.push(line),
            Err(mpsc::RecvTimeoutError::Timeout) => break Some(format!("ended after {} s", limit.as_secs())),
            Err(mpsc::RecvTimeoutError::Disconnected) => break Some(String::new()),
        }
    };
    if broken.as_deref() != Some("") {
        // Ended by us: a process that said its end has nothing left to do, one over its limit is not waited
        // for.
        child.kill()?;
    }
    let status = child.wait()?;
    let broken = match broken {
        Some(text) if text.is_empty() => {
            let end = status.signal().map_or_else(|| status.to_string(), |signal| format!("signal {signal}"));
            let last = errors.and_then(|errors| errors.join().ok()).unwrap_or_default();
            // Without CANN the process says why and ends: that is no end by accident.
            let said = lines.iter().any(|line| matches!(line, Line::Cannot(_)));
            (!said).then(|| format!("{end} {last}").trim().to_owned())
        }
        other => other,
    };
    Ok((lines, broken))
}
