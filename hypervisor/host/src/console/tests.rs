use super::*;
use alloc::boxed::Box;
use vdev::{CharDevice, DeviceId, HostDevice};

/// A UART that takes what it is given, or so many bytes of it.
#[derive(Default)]
struct Screenful {
    shown: Vec<u8>,
    room: Option<usize>,
}

impl Uart for Screenful {
    fn ready(&self) -> bool {
        self.room.is_none_or(|room| self.shown.len() < room)
    }
    fn send(&mut self, byte: u8) {
        assert!(self.ready());
        self.shown.push(byte);
    }
}

impl Screenful {
    /// What has been shown since this was last asked, with plain line feeds.
    fn text(&mut self) -> String {
        String::from_utf8(core::mem::take(&mut self.shown)).unwrap().replace("\r\n", "\n")
    }
}

struct Console {
    multiplexer: Multiplexer,
    terminal: Screenful,
}

impl Console {
    fn new() -> Self {
        let log: &'static Log = Box::leak(Box::new(Log::new()));
        Self { multiplexer: Multiplexer::new(log), terminal: Screenful::default() }
    }

    fn batch() -> Self {
        let mut console = Self::new();
        console.multiplexer.set_batch();
        console
    }

    fn vm(&mut self, name: &str) -> (VmNumber, Box<dyn CharDevice>) {
        let (number, stream) = self.multiplexer.attach(name).unwrap();
        (number, terminal(stream))
    }

    /// Shows all there is.
    fn show(&mut self) -> String {
        for _ in 0..10_000 {
            if self.multiplexer.step(&mut self.terminal, 256).next == Next::Idle {
                return self.terminal.text();
            }
        }
        panic!("it goes on for ever");
    }

    fn press(&mut self, keys: &[u8]) -> Vec<Action> {
        keys.iter().map(|key| self.multiplexer.input(*key)).collect()
    }
}

fn terminal(stream: &'static Stream) -> Box<dyn CharDevice> {
    Terminal::new(stream).open(DeviceId(0), &HostDevice::console()).unwrap()
}

fn write(device: &mut Box<dyn CharDevice>, text: &str) {
    for byte in text.bytes() {
        assert!(device.write(byte).is_taken());
    }
}

#[test]
fn the_foreground_passes_as_it_is_and_others_come_in_lines() {
    let mut console = Console::new();
    let (_, mut linux) = console.vm("linux");
    let (_, mut hello) = console.vm("hello");
    assert_eq!(console.show(), "console: linux is in the foreground (Ctrl-] h shows the keys)\n");
    write(&mut linux, "\x1b[1mbold\x1b[0m\r\n");
    write(&mut hello, "\x1b[2Jhi\r\nhalf");
    let shown = console.show();
    assert!(shown.contains("\x1b[1mbold\x1b[0m\n"), "{shown:?}");
    assert!(shown.contains("hello| hi\n"), "{shown:?}");
    assert!(!shown.contains("half"), "{shown:?}");
}

#[test]
fn a_line_that_breaks_into_a_prompt_leaves_the_prompt_behind_it() {
    let mut console = Console::new();
    let (_, mut linux) = console.vm("linux");
    let (_, mut hello) = console.vm("hello");
    console.show();
    write(&mut linux, "boot\r\n\x1b[32m~ # \x1b[0m\x1b[6nlsx\x08");
    console.show();
    write(&mut hello, "tick\n");
    console.multiplexer.print("host");
    // A terminal would answer the sequences again: only the text is repeated.
    assert_eq!(console.show(), "\nhost\nhello| tick\n~ # ls");
    write(&mut linux, "\r\nfile\r\n");
    assert_eq!(console.show(), "\nfile\n");
    write(&mut hello, "tock\n");
    assert_eq!(console.show(), "hello| tock\n");
}

