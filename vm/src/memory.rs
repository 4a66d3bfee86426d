//! Files that have no name.

use std::ffi::CString;
use std::fs::File;
use std::io;

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::error::VmError;

/// A file without a name, gone with its last user.
pub(crate) fn anonymous_file(name: &str, size: u64) -> Result<File, VmError> {
    let create = || -> io::Result<File> {
        let name = CString::new(name)?;
        let file = memfd_create(name.as_c_str(), MFdFlags::MFD_CLOEXEC)?;
        let file = File::from(file);
        file.set_len(size)?;
        Ok(file)
    };
    create().map_err(VmError::host("make an anonymous file"))
}
