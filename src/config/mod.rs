//! Every setting that comes from the environment, read in one place.
//!
//! [`Config::from_env`] reads the variables of [`table`]; nothing else in the library looks at the
//! environment. An unusable value is reported and its default holds: settings never make a process abort.

mod markdown;
pub mod refused;
pub mod table;
pub mod unread;
pub mod variable;

use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use crate::memory::Nodes;

pub use markdown::markdown;
pub use refused::{REFUSED, Refused, refused};
pub use unread::{Unread, report_unread, unread};
use variable::Reader;
pub use variable::{Kind, Variable, Warning};

/// Least value of `MC_TRANSFER_TIMEOUT`; upstream raises smaller ones to it.
pub const MIN_TRANSFER_TIMEOUT: Duration = Duration::from_secs(5);

/// Ports the kernel hands out by itself; a listener's range must stay clear of them, as upstream has it.
pub const EPHEMERAL_PORTS: std::ops::RangeInclusive<u16> = 32_768..=60_999;

/// All settings, typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `MC_MIN_RPC_PORT`.
    pub rpc_port_min: u16,
    /// `MC_MAX_RPC_PORT`, inclusive.
    pub rpc_port_max: u16,
    /// `MC_HANDSHAKE_PORT`.
    pub handshake_port: u16,
    /// `MC_USE_IPV6`.
    pub use_ipv6: bool,
    /// `MC_HANDSHAKE_LISTEN_BACKLOG`.
    pub listen_backlog: i32,
    /// `MC_HANDSHAKE_CONNECT_TIMEOUT`.
    pub handshake_connect_timeout: Duration,
    /// `MC_HANDSHAKE_MAX_LENGTH`, inclusive.
    pub handshake_max_length_bytes: usize,
    /// `MOONCAKE_TRANSFER_HANDSHAKE_SESSION_MS`.
    pub handshake_session_timeout: Duration,
    /// `MOONCAKE_TRANSFER_HANDSHAKE_SESSIONS`.
    pub handshake_max_sessions: usize,
    /// `MOONCAKE_TRANSFER_HANDSHAKE_REPLY_MS`.
    pub handshake_reply_timeout: Duration,
    /// `MC_TRANSFER_TIMEOUT`.
    pub transfer_timeout: Duration,
    /// `MC_FORCE_TCP`.
    pub force_tcp: bool,
    /// `MC_LOG_LEVEL`, when it was set to a level.
    pub log_level: Option<LevelFilter>,
    /// `ASCEND_CONNECT_TIMEOUT`.
    pub ascend_connect_timeout: Duration,
    /// `ASCEND_TRANSFER_TIMEOUT`.
    pub ascend_transfer_timeout: Duration,
    /// `ASCEND_AGGREGATE_ENABLE`.
    pub ascend_aggregate: bool,
    /// `ASCEND_TRANSPORT_PRINT`.
    pub ascend_print: bool,
    /// `ASCEND_RDMA_TC`, else `HCCL_RDMA_TC`, when set: the vendor's own default holds otherwise.
    pub rdma_traffic_class: Option<u32>,
    /// `ASCEND_RDMA_SL`, else `HCCL_RDMA_SL`, when set.
    pub rdma_service_level: Option<u32>,
    /// `HCCL_INTRA_ROCE_ENABLE`.
    pub intra_roce: bool,
    /// `ASCEND_HOME_PATH`.
    pub ascend_home: Option<PathBuf>,
    /// `ASCEND_TOOLKIT_HOME`.
    pub ascend_toolkit_home: Option<PathBuf>,
    /// `ASCEND_RT_VISIBLE_DEVICES`, for reports only.
    pub visible_devices: Option<String>,
    /// `MOONCAKE_CONFIG_PATH`.
    pub store_config: Option<PathBuf>,
    /// `MOONCAKE_TRANSFER_CANN_PATH`.
    pub cann_path: Option<PathBuf>,
    /// `MOONCAKE_TRANSFER_BOOT_ID`.
    pub boot_id: Option<String>,
    /// `MOONCAKE_TRANSFER_SERVER_ID`.
    pub server_id: Option<String>,
    /// `MOONCAKE_TRANSFER_DRAIN_GRACE_MS`.
    pub drain_grace: Duration,
    /// `MOONCAKE_TRANSFER_CHANNEL_DEVICE_PORT`, when not 0.
    pub channel_device_port: Option<u16>,
    /// `MOONCAKE_TRANSFER_HCCN_CONF`.
    pub hccn_conf: PathBuf,
    /// `MOONCAKE_TRANSFER_COST_TABLE`.
    pub cost_table: Option<PathBuf>,
    /// `MOONCAKE_TRANSFER_MAX_BATCH`.
    pub max_batch: usize,
    /// `MOONCAKE_TRANSFER_CONTROL_PORT`, when not 0.
    pub control_port: Option<u16>,
    /// `MOONCAKE_TRANSFER_CONTROL_PING_MS`.
    pub control_ping_interval: Duration,
    /// `MOONCAKE_TRANSFER_CONTROL_LATENCY_US`.
    pub control_latency: Duration,
    /// `MOONCAKE_TRANSFER_CONTROL_SILENCE_MS`.
    pub control_silence_limit: Duration,
    /// `MOONCAKE_TRANSFER_MAX_NOTES`.
    pub max_notes: usize,
    /// `MC_TCP_LANES_PER_PEER`.
    pub tcp_lanes: usize,
    /// `MC_TCP_MAX_QUEUED_TRANSFERS_PER_PEER`.
    pub tcp_max_jobs: usize,
    /// `MC_TCP_PROGRESS_TIMEOUT_SEC`.
    pub tcp_progress_timeout: Duration,
    /// `MC_TCP_PROTO` is 1.
    pub tcp_first_version: bool,
    /// `MC_TCP_ENABLE_CONNECTION_POOL`.
    pub tcp_keep: bool,
    /// `MOONCAKE_TRANSFER_TCP_SESSIONS`.
    pub tcp_max_sessions: usize,
    /// `MOONCAKE_TRANSFER_REQUIRE_NPU` is 1.
    pub require_npu: bool,
    /// `MC_METADATA_CLUSTER_ID`.
    pub cluster_id: Option<String>,
    /// `MC_TCP_BIND_ADDRESS`.
    pub advertised_host: Option<String>,
    /// `MC_LEGACY_RPC_PORT_BINDING`.
    pub legacy_rpc_port: bool,
    /// `MC_DISABLE_METACACHE`.
    pub no_metadata_cache: bool,
    /// `MC_TE_METADATA_REFRESH_INTERVAL_SECONDS`, when not 0.
    pub metadata_refresh_interval: Option<Duration>,
    /// `MOONCAKE_TRANSFER_METADATA_CHECK_MS`, when not 0.
    pub metadata_check_interval: Option<Duration>,
    /// `MOONCAKE_TRANSFER_STAGED_SLOT_BYTES`.
    pub staged_slot_bytes: u64,
    /// `MOONCAKE_TRANSFER_STAGED_SLOTS`.
    pub staged_slots: u32,
    /// `MOONCAKE_TRANSFER_BOTH_ENDS`.
    pub both_ends: bool,
    /// `MOONCAKE_TRANSFER_SAME_HOST`.
    pub same_host: bool,
    /// `MOONCAKE_TRANSFER_HUGE_PAGES`.
    pub huge_pages: bool,
    /// `MC_RPC_TIMEOUT_MS`.
    pub rpc_timeout: Duration,
    /// `MC_RPC_CONNECT_TIMEOUT_MS`.
    pub rpc_connect_timeout: Duration,
    /// `MOONCAKE_TRANSFER_STORE_SETUP_TIMEOUT_MS`.
    pub store_setup_timeout: Duration,
    /// `MC_STORE_USE_HUGEPAGE`.
    pub store_huge_pages: bool,
    /// `MOONCAKE_TRANSFER_STORE_NUMA`.
    pub store_nodes: Nodes,
    /// `MOONCAKE_TRANSFER_STORE_PREFAULT` is 1.
    pub store_prefault: bool,
    /// `MC_STORE_CLIENT_MIN_PORT`.
    pub store_port_min: u16,
    /// `MC_STORE_CLIENT_MAX_PORT`.
    pub store_port_max: u16,
}