#[test]
#[cfg_attr(miri, ignore = "Miri takes minutes to fill a ring of atomics")]
fn a_burst_of_the_foreground_is_not_broken_in_the_middle_of_a_line() {
    let mut console = Console::new();
    let (_, mut linux) = console.vm("linux");
    let (_, mut hello) = console.vm("hello");
    console.show();
    let line = "x".repeat(500);
    write(&mut linux, &line[..200]);
    console.multiplexer.step(&mut console.terminal, 100);
    write(&mut linux, &std::format!("{}\r\n", &line[200..]));
    write(&mut hello, "tick\n");
    assert_eq!(console.show(), std::format!("{line}\nhello| tick\n"));
}

#[test]
#[cfg_attr(miri, ignore = "Miri takes minutes to fill a ring of atomics")]
fn nobody_is_shut_out_by_a_vm_that_never_stops() {
    let mut console = Console::new();
    let (_, mut flood) = console.vm("flood");
    let (_, mut babble) = console.vm("babble");
    let (_, mut quiet) = console.vm("quiet");
    console.show();
    write(&mut quiet, "still here\n");
    for round in 0..200 {
        // More than is shown meanwhile, each time.
        for _ in 0..100 {
            let _ = flood.write(b'z');
            let _ = babble.write(b'\n');
        }
        console.multiplexer.step(&mut console.terminal, 64);
        if console.terminal.text().contains("still") {
            return;
        }
        assert!(round < 100, "shut out");
    }
}

#[test]
#[cfg_attr(miri, ignore = "Miri takes minutes to fill a ring of atomics")]
fn control_sequences_alone_neither_hold_the_console_up_nor_hide_what_follows() {
    let mut console = Console::batch();
    let (_, mut vm) = console.vm("a");
    for _ in 0..4000 {
        assert!(vm.write(0x1b).is_taken());
    }
    write(&mut vm, "[mx\n");
    // More than is looked at in one go, and nobody will ring again.
    let progress = console.multiplexer.step(&mut console.terminal, 64);
    assert_eq!((progress.sent, progress.next), (0, Next::Again));
    assert_eq!(console.show(), "a| x\n");
}

#[test]
fn what_is_typed_goes_to_the_foreground() {
    let mut console = Console::new();
    let (first, mut linux) = console.vm("linux");
    let (second, mut hello) = console.vm("hello");
    assert_eq!(console.press(b"a"), [Action::Wake(first)]);
    assert_eq!(linux.read(), Some(b'a'));
    assert_eq!(console.press(b"\x1d2b"), [Action::None, Action::None, Action::Wake(second)]);
    assert_eq!((linux.read(), hello.read()), (None, Some(b'b')));
    assert_eq!(console.press(b"\x1d\x1d"), [Action::None, Action::Wake(second)]);
    assert_eq!(hello.read(), Some(0x1d));
    console.press(b"\x1dnc");
    assert_eq!(linux.read(), Some(b'c'));
}

#[test]
fn switching_shows_a_notice_and_the_half_line_that_was_kept() {
    let mut console = Console::new();
    let (_, mut linux) = console.vm("linux");
    let (_, mut hello) = console.vm("hello");
    write(&mut linux, "~ # ");
    write(&mut hello, "name? ");
    console.show();
    console.press(b"\x1d2");
    assert_eq!(console.show(), "\nconsole: hello is in the foreground (Ctrl-] h shows the keys)\nname? ");
    write(&mut linux, "ls\r\n");
    assert_eq!(console.show(), "\nlinux| ls\nname? ");
}

#[test]
fn keys_list_explain_and_power_off() {
    let mut console = Console::new();
    console.vm("linux");
    console.vm("hello");
    console.show();
    console.press(b"\x1dl\x1d9\x1dz");
    let shown = console.show();
    assert_eq!(
        shown,
        "console: 1* linux 2 hello\nconsole: there is no VM 9\nconsole: unknown key; Ctrl-] h shows the keys\n"
    );
    console.press(b"\x1dh");
    assert_eq!(console.show(), std::format!("{HELP}\n"));
    assert_eq!(console.press(b"\x1dqq").last(), Some(&Action::PowerOff));
    assert!(console.show().contains("press q again"));
}

