//! What a run does: the scenarios that the command line names, or those of its profile.

use yakiros_vm::image::Kernel;

use crate::options::Options;
use crate::profile::Profile;
use crate::scenario::Scenario;
use crate::suite::{SUITES, Suite};

/// What is to run, suite by suite in the order of [`SUITES`].
#[derive(Clone, Default)]
pub struct Selection {
    /// Suites with at least one scenario each.
    pub suites: Vec<(&'static Suite, Vec<&'static Scenario>)>,
    /// What the profile leaves out of what would run otherwise.
    pub left_out: Vec<LeftOut>,
}

/// A scenario that the profile leaves out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its suite's name.
    pub suite: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Why.
    pub why: String,
}

/// How many near names a message has.
const NEAR: usize = 3;
/// How alike two names have to be to be near, 1 being the same.
const ALIKE: f64 = 0.75;

impl Selection {
    /// All scenarios with their suites.
    pub fn scenarios(&self) -> impl Iterator<Item = (&'static Suite, &'static Scenario)> {
        self.suites.iter().flat_map(|(suite, scenarios)| scenarios.iter().map(|scenario| (*suite, *scenario)))
    }

    /// How many scenarios there are.
    pub fn len(&self) -> usize {
        self.suites.iter().map(|(_, scenarios)| scenarios.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.suites.is_empty()
    }
}

/// What the options ask for, or a message that says which of their names is wrong and what is near it.
pub fn select(options: &Options) -> Result<Selection, String> {
    let names: Vec<&str> = SUITES.iter().map(|suite| suite.name).collect();
    for pattern in &options.suites {
        if choose(pattern, &names).is_empty() {
            return Err(unknown("suite", pattern, &names));
        }
    }
    let wanted = |suite: &&Suite| {
        let mut patterns = options.suites.iter();
        options.suites.is_empty() || patterns.any(|pattern| choose(pattern, &names).contains(&suite.name))
    };
    let suites: Vec<&'static Suite> = SUITES.iter().filter(wanted).collect();
    let all: Vec<(&'static Suite, &'static Scenario)> = suites
        .iter()
        .flat_map(|suite| suite.scenarios.iter().map(move |scenario| (*suite, scenario)))
        .collect();
    if options.scenarios.is_empty() {
        return chosen_by_profile(&all, options);
    }
    let ids: Vec<String> = all.iter().map(|(suite, scenario)| id(suite, scenario)).collect();
    let mut taken = vec![false; all.len()];
    for pattern in &options.scenarios {
        let places = places(pattern, &all, &ids);
        if places.is_empty() {
            let of = |(_, scenario): &(&Suite, &'static Scenario)| scenario.name;
            let known: Vec<&str> = if pattern.contains('/') {
                ids.iter().map(String::as_str).collect()
            } else {
                all.iter().map(of).collect()
            };
            return Err(unknown("scenario", pattern, &known));
        }
        for place in places {
            taken[place] = true;
        }
    }
    let named = all.iter().zip(&taken).filter(|(_, taken)| **taken).map(|(one, _)| *one);
    Ok(Selection { suites: grouped(named), left_out: Vec::new() })
}

/// What is named goes before what the profile says: a suite that is named is run whole.
fn chosen_by_profile(
    all: &[(&'static Suite, &'static Scenario)],
    options: &Options,
) -> Result<Selection, String> {
    if !options.suites.is_empty() {
        return Ok(Selection { suites: grouped(all.iter().copied()), left_out: Vec::new() });
    }
    let profile = &options.profile;
    let (mut taken, mut left_out) = (Vec::new(), Vec::new());
    for (suite, scenario) in all {
        match why_not(profile, options.image.kernel, &id(suite, scenario)) {
            None => taken.push((*suite, *scenario)),
            Some(why) => left_out.push(LeftOut { suite: suite.name, name: scenario.name, why }),
        }
    }
    if taken.is_empty() {
        return Err(format!("the profile {} leaves nothing to run", profile.name));
    }
    Ok(Selection { suites: grouped(taken.into_iter()), left_out })
}

fn why_not(profile: &Profile, kernel: Kernel, id: &str) -> Option<String> {
    if !profile.only.is_empty() && !profile.only.iter().any(|pattern| fits(pattern, id)) {
        return Some(format!("not one of the profile {}", profile.name));
    }
    let mut rows =
        profile.leave_out.iter().filter(|row| row.kernels.is_empty() || row.kernels.contains(&kernel));
    let row = rows.find(|row| row.scenarios.iter().any(|pattern| fits(pattern, id)));
    row.map(|row| row.why.clone())
}

fn id(suite: &Suite, scenario: &Scenario) -> String {
    format!("{}/{}", suite.name, scenario.name)
}

fn grouped(
    scenarios: impl Iterator<Item = (&'static Suite, &'static Scenario)>,
) -> Vec<(&'static Suite, Vec<&'static Scenario>)> {
    let mut groups: Vec<(&'static Suite, Vec<&'static Scenario>)> = Vec::new();
    for (suite, scenario) in scenarios {
        match groups.last_mut() {
            Some((last, group)) if last.name == suite.name => group.push(scenario),
            _ => groups.push((suite, vec![scenario])),
        }
    }
    groups
}

/// The places of what a pattern means among the scenarios: by `suite/scenario` if it has a slash, else by the scenario's
/// name.
fn places(pattern: &str, all: &[(&Suite, &'static Scenario)], ids: &[String]) -> Vec<usize> {
    let names: Vec<&str> = if pattern.contains('/') {
        ids.iter().map(String::as_str).collect()
    } else {
        all.iter().map(|(_, scenario)| scenario.name).collect()
    };
    let chosen = choose(pattern, &names);
    (0..names.len()).filter(|&place| chosen.contains(&names[place])).collect()
}

/// What a pattern means: the one of that very name; else those that fit it as a whole if it has `*` or `?`; else those
/// that have it in their name.
fn choose<'a>(pattern: &str, names: &[&'a str]) -> Vec<&'a str> {
    if names.contains(&pattern) {
        return names.iter().copied().filter(|name| *name == pattern).collect();
    }
    let is_glob = pattern.contains(['*', '?']);
    let means = |name: &&str| if is_glob { fits(pattern, name) } else { name.contains(pattern) };
    names.iter().copied().filter(means).collect()
}

/// Whether a name is what the pattern says from its beginning to its end: `*` is any text, `?` any character.
pub fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where the last star was, and how far the name was read for it: that is all that ever has to be taken back.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == '?' || c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, read)) => {
                    star = Some((at, read + 1));
                    p = at + 1;
                    n = read + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// The message about a name that is not known, with those near it; with all, if they are few.
pub fn unknown(kind: &str, name: &str, known: &[&str]) -> String {
    const FEW: usize = 16;
    let mut near: Vec<(f64, &str)> = known
        .iter()
        .map(|known| (strsim::jaro_winkler(name, known), *known))
        .filter(|(alike, _)| *alike >= ALIKE)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    let near: Vec<String> = near.iter().take(NEAR).map(|(_, name)| format!("'{name}'")).collect();
    let there = if known.len() <= FEW { known.join(", ") } else { "see `cargo xtask vm-test --list`".into() };
    match near.as_slice() {
        [] => format!("there is no {kind} '{name}'; there are: {there}"),
        near => {
            format!("there is no {kind} '{name}'; did you mean {}? There are: {there}", near.join(" or "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::LeaveOut;

    fn ids(options: &Options) -> Vec<String> {
        select(options).unwrap().scenarios().map(|(suite, scenario)| id(suite, scenario)).collect()
    }

    fn of(suites: &[&str], scenarios: &[&str]) -> Options {
        let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        Options { suites: texts(suites), scenarios: texts(scenarios), ..Options::default() }
    }

    #[test]
    fn patterns() {
        let table = [
            ("basic", "basic", true),
            ("basic", "basics", false),
            ("*", "", true),
            ("b*c", "basic", true),
            ("b*c", "basics", false),
            ("*a*i*", "basic", true),
            ("?asic", "basic", true),
            ("?", "", false),
            ("a*b*c", "a-b-b-c", true),
            ("hot-swap/*", "hot-swap/zero_downtime", true),
            ("hot-swap/*", "kexec/hot-swap/", false),
        ];
        for (pattern, name, expected) in table {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_name_of_its_own_goes_before_names_that_contain_it() {
        assert_eq!(choose("basic", &["basics", "basic", "more-basic"]), ["basic"]);
        assert_eq!(choose("basi", &["basics", "basic", "more"]), ["basics", "basic"]);
        // Parts of names, over all suites.
        assert!(ids(&of(&[], &["power"])).len() >= 2);
        assert_eq!(ids(&of(&[], &["basic/resolver_is_pid_1"])), ["basic/resolver_is_pid_1"]);
        let several = ids(&of(&["hot*", "basic"], &["zero_*", "resolver_is"]));
        assert_eq!(several, ["basic/resolver_is_pid_1", "hot-swap/zero_downtime"]);
    }

    #[test]
    fn an_unknown_name_says_what_is_near() {
        let error = |options: &Options| select(options).err().unwrap();
        let message = error(&of(&["basik"], &[]));
        assert!(message.contains("there is no suite 'basik'; did you mean 'basic'"), "{message}");
        assert!(message.contains("There are: basic, graph-analysis"), "{message}");
        let message = error(&of(&[], &["zero_downtimes"]));
        assert!(message.contains("did you mean 'zero_downtime'"), "{message}");
        let message = error(&of(&["basic"], &["zero_downtime"]));
        assert!(message.contains("there is no scenario 'zero_downtime'"), "{message}");
        assert!(error(&of(&[], &["nothing_like_it"])).contains("--list"));
    }

    #[test]
    fn what_is_named_goes_before_what_the_profile_leaves_out() {
        let why = "too long".to_owned();
        let leave_out = vec![LeaveOut {
            scenarios: vec!["basic/resolver_*".into()],
            why: why.clone(),
            ..LeaveOut::default()
        }];
        let profile = Profile { only: vec!["basic/*".into()], leave_out, ..Profile::default() };
        let options = Options { profile: profile.clone(), ..Options::default() };
        let selection = select(&options).unwrap();
        assert!(selection.scenarios().all(|(suite, _)| suite.name == "basic"));
        let left = LeftOut { suite: "basic", name: "resolver_is_pid_1", why };
        assert!(selection.left_out.contains(&left), "{:?}", selection.left_out);
        assert!(selection.left_out.iter().any(|left| left.suite == "hot-swap"));
        let named = Options { profile: profile.clone(), ..of(&[], &["resolver_is_pid_1"]) };
        assert_eq!(ids(&named), ["basic/resolver_is_pid_1"]);
        let mut elsewhere = options.clone();
        elsewhere.profile.leave_out[0].kernels = vec![Kernel::Debian];
        assert!(ids(&elsewhere).contains(&"basic/resolver_is_pid_1".to_owned()));
        elsewhere.image.kernel = Kernel::Debian;
        assert!(!ids(&elsewhere).contains(&"basic/resolver_is_pid_1".to_owned()));
        let nothing = Profile {
            leave_out: vec![LeaveOut { scenarios: vec!["*".into()], ..LeaveOut::default() }],
            ..profile
        };
        assert!(select(&Options { profile: nothing, ..Options::default() }).is_err());
    }
}
