//! Cards, ports and initialisations behave as the vendor's do when something else is going on.

mod support;

cases! { "contention.c":
    /// Facts 2.4 point 5 and 8.9: work requests that an abort does not stop.
    roce_goes_on_after_an_abort ("CANN_SIM_FAULTS" = "link=slow:8M"),
    /// The same: what does stop them.
    destroying_the_communicator_stops_the_card ("CANN_SIM_FAULTS" = "link=slow:8M"),
    /// The same: a destroyed communicator has no queue pair.
    a_destroyed_communicator_moves_nothing,
    /// Facts 1.6: an abort stops the running task.
    hccs_stops_at_an_abort ("CANN_SIM_FAULTS" = "link=slow:8M"),
    /// Facts 2.4 point 4 and 2.5: 19.
    ports_clash,
    /// Facts 2.4 point 4: the remedy.
    a_port_range_avoids_the_clash ("HCCL_NPU_SOCKET_PORT_RANGE" = "auto"),
    /// Facts 2.4 point 1: transient 7.
    initialisations_collide ("CANN_SIM_INIT_EXCLUSIVE_MS" = "300"),
    /// Facts 2.5 and 3: A3 with rank table 1.2.
    super_pods ("CANN_SIM_SOC" = "Ascend910_9392"),
    /// Facts 3: `super_device_id`.
    super_device_ids_matter ("CANN_SIM_SOC" = "Ascend910_9392"),
    /// Facts 1.6 (double registration) and 2.6.
    memory_the_card_refuses,
    /// Facts 2.4 point 4: 13.
    a_full_peer ("CANN_SIM_HBM_SIZE" = "64M"),
}
