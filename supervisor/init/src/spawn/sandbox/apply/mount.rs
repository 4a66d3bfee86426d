//! The file system as the program sees it: mounts of its own mount namespace (mount_namespaces(7)).
//!
//! What comes from outside is copied before anything is mounted, so that it is what it is there. A mount is changed
//! before it is put into its place, so that it never stands there with too many rights.

use std::ffi::CStr;
use std::os::fd::RawFd;
use std::ptr;

use nix::libc;
use syscalls::{Errno, Sysno, syscall};

use super::{Registers, descriptor};

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
#[derive(Default)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Nothing can be written below.
const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY;

/// Flags for a file that cannot be opened: a device where there are none.
const DEAD: u64 =
    libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;

/// No program in it gets privileges or is executed, and no device in it is one.
const HARMLESS: u64 = libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;

/// `FSOPEN_CLOEXEC` of fsopen(2), `FSCONFIG_CMD_CREATE` of fsconfig(2) and `FSMOUNT_CLOEXEC` of fsmount(2).
const OPEN_CLOEXEC: libc::c_uint = 1;
const CREATE: libc::c_uint = 6;
const MOUNT_CLOEXEC: libc::c_uint = 1;

/// `MOVE_MOUNT_F_EMPTY_PATH` and `MOVE_MOUNT_T_SYMLINKS` of move_mount(2).
const MOVE: libc::c_uint = 0x4 | 0x10;

/// `OPEN_TREE_CLONE` and `OPEN_TREE_CLOEXEC` of open_tree(2).
const CLONE: libc::c_int = 1 | libc::O_CLOEXEC;

/// All mounts below, too.
const RECURSIVE: libc::c_int = 0x8000;

/// What is mounted here from now on is nobody else's, and what others mount is not seen here.
///
/// # Safety
/// Only in a child process.
pub unsafe fn make_private() -> Result<(), Errno> {
    let flags = libc::MS_REC | libc::MS_PRIVATE;
    let none = ptr::null::<libc::c_char>();
    // SAFETY: plain calls on literals.
    unsafe { syscall!(Sysno::mount, none, c"/".as_ptr(), none, flags, none).map(drop) }
}

/// mount(2) of a file system that has no source.
///
/// # Safety
/// Only in a child process.
pub unsafe fn mount(kind: &CStr, target: &CStr, flags: libc::c_ulong, data: &CStr) -> Result<(), Errno> {
    let (name, place) = (kind.as_ptr(), target.as_ptr());
    // SAFETY: plain calls on texts.
    match unsafe { syscall!(Sysno::mount, name, place, name, flags, data.as_ptr()) } {
        // SAFETY: the same.
        Err(Errno::EBUSY) => unsafe { mount_upon_itself(kind, target) },
        done => done.map(drop),
    }
}

/// The same where mount(2) finds the same file system already, as that of control groups, and refuses: another namespace is
/// shown another part of it. The calls that came after it do not mind.
///
/// # Safety
/// Only in a child process.
unsafe fn mount_upon_itself(kind: &CStr, target: &CStr) -> Result<(), Errno> {
    // SAFETY: plain calls on texts and descriptors of the child's own.
    unsafe {
        let context = descriptor(syscall!(Sysno::fsopen, kind.as_ptr(), OPEN_CLOEXEC)?);
        let made = syscall!(Sysno::fsconfig, context, CREATE, 0, 0, 0)
            .and_then(|_| syscall!(Sysno::fsmount, context, MOUNT_CLOEXEC, HARMLESS));
        let _ = syscall!(Sysno::close, context);
        let made = descriptor(made?);
        let moved = syscall!(Sysno::move_mount, made, c"".as_ptr(), libc::AT_FDCWD, target.as_ptr(), MOVE);
        let _ = syscall!(Sysno::close, made);
        moved.map(drop)
    }
}

/// Make a directory the root, and keep the old one for [`leave_old_root`].
///
/// # Safety
/// Only in a child process.
pub unsafe fn enter_root(path: &CStr, read_only: bool, registers: &mut Registers) -> Result<(), Errno> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: plain calls on texts.
    unsafe {
        registers.old_root = descriptor(syscall!(Sysno::openat, libc::AT_FDCWD, c"/".as_ptr(), flags)?);
        put_over(libc::AT_FDCWD, path, path, if read_only { READ_ONLY } else { 0 })?;
        syscall!(Sysno::chdir, path.as_ptr())?;
        // The old root comes to lie upon the new one, as pivot_root(2) describes.
        syscall!(Sysno::pivot_root, c".".as_ptr(), c".".as_ptr()).map(drop)
    }
}

