//! Test: every prototype of the headers is the type of the Rust function behind it, and no export lacks one.
//!
//! The C side is read from the headers with typedefs resolved; the Rust side is the type of the function,
//! turned into the same C text by traits. A changed argument on either side makes the texts differ.

use std::collections::BTreeMap;
use std::ffi::{c_char, c_int, c_void};

use crate::abi::{
    BufferEntry, ErrorRecord, LogSink, NicLoadStat, NotifyMessage, Options, ReplicateConfig, StoreOptions,
    StoreReplication, TransferRequest, TransferStatus,
};
use crate::store::{catalog, code as store_code, objects, upstream};
use crate::*;

const HEADERS: [&str; 3] = [
    include_str!("../../include/transfer_engine_c.h"),
    include_str!("../../include/store_c.h"),
    include_str!("../../include/mooncake_transfer.h"),
];

/// A type's C text.
trait CType {
    fn name() -> String;
}

macro_rules! c_type {
    ($($rust:ty => $c:literal),* $(,)?) => {
        $(impl CType for $rust { fn name() -> String { $c.to_owned() } })*
    };
}

c_type! {
    () => "void",
    c_void => "void",
    c_char => "char",
    c_int => "int32_t",
    u32 => "uint32_t",
    i64 => "int64_t",
    u64 => "uint64_t",
    usize => "size_t",
    TransferRequest => "struct transfer_request",
    TransferStatus => "struct transfer_status",
    NotifyMessage => "struct notify_msg",
    BufferEntry => "struct buffer_entry",
    NicLoadStat => "struct nic_load_stat",
    Options => "struct mooncake_transfer_options",
    ErrorRecord => "struct mooncake_transfer_error",
    LogSink => "mooncake_transfer_log_sink_t",
    ReplicateConfig => "struct mooncake_replicate_config",
    StoreOptions => "struct mooncake_transfer_store_options",
    StoreReplication => "struct mooncake_transfer_store_replication",
}

impl<T: CType> CType for *mut T {
    fn name() -> String {
        format!("{}*", T::name())
    }
}

impl<T: CType> CType for *const T {
    fn name() -> String {
        format!("const {}*", T::name())
    }
}

/// A function's C text, without its name.
trait CFunction {
    fn prototype(&self) -> String;
}

macro_rules! c_function {
    ($($argument:ident)*) => {
        impl<$($argument: CType,)* Return: CType> CFunction
            for unsafe extern "C" fn($($argument),*) -> Return
        {
            fn prototype(&self) -> String {
                let arguments: Vec<String> = vec![$($argument::name()),*];
                format!("{}({})", Return::name(), arguments.join(","))
            }
        }
    };
}

c_function!();
c_function!(A);
c_function!(A B);
c_function!(A B C);
c_function!(A B C D);
c_function!(A B C D E);
c_function!(A B C D E F);
c_function!(A B C D E F G);
c_function!(A B C D E F G H);
c_function!(A B C D E F G H I);
c_function!(A B C D E F G H I J);

