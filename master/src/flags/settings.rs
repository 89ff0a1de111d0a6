//! The settings that flags and file make.
//!
//! A flag on the command line wins over the file, the file over the default. Upstream ignores `--port` when there is
//! a file and then binds a random port; here it counts.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mooncake_wire::Profile;

use super::duration::{parse_duration_ms, parse_size_bytes};
use super::parse::{Flags, find};
use super::table::{FLAGS, Support};
use super::{FlagError, file};
use crate::policy::{Policy, Strategy};

/// What the master runs with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the RPC server listens.
    pub rpc_address: SocketAddr,
    /// Threads of the RPC server.
    pub threads: usize,
    /// Idle connections are closed after this time.
    pub idle_timeout: Option<Duration>,
    /// Whether small answers are sent at once.
    pub no_delay: bool,
    /// Where the admin server listens.
    pub admin_address: SocketAddr,
    /// Where the embedded metadata server listens, if it is wanted.
    pub metadata_address: Option<SocketAddr>,
    /// Whether a line of numbers is logged every ten seconds.
    pub report: bool,
    /// Directory of the log; empty is stderr.
    pub log_directory: String,
    /// Whether the log goes to stderr as well.
    pub log_to_stderr: bool,
    /// The most that is logged.
    pub log_level: log::LevelFilter,
    /// The release that is spoken; none: each call tells.
    pub profile: Option<Profile>,
    /// Directory of the journal; empty is none.
    pub journal_directory: String,
    /// Whether each flush of the journal waits for the disk.
    pub journal_sync: bool,
    /// The settings of the state.
    pub policy: Policy,
    /// What is to be said about flags once there is a log.
    pub remarks: Vec<String>,
}

struct Lookup {
    command: Flags,
    file: Flags,
}

impl Lookup {
    fn text(&self, name: &'static str) -> String {
        let default = || find(name).map_or("", |flag| flag.default);
        self.command.get(name).or_else(|| self.file.get(name)).unwrap_or_else(default).to_owned()
    }

    fn wrong(&self, name: &'static str) -> FlagError {
        FlagError::exit(format!("ERROR: '{}' is out of range for --{name}", self.text(name)))
    }

    fn number<T: std::str::FromStr>(&self, name: &'static str) -> Result<T, FlagError> {
        self.text(name).parse().map_err(|_| self.wrong(name))
    }

    fn flag(&self, name: &'static str) -> bool {
        self.text(name) == "true"
    }

    fn milliseconds(&self, name: &'static str) -> Result<u64, FlagError> {
        parse_duration_ms(&self.text(name)).ok_or_else(|| self.wrong(name))
    }

    fn seconds_as_ms(&self, name: &'static str) -> Result<u64, FlagError> {
        self.number::<u64>(name)?.checked_mul(1000).ok_or_else(|| self.wrong(name))
    }

    fn ratio(&self, name: &'static str) -> Result<f64, FlagError> {
        let value: f64 = self.number(name)?;
        if (0.0..=1.0).contains(&value) {
            Ok(value)
        } else {
            Err(FlagError::abort(format!("--{name}={value} is not between 0 and 1")))
        }
    }

    fn address(&self, host: &'static str, port: u16) -> Result<SocketAddr, FlagError> {
        let text = self.text(host);
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&text);
        let bare = if bare == "localhost" { "127.0.0.1" } else { bare };
        let address: IpAddr =
            bare.parse().map_err(|_| FlagError::abort(format!("--{host}={text} is not an IP address")))?;
        Ok(SocketAddr::new(address, port))
    }
}