#[test]
fn in_a_batch_every_line_has_its_prefix_and_nothing_is_typed() {
    let mut console = Console::batch();
    let (_, mut a) = console.vm("a");
    let (_, mut b) = console.vm("b");
    write(&mut a, "one\r\ntwo\r\npart");
    write(&mut b, "uno\n");
    let shown = console.show();
    let mut lines: Vec<&str> = shown.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["a| one", "a| two", "b| uno"]);
    assert_eq!(console.press(b"x\x1dqq"), [Action::None; 4]);
    assert_eq!(a.read(), None);
}

#[test]
fn a_batch_ends_when_the_last_vm_has_and_says_so_last() {
    let mut console = Console::batch();
    let (a, mut out_a) = console.vm("a");
    let (b, mut out_b) = console.vm("b");
    write(&mut out_a, "TAP version 13\nok 1");
    console.multiplexer.ended(a, "qvm: a ended: code 0 (shut down)");
    console.multiplexer.ended(a, "too late");
    assert_eq!(console.show(), "a| TAP version 13\na| ok 1\nqvm: a ended: code 0 (shut down)\n");
    console.multiplexer.set_complete();
    write(&mut out_b, "bye\n");
    console.multiplexer.ended(b, "qvm: b ended: code 5");
    // One thing at a time, and no more than the UART takes.
    console.terminal.room = Some(10);
    let steps = [(8, Next::Again), (2, Next::UartFull), (0, Next::UartFull)];
    for expected in steps {
        let progress = console.multiplexer.step(&mut console.terminal, 1000);
        assert_eq!(((progress.sent, progress.next), progress.finished), (expected, false));
    }
    console.terminal.room = None;
    let mut finished = false;
    while !finished {
        let progress = console.multiplexer.step(&mut console.terminal, 7);
        finished = progress.finished;
        assert!(!finished || progress.next == Next::Idle);
    }
    let expected = "b| bye\nqvm: b ended: code 5\nbulkhead: all VMs have ended\n";
    assert_eq!(console.terminal.text(), expected);
}

#[test]
fn a_batch_without_any_vm_is_over_at_once() {
    let mut console = Console::batch();
    assert!(!console.multiplexer.step(&mut console.terminal, 100).finished);
    console.multiplexer.set_complete();
    assert_eq!(console.show(), "bulkhead: all VMs have ended\n");
    assert!(console.multiplexer.step(&mut console.terminal, 100).finished);
}

#[test]
fn when_the_foreground_ends_its_last_words_and_report_are_shown_and_the_next_takes_over() {
    let mut console = Console::new();
    let (first, mut linux) = console.vm("linux");
    let (_, mut hello) = console.vm("hello");
    console.show();
    write(&mut linux, "reboot: Power down");
    console.multiplexer.ended(first, "qvm: linux ended: code 0");
    let shown = console.show();
    let expected = "reboot: Power down\nqvm: linux ended: code 0\nconsole: hello is in the foreground";
    assert!(shown.starts_with(expected), "{shown:?}");
    write(&mut hello, "$ ");
    assert_eq!(console.show(), "$ ");
    let (again, _) = console.multiplexer.attach("linux").unwrap();
    assert_eq!(again, first, "the number is free again");
}

#[test]
fn the_vm_that_is_wanted_is_in_the_foreground_when_it_comes() {
    let mut console = Console::new();
    console.multiplexer.set_foreground("linux");
    console.vm("hello");
    assert_eq!(console.press(b"x"), [Action::None]);
    let (linux, _) = console.vm("linux");
    assert_eq!(console.press(b"x"), [Action::Wake(linux)]);
    assert_eq!(console.show(), "console: linux is in the foreground (Ctrl-] h shows the keys)\n");
}

#[test]
#[cfg_attr(miri, ignore = "Miri takes minutes to fill a ring of atomics")]
fn a_device_that_was_refused_is_named_when_there_is_space() {
    let mut console = Console::new();
    let (number, mut linux) = console.vm("linux");
    while linux.write(b'x').is_taken() {}
    let mut relieved = 0;
    loop {
        let progress = console.multiplexer.step(&mut console.terminal, 256);
        if progress.relieved.contains(number) {
            assert!(linux.space() > 0);
            relieved += 1;
        }
        if progress.next == Next::Idle {
            break;
        }
    }
    assert_eq!(relieved, 1);
}

