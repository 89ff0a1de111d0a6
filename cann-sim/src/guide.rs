//! How to use the software NPU for a CANN program of one's own, what it is faithful in and what not.
//!
//! # Use
//!
//! ```text
//! cargo build --release -p cann-sim
//! LD_LIBRARY_PATH=target/release/cann-sim ./my_cann_program
//! ```
//!
//! Nothing else is needed: eight Ascend910B3 with 64 GiB each, as CANN 8.5. The program is built against the vendor's
//! headers or its own declarations, and linked against the libraries in that directory or the real ones, or loads
//! them by `dlopen`. Processes of one user see one set of NPUs and can build communicators with each other;
//! `CANN_SIM_NAMESPACE` separates sets. `cann-sim-control` starts programs in a place of a topology (`run`), disturbs
//! them while they run (`fault`), and says what they called (`calls`, `log`) and how much memory they hold
//! (`memory`) and how long they kept resources (`cost`). The variables stand in [`settings`](crate::settings), the topology file in
//! [`config_file`](crate::config_file), faults in [`fault`](crate::fault).
//!
//! | question | where to look |
//! |---|---|
//! | my call fails, why? | `aclGetRecentErrMsg` has a sentence after every failure, on the same thread |
//! | does my code touch device memory? | it dies of `SIGSEGV` at that line |
//! | does it survive a dead peer, a late copy, no memory? | `cann-sim-control fault` or `CANN_SIM_FAULTS` |
//! | does it run on an older CANN? | `CANN_SIM_RELEASE=8.2` (8.1 to 9.2): symbols and libraries of that release only |
//! | does it work on A3? | `CANN_SIM_SOC=Ascend910_9392` |
//! | how long would it take on an A2 or A3? | `CANN_SIM_PROFILE=a2-hccs CANN_SIM_SLOWDOWN=20`; see [`cost`](crate::cost) |
//! | does a debugger, valgrind, a sanitizer work? | yes, the libraries are ordinary ones; see Limits |
//!
//! # An example
//!
//! A program on the vendor's names alone, `examples/one_sided.cpp`; a test builds and runs it.
//!
#![doc = "```cpp"]
#![doc = include_str!("../examples/one_sided.cpp")]
#![doc = "```"]
//!
//! # What is faithful
//!
//! Rules and numbers, as far as the vendor's headers, open sources and released programs tell them; each has a test
//! that names its section of the project's fact sheet, and `tests/coverage.txt` lists them.
//!
//! - Contexts are thread-local, streams first in first out and asynchronous, events have the inverted status;
//!   timeouts leave work going, an abort drops it, failures stop a context where that was asked for.
//! - Device memory has the vendor's alignment, padding and pages, is accounted over all processes, and is out of
//!   reach of host code. Copies check addresses, kinds and limits; what cannot be asynchronous blocks.
//! - Registration, communicators and preparation check what HCCL checks, in its order. Memory is frozen at prepare.
//!   Puts and gets run in the initiator's process alone; an error leaves the descriptors before it on the stream.
//! - The link follows from rank table and environment; HCCS wants huge aligned device memory, RoCE takes host memory.
//! - Libraries and symbols are those of the release posed as; prototypes and layouts are compared with the vendor's
//!   own headers by a test.
//!
//! `cann-probe` asks an installed CANN the same questions and tells where it answers otherwise: on the software NPU
//! nothing differs, on hardware `cann-probe --markdown` prints a text for an issue.
//!
//! # What is not
//!
//! - **Time**, unless a profile is chosen: copies take what this machine takes, a launch costs nothing. With a profile,
//!   what [`cost`](crate::cost) says that it claims.
//! - **Kernels, collectives, graphs, notifications between devices.** The functions that programs want to exist do,
//!   and answer 207000 (ACL) or 5 (HCCL). There is no arithmetic on device memory.
//! - **What nobody outside knows.** How RoCE fails after its retries (here the stream waits until its timeout), what
//!   an imported address is to `aclrtPointerGetAttributes`, whether a communicator is good after an abort: the model
//!   takes one answer, the fact sheet says that it is inferred, and a case of `cann-probe` asks.
//! - **Numbers that are inferred**, each marked so where it is answered: 15 for a communicator without a current device;
//!   5 for another topology than full mesh; 3 on the side whose own device is full (13 on its peer is known); 107017
//!   for a context that never was or has ended; 107023 for a wait on an event whose record an abort dropped; 507899
//!   from an old driver's `aclrtPointerGetAttributes`; 500000 for a task that fails by a defect of ours. Also that a
//!   registered range may reach to the end of the last page of what was asked for, and not into the padding.
//! - **Pairs of chips.** Inside a server A2 chips are joined by HCCS, or by PCIe where `CANN_SIM_PCIE_PAIRS` says so.
//!   The two dies of an A3 package are told as SIO by `aclrtGetDevicesTopo` and linked as any pair of a super pod; SIO
//!   pairs of other chips cannot be posed.
//! - **Callbacks** (`aclrtLaunchCallback`) that do not block count as done when they are handed to their thread: an
//!   abort does not call them back. One that blocks and has not begun goes with the abort.
//! - **The text of errors.** Numbers are the vendor's, sentences are ours, except for phrases that programs search.
//! - **The order of bytes inside one copy**, atomicity, and caches: memory here is coherent.
//! - **Network.** Addresses of NPUs are compared, not used; both ends are on this machine. Several servers are places
//!   of one topology file on it.
//!
//! # Programs that are known to load
//!
//! - **Upstream's released NPU wheel** (`mooncake-transfer-engine-npu` 0.3.13.post1, x86-64, the newest that the package
//!   index has): its `ascend_transport.so`, `libtransfer_engine.so` and `libmooncake_store.so` name `libascendcl.so`
//!   and HIXL's `libllm_datadist.so` and `libmetadef.so` as what they need. Every function of CANN that any of its
//!   libraries leaves undefined exists here as release 8.5, 9.0 and 9.2, and the unmodified `ascend_transport.so` loads
//!   with all symbols resolved at once (test `upstream_wheel`). HIXL's two libraries belong to a CANN installation and
//!   to HIXL's own build; no package index has them. The test gives the loader libraries with the names of HIXL's
//!   classes and no more, so the wheel *loads* there and does not transfer.
//! - **HIXL 9.0 and 9.2**: no built release of it can be had without a CANN installation, and building it needs the
//!   vendor's toolkit. What stands in for it: a test that every name it resolves exists (`releases`), and a C++ program
//!   that makes its calls in its order, the communicator path with synchronous, asynchronous and relayed transfers,
//!   on one and on two servers, as 9.0, as 9.2 and as the wheel (`hixl_sequences`).
//! - **torch-npu**'s headers compile against our declarations (`conformance`); torch-npu itself needs operators, which
//!   do not exist here.
//!
//! # Limits
//!
//! - 64-bit Linux with memfd seals (3.17 or later) on x86-64 or aarch64; a C compiler to build.
//! - Memory is committed when first written; the sum over all NPUs must fit this machine.
//! - A RoCE peer's ordinary host memory is reached by `process_vm_readv`: the kernel must permit that between the two
//!   processes (same user, `ptrace_scope`). Pinned memory needs no permission.
//! - 256 processes share one set of NPUs and 256 fault rules can count over all of them; `cann-sim-control log` has the
//!   latest 8192 calls of a process.
//! - CANN's state does not survive `fork`: fork before the first call, as on hardware.
//! - Under valgrind only small devices fit (`CANN_SIM_HBM_SIZE=64M`); AddressSanitizer is fine with the defaults, but a
//!   fault on device memory is then its report instead of a plain signal.
//! - At most 1984 streams and 65536 events a device, 256 descriptors a put or get, 4096 items a batch copy: the
//!   vendor's limits, kept.
