//! Shared memory as a function of the PCI bus.
//!
//! Answers for: who it is there, and that its factory page is BAR 0. Does not answer for: everything else, which is as in memory.

use super::{FACTORY, REGION_SIZE, Shmem, make};
use alloc::{boxed::Box, vec};
use pci::{Bar, Description, Endpoint, Function, Identity, Region, Width};
use types::AccessSize;
use vdev::{AccessFault, Context, Control, ControlError, OptionError, Options, Setup, Vdev, Wake};

/// As in the original; class 05 80 00, a memory controller of no other kind.
const IDENTITY: Identity = Identity::new(Identity::VENDOR, 0x0001, 0x05_8000);

/// The device on the bus. Offsets in BAR 0 are those of the factory page, and those of the window are behind them, in memory as here.
struct OnBus(Shmem);

pub(super) fn attach(options: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    let page = Bar { index: 0, size: REGION_SIZE, width: Width::Bits32, sizes: FACTORY.access_sizes };
    let description = Description { bars: vec![page], ..Description::new(IDENTITY) };
    Endpoint::attach(setup, &description, |setup, interrupts| make(options, setup, Some(interrupts)).map(OnBus))
}

impl Function for OnBus {
    fn read(
        &mut self,
        _: Region,
        offset: u64,
        size: AccessSize,
        context: &mut Context<'_>,
    ) -> Result<u64, AccessFault> {
        self.0.read(offset, size, context)
    }

    fn write(
        &mut self,
        _: Region,
        offset: u64,
        size: AccessSize,
        value: u64,
        context: &mut Context<'_>,
    ) -> Result<(), AccessFault> {
        self.0.write(offset, size, value, context)
    }

    fn control(&mut self, event: Control<'_>, context: &mut Context<'_>) -> Result<(), ControlError> {
        self.0.control(event, context)
    }

    fn wake(&mut self, wake: Wake, context: &mut Context<'_>) {
        self.0.wake(wake, context);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shmem::registers::SIGNATURE;
    use pci::testkit::Slots;
    use types::{Ipa, PAGE_SIZE};
    use vdev::DeviceId;
    use vdev::testkit::{Rig, Shared, Wires};

    const PAGE: u64 = 0x1000_0000;

    #[test]
    fn a_guest_finds_the_factory_page_in_bar_0_and_the_regions_behind_it() {
        let mut wires = Wires::default();
        let mut slots = Slots::new(&[(&FACTORY, &[])], true, &mut wires).unwrap();
        let slot = Slots::slot(1);
        assert_eq!((slots.config(slot, 0), slots.config(slot, 8)), (0x0001_1c05, 0x0580_0000));
        slots.set_config(slot, 0x10, u32::MAX);
        assert_eq!(slots.config(slot, 0x10), 0xffff_f000, "a page");
        assert_eq!((slots.config(slot, 0x34), slots.config(slot, 0x3c) >> 8), (0, 1), "no messages, but INTA");
        slots.set_config(slot, 0x10, 0x1000_0000);
        slots.set_config(slot, 0x04, 2);
        assert_eq!(slots.try_read(Ipa(PAGE), AccessSize::Doubleword), Ok(SIGNATURE));
        let line = Slots::line_of(slot);
        assert_eq!(slots.read(Ipa(PAGE + 0x10)), line.0, "`vector`");

        slots.try_write(Ipa(PAGE + 0x1c), AccessSize::Byte, b'a'.into()).unwrap();
        slots.write(Ipa(PAGE + 0x18), 3);
        wires.shared.work(Ok(()));
        slots.wake(DeviceId(1), Wake::Backend);
        assert_eq!((slots.read(Ipa(PAGE + 0x14)), slots.read(Ipa(PAGE + 0x18))), (0, 3));
        let control = slots.try_read(Ipa(PAGE + 8), AccessSize::Doubleword).unwrap();
        assert_eq!(control, Rig::WINDOW.0);
        assert_eq!(slots.read(Ipa(control + 4)), u32::from(Shared::CLIENT));
        assert_eq!(slots.try_read(Ipa(control + PAGE_SIZE), AccessSize::Word), Err(AccessFault::Unsupported));

        wires.shared.ring(0, 1 << 5);
        slots.wake(DeviceId(1), Wake::Backend);
        assert!(slots.lines.level(line));
        assert_eq!(slots.read(Ipa(control)) & 0xffff, 1 << 5);
        assert!(!slots.lines.level(line));
        slots.control(DeviceId(1), Control::Reset).unwrap();
        assert!(!wires.shared.is_attached(0));
    }
}
