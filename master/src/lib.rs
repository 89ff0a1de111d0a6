//! The master: the metadata service of the pool, on upstream's wire.
//!
//! It knows who lends memory, which object lies where and who may read it; the bytes themselves go from client to
//! client and never come here.
//!
//! ```text
//!   upstream's and our clients          people, Prometheus, SGLang
//!             | coro_rpc (wire)                  | HTTP
//!            rpc                               admin
//!              \                                 /
//!               +----------- state -------------+        time is an argument: nothing in there sleeps
//!                    |               |
//!                 metrics         journal ---- files
//! ```
//!
//! - `flags`: the command line and configuration file in upstream's syntax.
//! - `rpc`: one task per connection; frames in, frames out; what changed is journalled before it is answered.
//! - `state`: every rule about clients, segments, objects, leases and eviction. Its lock order stands there.
//! - `journal`: what survives a restart, and why no byte that was overwritten is ever served.
//! - `admin`: the HTTP server and, if wanted, the embedded metadata server of the transfer engine.
//! - `service`: binds the ports and starts the upkeep.
//! - `stripe`: counters and names that all threads touch in every call, without their waiting for each other.
//!
//! Threads: `mm-rpc-N` (connections, each with the thread it was given to), `mm-long` (calls that look at every object,
//! and waiting for the disk), `mm-http` (HTTP, accepting), `mm-upkeep` (eviction, liveness, every 10 ms), `mm-compaction`.
//!
//! # Where it differs from upstream's master
//!
//! `tests/calls_beside_upstream.rs` and `tests/beside_upstream.rs` make the same calls, requests and failing starts at
//! both, which answer alike. On purpose it is otherwise here that
//!
//! - a put on a full pool evicts within its call and tries again before it answers -200; upstream evicts some ten
//!   milliseconds later, and the puts until then fail;
//! - liveness has steps before the end: a client whose last connection closed is in doubt, one that is silent for two
//!   fifths of `--client_ttl` is suspect; see `state::pool`. Readers are told of replicas in doubt last;
//! - a segment that joins a running pool gets its share of new objects over `--segment_ramp`, not all of them at once;
//! - the metadata of objects has a budget (`--metadata_budget`), and its memory goes back to the system;
//! - a restart keeps the cache, with `--journal_dir`; see `journal`;
//! - looking by `/query_key` grants no lease, and the detail of a segment says whether it is suspect and how long an
//!   object may be;
//! - `--port` counts also beside `--config_path`, where upstream binds a random port;
//! - patterns are those of the crate `regex`: with back references or look-around the answer is -600;
//! - a key has at most 64 KiB, and an object 64 replicas;
//! - functions of features that are not here are refused with upstream's code (`rpc::unavailable`), and flags that turn
//!   such a feature on by name; `--help` marks those that have no effect.
//!
//! Metrics have upstream's names and kinds where upstream has them. Ours are `master_metadata_bytes`, `_budget_bytes` and
//! `_bytes_per_object`; `master_open_connections`, `master_connections_{accepted,refused}_total`;
//! `master_clients_{doubted,suspected,expired}_total`; `master_release_mismatches_total`;
//! `master_evictions_in_put_total`; `master_objects_restored_total`, `master_journal_{bytes,failed}`; and requests and
//! failures of every function. Each has its sentence on the page.
//!
//! # Bounds
//!
//! Nothing grows with what a peer sends. The lengths of messages are bounded in `mooncake_wire::limits`.
//!
//! | what is bounded | where | constant |
//! |---|---|---|
//! | connections | `rpc/mod.rs` | `MAX_CONNECTIONS` |
//! | time of a short frame, and of a short answer | `rpc/mod.rs` | `FRAME_TIMEOUT` |
//! | bytes that all connections hold | `rpc/mod.rs` | `MAX_HELD_BYTES` |
//! | answers of a pipeline before they are written | `rpc/connection.rs` | `ANSWER_BYTES` |
//! | clients that are remembered of a connection | `rpc/connection.rs` | `MAX_CLIENTS_PER_CONNECTION` |
//! | long calls of a thread at a time | `rpc/workers.rs` | `LONG_CALLS` |
//! | segments | `state/pool.rs` | `MAX_SEGMENTS` |
//! | clients | `state/pool.rs` | `MAX_CLIENTS` |
//! | connections that are remembered of a client | `state/pool.rs` | `MAX_CONNECTIONS_PER_CLIENT` |
//! | bytes of a key | `state/put.rs` | `MAX_KEY_BYTES` |
//! | replicas of an object | `state/put.rs` | `MAX_REPLICAS` |
//! | evictions of one put | `state/put.rs` | `MAX_EVICTIONS_PER_PUT` |
//! | metadata budget that a batch takes for granted at a time | `state/put.rs` | `MAX_ROOM_BYTES` |
//! | names that are tried for a replica | `state/choose.rs` | `MAX_PROBES` |
//! | bytes of a compiled pattern | `state/read.rs` | `MAX_PATTERN_BYTES` |
//! | bytes of a journal's record | `journal/record.rs` | `MAX_PAYLOAD_BYTES` |
//! | length of a journal over what is alive | `journal/file.rs` | `COMPACT_RATIO` |
//! | keys of the embedded metadata server | `admin/metadata.rs` | `MAX_ENTRIES` |
//! | bytes of a key of it | `admin/metadata.rs` | `MAX_KEY_BYTES` |
//! | bytes of a body of it | `admin/metadata.rs` | `MAX_BODY_BYTES` |
//! | flag files in flag files | `flags/parse.rs` | `MAX_FILE_DEPTH` |

pub mod admin;
pub mod flags;
pub mod journal;
pub mod logging;
pub mod memory;
pub mod metrics;
pub mod moment;
pub mod policy;
pub mod rpc;
pub mod service;
pub mod state;
mod stripe;
