#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| conformance::targets::core_step(data));
