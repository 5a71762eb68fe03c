use super::*;
use ::log::Log as _;
use alloc::{boxed::Box, string::String};
use std::{sync::Mutex, vec};

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

#[test]
#[cfg_attr(miri, ignore = "filling the whole log takes Miri a minute")]
fn what_does_not_fit_is_counted() {
    const TOO_MANY: usize = 2 * SIZE / 200;
    let lines = at_level(LevelFilter::Info, || {
        let (log, _) = started();
        for _ in 0..TOO_MANY {
            say(log, Level::Info, "kernel", &"x".repeat(200));
        }
        let lines = lines(log);
        say(log, Level::Info, "kernel", "again");
        let mut rescued = Vec::new();
        log.rescue(|byte| rescued.push(byte));
        assert_eq!(rescued, b"[  12.345678] again\n");
        lines
    });
    let kept = lines.len() - 1;
    assert_eq!(lines[kept], std::format!("log: {} messages lost", TOO_MANY - kept));
    assert_eq!(vec![&lines[0]; kept], lines[..kept].iter().collect::<Vec<_>>());
}

#[test]
#[cfg_attr(miri, ignore = "filling the whole log takes Miri a minute")]
fn an_epitaph_gets_everything_that_waits_and_how_much_was_lost() {
    let rescued = at_level(LevelFilter::Info, || {
        let (log, _) = started();
        for _ in 0..2 * SIZE / 200 {
            say(log, Level::Info, "kernel", &"x".repeat(200));
        }
        let mut rescued = Vec::new();
        log.rescue(|byte| rescued.push(byte));
        log.rescue(|_| panic!("twice"));
        String::from_utf8(rescued).unwrap()
    });
    assert!(rescued.lines().count() > 50);
    assert!(rescued.ends_with(" messages lost\n"), "{rescued}");
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
    let messages = |text: &str| {
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
        log.choose("a", Some(messages("logger error,debug slog")));
        for level in [Level::Error, Level::Info, Level::Debug, Level::Trace] {
            say(log, level, "vm:a/uart", "x");
            say(log, level, "vm:b", "y");
            say(log, level, "kernel", "z");
        }
        log.choose("a", None);
        say(log, Level::Debug, "vm:a", "not any more");
        assert_eq!(::log::max_level(), LevelFilter::Info);
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
