//! `vdev watch`: tells a guest of another VM's end.
//!
//! Answers for: a page of registers that say whether the VM that is watched runs, how often it has ended and with which code,
//! and an interrupt when it ends. Does not answer for: knowing it (the host's). The original leaves this to a host process
//! that watches `qvm`; here the watcher may be a guest, which for example takes over, or tells a person.
//!
//! | offset | | |
//! |---|---|---|
//! | 0x00 | `MAGIC` | reads 0x48435457 (`WTCH`) |
//! | 0x04 | `STATE` | 1 while the VM lives, else 0 |
//! | 0x08 | `ENDS` | how often it has ended since this guest started |
//! | 0x0c | `CODE` | exit code of its last end; all ones if there was none |
//! | 0x10 | `INTERRUPT` | bit 0 is set when it ends, and asserts the interrupt; writing a one clears it |
//!
//! A VM that is started again has ended before: `ENDS` grows, and `STATE` goes back to 1.

use crate::plug::Plug;
use alloc::{
    boxed::Box,
    string::{String, ToString},
};
use types::AccessSize;
use vdev::{
    AccessFault, Context, Control, ControlError, Factory, Node, OptionError, OptionKind, OptionSpec, Options, Safety,
    Setup, Trigger, Vdev, Wake,
};

const REGION_SIZE: u64 = 0x1000;
const MAGIC: u32 = 0x4843_5457;

/// `vdev watch`.
pub(crate) static FACTORY: Factory = Factory {
    name: "watch",
    options: OPTIONS,
    safety: Safety::Qualified,
    region_size: REGION_SIZE,
    help: "tells the guest of another VM's end",
    about: "Its registers say whether that VM lives, how often it has ended, and with which\n\
        code. There need not be such a VM yet.\n\n    \
        vdev watch loc 0x1c0b0000 intr gic:43 vm linux",
    ..Factory::new(create)
};

const VM: &str = "vm";

static OPTIONS: &[OptionSpec] = &[OptionSpec::new(VM, OptionKind::Text, "the VM that is watched").required()];

struct Watch {
    plug: Plug,
    vm: String,
    lives: bool,
    ends: u32,
    code: u32,
    pending: bool,
}

fn create(options: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    let plug = Plug::new(setup)?;
    let vm = options.text(VM).unwrap_or_default().to_string();
    setup.watch(VM, &vm)?;
    Ok(Box::new(Watch { plug, vm, lives: false, ends: 0, code: u32::MAX, pending: false }))
}

impl Vdev for Watch {
    fn read(&mut self, offset: u64, _: AccessSize, _: &mut Context<'_>) -> Result<u64, AccessFault> {
        Ok(u64::from(match offset {
            0x00 => MAGIC,
            0x04 => u32::from(self.lives),
            0x08 => self.ends,
            0x0c => self.code,
            0x10 => u32::from(self.pending),
            _ => return Err(AccessFault::Unsupported),
        }))
    }

    fn write(&mut self, offset: u64, _: AccessSize, value: u64, context: &mut Context<'_>) -> Result<(), AccessFault> {
        match offset {
            0x10 if value & 1 != 0 => {
                self.pending = false;
                self.plug.settle(false, context);
                Ok(())
            }
            0x00..=0x10 => Ok(()),
            _ => Err(AccessFault::Unsupported),
        }
    }

    fn control(&mut self, event: Control<'_>, context: &mut Context<'_>) -> Result<(), ControlError> {
        match event {
            Control::Reset => {
                (self.ends, self.code, self.pending) = (0, u32::MAX, false);
                self.plug.settle(false, context);
            }
            Control::Status(report) => {
                let Self { vm, ends, code, .. } = self;
                let state = if self.lives { "lives" } else { "does not live" };
                let code = if *ends > 0 { alloc::format!(", last with code {code}") } else { String::new() };
                return self.plug.report(report, format_args!("`{vm}` {state}, has ended {ends} times{code}"));
            }
            _ => {}
        }
        Ok(())
    }

    fn wake(&mut self, wake: Wake, context: &mut Context<'_>) {
        match wake {
            Wake::VmLives => self.lives = true,
            Wake::VmEnded { code } => {
                (self.lives, self.code) = (false, u32::from(code));
                self.ends = self.ends.wrapping_add(1);
                self.pending = true;
                self.plug.settle(true, context);
            }
            _ => {}
        }
    }

    fn describe(&self, parent: &mut Node) {
        let node = self.plug.node("watch", &["bulkhead,watch"], REGION_SIZE, Trigger::Level);
        parent.add(node.text("bulkhead,vm", &self.vm));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vdev::testkit::{Rig, Wires};

    fn watch() -> Rig {
        Rig::new(&FACTORY, &[("vm", Some("linux"))], &mut Wires::default()).unwrap()
    }

    #[test]
    fn an_end_is_counted_and_interrupts_until_it_is_acknowledged() {
        let mut rig = watch();
        assert_eq!([rig.read(0), rig.read(4), rig.read(8), rig.read(0xc)], [u64::from(MAGIC), 0, 0, 0xffff_ffff]);
        rig.wake_for(Wake::VmLives);
        assert_eq!((rig.read(4), rig.line()), (1, false));
        rig.wake_for(Wake::VmEnded { code: 6 });
        assert_eq!([rig.read(4), rig.read(8), rig.read(0xc), rig.read(0x10)], [0, 1, 6, 1]);
        assert!(rig.line());
        rig.write(0x10, 2);
        assert!(rig.line(), "a zero clears nothing");
        rig.write(0x10, 1);
        assert!(!rig.line() && rig.read(0x10) == 0);
        rig.wake_for(Wake::VmLives);
        assert_eq!([rig.read(4), rig.read(8), rig.read(0xc)], [1, 1, 6]);
    }

    #[test]
    fn there_is_nothing_beyond_the_registers_and_constants_stay() {
        let mut rig = watch();
        rig.write(0, 7);
        assert_eq!(rig.read(0), u64::from(MAGIC));
        assert_eq!(rig.try_read(0x14, AccessSize::Word), Err(AccessFault::Unsupported));
        assert_eq!(rig.try_write(0x14, AccessSize::Word, 1), Err(AccessFault::Unsupported));
    }

    #[test]
    fn it_needs_a_name_and_says_what_it_sees() {
        let error = Rig::new(&FACTORY, &[], &mut Wires::default()).unwrap_err();
        assert_eq!(error[0].message, "option `vm` is missing");
        let mut rig = watch();
        assert_eq!(rig.status(), "device: `linux` does not live, has ended 0 times\n");
        rig.wake_for(Wake::VmEnded { code: 3 });
        assert_eq!(rig.status(), "device: `linux` does not live, has ended 1 times, last with code 3\n");
        assert!(rig.describe().contains("bulkhead,vm = \"linux\""), "{}", rig.describe());
    }
}
