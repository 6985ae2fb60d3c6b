#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| conformance::targets::config_parse(data));
