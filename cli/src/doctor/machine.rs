//! The kernel's limits and the ports: what registering, copying between processes and listening need.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use mooncake::config::{Config, EPHEMERAL_PORTS};

use super::Finding;

/// Where Linux says what a process may do and has.
struct Kernel<'a> {
    proc: &'a Path,
}

impl Kernel<'_> {
    fn read(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.proc.join(name)).ok()
    }
}

pub(super) fn check(config: &Config) -> Vec<Finding> {
    let kernel = Kernel { proc: Path::new("/proc") };
    vec![locked_memory(&kernel), huge_pages(&kernel), tracing(&kernel, config), ports(config)]
}

/// Network cards and NPUs pin the host memory that is registered with them.
fn locked_memory(kernel: &Kernel<'_>) -> Finding {
    let check = "locked memory";
    let limit = kernel.read("self/limits").and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("Max locked memory"))?.to_owned();
        line.split_whitespace().nth(3).map(str::to_owned)
    });
    match limit.as_deref() {
        None => Finding::warn(check, "the limit cannot be read", "look at ulimit -l"),
        Some("unlimited") => Finding::pass(check, "unlimited"),
        Some(text) => match text.parse::<u64>() {
            Ok(bytes) if bytes >= 64 << 30 => Finding::pass(check, format!("up to {} GiB", bytes >> 30)),
            _ => Finding::warn(
                check,
                format!("only {text} bytes: registering a large pool of host memory with an NPU may fail"),
                "ulimit -l unlimited; in a container, --ulimit memlock=-1",
            ),
        },
    }
}

fn huge_pages(kernel: &Kernel<'_>) -> Finding {
    let check = "huge pages";
    let text = kernel.read("meminfo").unwrap_or_default();
    let value = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok())
    };
    match (value("HugePages_Total:"), value("HugePages_Free:"), value("Hugepagesize:")) {
        (Some(0), _, _) => Finding::pass(check, "none reserved; memory of the pool uses ordinary pages"),
        (Some(total), Some(0), Some(size_kib)) => Finding::warn(
            check,
            format!("all {total} of {size_kib} KiB are in use"),
            "reserve more in /proc/sys/vm/nr_hugepages",
        ),
        (Some(total), Some(free), Some(size_kib)) => {
            Finding::pass(check, format!("{free} of {total} free, {size_kib} KiB each"))
        }
        _ => Finding::pass(check, "this kernel has none"),
    }
}

/// Copies between two processes of a host need the right to read the other's memory.
fn tracing(kernel: &Kernel<'_>, config: &Config) -> Finding {
    let check = "ptrace scope";
    if !config.same_host {
        return Finding::pass(check, "not needed: MOONCAKE_TRANSFER_SAME_HOST turns the same-host route off");
    }
    let scope = kernel.read("sys/kernel/yama/ptrace_scope");
    match scope.as_deref().map(str::trim) {
        None | Some("0") => Finding::pass(check, "processes of one user may copy from each other"),
        Some(scope) => Finding::warn(
            check,
            format!("{scope}: processes of one host may not copy from each other; host memory goes by TCP"),
            "sysctl kernel.yama.ptrace_scope=0; in a container, --cap-add SYS_PTRACE",
        ),
    }
}

fn ports(config: &Config) -> Finding {
    let check = "ports";
    let (low, high) = (config.rpc_port_min, config.rpc_port_max);
    let free = (low..=high).filter(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok()).count();
    let range = format!("{free} of {} free in {low}-{high}", u32::from(high - low) + 1);
    let fix = "set MC_MIN_RPC_PORT and MC_MAX_RPC_PORT to a range that is free and outside 32768-60999";
    // An engine takes three: handshake, control, data.
    if free < 3 {
        return Finding::fail(check, range, fix);
    }
    if EPHEMERAL_PORTS.contains(&low) || EPHEMERAL_PORTS.contains(&high) {
        return Finding::warn(check, format!("{range}, inside the kernel's own range"), fix);
    }
    Finding::pass(check, range)
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    /// A kernel that says what the test says.
    fn kernel(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::TempDir::new().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        directory
    }

    fn limits(value: &str) -> Finding {
        let text =
            format!("Limit  Soft Limit  Hard Limit  Units\nMax locked memory  {value}  {value}  bytes\n");
        let directory = kernel(&[("self/limits", &text)]);
        locked_memory(&Kernel { proc: directory.path() })
    }

    #[test]
    fn locked_memory_by_its_limit() {
        assert_eq!(limits("unlimited").verdict, Verdict::Pass);
        assert_eq!(limits("137438953472").verdict, Verdict::Pass);
        let small = limits("8388608");
        assert_eq!(small.verdict, Verdict::Warn);
        assert!(small.fix.contains("memlock"), "{}", small.fix);
    }

    #[test]
    fn huge_pages_by_their_counts() {
        let of = |total: u32, free: u32| {
            let text = format!("HugePages_Total: {total}\nHugePages_Free: {free}\nHugepagesize: 2048 kB\n");
            let directory = kernel(&[("meminfo", &text)]);
            huge_pages(&Kernel { proc: directory.path() }).verdict
        };
        assert_eq!(of(0, 0), Verdict::Pass);
        assert_eq!(of(10, 4), Verdict::Pass);
        assert_eq!(of(10, 0), Verdict::Warn);
    }

    #[test]
    fn tracing_by_its_scope() {
        let of = |scope: &str, config: &Config| {
            let directory = kernel(&[("sys/kernel/yama/ptrace_scope", scope)]);
            tracing(&Kernel { proc: directory.path() }, config).verdict
        };
        assert_eq!(of("0\n", &Config::default()), Verdict::Pass);
        assert_eq!(of("1\n", &Config::default()), Verdict::Warn);
        assert_eq!(of("2\n", &Config { same_host: false, ..Config::default() }), Verdict::Pass);
    }

    #[test]
    fn no_free_port_is_a_failure() {
        let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let config = Config { rpc_port_min: port, rpc_port_max: port, ..Config::default() };
        assert_eq!(ports(&config).verdict, Verdict::Fail);
    }
}
