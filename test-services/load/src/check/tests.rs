use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const MS: u64 = 1_000_000;

fn judge(records: &[(Kind, u32, u64)], windows: &[(u64, u64)]) -> Verdict {
    let mut checker = Checker::new(windows.iter().copied());
    for &(kind, connection, at) in records {
        checker.add(Record { kind, connection, at });
    }
    checker.finish()
}

/// Every fault, in the shortest history that has it.
#[test]
fn each_fault_is_found_alone() {
    use Kind::{Broken, Closed, Damaged, Ended, Opened, Received, Refused, Sent, Stranger};
    let table: &[(&[Kind], &[What])] = &[
        (&[Opened, Sent(0), Received(0), Ended], &[]),
        (&[Opened, Sent(0), Sent(1), Received(0), Received(1), Ended], &[]),
        (&[Opened, Sent(0), Ended], &[What::Lost]),
        (&[Opened, Sent(0)], &[What::Lost]),
        (&[Opened, Sent(0), Received(0), Received(0), Ended], &[What::Duplicated]),
        (&[Opened, Sent(0), Sent(1), Received(1), Received(0), Ended], &[What::Reordered]),
        (&[Opened, Sent(0), Sent(1), Received(1), Ended], &[What::Reordered, What::Lost]),
        (&[Opened, Sent(0), Damaged(0), Ended], &[What::Damaged, What::Lost]),
        (&[Opened, Sent(0), Received(0), Stranger(7), Ended], &[What::Stranger]),
        (&[Opened, Sent(0), Received(0), Received(1), Ended], &[What::Invented]),
        (&[Refused(111)], &[What::Refused]),
        (&[Opened, Sent(0), Received(0), Closed], &[What::Closed]),
        (&[Opened, Sent(0), Broken(104)], &[What::Broken, What::Lost]),
        (&[Opened, Sent(1)], &[What::Senseless]),
        (&[Sent(0)], &[What::Senseless]),
        (&[Opened, Opened], &[What::Senseless]),
        (&[Opened, Ended, Received(0)], &[What::Senseless]),
    ];
    for (history, faults) in table {
        let records: Vec<_> = history.iter().zip(1..).map(|(kind, at)| (*kind, 1, at)).collect();
        let verdict = judge(&records, &[]);
        let found: Vec<_> = verdict.faults.iter().map(|fault| fault.what).collect();
        assert_eq!(&found, faults, "{history:?}");
        assert_eq!(verdict.counts.faults(), faults.len() as u64, "{history:?}");
        assert_eq!(verdict.clean, faults.is_empty(), "{history:?}");
    }
}

#[test]
fn nothing_at_all_is_not_clean() {
    assert!(!judge(&[], &[]).clean);
    assert!(!judge(&[(Kind::Opened, 1, 1), (Kind::Ended, 1, 2)], &[]).clean);
}

/// A client that has asked nothing hears nothing, and that is no silence.
#[test]
fn silence_is_the_time_of_waiting() {
    use Kind::{Ended, Opened, Received, Sent};
    let verdict = judge(
        &[
            (Opened, 1, 0),
            (Sent(0), 1, 100 * MS),
            (Received(0), 1, 103 * MS),
            (Sent(1), 1, 200 * MS),
            (Sent(2), 1, 201 * MS),
            (Received(1), 1, 205 * MS),
            (Received(2), 1, 212 * MS),
            (Ended, 1, 900 * MS),
        ],
        &[(0, 104 * MS), (206 * MS, 207 * MS), (300 * MS, 900 * MS)],
    );
    assert_eq!(verdict.silence, Silence { ns: 7 * MS, connection: 1, since: 205 * MS });
    let of_windows: Vec<_> = verdict.windows.iter().map(|window| window.silence.ns / MS).collect();
    assert_eq!(of_windows, [3, 7, 0]);
    assert_eq!(verdict.windows_silence_ns.expect("windows").count, 3);
    assert_eq!(verdict.latency_ns.count, 3);
    assert!(verdict.latency_ns.max >= 11 * MS, "{:?}", verdict.latency_ns);
}

#[test]
fn silence_without_an_end_lasts_until_the_history_ends() {
    let verdict = judge(&[(Kind::Opened, 1, 0), (Kind::Sent(0), 1, 5), (Kind::Opened, 2, 50)], &[]);
    assert_eq!((verdict.silence.ns, verdict.counts.lost, verdict.counts.unended), (45, 1, 2));
}

#[test]
fn faults_are_counted_beyond_those_described() {
    let records: Vec<_> = (0..100).map(|number| (Kind::Refused(111), number, 1)).collect();
    let verdict = judge(&records, &[]);
    assert_eq!((verdict.counts.refused, verdict.faults.len()), (100, DESCRIBED));
    assert!(verdict.to_string().contains("and 80 more faults"), "{verdict}");
}

/// A history of a right server: connections, their requests, and replies in their order, woven into each other at random.
fn right() -> impl Strategy<Value = Vec<(Kind, u32, u64)>> {
    let steps = prop::collection::vec((0..4_u32, 0..3_u8, 1..9 * MS), 1..200);
    steps.prop_map(|steps| {
        let mut open = BTreeMap::<u32, (u64, u64)>::new();
        let mut records = Vec::new();
        let mut now = 0;
        for (connection, what, passed) in steps {
            now += passed;
            let (sent, received) = open.entry(connection).or_insert_with(|| {
                records.push((Kind::Opened, connection, now));
                (0, 0)
            });
            if what == 0 || received == sent {
                records.push((Kind::Sent(*sent), connection, now));
                *sent += 1;
            } else {
                records.push((Kind::Received(*received), connection, now));
                *received += 1;
            }
        }
        for (connection, (sent, received)) in open {
            records.extend((received..sent).map(|number| (Kind::Received(number), connection, now)));
            records.push((Kind::Ended, connection, now));
        }
        records
    })
}

proptest! {
    #[test]
    fn a_right_history_is_clean(records in right()) {
        let verdict = judge(&records, &[]);
        prop_assert!(verdict.clean, "{}", verdict);
        prop_assert_eq!(verdict.counts.requests, verdict.counts.replies);
    }

    #[test]
    fn one_reply_left_out_or_given_twice_is_found(records in right(), at: prop::sample::Index, twice: bool) {
        let replies: Vec<_> = (0..records.len()).filter(|at| matches!(records[*at].0, Kind::Received(_))).collect();
        let at = replies[at.index(replies.len())];
        let mut broken = records.clone();
        if twice {
            broken.insert(at, records[at]);
        } else {
            broken.remove(at);
        }
        let counts = judge(&broken, &[]).counts;
        prop_assert_eq!((counts.lost, counts.duplicated), (u64::from(!twice), u64::from(twice)));
    }
}