impl Settings {
    /// The settings that these flags make.
    ///
    /// # Errors
    /// A value is out of range, the file is not good, or something is asked for that is not offered.
    pub fn from_flags(flags: Flags) -> Result<Self, FlagError> {
        let file = match flags.get("config_path").filter(|path| !path.is_empty()) {
            Some(path) => file::read(path)?,
            None => Flags::default(),
        };
        let lookup = Lookup { command: flags, file };
        let remarks = Self::refuse(&lookup)?;
        let policy = Self::policy(&lookup)?;
        let rpc_port: u16 = match lookup.number("rpc_port")? {
            0 => lookup.number("port")?,
            port => port,
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = match lookup.number("rpc_thread_num")? {
            0 => lookup.number::<usize>("max_threads")?.clamp(1, cores),
            threads => threads,
        };
        let idle_seconds: u64 = lookup.number("rpc_conn_timeout_seconds")?;
        let metadata_address = if lookup.flag("enable_http_metadata_server") {
            Some(lookup.address("http_metadata_server_host", lookup.number("http_metadata_server_port")?)?)
        } else {
            None
        };
        let mut rpc_address = lookup.address("rpc_address", rpc_port)?;
        let interface = lookup.text("rpc_interface");
        if !interface.is_empty() {
            rpc_address.set_ip(interface_address(&interface)?);
        }
        let profile = match lookup.text("wire_profile").as_str() {
            "auto" => None,
            release => Some(Profile::from_release(release).ok_or_else(|| lookup.wrong("wire_profile"))?),
        };
        Ok(Self {
            rpc_address,
            threads,
            idle_timeout: (idle_seconds > 0).then(|| Duration::from_secs(idle_seconds)),
            no_delay: lookup.flag("rpc_enable_tcp_no_delay"),
            admin_address: lookup.address("metrics_host", lookup.number("metrics_port")?)?,
            metadata_address,
            report: lookup.flag("enable_metric_reporting"),
            log_directory: lookup.text("log_dir"),
            log_to_stderr: lookup.flag("logtostderr") || lookup.flag("alsologtostderr"),
            log_level: match (lookup.number::<i64>("minloglevel")?, lookup.number::<i64>("v")?) {
                (..=0, 1..) => log::LevelFilter::Debug,
                (..=0, _) => log::LevelFilter::Info,
                (1, _) => log::LevelFilter::Warn,
                _ => log::LevelFilter::Error,
            },
            profile,
            journal_directory: lookup.text("journal_dir"),
            journal_sync: lookup.flag("journal_sync"),
            policy,
            remarks,
        })
    }

    fn policy(lookup: &Lookup) -> Result<Policy, FlagError> {
        let strategy = match lookup.text("allocation_strategy").as_str() {
            "free_ratio_first" => Strategy::FreeRatioFirst,
            "local_first" => Strategy::LocalFirst,
            // Upstream runs an unknown one as random as well.
            _ => Strategy::Random,
        };
        let allocator = lookup.text("memory_allocator");
        if allocator != "offset" && allocator != "cachelib" {
            return Err(FlagError::abort(format!(
                "--memory_allocator={allocator} is neither offset nor cachelib"
            )));
        }
        let policy = Policy {
            lease_ttl_ms: lookup.milliseconds("default_kv_lease_ttl")?,
            soft_pin_ttl_ms: lookup.milliseconds("default_kv_soft_pin_ttl")?,
            max_soft_pin_ttl_ms: lookup.milliseconds("max_kv_soft_pin_ttl")?,
            evict_soft_pinned: lookup.flag("allow_evict_soft_pinned_objects"),
            eviction_ratio: lookup.ratio("eviction_ratio")?,
            eviction_high_watermark: lookup.ratio("eviction_high_watermark_ratio")?,
            client_ttl_ms: lookup.seconds_as_ms("client_ttl")?,
            put_discard_ms: lookup.seconds_as_ms("put_start_discard_timeout_sec")?,
            put_release_ms: lookup.seconds_as_ms("put_start_release_timeout_sec")?,
            strategy,
            metadata_budget_bytes: parse_size_bytes(&lookup.text("metadata_budget"))
                .ok_or_else(|| lookup.wrong("metadata_budget"))?,
            ramp_ms: lookup.milliseconds("segment_ramp")?,
            restore_wait_ms: lookup.milliseconds("journal_wait")?,
            seed: fastrand::u64(..),
        };
        if policy.soft_pin_ttl_ms > policy.max_soft_pin_ttl_ms {
            return Err(FlagError::abort("--default_kv_soft_pin_ttl is above --max_kv_soft_pin_ttl".into()));
        }
        if policy.put_release_ms <= policy.put_discard_ms {
            let text = "--put_start_release_timeout_sec is not above --put_start_discard_timeout_sec";
            return Err(FlagError::abort(text.into()));
        }
        Ok(policy)
    }

    /// Refuses what is not offered; what has no effect is remarked on.
    fn refuse(lookup: &Lookup) -> Result<Vec<String>, FlagError> {
        let mut remarks = Vec::new();
        for flag in FLAGS {
            let value = lookup.text(flag.name);
            let off = value == flag.default || value.is_empty();
            match flag.support {
                Support::Refused if !off => {
                    return Err(FlagError::exit(format!(
                        "ERROR: --{}={value}: {}: this master does not offer it",
                        flag.name, flag.help
                    )));
                }
                Support::NoEffect if !off => {
                    remarks.push(format!("--{}={value} has no effect here", flag.name))
                }
                _ => {}
            }
        }
        if lookup.command.is_set("port") && lookup.text("rpc_port") == "0" {
            remarks.push("--port is upstream's old name; --rpc_port is the new one".to_owned());
        }
        let strategy = lookup.text("allocation_strategy");
        if !["random", "free_ratio_first", "local_first"].contains(&strategy.as_str()) {
            remarks.push(format!("--allocation_strategy={strategy} is not offered: random is used"));
        }
        if lookup.text("memory_allocator") == "cachelib" {
            remarks.push(
                "--memory_allocator=cachelib: there is one allocator here, and it has no size limit"
                    .to_owned(),
            );
        }
        Ok(remarks)
    }
}

/// The IPv4 address of an interface, from the kernel's table of local routes.
fn interface_address(interface: &str) -> Result<IpAddr, FlagError> {
    let unresolved = || FlagError::abort(format!("--rpc_interface={interface} has no IPv4 address"));
    // A connected UDP socket sends nothing; bound to the interface's network it has the interface's address.
    let routes = std::fs::read_to_string("/proc/net/route").map_err(|_| unresolved())?;
    if interface == "lo" {
        return Ok(IpAddr::from([127, 0, 0, 1]));
    }
    for line in routes.lines().skip(1) {
        let mut fields = line.split_whitespace();
        let (Some(name), Some(destination)) = (fields.next(), fields.next()) else {
            continue;
        };
        let Ok(network) = u32::from_str_radix(destination, 16) else {
            continue;
        };
        if name != interface || network == 0 {
            continue;
        }
        let [a, b, c, d] = network.to_le_bytes();
        let probe = std::net::UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
            socket.connect((IpAddr::from([a, b, c, d.wrapping_add(1)]), 9)).and(socket.local_addr())
        });
        if let Ok(address) = probe {
            return Ok(address.ip());
        }
    }
    Err(unresolved())
}

