//! What supervisor and process say to each other: one line of text a message.
//!
//! The channel is a unix socket of type `SOCK_SEQPACKET`, so a message comes whole or not at all.
//! Words are separated by one space; a text is always last. What cannot be read is an error that
//! ends the upgrade, never a guess. Two messages carry a descriptor: [`Order::Take`] and
//! [`Order::Offer`], the two ends of the connection over which descriptors and state go.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The version of this protocol that [`Report::Hello`] tells.
pub const VERSION: u32 = 1;

/// The longest message, in bytes: a line for people fits, and a reader's buffer stays small.
pub const MESSAGE_LIMIT: usize = 512;

/// The longest text for people within a message, in bytes.
const TEXT_LIMIT: usize = 400;

/// What moves at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// Everything.
    #[default]
    All,
    /// `part=listeners`: what new connections come from, and nothing else. Both serve then: the new process
    /// accepts, the old one goes on with the connections that it has.
    Listeners,
    /// `part=rest`: everything that was left with the old process.
    Rest,
}

/// From the supervisor to the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// `HANDOFF_COMPLETE`: nothing is to be taken over. The first message to a process that
    /// starts with nothing.
    Complete,
    /// `PREPARE generation=N`: the first message to a process that is to take over.
    Prepare {
        /// The number of this start of the component, from 1.
        generation: u64,
    },
    /// `TAKE [part=PART]`, with a descriptor: receive descriptors and state from it.
    Take(Part),
    /// `OFFER generation=N limit_ms=N [part=PART]`, with a descriptor: send descriptors and state to it.
    Offer {
        /// The generation that is to take over.
        generation: u64,
        /// The time until the whole transfer has to be complete.
        limit: Duration,
        /// What is to be sent.
        part: Part,
    },
    /// `COMMIT`: serve.
    Commit,
    /// `ABORT TEXT`: the upgrade has failed; go on as if nothing had been asked, and accept again.
    Abort(String),
    /// `RELEASE`: the next generation serves; end.
    Release,
}

/// From the process to the supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// `HELLO version=N [parts=2]`: it speaks this protocol and can be asked.
    Hello {
        /// [`VERSION`] of its side.
        version: u32,
        /// It can give, and take, listeners first and the rest later.
        parts: bool,
    },
    /// `PREPARED`: whatever it can do beforehand is done.
    Prepared,
    /// `OFFERED generation=N ...`: it has stopped serving, and everything is sent.
    Offered {
        /// Of the [`Order::Offer`] that this answers.
        generation: u64,
        /// What was sent.
        summary: Summary,
    },
    /// `REFUSED generation=N TEXT`: it does not hand over, and serves on.
    Refused {
        /// Of the [`Order::Offer`] that this answers.
        generation: u64,
        /// For people.
        why: String,
    },
    /// `TAKEN ...`: everything is received and verified.
    Taken(Summary),
    /// `READY`: it could serve now, and waits for the word.
    Ready,
    /// `SERVING`: it begins to; sent before the first byte is read or connection accepted.
    Serving,
    /// `FAILED generation=N TEXT`: from the one that is to take over, it cannot; from the one that
    /// serves, it cannot give now or the other one does not take, and it serves on.
    Failed {
        /// The one that is to take over.
        generation: u64,
        /// For people.
        why: String,
    },
}

/// What went over: the two sides' must be equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many descriptors, without the state's.
    pub descriptors: u32,
    /// Size of the state in bytes.
    pub state: u64,
    /// Over identity and name of each descriptor, in order, and the state's version; see
    /// `identity` of the process's side.
    pub digest: u64,
}

/// What is wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageError(String);

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for MessageError {}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete => f.write_str("HANDOFF_COMPLETE"),
            Self::Prepare { generation } => write!(f, "PREPARE generation={generation}"),
            Self::Take(part) => write!(f, "TAKE{part}"),
            Self::Offer { generation, limit, part } => {
                write!(f, "OFFER generation={generation} limit_ms={}{part}", limit.as_millis())
            }
            Self::Commit => f.write_str("COMMIT"),
            Self::Abort(why) => write!(f, "ABORT {}", Text(why)),
            Self::Release => f.write_str("RELEASE"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello { version, parts } => {
                write!(f, "HELLO version={version}{}", if *parts { IN_PARTS } else { "" })
            }
            Self::Prepared => f.write_str("PREPARED"),
            Self::Offered { generation, summary } => write!(f, "OFFERED generation={generation} {summary}"),
            Self::Refused { generation, why } => {
                write!(f, "REFUSED generation={generation} {}", Text(why))
            }
            Self::Taken(summary) => write!(f, "TAKEN {summary}"),
            Self::Ready => f.write_str("READY"),
            Self::Serving => f.write_str("SERVING"),
            Self::Failed { generation, why } => write!(f, "FAILED generation={generation} {}", Text(why)),
        }
    }
}

