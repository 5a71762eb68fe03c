//! The back-end side of serial devices: one or several `hostdev` options become one wire.
//!
//! Answers for: the options that the original's serial vdevs share (its `cdev.h`). `hostdev`: `NAME` is both ways, `<NAME`
//! input, `>NAME` output, repeatable, none at all is the VM's console. `batch`: output is passed on as a block after a
//! silence. `delayed`: accepted. Does not answer for: what a name stands for ([`vdev::Backends`]).

use alloc::{boxed::Box, format, sync::Arc, vec::Vec};
use types::{Lock, Ticks};
use vdev::{
    CharDevice, Context, Direction, HostDevice, OptionError, OptionKind, OptionSpec, Options, Setup, Taken, Timer, Wake,
};

/// The option, for a serial device's table.
pub(crate) const HOSTDEV: OptionSpec = OptionSpec::new(
    "hostdev",
    OptionKind::HostDevice,
    "back end; `-` is the VM's console, and what there is without any",
)
.repeatable();

/// The option, for a serial device's table.
pub(crate) const BATCH: OptionSpec = OptionSpec::new(
    "batch",
    OptionKind::Number { min: 0, max: 60_000_000 },
    "microseconds of silence after which output is passed on as a block",
);

/// The option, for a serial device's table.
///
/// QNX: there a host device may come up after the VM, and is waited for from the first access on. Here a back end is there
/// when the VM is made, or the configuration is wrong: whoever is willing to wait has nothing to wait for.
pub(crate) const DELAYED: OptionSpec =
    OptionSpec::new("delayed", OptionKind::Text, "seconds to wait for the back end, or `forever`: it is always there");

/// Checks [`DELAYED`].
pub(crate) fn check_delayed(options: &Options) -> Result<(), OptionError> {
    if let Some(time) = options.text(DELAYED.name)
        && time != "forever"
        && time.parse::<u32>().is_err()
    {
        let message = format!("`delayed {time}`: must be a number of seconds or `forever`");
        return Err(options.error(DELAYED.name, message));
    }
    Ok(())
}

/// What stands behind a serial device.
pub(crate) struct BackEnd {
    /// Where bytes go to and come from.
    pub(crate) wire: Box<dyn CharDevice>,
    batch: Option<Batch>,
}

impl BackEnd {
    /// As the options say.
    pub(crate) fn open(options: &Options, setup: &mut Setup<'_>) -> Result<Self, OptionError> {
        check_delayed(options)?;
        let wire = wire(options, setup)?;
        Ok(match options.number(BATCH.name) {
            None | Some(0) => Self { wire, batch: None },
            Some(silence) => {
                let held = Arc::new(Lock::new(Held { wire, bytes: Vec::with_capacity(BLOCK), ring: false }));
                let batch = Batch { held: held.clone(), timer: Timer::new(BATCH_TIMER), silence, until: Ticks(0) };
                Self { wire: Box::new(Holding(held)), batch: Some(batch) }
            }
        })
    }

    /// A byte was taken with [`Taken::Ring`].
    #[inline]
    pub(crate) fn ring(&mut self, context: &mut Context<'_>) {
        match &mut self.batch {
            None => context.output(),
            Some(batch) => batch.ring(context),
        }
    }

    /// Passes on what is held back and due: the back end has space, or the timer has gone off. The device looks at its wire
    /// afterwards.
    pub(crate) fn wake(&mut self, wake: Wake, context: &mut Context<'_>) {
        if let Some(batch) = &mut self.batch {
            batch.wake(wake, context);
        }
    }

    /// Passes on all that is held back, as far as there is space.
    pub(crate) fn flush(&mut self, context: &mut Context<'_>) {
        if let Some(batch) = &mut self.batch {
            batch.pass_on(context);
        }
    }
}

/// Most bytes that are held back, and then passed on whether there was a silence or not.
const BLOCK: usize = 1024;

/// The number of the timer of `batch`; those below are the device's own.
const BATCH_TIMER: u8 = 3;

/// Output that is held back until there was a silence.
struct Batch {
    held: Arc<Lock<Held>>,
    timer: Timer,
    /// In microseconds.
    silence: u64,
    /// When the silence is long enough, if nothing comes. The timer may go off before, and is set again then: so a byte
    /// costs no timer.
    until: Ticks,
}

/// What is held back, and who will get it.
struct Held {
    wire: Box<dyn CharDevice>,
    bytes: Vec<u8>,
    /// Whoever passes it on from there has to be told.
    ring: bool,
}

impl Held {
    fn pass_on(&mut self) {
        // Until none is taken: only then does the back end say when it has space.
        while !self.bytes.is_empty() {
            let (gone, taken) = self.wire.append(&self.bytes);
            self.ring |= taken == Taken::Ring;
            if gone == 0 {
                break;
            }
            self.bytes.drain(..gone.min(self.bytes.len()));
        }
    }
}

