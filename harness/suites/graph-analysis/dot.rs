//! A strict reader of the part of Graphviz's language that graphctl may use: one `digraph`, statements that end with
//! `;`, identifiers bare or quoted, attributes separated by commas. Anything else is an error with its place.

use std::collections::BTreeMap;

/// Attributes by name.
pub type Attributes = BTreeMap<String, String>;

/// A digraph.
#[derive(Debug, Default)]
pub struct Digraph {
    /// Nodes by id. Every end of an edge has to be one.
    pub nodes: BTreeMap<String, Attributes>,
    /// From, to, attributes.
    pub edges: Vec<(String, String, Attributes)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Id(String),
    Sign(char),
    Arrow,
}

/// Reads a whole text.
pub fn read(text: &str) -> Result<Digraph, String> {
    let mut reader = Reader { tokens: tokens(text)?, at: 0 };
    reader.digraph()
}

/// The tokens, each with the line it is in.
fn tokens(text: &str) -> Result<Vec<(Token, usize)>, String> {
    let mut tokens = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let mut rest = line.chars().peekable();
        let place = |what: &str| format!("line {}: {what}: {line}", number + 1);
        while let Some(first) = rest.next() {
            let token = match first {
                ' ' => continue,
                '{' | '}' | '[' | ']' | '=' | ',' | ';' => Token::Sign(first),
                '-' if rest.next_if_eq(&'>').is_some() => Token::Arrow,
                '"' => Token::Id(quoted(&mut rest).ok_or_else(|| place("a string has no end"))?),
                'a'..='z' | 'A'..='Z' | '_' => {
                    let mut word = String::from(first);
                    while let Some(next) = rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                        word.push(next);
                    }
                    Token::Id(word)
                }
                other => return Err(place(&format!("{other:?} is no part of DOT"))),
            };
            tokens.push((token, number + 1));
        }
    }
    Ok(tokens)
}

fn quoted(rest: &mut impl Iterator<Item = char>) -> Option<String> {
    let mut text = String::new();
    loop {
        match rest.next()? {
            '"' => return Some(text),
            // Other escapes have meanings of their own in labels: not what a name is.
            '\\' => text.push(rest.next().filter(|c| matches!(c, '"' | '\\'))?),
            other => text.push(other),
        }
    }
}

struct Reader {
    tokens: Vec<(Token, usize)>,
    at: usize,
}

impl Reader {
    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).map(|(token, _)| token.clone());
        self.at += 1;
        token
    }

    fn take(&mut self, token: &Token) -> bool {
        let there = self.tokens.get(self.at).is_some_and(|(next, _)| next == token);
        self.at += usize::from(there);
        there
    }

    fn error(&self, expected: &str) -> String {
        let last = self.at.saturating_sub(1);
        match self.tokens.get(last) {
            Some((token, line)) => format!("line {line}: {token:?} instead of {expected}"),
            None => format!("the end instead of {expected}"),
        }
    }

    fn sign(&mut self, sign: char) -> Result<(), String> {
        match self.next() {
            Some(Token::Sign(seen)) if seen == sign => Ok(()),
            _ => Err(self.error(&format!("{sign:?}"))),
        }
    }

    fn id(&mut self) -> Result<String, String> {
        match self.next() {
            Some(Token::Id(id)) => Ok(id),
            _ => Err(self.error("a name")),
        }
    }

    fn digraph(&mut self) -> Result<Digraph, String> {
        if self.id()? != "digraph" {
            return Err("the text does not begin with `digraph`".to_owned());
        }
        self.id()?;
        self.sign('{')?;
        let mut graph = Digraph::default();
        while !self.take(&Token::Sign('}')) {
            self.statement(&mut graph)?;
            self.sign(';')?;
        }
        if self.at != self.tokens.len() {
            return Err("something follows the digraph".to_owned());
        }
        for end in graph.edges.iter().flat_map(|(from, to, _)| [from, to]) {
            if !graph.nodes.contains_key(end) {
                return Err(format!("an edge leads to {end:?}, which is no node"));
            }
        }
        Ok(graph)
    }

    fn statement(&mut self, graph: &mut Digraph) -> Result<(), String> {
        let first = self.id()?;
        if self.take(&Token::Sign('=')) {
            return self.id().map(drop);
        }
        if self.take(&Token::Arrow) {
            let to = self.id()?;
            let attributes = self.attributes()?;
            graph.edges.push((first, to, attributes));
            return Ok(());
        }
        let attributes = self.attributes()?;
        match graph.nodes.insert(first.clone(), attributes) {
            Some(_) => Err(format!("the node {first:?} stands there twice")),
            None => Ok(()),
        }
    }

    fn attributes(&mut self) -> Result<Attributes, String> {
        let mut attributes = Attributes::new();
        if !self.take(&Token::Sign('[')) {
            return Ok(attributes);
        }
        loop {
            let name = self.id()?;
            self.sign('=')?;
            attributes.insert(name, self.id()?);
            if self.take(&Token::Sign(']')) {
                return Ok(attributes);
            }
            self.sign(',')?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn a_graph_is_read_and_a_broken_one_is_not() {
        let graph = read(
            "digraph g {\n  rankdir=LR;\n  \"a \\\"b\" [shape=box];\n  c;\n  \"a \\\"b\" -> c [style=dashed];\n}\n",
        );
        let graph = graph.unwrap();
        assert_eq!(graph.nodes["a \"b"]["shape"], "box");
        assert_eq!(graph.edges[0].1, "c");
        for broken in [
            "graph g {}",
            "digraph g { a -> b; }",
            "digraph g { a }",
            "digraph g { \"a }",
            "digraph g { a [x]; }",
            "digraph g { a; a; }",
            "digraph g { a-b; }",
            "digraph g { \"a\\n\"; }",
            "digraph g {} x",
            "digraph g { a; ",
        ] {
            assert!(read(broken).is_err(), "{broken}");
        }
    }
}
