//! Programs to which something happens at a point that is named: CRIU, and the worker that calls it.

use crate::check;
use crate::failure::Failure;
use crate::vm::Vm;

use super::REACTION;

/// What stands in their places; see there for what it is told.
const PROGRAM: &str = "/usr/local/bin/test-tripwire";
/// For CRIU to tell each step, which it comes to when it is about to tell it.
pub const TELL: &str = "+--verbosity=4\n";

/// What is asked of the supervisor when a wire is tripped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Checkpoint,
    Move,
    Restore,
}

/// A program with wires.
pub struct Tripwire {
    place: String,
}

impl Tripwire {
    /// In the place of CRIU.
    pub async fn criu(vm: &Vm) -> Result<Self, Failure> {
        let place = vm.sh("command -v criu").await?.trim().to_owned();
        Self::put(vm, place).await
    }

    /// In the place of the worker.
    pub async fn worker(vm: &Vm) -> Result<Self, Failure> {
        Self::put(vm, "/sbin/graph-checkpoint".to_owned()).await
    }

    async fn put(vm: &Vm, place: String) -> Result<Self, Failure> {
        vm.sh(&format!("mv {place} {place}.real && ln -s {PROGRAM} {place}")).await?;
        Ok(Self { place })
    }

    /// From now on these are its wires.
    pub async fn set(&self, vm: &Vm, wires: &str) -> Result<(), Failure> {
        vm.sh(&format!("rm -f {0}.tripped {0}.held", self.place)).await?;
        vm.write(&format!("{}.wires", self.place), wires).await
    }

    /// It has come to this point.
    pub async fn was_tripped(&self, vm: &Vm, text: &str) -> Result<(), Failure> {
        let tripped = vm.sh(&format!("cat {}.tripped 2> /dev/null || true", self.place)).await?;
        check!(tripped.lines().any(|line| line == text), "it has not come to {text:?}, but {tripped:?}");
        Ok(())
    }

    /// It stands still at the point.
    pub async fn is_held(&self, vm: &Vm) -> Result<(), Failure> {
        vm.wait_path(&format!("{}.held", self.place), REACTION).await
    }

    /// It goes on.
    pub async fn let_go(&self, vm: &Vm) -> Result<(), Failure> {
        vm.sh(&format!("rm -f {}.held", self.place)).await.map(drop)
    }

    /// The program itself is there again.
    pub async fn remove(self, vm: &Vm) -> Result<(), Failure> {
        vm.sh(&format!("mv {0}.real {0}; rm -f {0}.wires {0}.tripped {0}.held", self.place)).await.map(drop)
    }
}
