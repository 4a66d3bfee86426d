#![no_main]

#[path = "../../supervisor/core/tests/arbitrary/notification.rs"]
mod notification;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| notification::check(data));
