//! What CRIU's log says of why it gave up.

/// Most reasons that are told: the first is the cause, the others follow from it.
const REASONS_LIMIT: usize = 3;
/// Longest one, in bytes.
const REASON_LIMIT: usize = 300;

/// Errors that are none: CRIU goes on after them, and succeeds.
const HARMLESS: [&str; 1] = ["rlimit: Can't setup RLIMIT_NOFILE for self"];
/// What it says after the reason, whatever that was.
const AFTERWARDS: [&str; 4] =
    ["Dumping FAILED.", "Pre-dumping FAILED.", "Restoring FAILED.", "Dump files (pid:"];

/// What an error with all of these parts means, and what would help.
const MEANINGS: [(&[&str], &str); 9] = [
    (
        &["sockets: Can't get 1:16 opt"],
        "since Linux 6.16 sockets other than unix ones have no SO_PASSCRED: CRIU 4.2 or later is needed",
    ),
    (&["consider using --tcp-established"], "it has connections that are up"),
    (&["Some file locks are hold"], "it holds file locks"),
    (&["Unable to initialize Netlink socket"], "the kernel module nfnetlink is needed"),
    (
        &["are not collected"],
        "a kernel module is needed: unix_diag, inet_diag, tcp_diag, udp_diag or netlink_diag",
    ),
    (
        &["Address already in use"],
        "somebody else listens there, or connections of the old process still close",
    ),
    (&["Can't fork for", "File exists"], "its process number is taken by another process"),
    (&["do not match expected"], "its process number is taken by another process"),
    (&["No space left on device"], "the disk is full"),
];

/// The errors of a log, in words, the cause first.
pub fn reasons(log: &str) -> Vec<String> {
    let errors = log.lines().filter_map(error);
    let told: Vec<&str> =
        errors.filter(|error| !HARMLESS.iter().any(|harmless| error.contains(harmless))).collect();
    let is_cause = |error: &&&str| !AFTERWARDS.iter().any(|after| error.starts_with(after));
    let causes: Vec<_> = told.iter().filter(is_cause).collect();
    let chosen = if causes.is_empty() { told.iter().collect() } else { causes };
    chosen.into_iter().take(REASONS_LIMIT).map(|error| explain(error)).collect()
}

/// `(00.360194) 4711: Error (criu/file.c:628): text`, with or without what comes before.
fn error(line: &str) -> Option<&str> {
    let (before, rest) = line.split_once("Error (")?;
    let stamp = |c: char| c.is_ascii_digit() || " ().:".contains(c);
    // Not in the middle of what another line tells.
    let is_begin = before.trim_start_matches("pie: ").chars().all(stamp);
    let (_, text) = rest.split_once("): ").filter(|_| is_begin)?;
    Some(text.trim())
}

fn explain(error: &str) -> String {
    let end = (0..=error.len().min(REASON_LIMIT)).rev().find(|end| error.is_char_boundary(*end)).unwrap_or(0);
    let error = &error[..end];
    match MEANINGS.iter().find(|(parts, _)| parts.iter().all(|part| error.contains(part))) {
        Some((_, meaning)) => format!("{error} ({meaning})"),
        None => error.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_cause_comes_first() {
        let log = "(00.181480) Error (criu/util.c:1533): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n\
                   (00.189000) Warn  (compel/infect.c:418): Will restore 7 with interrupted system call\n\
                   (00.360194) Error (criu/sockets.c:628): sockets: Can't get 1:16 opt: Operation not supported\n\
                   (00.360204) Error (criu/sockets.c:628): sockets: Can't get 1:34 opt: Operation not supported\n\
                   (00.360227) Error (criu/cr-dump.c:1681): Dump files (pid: 5146) failed with -1\n\
                   (00.430889) Error (criu/cr-dump.c:2111): Dumping FAILED.\n";
        let found = reasons(log);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].starts_with("sockets: Can't get 1:16 opt: Operation not supported (since Linux 6.16 ")
        );
        assert!(found[0].ends_with("CRIU 4.2 or later is needed)"));
    }

    #[test]
    fn only_a_process_number_can_be_taken() {
        let of = |error: &str| reasons(&format!("(00.1) Error (criu/x.c:1): {error}\n")).concat();
        let taken = "(its process number is taken by another process)";
        assert!(of("Can't fork for 4711: File exists").ends_with(taken));
        assert!(of("Pid 4712 do not match expected 4711").ends_with(taken));
        for other in ["Can't link /x: File exists", "Can't fork for 4711: Cannot allocate memory"] {
            assert_eq!(of(other), other);
        }
    }

    #[test]
    fn lines_are_told_apart() {
        // A line, and the reason in it.
        let cases = [
            (" 24549: Error (criu/sk-inet.c:1059): inet: Can't bind", Some("inet: Can't bind")),
            ("Error (criu/cr-dump.c:1): x", Some("x")),
            ("pie: 7: Error (criu/pie/restorer.c:9): Can't map", Some("Can't map")),
            ("(00.1) something said Error (x): y", None),
            ("(00.1) Error without a place", None),
            ("Warn  (criu/x.c:1): Error", None),
            ("", None),
        ];
        for (line, expected) in cases {
            assert_eq!(error(line), expected, "{line}");
        }
    }

    #[test]
    fn what_comes_afterwards_is_told_if_it_is_all() {
        assert_eq!(reasons("Error (criu/cr-dump.c:2111): Dumping FAILED.\n"), ["Dumping FAILED."]);
        assert_eq!(reasons("(00.1) Dumping finished successfully\n"), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn any_log_gives_few_short_reasons(log in "(\\PC{0,40}Error \\([a-z]\\): \\PC{0,500}\n){0,5}") {
            let reasons = reasons(&log);
            prop_assert!(reasons.len() <= REASONS_LIMIT);
            prop_assert!(reasons.iter().all(|reason| reason.len() <= REASON_LIMIT + 150));
        }
    }
}