/// How HELLO says that everything can move in two parts.
const IN_PARTS: &str = " parts=2";

/// As the last word of a message, with the space before it; nothing where everything moves at once, so that those
/// who know nothing of parts never read of them.
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "",
            Self::Listeners => " part=listeners",
            Self::Rest => " part=rest",
        })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { descriptors, state, digest } = self;
        write!(f, "descriptors={descriptors} state={state} digest={digest}")
    }
}

/// A text for people, in one bounded line.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0;
        let end = (0..=text.len().min(TEXT_LIMIT)).rev().find(|end| text.is_char_boundary(*end));
        let kept = &text[..end.unwrap_or(0)];
        kept.chars().try_for_each(|c| write!(f, "{}", if c.is_control() { ' ' } else { c }))
    }
}

impl FromStr for Order {
    type Err = MessageError;

    fn from_str(line: &str) -> Result<Self, MessageError> {
        let mut words = Words::new(line)?;
        let order = match words.name {
            "HANDOFF_COMPLETE" => Self::Complete,
            "PREPARE" => Self::Prepare { generation: words.number("generation")? },
            "TAKE" => Self::Take(words.part()?),
            "OFFER" => Self::Offer {
                generation: words.number("generation")?,
                limit: Duration::from_millis(words.number("limit_ms")?),
                part: words.part()?,
            },
            "COMMIT" => Self::Commit,
            "ABORT" => Self::Abort(words.text()),
            "RELEASE" => Self::Release,
            _ => return Err(words.unknown()),
        };
        words.end(order)
    }
}

impl FromStr for Report {
    type Err = MessageError;

    fn from_str(line: &str) -> Result<Self, MessageError> {
        let mut words = Words::new(line)?;
        let report = match words.name {
            "HELLO" => Self::Hello { version: words.number("version")?, parts: words.last(IN_PARTS) },
            "PREPARED" => Self::Prepared,
            "OFFERED" => Self::Offered { generation: words.number("generation")?, summary: words.summary()? },
            "REFUSED" => Self::Refused { generation: words.number("generation")?, why: words.text() },
            "TAKEN" => Self::Taken(words.summary()?),
            "READY" => Self::Ready,
            "SERVING" => Self::Serving,
            "FAILED" => Self::Failed { generation: words.number("generation")?, why: words.text() },
            _ => return Err(words.unknown()),
        };
        words.end(report)
    }
}

