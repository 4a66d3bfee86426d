//! Chooses the kernel modules that the guest needs and lays them out for a loader that knows nothing.
//!
//! In the guest, `/lib/modules/<release>/` holds the chosen modules unpacked, `modules.dep` and `modules.alias` for
//! BusyBox's `modprobe` (kmod's needs one run of `depmod` first), and `yakiros.order` for the preinit: one line for
//! each module, `name path dependency,dependency` (the last field is `-` when there is none), sorted so that a module
//! comes after all that it depends on. A module
//! that is wanted and neither listed nor built in does not exist for this kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use object::{Object, ObjectSection};

use crate::cpio::{Content, LayerBuilder, Node, NodeKind};
use crate::image::{ImageError, IoContext};

/// Name of the list for the preinit.
pub const ORDER_FILE: &str = "yakiros.order";

/// Modules for the guest, each with the reason. Those built in or missing in a kernel are left out there.
const WANTED: [(&str, &str); 36] = [
    ("virtio_mmio", "the bus of the microvm machine"),
    ("virtio_pci", "the bus of the q35 machine"),
    ("virtio_blk", "disks"),
    ("virtio_net", "network card"),
    ("virtio_console", "the agent's channel"),
    ("virtio_rng", "entropy"),
    ("virtio_balloon", "memory pressure from the host"),
    ("crc32c_generic", "checksums, asked for by name by ext4 and libcrc32c"),
    ("ext4", "disks"),
    ("overlay", "throw-away changes above a disk"),
    ("loop", "disk images inside the guest"),
    ("dm_mod", "base of the device mapper"),
    ("dm_flakey", "lost and failing writes"),
    ("dm_log_writes", "replay of writes"),
    ("nfnetlink", "CRIU starts only with it"),
    ("unix_diag", "CRIU: unix sockets"),
    ("inet_diag", "CRIU: internet sockets"),
    ("tcp_diag", "CRIU: TCP sockets"),
    ("udp_diag", "CRIU: UDP sockets"),
    ("raw_diag", "CRIU: raw sockets"),
    ("af_packet_diag", "CRIU: packet sockets"),
    ("netlink_diag", "CRIU: netlink sockets"),
    ("af_packet", "DHCP clients and captures"),
    ("nf_tables", "CRIU's network lock"),
    ("nf_reject_ipv4", "rules that answer"),
    ("nft_reject", "rules that answer"),
    ("nft_reject_inet", "rules that answer"),
    ("nf_conntrack", "rules about connections"),
    ("nft_ct", "rules about connections"),
    ("veth", "network namespaces"),
    ("bridge", "network namespaces"),
    ("dummy", "network namespaces"),
    ("sch_netem", "delay, loss, reordering"),
    ("sch_tbf", "bandwidth limits"),
    ("tun", "network namespaces without privilege"),
    ("i6300esb", "hardware watchdog"),
];

/// Crypto algorithms are soft dependencies by algorithm, not by module.
const SOFT_PROVIDERS: [(&str, &str); 1] = [("crc32c", "crc32c_generic")];

/// Largest unpacked module accepted; the largest real ones (file systems) have 3 MB, with debug data 60.
const MAX_MODULE: u64 = 128 << 20;
const CHOOSE: &str = "choose the kernel modules";

/// The chosen modules of one kernel.
#[derive(Debug)]
pub(crate) struct ModuleSet {
    release: String,
    /// In load order.
    modules: Vec<Module>,
    builtin: Vec<u8>,
}

#[derive(Debug)]
struct Module {
    name: String,
    /// Relative to `/lib/modules/<release>`, without the suffix of a compression.
    path: String,
    depends: Vec<String>,
    aliases: Vec<String>,
    content: Vec<u8>,
}

impl ModuleSet {
    /// Chooses from `nodes`: everything below `lib/modules` or `usr/lib/modules` of a tree.
    /// `origin` is named in errors.
    pub(crate) fn choose(
        nodes: &BTreeMap<Vec<u8>, Node>,
        release: &str,
        origin: &Path,
    ) -> Result<Self, ImageError> {
        let available = Available::index(nodes, release);
        let builtin = match available.special.get("modules.builtin") {
            Some(content) => read(content, origin)?,
            None => Vec::new(),
        };
        let mut chooser =
            Chooser { available: &available, origin, done: BTreeSet::new(), modules: Vec::new() };
        for (name, _why) in WANTED {
            chooser.add(name)?;
        }
        Ok(Self { release: release.into(), modules: chooser.modules, builtin })
    }

