#![no_main]

#[path = "../../supervisor/core/tests/arbitrary/component_file.rs"]
mod component_file;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| component_file::check(data));
