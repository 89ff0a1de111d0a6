//! Scripted faults happen as told, from the environment and while the process runs (facts 7.1, DESIGN 7).

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure here is the test's failure")]

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

cases! { "faults.c":
    /// Facts 7.1: fail or delay the Nth call.
    calls ("CANN_SIM_FAULTS" = "aclrtMemset=fail:507899@2;aclrtMalloc/1=fail:207001;\
        HcclRegisterGlobalMem=fail:7@1;aclrtGetDevice=delay:60"),
    /// The Nth call of all processes.
    counted_over_processes ("CANN_SIM_FAULTS" = "aclrtMemset=fail:507899@all:3"),
    /// Facts 1.6, streams: expiry leaves the work going.
    a_delayed_transfer_can_be_aborted ("CANN_SIM_FAULTS" = "transfer=delay:60000@1"),
    /// Facts 1.6, streams.
    a_stuck_transfer_outlasts_the_abort ("CANN_SIM_FAULTS" = "transfer=stuck:500"),
    /// Facts 8.9: a work request that the NIC has already.
    a_late_transfer_lands_after_the_abort ("CANN_SIM_FAULTS" = "transfer=late:300"),
    /// The same, with the queue pair gone.
    a_destroyed_communicator_lets_nothing_land ("CANN_SIM_FAULTS" = "transfer=late:800@1"),
    /// Facts 1.6, copies.
    copies_of_the_runtime ("CANN_SIM_FAULTS" = "copy=late:200@1;copy=fail:507899@2"),
    /// Facts 1.5 (507056) and 8.5.
    a_link_that_is_down_once ("CANN_SIM_FAULTS" = "link/0-1=down@2"),
    /// Facts 2.4, point 4.
    a_link_that_is_down_carries_no_meeting ("CANN_SIM_FAULTS" = "link/1=down"),
    /// Facts 7.1: slow a link.
    a_slow_link ("CANN_SIM_FAULTS" = "link=slow:1M"),
    /// Facts 1.5 (507000).
    a_killed_stream ("CANN_SIM_FAULTS" = "task/1=kill@2"),
    /// Facts 1.6, allocation: 207001.
    missing_memory ("CANN_SIM_FAULTS" = "memory/0=take:63G"),
}

/// A process that does what it is told and can be disturbed meanwhile.
struct Told {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    namespace: String,
}

impl Told {
    fn start() -> Self {
        // Tests may run as threads of one process; each has NPUs of its own.
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("{}-told-{number}", std::process::id());
        let mut command = support::command("faults.c", "told");
        command.env("CANN_SIM_NAMESPACE", &namespace).env("CANN_SIM_FAULT_SOCKET", "1");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut told = Self { child, input, output: BufReader::new(output), namespace };
        assert_eq!(told.line(), "ready");
        told
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn tell(&mut self, word: &str) -> i32 {
        writeln!(self.input, "{word}").unwrap();
        self.line().parse().unwrap()
    }

    /// Runs the command that speaks to simulated processes.
    fn control(&self, arguments: &[&str]) -> (bool, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_cann-sim-control"))
            .env("CANN_SIM_NAMESPACE", &self.namespace)
            .args(arguments)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    }
}

#[test]
fn faults_come_and_go_while_the_process_runs() {
    let mut told = Told::start();
    let pid = told.child.id().to_string();
    assert_eq!(told.tell("put"), 0);
    let (good, text) = told.control(&["fault", "set", "link=down"]);
    assert!(good && text.contains(&pid), "{text}");
    assert_eq!(told.tell("put"), 507_056);
    let (good, _) = told.control(&["fault", "add", "--process", &pid, "aclrtMemset=fail:507899@1"]);
    assert!(good);
    assert_eq!(told.tell("memset"), 507_899);
    assert_eq!(told.tell("memset"), 0);
    assert_eq!(told.tell("put"), 507_056);
    assert!(told.control(&["fault", "clear"]).0);
    assert_eq!(told.tell("put"), 0);
    let (good, text) = told.control(&["fault", "set", "link=sideways"]);
    assert!(!good && text.contains("link=sideways"), "{text}");
    let (good, text) = told.control(&["fault", "clear", "--process", "1"]);
    assert!(!good && !text.is_empty());
    assert!(told.child.wait_after_end(&mut told.input));
}

#[test]
fn calls_are_counted_by_function_and_device() {
    let mut told = Told::start();
    let (good, text) = told.control(&["calls"]);
    assert!(good);
    // make_pair sets each device once on the main thread to make it, once in its own thread, and 0 again.
    let count = |text: &str, what: &str| {
        let line = text.lines().find(|line| line.split_whitespace().nth(1) == Some(what));
        line.map(|line| line.split_whitespace().nth(2).unwrap().parse::<u64>().unwrap())
    };
    assert_eq!(count(&text, "HcclCommPrepare/0"), Some(1), "{text}");
    assert_eq!(count(&text, "HcclCommPrepare/1"), Some(1), "{text}");
    assert_eq!(count(&text, "HcclBatchPut/0"), None);
    assert!(told.control(&["reset"]).0);
    assert_eq!(told.tell("put"), 0);
    let (_, text) = told.control(&["calls"]);
    assert_eq!(count(&text, "HcclBatchPut/0"), Some(1), "{text}");
    assert_eq!(text.lines().filter(|line| line.contains("/1 ")).count(), 0, "no call on device 1: {text}");
    let (_, text) = told.control(&["log", "--latest", "2"]);
    let names: Vec<_> = text.lines().map(|line| line.split_whitespace().nth(2).unwrap()).collect();
    assert_eq!(names, ["HcclBatchPut/0", "aclrtSynchronizeStream/0"], "{text}");
    let (_, text) = told.control(&["memory"]);
    let lines: Vec<_> = text.lines().filter(|line| line.contains(&told.child.id().to_string())).collect();
    assert_eq!(lines.len(), 2, "two devices: {text}");
    assert!(told.child.wait_after_end(&mut told.input));
}

/// The end of a told process.
trait End {
    fn wait_after_end(&mut self, input: &mut ChildStdin) -> bool;
}

impl End for Child {
    fn wait_after_end(&mut self, input: &mut ChildStdin) -> bool {
        writeln!(input, "end").unwrap();
        self.wait().unwrap().success()
    }
}
