//! The back-end side of serial devices: one or several `hostdev` options become one wire.
//!
//! Answers for: the `hostdev` option as the original's serial vdevs share it (its `cdev.h`): `NAME` is both ways, `<NAME`
//! input, `>NAME` output, repeatable, none at all is the VM's console. Does not answer for: what a name stands for
//! ([`vdev::Backends`]).

use alloc::{boxed::Box, vec::Vec};
use vdev::{CharDevice, Direction, HostDevice, OptionError, OptionKind, OptionSpec, Options, Setup, Taken};

/// The option, for a serial device's table.
pub(crate) const HOSTDEV: OptionSpec =
    OptionSpec::new("hostdev", OptionKind::HostDevice, "back end: [<|>]NAME, `-` is the VM's console (the default)")
        .repeatable();

/// Opens what the `hostdev` options name.
pub(crate) fn open(options: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn CharDevice>, OptionError> {
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
        testkit::{PlainNumbers, Wires},
    };

    static OPTIONS: &[OptionSpec] = &[HOSTDEV];

    fn opened(hostdevs: &[&str], wires: &mut Wires) -> Result<Box<dyn CharDevice>, OptionError> {
        let place = Place { source: 0, start: 7, end: 9 };
        let given = hostdevs.iter().map(|text| Given { name: "hostdev", argument: Some(text), place });
        let options = Options::parse(OPTIONS, given, &PlainNumbers).unwrap();
        let id = DeviceId(0);
        open(
            &options,
            &mut Setup { id, name: "uart", location: None, interrupt: None, window: None, vcpus: 1, backends: wires },
        )
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
    fn an_unknown_back_end_is_an_error_at_its_place() {
        let error = opened(&[">nowhere"], &mut Wires::default()).err().unwrap();
        assert_eq!(error.message, "there is no back end `nowhere`");
        assert_eq!(error.place.map(|place| place.start), Some(7));
    }
}
