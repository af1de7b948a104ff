#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sealwire_fuzz::run("from_relay", bytes));
