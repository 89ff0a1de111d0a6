//! Every flag: name, kind, default, whether it is offered, and what it is for.

/// What a flag's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// true or false; `--name` and `--noname`.
    Bool,
    /// A whole number.
    Int,
    /// A whole number that is not negative.
    UInt,
    /// A number.
    Float,
    /// Anything.
    Text,
    /// Milliseconds, or a number with ms, s, m or h.
    Duration,
    /// Bytes, or a number with k, m, g or t.
    Size,
}

impl Kind {
    /// Name of the kind in `--help`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int => "int64",
            Self::UInt => "uint64",
            Self::Float => "double",
            Self::Text | Self::Duration | Self::Size => "string",
        }
    }
}

/// Whether a flag does something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It does what it says.
    Offered,
    /// It has no effect here; said if it is set.
    NoEffect,
    /// It turns something on that is not offered; the master does not start with it.
    Refused,
}

/// A flag.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// Its name, without dashes.
    pub name: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// Its default.
    pub default: &'static str,
    /// Whether it does something.
    pub support: Support,
    /// What it is for.
    pub help: &'static str,
}

const fn flag(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    support: Support,
    help: &'static str,
) -> Flag {
    Flag { name, kind, default, support, help }
}

/// Every flag, upstream's first, ours last.
pub const FLAGS: &[Flag] = &[
    flag("port", Kind::Int, "50051", Support::Offered, "RPC port; rpc_port wins over it"),
    flag("rpc_port", Kind::Int, "0", Support::Offered, "RPC port; 0 takes --port"),
    flag(
        "max_threads",
        Kind::Int,
        "16",
        Support::Offered,
        "most RPC threads; the number of cores if that is less",
    ),
    flag("rpc_thread_num", Kind::Int, "0", Support::Offered, "RPC threads; 0 takes --max_threads"),
    flag(
        "rpc_address",
        Kind::Text,
        "0.0.0.0",
        Support::Offered,
        "address the RPC server binds; :: for both families",
    ),
    flag(
        "rpc_interface",
        Kind::Text,
        "",
        Support::Offered,
        "network interface whose IPv4 address is bound in place of --rpc_address",
    ),
    flag(
        "rpc_conn_timeout_seconds",
        Kind::Int,
        "0",
        Support::Offered,
        "idle connections are closed after this many seconds; 0: never",
    ),
    flag("rpc_enable_tcp_no_delay", Kind::Bool, "true", Support::Offered, "send small answers at once"),
    flag("config_path", Kind::Text, "", Support::Offered, "configuration file, .yaml, .yml or .json"),
    flag(
        "cluster_id",
        Kind::Text,
        "mooncake_cluster",
        Support::NoEffect,
        "name of the cluster in shared stores",
    ),
    flag("pod_name", Kind::Text, "", Support::NoEffect, "name of the pod"),
    flag("pod_namespace", Kind::Text, "", Support::NoEffect, "namespace of the pod"),
    flag(
        "enable_metric_reporting",
        Kind::Bool,
        "true",
        Support::Offered,
        "log a line of numbers every ten seconds",
    ),
    flag("metrics_port", Kind::Int, "9003", Support::Offered, "port of the admin and metrics HTTP server"),
    flag(
        "metrics_host",
        Kind::Text,
        "0.0.0.0",
        Support::Offered,
        "address of the admin and metrics HTTP server; :: for both families",
    ),
    flag("log_dir", Kind::Text, "", Support::Offered, "write the log to a file in this directory"),
    flag(
        "logtostderr",
        Kind::Bool,
        "false",
        Support::Offered,
        "log to stderr, which is what happens without --log_dir",
    ),
    flag("alsologtostderr", Kind::Bool, "false", Support::Offered, "log to stderr as well as to --log_dir"),
    flag(
        "minloglevel",
        Kind::Int,
        "0",
        Support::Offered,
        "0 logs everything, 1 warnings and errors, 2 errors",
    ),
    flag("v", Kind::Int, "0", Support::Offered, "above 0: log details"),
    flag("vmodule", Kind::Text, "", Support::NoEffect, "details by module"),
    flag("max_log_size", Kind::UInt, "1800", Support::NoEffect, "size of a log file in MB"),
    flag("logbufsecs", Kind::Int, "30", Support::NoEffect, "seconds a log line may be buffered; none is"),
    flag("logbuflevel", Kind::Int, "0", Support::NoEffect, "level up to which lines are buffered; none is"),
    flag("stderrthreshold", Kind::Int, "2", Support::NoEffect, "level from which lines go to stderr as well"),
    flag("colorlogtostderr", Kind::Bool, "false", Support::NoEffect, "colours on stderr"),
    flag("log_prefix", Kind::Bool, "true", Support::NoEffect, "time and place before each line"),
    flag("log_link", Kind::Text, "", Support::NoEffect, "further directory for links to the log"),
    flag(
        "stop_logging_if_full_disk",
        Kind::Bool,
        "false",
        Support::NoEffect,
        "stop logging when the disk is full",
    ),
    flag(
        "timestamp_in_logfile_name",
        Kind::Bool,
        "true",
        Support::NoEffect,
        "time in the name of the log file",
    ),
    flag("alsologtoemail", Kind::Text, "", Support::NoEffect, "send the log by mail as well"),
    flag("logemaillevel", Kind::Int, "999", Support::NoEffect, "level from which lines are sent by mail"),
    flag("logmailer", Kind::Text, "/bin/mail", Support::NoEffect, "program that sends the mail"),
    flag("logfile_mode", Kind::Int, "436", Support::NoEffect, "permissions of the log file"),
    flag("drop_log_memory", Kind::Bool, "true", Support::NoEffect, "do not cache the log file"),
    flag("log_backtrace_at", Kind::Text, "", Support::NoEffect, "place whose lines come with a backtrace"),
    flag("symbolize_stacktrace", Kind::Bool, "true", Support::NoEffect, "names in backtraces"),
    flag("tab_completion_columns", Kind::Int, "80", Support::NoEffect, "width of completions in a shell"),
    flag("tab_completion_word", Kind::Text, "", Support::NoEffect, "word that a shell completes"),
    flag(
        "default_kv_lease_ttl",
        Kind::Duration,
        "10000",
        Support::Offered,
        "how long a read protects an object",
    ),
    flag("default_kv_soft_pin_ttl", Kind::Duration, "1800000", Support::Offered, "how long a soft pin holds"),
    flag(
        "max_kv_soft_pin_ttl",
        Kind::Duration,
        "86400000",
        Support::Offered,
        "longest soft pin a client may ask for",
    ),
    flag(
        "allow_evict_soft_pinned_objects",
        Kind::Bool,
        "true",
        Support::Offered,
        "evict soft-pinned objects when nothing else is left",
    ),
    flag(
        "eviction_ratio",
        Kind::Float,
        "0.05",
        Support::Offered,
        "fraction of the objects one eviction takes; 0: never for a put",
    ),
    flag(
        "eviction_high_watermark_ratio",
        Kind::Float,
        "0.90",
        Support::Offered,
        "fill above which eviction runs by itself",
    ),
    flag(
        "client_ttl",
        Kind::Int,
        "10",
        Support::Offered,
        "seconds of silence after which a client is expired",
    ),
    flag(
        "put_start_discard_timeout_sec",
        Kind::UInt,
        "30",
        Support::Offered,
        "age in seconds after which an unfinished put may be replaced",
    ),
    flag(
        "put_start_release_timeout_sec",
        Kind::UInt,
        "600",
        Support::Offered,
        "age in seconds after which the space of an unfinished put is used again",
    ),
    flag(
        "memory_allocator",
        Kind::Text,
        "offset",
        Support::Offered,
        "offset; cachelib is accepted and is the same here",
    ),
    flag(
        "allocation_strategy",
        Kind::Text,
        "random",
        Support::Offered,
        "random, free_ratio_first or local_first",
    ),
    flag(
        "nof_eviction_ratio",
        Kind::Float,
        "0.05",
        Support::NoEffect,
        "fraction one eviction of NVMe over fabrics takes",
    ),
    flag(
        "nof_eviction_high_watermark_ratio",
        Kind::Float,
        "0.90",
        Support::NoEffect,
        "fill of NVMe over fabrics",
    ),
    flag("nof_heartbeat_interval_sec", Kind::Int, "10", Support::NoEffect, "heartbeat of NVMe over fabrics"),
    flag(
        "nof_heartbeat_probe_timeout_ms",
        Kind::Int,
        "1000",
        Support::NoEffect,
        "probe of NVMe over fabrics",
    ),
    flag(
        "nof_heartbeat_failures_threshold",
        Kind::Int,
        "3",
        Support::NoEffect,
        "failures of NVMe over fabrics",
    ),
    flag("enable_offload", Kind::Bool, "false", Support::Refused, "offload objects to local disks"),
    flag("offload_on_evict", Kind::Bool, "false", Support::Refused, "offload at eviction"),
    flag("offload_force_evict", Kind::Bool, "false", Support::Refused, "evict what is offloaded"),
    flag("promotion_on_hit", Kind::Bool, "false", Support::Refused, "bring objects back from disk"),
    flag("offloading_queue_limit", Kind::UInt, "50000", Support::NoEffect, "queue of offloads"),
    flag("offload_cap_ratio", Kind::Float, "0.5", Support::NoEffect, "share of offloads"),
    flag("promotion_admission_threshold", Kind::UInt, "2", Support::NoEffect, "hits before promotion"),
    flag("promotion_queue_limit", Kind::UInt, "50000", Support::NoEffect, "queue of promotions"),
    flag("promotion_max_per_heartbeat", Kind::UInt, "1", Support::NoEffect, "promotions a heartbeat"),
    flag("dynamic_replication_mode", Kind::Text, "off", Support::Refused, "copies of hot objects"),
    flag("dynamic_replication_heat_window_seconds", Kind::Int, "10", Support::NoEffect, "window of heat"),
    flag(
        "dynamic_replication_admission_qps_threshold",
        Kind::Float,
        "0.8",
        Support::NoEffect,
        "heat of a copy",
    ),
    flag(
        "dynamic_replication_max_memory_replicas",
        Kind::Int,
        "2",
        Support::NoEffect,
        "copies of a hot object",
    ),
    flag("root_fs_dir", Kind::Text, "", Support::Refused, "shared file system for replicas on disk"),
    flag(
        "global_file_segment_size",
        Kind::Int,
        "9223372036854775807",
        Support::NoEffect,
        "size of the shared file system",
    ),
    flag("enable_disk_eviction", Kind::Bool, "true", Support::NoEffect, "eviction of files"),
    flag("quota_bytes", Kind::UInt, "0", Support::NoEffect, "size of files"),
    flag("enable_ha", Kind::Bool, "false", Support::Refused, "several masters with a leader"),
    flag("ha_backend_type", Kind::Text, "etcd", Support::NoEffect, "where the leader is elected"),
    flag("ha_backend_connstring", Kind::Text, "", Support::NoEffect, "address of that"),
    flag("etcd_endpoints", Kind::Text, "", Support::NoEffect, "the same, for etcd"),
    flag("enable_oplog", Kind::Bool, "false", Support::Refused, "replicate changes to a standby"),
    flag("oplog_poll_interval_ms", Kind::UInt, "1000", Support::NoEffect, "poll of the standby"),
    flag("oplog_batch_max_entries", Kind::UInt, "1024", Support::NoEffect, "batch of the standby"),
    flag("batch_oplog_retry_timeout_sec", Kind::UInt, "180", Support::NoEffect, "retry of the standby"),
    flag(
        "enable_snapshot",
        Kind::Bool,
        "false",
        Support::Refused,
        "snapshots; this master has --journal_dir",
    ),
    flag(
        "enable_snapshot_restore",
        Kind::Bool,
        "false",
        Support::Refused,
        "start from a snapshot; this master has --journal_dir",
    ),
    flag("snapshot_interval_seconds", Kind::UInt, "600", Support::NoEffect, "time between snapshots"),
    flag("snapshot_child_timeout_seconds", Kind::UInt, "300", Support::NoEffect, "time a snapshot may take"),
    flag("snapshot_retention_count", Kind::UInt, "2", Support::NoEffect, "snapshots that are kept"),
    flag("snapshot_backup_dir", Kind::Text, "", Support::NoEffect, "directory of snapshots"),
    flag("snapshot_object_store_type", Kind::Text, "", Support::NoEffect, "store of snapshots"),
    flag("snapshot_catalog_store_type", Kind::Text, "", Support::NoEffect, "catalogue of snapshots"),
    flag("snapshot_catalog_store_connstring", Kind::Text, "", Support::NoEffect, "address of the catalogue"),
    flag("snapshot_payload_store_type", Kind::Text, "", Support::NoEffect, "store of snapshots, old name"),
    flag("snapshot_payload_backend_type", Kind::Text, "", Support::NoEffect, "store of snapshots, old name"),
    flag(
        "snapshot_catalog_backend_type",
        Kind::Text,
        "",
        Support::NoEffect,
        "catalogue of snapshots, old name",
    ),
    flag(
        "snapshot_catalog_backend_connstring",
        Kind::Text,
        "",
        Support::NoEffect,
        "address of the catalogue, old name",
    ),
    flag("enable_kv_events", Kind::Bool, "false", Support::Refused, "publish events of keys"),
    flag("kv_events_bind_endpoint", Kind::Text, "", Support::NoEffect, "where events are published"),
    flag("kv_events_backend_id", Kind::Text, "", Support::NoEffect, "name in events"),
    flag("kv_events_emit_legacy_compat", Kind::Bool, "true", Support::NoEffect, "old form of events"),
    flag("kv_events_emit_object_key", Kind::Bool, "true", Support::NoEffect, "keys in events"),
    flag("kv_events_queue_capacity", Kind::UInt, "65536", Support::NoEffect, "queue of events"),
    flag("kv_events_model_name", Kind::Text, "", Support::NoEffect, "ignored by upstream as well"),
    flag("kv_events_tenant_id", Kind::Text, "default", Support::NoEffect, "ignored by upstream as well"),
    flag("kv_events_additional_salt", Kind::Text, "", Support::NoEffect, "ignored by upstream as well"),
    flag("kv_events_lora_name", Kind::Text, "", Support::NoEffect, "ignored by upstream as well"),
    flag("kv_events_block_size", Kind::Int, "0", Support::NoEffect, "ignored by upstream as well"),
    flag("kv_events_dp_rank", Kind::Int, "0", Support::NoEffect, "ignored by upstream as well"),
    flag("enable_multi_tenants", Kind::Bool, "false", Support::Refused, "tenants with quotas"),
    flag("tenant_quota_connector_type", Kind::Text, "file", Support::NoEffect, "where quotas are"),
    flag("tenant_quota_connector_uri", Kind::Text, "", Support::NoEffect, "address of quotas"),
    flag(
        "enable_http_metadata_server",
        Kind::Bool,
        "false",
        Support::Offered,
        "serve the transfer engine's metadata over HTTP",
    ),
    flag("http_metadata_server_port", Kind::Int, "8080", Support::Offered, "port of that server"),
    flag("http_metadata_server_host", Kind::Text, "0.0.0.0", Support::Offered, "address of that server"),
    flag(
        "enable_metadata_cleanup_on_timeout",
        Kind::Bool,
        "false",
        Support::Refused,
        "delete an expired client's metadata from that server",
    ),
    flag("enable_cxl", Kind::Bool, "false", Support::Refused, "CXL memory"),
    flag("cxl_path", Kind::Text, "/dev/dax0.0", Support::NoEffect, "CXL device"),
    flag("cxl_size", Kind::UInt, "8589934592", Support::NoEffect, "CXL size"),
    flag("max_total_finished_tasks", Kind::UInt, "10000", Support::NoEffect, "finished tasks that are kept"),
    flag("max_total_pending_tasks", Kind::UInt, "10000", Support::NoEffect, "tasks that wait"),
    flag("max_total_processing_tasks", Kind::UInt, "10000", Support::NoEffect, "tasks that run"),
    flag("pending_task_timeout_sec", Kind::UInt, "300", Support::NoEffect, "time a task may wait"),
    flag("processing_task_timeout_sec", Kind::UInt, "300", Support::NoEffect, "time a task may run"),
    flag("max_retry_attempts", Kind::UInt, "10", Support::NoEffect, "tries of a task"),
    flag("use_mmap_arena_allocator", Kind::Bool, "false", Support::NoEffect, "arena of the client"),
    flag("mmap_arena_pool_size", Kind::UInt, "8589934592", Support::NoEffect, "size of that arena"),
    // Ours.
    flag(
        "wire_profile",
        Kind::Text,
        "auto",
        Support::Offered,
        "release that is spoken: auto, 0.3.13 or 0.3.11; auto takes what each call shows",
    ),
    flag(
        "journal_dir",
        Kind::Text,
        "",
        Support::Offered,
        "keep a journal here, so that a restart keeps the cache",
    ),
    flag(
        "journal_sync",
        Kind::Bool,
        "false",
        Support::Offered,
        "sync the journal before each answer, so that it is good after a crash of the host",
    ),
    flag(
        "journal_wait",
        Kind::Duration,
        "600000",
        Support::Offered,
        "how long objects of the journal wait for their segment",
    ),
    flag(
        "metadata_budget",
        Kind::Size,
        "0",
        Support::Offered,
        "bytes the metadata of objects may take; 0: unlimited",
    ),
    flag(
        "segment_ramp",
        Kind::Duration,
        "30000",
        Support::Offered,
        "time in which a segment that joins a running pool gets its full share",
    ),
];
