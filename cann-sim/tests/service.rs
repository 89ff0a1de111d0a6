//! The runtime's services around streams and memory behave as the vendor's do.

mod support;

cases! { "service.c":
    /// Facts 1.6: callbacks on a subscribed thread, 107015 without one.
    callbacks,
    /// Facts 1.6: an abort stops the running task, a waiting callback too.
    an_abort_ends_the_wait_for_a_callback,
    /// Facts 1.6: which chips abort streams.
    chips_without_abort ("CANN_SIM_SOC" = "Ascend310P3"),
    /// Facts 2.5: PCIe pairs answer 5, with 1.4 for the bits of the topology.
    pcie_pairs ("CANN_SIM_PCIE_PAIRS" = "1-0,2-3"),
    /// Facts 1.2: copies of rows; the deprecated copy that insists on pinned memory.
    copies_of_rows,
    /// Facts 1.6: HostRegister and HostRegisterV2.
    host_registration,
    /// Facts 1.2: the further allocation calls.
    other_allocations,
    /// Facts 1.5: 107022.
    device_abort,
    /// Facts 1.2 and 1.4: StreamStop, StreamGetId, GetDevicesTopo.
    stream_stop_and_ids,
    /// Facts 1.4, topology bits.
    a3_topology ("CANN_SIM_SOC" = "Ascend910_9392"),
    /// Facts 7.2 (ii) and 10.
    out_of_scope ("CANN_SIM_RELEASE" = "9.2"),
}
