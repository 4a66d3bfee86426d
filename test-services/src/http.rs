//! HTTP/1.1 for services with a few small answers.

use httparse::{EMPTY_HEADER, Request as Head, Status};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::server::{App, Flow};

/// The most headers of a request.
const HEADERS: usize = 64;
/// The most bytes of a request, head and body together.
const REQUEST_LIMIT: usize = 64 << 10;

/// A request, as far as these services look at it.
#[derive(Debug)]
pub struct Request<'a> {
    /// `GET`, `POST`, …
    pub method: &'a str,
    /// From the first slash, without a query.
    pub path: &'a str,
    /// What follows the head.
    pub body: &'a [u8],
}

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The media type of the body.
    pub kind: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// Plain text.
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        Self { status, kind: "text/plain; charset=utf-8", body: text.into().into_bytes() }
    }

    /// A value as JSON.
    pub fn json(value: &serde_json::Value) -> Self {
        Self { status: 200, kind: "application/json", body: value.to_string().into_bytes() }
    }

    /// There is no such thing.
    pub fn not_found() -> Self {
        Self::text(404, "not found\n")
    }
}

/// A service behind HTTP.
pub trait Site {
    /// See [`App::State`].
    type State: Serialize + DeserializeOwned;
    /// See [`App::VERSION`].
    const VERSION: u32;
    /// See [`App::IN_PARTS`].
    const IN_PARTS: bool = false;

    /// Answer a request.
    fn respond(&mut self, request: &Request<'_>) -> Response;

    /// See [`App::state`].
    fn state(&self) -> Self::State;

    /// See [`App::go_on`].
    fn go_on(&mut self, state: Self::State);

    /// See [`App::bulk`].
    fn bulk(&mut self) -> Option<&mut Vec<u8>> {
        None
    }
}

/// A site as what a server runs.
#[derive(Debug)]
pub struct Http<S>(pub S);

impl<S: Site> App for Http<S> {
    type State = S::State;
    const VERSION: u32 = S::VERSION;
    const IN_PARTS: bool = S::IN_PARTS;

    fn answer(&mut self, input: &mut Vec<u8>, output: &mut Vec<u8>) -> Flow {
        loop {
            let (used, flow) = match next(&mut self.0, input, output) {
                Next::Done(used, flow) => (used, flow),
                Next::Partial if input.len() < REQUEST_LIMIT => return Flow::Go,
                Next::Partial => return refuse(output, 413, "the request is too long\n"),
                Next::Invalid => return refuse(output, 400, "this is no request\n"),
            };
            input.drain(..used);
            if flow == Flow::Close {
                return flow;
            }
        }
    }

    fn state(&self) -> S::State {
        self.0.state()
    }

    fn go_on(&mut self, state: S::State) {
        self.0.go_on(state);
    }

    fn bulk(&mut self) -> Option<&mut Vec<u8>> {
        self.0.bulk()
    }
}

enum Next {
    /// Answered; so many bytes of the input are used.
    Done(usize, Flow),
    /// More has to come.
    Partial,
    Invalid,
}

/// Answer the request at the front of `input`, if it is whole.
fn next(site: &mut impl Site, input: &[u8], output: &mut Vec<u8>) -> Next {
    let mut headers = [EMPTY_HEADER; HEADERS];
    let mut head = Head::new(&mut headers);
    let begin = match head.parse(input) {
        Ok(Status::Complete(begin)) => begin,
        Ok(Status::Partial) => return Next::Partial,
        Err(_) => return Next::Invalid,
    };
    let value = |name: &str| {
        let header = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        str::from_utf8(header.value).ok()
    };
    // Other ways to tell the length are more than these services need.
    if value("Transfer-Encoding").is_some() {
        return Next::Invalid;
    }
    let Ok(length) = value("Content-Length").unwrap_or("0").trim().parse::<usize>() else {
        return Next::Invalid;
    };
    let Some(body) = length.checked_add(begin).and_then(|end| input.get(begin..end)) else {
        return if length > REQUEST_LIMIT { Next::Invalid } else { Next::Partial };
    };
    let (method, target) = (head.method.unwrap_or_default(), head.path.unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let lasting =
        value("Connection").map_or(head.version == Some(1), |value| value.eq_ignore_ascii_case("keep-alive"));
    let response = site.respond(&Request { method, path, body });
    write(output, &response, lasting);
    Next::Done(begin + length, if lasting { Flow::Go } else { Flow::Close })
}

fn refuse(output: &mut Vec<u8>, status: u16, text: &str) -> Flow {
    write(output, &Response::text(status, text), false);
    Flow::Close
}

fn write(output: &mut Vec<u8>, response: &Response, lasting: bool) {
    let Response { status, kind, body } = response;
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        _ => "",
    };
    let connection = if lasting { "keep-alive" } else { "close" };
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n",
        body.len()
    );
    output.extend_from_slice(head.as_bytes());
    output.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Mirror;

    impl Site for Mirror {
        type State = ();
        const VERSION: u32 = 1;

        fn respond(&mut self, request: &Request<'_>) -> Response {
            let body = String::from_utf8_lossy(request.body);
            Response::text(200, format!("{} {} {body}", request.method, request.path))
        }

        fn state(&self) {}

        fn go_on(&mut self, (): ()) {}
    }

    /// What is answered when all of `text` comes in pieces of this size.
    fn answers(text: &str, piece: usize) -> (String, Flow) {
        let (mut input, mut output, mut flow) = (Vec::new(), Vec::new(), Flow::Go);
        for part in text.as_bytes().chunks(piece) {
            input.extend_from_slice(part);
            flow = Http(Mirror).answer(&mut input, &mut output);
            if flow == Flow::Close {
                break;
            }
        }
        (String::from_utf8(output).expect("text"), flow)
    }

    #[test]
    fn requests_are_answered_however_they_come() {
        let text = "GET /a?b HTTP/1.1\r\nHost: x\r\n\r\nPOST /c HTTP/1.1\r\ncontent-length: 3\r\n\r\nxyz";
        let (whole, flow) = answers(text, text.len());
        assert_eq!(flow, Flow::Go);
        assert_eq!(whole.matches("HTTP/1.1 200 OK").count(), 2, "{whole}");
        assert!(whole.contains("\r\n\r\nGET /a ") && whole.ends_with("POST /c xyz"), "{whole}");
        for piece in 1..text.len() {
            assert_eq!(answers(text, piece).0, whole, "in pieces of {piece}");
        }
    }

    #[test]
    fn what_is_wrong_is_refused_and_ends_the_connection() {
        let table = [
            ("\0\0\0\r\n\r\n".to_owned(), "400"),
            ("GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n".to_owned(), "400"),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), "400"),
            (format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", usize::MAX), "400"),
            (format!("GET /{} HTTP/1.1\r\n", "a".repeat(REQUEST_LIMIT)), "413"),
        ];
        for (text, status) in table {
            let (answer, flow) = answers(&text, text.len());
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer}");
            assert_eq!(flow, Flow::Close);
        }
    }

    #[test]
    fn the_client_says_whether_the_connection_lasts() {
        for (head, flow) in [
            ("HTTP/1.1\r\n", Flow::Go),
            ("HTTP/1.0\r\n", Flow::Close),
            ("HTTP/1.1\r\nConnection: close\r\n", Flow::Close),
            ("HTTP/1.0\r\nConnection: Keep-Alive\r\n", Flow::Go),
        ] {
            assert_eq!(answers(&format!("GET / {head}\r\n"), 999).1, flow, "{head}");
        }
    }
}