#[cfg(test)]
mod tests {
    use super::super::parse::{Command, parse};
    use super::*;

    fn settings(line: &str) -> Result<Settings, FlagError> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        match parse(&words, &|_| None) {
            Ok(Command::Run(flags)) => Settings::from_flags(flags),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_guides_command_line_and_the_defaults() {
        let guide = settings("--port 50088 --eviction_high_watermark_ratio 0.95 --eviction_ratio 0.05")
            .expect("good");
        assert_eq!(guide.rpc_address, "0.0.0.0:50088".parse().expect("address"));
        assert_eq!(guide.admin_address, "0.0.0.0:9003".parse().expect("address"));
        assert!((guide.policy.eviction_high_watermark - 0.95).abs() < 1e-9);
        assert_eq!((guide.policy.lease_ttl_ms, guide.policy.client_ttl_ms), (10_000, 10_000));
        assert_eq!(guide.profile, None);
        let other =
            settings("--port=1 --rpc_port=2 --rpc_address=:: --metrics_host=[::1] --default_kv_lease_ttl=5s");
        let other = other.expect("good");
        assert_eq!(other.rpc_address, "[::]:2".parse().expect("address"));
        assert_eq!(other.admin_address, "[::1]:9003".parse().expect("address"));
        assert_eq!(other.policy.lease_ttl_ms, 5000);
        assert_eq!(settings("--wire_profile=0.3.11.post1").expect("good").profile, Some(Profile::V0_3_11));
    }

    #[test]
    fn what_is_not_offered_is_refused_by_name_unless_it_is_off() {
        let refused = settings("--enable_ha").expect_err("refused");
        assert_eq!(refused.exit_code, 1);
        assert!(refused.text.contains("--enable_ha"), "{}", refused.text);
        assert!(settings("--enable_ha=false --noenable_snapshot --root_fs_dir=").is_ok());
        assert!(settings("--etcd_endpoints=a:1").expect("accepted").remarks[0].contains("etcd_endpoints"));
    }

    #[test]
    fn exit_codes() {
        for (line, code) in [
            ("--eviction_ratio=1.5", 134),
            ("--put_start_release_timeout_sec=30", 134),
            ("--default_kv_soft_pin_ttl=25h", 134),
            ("--memory_allocator=slab", 134),
            ("--config_path=nothing.toml", 134),
            ("--config_path=nothing.yaml", 134),
            ("--wire_profile=0.3.12", 1),
            ("--port=70000", 1),
        ] {
            assert_eq!(settings(line).expect_err(line).exit_code, code, "{line}");
        }
    }

    #[test]
    fn the_command_line_wins_over_the_file_and_the_file_over_the_default() {
        let directory = tempfile::tempdir().expect("directory");
        for (name, text) in [
            (
                "a.yaml",
                "rpc_port: 6\nclient_live_ttl_sec: 60\ndefault_kv_lease_ttl: 7s\neviction_ratio: 0.1\n",
            ),
            (
                "a.json",
                r#"{"rpc_port": 6, "client_live_ttl_sec": 60, "default_kv_lease_ttl": 7000, "eviction_ratio": 0.1}"#,
            ),
        ] {
            let path = directory.path().join(name);
            std::fs::write(&path, text).expect("file");
            let both =
                settings(&format!("--config_path={} --eviction_ratio=0.3", path.display())).expect("good");
            assert_eq!(both.rpc_address.port(), 6);
            assert_eq!((both.policy.client_ttl_ms, both.policy.lease_ttl_ms), (60_000, 7000));
            assert!((both.policy.eviction_ratio - 0.3).abs() < 1e-9);
            assert_eq!(both.admin_address.port(), 9003);
        }
    }
}
