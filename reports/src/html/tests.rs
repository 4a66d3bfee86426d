use quick_xml::events::Event as Xml;

use super::*;
use crate::event::{Event, Metric, Series};
use crate::fixture::{Stream, model_run};
use crate::fold;

/// Parses the page as XML, which is stricter than HTML, and gives its text.
fn parsed(page: &str) -> String {
    let mut reader = quick_xml::Reader::from_str(page);
    reader.config_mut().check_end_names = true;
    let (mut open, mut all) = (Vec::new(), String::new());
    loop {
        match reader.read_event().unwrap() {
            Xml::Start(tag) => {
                tag.attributes().for_each(|attribute| drop(attribute.unwrap()));
                open.push(String::from_utf8(tag.name().as_ref().to_vec()).unwrap());
            }
            Xml::Empty(tag) => tag.attributes().for_each(|attribute| drop(attribute.unwrap())),
            Xml::End(_) => drop(open.pop().unwrap()),
            Xml::Text(text) => all.push_str(&text.decode().unwrap()),
            Xml::GeneralRef(name) => all.push_str(match name.decode().unwrap().as_ref() {
                "lt" => "<",
                "gt" => ">",
                "amp" => "&",
                "quot" => "\"",
                other => panic!("&{other};"),
            }),
            Xml::Eof => break,
            _ => {}
        }
    }
    assert_eq!(open, Vec::<String>::new());
    all
}

#[test]
fn the_page_is_sound_and_says_what_there_is() {
    let page = html(&fold(&model_run()), None);
    let text = parsed(&page);
    for part in [
        "FAILED: 1 failed, 2 flaky",
        "process 123 is still a zombie",
        "Orphans <are> reaped",
        "pid1_memory in KiB (boots)",
        "Functional validation",
        "our bar is missed",
        "cargo xtask vm-test --scenario basic/orphan-is-reaped --seed 42",
        "takes minutes",
    ] {
        assert!(text.contains(part), "no {part:?} in the page");
    }
    assert_eq!(page.matches("<svg").count(), 4 + 1 + 1, "bullets, the timeline, a curve");
}

#[test]
fn the_page_needs_nothing_from_outside_and_runs_nothing() {
    let page = html(&fold(&model_run()), None);
    for word in ["http:", "https:", "src=", "@import", "url(", "<script", "<link", "javascript:"] {
        assert!(!page.contains(word), "{word}");
    }
}

#[test]
fn what_a_guest_says_is_only_text() {
    let hostile = "</pre><script>alert(\"1\")</script>&amp;\u{1b}[31m\u{0}\u{ffff}";
    let mut stream = Stream::default();
    stream.start(hostile, hostile, 1);
    stream.step(hostile, hostile, hostile, Outcome::Failed);
    stream.push(Event::Metric(Metric {
        suite: Some(hostile.into()),
        scenario: Some(hostile.into()),
        name: hostile.into(),
        unit: hostile.into(),
        value: 1e300,
        samples: Some(vec![-1e300, 1e300, 0.0]),
    }));
    stream.push(Event::Series(Series {
        name: hostile.into(),
        t_s: vec![0.0, 0.0],
        values: vec![f64::MAX, f64::MIN],
        ..Series::default()
    }));
    let why = (hostile, crate::event::Culprit::Supervisor);
    stream.finish(hostile, hostile, Outcome::Failed, 1.0, Some(why));
    let page = html(&fold(&stream.0), None);
    assert!(!page.contains("<script"));
    assert!(parsed(&page).contains("<script>alert(\"1\")</script>"));
    assert!(!page.contains("NaN") && !page.contains("inf\""), "{page}");
}

#[test]
fn the_logs_of_a_failure_are_in_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let capsule = folder.path().join("capsules/basic-orphan-is-reaped");
    fs_write(&capsule, "console.log", "the last words\u{1b}[0m of <it>\n");
    let text = parsed(&html(&fold(&model_run()), Some(folder.path())));
    assert!(text.contains("the last words of <it>"));
    assert!(!text.contains("dmesg.txt"));
}

fn fs_write(folder: &Path, name: &str, text: &str) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join(name), text).unwrap();
}

#[test]
fn a_run_without_events_has_a_page() {
    parsed(&html(&fold([]), None));
}
