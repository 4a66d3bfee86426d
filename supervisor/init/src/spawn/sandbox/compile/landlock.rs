//! Paths of Landlock, as rights below them.

use yakiros_core::component::{Component, Restriction};

use super::super::Op;
use super::{Compiler, NotCompiled, c_string};

/// `LANDLOCK_ACCESS_FS_EXECUTE`.
const EXECUTE: u64 = 1;

/// `…_READ_FILE` and `…_READ_DIR`.
const READ: u64 = 1 << 2 | 1 << 3;

/// `…_WRITE_FILE`, those that remove and make, `…_REFER` (Linux 5.19) and `…_TRUNCATE` (Linux 6.2).
const WRITE: u64 = 1 << 1 | (((1 << 15) - 1) & !((1 << 4) - 1));

/// See the module documentation. The program itself can always be read and executed.
pub fn restrict(compiler: &mut Compiler<'_>, component: &Component) -> Result<(), NotCompiled> {
    let security = compiler.security;
    if !security.has_landlock() {
        return Ok(());
    }
    let kinds = [
        (&security.landlock_read, READ, "reading"),
        (&security.landlock_write, WRITE, "writing"),
        (&security.landlock_execute, EXECUTE, "executing"),
    ];
    let handled =
        kinds.iter().filter(|(paths, ..)| !paths.is_empty()).fold(0, |all, (_, right, _)| all | right);
    compiler.restrict(Restriction::Landlock, "begin a Landlock ruleset", Op::LandlockBegin(handled));
    for (paths, access, what) in kinds {
        for path in paths {
            let op = Op::LandlockAllow { path: c_string(path)?, access };
            compiler.restrict(Restriction::Landlock, format!("allow {what} below {path} by Landlock"), op);
        }
    }
    let binary = &component.binary;
    let access = handled & (READ | EXECUTE);
    if access != 0 {
        let op = Op::LandlockAllow { path: c_string(binary)?, access };
        compiler.restrict(Restriction::Landlock, format!("allow executing {binary} by Landlock"), op);
    }
    compiler.restrict(Restriction::Landlock, "restrict it by Landlock", Op::LandlockRestrict);
    Ok(())
}
