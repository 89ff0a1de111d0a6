//! Variables of upstream's NPU transports that cannot have their effect here, each with the reason and what serves in
//! its place.
//!
//! They are refused by name, once per process, when they ask for something: a value that asks for what is so anyway
//! is taken without a word. Nothing fails because of them.

use super::variable::Warning;

/// Variables that are refused for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Their names; one that ends in `*` stands for all names that begin so.
    pub names: &'static [&'static str],
    /// Values that ask for nothing else than what is so anyway.
    pub harmless: &'static [&'static str],
    /// Why, and what to use in its place.
    pub reason: &'static str,
}

/// Every variable that is refused.
pub const REFUSED: &[Refused] = &[
    Refused {
        names: &["ASCEND_BASE_PORT"],
        harmless: &[],
        reason: "there is no listener for each NPU; the control connections of all NPUs share the port that \
                 MOONCAKE_TRANSFER_CONTROL_PORT sets, else one of the range MC_MIN_RPC_PORT to MC_MAX_RPC_PORT",
    },
    Refused {
        names: &["ASCEND_USE_ASYNC_TRANSFER"],
        harmless: &["1"],
        reason: "every transfer is asynchronous here",
    },
    Refused {
        names: &["ASCEND_USE_SHORT_CONNECTION"],
        harmless: &["0"],
        reason: "channels between NPUs are kept: making one takes longer than most transfers; idle ones end when \
                 another is needed",
    },
    Refused {
        names: &["ASCEND_AUTO_CONNECT"],
        harmless: &["1"],
        reason: "channels are always made on first use, and again after a failure",
    },
    Refused {
        names: &["ASCEND_BUFFER_POOL"],
        harmless: &["0:0"],
        reason: "memory that a link does not take goes through a ring of slots; MOONCAKE_TRANSFER_STAGED_SLOTS and \
                 MOONCAKE_TRANSFER_STAGED_SLOT_BYTES set it",
    },
    Refused {
        names: &["ASCEND_THREAD_POOL_SIZE"],
        harmless: &[],
        reason: "every channel has one thread of its own, so that a peer that hangs delays nobody else",
    },
    Refused {
        names: &["ASCEND_LOCAL_COMM_RES"],
        harmless: &[],
        reason: "the place of an NPU in the rank table is found out; MOONCAKE_TRANSFER_SERVER_ID, \
                 MOONCAKE_TRANSFER_CHANNEL_DEVICE_PORT and MOONCAKE_TRANSFER_HCCN_CONF change it",
    },
    Refused {
        names: &["ASCEND_GLOBAL_RESOURCE_CONFIG"],
        harmless: &["{}"],
        reason: "it has the settings of the vendor's ADXL engine, which is not used here",
    },
    Refused {
        names: &["ASCEND_ENABLE_USE_FABRIC_MEM"],
        harmless: &["0"],
        reason: "fabric memory is not used; device memory goes over HCCS or RoCE",
    },
    Refused {
        names: &[
            "ASCEND_TRANSPORT_TRANSFER_MAX_RETRY_COUNT",
            "ASCEND_TRANSPORT_TRANSFER_ENABLE_FAST_RECOVERY",
        ],
        harmless: &["0"],
        reason: "a transfer that failed is reported and never repeated in secret; the next one makes a new channel",
    },
    Refused {
        names: &["ASCEND_TRANSPORT_MAX_REG_MEMORY_NUM"],
        harmless: &[],
        reason: "an NPU takes 4096 regions, and one more is an error of the registration",
    },
    Refused {
        names: &["ASCEND_TRANSPORT_EPOLL_WAIT_TIMEOUT"],
        harmless: &[],
        reason: "no thread wakes up without something to do",
    },
    Refused {
        names: &["Ascend_TCP_TIMEOUT", "Ascend_HCCL_SOCKET_TIMEOUT", "Ascend_TRANSPORT_MEM_TIMEOUT"],
        harmless: &[],
        reason: "one limit holds for all steps of making a channel: ASCEND_CONNECT_TIMEOUT, in milliseconds",
    },
    Refused {
        names: &["MC_UBSHMEM_*", "MC_USE_UBSHMEM_IPC"],
        harmless: &[],
        reason: "the transport over shared NPU memory (protocol \"ubshmem\") is not offered; the protocol \"ascend\" is",
    },
];

/// Whether a name is refused.
#[must_use]
pub fn is_refused(name: &str) -> bool {
    REFUSED.iter().flat_map(|refused| refused.names).any(|known| matches(known, name))
}