impl Default for Config {
    /// What holds in an empty environment.
    fn default() -> Self {
        Self::from_lookup(&|_| None).0
    }
}

impl Config {
    /// Reads the process's environment, logs what is unusable, and once per process what nobody reads.
    #[must_use]
    pub fn from_env() -> Self {
        let lookup = |name: &str| std::env::var_os(name).map(|text| text.to_string_lossy().into_owned());
        let (config, warnings) = Self::from_lookup(&lookup);
        for warning in warnings {
            log::warn!("{warning}");
        }
        report_unread();
        config
    }

    /// Reads from any source; gives also what was unusable.
    #[must_use]
    pub fn from_lookup(lookup: &dyn Fn(&str) -> Option<String>) -> (Self, Vec<Warning>) {
        let mut reader = Reader::new(lookup);
        let r = &mut reader;
        let (rpc_port_min, rpc_port_max) = port_range(r);
        let path = |r: &mut Reader<'_>, variable| r.text(variable).map(PathBuf::from);
        let control_ping_interval = milliseconds(r, &table::CONTROL_PING);
        let config = Self {
            rpc_port_min,
            rpc_port_max,
            handshake_port: r.number_as(&table::HANDSHAKE_PORT),
            use_ipv6: r.switch(&table::USE_IPV6),
            listen_backlog: r.number_as(&table::HANDSHAKE_LISTEN_BACKLOG),
            handshake_connect_timeout: Duration::from_secs(r.number(&table::HANDSHAKE_CONNECT_TIMEOUT)),
            handshake_max_length_bytes: r.number_as(&table::HANDSHAKE_MAX_LENGTH),
            handshake_session_timeout: milliseconds(r, &table::HANDSHAKE_SESSION),
            handshake_max_sessions: r.number_as(&table::HANDSHAKE_SESSIONS),
            handshake_reply_timeout: milliseconds(r, &table::HANDSHAKE_REPLY),
            transfer_timeout: transfer_timeout(r),
            force_tcp: r.switch(&table::FORCE_TCP),
            log_level: log_level(r),
            ascend_connect_timeout: milliseconds(r, &table::ASCEND_CONNECT_TIMEOUT),
            ascend_transfer_timeout: milliseconds(r, &table::ASCEND_TRANSFER_TIMEOUT),
            ascend_aggregate: r.switch(&table::ASCEND_AGGREGATE_ENABLE),
            ascend_print: r.switch(&table::ASCEND_TRANSPORT_PRINT),
            rdma_traffic_class: traffic_class(r),
            rdma_service_level: r
                .given_number(&table::ASCEND_RDMA_SL)
                .and_then(|level| u32::try_from(level).ok()),
            intra_roce: r.switch(&table::HCCL_INTRA_ROCE_ENABLE),
            ascend_home: path(r, &table::ASCEND_HOME_PATH),
            ascend_toolkit_home: path(r, &table::ASCEND_TOOLKIT_HOME),
            visible_devices: r.text(&table::ASCEND_RT_VISIBLE_DEVICES),
            store_config: path(r, &table::CONFIG_PATH),
            cann_path: path(r, &table::CANN_PATH),
            boot_id: r.text(&table::BOOT_ID),
            server_id: r.text(&table::SERVER_ID),
            drain_grace: milliseconds(r, &table::DRAIN_GRACE),
            channel_device_port: Some(r.number_as(&table::CHANNEL_DEVICE_PORT)).filter(|port| *port != 0),
            hccn_conf: path(r, &table::HCCN_CONF).unwrap_or_default(),
            cost_table: path(r, &table::COST_TABLE),
            max_batch: r.number_as(&table::MAX_BATCH),
            control_port: Some(r.number_as(&table::CONTROL_PORT)).filter(|port| *port != 0),
            control_ping_interval,
            control_latency: Duration::from_micros(r.number(&table::CONTROL_LATENCY)),
            control_silence_limit: silence_limit(r, control_ping_interval),
            max_notes: r.number_as(&table::MAX_NOTES),
            tcp_lanes: r.number_as(&table::TCP_LANES),
            tcp_max_jobs: r.number_as(&table::TCP_MAX_JOBS),
            tcp_progress_timeout: Duration::from_secs(r.number(&table::TCP_PROGRESS_TIMEOUT)),
            tcp_first_version: r.switch(&table::TCP_FIRST_VERSION),
            tcp_keep: !is_off(r, &table::TCP_KEEP),
            tcp_max_sessions: r.number_as(&table::TCP_SESSIONS),
            require_npu: r.switch(&table::REQUIRE_NPU),
            cluster_id: r.text(&table::CLUSTER_ID),
            advertised_host: r.text(&table::ADVERTISED_HOST),
            legacy_rpc_port: r.switch(&table::LEGACY_RPC_PORT),
            no_metadata_cache: r.switch(&table::NO_METADATA_CACHE),
            metadata_refresh_interval: Some(Duration::from_secs(r.number(&table::METADATA_REFRESH)))
                .filter(|interval| !interval.is_zero()),
            metadata_check_interval: Some(milliseconds(r, &table::METADATA_CHECK))
                .filter(|interval| !interval.is_zero()),
            staged_slot_bytes: r.number(&table::STAGED_SLOT_BYTES),
            staged_slots: r.number_as(&table::STAGED_SLOTS),
            both_ends: !is_off(r, &table::BOTH_ENDS),
            same_host: !is_off(r, &table::SAME_HOST),
            huge_pages: !is_off(r, &table::HUGE_PAGES),
            rpc_timeout: milliseconds(r, &table::RPC_TIMEOUT),
            rpc_connect_timeout: milliseconds(r, &table::RPC_CONNECT_TIMEOUT),
            store_setup_timeout: milliseconds(r, &table::STORE_SETUP_TIMEOUT),
            store_huge_pages: r.switch(&table::STORE_HUGE_PAGES),
            store_nodes: store_nodes(r),
            store_prefault: r.switch(&table::STORE_PREFAULT),
            store_port_min: r.number_as(&table::STORE_MIN_PORT),
            store_port_max: r.number_as(&table::STORE_MAX_PORT),
        };
        (config, reader.warnings)
    }
}