/// Every export with its type.
fn exports() -> BTreeMap<&'static str, String> {
    macro_rules! table {
        ($($module:ident::$function:ident: fn($($argument:tt),*),)*) => {
            BTreeMap::from([$((
                stringify!($function),
                ($module::$function as unsafe extern "C" fn($(table!(@any $argument)),*) -> _).prototype(),
            )),*])
        };
        (@any $argument:tt) => { _ };
    }
    table! {
        engine::createTransferEngine: fn(_, _, _, _, _),
        engine::destroyTransferEngine: fn(_),
        engine::discoverTopology: fn(_),
        engine::getLocalIpAndPort: fn(_, _, _),
        engine::mooncake_transfer_create: fn(_, _),
        engine::mooncake_transfer_session_name: fn(_, _, _),
        engine::mooncake_transfer_probe: fn(_, _),
        engine::mooncake_transfer_set_log: fn(_, _, _),
        transport::installTransport: fn(_, _, _),
        transport::uninstallTransport: fn(_, _),
        transport::mooncake_transfer_use_protocol: fn(_, _),
        segment::openSegment: fn(_, _),
        segment::openSegmentNoCache: fn(_, _),
        segment::closeSegment: fn(_, _),
        segment::removeLocalSegment: fn(_, _),
        segment::syncSegmentCache: fn(_),
        segment::mooncake_transfer_first_buffer_address: fn(_, _, _),
        no_effect::warmupEfaSegment: fn(_, _),
        no_effect::getNicLoadStats: fn(_, _, _),
        buffer::registerLocalMemory: fn(_, _, _, _, _),
        buffer::unregisterLocalMemory: fn(_, _),
        buffer::registerLocalMemoryBatch: fn(_, _, _, _),
        buffer::unregisterLocalMemoryBatch: fn(_, _, _),
        batch::allocateBatchID: fn(_, _),
        batch::submitTransfer: fn(_, _, _, _),
        batch::submitTransferWithNotify: fn(_, _, _, _, _),
        batch::getTransferStatus: fn(_, _, _, _),
        batch::freeBatchID: fn(_, _),
        batch::mooncake_transfer_submit: fn(_, _, _, _, _),
        batch::mooncake_transfer_wait: fn(_, _, _),
        batch::mooncake_transfer_cancel: fn(_, _),
        batch::mooncake_transfer_run: fn(_, _, _, _, _),
        lists::mooncake_transfer_submit_lists: fn(_, _, _, _, _, _, _, _, _, _),
        lists::mooncake_transfer_run_lists: fn(_, _, _, _, _, _, _, _, _, _),
        notification::getNotifsFromEngine: fn(_, _),
        notification::freeNotifsMsgBuf: fn(_, _),
        notification::genNotifyInEngine: fn(_, _, _),
        report::showLinks: fn(_, _, _, _),
        report::mooncake_transfer_counters: fn(_, _, _, _),
        report::mooncake_transfer_topology: fn(_, _, _, _),
        graceful::enableGracefulShutdown: fn(_),
        version::mooncake_transfer_version: fn(),
        code::mooncake_transfer_code_name: fn(_),
        last_error::mooncake_transfer_last_error: fn(_),
        last_error::mooncake_transfer_clear_error: fn(),
        last_error::mooncake_transfer_task_error: fn(_, _, _, _),
        upstream::mooncake_store_create: fn(),
        upstream::mooncake_store_destroy: fn(_),
        upstream::mooncake_store_setup: fn(_, _, _, _, _, _, _, _),
        upstream::mooncake_store_init_all: fn(_, _, _, _),
        upstream::mooncake_store_health_check: fn(_),
        upstream::mooncake_store_put: fn(_, _, _, _, _),
        upstream::mooncake_store_put_from: fn(_, _, _, _, _),
        upstream::mooncake_store_batch_put_from: fn(_, _, _, _, _, _, _),
        upstream::mooncake_store_get_into: fn(_, _, _, _),
        upstream::mooncake_store_batch_get_into: fn(_, _, _, _, _, _),
        upstream::mooncake_store_is_exist: fn(_, _),
        upstream::mooncake_store_batch_is_exist: fn(_, _, _, _),
        upstream::mooncake_store_get_size: fn(_, _),
        upstream::mooncake_store_get_hostname: fn(_, _, _),
        upstream::mooncake_store_remove: fn(_, _, _),
        upstream::mooncake_store_remove_by_regex: fn(_, _, _),
        upstream::mooncake_store_remove_all: fn(_, _),
        upstream::mooncake_store_register_buffer: fn(_, _, _),
        upstream::mooncake_store_unregister_buffer: fn(_, _),
        store::mooncake_transfer_store_setup: fn(_, _),
        store::mooncake_transfer_store_close: fn(_),
        store::mooncake_transfer_store_drain: fn(_, _, _),
        store_code::mooncake_transfer_store_code_name: fn(_),
        store_code::mooncake_transfer_store_code_text: fn(_),
        objects::mooncake_transfer_store_put: fn(_, _, _, _, _, _, _, _, _, _),
        objects::mooncake_transfer_store_get: fn(_, _, _, _, _, _, _, _, _),
        objects::mooncake_transfer_store_get_ranges: fn(_, _, _, _, _, _, _, _, _),
        catalog::mooncake_transfer_store_exist: fn(_, _, _, _, _),
        catalog::mooncake_transfer_store_sizes: fn(_, _, _, _, _),
        catalog::mooncake_transfer_store_remove: fn(_, _, _, _, _, _),
        catalog::mooncake_transfer_store_clear: fn(_, _, _, _, _, _),
        catalog::mooncake_transfer_store_replicas: fn(_, _, _, _, _, _, _),
    }
}

