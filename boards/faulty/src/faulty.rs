//! `vdev faulty`: does what no device should, when it is told to.
//!
//! Answers for: failing in every way that code can fail, in every call that a device gets, so that tests can see what is
//! left of the machine. Does not answer for: anything useful.
//!
//! `when` says in which call, `how` says how; a guest's write that is not zero is one of the calls, and its value, if it is
//! above 1, is the number of the way (2: `abort` and so on). `worker` fails in the device's worker, which such a write rings, and
//! `wake` in the device when the worker has sent its pulse. `ended` fails when the guest has dealt with the device's interrupt,
//! which such a write asserts; with `how never` such a device is one to test interrupts with. It counts those ends, has a register
//! for its line, and sends messages: by itself, or as a function of the machine's would, by way of the machine's ITS.

use alloc::{boxed::Box, string::ToString, vec::Vec};
use types::{AccessSize, Ipa, RequesterId};
use vdev::{
    AccessFault, Bell, Cause, Context, Control, ControlError, Factory, Node, OptionError, OptionKind, OptionSpec,
    Options, Setup, Step, Vdev, Wake, Work, Worker,
};

pub(crate) static FACTORY: Factory =
    Factory { name: "faulty", options: OPTIONS, help: "fails on command, for tests", ..Factory::new(create) };

static OPTIONS: &[OptionSpec] = &[
    OptionSpec::new("when", OptionKind::Choice(WHENS), "the call in which it fails").default("write"),
    OptionSpec::new("how", OptionKind::Choice(HOWS), "how it fails").default("panic"),
];

const WHENS: &[&str] =
    &["create", "configured", "starting", "write", "worker", "wake", "ended", "button", "status", "terminate"];
const HOWS: &[&str] = &["panic", "abort", "overflow", "hang", "hypervisor", "terminate", "exhaust", "never"];

/// Bit 0 is the level of the line.
const LINE: u64 = 0x10;
/// Where messages go.
const ADDRESS: u64 = 0x14;
/// Sends what is written.
const DATA: u64 = 0x18;
/// Has the machine's ITS send what is written.
const HOST: u64 = 0x20;
/// Has the machine's ITS send that 256 times, from as many vectors.
const FLOOD: u64 = 0x24;
/// How often the guest has dealt with the interrupt.
const ENDS: u64 = 0x1c;

/// Who it says it is when it sends a message.
const REQUESTER: RequesterId = RequesterId(7);

struct Faulty {
    when: &'static str,
    how: &'static str,
    /// Something on the heap that is never given back.
    kept: Vec<u8>,
    /// Of its worker, if it has one.
    bell: Option<Bell>,
    address: Ipa,
    ends: u64,
    /// The machine's ITS as it has sent messages, if it was to.
    sender: Option<kernel::provoke::Sender>,
}

/// Fails, or has the device fail.
struct Hand {
    fails: bool,
    how: &'static str,
}

impl Worker for Hand {
    fn step(&mut self, work: &mut Work<'_>) -> Step {
        if self.fails && self.how != TERMINATE {
            fail(self.how);
        }
        work.pulse(1);
        Step::Wait
    }
}

const TERMINATE: &str = "terminate";

fn word(options: &Options, name: &str, words: &'static [&'static str]) -> &'static str {
    let given = options.text(name).unwrap_or_default();
    words.iter().find(|word| **word == given).copied().unwrap_or_default()
}

fn create(options: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    let (when, how) = (word(options, "when", WHENS), word(options, "how", HOWS));
    if when == "create" {
        fail(how);
    }
    let bell = match when {
        "worker" | "wake" => Some(setup.worker(Box::new(Hand { fails: when == "worker", how }))?),
        _ => None,
    };
    if when == "ended" {
        setup.hear_ends();
    }
    Ok(Box::new(Faulty { when, how, kept: Vec::new(), bell, address: Ipa(0), ends: 0, sender: None }))
}

