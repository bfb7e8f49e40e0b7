#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| autoglm_engine::trial::gguf(bytes));