/// The header without comments and preprocessor lines.
fn code_of(header: &str) -> String {
    let mut code = String::new();
    let mut rest = header;
    while let Some(start) = rest.find("/*") {
        code.push_str(&rest[..start]);
        let end = rest[start..].find("*/").expect("a comment is closed");
        rest = &rest[start + end + 2..];
    }
    code.push_str(rest);
    code.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n")
}

/// The C type of a declaration such as `const char *name`, with typedefs resolved; `name` is dropped.
fn c_type(declaration: &str) -> String {
    let spaced = declaration.replace('*', " * ");
    let mut words: Vec<&str> = spaced.split_whitespace().collect();
    if words.len() > 1 && words.last().is_some_and(|word| *word != "*") {
        let plain = ["int", "void", "char", "const", "struct"];
        if words.len() > 2 || !plain.contains(&words[0]) || !plain.contains(&words[1]) {
            words.pop();
        }
    }
    let resolved = words.into_iter().map(|word| match word {
        "int" | "segment_id_t" | "segment_handle_t" => "int32_t",
        "batch_id_t" => "uint64_t",
        "transfer_engine_t" | "transport_t" | "mooncake_store_t" => "void *",
        "mooncake_replicate_config_t" => "struct mooncake_replicate_config",
        "notify_msg_t" => "struct notify_msg",
        "buffer_entry_t" => "struct buffer_entry",
        "nic_load_stat_t" => "struct nic_load_stat",
        other => other,
    });
    resolved.collect::<Vec<_>>().join(" ").replace(" *", "*")
}

/// Every prototype of the headers.
fn declared() -> BTreeMap<String, String> {
    let mut prototypes = BTreeMap::new();
    for header in HEADERS {
        for statement in code_of(header).split(';') {
            let statement = statement.rsplit(['{', '}']).next().unwrap().trim();
            if statement.starts_with("typedef") {
                continue;
            }
            let Some((head, arguments)) = statement.split_once('(') else { continue };
            let name_start = head.rfind([' ', '*']).map_or(0, |position| position + 1);
            let (result, name) = head.split_at(name_start);
            let arguments = arguments.trim_end_matches(')');
            let arguments: Vec<String> =
                if arguments == "void" { Vec::new() } else { arguments.split(',').map(c_type).collect() };
            let result = c_type(&format!("{result} x"));
            prototypes.insert(name.to_owned(), format!("{result}({})", arguments.join(",")));
        }
    }
    prototypes
}

#[test]
fn prototypes_are_the_types_of_the_functions() {
    let exports: BTreeMap<String, String> =
        exports().into_iter().map(|(name, prototype)| (name.to_owned(), prototype)).collect();
    assert_eq!(declared(), exports);
}

#[test]
fn upstreams_functions_are_all_there() {
    let declared = declared();
    let ours = |name: &&String| name.starts_with("mooncake_transfer_");
    let of_the_store = |name: &&String| name.starts_with("mooncake_store_");
    assert_eq!(declared.keys().filter(of_the_store).count(), 19);
    assert_eq!(declared.keys().filter(|name| !ours(name) && !of_the_store(name)).count(), 27);
}
