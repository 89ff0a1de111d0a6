//! Devices, contexts, streams and events behave as the vendor's do.

mod support;

cases! { "runtime.c":
    /// Facts 1.6, device/context.
    context_is_thread_local,
    /// Facts 1.6, device/context.
    default_context_is_shared_and_counted,
    /// Facts 1.6, device/context.
    explicit_contexts,
    /// Facts 1.6, device ids.
    device_ids ("CANN_SIM_PHYSICAL_IDS" = "4,5,6,7", "ASCEND_RT_VISIBLE_DEVICES" = "1,3"),
    /// Facts 1.2 and 1.5.
    initialise_twice,
    /// Facts 1.6, streams.
    streams_are_fifo_and_asynchronous,
    /// Facts 1.6, streams.
    sync_timeout_leaves_the_work_going,
    /// Facts 1.6, streams.
    abort_drops_the_queue_and_tells_waiters,
    /// Facts 1.4 and 1.6, events.
    events,
    /// Facts 1.6, failure mode.
    stop_on_failure,
    /// Facts 1.6, limits.
    ten_thousand_streams_and_events,
}