#[test]
#[cfg_attr(miri, ignore = "Miri takes minutes to fill a ring of atomics")]
fn there_is_room_for_96_vms_and_no_more() {
    let mut console = Console::batch();
    let numbers: Vec<u8> = (0..96).map(|n| console.vm(&n.to_string()).0.get()).collect();
    assert!(numbers.iter().copied().eq(1..=96));
    assert!(console.multiplexer.attach("one too many").is_none());
}

#[test]
#[cfg_attr(miri, ignore = "Miri takes minutes to fill a ring of atomics")]
fn the_hosts_own_lines_are_bounded() {
    let mut console = Console::new();
    for _ in 0..10 * NOTICES {
        console.multiplexer.print("line");
    }
    assert_eq!(console.show().lines().count(), NOTICES);
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn the_end_of_a_vm_that_never_came_is_told_however_much_else_there_is_to_say() {
    let mut console = Console::batch();
    console.multiplexer.print(&"complaint\n".repeat(2 * NOTICES));
    console.multiplexer.refused("qvm: guest ended: code 65");
    console.multiplexer.set_complete();
    let shown = console.show();
    assert!(shown.ends_with("qvm: guest ended: code 65\nbulkhead: all VMs have ended\n"), "{shown}");
}

#[test]
fn a_vm_that_comes_again_keeps_its_place_and_is_reported_in_between() {
    let mut console = Console::new();
    let (number, mut linux) = console.vm("linux");
    let (_, mut hello) = console.vm("hello");
    console.show();
    write(&mut linux, "oops");
    console.press(b"typed");
    let stream = console.multiplexer.restarted(number, "qvm: linux restarts (1)");
    write(&mut terminal(stream), "hi\r\n# ");
    assert_eq!(console.show(), "oops\nqvm: linux restarts (1)\nhi\n# ");
    assert_eq!(stream.read(), None, "that was typed for the one before");
    assert_eq!(console.press(b"x"), [Action::Wake(number)]);
    assert_eq!(stream.read(), Some(b'x'));
    // In the background as well, and when it ends before all of it is shown.
    console.press(b"\x1d2");
    console.show();
    write(&mut terminal(stream), "one\ntwo");
    console.multiplexer.restarted(number, "qvm: linux restarts (2)");
    write(&mut terminal(stream), "three");
    console.multiplexer.ended(number, "qvm: linux ended");
    write(&mut hello, "$ ");
    assert_eq!(
        console.show(),
        "$ \nlinux| one\nlinux| two\nqvm: linux restarts (2)\nlinux| three\nqvm: linux ended\n$ "
    );
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn a_vm_that_comes_and_goes_faster_than_can_be_said_takes_no_more_and_more_memory() {
    let mut console = Console::batch();
    let (number, _) = console.vm("a");
    for n in 0..100 {
        console.multiplexer.restarted(number, &n.to_string());
    }
    console.multiplexer.ended(number, "last");
    let shown = console.show();
    assert_eq!((shown.lines().count(), shown.lines().next(), shown.lines().last()), (16, Some("0"), Some("last")));
}

#[test]
#[cfg_attr(miri, ignore = "Miri takes minutes to fill a ring of atomics")]
fn streams_are_used_again_and_nothing_of_the_one_before_is_in_them() {
    let mut console = Console::new();
    let (first, stream) = console.multiplexer.attach("a").unwrap();
    let (second, other) = console.multiplexer.attach("b").unwrap();
    assert!(!core::ptr::eq(stream, other));
    console.press(b"unread");
    while stream.write(b'x').is_taken() {}
    console.multiplexer.ended(first, "a ended");
    console.show();
    let (third, again) = console.multiplexer.attach("c").unwrap();
    assert!(core::ptr::eq(stream, again));
    assert_eq!((third, again.read(), again.space()), (first, None, stream::OUTPUT));
    assert_eq!(console.press(b"x"), [Action::Wake(second)]);
}

fn print(stream: &Stream, text: &str) {
    text.bytes().for_each(|byte| assert!(stream.write(byte).is_taken()));
}

#[test]
fn the_shell_is_in_the_foreground_when_nobody_else_is() {
    let mut console = Console::new();
    let shell = console.multiplexer.shell();
    assert!(core::ptr::eq(shell, console.multiplexer.shell()));
    print(shell, "early\r\nbulkhead# ");
    let (number, mut linux) = console.vm("linux");
    assert_eq!(console.show(), "console: linux is in the foreground (Ctrl-] h shows the keys)\nshell| early\n");
    console.multiplexer.set_complete();
    write(&mut linux, "bye");
    console.multiplexer.ended(number, "qvm: linux ended");
    let expected = "bye\nqvm: linux ended\nbulkhead: all VMs have ended; Ctrl-] q q powers off\n\
        console: shell is in the foreground (Ctrl-] h shows the keys)\nbulkhead# ";
    assert_eq!(console.show(), expected);
    assert_eq!(console.press(b"x"), [Action::Wake(VmNumber::SHELL)]);
    assert_eq!(shell.read(), Some(b'x'));
    // Who comes now does not take the foreground from somebody who is typing.
    let (_, mut hello) = console.vm("hello");
    write(&mut hello, "hi\n");
    assert_eq!(console.show(), "\nhello| hi\nbulkhead# ");
}

#[test]
fn without_any_vm_the_script_ends_in_the_shell_and_a_batch_does_not() {
    let mut console = Console::new();
    console.multiplexer.set_complete();
    let shell = console.multiplexer.shell();
    print(shell, "bulkhead# ");
    let shown = console.show();
    assert!(shown.starts_with("bulkhead: all VMs have ended;"), "{shown}");
    assert!(shown.ends_with("shell is in the foreground (Ctrl-] h shows the keys)\nbulkhead# "), "{shown}");
    let mut console = Console::batch();
    console.multiplexer.set_complete();
    assert_eq!(console.show(), "bulkhead: all VMs have ended\n");
    assert_eq!(console.press(b"\x1d0x"), [Action::None; 3]);
}

#[test]
#[cfg_attr(miri, ignore = "Miri takes minutes to fill a ring of atomics")]
fn keys_go_between_the_vms_and_the_shell() {
    let mut console = Console::new();
    console.press(b"\x1ds");
    assert_eq!(console.show(), "console: there is no shell\n");
    let shell = console.multiplexer.shell();
    let (linux, _) = console.vm("linux");
    for (keys, number) in [(b"\x1d0x", VmNumber::SHELL), (b"\x1d1x", linux), (b"\x1dsx", VmNumber::SHELL)] {
        assert_eq!(console.press(keys).last(), Some(&Action::Wake(number)));
    }
    assert_eq!(
        console.press(b"\x1dnx\x1dnx")[2..],
        [Action::Wake(linux), Action::None, Action::None, Action::Wake(VmNumber::SHELL)]
    );
    console.show();
    console.press(b"\x1dl");
    assert_eq!(console.show(), "console: 0* shell 1 linux\n");
    // The shell is told of space as VMs are.
    while shell.write(b'x').is_taken() {}
    let mut relieved = 0;
    for _ in 0..100 {
        let progress = console.multiplexer.step(&mut console.terminal, 256);
        relieved += usize::from(progress.relieved.contains(VmNumber::SHELL));
    }
    assert_eq!((relieved, shell.space()), (1, stream::OUTPUT));
}

#[test]
#[cfg_attr(miri, ignore = "Miri takes minutes to fill a ring of atomics")]
fn however_much_rubbish_there_is_a_step_looks_at_little_of_it() {
    let mut console = Console::batch();
    let mut vms: Vec<_> = (0..20).map(|n| console.vm(&n.to_string()).1).collect();
    // Control sequences without end, and text behind them in the last.
    for vm in &mut vms {
        while vm.write(0x1b).is_taken() {}
    }
    let mut steps = 0;
    while console.multiplexer.step(&mut console.terminal, 128).next == Next::Again {
        steps += 1;
    }
    // 4096 bytes each, at most 2048 in a step.
    assert!((20 * 4096 / 2048..=20 * 4096 / 2048 + 20).contains(&steps), "{steps} steps");
    write(&mut vms[19], "[mx\n");
    assert_eq!(console.show(), "19| x\n");
}
