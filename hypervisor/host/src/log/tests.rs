use super::*;
use ::log::Log as _;
use alloc::{boxed::Box, string::String};
use std::sync::Mutex;

/// Levels are one global of the `log` crate.
static LEVEL: Mutex<()> = Mutex::new(());

fn started() -> (&'static Log, Arc<Bell>) {
    let log: &'static Log = Box::leak(Box::new(Log::new()));
    let bell = Arc::new(Bell::default());
    log.start(Surroundings { nanoseconds: || 12_345_678_900, masked: |f| f(), bell: bell.clone() });
    (log, bell)
}

fn say(log: &Log, level: Level, target: &str, text: &str) {
    log.log(&Record::builder().level(level).target(target).args(format_args!("{text}")).build());
}

fn lines(log: &Log) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let mut line = Vec::new();
        if !log.take_line(&mut line) {
            return lines;
        }
        lines.push(String::from_utf8(line).unwrap());
    }
}

fn at_level<R>(level: LevelFilter, f: impl FnOnce() -> R) -> R {
    let _guard = LEVEL.lock().unwrap();
    ::log::set_max_level(level);
    f()
}

#[test]
fn a_message_has_a_time_a_level_and_if_it_is_a_vms_an_origin() {
    let lines = at_level(LevelFilter::Debug, || {
        let (log, bell) = started();
        say(log, Level::Info, "kernel::boot", "up");
        say(log, Level::Warn, "vm:linux/uart0", "odd");
        say(log, Level::Debug, "kernel", "detail");
        say(log, Level::Trace, "kernel", "unwanted");
        assert_eq!(bell.answer(), Some(Urgency::Soon));
        lines(log)
    });
    assert_eq!(lines, ["[  12.345678] up", "[  12.345678] warning: linux/uart0: odd", "[  12.345678] debug: detail"]);
}

