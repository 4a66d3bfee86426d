//! What a run would do: lists of what there is, and the plan with its expected time.

use std::time::Duration;

use yakiros_reports::{EXIT_PASSED, EXIT_USAGE};
use yakiros_vm::image::Kernel;

use crate::options::Options;
use crate::profile::Profile;
use crate::scenario::{Scenario, Start};
use crate::schedule::{Places, longest_first};
use crate::select::{Selection, select};
use crate::suite::Suite;
use crate::timings::Timings;

/// Lists what the options select, with the profiles that have it, and gives the process's exit code.
pub fn list(options: &Options) -> i32 {
    let known = select(options).and_then(|selection| Ok((selection, Profile::all()?)));
    let (selection, profiles) = match known {
        Ok(known) => known,
        Err(message) => return usage(&message),
    };
    let of_profile = |profile: Profile| {
        let whole = Options { profile: profile.clone(), ..Options::default() };
        (profile, select(&whole).unwrap_or_default())
    };
    let profiles: Vec<(Profile, Selection)> = profiles.into_iter().map(of_profile).collect();
    for (profile, selection) in &profiles {
        let budget = profile.budget.unwrap_or_default().as_secs();
        println!(
            "profile {:<8} {:>4} scenarios, {budget:>5} s: {}",
            profile.name,
            selection.len(),
            profile.summary
        );
    }
    for (suite, scenarios) in &selection.suites {
        match suite.config() {
            Ok(config) => println!("\n{}: {}", suite.name, config.description),
            Err(error) => println!("\n{}: {error}", suite.name),
        }
        for scenario in scenarios {
            let start = start(scenario, options);
            println!(
                "  {:<44} {start:<6} {:<14} {}",
                scenario.name,
                tags(suite, scenario, &profiles),
                scenario.summary
            );
        }
    }
    EXIT_PASSED
}

/// The profiles that have a scenario: all, or their names.
fn tags(suite: &Suite, scenario: &Scenario, profiles: &[(Profile, Selection)]) -> String {
    let has = |(_, selection): &&(Profile, Selection)| {
        selection.scenarios().any(|(of, one)| of.name == suite.name && one.name == scenario.name)
    };
    let names: Vec<&str> = profiles.iter().filter(has).map(|(profile, _)| profile.name.as_str()).collect();
    if names.len() == profiles.len() { "all".into() } else { names.join(",") }
}

fn start(scenario: &Scenario, options: &Options) -> &'static str {
    if scenario.start == Start::Clone && !options.cold { "clone" } else { "cold" }
}

fn usage(message: &str) -> i32 {
    eprintln!("error: {message}");
    EXIT_USAGE
}

/// Prints what a run on these kernels would do, in the order in which scenarios begin, and how long it will take. Fetches,
/// builds and boots nothing.
pub fn dry_run(options: &Options, kernels: &[Kernel]) -> i32 {
    let selection = match select(options) {
        Ok(selection) => selection,
        Err(message) => return usage(&message),
    };
    let (timings, places) = (Timings::read(options.profile.amounts), Places::of(options));
    let mut rows = Vec::new();
    for (suite, scenario) in selection.scenarios() {
        match suite.config() {
            Ok(config) => rows.push((suite, scenario, config.machine)),
            Err(error) => return usage(&error.to_string()),
        }
    }
    let id = |suite: &Suite, scenario: &Scenario| format!("{}/{}", suite.name, scenario.name);
    longest_first(&mut rows, &timings, |(suite, scenario, _)| id(suite, scenario));
    let mut all = Vec::new();
    println!("{:<62} {:<6} {:>8} {:>9}  place", "scenario", "start", "memory", "expected");
    for (suite, scenario, machine) in &rows {
        let id = id(suite, scenario);
        let (time, need) = (timings.expected(&id), places.need(&id, machine.memory_mb, &timings));
        let known = if timings.knows(&id) { ' ' } else { '?' };
        let place = if places.shared && timings.is_idle(&id) { "half: it waits" } else { "one" };
        println!(
            "{:<62} {:<6} {:>4} MiB {:>6.1} s{known}  {place}",
            id,
            start(scenario, options),
            machine.memory_mb,
            time.as_secs_f64()
        );
        all.push((need, time));
    }
    for left in &selection.left_out {
        println!("{:<62} left out: {}", format!("{}/{}", left.suite, left.name), left.why);
    }
    let unknown = rows.iter().filter(|(suite, scenario, _)| !timings.knows(&id(suite, scenario))).count();
    let rounds = rounds(options);
    let once = places.expected(all.iter().copied());
    let sum: Duration = all.iter().map(|(_, time)| *time).sum();
    println!();
    println!(
        "{} scenarios of {} suites, {} left out",
        rows.len(),
        selection.suites.len(),
        selection.left_out.len()
    );
    println!("{}, {} MiB for their guests", at_a_time(&places), places.memory_mb);
    println!("{rounds}, retries: {}", options.retries);
    println!(
        "{:.0} s of scenarios, {:.0} s expected for a round, {unknown} not known from earlier runs",
        sum.as_secs_f64(),
        once.as_secs_f64()
    );
    for kernel in kernels {
        println!("kernel {kernel}: profile {}, {}", options.profile.name, budget(options));
    }
    EXIT_PASSED
}

fn at_a_time(places: &Places) -> String {
    let shared = if places.shared { ", those that wait beside them" } else { "" };
    format!("{} at a time{shared}", places.workers)
}

fn rounds(options: &Options) -> String {
    match (options.repeat, options.until_fail) {
        (None, true) => "rounds until something fails".into(),
        (Some(repeat), true) => format!("{repeat} rounds, or until something fails"),
        (repeat, false) => format!("{} rounds", repeat.unwrap_or(options.profile.repeat).max(1)),
    }
}

fn budget(options: &Options) -> String {
    let budget = options.profile.budget.map(|budget| format!("{} s as a whole", budget.as_secs()));
    format!("budget {}", budget.unwrap_or("none".into()))
}
