//! `checkpoint NAME`, `continue` and `restore`: what the supervisor does with checkpoints.

use std::fmt::Write as _;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use yakiros_core::checkpoint::{After, Made, Written};
use yakiros_core::control::{Answer, Request, VERSION};
use yakiros_core::engine::CHECKPOINT_LIMIT;

use super::arguments::Restore;
use crate::client::Client;
use crate::output::Output;
use crate::{Failure, act, milliseconds, unexpected};

/// Have a component's processes written down.
pub fn make(
    client: &mut Client,
    output: &Output,
    name: &str,
    hold: bool,
    timeout: Duration,
) -> Result<(), Failure> {
    let after = if hold { After::Hold } else { After::Run };
    let timeout_ms = Some(milliseconds(timeout));
    // One that is being made for something else has its own limit.
    let answer =
        client.ask(Request::Checkpoint { name: name.to_owned(), after, timeout_ms }, CHECKPOINT_LIMIT)?;
    let Answer::Checkpointed { component, written, revision } = answer else {
        return Err(unexpected(answer));
    };
    if output.is_json() {
        Output::value(&made_value(&component, &written, revision));
    } else {
        Output::text(&made_text(&component, &written, after));
    }
    Ok(())
}

fn made_value(component: &str, written: &Written, revision: u64) -> Value {
    let Written { id, bytes, pages, frozen_us, took_us } = written;
    json!({
        "version": VERSION, "component": component, "id": id, "bytes": bytes, "pages": pages,
        "frozen_us": frozen_us, "took_us": took_us, "revision": revision,
    })
}

fn made_text(component: &str, written: &Written, after: After) -> String {
    let Written { id, bytes, frozen_us, took_us, .. } = written;
    let time = |us: u64| Duration::from_micros(us);
    let mut text = format!("{component}: checkpoint {id}\n");
    let _ = write!(text, "{bytes} bytes, made in {:?}", time(*took_us));
    if let Some(frozen) = frozen_us {
        let _ = write!(text, "; it stood still for {:?}", time(*frozen));
    }
    text.push('\n');
    if after == After::Hold {
        text.push_str("it is held until: graphctl continue\n");
    }
    text
}

/// Have everything go on that is held.
pub fn go_on(client: &mut Client, output: &Output) -> Result<(), Failure> {
    act(client, output, Request::Continue, Duration::ZERO)
}

/// Have a component's processes made from a checkpoint.
pub fn restore(client: &mut Client, output: &Output, wanted: &Restore) -> Result<(), Failure> {
    let Restore { name, id, no_fallback, timeout } = wanted;
    let request = Request::Restore {
        name: name.clone(),
        id: id.as_ref().map(ToString::to_string),
        fallback: !no_fallback,
        timeout_ms: Some(milliseconds(*timeout)),
    };
    let answer = client.ask(request, *timeout)?;
    let Answer::Restored { component, made, passed_over, pid, revision } = answer else {
        return Err(unexpected(answer));
    };
    if output.is_json() {
        Output::value(&restored_value(&component, made.as_ref(), passed_over.as_ref(), pid, revision));
    } else {
        Output::text(&restored_text(&component, made.as_ref(), passed_over.as_ref()));
    }
    Ok(())
}

fn restored_value(
    component: &str,
    made: Option<&Made>,
    passed_over: Option<&Rc<str>>,
    pid: Option<i32>,
    revision: u64,
) -> Value {
    json!({
        "version": VERSION, "component": component, "id": made.map(|made| &made.id),
        "took_us": made.map(|made| made.took_us), "passed_over": passed_over, "pid": pid, "revision": revision,
    })
}

fn restored_text(component: &str, made: Option<&Made>, passed_over: Option<&Rc<str>>) -> String {
    match (made, passed_over) {
        (Some(Made { id, took_us }), _) => {
            format!("{component} runs, made from checkpoint {id} in {:?}\n", Duration::from_micros(*took_us))
        }
        (None, Some(reason)) => format!("{component} runs, started anew: {reason}\n"),
        (None, None) => format!("{component} runs, started anew\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> Written {
        Written {
            id: "20261122T081530.123456Z-9f3a61c2".into(),
            bytes: 1_048_576,
            pages: Some(200),
            frozen_us: Some(12_500),
            took_us: 80_000,
        }
    }

    #[test]
    fn what_was_made_is_told_with_how_long_it_stood_still() {
        insta::assert_snapshot!(made_text("web", &written(), After::Hold), @r"
        web: checkpoint 20261122T081530.123456Z-9f3a61c2
        1048576 bytes, made in 80ms; it stood still for 12.5ms
        it is held until: graphctl continue
        ");
        let unmeasured = Written { frozen_us: None, ..written() };
        assert!(made_text("web", &unmeasured, After::Run).ends_with(", made in 80ms\n"));
        let value = made_value("web", &unmeasured, 7);
        assert_eq!((&value["frozen_us"], &value["pages"]), (&Value::Null, &json!(200)));
    }

    #[test]
    fn what_was_started_anew_says_why() {
        let made = Made { id: "one".into(), took_us: 42_000 };
        assert_eq!(restored_text("web", Some(&made), None), "web runs, made from checkpoint one in 42ms\n");
        let reason: Rc<str> = "no such checkpoint".into();
        let text = restored_text("web", None, Some(&reason));
        assert_eq!(text, "web runs, started anew: no such checkpoint\n");
        let value = restored_value("web", None, Some(&reason), Some(7), 9);
        assert_eq!((&value["id"], &value["took_us"], &value["pid"]), (&Value::Null, &Value::Null, &json!(7)));
        assert_eq!(value["passed_over"], "no such checkpoint");
    }
}
