#![no_main]

#[path = "../../supervisor/core/tests/arbitrary/request_line.rs"]
mod request_line;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| request_line::check(data));
