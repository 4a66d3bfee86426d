//! How the file system is laid out: from the whole to its parts, so that a part is not lost in the whole.

use nix::libc;
use yakiros_core::component::{Bind, Namespace, Restriction, Tmpfs};

use super::super::Op;
use super::super::apply::SECRET_LIMIT;
use super::super::op::SOURCES_LIMIT;
use super::{Compiler, NotCompiled, c_string};

/// Where secrets are.
pub const SECRETS: &str = "/run/secrets";

/// Whoever mounts one, no program in it gets privileges, and no device in it is one.
const TMPFS_FLAGS: libc::c_ulong = libc::MS_NOSUID | libc::MS_NODEV;

/// The same, and nothing in it is executed.
const KERNEL_FLAGS: libc::c_ulong = TMPFS_FLAGS | libc::MS_NOEXEC;

/// Bytes that a file system in memory takes beside its files.
const OVERHEAD: usize = 64 * 1024;

/// See the module documentation.
pub fn lay_out(compiler: &mut Compiler<'_>, sources: &Sources) -> Result<(), NotCompiled> {
    let isolation = compiler.isolation;
    if !isolation.has(Namespace::Mount) {
        return Ok(());
    }
    if let Some(root) = &isolation.root {
        let read_only = isolation.read_only.iter().any(|path| path == "/");
        let op = Op::EnterRoot { path: c_string(root)?, read_only };
        compiler.must(format!("make {root} the root directory"), op);
    }
    if isolation.root.is_some() {
        make_directory_of_secrets(compiler)?;
    }
    for path in isolation.read_only.iter().filter(|path| *path != "/" || isolation.root.is_none()) {
        let op = Op::ReadOnly(c_string(path)?);
        compiler.restrict(Restriction::ReadOnly, format!("make {path} read-only"), op);
    }
    kernel_file_systems(compiler)?;
    memory(compiler)?;
    for (number, bind) in isolation.binds.iter().enumerate() {
        put(compiler, bind, number)?;
    }
    for path in &isolation.inaccessible {
        let op = Op::Hide { path: c_string(path)?, null: sources.null };
        compiler.restrict(Restriction::Inaccessible, format!("make {path} inaccessible"), op);
    }
    secrets(compiler, sources.first_secret)?;
    if isolation.root.is_some() {
        compiler.must("leave the old root directory", Op::LeaveOldRoot);
    }
    Ok(())
}

/// Places of what was opened.
pub struct Sources {
    /// Binds are before it.
    first_secret: usize,
    /// Secrets are before it.
    null: usize,
}

/// Open what comes from outside, and make what only the machine's root may: before anybody else is become.
pub fn open_sources(compiler: &mut Compiler<'_>) -> Result<Sources, NotCompiled> {
    // A pipe that nobody writes to is not waited for.
    const READ: libc::c_int = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
    let isolation = compiler.isolation;
    let first_secret = isolation.binds.len();
    let null = first_secret + isolation.secrets.len();
    if null >= SOURCES_LIMIT {
        return Err((format!("take more than {} binds and secrets", SOURCES_LIMIT - 1), libc::E2BIG));
    }
    if isolation.has(Namespace::Mount) {
        compiler.must("make mounts private", Op::PrivateMounts);
    }
    for Bind { source, .. } in &isolation.binds {
        compiler.restrict(Restriction::Binds, format!("open {source}"), Op::Tree(c_string(source)?));
    }
    for (_, source) in &isolation.secrets {
        compiler.must(format!("open {source}"), Op::Source { path: c_string(source)?, flags: READ });
    }
    if !isolation.inaccessible.is_empty() {
        let op = Op::Source { path: c"/dev/null".into(), flags: libc::O_PATH };
        compiler.restrict(Restriction::Inaccessible, "open /dev/null", op);
    }
    if isolation.root.is_none() {
        make_directory_of_secrets(compiler)?;
    }
    Ok(Sources { first_secret, null })
}

/// In the machine's `/run` only its root may.
fn make_directory_of_secrets(compiler: &mut Compiler<'_>) -> Result<(), NotCompiled> {
    if !compiler.isolation.secrets.is_empty() {
        compiler.must("make the directory of secrets", Op::MakeDirectory(c_string(SECRETS)?));
    }
    Ok(())
}