/// Let go of the old root.
///
/// # Safety
/// Only in a child process, after [`enter_root`].
pub unsafe fn leave_old_root(registers: &mut Registers) -> Result<(), Errno> {
    // SAFETY: plain calls on literals and a descriptor of the child's own.
    unsafe {
        syscall!(Sysno::fchdir, registers.old_root)?;
        syscall!(Sysno::umount2, c".".as_ptr(), libc::MNT_DETACH)?;
        syscall!(Sysno::chdir, c"/".as_ptr())?;
        let _ = syscall!(Sysno::close, registers.old_root);
    }
    registers.old_root = -1;
    Ok(())
}

/// A copy of what is mounted at a path and below, as it is now.
///
/// # Safety
/// Only in a child process.
pub unsafe fn tree(path: &CStr) -> Result<RawFd, Errno> {
    // SAFETY: a plain call on a text.
    unsafe { copy(libc::AT_FDCWD, path) }
}

/// Put such a copy in its place. It can be put in one only.
///
/// # Safety
/// Only in a child process.
pub unsafe fn bind(tree: RawFd, target: &CStr, read_only: bool) -> Result<(), Errno> {
    // SAFETY: plain calls on a text and a descriptor of the child's own.
    unsafe { put(tree, target, if read_only { READ_ONLY } else { 0 }) }
}

/// Let nothing be written below a path.
///
/// # Safety
/// Only in a child process.
pub unsafe fn make_read_only(path: &CStr) -> Result<(), Errno> {
    // SAFETY: plain calls on texts.
    unsafe {
        // What lies upon the root is not seen from it: it is changed where it is.
        if path == c"/" {
            return change(libc::AT_FDCWD, path, RECURSIVE, READ_ONLY);
        }
        put_over(libc::AT_FDCWD, path, path, READ_ONLY)
    }
}

/// Let nothing be written in a file system that was just mounted.
///
/// # Safety
/// Only in a child process.
pub unsafe fn seal(path: &CStr) -> Result<(), Errno> {
    // SAFETY: plain calls on texts.
    unsafe { change(libc::AT_FDCWD, path, 0, READ_ONLY) }
}

/// Put an empty directory, or a file that cannot be opened, upon what is at a path.
///
/// # Safety
/// Only in a child process.
pub unsafe fn hide(path: &CStr, null: RawFd) -> Result<(), Errno> {
    let flags = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    // SAFETY: plain calls on texts.
    unsafe {
        match mount(c"tmpfs", path, flags, c"mode=000,size=4k,nr_inodes=1") {
            Err(Errno::ENOTDIR) => put_over(null, c"", path, DEAD),
            done => done,
        }
    }
}

/// Put a copy of what is at a path, with all that is mounted below, upon a target.
///
/// # Safety
/// Only in a child process.
unsafe fn put_over(from: RawFd, path: &CStr, target: &CStr, set: u64) -> Result<(), Errno> {
    // SAFETY: plain calls on texts and descriptors of the child's own.
    unsafe { put(copy(from, path)?, target, set) }
}

/// Copy what is at a path, with all that is mounted below.
///
/// # Safety
/// Only in a child process.
unsafe fn copy(from: RawFd, path: &CStr) -> Result<RawFd, Errno> {
    let flags = CLONE | RECURSIVE | libc::AT_EMPTY_PATH;
    // SAFETY: a plain call on a text.
    unsafe { syscall!(Sysno::open_tree, from, path.as_ptr(), flags).map(descriptor) }
}

/// Change such a copy, put it upon a target, and close it.
///
/// # Safety
/// Only in a child process.
unsafe fn put(tree: RawFd, target: &CStr, set: u64) -> Result<(), Errno> {
    // SAFETY: plain calls on texts and a descriptor of the child's own.
    unsafe {
        let changed = if set == 0 { Ok(()) } else { change(tree, c"", RECURSIVE, set) };
        let moved = changed.and_then(|()| {
            syscall!(Sysno::move_mount, tree, c"".as_ptr(), libc::AT_FDCWD, target.as_ptr(), MOVE)
        });
        let _ = syscall!(Sysno::close, tree);
        moved.map(drop)
    }
}

/// mount_setattr(2).
///
/// # Safety
/// Only in a child process.
unsafe fn change(at: RawFd, path: &CStr, flags: libc::c_int, set: u64) -> Result<(), Errno> {
    let attributes = Attributes { set, ..Attributes::default() };
    let flags = flags | libc::AT_EMPTY_PATH;
    // SAFETY: the structure is the kernel's, of the size that is told.
    unsafe {
        let (value, size) = (&raw const attributes, size_of_val(&attributes));
        syscall!(Sysno::mount_setattr, at, path.as_ptr(), flags, value, size).map(drop)
    }
}
