//! Where the program starts.

use yakiros_core::component::Environment;

use super::super::Op;
use super::{Compiler, NotCompiled, c_string};

/// Change to the working directory, if it is not the usual one.
pub fn directory(compiler: &mut Compiler<'_>, environment: &Environment) -> Result<(), NotCompiled> {
    if let Some(path) = &environment.working_directory {
        compiler.must(format!("change to the directory {path}"), Op::Directory(c_string(path)?));
    }
    Ok(())
}
