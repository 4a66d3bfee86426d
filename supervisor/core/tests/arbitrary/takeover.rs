//! What holds for an engine whenever it is written down and made anew from that.

use yakiros_core::control::{Answer, encode_answer};
use yakiros_core::engine::{Engine, Snapshot};

/// Panics if something does not hold.
pub fn check(engine: &Engine) {
    let bytes = serde_json::to_vec(&engine.snapshot()).expect("an engine can be written down");
    let snapshot: Snapshot = serde_json::from_slice(&bytes).expect("what was written can be read");
    let anew = Engine::restore(engine.config(), snapshot).expect("what was an engine is one again");
    assert_eq!(told(&anew), told(engine));
    assert_eq!(anew.deadline(), engine.deadline());
    let again = serde_json::to_vec(&anew.snapshot()).expect("an engine can be written down");
    assert_eq!(String::from_utf8_lossy(&again), String::from_utf8_lossy(&bytes));
}

/// What clients are told.
fn told(engine: &Engine) -> String {
    let status = encode_answer(Answer::Status(engine.status_page(None)));
    let graph = encode_answer(Answer::Graph(engine.graph_page(None)));
    String::from_utf8_lossy(&[status, graph].concat()).into_owned()
}
