//! A load that runs in the guest beside a scenario.

use serde::Deserialize;

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

use super::{ECHO_ADDRESS, REACTION};

/// A load under way, with its number.
pub struct Load {
    number: &'static str,
}

/// The part of `test-load`'s verdict that is reported.
#[derive(Debug, Deserialize)]
pub struct Verdict {
    clean: bool,
    pub counts: Counts,
    pub latency_ns: Times,
    pub silence: Silence,
}

#[derive(Debug, Deserialize)]
pub struct Counts {
    pub connections: u64,
    pub replies: u64,
}

#[derive(Debug, Deserialize)]
pub struct Times {
    pub p50: u64,
    pub p999: u64,
}

#[derive(Debug, Deserialize)]
pub struct Silence {
    pub ns: u64,
}

impl Load {
    /// Begin it against the echo server, and wait until it has got replies. `number` tells loads of one guest apart.
    pub async fn begin(vm: &Vm, number: &'static str, options: &str) -> Result<Self, Failure> {
        let script = format!(
            "cd /run; setsid sh -c 'test-load run tcp:{ECHO_ADDRESS} {options} --json > load.{number}.new 2>&1; \
             mv load.{number}.new load.{number}' < /dev/null > /dev/null 2>&1 &
             n=0; until pid=$(pgrep -x test-load -n); do n=$((n+1)); [ $n -le 50 ] || exit 1; sleep 0.1; done
             echo $pid > /run/load.{number}.pid"
        );
        vm.sh(&script).await?;
        Ok(Self { number })
    }

    /// Until every request so far has its reply and nothing was wrong.
    pub async fn end(self, vm: &Vm) -> Result<Verdict, Failure> {
        let number = self.number;
        vm.sh(&format!("kill -TERM $(cat /run/load.{number}.pid)")).await?;
        vm.wait_path(&format!("/run/load.{number}"), REACTION).await?;
        let text = vm.read(&format!("/run/load.{number}")).await?;
        let verdict: Verdict = serde_json::from_str(&text)
            .map_err(|error| Failure::supervisor(format!("test-load printed {text}: {error}")))?;
        check!(verdict.clean, "clients saw it: {text}");
        Ok(verdict)
    }
}