/// What of `variables` is refused, in the order of the table.
#[must_use]
pub fn refused(variables: &[(String, String)]) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for refused in REFUSED {
        for (name, value) in variables {
            let asked = refused.names.iter().any(|known| matches(known, name));
            if asked && !refused.harmless.contains(&value.trim()) {
                warnings.push(Warning::new(name, value, format!("has no effect: {}", refused.reason)));
            }
        }
    }
    warnings
}

fn matches(known: &str, name: &str) -> bool {
    match known.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => known == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::table::APPLIED;

    /// Every variable that upstream's NPU transports read, with a value that asks for something.
    const UPSTREAM: &[(&str, &str)] = &[
        ("ASCEND_BASE_PORT", "21000"),
        ("ASCEND_CONNECT_TIMEOUT", "77"),
        ("ASCEND_TRANSFER_TIMEOUT", "77"),
        ("ASCEND_USE_ASYNC_TRANSFER", "yes"),
        ("ASCEND_USE_SHORT_CONNECTION", "1"),
        ("ASCEND_AUTO_CONNECT", "0"),
        ("ASCEND_BUFFER_POOL", "4:8"),
        ("ASCEND_THREAD_POOL_SIZE", "8"),
        ("ASCEND_LOCAL_COMM_RES", "{\"version\":\"1.3\"}"),
        ("ASCEND_GLOBAL_RESOURCE_CONFIG", "{\"store\":{}}"),
        ("ASCEND_RDMA_TC", "100"),
        ("ASCEND_RDMA_SL", "3"),
        ("HCCL_RDMA_TC", "100"),
        ("HCCL_RDMA_SL", "3"),
        ("HCCL_INTRA_ROCE_ENABLE", "1"),
        ("ASCEND_ENABLE_USE_FABRIC_MEM", "1"),
        ("ASCEND_AGGREGATE_ENABLE", "1"),
        ("ASCEND_TRANSPORT_PRINT", "1"),
        ("ASCEND_TRANSPORT_TRANSFER_TIMEOUT", "77"),
        ("ASCEND_TRANSPORT_TRANSFER_MAX_RETRY_COUNT", "2"),
        ("ASCEND_TRANSPORT_TRANSFER_ENABLE_FAST_RECOVERY", "1"),
        ("ASCEND_TRANSPORT_MAX_REG_MEMORY_NUM", "100"),
        ("ASCEND_TRANSPORT_EPOLL_WAIT_TIMEOUT", "10"),
        ("Ascend_TCP_TIMEOUT", "30"),
        ("Ascend_HCCL_SOCKET_TIMEOUT", "30"),
        ("Ascend_TRANSPORT_MEM_TIMEOUT", "120"),
        ("MC_UBSHMEM_THREAD_POOL_SIZE", "8"),
        ("MC_UBSHMEM_MAX_STREAMS", "8"),
        ("MC_UBSHMEM_STREAMS_PER_TRANSFER", "8"),
        ("MC_UBSHMEM_GET_STREAM_TIMEOUT", "8"),
        ("MC_USE_UBSHMEM_IPC", "1"),
    ];

    #[test]
    fn every_variable_of_upstreams_npu_transports_has_its_effect_or_is_refused_by_name() {
        for (name, value) in UPSTREAM {
            let given = Config::from_lookup(&|asked| (asked == *name).then(|| (*value).to_owned())).0;
            let warnings = refused(&[((*name).to_owned(), (*value).to_owned())]);
            if given == Config::default() {
                assert_eq!(warnings.len(), 1, "{name} has neither an effect nor a reason");
                let text = warnings[0].to_string();
                assert!(text.starts_with(*name) && text.contains("has no effect: "), "{text}");
            } else {
                assert!(warnings.is_empty(), "{name} has an effect and is refused");
            }
        }
    }

    #[test]
    fn what_is_so_anyway_is_taken_without_a_word() {
        for (name, value) in [
            ("ASCEND_USE_ASYNC_TRANSFER", "1"),
            ("ASCEND_USE_SHORT_CONNECTION", "0"),
            ("ASCEND_AUTO_CONNECT", "1"),
            ("ASCEND_BUFFER_POOL", "0:0"),
            ("ASCEND_ENABLE_USE_FABRIC_MEM", "0"),
            ("PATH", "/bin"),
        ] {
            assert!(refused(&[(name.to_owned(), value.to_owned())]).is_empty(), "{name}");
        }
    }

    #[test]
    fn nothing_is_both_applied_and_refused() {
        for row in APPLIED {
            for name in row.aliases.iter().chain([&row.name]) {
                assert!(!is_refused(name), "{name}");
            }
        }
    }
}
