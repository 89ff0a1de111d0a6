#![no_main]

#[allow(dead_code)]
#[path = "../decoders.rs"]
mod decoders;

libfuzzer_sys::fuzz_target!(|data: &[u8]| decoders::tcp_data(data));
