//! Allocation, addresses and copies behave as the vendor's do.

mod support;

cases! { "memory.c":
    /// Facts 1.6, allocation.
    allocation_rules,
    /// Facts 1.6, allocation: 207001.
    out_of_memory ("CANN_SIM_HBM_SIZE" = "64M"),
    /// Facts 7.1: a host dereference faults.
    host_code_cannot_touch_device_memory,
    /// Facts 1.6, attributes and host registration.
    attributes,
    /// Facts 1.6, attributes, and 8.11: a driver that does not know memory of the program.
    attributes_of_an_old_driver ("CANN_SIM_OLD_DRIVER" = "1"),
    /// Facts 1.6, copies.
    synchronous_copies,
    /// Facts 10, relay.
    wild_host_addresses_answer_an_error,
    /// Facts 1.6, copies.
    asynchronous_copies,
    /// Facts 1.6, copies.
    copies_between_devices_need_peer_access,
    /// Facts 1.6, batches.
    batch_copies,
}
