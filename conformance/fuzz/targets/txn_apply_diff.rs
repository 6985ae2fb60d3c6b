#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| conformance::targets::txn_apply_diff(data));