/// A switch that is on unless it says otherwise, as upstream reads its connection pool's.
fn is_off(reader: &mut Reader<'_>, variable: &Variable) -> bool {
    reader.text(variable).is_some_and(|text| {
        ["0", "false", "no", "off"].iter().any(|off| text.trim().eq_ignore_ascii_case(off))
    })
}

fn milliseconds(reader: &mut Reader<'_>, variable: &Variable) -> Duration {
    Duration::from_millis(reader.number(variable))
}

/// Upstream's rule: if either end is unusable or in the kernel's own range, or the ends are swapped, both
/// defaults hold.
fn port_range(reader: &mut Reader<'_>) -> (u16, u16) {
    let default_of = |variable: &Variable| match variable.kind {
        Kind::Number { default, .. } => u16::try_from(default).unwrap_or_default(),
        _ => 0,
    };
    let defaults = (default_of(&table::MIN_RPC_PORT), default_of(&table::MAX_RPC_PORT));
    let mut usable = true;
    let mut end = |variable: &Variable, default: u16| {
        let Some((name, text)) = reader.raw(variable) else { return default };
        let port = reader.given_number(variable).and_then(|port| u16::try_from(port).ok());
        match port {
            Some(port) if EPHEMERAL_PORTS.contains(&port) => {
                reader.warn(name, &text, "in the kernel's own range of ports; the default range holds");
                usable = false;
                default
            }
            Some(port) => port,
            None => {
                usable = false;
                default
            }
        }
    };
    let range = (end(&table::MIN_RPC_PORT, defaults.0), end(&table::MAX_RPC_PORT, defaults.1));
    if usable && range.0 > range.1 {
        reader.warn(
            table::MIN_RPC_PORT.name,
            &range.0.to_string(),
            format!("above {}={}; the default range holds", table::MAX_RPC_PORT.name, range.1),
        );
        usable = false;
    }
    if usable { range } else { defaults }
}

