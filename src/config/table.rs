//! The table of every environment variable: those with an effect, and those taken without a word.
//!
//! The README section and `doctor` are made from it. A variable upstream reads and that does not apply here
//! stands in [`SILENT`], so that an environment written for upstream raises no warning; one that asks an NPU transport for
//! what it cannot do stands in [`REFUSED`](super::refused::REFUSED).

use super::variable::{Kind, Variable};

macro_rules! variables {
    ($($(#[doc = $meaning:literal])+ $constant:ident = $name:literal $(| $alias:literal)* : $kind:expr;)+) => {
        $(
            $(#[doc = $meaning])+
            pub const $constant: Variable = Variable {
                name: $name,
                aliases: &[$($alias),*],
                kind: $kind,
                meaning: concat!($($meaning),+).trim_ascii_start(),
            };
        )+
        /// Every variable with an effect, in the order of the documentation.
        pub const APPLIED: &[Variable] = &[$($constant),+];
    };
}

const fn number(default: u64, min: u64, max: u64, unit: &'static str) -> Kind {
    Kind::Number { default, min, max, unit }
}

/// A day; the upper bound of every time that can be set.
const DAY_MS: u64 = 86_400_000;

variables! {
    /// Lowest port of the handshake, control and data listeners.
    MIN_RPC_PORT = "MC_MIN_RPC_PORT" | "MC_MIN_PRC_PORT": number(15_000, 1024, 65_535, "port");
    /// Highest port of the handshake, control and data listeners.
    MAX_RPC_PORT = "MC_MAX_RPC_PORT" | "MC_MAX_PRC_PORT": number(17_000, 1024, 65_535, "port");
    /// Port of a server name that has none.
    HANDSHAKE_PORT = "MC_HANDSHAKE_PORT": number(12_001, 1, 65_535, "port");
    /// Tries the IPv6 addresses of a host name before the others.
    USE_IPV6 = "MC_USE_IPV6": Kind::Presence;
    /// Connections the kernel holds for a listener that has not accepted them yet.
    HANDSHAKE_LISTEN_BACKLOG = "MC_HANDSHAKE_LISTEN_BACKLOG": number(128, 1, 65_535, "connections");
    /// Longest wait for a TCP connection to a peer's handshake or control listener.
    HANDSHAKE_CONNECT_TIMEOUT = "MC_HANDSHAKE_CONNECT_TIMEOUT": number(5, 1, 3599, "s");
    /// Longest handshake message taken.
    HANDSHAKE_MAX_LENGTH = "MC_HANDSHAKE_MAX_LENGTH": number(1 << 20, 1 << 20, 128 << 20, "bytes");
    /// Deadline of calls that take none; less than 5 counts as 5.
    TRANSFER_TIMEOUT = "MC_TRANSFER_TIMEOUT": number(30, 0, 86_400, "s");
    /// Uses the TCP transport only, even where NPUs are.
    FORCE_TCP = "MC_FORCE_TCP": Kind::Presence;
    /// Lowest level of log lines that are written: TRACE, DEBUG, INFO, WARNING, ERROR or OFF.
    LOG_LEVEL = "MC_LOG_LEVEL": Kind::Text("");
    /// Longest time in which a peer has to be connected, with or without NPU, and a channel between two NPUs has to come
    /// up.
    ASCEND_CONNECT_TIMEOUT = "ASCEND_CONNECT_TIMEOUT": number(10_000, 1, DAY_MS, "ms");
    /// Longest time one vendor call that moves data may take, once its turn has come.
    ASCEND_TRANSFER_TIMEOUT = "ASCEND_TRANSFER_TIMEOUT" | "ASCEND_TRANSPORT_TRANSFER_TIMEOUT":
        number(10_000, 1, DAY_MS, "ms");
    /// Lets small blocks be gathered before they are sent.
    ASCEND_AGGREGATE_ENABLE = "ASCEND_AGGREGATE_ENABLE": Kind::Exactly("1");
    /// Logs one line for each batch the NPU transport moved.
    ASCEND_TRANSPORT_PRINT = "ASCEND_TRANSPORT_PRINT": Kind::Exactly("1");
    /// RoCE traffic class of NPU channels; must be a multiple of 4.
    ASCEND_RDMA_TC = "ASCEND_RDMA_TC" | "HCCL_RDMA_TC": number(132, 0, 255, "class");
    /// RoCE service level of NPU channels.
    ASCEND_RDMA_SL = "ASCEND_RDMA_SL" | "HCCL_RDMA_SL": number(4, 0, 7, "level");
    /// Whether the vendor's library uses RoCE inside one server; must be the same at both ends.
    HCCL_INTRA_ROCE_ENABLE = "HCCL_INTRA_ROCE_ENABLE": Kind::NotZero;
    /// Where CANN is installed.
    ASCEND_HOME_PATH = "ASCEND_HOME_PATH": Kind::Text("");
    /// Where CANN is installed, second place looked at.
    ASCEND_TOOLKIT_HOME = "ASCEND_TOOLKIT_HOME": Kind::Text("");
    /// The NPUs this process sees; the vendor's runtime applies it, here it is reported.
    ASCEND_RT_VISIBLE_DEVICES = "ASCEND_RT_VISIBLE_DEVICES": Kind::Text("");
    /// File with the settings of the store client (`mooncake.json`).
    CONFIG_PATH = "MOONCAKE_CONFIG_PATH": Kind::Text("");
    /// Folder of the CANN libraries to load, before every other place.
    CANN_PATH = "MOONCAKE_TRANSFER_CANN_PATH": Kind::Text("");
    /// Boot id to publish in place of the kernel's; processes with different ones count as different hosts.
    BOOT_ID = "MOONCAKE_TRANSFER_BOOT_ID": Kind::Text("");
    /// Server id in the rank tables given to the vendor, in place of the boot id.
    SERVER_ID = "MOONCAKE_TRANSFER_SERVER_ID": Kind::Text("");
    /// Longest time after a deadline in which what was started has to become quiet.
    DRAIN_GRACE = "MOONCAKE_TRANSFER_DRAIN_GRACE_MS": number(2000, 1, DAY_MS, "ms");
    /// Device port of NPU channels; 0 lets the peers agree on one.
    CHANNEL_DEVICE_PORT = "MOONCAKE_TRANSFER_CHANNEL_DEVICE_PORT": number(0, 0, 65_535, "port");
    /// File with the network addresses of the NPUs.
    HCCN_CONF = "MOONCAKE_TRANSFER_HCCN_CONF": Kind::Text("/etc/hccn.conf");
    /// File that changes numbers of the table of costs, by which small blocks are gathered or not.
    COST_TABLE = "MOONCAKE_TRANSFER_COST_TABLE": Kind::Text("");
    /// Most requests one batch may hold.
    MAX_BATCH = "MOONCAKE_TRANSFER_MAX_BATCH": number(1 << 20, 1, 1 << 24, "requests");
    /// Port of the control listener; 0 takes one from the range of the handshake.
    CONTROL_PORT = "MOONCAKE_TRANSFER_CONTROL_PORT": number(0, 0, 65_535, "port");
    /// Silence on a control connection after which a ping is sent.
    CONTROL_PING = "MOONCAKE_TRANSFER_CONTROL_PING_MS": number(2000, 10, DAY_MS, "ms");
    /// Time for which each message of a control connection is held back before it is served; for measurements beside
    /// a software NPU that is slower than hardware, where messages would be too fast.
    CONTROL_LATENCY = "MOONCAKE_TRANSFER_CONTROL_LATENCY_US": number(0, 0, 60_000_000, "us");
    /// Silence on a control connection after which the peer counts as lost.
    CONTROL_SILENCE = "MOONCAKE_TRANSFER_CONTROL_SILENCE_MS": number(10_000, 50, DAY_MS, "ms");
    /// Longest time a client of the handshake listener may take for each of sending, reading and closing.
    HANDSHAKE_SESSION = "MOONCAKE_TRANSFER_HANDSHAKE_SESSION_MS": number(5000, 10, DAY_MS, "ms");
    /// Clients the handshake listener serves at once; one more displaces the one that is due first.
    HANDSHAKE_SESSIONS = "MOONCAKE_TRANSFER_HANDSHAKE_SESSIONS": number(1024, 1, 65_536, "clients");
    /// Longest wait for the answer of a peer's handshake listener.
    HANDSHAKE_REPLY = "MOONCAKE_TRANSFER_HANDSHAKE_REPLY_MS": number(60_000, 1, DAY_MS, "ms");
    /// Notifications kept until they are fetched; one more is refused.
    MAX_NOTES = "MOONCAKE_TRANSFER_MAX_NOTES": number(65_536, 1, 1 << 24, "notes");
    /// Data connections to one peer.
    TCP_LANES = "MC_TCP_LANES_PER_PEER" | "MC_TCP_MAX_CONNECTIONS_PER_PEER": number(4, 1, 16, "connections");
    /// Submissions that wait for the data connections of one peer; one more is refused.
    TCP_MAX_JOBS = "MC_TCP_MAX_QUEUED_TRANSFERS_PER_PEER": number(1024, 1, 65_535, "submissions");
    /// Time without a byte after which a data connection with requests on it is given up, at both ends.
    TCP_PROGRESS_TIMEOUT = "MC_TCP_PROGRESS_TIMEOUT_SEC" | "MC_TCP_STATUS_TIMEOUT_SEC": number(30, 1, 86_400, "s");
    /// Speaks the first version of the data protocol, one connection for each request, even to newer peers.
    TCP_FIRST_VERSION = "MC_TCP_PROTO": Kind::Exactly("1");
    /// Keeps data connections for the next request; 0, false, no or off makes one for each request.
    TCP_KEEP = "MC_TCP_ENABLE_CONNECTION_POOL": Kind::Text("1");
    /// Data connections served at once; one more is turned away.
    TCP_SESSIONS = "MOONCAKE_TRANSFER_TCP_SESSIONS": number(4096, 1, 1 << 20, "connections");
    /// Makes the protocol "ascend" an error where CANN cannot be opened, instead of a warning and host memory only.
    REQUIRE_NPU = "MOONCAKE_TRANSFER_REQUIRE_NPU": Kind::Exactly("1");
    /// Part of every key in a metadata service, so that several clusters can share one.
    CLUSTER_ID = "MC_METADATA_CLUSTER_ID": Kind::Text("");
    /// With a metadata service: the address at which peers reach this host. Empty takes the one by which this
    /// host reaches the service.
    ADVERTISED_HOST = "MC_TCP_BIND_ADDRESS": Kind::Text("");
    /// With a metadata service: host and handshake port are those of the engine's name, where it has them, instead of
    /// an address of this host and a port of the range.
    LEGACY_RPC_PORT = "MC_LEGACY_RPC_PORT_BINDING": Kind::Presence;
    /// Asks for a peer's descriptor at every opening and for every transfer, instead of keeping it.
    NO_METADATA_CACHE = "MC_DISABLE_METACACHE": Kind::Presence;
    /// How often the descriptors of all open segments are asked for again; 0 leaves that to need.
    METADATA_REFRESH = "MC_TE_METADATA_REFRESH_INTERVAL_SECONDS": number(0, 0, 86_400, "s");
    /// With a metadata service: about how often an engine looks whether the service still knows it, and tells it again
    /// if not, as after a restart; 0 leaves that to the next registration.
    METADATA_CHECK = "MOONCAKE_TRANSFER_METADATA_CHECK_MS": number(30_000, 0, DAY_MS, "ms");
    /// Length of the slots that transfers are staged through; of two ends that differ the shorter one counts.
    STAGED_SLOT_BYTES = "MOONCAKE_TRANSFER_STAGED_SLOT_BYTES": number(4 << 20, 64 << 10, 1 << 30, "bytes");
    /// Slots for transfers of this engine on each NPU that stages, and as many for its peers; 0 turns staging off.
    STAGED_SLOTS = "MOONCAKE_TRANSFER_STAGED_SLOTS": number(8, 0, 1024, "slots");
    /// Lets the peer's NPU launch a part of a transfer of many small blocks where `ASCEND_AGGREGATE_ENABLE` is 1; 0,
    /// false, no or off turns it off.
    BOTH_ENDS = "MOONCAKE_TRANSFER_BOTH_ENDS": Kind::Text("1");
    /// Moves host memory between processes of one host without sockets; 0, false, no or off turns it off.
    SAME_HOST = "MOONCAKE_TRANSFER_SAME_HOST": Kind::Text("1");
    /// Puts registered host memory that is in use together into huge pages, which doubles the speed of the kernel's
    /// copy between processes and takes no more memory; 0, false, no or off leaves the pages as they are.
    HUGE_PAGES = "MOONCAKE_TRANSFER_HUGE_PAGES": Kind::Text("1");
    /// Longest wait of the store client for an answer of its master.
    RPC_TIMEOUT = "MC_RPC_TIMEOUT_MS": number(30_000, 1, DAY_MS, "ms");
    /// Longest wait of the store client for a connection to one of its masters.
    RPC_CONNECT_TIMEOUT = "MC_RPC_CONNECT_TIMEOUT_MS": number(5000, 1, DAY_MS, "ms");
    /// Time in which `setup` of the store has to find a master and to mount its segments.
    STORE_SETUP_TIMEOUT = "MOONCAKE_TRANSFER_STORE_SETUP_TIMEOUT_MS": number(10_000, 1, DAY_MS, "ms");
    /// Takes the largest pages there are for the memory that a store lends to the pool.
    STORE_HUGE_PAGES = "MC_STORE_USE_HUGEPAGE": Kind::Exactly("1");
    /// Memory node on which the memory lies that a store lends to the pool: a number, or "all" for all in turn.
    /// Empty is the node of the processor that touches it first.
    STORE_NODES = "MOONCAKE_TRANSFER_STORE_NUMA": Kind::Text("");
    /// Takes all of the memory that a store lends at once, instead of as the pool fills; fails where it is not there.
    STORE_PREFAULT = "MOONCAKE_TRANSFER_STORE_PREFAULT": Kind::Exactly("1");
    /// Lowest port of a store whose host name has none.
    STORE_MIN_PORT = "MC_STORE_CLIENT_MIN_PORT": number(12_300, 1024, 65_535, "port");
    /// Highest port of a store whose host name has none.
    STORE_MAX_PORT = "MC_STORE_CLIENT_MAX_PORT": number(14_300, 1024, 65_535, "port");
}

/// Variables that are known and have no effect here: group, names.
///
/// A name that ends in `*` stands for all names that begin so.
pub const SILENT: &[(&str, &[&str])] = &[
    (
        "upstream's TCP transport and metadata service, in parts that do not apply here",
        &[
            "MC_TCP_MAX_PENDING_ADMISSIONS_PER_PEER",
            "MC_TCP_ADMISSION_TIMEOUT_MS",
            "MC_TCP_SLICE_SIZE",
            "MC_SLICE_TIMEOUT",
            "MC_REDIS_USERNAME",
            "MC_REDIS_PASSWORD",
            "MC_REDIS_DB_INDEX",
            "MC_METADATA_SERVER",
        ],
    ),
    (
        "upstream's log files and metrics",
        &["MC_LOG_DIR", "MC_YLT_LOG_LEVEL", "MC_TE_METRIC", "MC_TE_METRIC_INTERVAL_SECONDS"],
    ),
    (
        "topology and other engines of upstream",
        &[
            "MC_CUSTOM_TOPO_JSON",
            "MC_TE_FILTERS",
            "MC_PATH_ROUNDROBIN",
            "MC_RPC_PROTOCOL",
            "MC_TE_RPC_CLIENT_IO_THREADS",
            "MC_RPC_CLIENT_IO_THREADS",
            "MC_USE_TENT",
            "MC_USE_TEV1",
            "MC_MS_AUTO_DISC",
            "MC_MS_FILTERS",
            "MC_MMAP_ARENA_POOL_SIZE",
            "MC_DISABLE_MMAP_ARENA",
            "MC_FILEREAD_WORKERS",
            "MC_STORE_*",
            "MOONCAKE_OFFLOAD_*",
            "MOONCAKE_SNAPSHOT_*",
            "MOONCAKE_STORE_*",
            "MOONCAKE_CLIENT_HTTP_PORT",
            "MOONCAKE_ENABLE_CLIENT_HTTP_SERVER",
        ],
    ),
    (
        "read by the Python package where there is no mooncake.json (mooncake.mooncake_config)",
        &[
            "MOONCAKE_MASTER",
            "MOONCAKE_PROTOCOL",
            "MOONCAKE_DEVICE",
            "MOONCAKE_TENANT_ID",
            "MOONCAKE_TE_META_DATA_SERVER",
            "MOONCAKE_LOCAL_HOSTNAME",
            "MOONCAKE_GLOBAL_SEGMENT_SIZE",
            "MOONCAKE_LOCAL_BUFFER_SIZE",
        ],
    ),
    (
        "upstream's RDMA, GPU and CXL transports",
        &[
            "MC_NUM_CQ_PER_CTX",
            "MC_NUM_COMP_CHANNELS_PER_CTX",
            "MC_IB_PORT",
            "MC_GID_INDEX",
            "MC_PKEY_INDEX",
            "MC_MAX_CQE_PER_CTX",
            "MC_MAX_EP_PER_CTX",
            "MC_NUM_QP_PER_EP",
            "MC_MAX_SGE",
            "MC_MAX_WR",
            "MC_MAX_INLINE",
            "MC_MTU",
            "MC_WORKERS_PER_CTX",
            "MC_SLICE_SIZE",
            "MC_FRAGMENT_RATIO",
            "MC_MAX_MR_SIZE",
            "MC_MIN_REG_SIZE",
            "MC_RETRY_CNT",
            "MC_AUTO_GID_MAX_RETRIES",
            "MC_CONN_PAUSE_TTL_MS",
            "MC_RDMA_*",
            "MC_IB_TC",
            "MC_IB_SL",
            "MC_IB_PCI_RELAXED_ORDERING",
            "MC_MLX5_*",
            "MC_ENDPOINT_STORE_TYPE",
            "MC_ENABLE_DEST_DEVICE_AFFINITY",
            "MC_ENABLE_HCA_PEER_AFFINITY",
            "MC_NIC_PEER_AFFINITY",
            "MC_LOG_RDMA_SLICE_AFFINITY",
            "MC_TRACK_RDMA_POSTED_SLICES",
            "MC_ENABLE_PARALLEL_REG_MR",
            "MC_MAX_CONCURRENT_REG_MR",
            "MC_EFA_*",
            "MC_FORCE_HCA",
            "MC_FORCE_MNNVL",
            "MC_INTRANODE_NVLINK",
            "MC_INTRA_NVLINK",
            "MC_USE_RDMA_TWOSIDED",
            "MC_CXL_DEV_PATH",
            "MC_CXL_DEV_SIZE",
            "MC_DISABLE_HIP",
            "MC_DISABLE_MACA",
            "MC_DISABLE_MUSA",
            "MC_HIP_*",
            "MC_MACA_*",
            "MC_MUSA_*",
            "MC_USE_HIP_IPC",
            "MC_USE_NVLINK_IPC",
            "MC_TANGRT_*",
        ],
    ),
    ("another program of that prefix (Midnight Commander)", &["MC_SID", "MC_TMPDIR", "MC_XDG_OPEN"]),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_name_stands_twice() {
        let mut seen = HashSet::new();
        let applied = APPLIED.iter().flat_map(|row| row.aliases.iter().chain([&row.name]));
        for name in applied.chain(SILENT.iter().flat_map(|(_, names)| names.iter())) {
            assert!(seen.insert(*name), "{name} stands twice");
        }
    }

    #[test]
    fn defaults_lie_in_their_ranges_and_meanings_are_sentences() {
        for row in APPLIED {
            assert!(row.meaning.ends_with('.'), "{}", row.name);
            if let Kind::Number { default, min, max, .. } = row.kind {
                assert!((min..=max).contains(&default), "{}", row.name);
            }
        }
    }
}
