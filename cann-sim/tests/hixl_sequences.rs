//! The call sequences of HIXL 9.0 and 9.2 and of upstream's NPU wheel work, call by call (facts 10), from C++.

#[macro_use]
mod support;

/// Each release, chip and link in a module of its own, because one program's cases serve them all.
mod release_9_2 {
    cases! { "hixl_sequences.cpp":
        /// Facts 10: contexts as slots, the flag; HCCS.
        near ("CANN_SIM_RELEASE" = "9.2"),
        /// The same over RoCE, host memory too.
        far ("CANN_SIM_RELEASE" = "9.2"),
        /// Facts 5 and 10: the wheel's local copies.
        local_copies ("CANN_SIM_RELEASE" = "9.2"),
        /// Facts 5: the store's fabric memory.
        fabric_memory ("CANN_SIM_RELEASE" = "9.2", "CANN_SIM_SOC" = "Ascend910_9392"),
    }
}

mod release_9_0 {
    cases! { "hixl_sequences.cpp":
        /// Facts 10: a stream of its own, events.
        near ("CANN_SIM_RELEASE" = "9.0"),
        /// The same over RoCE.
        far ("CANN_SIM_RELEASE" = "9.0"),
    }
}

mod a3 {
    cases! { "hixl_sequences.cpp":
        /// Facts 10: device attributes, rank table 1.2; one server.
        near ("CANN_SIM_RELEASE" = "9.2", "CANN_SIM_SOC" = "Ascend910_9392"),
        /// Two servers of one super pod: still HCCS.
        far ("CANN_SIM_RELEASE" = "9.2", "CANN_SIM_SOC" = "Ascend910_9392"),
    }
}

mod intra_roce {
    cases! { "hixl_sequences.cpp":
        /// Facts 2.5: RoCE inside one server.
        near ("CANN_SIM_RELEASE" = "9.2", "HCCL_INTRA_ROCE_ENABLE" = "1"),
    }
}