/// A frame of 256 bytes for each level.
#[inline(never)]
fn overflow(depth: u64) -> u64 {
    let frame = core::hint::black_box([depth; 32]);
    if frame[0] == u64::MAX { 0 } else { overflow(depth + 1) + core::hint::black_box(frame)[31] }
}

fn fail(how: &str) {
    let left_behind = "left on the heap by a device that has failed".to_string();
    match how {
        "panic" => panic!("the device was told to"),
        "abort" => kernel::provoke::data_abort(),
        "overflow" => {
            core::hint::black_box(overflow(0));
        }
        "hang" => loop {
            core::hint::spin_loop();
        },
        "exhaust" => {
            // More and more, until the VM's heap has no more.
            let mut all = Vec::new();
            loop {
                all.push(Vec::<u8>::with_capacity(1 << 20));
                core::hint::black_box(&all);
            }
        }
        "hypervisor" => kernel::provoke::failure(),
        _ => {}
    }
    drop(left_behind);
}

impl Vdev for Faulty {
    fn read(&mut self, offset: u64, _: AccessSize, _: &mut Context<'_>) -> Result<u64, AccessFault> {
        Ok(if offset == ENDS { self.ends } else { self.kept.len() as u64 })
    }

    fn write(&mut self, offset: u64, _: AccessSize, value: u64, context: &mut Context<'_>) -> Result<(), AccessFault> {
        match offset {
            LINE => context.set_line(value & 1 != 0),
            ADDRESS => self.address = Ipa(value),
            DATA => context.message(Some(REQUESTER), self.address, value as u32),
            HOST => {
                self.with_sender(|it, address| it.send(value as usize & 0xff, REQUESTER, address, value as u32));
            }
            FLOOD => self.with_sender(|sender, address| {
                if value != 0 {
                    (0..256).for_each(|n| sender.send(n, REQUESTER, address, value as u32));
                } else {
                    sender.flood();
                }
            }),
            _ => return self.command(value, context),
        }
        Ok(())
    }

    fn control(&mut self, event: Control<'_>, _: &mut Context<'_>) -> Result<(), ControlError> {
        if matches!(event, Control::Terminate) {
            self.sender = None;
        }
        let when = match event {
            Control::GuestConfigured => "configured",
            Control::GuestStarting => "starting",
            Control::Button { .. } => "button",
            Control::Status(_) => "status",
            Control::Terminate => "terminate",
            _ => "",
        };
        if self.when == when {
            fail(self.how);
        }
        Ok(())
    }

    fn wake(&mut self, wake: Wake, context: &mut Context<'_>) {
        if wake == Wake::InterruptEnded {
            self.ends += 1;
        }
        if matches!(wake, Wake::Pulse(1) | Wake::InterruptEnded) {
            if self.how == TERMINATE {
                context.terminate(Cause::Custom(43));
            } else {
                fail(self.how);
            }
        }
    }

    fn describe(&self, _: &mut Node) {}
}

impl Faulty {
    fn with_sender(&mut self, send: impl FnOnce(&kernel::provoke::Sender, Ipa)) {
        if self.sender.is_none() {
            self.sender = kernel::provoke::Sender::new().ok();
        }
        if let Some(sender) = &self.sender {
            send(sender, self.address);
        }
    }

    /// A write that tells it to fail, perhaps.
    fn command(&mut self, value: u64, context: &mut Context<'_>) -> Result<(), AccessFault> {
        self.kept.extend_from_slice(&[0; 100]);
        if let Some(bell) = &self.bell {
            context.ring(bell);
        }
        if self.when == "ended" && value != 0 {
            context.set_line(true);
        }
        if self.when == "write" && value != 0 {
            let how = (value as usize).checked_sub(1).filter(|way| *way > 0).and_then(|way| HOWS.get(way));
            let how = how.copied().unwrap_or(self.how);
            if how == TERMINATE {
                context.terminate(Cause::Custom(42));
            }
            fail(how);
        }
        Ok(())
    }
}