    /// Writes the set to `layer` below `base` (`lib/modules`, or `usr/lib/modules` where `lib` is a link).
    pub(crate) fn write_to(&self, layer: &mut LayerBuilder, base: &str) -> io::Result<()> {
        let dir = format!("{base}/{}", self.release);
        layer.dir(&dir, 0o755)?;
        for module in &self.modules {
            layer.file(format!("{dir}/{}", module.path), 0o644, module.content.clone())?;
        }
        layer.file(format!("{dir}/{ORDER_FILE}"), 0o644, self.order())?;
        layer.file(format!("{dir}/modules.dep"), 0o644, self.dep())?;
        layer.file(format!("{dir}/modules.alias"), 0o644, self.alias())?;
        layer.file(format!("{dir}/modules.builtin"), 0o644, self.builtin.clone())?;
        Ok(())
    }

    /// Names, in load order.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.modules.iter().map(|module| module.name.as_str()).collect()
    }

    fn order(&self) -> String {
        let line = |m: &Module| {
            let depends = if m.depends.is_empty() { "-".to_owned() } else { m.depends.join(",") };
            format!("{} /lib/modules/{}/{} {depends}\n", m.name, self.release, m.path)
        };
        self.modules.iter().map(line).collect()
    }

    /// As depmod writes it: each module with all it needs, in the reverse of the order to load them.
    fn dep(&self) -> String {
        let mut text = String::new();
        for module in &self.modules {
            let needed = self.needed(module);
            let paths = self.modules.iter().rev().filter(|m| needed.contains(m.name.as_str()));
            let paths: String = paths.flat_map(|m| [" ", &m.path]).collect();
            text.extend([module.path.as_str(), ":", &paths, "\n"]);
        }
        text
    }

    /// Names of all that `module` needs, directly or not.
    fn needed<'a>(&'a self, module: &'a Module) -> BTreeSet<&'a str> {
        let mut needed = BTreeSet::new();
        let mut todo = vec![module];
        while let Some(next) = todo.pop() {
            for name in &next.depends {
                if name != &module.name && needed.insert(name.as_str()) {
                    todo.extend(self.modules.iter().find(|m| m.name == *name));
                }
            }
        }
        needed
    }

    fn alias(&self) -> String {
        let pairs =
            self.modules.iter().flat_map(|m| m.aliases.iter().map(|alias| (alias.as_str(), m.name.as_str())));
        pairs.flat_map(|(alias, name)| ["alias ", alias, " ", name, "\n"]).collect()
    }
}

/// The release in the header of a kernel image (bzImage), or in the text of an ELF image.
pub(crate) fn kernel_release(path: &Path) -> Result<String, ImageError> {
    /// Where the boot protocol keeps its signature, and the pointer to the version text.
    const SIGNATURE_AT: usize = 0x202;
    const VERSION_AT: usize = 0x20e;
    const BANNER: &[u8] = b"Linux version ";
    let doing = "read the kernel's release";
    let bytes = fs::read(path).at(doing, path)?;
    let word = |text: &[u8]| {
        let end = text.iter().position(|b| !b.is_ascii_graphic()).unwrap_or(text.len());
        (1..=MAX_RELEASE).contains(&end).then(|| String::from_utf8_lossy(&text[..end]).into_owned())
    };
    let from_header = || {
        if bytes.get(SIGNATURE_AT..SIGNATURE_AT + 4)? != b"HdrS" {
            return None;
        }
        let pointer = bytes.get(VERSION_AT..VERSION_AT + 2)?;
        word(bytes.get(usize::from(u16::from_le_bytes([pointer[0], pointer[1]])) + 0x200..)?)
    };
    let from_banner = || {
        let at = bytes.windows(BANNER.len()).position(|window| window == BANNER)?;
        word(bytes.get(at + BANNER.len()..)?)
    };
    from_header().or_else(from_banner).ok_or_else(|| {
        ImageError::format(doing, path, "neither a bzImage nor an uncompressed kernel: no version text in it")
    })
}

/// `utsname.release` holds 64 bytes with the final zero.
const MAX_RELEASE: usize = 64;

struct Available<'a> {
    /// Module name to path and content.
    modules: BTreeMap<String, (String, &'a Content)>,
    special: BTreeMap<String, &'a Content>,
}

impl<'a> Available<'a> {
    fn index(nodes: &'a BTreeMap<Vec<u8>, Node>, release: &str) -> Self {
        let marker = format!("lib/modules/{release}/");
        let mut available = Self { modules: BTreeMap::new(), special: BTreeMap::new() };
        for (path, node) in nodes {
            let NodeKind::File(content) = &node.kind else { continue };
            let path = String::from_utf8_lossy(path);
            let Some(relative) = path.strip_prefix("usr/").unwrap_or(&path).strip_prefix(&marker) else {
                continue;
            };
            if let Some(name) = module_name(relative) {
                available.modules.insert(name, (relative.to_owned(), content));
            } else if !relative.contains('/') {
                available.special.insert(relative.to_owned(), content);
            }
        }
        available
    }
}

