//! The older one-sided family works alone, as release 8.2 has it.

mod support;

cases! { "older_family.c":
    /// Facts 2.4, point 7: limits, order of checks, own rank, exchange that nobody answers.
    parameters ("CANN_SIM_RELEASE" = "8.2"),
    /// Facts 2.3 and 2.5: HCCS; exchange twice, enable, disable, deregister.
    near ("CANN_SIM_RELEASE" = "8.2"),
    /// The same over RoCE.
    far ("CANN_SIM_RELEASE" = "8.2"),
    /// Facts 2.6: host memory over RoCE only.
    host_memory ("CANN_SIM_RELEASE" = "8.2"),
    /// A list without room.
    no_room ("CANN_SIM_RELEASE" = "8.2"),
}
