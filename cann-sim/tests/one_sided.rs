//! Put and get between two processes move the right bytes without work by the owner (facts 2.4, 2.5).

mod support;

cases! { "one_sided.c":
    /// Facts 2.5: one server, HCCS; host memory is not exported.
    near,
    /// Facts 2.5: two servers, RoCE; pinned and ordinary host memory too.
    far,
    /// The same between two dies of an A3 super pod.
    a3 ("CANN_SIM_SOC" = "Ascend910_9392"),
}
