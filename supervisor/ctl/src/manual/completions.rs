//! Completions for shells. The scripts of `clap_complete` know the commands and options; names of
//! components are added here, by asking the supervisor when they are needed.

use clap::Command;
use serde_json::json;
use yakiros_core::control::VERSION;

use crate::output::Output;

/// Shells that completions are made for.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Shell {
    /// bash, with its completion package or without.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
}

/// Around the script for bash: the word after a command that takes a name may be one.
const BASH: &str = r#"
_graphctl_with_names() {
    _graphctl "$@"
    local current="${COMP_WORDS[COMP_CWORD]}" word
    case "$current" in -*) return 0 ;; esac
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case "$word" in
        @COMMANDS@)
            COMPREPLY+=($(compgen -W "$(graphctl names 2>/dev/null)" -- "$current"))
            return 0
            ;;
        esac
    done
}

complete -F _graphctl_with_names -o bashdefault -o default graphctl
"#;

/// Names for zsh, at the places of the script where anything may stand.
const ZSH: &str = "
_graphctl_components() {
    compadd -- ${(f)\"$(graphctl names 2>/dev/null)\"}
}
";

/// Names for fish.
const FISH: &str = "
complete -c graphctl -n \"__fish_seen_subcommand_from @COMMANDS@\" -f -a \"(graphctl names 2>/dev/null)\"
";

/// Print the script for a shell.
pub fn completions(shell: Shell, command: Command, output: &Output) {
    let script = script(shell, command);
    if output.is_json() {
        Output::value(&json!({"version": VERSION, "script": script}));
    } else {
        Output::raw(&script);
    }
}

fn script(shell: Shell, mut command: Command) -> String {
    let commands = with_names(&command);
    let aliases = aliases(&command);
    let mut bytes = Vec::new();
    let known = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    clap_complete::generate(known, &mut command, "graphctl", &mut bytes);
    let script = String::from_utf8_lossy(&bytes);
    match shell {
        Shell::Bash => format!("{script}{}", BASH.replace("@COMMANDS@", &commands.join("|"))),
        Shell::Fish => format!("{script}{}", FISH.replace("@COMMANDS@", &commands.join(" "))),
        Shell::Zsh => {
            // The first line tells zsh what the script is.
            let (first, rest) = script.split_once('\n').unwrap_or(("", &script));
            let rest: Vec<_> = rest.lines().map(|line| zsh_line(line, &aliases)).collect();
            format!("{first}\n{ZSH}{}\n", rest.join("\n"))
        }
    }
}

/// The arguments of a component's name get the names as their completion, and what is known of a
/// command is known of its other names.
fn zsh_line(line: &str, aliases: &[(String, String)]) -> String {
    let named = [":name -- ", ":from -- ", ":to -- "].iter().any(|place| line.contains(place));
    let other = aliases.iter().find(|(name, _)| line.strip_prefix('(') == Some(&format!("{name})")));
    match (named, other) {
        (true, _) => line.replace(":_default'", ":_graphctl_components'"),
        (false, Some((name, alias))) => format!("({name}|{alias})"),
        (false, None) => line.to_owned(),
    }
}

/// Commands with their other names.
fn aliases(command: &Command) -> Vec<(String, String)> {
    let of = |below: &Command| {
        let name = below.get_name().to_owned();
        let all: Vec<_> = below.get_all_aliases().map(str::to_owned).collect();
        (!all.is_empty()).then(|| (name, all.join("|")))
    };
    command.get_subcommands().filter_map(of).collect()
}

/// Commands with an argument that is a component's name.
fn with_names(command: &Command) -> Vec<String> {
    let takes = |command: &&Command| {
        let mut places = command.get_positionals();
        places.any(|place| ["name", "from"].contains(&place.get_id().as_str()))
    };
    let all = command.get_subcommands().filter(|below| !below.is_hide_set());
    let found = all.filter(|below| takes(below) || below.get_subcommands().any(|below| takes(&below)));
    found
        .flat_map(|below| {
            let names = std::iter::once(below.get_name()).chain(below.get_all_aliases());
            names.map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

#[cfg(test)]
mod tests;
