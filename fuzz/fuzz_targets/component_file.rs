#![no_main]

#[path = "../../supervisor/core/tests/arbitrary/component_file.rs"]
mod component_file;
#[path = "../../supervisor/core/tests/arbitrary/takeover.rs"]
mod takeover;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| component_file::check(data));
