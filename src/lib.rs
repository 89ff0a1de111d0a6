//! The safe core of mooncake-transfer: KV blocks between NPUs, one-sided.
//!
//! One [`engine::Engine`] is one *segment*: a name that peers open, memory that it registers, and transfers in
//! both directions. Everything else serves it. The C ABI (`ffi/`) and the tools stand on top; the vendor's
//! libraries are bound by the crate `cann-sys`, at run time and on first use; this crate knows neither C nor Python.
//!
//! # Data flow
//!
//! ```text
//!   caller's thread                    thread of the peer            worker of the channel        NPU
//!   ---------------                    ------------------            ---------------------        ---
//!   Engine::submit
//!     requests -> Submission (tasks)
//!     registry: pin local ranges
//!     groups by (peer, direction, device)
//!        |  peer ready, range known
//!        |------------------------------------------------.
//!        |  else                                           |
//!        '--> peer's queue --> connect, refresh once ------+
//!                                                          v
//!                              pin remote ranges, coalesce --> Job
//!                                                          |
//!               same process: transport::local             |  another process: transport::ascend
//!               (memcpy, aclrtMemcpyAsync)  <--------------+-----> channel of (device, peer device)
//!                                                                    <= 256 descriptors a call
//!                                                                    HcclBatchPut / HcclBatchGet --> HBM of the peer
//!                                                                    event per call
//!                                                                    extents_done -> tasks -> one wake a batch
//!   Engine::status: two atomic reads
//!   Engine::wait: a brief spin, then sleep
//! ```
//!
//! A transfer starts as a [`engine::Request`]. A submission reserves one task a request; entries are copied, and
//! nothing is allocated per request beyond the arrays of the call. Local memory is pinned on the caller's thread,
//! so that a range in flight cannot be unregistered. The remote range must lie in one buffer the peer has
//! published; a range the cached descriptor does not know makes one refresh, then an error. Requests that are
//! contiguous on both sides become one extent; a transport splits extents where the vendor needs it.
//!
//! What no link takes as it is (host memory and small ranges over HCCS, memory that nobody registered), and many small
//! blocks where that is allowed and faster, goes by way of slots: gathered into a piece of registered device memory,
//! sent in one descriptor, and scattered by the peer's agent; see [`transport::ascend::staged`]. Where launching
//! descriptors is what takes long, the peer's agent launches a part of them instead: [`plan::gain`] derives what either
//! gives.
//!
//! Host memory of another process goes by [`transport::host`] when that process has proven to run on this host (it
//! wrote a number of our choice on a board in its memory, and we found it there): memory of our own making
//! ([`memory::SharedMemory`]) is mapped and copied in user space, other memory is moved by the kernel, and every
//! access is counted on the board, so that a withdrawal knows its end even of a peer that stands still. Else it goes
//! by [`transport::tcp`], which speaks upstream's data protocol in both roles: that is how engines of ours and of
//! upstream mix. The published protocol is `tcp` with the host buffers; memory of devices stands in our own object
//! of the descriptor, so that no TCP peer reaches for it.
//!
//! The passive side of a one-sided access sees nothing. What it must know travels on the control connection, one
//! per pair of engines of ours: which communicator to make, and which memory is taken back.
//!
//! # The store
//!
//! A [`store::Store`] is a client of a master, which knows where objects are, on top of an engine, which moves them.
//! It may lend memory of its own: a sealed memfd that the engine registers, and that peers of the host map.
//!
//! ```text
//!   put:  BatchPutStart --> where each key may go --> one engine batch --> BatchPutEnd, or BatchPutRevoke of what failed
//!   get:  BatchGetReplicaList --> where each key is, and a lease --> one engine batch --> lease still good?
//! ```
//!
//! The calls go over a bounded pool of blocking connections ([`store`]'s `rpc`), in the layout of the release that the
//! master speaks. The heartbeat has a thread and a connection of its own. While a long read runs, its leases are taken
//! again; a read whose lease ran out is an error. A replica that cannot be read is followed by the next one.
//!
//! # Identity
//!
//! A peer is known by its segment name; the process behind it by its incarnation, a random number made with the
//! engine that stands in every descriptor and in the first frame of a control connection. Another incarnation
//! under the same name is another process: link, channels and cached descriptor go, one refresh is made.
//!
//! # Threads
//!
//! | thread | number | does |
//! |---|---|---|
//! | `mct-handshake` | one per engine | answers upstream's handshake: descriptors, notes, probes |
//! | `mct-control` | one per engine | reads and writes all control connections |
//! | `mct-control-N` | few per engine, bounded | serves what peers ask on the control connection |
//! | `mct-control-lost` | one per engine | tells the rest of the engine which peers were lost |
//! | `mct-resolve` | one per name looked up, bounded, briefly | asks the resolver, which knows no deadline |
//! | `mct-withdraw` | one per peer that is told, briefly | asks it to let go of memory and waits, bounded |
//! | `mct-peer NAME` | one per peer, while it has work | connects, refreshes, sends notes |
//! | `mct-npu-N` | one per device and process | registers memory, with the device bound |
//! | `mct-channel-N` | one per channel | makes, feeds, completes and ends one communicator |
//! | `mct-ascend` | one per engine that uses NPUs | ends jobs whose deadline passes before their channel is there |
//! | `mct-staged` | up to four per peer that is staged to, bounded | gathers, waits for wire and agent, scatters |
//! | `mct-agent-N` | up to four per device, once a peer stages | copies between lent slots and memory for peers |
//! | `mct-refresh` | one per engine that is told to refresh | asks for all peers' descriptors again |
//! | `mct-entry` | one per engine that has a metadata service | looks whether the service still knows the engine, and tells it again |
//! | `mct-copy-N` | few per engine | copies of the local transport |
//! | `mct-copy-npuN` | one per device whose memory is copied inside the process | queues copies on a stream of its own |
//! | `mct-host-N` | few per engine | copies between processes of one host, above what a caller's thread does itself |
//! | `mct-bounce-N` | up to four per peer, sixteen per engine | copies between a device and a peer's host memory, piece by piece |
//! | `mct-huge` | one per engine, while registered memory becomes huge pages | asks the kernel for one after another |
//! | `mct-heartbeat` | one per store | tells the master that this client lives, and mounts its segments again |
//! | `mct-unmap` | one per large mapping that ends, briefly | gives its pages back to the kernel, which takes long |
//! | `mct-data-N` | one to four per engine | the data listener and every TCP lane, those we serve and those we opened |
//!
//! A channel has a worker of its own, rather than a submit and a completion thread per device: a vendor call that
//! hangs on a dead peer then stalls that channel and nothing else. The price is a sleeping thread per channel.
//!
//! # Lock order
//!
//! Locks are short and none is held across I/O, a vendor call or a callback, with one exception that the vendor
//! forces: the process-wide lock around the making of a communicator. Where two are held, the order is: engine's
//! table of NPUs, then the table of peers, then a peer's state, then segments, then boards, then a registry, then channels (map,
//! slot, channel, device regions; see [`transport::ascend`]), then a batch's gate, then notes and metrics. A TCP
//! lane's state comes before its peer's queue, and what a lane has finished is reported after both are let go. A lane
//! holds its own lock while it uses its socket, which never blocks.
//!
//! # Invariants
//!
//! - When a call returns, nothing it started writes memory any more; otherwise the caller keeps the handle
//!   ([`error::Code::StillRunning`]) and the ranges stay locked.
//! - A range with transfers in flight, ours or a peer's of ours, cannot be unregistered. The end of an engine is the
//!   withdrawal of all that it has: it waits, bounded, for peers and for other engines of the process.
//! - Every wait has a deadline; every queue, cache and retry a named bound.
//! - A dead peer costs only what is for that peer. Uses of a peer that just failed fail at once, for a bounded time.
//! - Nothing a remote side sends is used as an address, length or count before it is checked.
//! - The environment is read in [`config`] and nowhere else; an error is an [`error::Error`] and nothing else.
//! - `unsafe` stands in `memory` and `transport::ascend::raw` only.
//!
//! # Bounds
//!
//! Nothing grows with what a peer sends or a caller forgets. Each bound is a constant with its reason beside it, or
//! a variable of [`config::table`] (sessions, notes and batches by number, every time limit). What exceeds one is
//! refused with [`error::Code::TooManyRequests`], or the oldest of its kind goes; nothing waits without a deadline.
//!
//! | what is bounded | where | constant |
//! |---|---|---|
//! | batches of an engine | `batch/table.rs` | `MAX_BATCHES` |
//! | requests of a batch | `batch/record.rs` | `MAX_TASKS_PER_BATCH` |
//! | work of a batch that who waits for it may do | `batch/record.rs` | `MAX_HELP` |
//! | registered ranges of an engine | `registry/table.rs` | `MAX_REGIONS` |
//! | pins of one range | `registry/region.rs` | `MAX_PINS` |
//! | memory borrowed from other engines of the process | `engine/borrowed.rs` | `MAX_BORROWED` |
//! | batches of other engines on an engine's memory, before a pruning | `engine/guests.rs` | `FIRST_PRUNING` |
//! | withdrawn ranges of a peer, one by one | `engine/withdrawn.rs` | `MAX_WITHDRAWN` |
//! | open segments | `segment/table.rs` | `MAX_SEGMENTS` |
//! | a descriptor that is read | `segment/codec.rs` | `MAX_DESCRIPTOR_BYTES` |
//! | buffers of a descriptor | `segment/codec.rs` | `MAX_BUFFERS` |
//! | notes that wait | `notify.rs` | `MAX_WAITING_BYTES` |
//! | submissions that wait for one peer | `peer/worker.rs` | `QUEUE_CAP` |
//! | pause after failed attempts at a peer | `peer/state.rs` | `BACK_OFF_CAP` |
//! | name lookups at a time | `endpoint.rs` | `MAX_LOOKUPS` |
//! | bytes that handshake clients hold | `handshake/listener.rs` | `MAX_HELD_BYTES` |
//! | body of a control frame | `control/frame.rs` | `MAX_BODY_BYTES` |
//! | first frame of a stranger | `control/frame.rs` | `MAX_HELLO_BYTES` |
//! | strangers at a time | `control/pump.rs` | `MAX_GREETINGS` |
//! | bytes that control connections hold | `control/pump.rs` | `MAX_HELD_BYTES` |
//! | messages held back beside a slowed software NPU | `control/delay.rs` | `MAX_HELD_FRAMES` |
//! | bytes queued to one peer | `control/connection.rs` | `MAX_QUEUED_BYTES` |
//! | answers queued beyond that | `control/connection.rs` | `RESERVED_ANSWER_BYTES` |
//! | questions to one peer without answer | `control/connection.rs` | `MAX_WAITING_REQUESTS` |
//! | questions of one peer that are served | `control/connection.rs` | `MAX_SERVED_REQUESTS` |
//! | threads that serve peers | `control/workers.rs` | `MAX_THREADS` |
//! | control connections | `control/peers.rs` | `MAX_PEERS` |
//! | bytes of one extent | `plan/extent.rs` | `MAX_EXTENT_BYTES` |
//! | descriptors of one vendor call | `plan/extent.rs` | `MAX_EXTENTS_PER_CALL` |
//! | a file of costs | `plan/cost_table.rs` | `MAX_TABLE_BYTES` |
//! | copies of one batched call | `transport/ascend/raw/batch.rs` | `MAX_BATCH_COPIES` |
//! | vendor calls in flight on a channel | `transport/ascend/session.rs` | `WINDOW` |
//! | channels of an engine | `transport/ascend/channels.rs` | `CHANNEL_LIMIT` |
//! | threads that make or run channels | `transport/ascend/workers.rs` | `WORKER_LIMIT` |
//! | pieces of one peer that are staged at once | `transport/ascend/staged/route.rs` | `LANES_PER_ROUTE` |
//! | threads that stage | `transport/ascend/staged/mod.rs` | `LANE_LIMIT` |
//! | blocks of one piece | `transport/ascend/staged/work.rs` | `MAX_PIECE_BLOCKS` |
//! | peers' requests that wait for a slot | `transport/ascend/staged/agent.rs` | `MAX_WAITING` |
//! | threads that copy for peers | `transport/ascend/staged/agent.rs` | `AGENT_THREADS` |
//! | orders of one peer to put or get | `transport/ascend/staged/agent.rs` | `ORDERS_PER_PEER` |
//! | orders of all peers to put or get | `transport/ascend/staged/agent.rs` | `MAX_ORDERS` |
//! | vendor registrations of a device | `transport/ascend/registration.rs` | `REGION_COUNT_LIMIT` |
//! | calls that wait for a device's thread | `transport/ascend/device.rs` | `SERVICE_QUEUE_LIMIT` |
//! | requests in flight on a TCP lane | `transport/tcp/lane/mod.rs` | `MAX_REQUESTS` |
//! | event loops of the TCP transport | `transport/tcp/reactor.rs` | `MAX_LOOPS` |
//! | bytes copied between two looks at a stop | `memory/copy.rs` | `MAX_CHUNK_BYTES` |
//! | threads of an engine that copy host memory, by way | `transport/copier/mod.rs` | `THREAD_LIMIT` |
//! | the same of copies by way of slots, which wait for peers | `transport/copier/mod.rs` | `WAITING_THREAD_LIMIT` |
//! | peers of one host that use an engine's memory | `transport/host/board.rs` | `MAX_BOARDS` |
//! | boards that a peer has asked for and not begun to use | `transport/host/board.rs` | `MAX_UNUSED` |
//! | ranges that such a peer may use | `transport/host/layout.rs` | `MAX_RANGES` |
//! | huge pages in a row that the kernel does not make | `engine/huge_pages.rs` | `MAX_FAILURES` |
//! | times that memory is looked at again for huge pages | `engine/huge_pages.rs` | `MAX_AGAIN` |
//! | pieces of a peer's shared memory that are mapped | `transport/host/peer.rs` | `MAX_IMPORTED` |
//! | connections of a store to its master | `store/rpc/mod.rs` | `MAX_CONNECTIONS` |
//! | addresses of masters | `store/rpc/mod.rs` | `MAX_MASTERS` |
//! | sendings of a call to the master | `store/rpc/mod.rs` | `MAX_SENDS` |
//! | keys of a call to the master | `store/put.rs` | `MAX_KEYS_PER_CALL` |
//! | attempts to write a value | `store/put.rs` | `PUT_ATTEMPTS` |
//! | attempts to get space in a full pool | `store/put.rs` | `FULL_RETRIES` |
//! | endpoints of a pool remembered as failed | `store/transfer.rs` | `MAX_SUSPECTS` |
//! | transfers of a store that could not be made quiet | `store/transfer.rs` | `MAX_STUCK` |
//! | segments of a store | `store/segments.rs` | `MAX_SEGMENTS` |
//! | failures that the log tells apart | `report.rs` | `MAX_SITES` |
#![deny(unsafe_code)]

pub mod batch;
pub mod config;
pub mod control;
pub mod deadline;
pub mod endpoint;
pub mod engine;
pub mod error;
pub mod handshake;
#[expect(
    unsafe_code,
    reason = "copies between addresses that callers vouch for; the obligations are its own"
)]
pub mod memory;
pub mod metadata;
pub mod metrics;
pub mod notify;
pub mod peer;
pub mod plan;
pub mod registry;
pub mod report;
pub mod segment;
pub mod store;
mod sync;
pub mod topology;
pub mod transport;
