//! `slices`: control groups that components share.

use std::time::Duration;

use serde_json::json;
use yakiros_core::control::{Answer, Request, SliceStatus, VERSION};

use crate::client::Client;
use crate::output::Output;
use crate::tables::{Cell, draw};
use crate::{Failure, unexpected};

/// Ask for all of them and print them.
pub fn run(client: &mut Client, output: &Output) -> Result<(), Failure> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        match client.ask(Request::Slices { after }, Duration::ZERO)? {
            Answer::Slices(page) => {
                all.extend(page.slices);
                after = page.next;
            }
            other => return Err(unexpected(other)),
        }
        if after.is_none() {
            break;
        }
    }
    if output.is_json() {
        Output::value(&json!({"version": VERSION, "slices": all}));
    } else {
        Output::text(&table(&all));
    }
    Ok(())
}

fn table(all: &[SliceStatus]) -> String {
    if all.is_empty() {
        return "no slices are declared\n".to_owned();
    }
    let row = |one: &SliceStatus| {
        let limits: Vec<_> = one.limits.iter().map(|(file, value)| format!("{file} {value}")).collect();
        let limits = if limits.is_empty() { "-".to_owned() } else { limits.join(", ") };
        let remark = one.detail.as_ref().or(one.description.as_ref());
        vec![
            Cell::plain(&one.name),
            Cell::plain(format!("{}/{}", one.running, one.components)),
            Cell::plain(limits),
            Cell::plain(&one.file),
            Cell::plain(remark.map_or("", String::as_str)),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    draw(&["SLICE", "RUNNING", "LIMITS", "FILE", ""], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slice_is_a_line_with_its_limits() {
        let slice = |name: &str, limits: &[(&str, &str)], detail: Option<&str>| SliceStatus {
            name: name.to_owned(),
            cgroup: String::new(),
            file: "/etc/graph.d/a.toml".to_owned(),
            description: Some("for nights".to_owned()),
            limits: limits.iter().map(|(file, value)| ((*file).to_owned(), (*value).to_owned())).collect(),
            components: 3,
            running: 1,
            detail: detail.map(str::to_owned),
        };
        let limits = [("memory.max", "4096"), ("pids.max", "5")];
        let text = table(&[slice("a", &limits, None), slice("a/b", &[], Some("it failed"))]);
        let text = anstream::adapter::strip_str(&text).to_string();
        assert_eq!(
            text,
            "SLICE  RUNNING  LIMITS                       FILE                 \n\
             a      1/3      memory.max 4096, pids.max 5  /etc/graph.d/a.toml  for nights\n\
             a/b    1/3      -                            /etc/graph.d/a.toml  it failed\n"
        );
        assert_eq!(table(&[]), "no slices are declared\n");
    }
}
