//! An endpoint that is printed and read again is the same endpoint, and no text makes the parser panic.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of a test fail as the test does; clippy exempts only the test functions themselves"
)]

use mooncake::endpoint::Endpoint;
use proptest::prelude::*;

fn host() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9]([a-z0-9.-]{0,30}[a-z0-9])?",
        any::<std::net::Ipv4Addr>().prop_map(|address| address.to_string()),
        any::<std::net::Ipv6Addr>().prop_map(|address| address.to_string()),
        any::<std::net::Ipv6Addr>().prop_map(|address| format!("{address}%eth0")),
    ]
}

proptest! {
    #[test]
    fn printing_and_parsing_are_inverse(
        host in host(),
        port in proptest::option::of(any::<u16>()),
        npu in proptest::option::of(any::<u32>()),
    ) {
        let mut endpoint = Endpoint::new(&host, port).unwrap();
        endpoint.npu = npu;
        let text = endpoint.to_string();
        prop_assert_eq!(text.parse::<Endpoint>().unwrap(), endpoint.clone(), "{}", text);
        let session: Endpoint = endpoint.session().parse().unwrap();
        prop_assert_eq!((session.host, session.port, session.npu), (endpoint.host, endpoint.port, None));
    }

    #[test]
    fn whatever_is_taken_prints_to_itself(text in "[\\[\\]:%a-z0-9_./ -]{0,40}|\\PC{0,40}") {
        if let Ok(endpoint) = text.parse::<Endpoint>() {
            prop_assert_eq!(endpoint.to_string().parse::<Endpoint>().unwrap(), endpoint);
        }
    }
}
