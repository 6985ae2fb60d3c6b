#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| conformance::targets::rbac_diff(data));
