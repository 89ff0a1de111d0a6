//! Many processes share the NPUs of a server, and one that is killed leaves nothing behind.

mod support;

cases! { "load.c":
    /// Facts 2.4, point 5: put and get in both directions at once, over all eight NPUs.
    four_processes_with_two_devices_each,
    /// Facts 1.6, allocation: the device's memory is one account.
    several_processes_on_one_device ("CANN_SIM_HBM_SIZE" = "64M"),
    /// Facts 7.1: no file, no socket, no stuck peer.
    a_killed_process_leaves_nothing,
    /// Facts 7.1, peer death on HCCS; 2.4, point 6: destroying a communicator tells nobody.
    a_departed_peer_that_dies_is_noticed,
    /// Facts 2.4, point 4: 9 when a rank does not come to the end.
    a_peer_killed_while_it_prepares,
}