#[test]
fn a_message_is_one_line_of_text_whatever_is_in_it() {
    let lines = at_level(LevelFilter::Info, || {
        let (log, _) = started();
        say(log, Level::Info, "x", "a\nb\x1b[31mc\u{9b}d");
        say(log, Level::Info, "x", &"ü".repeat(300));
        lines(log)
    });
    assert_eq!(lines[0], "[  12.345678] a b?[31mc?d");
    assert_eq!(lines[1].len(), LINE);
    assert!(lines[1].ends_with("üü"));
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn a_vm_that_talks_too_much_is_cut_off_and_others_are_not() {
    let lines = at_level(LevelFilter::Info, || {
        let (log, _) = started();
        for _ in 0..50 {
            say(log, Level::Info, "vm:noisy/uart0", "x");
            say(log, Level::Info, "vm:noisy/uart1", "x");
        }
        say(log, Level::Info, "vm:quiet", "y");
        lines(log)
    });
    assert_eq!(lines.len(), 17);
    assert_eq!(lines[16], "[  12.345678] quiet: y");
}

fn kept(log: &Log, vm: Option<&str>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut place = 0;
    loop {
        let mut line = Vec::new();
        if !log.kept_line(vm, &mut place, &mut line) {
            assert!(line.is_empty());
            return lines;
        }
        lines.push(String::from_utf8(line).unwrap());
    }
}

/// Fills the log twice over with numbered messages, and says how many.
fn fill(log: &Log) -> usize {
    let messages = 2 * queue::SIZE / 200;
    for n in 0..messages {
        say(log, Level::Info, "kernel", &std::format!("{n:0>200}"));
    }
    messages
}

#[test]
#[cfg_attr(miri, ignore = "filling the whole log takes Miri a minute")]
fn the_oldest_make_room_and_what_the_console_never_had_is_counted() {
    at_level(LevelFilter::Info, || {
        let (log, _) = started();
        let said = fill(log);
        let lines = lines(log);
        let left = lines.len() - 1;
        assert_eq!(lines[0], std::format!("log: {} messages lost", said - left));
        assert!(left > 60);
        for (line, n) in lines[1..].iter().zip(said - left..) {
            assert!(line.ends_with(&std::format!("{n:0>200}")), "{line}");
        }
        // What has been shown is kept, and is not lost when it makes room.
        assert_eq!(kept(log, None), lines[1..]);
        say(log, Level::Info, "kernel", "again");
        say(log, Level::Info, "kernel", "and again");
        let mut rescued = Vec::new();
        log.rescue(|byte| rescued.push(byte));
        assert_eq!(rescued, b"[  12.345678] again\n[  12.345678] and again\n");
        say(log, Level::Info, "kernel", &"x".repeat(200));
        let mut line = Vec::new();
        assert!(log.take_line(&mut line) && line.ends_with(b"x"), "nothing was lost");
        assert_eq!(kept(log, None)[0], lines[2]);
    });
}

#[test]
#[cfg_attr(miri, ignore = "filling the whole log takes Miri a minute")]
fn an_epitaph_gets_everything_that_waits_and_how_much_was_lost() {
    let rescued = at_level(LevelFilter::Info, || {
        let (log, _) = started();
        fill(log);
        let mut rescued = Vec::new();
        log.rescue(|byte| rescued.push(byte));
        log.rescue(|_| panic!("twice"));
        String::from_utf8(rescued).unwrap()
    });
    assert!(rescued.lines().count() > 50);
    assert!(rescued.lines().next().unwrap().ends_with(" messages lost"), "{rescued}");
}

#[test]
#[cfg_attr(miri, ignore = "filling the whole log takes Miri a minute")]
fn whoever_reads_what_is_kept_too_slowly_goes_on_with_the_oldest() {
    at_level(LevelFilter::Info, || {
        let (log, _) = started();
        say(log, Level::Info, "kernel", "first");
        say(log, Level::Info, "kernel", "second");
        let (mut place, mut line) = (0, Vec::new());
        assert!(log.kept_line(None, &mut place, &mut line));
        assert_eq!(line, b"[  12.345678] first");
        fill(log);
        line.clear();
        assert!(log.kept_line(None, &mut place, &mut line));
        assert_eq!(String::from_utf8(line).unwrap(), kept(log, None)[0]);
    });
}

#[test]
fn what_is_kept_can_be_had_of_one_vm() {
    at_level(LevelFilter::Info, || {
        let (log, _) = started();
        for (target, text) in [
            ("vm:a", "one"),
            ("vm:ab/uart", "two"),
            ("kernel", "a: three"),
            ("vm:error/x", "four"),
            ("vm:a/uart", "five"),
        ] {
            say(log, if text == "two" { Level::Error } else { Level::Info }, target, text);
        }
        assert_eq!(kept(log, Some("a")), ["[  12.345678] a: one", "[  12.345678] a/uart: five"]);
        assert_eq!(kept(log, Some("ab")), ["[  12.345678] error: ab/uart: two"]);
        assert_eq!(kept(log, Some("error")), ["[  12.345678] error/x: four"]);
        assert_eq!(kept(log, Some("b")), [""; 0]);
        assert_eq!(kept(log, None).len(), 5);
    });
}

#[test]
fn before_it_is_started_it_keeps_what_it_is_told() {
    let lines = at_level(LevelFilter::Info, || {
        let log = Log::new();
        say(&log, Level::Info, "kernel", "early");
        lines(&log)
    });
    assert_eq!(lines, ["[   0.000000] early"]);
}

#[test]
fn a_vm_may_choose_its_messages_and_the_host_keeps_its_level() {
    let filters = |text: &str| {
        let mut sources = qvmconf::Sources::new();
        let root = sources.add_text("command line", "", text);
        let vocabulary = qvmconf::Vocabulary::default();
        let document = qvmconf::parse(&mut sources, &[root], &mut qvmconf::NoFiles, &vocabulary);
        match document.statements[0].value() {
            qvmconf::Value::Filters(filters) => *filters,
            other => panic!("{other:?}"),
        }
    };
    let lines = at_level(LevelFilter::Info, || {
        let (log, _) = started();
        log.set_level(LevelFilter::Info);
        let (console, slog) = (filters("logger error,debug stderr"), filters("logger info slog"));
        log.choose("a", Some(Messages { console, slog }));
        for level in [Level::Error, Level::Info, Level::Debug, Level::Trace] {
            say(log, level, "vm:a/uart", "x");
            say(log, level, "vm:b", "y");
            say(log, level, "kernel", "z");
        }
        log.choose("a", None);
        say(log, Level::Debug, "vm:a", "not any more");
        assert_eq!(::log::max_level(), LevelFilter::Info);
        let of_a =
            ["error: a/uart: x", "a/uart: x", "debug: a/uart: x"].map(|line| std::format!("[  12.345678] {line}"));
        assert_eq!(kept(log, Some("a")), of_a);
        lines(log)
    });
    let said: Vec<_> = lines.iter().map(|line| line.split_once("] ").unwrap().1).collect();
    assert_eq!(said, ["error: a/uart: x", "error: b: y", "error: z", "b: y", "z", "debug: a/uart: x"]);
}

#[test]
fn levels_have_the_names_of_the_log_crate() {
    assert_eq!(level("warn"), Some(LevelFilter::Warn));
    assert_eq!(level("off"), Some(LevelFilter::Off));
    assert_eq!(level("loud"), None);
}
