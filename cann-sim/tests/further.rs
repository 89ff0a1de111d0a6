//! Functions beside the main path behave as the vendor's do.

mod support;

cases! { "further.c":
    /// Facts 1.2, errors.
    last_error_is_the_threads,
    /// Facts 1.2, device and context.
    device_as_a_whole,
    /// Facts 1.6, device ids.
    ids_both_ways (
        "CANN_SIM_PHYSICAL_IDS" = "4,5,6,7",
        "ASCEND_RT_VISIBLE_DEVICES" = "1,3",
        "CANN_SIM_RELEASE" = "9.1"
    ),
    /// Facts 1.4, event statuses.
    events_of_the_older_kind,
    /// Facts 1.2, streams.
    a_stream_gives_up_waiting_for_an_event,
    /// Facts 1.6, copies between devices.
    peer_access_can_be_taken_back,
    /// Facts 1.6, batches on a stream.
    batches_on_a_stream ("CANN_SIM_RELEASE" = "9.1"),
    /// Facts 1.2, version matrix.
    address_ranges ("CANN_SIM_RELEASE" = "9.1"),
    /// Facts 2.4, point 8.
    memory_can_be_registered_with_the_card_again,
    /// Facts 1.2 and 1.6, sharing on A3.
    sharing_inside_a_super_pod ("CANN_SIM_SOC" = "Ascend910_9392", "CANN_SIM_RELEASE" = "9.0"),
    /// The same on A2.
    sharing_between_servers_needs_a3 ("CANN_SIM_RELEASE" = "9.0"),
    /// Facts 7.2: what is out of scope exists.
    out_of_scope,
}
