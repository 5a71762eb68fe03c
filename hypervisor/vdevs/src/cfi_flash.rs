//! `vdev cfi-flash`: a bank of NOR flash for what firmware keeps.
//!
//! Answers for: options, what is in the bank when the VM starts, device tree (Linux `cfi-flash` binding). Does not answer for:
//! commands ([`chip`]), nor for code: every load from the bank is an exit, and none of it can be executed. The firmware's image is
//! `rom` (docs/design/023-flash.md).

mod chip;

use crate::plug::Plug;
use alloc::{boxed::Box, format};
use chip::{Chip, SIZE};
use types::{AccessSize, Ipa};
use vdev::{
    AccessFault, AccessSizes, Context, Control, ControlError, Factory, FactoryFlags, Node, OptionError, OptionKind,
    OptionSpec, Options, Safety, Setup, Trigger, Vdev, Wake,
};

/// Where U-Boot and EDK2 for QEMU's virt machine have what they keep.
const DEFAULT: Ipa = Ipa(0x0400_0000);

const FILE: &str = "file";

/// `vdev cfi-flash`.
pub(crate) static FACTORY: Factory = Factory {
    name: "cfi-flash",
    flags: FactoryFlags::LOC_MEM.union(FactoryFlags::INTR_FORBIDDEN),
    access_sizes: AccessSizes::all(),
    options: OPTIONS,
    safety: Safety::Qualified,
    region_size: SIZE,
    default_location: Some(DEFAULT),
    help: "NOR flash for what firmware keeps (CFI, Intel command set)",
    about: "Four blocks of 256 KiB: U-Boot's environment, UEFI's variables. What is written\n\
        lasts as long as the VM does; one that is started again finds what `file` has.\n\
        It holds data only: firmware itself goes into `rom`.\n\n    \
        vdev cfi-flash loc 0x04000000",
    ..Factory::new(create)
};

static OPTIONS: &[OptionSpec] =
    &[OptionSpec::new(FILE, OptionKind::File, "what is in it at the start, at most 1 MiB; else it is blank")];

struct CfiFlash {
    plug: Plug,
    chip: Chip,
}

fn create(options: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    let contents = setup.file(options, FILE)?.unwrap_or_default();
    let chip = Chip::new(contents)
        .ok_or_else(|| options.error(FILE, format!("{} bytes do not fit into {SIZE}", contents.len())))?;
    Ok(Box::new(CfiFlash { plug: Plug::new(setup)?, chip }))
}

impl Vdev for CfiFlash {
    fn read(&mut self, offset: u64, size: AccessSize, _: &mut Context<'_>) -> Result<u64, AccessFault> {
        Ok(self.chip.read(offset, size))
    }

    fn write(&mut self, offset: u64, size: AccessSize, value: u64, _: &mut Context<'_>) -> Result<(), AccessFault> {
        self.chip.write(offset, size, value);
        Ok(())
    }

    fn control(&mut self, event: Control<'_>, _: &mut Context<'_>) -> Result<(), ControlError> {
        match event {
            Control::Reset => self.chip.reset(),
            Control::Status(report) => return self.plug.report(report, format_args!("{}", self.chip)),
            _ => {}
        }
        Ok(())
    }

    fn wake(&mut self, _: Wake, _: &mut Context<'_>) {}

    fn describe(&self, parent: &mut Node) {
        parent.add(self.plug.node("flash", &["cfi-flash"], SIZE, Trigger::Level).number("bank-width", 4));
    }
}

#[cfg(test)]
mod tests;
