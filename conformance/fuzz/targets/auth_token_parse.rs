#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| conformance::targets::auth_token_parse(data));