/// The device's end of it.
struct Holding(Arc<Lock<Held>>);

impl CharDevice for Holding {
    fn space(&self) -> usize {
        BLOCK.saturating_sub(self.0.lock().bytes.len())
    }

    fn write(&mut self, byte: u8) -> Taken {
        let mut held = self.0.lock();
        if held.bytes.len() >= BLOCK {
            return Taken::No;
        }
        held.bytes.push(byte);
        if held.bytes.len() >= BLOCK {
            held.pass_on();
        }
        Taken::Ring
    }

    fn append(&mut self, bytes: &[u8]) -> (usize, Taken) {
        let (mut done, mut held) = (0_usize, self.0.lock());
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            let room = BLOCK.saturating_sub(held.bytes.len()).min(rest.len());
            if room == 0 {
                break;
            }
            held.bytes.extend_from_slice(rest.get(..room).unwrap_or_default());
            done = done.saturating_add(room);
            if held.bytes.len() >= BLOCK {
                held.pass_on();
            }
        }
        (done, if done > 0 { Taken::Ring } else { Taken::No })
    }

    fn read(&mut self) -> Option<u8> {
        self.0.lock().wire.read()
    }
}

impl Batch {
    #[inline(never)]
    fn ring(&mut self, context: &mut Context<'_>) {
        let silence = context.clock().frequency().microseconds(self.silence);
        self.until = context.now().saturating_add(silence);
        if self.timer.due().is_none() {
            self.timer.once(self.until, context);
        }
        self.tell(context);
    }

    fn wake(&mut self, wake: Wake, context: &mut Context<'_>) {
        if self.timer.is(wake) && self.timer.expired(context) > 0 && context.now() < self.until {
            self.timer.once(self.until, context);
        }
        // With the timer stopped, what there is has found no space; nor has a full block.
        if self.timer.due().is_none() || self.held.lock().bytes.len() >= BLOCK {
            self.pass_on(context);
        }
    }

    fn pass_on(&mut self, context: &mut Context<'_>) {
        self.held.lock().pass_on();
        self.tell(context);
    }

    fn tell(&mut self, context: &mut Context<'_>) {
        if core::mem::take(&mut self.held.lock().ring) {
            context.output();
        }
    }
}

