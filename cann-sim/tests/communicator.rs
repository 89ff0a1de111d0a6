//! Registration, communicators and one-sided calls keep the vendor's rules and error numbers.

mod support;

cases! { "communicator.c":
    /// Facts 2.4, points 2 and 3.
    registration,
    /// Facts 2.2 and 2.4, point 1.
    initialisation,
    /// Facts 3: rank table 1.0, limits and forms of its values.
    rank_table_values,
    /// Facts 2.2.
    traffic_class_counts_when_it_connects,
    /// Facts 2.4, point 4 (bounds of the variable).
    connect_timeout_is_checked ("HCCL_CONNECT_TIMEOUT" = "60"),
    /// Facts 2.4, point 5.
    calls_are_checked_in_order,
    /// Facts 2.4, point 5 (partial submission).
    an_error_leaves_the_descriptors_before_it,
    /// Facts 2.4, point 4 and 2.6.
    hccs_wants_huge_aligned_device_memory,
    /// Facts 2.4, point 4.
    prepare_times_out,
    /// Facts 2.4, point 1 (the name is part of the meeting).
    other_names_do_not_meet,
    /// Facts 7.1, peer death on HCCS.
    a_dead_peer_fails_hccs_tasks,
    /// Facts 7.1 and 8.5, peer death on RoCE.
    a_dead_peer_hangs_roce_tasks,
    /// Facts 2.4, point 5 (the notify's timeout) and 8.5.
    a_roce_task_fails_after_the_execution_timeout ("HCCL_EXEC_TIMEOUT" = "1"),
    /// A killed process leaves nothing that stops the next one.
    a_killed_process_can_come_back,
    /// Many communicators; what they take they give back.
    a_thousand_communicators,
}
