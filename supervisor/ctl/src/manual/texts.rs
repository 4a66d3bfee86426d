//! Examples of the commands that are not defined together with theirs.

/// Command and what its help ends with.
pub const TEXTS: &[(&str, &str)] = &[
    (
        "status",
        "\
Examples:
  graphctl status
  graphctl status web
  graphctl status --watch                 again whenever something changes; Ctrl-C ends it
  graphctl status --watch 5               also every five seconds, for the times to go on
  graphctl status --json

Where the output is no terminal, --watch prints a block for each change.",
    ),
    (
        "top",
        "\
Examples:
  graphctl top
  graphctl top --sort memory
  graphctl top --once
  graphctl top -n 5 --interval 2 --json   five lines, an object each

CPU is of one processor; READ and WRITE are bytes in a second. CPU-P, MEM-P and IO-P are the pressure: how much of the
last ten seconds some of its tasks waited for a processor, for memory or for a disk. On a terminal the table is redrawn
until Ctrl-C; elsewhere it is printed once, and with --json line after line. What the kernel does not count has a dash.",
    ),
    (
        "caps",
        "\
Examples:
  graphctl caps
  graphctl caps --json",
    ),
    (
        "tree",
        "\
Examples:
  graphctl tree web
  graphctl tree web --json

Each component is expanded once; `…` stands for what was shown further up.",
    ),
    (
        "pending",
        "\
Example:
  graphctl pending",
    ),
    (
        "start",
        "\
Examples:
  graphctl start web
  graphctl start web --timeout 5 || graphctl why web

Exit codes: 0 it runs (a oneshot: it is done), 1 it can not or not in time.",
    ),
    (
        "stop",
        "\
Example:
  graphctl stop web                       what needs web is stopped before it

Exit codes: 0 it is stopped, 1 it is not, or not in time.",
    ),
    (
        "restart",
        "\
Example:
  graphctl restart web --timeout 10

Exit codes: 0 it runs again, 1 it can not or not in time.",
    ),
    (
        "upgrade",
        "\
Examples:
  graphctl upgrade web                    tells each step, how it was done, and how long web was away
  graphctl upgrade web --no-fallback
  graphctl upgrade web --strategy canary --timeout 120
                                          new connections first, then everything; see hotswap.probation

The way is that of `lifecycle.handoff`: checkpoint, fd-passing, or a restart; from the declared one down to
one that can be gone. By a checkpoint the process itself goes on, with its memory and its connections: it is
written down, ended, and made again, under the same program; clients wait meanwhile. A new version that
fails ends the upgrade: the old process serves on. With a probation or a canary --timeout has to be longer than that.
Exit codes: 0 the new process runs, 1 it does not, or --no-fallback forbade what could be done.",
    ),
    (
        "freeze",
        "\
Examples:
  graphctl freeze web                     returns when all of web stands still
  graphctl freeze web db && backup; graphctl thaw db web
  graphctl freeze web --timeout 2 --json

What needs web stays up and waits for it. A start or an upgrade under way is not interrupted: freeze it
when that is over. web is not upgraded while it is frozen; graphctl stop and restart end it as ever: it
is told to end, then thawed, and has its grace from there. A process that hangs in the kernel cannot be
frozen: it is named, and web is thawed again.
Exit codes: 0 all are frozen, 1 one is not.",
    ),
    (
        "thaw",
        "\
Examples:
  graphctl thaw web
  graphctl thaw db web --json

Health probes, the watchdog and the time for an announced end begin anew.
Exit codes: 0 none of them is frozen, 1 one is.",
    ),
    (
        "inspect",
        "\
Examples:
  graphctl inspect web
  graphctl inspect web --json | jq '.aspects[] | select(.verdict == \"differs\")'

Read from /proc and the control group, by this command: it needs to be root and in the namespaces of
the supervisor. What a program has given up by itself (capabilities) holds; what it should have and
has not, or has and should not, differs. Landlock and securebits are not shown by the kernel.
Exit codes: 0 everything holds, 1 something differs, or there is no process.",
    ),
    (
        "audit",
        "\
Examples:
  graphctl audit                          all components, the most exposed first
  graphctl audit web                      what is open in web, and the lines that would close it
  graphctl audit --threshold 5            for checks of a whole machine: 1 if one is above it

From 0, for a program that can do nothing but its work, to 10, for one of root without any
restriction. It is judged by what is declared; `graphctl inspect` tells whether that holds.
Exit codes: 0 done, 1 one is above the threshold.",
    ),
    (
        "slices",
        "\
Examples:
  graphctl slices                         what each is limited to, and how many components are in it
  graphctl slices --json

A slice is a control group that components share. Its file in /etc/graph.d, and the line that puts a
component into it:
  [slice]                                 [resources]
  name = \"batch\"                         slice = \"batch\"
  [resources]
  memory_max = \"512M\"
RUNNING counts the components in it that have a process, and all. `graphctl top` shows what it uses.",
    ),
    (
        "readiness",
        "\
Examples:
  graphctl readiness
  graphctl readiness web --json",
    ),
    (
        "reload",
        "\
Examples:
  graphctl reload                         read all component files again
  graphctl reload web                     send web its reload_signal",
    ),
    (
        "resolve",
        "\
Example:
  graphctl resolve",
    ),
    (
        "log",
        "\
Examples:
  graphctl log web
  graphctl log web 100
  graphctl log web -f                     goes on through rotations and restarts
  graphctl log web --since 10m
  graphctl log web --since 2026-01-31T08:00:00Z -n 50
  graphctl log web -f --json              one object a line

Each line has the time at which it began. The supervisor keeps the newest 256 to 512 KiB.
On a terminal control characters are spelled out (\\u{1b}); elsewhere the text is as it was written.",
    ),
    (
        "wait",
        "\
Examples:
  graphctl wait web --state ACTIVE --timeout 10
  graphctl wait web --state ACTIVE --since 120
  graphctl wait --settled
  graphctl wait --rejected broken.toml --timeout 5

What holds already returns at once; with --since only a change newer than that revision counts.
Exit codes: 0 it holds, 1 it did not come true in time.",
    ),
    (
        "events",
        "\
Examples:
  graphctl events
  graphctl events web --since 120
  graphctl events -f --json               one record a line

The supervisor keeps the newest 2048 records; where some that were asked for are gone, a line says
how many.",
    ),
    (
        "why",
        "\
Examples:
  graphctl why web
  graphctl why web --json

The newest change comes first, each line followed by what led to it, down to where it began: a
request with its user and process id, a file, or a process that ended or fell ill by itself.",
    ),
    (
        "order",
        "\
Example:
  graphctl order",
    ),
    (
        "layers",
        "\
Example:
  graphctl layers",
    ),
    (
        "scc",
        "\
Example:
  graphctl scc",
    ),
    (
        "reexec",
        "\
Example:
  graphctl reexec

To upgrade process 1, move its new program into the place of the old one first. It is
tried with a copy of the supervisor's state; if it cannot take over, everything runs on as before.
Otherwise the answer comes from the new program and says how long it took.",
    ),
    (
        "poweroff",
        "\
Example:
  graphctl poweroff",
    ),
    (
        "reboot",
        "\
Example:
  graphctl reboot",
    ),
    (
        "completions",
        "\
Examples:
  graphctl completions bash > /etc/bash_completion.d/graphctl
  graphctl completions zsh > /usr/share/zsh/site-functions/_graphctl
  graphctl completions fish > /usr/share/fish/vendor_completions.d/graphctl.fish

Names of components are completed too, by asking the supervisor.",
    ),
    (
        "man",
        "\
Examples:
  graphctl man --dir /usr/share/man/man1
  graphctl man | man -l -",
    ),
];
