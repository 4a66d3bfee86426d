use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::thread;

use super::*;
use crate::image::Silent;

/// Answers each of `answers` once, in this order, whatever is asked for; what was asked for comes back.
fn server(answers: Vec<&'static str>) -> (String, thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/alpine/", listener.local_addr().unwrap());
    let thread = thread::spawn(move || {
        let answer = |text: &str| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
            let asked = lines.next().unwrap();
            lines.find(String::is_empty);
            stream.write_all(text.as_bytes()).unwrap();
            asked
        };
        answers.into_iter().map(answer).collect()
    });
    (address, thread)
}

#[test]
fn a_server_is_asked_below_its_base() {
    let (address, server) = server(vec!["HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntext"]);
    let mirror = Mirror::parse(&address).unwrap();
    assert_eq!(mirror.read("try", "v1/file", 4).unwrap(), b"text");
    assert_eq!(server.join().unwrap(), ["GET /alpine/v1/file HTTP/1.1"]);
}

#[test]
fn redirections_are_followed() {
    let answers = vec![
        "HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ntext",
    ];
    let (address, server) = server(answers);
    assert_eq!(Mirror::parse(&address).unwrap().read("try", "file", 4).unwrap(), b"text");
    assert_eq!(server.join().unwrap()[1], "GET /elsewhere HTTP/1.1");
}

#[test]
fn failures_of_a_server_name_the_address() {
    let cases = [
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "/alpine/file does not exist"),
        (
            "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
            "/alpine/file could not be fetched: http status: 503",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\ncut",
            "file could not be fetched: after 3 bytes",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ntoo large", "it has more than 8 bytes"),
    ];
    for (answer, expected) in cases {
        let (address, server) = server(vec![answer]);
        let error = Mirror::parse(&address).unwrap().read("try", "file", 8).unwrap_err().to_string();
        assert!(error.starts_with("try: http://127.0.0.1:") && error.contains(expected), "{error}");
        server.join().unwrap();
    }
}

#[test]
fn an_unreachable_server_is_named() {
    // Nobody listens at the port of a client, and nobody else gets it.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let address = client.local_addr().unwrap();
    let mirror = Mirror::parse(&format!("http://{address}")).unwrap();
    let error = mirror.read("try", "file", 8).unwrap_err().to_string();
    assert!(error.contains(&format!("http://{address}/file could not be fetched")), "{error}");
}

#[test]
fn directories_are_mirrors_too() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "text").unwrap();
    let name = dir.path().display();
    for text in [format!("{name}"), format!("{name}/"), format!("file://{name}"), format!("FILE://{name}/")] {
        let mirror = Mirror::parse(&text).unwrap();
        assert_eq!(mirror.url("file"), format!("{name}/file"), "{text}");
        let to = dir.path().join("copy");
        mirror.fetch("try", "file", &to, (4, None), &Silent).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), b"text");
        assert!(mirror.read("try", "file", 3).is_err());
        let error = mirror.read("try", "other", 3).unwrap_err();
        assert!(matches!(error.kind(), ImageErrorKind::NotFound { .. }), "{error}");
    }
}

#[test]
fn addresses_that_cannot_be_used_are_refused() {
    for text in ["ftp://host/alpine", "file://host/alpine"] {
        let error = Mirror::parse(text).unwrap_err().to_string();
        assert!(error.contains(text) && error.contains("https://"), "{error}");
    }
}
