#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| conformance::targets::grpc_to_handler(data));
