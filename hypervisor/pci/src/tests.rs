//! A function with everything there is, and a guest that deals with it as Linux does.

mod enumeration;
mod function;
mod properties;

use crate::testkit::Slots;
use crate::{
    Bar, Capability, Configuration, Description, Endpoint, Function, Identity, Interrupts, Messages, Region, Width,
};
use alloc::boxed::Box;
use alloc::vec;
use types::AccessSize;
use vdev::testkit::Wires;
use vdev::{
    AccessFault, AccessSizes, Context, Control, ControlError, Factory, FactoryFlags, OptionError, Options, Setup, Vdev,
    Wake,
};

/// Registers: what is stored at 0 is the pin's level; what is stored at 4 is a vector to be raised; 0x38 says whether messages are
/// enabled; the rest is memory. Its watched
/// capability counts how often it is read, and what is written there goes to the memory.
struct Toy {
    interrupts: Interrupts,
    memory: [u64; 8],
    reads: u64,
}

const CAPABILITY: u16 = 0x4c;
const VECTORS: u16 = 3;

impl Function for Toy {
    fn read(&mut self, region: Region, offset: u64, _: AccessSize, _: &mut Context<'_>) -> Result<u64, AccessFault> {
        match region {
            Region::Bar(0) if offset == 0x38 => Ok(self.interrupts.has_messages().into()),
            Region::Bar(0) => {
                self.memory.get(usize::try_from(offset / 8).unwrap()).copied().ok_or(AccessFault::Unsupported)
            }
            Region::Bar(index) => Ok(u64::from(index) << 32 | offset),
            Region::Window => Ok(offset),
        }
    }

    fn write(
        &mut self,
        _: Region,
        offset: u64,
        _: AccessSize,
        value: u64,
        context: &mut Context<'_>,
    ) -> Result<(), AccessFault> {
        match offset {
            0 => self.interrupts.set_level(value != 0, context),
            4 => {
                let sent = self.interrupts.send(u16::try_from(value).unwrap_or(u16::MAX), context);
                assert_eq!(sent, self.interrupts.has_messages());
            }
            _ => self.memory[usize::try_from(offset / 8).unwrap() % 8] = value,
        }
        Ok(())
    }

    fn control(&mut self, _: Control<'_>, _: &mut Context<'_>) -> Result<(), ControlError> {
        Ok(())
    }

    fn wake(&mut self, _: Wake, context: &mut Context<'_>) {
        self.interrupts.set_level(true, context);
    }

    fn configuration(&mut self, event: Configuration<'_>, _: &mut Context<'_>) {
        match event {
            Configuration::Read { space, capability, at, .. } if at & !3 == CAPABILITY + 4 => {
                assert_eq!(capability, CAPABILITY);
                self.reads += 1;
                space.set(CAPABILITY + 4, AccessSize::Word, self.reads);
            }
            Configuration::Written { space, capability, at, size } if at & !3 == CAPABILITY + 8 => {
                assert_eq!(capability, Some(CAPABILITY));
                self.memory[1] = space.read(at, size);
            }
            Configuration::Written { capability, at, .. } => {
                assert_eq!(capability, (CAPABILITY..CAPABILITY + 12).contains(&at).then_some(CAPABILITY));
            }
            Configuration::Read { .. } => {}
        }
    }
}

fn create(_: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    let words = AccessSizes::WORD.union(AccessSizes::DOUBLEWORD);
    let description = Description {
        bars: vec![
            Bar { index: 0, size: 0x1000, width: Width::Bits32, sizes: words },
            Bar { index: 2, size: 0x4000, width: Width::Bits64, sizes: AccessSizes::all() },
        ],
        capabilities: vec![Capability {
            id: 9,
            body: vec![0; 10],
            writable: vec![0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
            is_watched: true,
        }],
        messages: Some(Messages { bar: 1, vectors: VECTORS }),
        ..Description::new(Identity::new(0x1234, 0x5678, 0xff_0000))
    };
    Endpoint::attach(setup, &description, |_, interrupts| Ok(Toy { interrupts, memory: [0; 8], reads: 0 }))
}

static TOY: Factory = Factory {
    name: "toy",
    flags: FactoryFlags::LOC_PCI,
    help: "does little, in every way there is",
    ..Factory::new(create)
};

/// So many of it, in the devices from 1 on.
fn toys(count: usize) -> Slots {
    Slots::new(&vec![(&TOY, [].as_slice()); count], true, &mut Wires::default()).unwrap()
}