/// What the kernel shows of namespaces is what it showed when it was mounted.
fn kernel_file_systems(compiler: &mut Compiler<'_>) -> Result<(), NotCompiled> {
    let isolation = compiler.isolation;
    if isolation.has(Namespace::Pid) {
        let data = if isolation.hidepid { "hidepid=2" } else { "" };
        mount(compiler, Restriction::Kernelfs, "proc", "/proc", KERNEL_FLAGS, data)?;
    }
    // A root of its own shows nothing of the machine's groups.
    if isolation.has(Namespace::Cgroup) && isolation.root.is_none() {
        mount(compiler, Restriction::Kernelfs, "cgroup2", "/sys/fs/cgroup", KERNEL_FLAGS, "")?;
    }
    Ok(())
}

/// File systems in memory.
fn memory(compiler: &mut Compiler<'_>) -> Result<(), NotCompiled> {
    let isolation = compiler.isolation;
    if isolation.private_tmp {
        mount(compiler, Restriction::Tmpfs, "tmpfs", "/tmp", TMPFS_FLAGS, "mode=1777")?;
    }
    for Tmpfs { path, size } in &isolation.tmpfs {
        let size = size.map(|size| format!(",size={size}")).unwrap_or_default();
        make_place(compiler, path)?;
        mount(compiler, Restriction::Tmpfs, "tmpfs", path, TMPFS_FLAGS, &format!("mode=0755{size}"))?;
    }
    Ok(())
}

fn mount(
    compiler: &mut Compiler<'_>,
    by: Restriction,
    kind: &str,
    target: &str,
    flags: libc::c_ulong,
    data: &str,
) -> Result<(), NotCompiled> {
    let op = Op::Mount { kind: c_string(kind)?, target: c_string(target)?, flags, data: c_string(data)? };
    compiler.restrict(by, format!("mount {kind} at {target}"), op);
    Ok(())
}

/// Inside of what is empty there is no place to mount upon yet.
fn make_place(compiler: &mut Compiler<'_>, path: &str) -> Result<(), NotCompiled> {
    let isolation = compiler.isolation;
    let empty = isolation.tmpfs.iter().map(|tmpfs| &*tmpfs.path);
    let mut empty = empty.chain(isolation.private_tmp.then_some("/tmp"));
    if empty.any(|above| above != path && is_below(path, above)) {
        compiler.must(format!("make the directory {path}"), Op::MakeDirectory(c_string(path)?));
    }
    Ok(())
}

fn is_below(path: &str, above: &str) -> bool {
    let rest = path.strip_prefix(above.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn put(compiler: &mut Compiler<'_>, bind: &Bind, number: usize) -> Result<(), NotCompiled> {
    let Bind { source, target, read_only } = bind;
    make_place(compiler, target)?;
    let op = Op::Bind { source: number, target: c_string(target)?, read_only: *read_only };
    compiler.restrict(Restriction::Binds, format!("bind {source} to {target}"), op);
    Ok(())
}

fn secrets(compiler: &mut Compiler<'_>, first: usize) -> Result<(), NotCompiled> {
    let secrets = &compiler.isolation.secrets;
    if secrets.is_empty() {
        return Ok(());
    }
    make_place(compiler, SECRETS)?;
    let data = format!("mode=0755,size={}", secrets.len() * SECRET_LIMIT + OVERHEAD);
    let op = Op::Mount {
        kind: c_string("tmpfs")?,
        target: c_string(SECRETS)?,
        flags: KERNEL_FLAGS,
        data: c_string(&data)?,
    };
    compiler.must(format!("mount tmpfs at {SECRETS}"), op);
    for (number, (name, source)) in (first..).zip(secrets) {
        let target = format!("{SECRETS}/{name}");
        let op = Op::Secret { source: number, target: c_string(&target)? };
        compiler.must(format!("copy {source} to {target}"), op);
    }
    compiler.must(format!("make {SECRETS} read-only"), Op::Seal(c_string(SECRETS)?));
    Ok(())
}
