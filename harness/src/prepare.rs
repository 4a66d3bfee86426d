//! Everything a run needs before its first guest: image, programs, QEMU, accelerator.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use yakiros_vm::accel::{self, Choice};
use yakiros_vm::cache::Cache;
use yakiros_vm::cpio;
use yakiros_vm::image::{self, BaseImage, ImageRequest, OtherKernel, Progress};
use yakiros_vm::machine::{Host, Machine};
use yakiros_vm::provision::{ProvidedQemu, QemuChoice, provision_qemu};
use yakiros_vm::qemu::Hardware;

use crate::options::Options;
use crate::programs::{Build, Programs};
use crate::progress::Preparation;
use crate::select::select;
use crate::suite::{Config, MachineConfig, Suite};
use crate::vm::{BOOT_INITRD, BOOT_KERNEL, BOOT_OTHER_KERNEL, COMPONENTS, FAULTY_SUPERVISOR};

/// What all machines of a run are made of.
pub struct Prepared {
    /// Kernel and layers.
    pub image: BaseImage,
    /// A layer for suites with daemons of Debian, if any of the run has them.
    daemons: Option<PathBuf>,
    /// For suites that lead the guest into another kernel, if any of the run does.
    other: Option<OtherKernel>,
    /// Our own programs.
    pub programs: Programs,
    /// QEMU and its accelerator.
    pub host: Arc<Host>,
    /// Which QEMU that is, for the report.
    pub qemu: ProvidedQemu,
    /// Why this accelerator.
    pub acceleration: Choice,
}

/// Any error of the preparation, in one line: nothing was tested.
pub type PrepareError = Box<dyn std::error::Error + Send + Sync>;

/// What does not depend on the processor.
struct Provided {
    image: BaseImage,
    daemons: Option<PathBuf>,
    other: Option<OtherKernel>,
    qemu: ProvidedQemu,
    programs: Programs,
}

fn provide(request: &ImageRequest, build: Build, extras: Extras) -> Result<Provided, PrepareError> {
    let progress = Preparation::default();
    let cache = Cache::from_env()?;
    let mut image = image::prepare(&cache, request, &progress)?;
    let daemons = extras.daemons.then(|| image.daemons(&cache, &progress)).transpose()?;
    let other = extras.other_kernel.then(|| image.other_kernel(&cache, request, &progress)).transpose()?;
    let qemu = provision_qemu(&cache, &QemuChoice::from_env(), &progress)?;
    progress.step("build the guest's programs");
    if extras.faulty {
        Programs::build_faulty(build)?;
    }
    let programs = Programs::build_as(build)?;
    if extras.unit_tests {
        progress.step("build the unit tests for the guest");
        programs.build_unit_tests()?;
    }
    Ok(Provided { image, daemons, other, qemu, programs })
}

/// What only some suites and scenarios need.
#[derive(Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is wanted or not by itself")]
struct Extras {
    faulty: bool,
    daemons: bool,
    other_kernel: bool,
    unit_tests: bool,
}

impl Extras {
    /// Nothing, if the options choose nothing: that is told elsewhere.
    fn of(options: &Options) -> Self {
        let selection = select(options).unwrap_or_default();
        let wants = |what: fn(&MachineConfig) -> bool| {
            let mut configs = selection.suites.iter().filter_map(|(suite, _)| suite.config().ok());
            configs.any(|config| what(&config.machine))
        };
        Self {
            faulty: wants(|machine| machine.fault_injection),
            daemons: wants(|machine| machine.daemons),
            other_kernel: wants(|machine| machine.other_kernel),
            unit_tests: selection.scenarios().any(|(_, scenario)| scenario.unit_tests),
        }
    }
}

impl Prepared {
    /// Fetches and builds what is missing. `work` is a folder for this run's own files.
    ///
    /// May be dropped at any time: the downloads and builds under way end with this process.
    pub async fn new(options: &Options, work: &Path) -> Result<Self, PrepareError> {
        let (request, build) = (options.image.clone(), options.profile.programs);
        let extras = Extras::of(options);
        let provided = tokio::task::spawn_blocking(move || provide(&request, build, extras)).await??;
        let Provided { image, daemons, other, qemu, programs } = provided;
        let acceleration = match options.accelerator {
            Some(accelerator) => Choice { accelerator, reason: "asked for on the command line".into() },
            None => accel::choose(&qemu.qemu, &image.kernel, work).await,
        };
        let host = Arc::new(Host { qemu: qemu.qemu.clone(), accelerator: acceleration.accelerator });
        Ok(Self { image, daemons, other, programs, host, qemu, acceleration })
    }