fn transfer_timeout(reader: &mut Reader<'_>) -> Duration {
    let timeout = Duration::from_secs(reader.number(&table::TRANSFER_TIMEOUT));
    if timeout < MIN_TRANSFER_TIMEOUT {
        let shown = timeout.as_secs().to_string();
        reader.warn(table::TRANSFER_TIMEOUT.name, &shown, "less than 5 s; 5 s hold");
    }
    timeout.max(MIN_TRANSFER_TIMEOUT)
}

fn traffic_class(reader: &mut Reader<'_>) -> Option<u32> {
    let (name, text) = reader.raw(&table::ASCEND_RDMA_TC)?;
    let class = reader.given_number(&table::ASCEND_RDMA_TC).and_then(|class| u32::try_from(class).ok())?;
    if class.is_multiple_of(4) {
        return Some(class);
    }
    reader.warn(name, &text, "no multiple of 4; the vendor's default holds");
    None
}

fn store_nodes(reader: &mut Reader<'_>) -> Nodes {
    let Some((name, text)) = reader.raw(&table::STORE_NODES) else { return Nodes::default() };
    text.parse().unwrap_or_else(|()| {
        reader.warn(name, &text, "no memory node; a number, all and nothing are");
        Nodes::default()
    })
}

fn log_level(reader: &mut Reader<'_>) -> Option<LevelFilter> {
    let (name, text) = reader.raw(&table::LOG_LEVEL)?;
    match text.trim().to_ascii_uppercase().as_str() {
        "TRACE" => Some(LevelFilter::Trace),
        "DEBUG" => Some(LevelFilter::Debug),
        "INFO" => Some(LevelFilter::Info),
        "WARNING" | "WARN" => Some(LevelFilter::Warn),
        "ERROR" => Some(LevelFilter::Error),
        "OFF" => Some(LevelFilter::Off),
        _ => {
            reader.warn(name, &text, "no level; TRACE, DEBUG, INFO, WARNING, ERROR and OFF are");
            None
        }
    }
}