struct Chooser<'a> {
    available: &'a Available<'a>,
    origin: &'a Path,
    done: BTreeSet<String>,
    modules: Vec<Module>,
}

impl Chooser<'_> {
    /// Adds a module after what it depends on. The depth is that of the kernel's dependencies: less than ten.
    fn add(&mut self, name: &str) -> Result<(), ImageError> {
        if !self.done.insert(name.to_owned()) {
            return Ok(());
        }
        let Some((path, content)) = self.available.modules.get(name) else { return Ok(()) };
        let content = unpack(path, read(content, self.origin)?, self.origin)?;
        let info = Info::parse(path, &content, self.origin)?;
        for dependency in &info.depends {
            self.add(dependency)?;
        }
        let present = |name: &String| self.available.modules.contains_key(name);
        self.modules.push(Module {
            name: name.to_owned(),
            path: plain_path(path).to_owned(),
            depends: info.depends.into_iter().filter(present).collect(),
            aliases: info.aliases,
            content,
        });
        Ok(())
    }
}

struct Info {
    depends: Vec<String>,
    aliases: Vec<String>,
}

impl Info {
    fn parse(path: &str, elf: &[u8], origin: &Path) -> Result<Self, ImageError> {
        let bad = |reason: String| ImageError::format(CHOOSE, origin, format!("module {path}: {reason}"));
        let file = object::File::parse(elf).map_err(|e| bad(e.to_string()))?;
        let section = file.section_by_name(".modinfo").ok_or_else(|| bad("no .modinfo section".into()))?;
        let text = section.data().map_err(|e| bad(e.to_string()))?;
        let mut info = Self { depends: Vec::new(), aliases: Vec::new() };
        for field in text.split(|b| *b == 0) {
            let field = String::from_utf8_lossy(field);
            let Some((key, value)) = field.split_once('=') else { continue };
            match key {
                "depends" => info.depends.extend(value.split(',').filter(|n| !n.is_empty()).map(underscored)),
                "alias" => info.aliases.push(value.to_owned()),
                "softdep" => info.depends.extend(soft_dependencies(value)),
                _ => {}
            }
        }
        Ok(info)
    }
}

/// `pre: a b post: c` → what has to be there before.
fn soft_dependencies(text: &str) -> Vec<String> {
    let mut pre = false;
    let mut names = Vec::new();
    for word in text.split_whitespace() {
        match word {
            "pre:" => pre = true,
            "post:" => pre = false,
            name if pre => {
                let provider = SOFT_PROVIDERS.iter().find(|(algorithm, _)| *algorithm == name);
                names.push(underscored(provider.map_or(name, |(_, module)| module)));
            }
            _ => {}
        }
    }
    names
}

fn read(content: &Content, origin: &Path) -> Result<Vec<u8>, ImageError> {
    match content {
        Content::Bytes(bytes) => Ok(bytes.clone()),
        Content::Host(path) => fs::read(path).at(CHOOSE, path),
    }
    .map_err(|e| ImageError::format(CHOOSE, origin, e.to_string()))
}

const SUFFIXES: [&str; 4] = ["", ".gz", ".xz", ".zst"];

fn plain_path(path: &str) -> &str {
    SUFFIXES[1..].iter().find_map(|suffix| path.strip_suffix(suffix)).unwrap_or(path)
}

fn module_name(path: &str) -> Option<String> {
    let file = plain_path(path).rsplit('/').next()?;
    Some(underscored(file.strip_suffix(".ko")?))
}

/// The kernel takes `-` and `_` in module names as the same.
fn underscored(name: &str) -> String {
    name.replace('-', "_")
}

fn unpack(path: &str, packed: Vec<u8>, origin: &Path) -> Result<Vec<u8>, ImageError> {
    let bad = |e: &dyn std::fmt::Display| ImageError::format(CHOOSE, origin, format!("module {path}: {e}"));
    let mut plain = Vec::new();
    let reader: Box<dyn Read + '_> = match path.rsplit_once(".ko").map(|(_, suffix)| suffix) {
        Some(".gz") => Box::new(flate2::read::MultiGzDecoder::new(&packed[..])),
        Some(".xz") => Box::new(lzma_rust2::XzReader::new(&packed[..], true)),
        Some(".zst") => Box::new(ruzstd::decoding::StreamingDecoder::new(&packed[..]).map_err(|e| bad(&e))?),
        _ => return Ok(packed),
    };
    reader.take(MAX_MODULE).read_to_end(&mut plain).map_err(|e| bad(&e))?;
    Ok(plain)
}

#[cfg(test)]
pub(crate) mod tests;
