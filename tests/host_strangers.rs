//! Processes of this host that may not look into each other, or seem to be on another host: bytes arrive all the
//! same, by TCP where the kernel leaves nothing else, and one line of the log says why.
//!
//! "Same host" is proven through the kernel, so that each case is one in which the proof, or the kernel's copy after
//! it, has to fail: a process that nobody may trace, Yama's rule, another user, another process namespace, another
//! container. Root can make all of them; others make what the machine lets them, and count the rest as skipped.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

mod promise;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use mooncake_test_support::{Child, SoftwareNpu, artifacts, loopback, skip};
use promise::{LIMIT, Peer, moving, software_npu};

const LENGTH: u64 = 1 << 20;
const BLOCK: u64 = 64 << 10;
/// Nobody, and one more who owns nothing.
const USER: u32 = 65_534;
const OTHER_USER: u32 = 65_533;

/// A program that every user may run, and where its processes are started.
struct Place {
    npu: SoftwareNpu,
    program: PathBuf,
    _directory: tempfile::TempDir,
}

impl Place {
    /// None when the other user of these tests could not run the program.
    fn new() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let program = directory.path().join("promise_peer");
        std::fs::copy(artifacts::program("promise_peer"), &program).unwrap();
        let place = Self { npu: software_npu(1), program, _directory: directory };
        if is_root() && !succeeds(Command::new("test").arg("-x").arg(&place.program).uid(USER)) {
            skip("another user cannot reach the temporary directory");
            return None;
        }
        Some(place)
    }

    /// Starts a process with an engine on `host`, by way of another program where `wrapper` names one.
    fn start(&self, wrapper: &[&str], user: Option<u32>, host: &str) -> Peer {
        let mut command = match wrapper {
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(&self.program);
                command
            }
            [] => Command::new(&self.program),
        };
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        self.npu.apply(&mut command);
        command.env("MC_LOG_LEVEL", "INFO").args(["-", host]);
        Peer::try_start_by(&mut command, &self.npu).unwrap_or_else(|line| panic!("{line}"))
    }
}

fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .unwrap()
        .lines()
        .any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"))
}

/// Whether processes started by this one may look into every other: root may lack that in a container.
fn may_trace_all() -> bool {
    const TRACE: u64 = 1 << 19;
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let rights = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    u64::from_str_radix(rights, 16).unwrap() & TRACE != 0
}

/// The user of a process that must not have root's rights: whoever runs the tests, if that is not root.
fn ordinary() -> Option<u32> {
    is_root().then_some(USER)
}

fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Moves bytes both ways, several times, and tells how many jobs went without sockets and how many by TCP.
#[track_caller]
fn move_both_ways(initiator: &mut Peer, target: &mut Peer, opened_as: &str, kind: &str) -> (u64, u64) {
    let jobs = |peer: &mut Peer| {
        let count = |peer: &mut Peer, name: &str| {
            peer.must(&format!("metric mooncake_transfer_{name}_jobs_total")).parse::<u64>().unwrap()
        };
        (count(peer, "same_host"), count(peer, "tcp"))
    };
    let before = jobs(initiator);
    let (near, far) = (initiator.host_buffer("host", LENGTH, 1), target.host_buffer(kind, LENGTH, 2));
    for seed in 3..6 {
        target.fill(far, LENGTH, seed);
        initiator.must(&format!("transfer {}", moving("read", near, opened_as, far, LENGTH, BLOCK, 0)));
        assert!(initiator.holds(near, LENGTH, seed), "{kind}: read");
        initiator.fill(near, LENGTH, seed + 10);
        initiator.must(&format!("transfer {}", moving("write", near, opened_as, far, LENGTH, BLOCK, 0)));
        assert!(target.holds(far, LENGTH, seed + 10), "{kind}: write");
    }
    let after = jobs(initiator);
    (after.0 - before.0, after.1 - before.1)
}

/// The lines of the log that say why memory of the peer goes by TCP.
fn reasons(initiator: &Peer) -> Vec<String> {
    let output = initiator.child.output();
    output.lines().filter(|line| line.contains("goes by TCP")).map(str::to_owned).collect()
}

/// There is one line, about that peer, with that reason, however many transfers there were.
#[track_caller]
fn says_once(initiator: &Peer, peer: &str, reason: &str) {
    let lines = reasons(initiator);
    assert_eq!(lines.len(), 1, "{lines:?}\n{}", initiator.child.output());
    assert!(lines.iter().all(|line| line.contains(peer) && line.contains(reason)), "{lines:?}");
}

#[test]
fn a_process_that_may_be_looked_into_needs_no_socket() {
    // What the others differ from: everything here would be moved by the kernel or in user space.
    let Some(place) = Place::new() else { return };
    let host = loopback::host();
    let (mut a, mut b) = (place.start(&[], None, &host), place.start(&[], None, &host));
    let name = b.name();
    if !may_trace_all() && yama() > 0 {
        return skip("Yama forbids processes of one user to copy each other's memory");
    }
    assert_eq!(move_both_ways(&mut a, &mut b, &name, "host"), (6, 0));
    assert_eq!(move_both_ways(&mut a, &mut b, &name, "pool"), (6, 0));
    assert!(reasons(&a).is_empty(), "{:?}", reasons(&a));
    a.quit();
    b.quit();
}

