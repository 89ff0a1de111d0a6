//! Cost profiles charge what hardware takes, in model time, over all processes.
//!
//! The whole published sweep is met by the reservations alone (a unit test of `cost::charge`); here vendor calls are
//! timed on the model's clock, which leaves out what the machine adds, so that a loaded machine does not matter.

mod support;

cases! { "cost.c":
    /// Facts 6, A2 RoCE.
    descriptors_over_roce ("CANN_SIM_PROFILE" = "a2-roce", "CANN_SIM_SLOWDOWN" = "400"),
    /// Facts 6, A3 HCCS in one node.
    descriptors_over_hccs ("CANN_SIM_PROFILE" = "a3-hccs", "CANN_SIM_SLOWDOWN" = "3000"),
    /// Facts 7.1, cost model: tokens per device port and direction.
    processes_share_a_port ("CANN_SIM_PROFILE" = "a3-roce", "CANN_SIM_SLOWDOWN" = "100", "CANN_SIM_SOC" = "Ascend910B3"),
    /// Facts 6, host launch costs and H2D/D2H.
    copies_of_the_runtime ("CANN_SIM_PROFILE" = "a2-hccs", "CANN_SIM_SLOWDOWN" = "500"),
    /// Facts 6, host launch costs.
    launches_of_a_device_are_in_a_row ("CANN_SIM_PROFILE" = "a3-hccs", "CANN_SIM_SLOWDOWN" = "2000"),
    /// Facts 6, host launch costs.
    threads_launch_for_themselves
        ("CANN_SIM_PROFILE" = "a3-hccs", "CANN_SIM_SLOWDOWN" = "2000", "CANN_SIM_LAUNCH" = "thread"),
    /// Facts 7.1 and 1.6: asynchronous, and complete when it is.
    nothing_completes_early ("CANN_SIM_PROFILE" = "a2-hccs", "CANN_SIM_SLOWDOWN" = "5000"),
    /// Facts 7.1: the machine's clock is no faster than the model's.
    no_transfer_ends_before_its_time ("CANN_SIM_PROFILE" = "a2-roce", "CANN_SIM_SLOWDOWN" = "1"),
    /// Facts 1.6: an abort stops the running task.
    an_abort_ends_a_paced_transfer ("CANN_SIM_PROFILE" = "a2-hccs", "CANN_SIM_SLOWDOWN" = "10000"),
    /// Facts 6: control messages at the same slow-down.
    messages ("CANN_SIM_PROFILE" = "a2-roce", "CANN_SIM_SLOWDOWN" = "10000"),
    /// Facts 7.1: the null profile.
    null_charges_nothing,
}

cases! { "communicator.c":
    /// Facts 2.4, point 5: the rules are the same with a profile.
    an_error_leaves_the_descriptors_before_it ("CANN_SIM_PROFILE" = "a2-hccs", "CANN_SIM_SLOWDOWN" = "20"),
    /// Facts 7.1, peer death on HCCS, with a profile.
    a_dead_peer_fails_hccs_tasks ("CANN_SIM_PROFILE" = "a2-hccs", "CANN_SIM_SLOWDOWN" = "20"),
}

cases! { "runtime.c":
    /// Facts 1.6 and 7.1: streams and aborts, with a profile.
    abort_drops_the_queue_and_tells_waiters ("CANN_SIM_PROFILE" = "a2-hccs", "CANN_SIM_SLOWDOWN" = "20"),
    /// The same: order.
    streams_are_fifo_and_asynchronous ("CANN_SIM_PROFILE" = "a2-hccs", "CANN_SIM_SLOWDOWN" = "20"),
    /// The same: events.
    events ("CANN_SIM_PROFILE" = "a2-hccs", "CANN_SIM_SLOWDOWN" = "20"),
}

/// Facts 7.1, cost model: what was reserved can be asked for while somebody has the board.
#[test]
fn reservations_are_told() {
    let mut command = support::command("cost.c", "descriptors_over_roce");
    command.envs([("CANN_SIM_PROFILE", "a2-roce"), ("CANN_SIM_SLOWDOWN", "1000")]);
    let namespace = command
        .get_envs()
        .find_map(|(name, value)| (name == "CANN_SIM_NAMESPACE").then(|| value.unwrap().to_owned()))
        .unwrap();
    let mut child = command.spawn().unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let told = loop {
        let mut asked = std::process::Command::new(env!("CARGO_BIN_EXE_cann-sim-control"));
        let output = asked.args(["cost", "--namespace"]).arg(&namespace).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        if text.lines().any(|line| line.starts_with("roce-out 0 ")) || std::time::Instant::now() > deadline {
            break text;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    };
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(told.contains("roce-out 0 ") && told.contains("launch 0 "), "{told}");
}