/// A message that is being read.
struct Words<'a> {
    name: &'a str,
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn new(line: &'a str) -> Result<Self, MessageError> {
        if line.len() > MESSAGE_LIMIT {
            return Err(MessageError(format!(
                "a message of {} bytes, {MESSAGE_LIMIT} are allowed",
                line.len()
            )));
        }
        let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
        Ok(Self { name, rest })
    }

    /// The next word, which is `key=NUMBER`.
    fn number<N: FromStr>(&mut self, key: &str) -> Result<N, MessageError> {
        let (word, rest) = self.rest.split_once(' ').unwrap_or((self.rest, ""));
        self.rest = rest;
        let number = word.strip_prefix(key).and_then(|word| word.strip_prefix('='));
        // `parse` would take a sign.
        let number = number.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        number
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| MessageError(format!("{}: {key}=NUMBER expected, got {word:?}", self.name)))
    }

    /// Whether this is all that is left, and take it then.
    fn last(&mut self, word: &str) -> bool {
        let is = self.rest == word.trim_start();
        if is {
            self.rest = "";
        }
        is
    }

    fn part(&mut self) -> Result<Part, MessageError> {
        if self.rest.is_empty() {
            return Ok(Part::All);
        }
        let named = [Part::Listeners, Part::Rest].into_iter().find(|part| self.last(&part.to_string()));
        named.ok_or_else(|| {
            let rest = Text(self.rest).to_string();
            MessageError(format!("{}: part=listeners or part=rest expected, got {rest:?}", self.name))
        })
    }

    fn summary(&mut self) -> Result<Summary, MessageError> {
        Ok(Summary {
            descriptors: self.number("descriptors")?,
            state: self.number("state")?,
            digest: self.number("digest")?,
        })
    }

    fn text(&mut self) -> String {
        Text(std::mem::take(&mut self.rest)).to_string()
    }

    fn unknown(&self) -> MessageError {
        MessageError(format!("no message of this protocol: {:?}", Text(self.name).to_string()))
    }

    fn end<T>(self, read: T) -> Result<T, MessageError> {
        if self.rest.is_empty() {
            return Ok(read);
        }
        Err(MessageError(format!("{}: unexpected {:?}", self.name, Text(self.rest).to_string())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts() -> impl Strategy<Value = String> {
        "\\PC{0,120}"
    }

    fn summaries() -> impl Strategy<Value = Summary> {
        (any::<u32>(), any::<u64>(), any::<u64>()).prop_map(|(descriptors, state, digest)| Summary {
            descriptors,
            state,
            digest,
        })
    }

    fn parts() -> impl Strategy<Value = Part> {
        prop_oneof![Just(Part::All), Just(Part::Listeners), Just(Part::Rest)]
    }

    fn orders() -> impl Strategy<Value = Order> {
        prop_oneof![
            Just(Order::Complete),
            any::<u64>().prop_map(|generation| Order::Prepare { generation }),
            parts().prop_map(Order::Take),
            (any::<u64>(), any::<u32>(), parts()).prop_map(|(generation, limit, part)| Order::Offer {
                generation,
                limit: Duration::from_millis(limit.into()),
                part,
            }),
            Just(Order::Commit),
            texts().prop_map(Order::Abort),
            Just(Order::Release),
        ]
    }

    fn reports() -> impl Strategy<Value = Report> {
        prop_oneof![
            (any::<u32>(), any::<bool>()).prop_map(|(version, parts)| Report::Hello { version, parts }),
            Just(Report::Prepared),
            (any::<u64>(), summaries())
                .prop_map(|(generation, summary)| Report::Offered { generation, summary }),
            (any::<u64>(), texts()).prop_map(|(generation, why)| Report::Refused { generation, why }),
            summaries().prop_map(Report::Taken),
            Just(Report::Ready),
            Just(Report::Serving),
            (any::<u64>(), texts()).prop_map(|(generation, why)| Report::Failed { generation, why }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(order in orders(), report in reports()) {
            for line in [order.to_string(), report.to_string()] {
                prop_assert!(line.len() <= MESSAGE_LIMIT, "{line}");
            }
            prop_assert_eq!(order.to_string().parse(), Ok(order));
            prop_assert_eq!(report.to_string().parse(), Ok(report));
        }

        #[test]
        fn any_line_is_read_or_refused(line in "\\PC{0,600}") {
            let order: Result<Order, _> = line.parse();
            let report: Result<Report, _> = line.parse();
            prop_assert!(order.is_err() || report.is_err(), "no line means both");
        }

        #[test]
        fn a_text_stays_one_bounded_line(text in any::<String>()) {
            let line = Order::Abort(text).to_string();
            prop_assert!(line.len() <= MESSAGE_LIMIT);
            prop_assert!(!line.chars().any(char::is_control));
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let of = |line: &str| line.parse::<Report>().expect_err(line).to_string();
        assert_eq!(of("HELO version=1"), "no message of this protocol: \"HELO\"");
        assert_eq!(of("HELLO version=+1"), "HELLO: version=NUMBER expected, got \"version=+1\"");
        assert_eq!(of("HELLO"), "HELLO: version=NUMBER expected, got \"\"");
        assert_eq!(of("REFUSED not now"), "REFUSED: generation=NUMBER expected, got \"not\"");
        assert_eq!(of("READY now"), "READY: unexpected \"now\"");
        assert_eq!(of("TAKEN descriptors=1 state=2"), "TAKEN: digest=NUMBER expected, got \"\"");
        assert_eq!(of("HELLO version=1 parts=3"), "HELLO: unexpected \"parts=3\"");
        let of_order = |line: &str| line.parse::<Order>().expect_err(line).to_string();
        assert_eq!(
            of_order("TAKE part=half"),
            "TAKE: part=listeners or part=rest expected, got \"part=half\""
        );
        assert_eq!(of(&"x".repeat(513)), "a message of 513 bytes, 512 are allowed");
    }
}