#[test]
fn a_process_that_nobody_may_look_into_is_reached_by_tcp() {
    let Some(place) = Place::new() else { return };
    let host = loopback::host();
    let (mut a, mut b) = (place.start(&[], ordinary(), &host), place.start(&[], ordinary(), &host));
    b.must("closed");
    let name = b.name();
    assert_eq!(move_both_ways(&mut a, &mut b, &name, "host"), (0, 6));
    assert_eq!(move_both_ways(&mut a, &mut b, &name, "pool"), (0, 6));
    says_once(&a, &name, "Permission denied");
    // The other way round nothing is forbidden, and it is each initiator that has to look.
    let back = a.name();
    let sockets = if yama() > 0 { 6 } else { 0 };
    assert_eq!(move_both_ways(&mut b, &mut a, &back, "host"), (6 - sockets, sockets));
    assert_eq!(move_both_ways(&mut b, &mut a, &back, "pool"), (6, 0));
    a.quit();
    b.quit();
}

/// Yama's setting; 0 without Yama.
fn yama() -> u32 {
    std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

#[test]
fn where_the_kernel_forbids_the_copy_shared_memory_is_still_mapped() {
    let Some(place) = Place::new() else { return };
    // Without Yama its rule is had by a real user other than the effective one: files of the target may be opened, and
    // its memory may not be copied.
    let real_user =
        ["setpriv", "--ruid=1", "--euid=65534", "--rgid=65534", "--egid=65534", "--clear-groups", "--"];
    let may = || is_root() && succeeds(Command::new(real_user[0]).args(&real_user[1..]).arg("true"));
    let wrapper: &[&str] = if yama() > 0 { &[] } else { &real_user };
    if !wrapper.is_empty() && !may() {
        return skip("neither Yama nor the right to change the real user alone");
    }
    let host = loopback::host();
    let user = if wrapper.is_empty() { ordinary() } else { None };
    let (mut a, mut b) = (place.start(wrapper, user, &host), place.start(&[], ordinary(), &host));
    let name = b.name();
    assert_eq!(move_both_ways(&mut a, &mut b, &name, "host"), (0, 6));
    assert_eq!(move_both_ways(&mut a, &mut b, &name, "pool"), (6, 0), "it is mapped");
    says_once(&a, &name, "goes by TCP unless it is shared memory: ");
    says_once(&a, &name, "Operation not permitted");
    a.quit();
    b.quit();
}

#[test]
fn a_process_of_another_user_is_reached_by_tcp() {
    if !is_root() {
        return skip("only root can start processes of two users");
    }
    let Some(place) = Place::new() else { return };
    let host = loopback::host();
    let (mut a, mut b) = (place.start(&[], Some(USER), &host), place.start(&[], Some(OTHER_USER), &host));
    let name = b.name();
    assert_eq!(move_both_ways(&mut a, &mut b, &name, "host"), (0, 6));
    assert_eq!(move_both_ways(&mut a, &mut b, &name, "pool"), (0, 6));
    says_once(&a, &name, "Permission denied");
    a.quit();
    b.quit();
}

/// What puts a program into a process namespace of its own, where it has number 1.
const OWN_PROCESSES: [&str; 5] = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
/// The same for who is not root: in a user namespace of its own.
const OWN_PROCESSES_AND_USERS: [&str; 7] =
    ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"];

fn own_processes() -> Option<&'static [&'static str]> {
    let wrapper: &[&str] = if is_root() { &OWN_PROCESSES } else { &OWN_PROCESSES_AND_USERS };
    let (program, arguments) = wrapper.split_first().unwrap();
    let may = succeeds(Command::new(program).args(arguments).arg("true"));
    if !may {
        skip("a process namespace cannot be made here");
    }
    may.then_some(wrapper)
}

#[test]
fn a_process_of_another_process_namespace_is_reached_by_tcp() {
    // Its number means another process here, to which we may even have the right to look.
    let (Some(place), Some(wrapper)) = (Place::new(), own_processes()) else { return };
    let host = loopback::host();
    let (mut a, mut b) = (place.start(&[], None, &host), place.start(wrapper, None, &host));
    let name = b.name();
    assert_eq!(move_both_ways(&mut a, &mut b, &name, "host"), (0, 6));
    assert_eq!(move_both_ways(&mut a, &mut b, &name, "pool"), (0, 6));
    says_once(&a, &name, "process 1 here ");
    // And from within: our number is nobody's there.
    let back = a.name();
    assert_eq!(move_both_ways(&mut b, &mut a, &back, "host"), (0, 6));
    says_once(&b, &back, &format!("process {}", a.id()));
    b.quit();
    a.quit();
}

/// A network namespace with a link to ours. It ends with the value.
struct Network {
    holder: Child,
    links: [Link; 2],
}

/// Addresses of the two ends of the link, of one family.
struct Link {
    here: String,
    there: String,
    length: u8,
}

