//! A client of the service that counts.

use serde_json::Value;
use yakiros_vm::agent::Connection;

use crate::failure::Failure;
use crate::vm::Vm;

use super::REACTION;

/// The most that the service answers, in bytes.
const ANSWER_LIMIT: usize = 64 * 1024;

/// One connection, which stays open.
pub struct Client {
    connection: Connection,
}

impl Client {
    pub async fn connect(vm: &Vm) -> Result<Self, Failure> {
        Self::connect_to(vm, "127.0.0.1:8081").await
    }

    /// The same of one that listens elsewhere.
    pub async fn connect_to(vm: &Vm, address: &str) -> Result<Self, Failure> {
        Ok(Self { connection: vm.connect(address).await? })
    }

    /// Have it count one more; what it has counted.
    pub async fn increment(&mut self, vm: &Vm) -> Result<u64, Failure> {
        counter(&self.ask(vm, "POST", "/increment", "").await?)
    }

    /// What it has counted.
    pub async fn count(&mut self, vm: &Vm) -> Result<u64, Failure> {
        counter(&self.ask(vm, "GET", "/status", "").await?)
    }

    /// Have it remember something.
    pub async fn tell(&mut self, vm: &Vm, message: &str) -> Result<Value, Failure> {
        self.ask(vm, "POST", "/message", message).await
    }

    /// All that it remembers.
    pub async fn status(&mut self, vm: &Vm) -> Result<Value, Failure> {
        self.ask(vm, "GET", "/status", "").await
    }

    /// Send a request, and do not wait for the answer.
    pub async fn send(&mut self, vm: &Vm, method: &str, path: &str, body: &str) -> Result<(), Failure> {
        let request = format!("{method} {path} HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        vm.ask("send to the service", REACTION, self.connection.send(request.as_bytes())).await
    }

    /// The answer to what was sent.
    pub async fn receive(&mut self, vm: &Vm) -> Result<Value, Failure> {
        let mut text = String::new();
        loop {
            if let Some(body) = body_of(&text) {
                return serde_json::from_str(body)
                    .map_err(|error| Failure::supervisor(format!("the service said {text:?}: {error}")));
            }
            let more = async { self.connection.receive(vm.limit(REACTION)).await };
            match vm.ask("wait for the service's answer", REACTION, more).await? {
                Some(bytes) if text.len() < ANSWER_LIMIT => text.push_str(&String::from_utf8_lossy(&bytes)),
                Some(_) => return Err(Failure::supervisor("the service says more than it has to say")),
                None => return Err(Failure::supervisor(format!("the connection ended after {text:?}"))),
            }
        }
    }

    async fn ask(&mut self, vm: &Vm, method: &str, path: &str, body: &str) -> Result<Value, Failure> {
        self.send(vm, method, path, body).await?;
        self.receive(vm).await
    }
}

fn counter(status: &Value) -> Result<u64, Failure> {
    status["counter"].as_u64().ok_or_else(|| Failure::supervisor(format!("it has counted {status}")))
}

/// The body of an answer, once all of it is there.
fn body_of(text: &str) -> Option<&str> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    })?;
    body.get(..length)
}