    /// The machine of a suite, not yet booted. Its own layer is written into `work`.
    pub fn machine(
        &self,
        suite: &Suite,
        config: &Config,
        options: &Options,
        work: &Path,
    ) -> Result<Machine, PrepareError> {
        let layer = work.join(format!("{}.cpio", suite.name));
        self.write_layer(&suite.components()?, config.machine.fault_injection, &layer)?;
        let daemons = self.daemons.iter().filter(|_| config.machine.daemons);
        let mut layers: Vec<PathBuf> =
            self.image.layers.iter().chain(daemons).chain([&layer]).cloned().collect();
        let other = self.other.as_ref().filter(|_| config.machine.other_kernel);
        let boot =
            config.machine.boot_files.then(|| self.write_boot_files(&layers, other, work)).transpose()?;
        layers.extend(boot.clone());
        let mut arguments = vec![format!("yakiros.modules={}", config.machine.modules.join(","))];
        match &options.init {
            Some(init) => arguments.push(format!("init={init}")),
            None if config.machine.init_arguments.is_empty() => {}
            // The kernel leaves what follows to the init, so nothing may come after it.
            None => arguments.extend(["--".to_owned(), config.machine.init_arguments.join(" ")]),
        }
        let hardware = Hardware {
            platform: options.platform.unwrap_or(config.machine.platform.into()),
            cpus: config.machine.cpus,
            memory_mb: config.machine.memory_mb,
            // Entered directly where this QEMU can: that saves the time to unpack it in the guest.
            kernel: self.image.vmlinux.as_ref().unwrap_or(&self.image.kernel).clone(),
            arguments,
            disks: Vec::new(),
            network: config.machine.network,
        };
        let machine = Machine::new(Arc::clone(&self.host), hardware, &layers)?;
        // The machine has taken a copy.
        for layer in [Some(layer), boot].into_iter().flatten() {
            fs::remove_file(layer)?;
        }
        Ok(machine)
    }

    /// A layer with the kernel and with all `layers` as one initrd; its path in `work`. The initrd serves the other kernel,
    /// too: it has the modules of both.
    fn write_boot_files(
        &self,
        layers: &[PathBuf],
        other: Option<&OtherKernel>,
        work: &Path,
    ) -> io::Result<PathBuf> {
        let initrd = work.join("initrd");
        let modules = other.map(|other| other.modules.clone());
        let layers: Vec<_> = layers.iter().cloned().chain(modules).collect();
        cpio::concatenate(&layers, &mut fs::File::create(&initrd)?)?;
        let mut layer = self.image.layer();
        if let Some(other) = other {
            layer.host_file(BOOT_OTHER_KERNEL, 0o600, &other.kernel)?;
        }
        layer.host_file(BOOT_KERNEL, 0o600, &self.image.kernel)?;
        layer.host_file(BOOT_INITRD, 0o600, &initrd)?;
        let path = work.join("boot.cpio");
        layer.write_file(&path)?;
        fs::remove_file(initrd)?;
        Ok(path)
    }

    /// The layer on top of the image: our programs and the suite's components.
    fn write_layer(&self, components: &[PathBuf], faulty: bool, to: &Path) -> io::Result<()> {
        const PROGRAM: u32 = 0o755;
        let mut layer = self.image.layer();
        layer.char_device("/dev/console", 0o600, 5, 1)?;
        layer.host_file("/init", PROGRAM, &self.programs.path("preinit"))?;
        layer.host_file("/sbin/yakiros-agent", PROGRAM, &self.programs.path("agent"))?;
        layer.host_file("/sbin/graph-resolver", PROGRAM, &self.programs.path("graph-resolver"))?;
        layer.host_file("/sbin/graph-checkpoint", PROGRAM, &self.programs.path("graph-checkpoint"))?;
        layer.host_file("/usr/bin/graphctl", PROGRAM, &self.programs.path("graphctl"))?;
        if faulty {
            layer.host_file(FAULTY_SUPERVISOR, PROGRAM, &self.programs.faulty_supervisor())?;
        }
        for service in self.programs.test_services()? {
            let name = service.file_name().unwrap_or_default().to_string_lossy().into_owned();
            layer.host_file(format!("/usr/local/bin/{name}"), PROGRAM, &service)?;
        }
        layer.dir(COMPONENTS, 0o755)?;
        for component in components {
            let name = component.file_name().unwrap_or_default().to_string_lossy().into_owned();
            layer.host_file(format!("{COMPONENTS}/{name}"), 0o644, component)?;
        }
        layer.write_file(to).map(drop)
    }
}
