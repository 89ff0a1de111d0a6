//! Memory is shared between processes as the vendor shares it: by key, and by handle.

mod support;

cases! { "sharing.c":
    /// Facts 1.6, sharing: keys, pids, what an import can be used for, the order of closing.
    keys,
    /// Facts 1.4: export without pids, import that enables access.
    open_keys,
    /// Facts 1.4: the import flag came with 8.3.
    keys_before_8_3 ("CANN_SIM_RELEASE" = "8.2"),
    /// Nothing of a killed exporter is left to find.
    a_dead_exporter,
    /// Facts 1.2 and 1.6, VMM.
    mapping,
    /// Facts 1.4: host memory by its NUMA node.
    host_physical_memory,
    /// Facts 1.6, VMM handles.
    handles,
}
