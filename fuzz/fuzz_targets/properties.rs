#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mqlog_fuzz::properties(bytes);
});