/// Opens what the `hostdev` options name.
pub(crate) fn wire(options: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn CharDevice>, OptionError> {
    let mut devices = options.host_devices(HOSTDEV.name);
    let (first, rest) = (devices.next(), devices.collect::<Vec<_>>());
    match first {
        None => setup.character(HOSTDEV.name, &HostDevice::console()),
        // The usual case is worth a shorter way: nothing between the device and its back end.
        Some(only) if rest.is_empty() && only.direction.writes() => setup.character(HOSTDEV.name, only),
        Some(first) => {
            let mut split = Split { inputs: Vec::new(), outputs: Vec::new() };
            for device in [first].into_iter().chain(rest) {
                let end = End { direction: device.direction, device: setup.character(HOSTDEV.name, device)? };
                if end.direction.writes() { split.outputs.push(end) } else { split.inputs.push(end) }
            }
            Ok(Box::new(split))
        }
    }
}

/// Several back ends as one: output goes to all that take it, input comes from all that give it. Without one for output,
/// output vanishes.
struct Split {
    /// Input only.
    inputs: Vec<End>,
    /// Output, and perhaps input too.
    outputs: Vec<End>,
}

struct End {
    direction: Direction,
    device: Box<dyn CharDevice>,
}

impl CharDevice for Split {
    fn space(&self) -> usize {
        self.outputs.iter().map(|end| end.device.space()).min().unwrap_or(usize::MAX)
    }

    fn write(&mut self, byte: u8) -> Taken {
        // All or none: a byte that only one of them took could not be given again.
        if self.space() == 0 {
            return Taken::No;
        }
        let mut taken = Taken::Yes;
        for end in &mut self.outputs {
            // Another user of the same back end may have taken the space meanwhile: that one then misses a byte.
            if end.device.write(byte) == Taken::Ring {
                taken = Taken::Ring;
            }
        }
        taken
    }

    fn append(&mut self, bytes: &[u8]) -> (usize, Taken) {
        // As above: what all of them take.
        let bytes = bytes.get(..self.space()).unwrap_or(bytes);
        if bytes.is_empty() {
            return (0, Taken::No);
        }
        let taken = self.outputs.iter_mut().map(|end| end.device.append(bytes).1).fold(Taken::Yes, Taken::and);
        (bytes.len(), taken)
    }

    fn read(&mut self) -> Option<u8> {
        self.inputs.iter_mut().chain(&mut self.outputs).find_map(|end| match end.direction {
            Direction::Input | Direction::Both => end.device.read(),
            Direction::Output => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vdev::{
        DeviceId, Given, Place,
        testkit::{NoFiles, PlainNumbers, Wires},
    };

    static OPTIONS: &[OptionSpec] = &[HOSTDEV, BATCH, DELAYED];

    fn opened(hostdevs: &[&str], wires: &mut Wires) -> Result<Box<dyn CharDevice>, OptionError> {
        let place = Place { source: 0, start: 7, end: 9 };
        let given = hostdevs.iter().map(|text| Given { name: "hostdev", argument: Some(text), place });
        let options = Options::parse(OPTIONS, given, &PlainNumbers).unwrap();
        opened_with(&options, wires)
    }

    fn opened_with(options: &Options, wires: &mut Wires) -> Result<Box<dyn CharDevice>, OptionError> {
        let id = DeviceId(0);
        let mut setup = Setup {
            id,
            name: "uart",
            location: None,
            interrupt: None,
            window: None,
            shadow: None,
            connector: None,
            vcpus: 1,
            address_bits: 40,
            hears_ends: false,
            files: &NoFiles,
            backends: wires,
        };
        BackEnd::open(options, &mut setup).map(|end| end.wire)
    }

    #[test]
    fn none_at_all_is_the_console_both_ways() {
        let mut wires = Wires::default();
        let mut device = opened(&[], &mut wires).unwrap();
        assert!(device.write(b'x').is_taken());
        wires.wire("-").type_in(b"y");
        assert_eq!(wires.wire("-").take_output(), b"x");
        assert_eq!(device.read(), Some(b'y'));
    }

    #[test]
    fn output_only_reads_nothing_and_input_only_swallows() {
        let mut wires = Wires::default();
        wires.wire("-").type_in(b"y");
        let mut output = opened(&[">-"], &mut wires).unwrap();
        assert_eq!(output.read(), None);
        assert!(output.write(b'x').is_taken());
        let mut input = opened(&["<-"], &mut wires).unwrap();
        assert_eq!(input.read(), Some(b'y'));
        assert_eq!(input.space(), usize::MAX);
        assert!(input.write(b'z').is_taken());
        assert_eq!(wires.wire("-").take_output(), b"x");
    }

    #[test]
    fn several_outputs_get_every_byte_or_none_does() {
        let mut wires = Wires::default();
        let (a, b, c) = (wires.wire("a"), wires.wire("b"), wires.wire("c"));
        let mut device = opened(&["a", ">b", "<c"], &mut wires).unwrap();
        b.set_space(Some(1));
        assert_eq!(device.space(), 1);
        assert!(device.write(b'1').is_taken());
        assert!(!device.write(b'2').is_taken());
        assert_eq!((a.take_output(), b.take_output(), c.take_output()), (b"1".to_vec(), b"1".to_vec(), Vec::new()));
        a.type_in(b"A");
        b.type_in(b"B");
        c.type_in(b"C");
        assert_eq!([device.read(), device.read(), device.read()], [Some(b'C'), Some(b'A'), None]);
    }

    #[test]
    fn several_outputs_get_as_much_at_once_as_all_of_them_take() {
        let mut wires = Wires::default();
        let (a, b) = (wires.wire("a"), wires.wire("b"));
        let mut device = opened(&["a", ">b"], &mut wires).unwrap();
        b.set_space(Some(4));
        assert_eq!(device.append(b"123456"), (4, Taken::Ring));
        assert_eq!(device.append(b"56"), (0, Taken::No));
        assert_eq!((a.take_output(), b.take_output()), (b"1234".to_vec(), b"1234".to_vec()));
        let mut input = opened(&["<a"], &mut wires).unwrap();
        assert_eq!(input.append(b"vanishes"), (8, Taken::Yes));
    }

    #[test]
    fn a_batch_takes_many_bytes_and_passes_full_blocks_on() {
        let mut wires = Wires::default();
        let wire = wires.wire("-");
        let place = Place { source: 0, start: 7, end: 9 };
        let given = [Given { name: "batch", argument: Some("1000"), place }];
        let options = Options::parse(OPTIONS, given, &PlainNumbers).unwrap();
        let mut device = opened_with(&options, &mut wires).unwrap();
        assert_eq!(device.append(&[1; BLOCK - 1]), (BLOCK - 1, Taken::Ring));
        assert_eq!(wire.take_output(), []);
        assert_eq!(device.append(&[1; 3]), (3, Taken::Ring));
        assert_eq!(wire.take_output(), [1; BLOCK]);
        // Two are held; a block more is held back by a back end without space.
        wire.set_space(Some(0));
        assert_eq!(device.append(&[2; 2 * BLOCK]), (BLOCK - 2, Taken::Ring));
        assert_eq!(device.append(&[2]), (0, Taken::No));
    }

    #[test]
    fn an_unknown_back_end_is_an_error_at_its_place() {
        let error = opened(&[">nowhere"], &mut Wires::default()).err().unwrap();
        assert_eq!(error.message, "there is no back end `nowhere`");
        assert_eq!(error.place.map(|place| place.start), Some(7));
    }
}
