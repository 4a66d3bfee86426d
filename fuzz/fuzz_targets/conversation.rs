#![no_main]

#[path = "../../supervisor/core/tests/arbitrary/conversation.rs"]
mod conversation;
#[path = "../../supervisor/core/tests/arbitrary/takeover.rs"]
mod takeover;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| conversation::check(data));