/// A peer must get the time of two pings before it counts as lost.
fn silence_limit(reader: &mut Reader<'_>, ping_interval: Duration) -> Duration {
    let limit = milliseconds(reader, &table::CONTROL_SILENCE);
    let least = ping_interval.saturating_mul(2);
    if limit >= least {
        return limit;
    }
    let text = format!("less than two pings; {} ms hold", least.as_millis());
    reader.warn(table::CONTROL_SILENCE.name, &limit.as_millis().to_string(), text);
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (Config, Vec<Warning>) {
        Config::from_lookup(&|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn an_empty_environment_gives_upstreams_defaults() {
        let (config, warnings) = read(&[]);
        assert!(warnings.is_empty());
        assert_eq!((config.rpc_port_min, config.rpc_port_max), (15_000, 17_000));
        assert_eq!(config.handshake_port, 12_001);
        assert_eq!(config.handshake_max_length_bytes, 1 << 20);
        assert_eq!(config.transfer_timeout, Duration::from_secs(30));
        assert_eq!(config.hccn_conf, PathBuf::from("/etc/hccn.conf"));
        assert_eq!(config.channel_device_port, None);
        assert!(!config.ascend_aggregate && !config.force_tcp && !config.intra_roce);
        assert_eq!(config, Config::default());
    }

    #[test]
    fn the_port_range_follows_upstreams_rule() {
        let range = |pairs: &[(&str, &str)]| {
            let (config, warnings) = read(pairs);
            ((config.rpc_port_min, config.rpc_port_max), warnings.len())
        };
        let default = (15_000, 17_000);
        assert_eq!(
            range(&[("MC_MIN_RPC_PORT", "21000"), ("MC_MAX_RPC_PORT", "21010")]),
            ((21_000, 21_010), 0)
        );
        assert_eq!(range(&[("MC_MIN_PRC_PORT", "16000")]), ((16_000, 17_000), 0));
        assert_eq!(
            range(&[("MC_MIN_RPC_PORT", "15500"), ("MC_MIN_PRC_PORT", "16000")]),
            ((15_500, 17_000), 0)
        );
        assert_eq!(range(&[("MC_MIN_RPC_PORT", "1023")]), (default, 1));
        assert_eq!(range(&[("MC_MAX_RPC_PORT", "70000")]), (default, 1));
        assert_eq!(range(&[("MC_MIN_RPC_PORT", "33000"), ("MC_MAX_RPC_PORT", "65000")]), (default, 1));
        assert_eq!(range(&[("MC_MIN_RPC_PORT", "20000")]), (default, 1));
        assert_eq!(range(&[("MC_MIN_RPC_PORT", "many"), ("MC_MAX_RPC_PORT", "16000")]), (default, 1));
    }

    #[test]
    fn an_unusable_value_warns_and_the_default_holds() {
        for (name, value) in [
            ("MC_HANDSHAKE_CONNECT_TIMEOUT", "0"),
            ("MC_HANDSHAKE_CONNECT_TIMEOUT", "5s"),
            ("MC_HANDSHAKE_MAX_LENGTH", "999999999999999999999999"),
            ("MC_HANDSHAKE_PORT", "-1"),
            ("ASCEND_RDMA_TC", "130"),
            ("MC_LOG_LEVEL", "LOUD"),
            ("MOONCAKE_TRANSFER_CONTROL_PORT", "65536"),
            ("HCCL_INTRA_ROCE_ENABLE", "yes"),
        ] {
            let (config, warnings) = read(&[(name, value)]);
            assert_eq!(config, Config::default(), "{name}={value}");
            assert_eq!(warnings.len(), 1, "{name}={value}");
            assert_eq!(warnings[0].name, name);
        }
    }

    #[test]
    fn switches_follow_the_rules_of_their_owners() {
        assert!(read(&[("MC_FORCE_TCP", "")]).0.force_tcp);
        assert!(read(&[("MC_FORCE_TCP", "0")]).0.force_tcp);
        assert!(read(&[("ASCEND_AGGREGATE_ENABLE", "1")]).0.ascend_aggregate);
        for other in ["", "0", "true", "on", "01", "11", " 1", "1 ", "2"] {
            assert!(!read(&[("ASCEND_AGGREGATE_ENABLE", other)]).0.ascend_aggregate, "{other:?}");
        }
        assert!(read(&[("HCCL_INTRA_ROCE_ENABLE", "1")]).0.intra_roce);
        assert!(!read(&[("HCCL_INTRA_ROCE_ENABLE", "0")]).0.intra_roce);
        assert_eq!(read(&[("HCCL_RDMA_TC", "100")]).0.rdma_traffic_class, Some(100));
        assert_eq!(
            read(&[("HCCL_RDMA_TC", "100"), ("ASCEND_RDMA_TC", "104")]).0.rdma_traffic_class,
            Some(104)
        );
    }

    #[test]
    fn a_short_transfer_timeout_is_raised() {
        let (config, warnings) = read(&[("MC_TRANSFER_TIMEOUT", "1")]);
        assert_eq!(config.transfer_timeout, MIN_TRANSFER_TIMEOUT);
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn silence_outlasts_two_pings() {
        let (config, warnings) = read(&[("MOONCAKE_TRANSFER_CONTROL_PING_MS", "60000")]);
        assert_eq!(config.control_silence_limit, Duration::from_secs(120));
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn every_row_is_read_by_the_config() {
        // Each name is asked for exactly when its row takes part in `from_lookup`.
        let asked = std::cell::RefCell::new(std::collections::HashSet::new());
        let _ = Config::from_lookup(&|name| {
            asked.borrow_mut().insert(name.to_owned());
            None
        });
        for row in table::APPLIED {
            for name in row.aliases.iter().chain([&row.name]) {
                assert!(asked.borrow().contains(*name), "{name} is in the table and never read");
            }
        }
    }
}
