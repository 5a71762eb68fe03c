//! The console: whatever VMs print, a terminal sees only lines with their names in front, and all output comes to an end.

#![no_main]

use host::console::{Multiplexer, Next, Stream, Terminal, Uart};
use host::log::Log;
use libfuzzer_sys::fuzz_target;
use std::sync::{LazyLock, Mutex};
use vdev::{CharDevice, DeviceId, HostDevice};

static LOG: Log = Log::new();
/// One for all runs: streams are never given back, but used again.
static CONSOLE: LazyLock<Mutex<Multiplexer>> = LazyLock::new(|| {
    let mut console = Multiplexer::new(&LOG);
    console.set_batch();
    console.set_complete();
    Mutex::new(console)
});

#[derive(Default)]
struct Screen(Vec<u8>);

impl Uart for Screen {
    fn ready(&self) -> bool {
        true
    }
    fn send(&mut self, byte: u8) {
        self.0.push(byte);
    }
}

fn device(stream: &'static Stream) -> Box<dyn CharDevice> {
    Terminal::new(stream).open(DeviceId(0), &HostDevice::console()).expect("nobody has it")
}

fuzz_target!(|data: &[u8]| {
    let mut console = CONSOLE.lock().expect("the first run that fails is the last");
    let mut vms = ["a", "b"].map(|name| {
        let (number, stream) = console.attach(name).expect("there is room");
        (number, device(stream))
    });
    let mut terminal = Screen::default();
    for (place, chunk) in data.chunks(37).enumerate() {
        let (number, end) = &mut vms[place % 2];
        for byte in chunk {
            // What does not fit is the device's to keep.
            let _fits = end.write(*byte);
        }
        if chunk[0] & 7 == 7 {
            *end = device(console.restarted(*number, "qvm: restarted"));
        }
        console.step(&mut terminal, usize::from(chunk[0]));
    }
    for (number, _) in &vms {
        console.ended(*number, "qvm: ended: code 0");
    }
    let steps = (0..data.len() + 100).take_while(|_| {
        let progress = console.step(&mut terminal, 256);
        assert!(progress.next != Next::UartFull);
        !progress.finished
    });
    assert!(steps.count() < data.len() + 100, "it goes on for ever");
    let text = String::from_utf8(terminal.0).expect("only text is shown");
    assert!(text.ends_with("\r\nbulkhead: all VMs have ended\r\n"));
    for line in text.split_terminator("\r\n") {
        let own = ["a| ", "b| ", "qvm: ended: code 0", "qvm: restarted", "bulkhead: "];
        assert!(own.iter().any(|start| line.starts_with(start)), "{line:?}");
        assert!(line.chars().all(|character| character == '\t' || !character.is_control()), "{line:?}");
    }
});
