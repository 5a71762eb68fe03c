//! `vdev hush`: has a passed PL031 go quiet at the end of its VM. The second example of `hypervisor/docs/vdev-guide.md`.
//!
//! Answers for: masking the clock's interrupt and clearing it, and saying whether that has helped. Does not answer for: anything as long as
//! the guest runs; and where a list of steps is enough, `vdev quiesce` does the same without any code.
//!
//! PrimeCell Real Time Clock (PL031) Technical Reference Manual (DDI 0224), chapter 3.

use alloc::{boxed::Box, format, string::ToString, sync::Arc};
use types::AccessSize;
use vdev::{
    AccessFault, AccessSizes, Context, Control, ControlError, Factory, FactoryFlags, Node, OptionError, OptionKind,
    OptionSpec, Options, Registers, Rest, Setup, Vdev, Wake, Way,
};

/// `vdev hush`.
pub static FACTORY: Factory = Factory {
    name: "hush",
    flags: FactoryFlags::LOC_FORBIDDEN.union(FactoryFlags::INTR_FORBIDDEN),
    access_sizes: AccessSizes::empty(),
    options: &[OptionSpec::new("region", OptionKind::Address, "where the guest has the PL031").required()],
    region_size: 0,
    help: "has a passed PL031 go quiet, an example of the vdev guide",
    about: "    vdev hush region 0x1c170000",
    rest: Some(rest),
    ..Factory::new(create)
};

/// RTCIMSC: whether the match interrupts.
const MASK: u64 = 0x10;
/// RTCMIS: whether it does so now.
const STATUS: u64 = 0x18;
/// RTCICR: writing 1 has it do so no more.
const CLEAR: u64 = 0x1c;

struct Hush(Arc<dyn Registers>);

fn rest(options: &Options) -> Result<Rest, OptionError> {
    let region = options.address("region").unwrap_or_default();
    Ok(Rest { region, place: options.place("region"), way: Way::ByItself })
}

fn create(options: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    Ok(Box::new(Hush(setup.registers(options, "region")?)))
}

impl Hush {
    fn quiet(&self) -> Result<bool, AccessFault> {
        self.0.write(MASK, AccessSize::Word, 0)?;
        self.0.write(CLEAR, AccessSize::Word, 1)?;
        Ok(self.0.read(STATUS, AccessSize::Word)? & 1 == 0)
    }
}

impl Vdev for Hush {
    fn read(&mut self, _: u64, _: AccessSize, _: &mut Context<'_>) -> Result<u64, AccessFault> {
        Err(AccessFault::Unsupported)
    }

    fn write(&mut self, _: u64, _: AccessSize, _: u64, _: &mut Context<'_>) -> Result<(), AccessFault> {
        Err(AccessFault::Unsupported)
    }

    fn control(&mut self, event: Control<'_>, _: &mut Context<'_>) -> Result<(), ControlError> {
        match event {
            Control::Terminate => match self.quiet() {
                Ok(true) => Ok(()),
                Ok(false) => Err(ControlError("the clock interrupts still".to_string())),
                Err(fault) => Err(ControlError(format!("the clock cannot be reached: {fault}"))),
            },
            _ => Ok(()),
        }
    }

    fn wake(&mut self, _: Wake, _: &mut Context<'_>) {}

    fn describe(&self, _: &mut Node) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Ipa;
    use vdev::testkit::{Part, Rig, Wires};

    fn hush(clock: &Part) -> Rig {
        let mut wires = Wires::default();
        wires.passed = Some((Ipa(0x1c17_0000), clock.clone()));
        Rig::new(&FACTORY, &[("region", Some("0x1c170000"))], &mut wires).unwrap()
    }

    #[test]
    fn the_clock_is_quiet_at_the_end() {
        let clock = Part::new(|registers, stored, offset| {
            if stored == Some(1) && offset == CLEAR {
                registers.insert(STATUS, 0);
            }
        });
        clock.set(MASK, 1);
        clock.set(STATUS, 1);
        let mut rig = hush(&clock);
        rig.control(Control::GuestStarting).unwrap();
        assert_eq!(clock.stores(), [], "it is the guest's");
        rig.control(Control::Terminate).unwrap();
        assert_eq!((clock.get(MASK), clock.get(STATUS)), (0, 0));
    }

    #[test]
    fn one_that_goes_on_is_said_to() {
        let clock = Part::default();
        clock.set(STATUS, 1);
        let error = hush(&clock).control(Control::Terminate).unwrap_err();
        assert_eq!(error.to_string(), "the clock interrupts still");
    }

    #[test]
    fn it_needs_a_clock_that_is_passed() {
        let error = Rig::new(&FACTORY, &[("region", Some("0x1000"))], &mut Wires::default()).unwrap_err();
        assert!(error[0].message.contains("nothing is passed at 0x1000"), "{error:?}");
    }
}
