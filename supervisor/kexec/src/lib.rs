//! Another kernel is loaded beside the one that runs, so that it can be jumped into.
//!
//! Nothing here starts it. Loading is undone by [`load::unload`], and what is wrong is found before anything is loaded:
//! [`bzimage`] reads the kernel's file, [`initrd`] the first bytes of what it begins with, [`machine`] what the running
//! kernel allows.
//!
//! What goes on under the new kernel is named in a [`manifest`] and lies in an [`archive`] behind its initrd; [`phases`] is the
//! way from the first look to the jump, and back from each of its steps.
//!
//! Where the kernel has kexec_file_load(2) it does all of the work. Else [`plan`] lays the new kernel out in memory as the
//! boot protocol of x86 asks for, and kexec_load(2) takes it: the kernel decompresses itself, so that neither kexec-tools nor
//! a checksum over all segments, which takes seconds in an emulator, is needed.

pub mod archive;
pub mod bzimage;
pub mod initrd;
pub mod load;
pub mod machine;
pub mod manifest;
pub mod memory;
pub mod phases;
pub mod plan;