/// Addresses that only the namespace of this process number has: of the range for measurements, and local ones.
fn links(process: u32) -> [Link; 2] {
    let number = process % (1 << 15);
    let (high, middle, low) = (18 + number / (1 << 14), number / 64 % 256, number % 64 * 4);
    let four = |last: u32| format!("198.{high}.{middle}.{}", low + last);
    let six = |last: u32| format!("fd77:6d63:{:x}:{:x}::{last}", process >> 16, process % (1 << 16));
    [Link { here: four(1), there: four(2), length: 30 }, Link { here: six(1), there: six(2), length: 126 }]
}

impl Network {
    /// None when this machine does not let us, which is then counted.
    fn new() -> Option<Self> {
        let made = Self::try_new();
        if made.is_none() {
            skip("a network namespace with a link to this one cannot be made here");
        }
        made
    }

    fn try_new() -> Option<Self> {
        if !is_root() || !succeeds(Command::new("unshare").args(["--net", "true"])) {
            return None;
        }
        let holder =
            Child::start(Command::new("unshare").args(["--net", "sh", "-c", "echo there; exec cat"]));
        let _line = holder.wait_for_line(LIMIT, |line| line == "there");
        let links = links(holder.id());
        let network = Self { holder, links };
        let process = network.holder.id().to_string();
        let (near, far) = (format!("mct{process}a"), format!("mct{process}b"));
        let ours = |arguments: &[&str]| succeeds(Command::new("ip").args(arguments));
        let theirs = |arguments: &[&str]| {
            let [program, rest @ ..] = network.entry();
            succeeds(Command::new(program).args(rest).arg("ip").args(arguments))
        };
        let linked = ours(&["link", "add", &near, "type", "veth", "peer", "name", &far, "netns", &process])
            && ours(&["link", "set", &near, "up"])
            && theirs(&["link", "set", &far, "up"])
            && theirs(&["link", "set", "lo", "up"]);
        let addressed = network.links.iter().all(|link| {
            let (here, there) =
                (format!("{}/{}", link.here, link.length), format!("{}/{}", link.there, link.length));
            // An IPv6 address is not usable until nobody else was found to have it.
            let checked: &[&str] = if link.here.contains(':') { &["nodad"] } else { &[] };
            ours(&[&["addr", "add", &here, "dev", &near], checked].concat())
                && theirs(&[&["addr", "add", &there, "dev", &far], checked].concat())
        });
        (linked && addressed).then_some(network)
    }

    /// What runs a program in it.
    fn entry(&self) -> [String; 2] {
        ["nsenter".to_owned(), format!("--net=/proc/{}/ns/net", self.holder.id())]
    }
}

#[test]
fn another_network_is_no_other_host_and_another_container_is_reached_by_tcp() {
    let (Some(place), Some(network)) = (Place::new(), Network::new()) else { return };
    let Some(own_processes) = own_processes() else { return };
    let entry = network.entry();
    let entry: Vec<&str> = entry.iter().map(String::as_str).collect();
    for link in &network.links {
        // The processes see each other, whatever the network says.
        let (mut a, mut b) = (place.start(&[], None, &link.here), place.start(&entry, None, &link.there));
        let name = b.name();
        assert_eq!(move_both_ways(&mut a, &mut b, &name, "host"), (6, 0));
        assert_eq!(move_both_ways(&mut a, &mut b, &name, "pool"), (6, 0));
        assert!(reasons(&a).is_empty(), "{:?}", reasons(&a));
        b.quit();
        // They do not, as two containers.
        let mut container = place.start(&[&entry[..], own_processes].concat(), None, &link.there);
        let name = container.name();
        assert_eq!(move_both_ways(&mut a, &mut container, &name, "host"), (0, 6));
        assert_eq!(move_both_ways(&mut a, &mut container, &name, "pool"), (0, 6));
        says_once(&a, &name, "process 1 here ");
        let back = a.name();
        assert_eq!(move_both_ways(&mut container, &mut a, &back, "host"), (0, 6));
        container.quit();
        a.quit();
    }
}

#[test]
fn a_peer_that_names_the_loopback_is_reached_at_the_address_it_was_opened_by() {
    let (Some(place), Some(network)) = (Place::new(), Network::new()) else { return };
    let Some(own_processes) = own_processes() else { return };
    let entry = network.entry();
    let entry: Vec<&str> = entry.iter().map(String::as_str).collect();
    for (link, loopback) in network.links.iter().zip(["127.0.0.1", "::1"]) {
        // Its descriptor says that its data is served at the loopback, which is ours as well as its.
        let mut a = place.start(&[], None, &link.here);
        let mut b = place.start(&[&entry[..], own_processes].concat(), None, loopback);
        let port = b.name().rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
        let opened_as = std::net::SocketAddr::new(link.there.parse().unwrap(), port).to_string();
        assert_ne!(opened_as, b.name());
        assert_eq!(move_both_ways(&mut a, &mut b, &opened_as, "host"), (0, 6), "{opened_as}");
        b.quit();
        a.quit();
    }
}
