use super::*;

const SPECS: &[OptionSpec] = &[
    OptionSpec::new("legacy", OptionKind::Flag, ""),
    OptionSpec::new("version", OptionKind::Number { min: 2, max: 3 }, "").default("3"),
    OptionSpec::new("length", OptionKind::Size, ""),
    OptionSpec::new("gicr", OptionKind::Address, ""),
    OptionSpec::new("create", OptionKind::Text, "").repeatable(),
    OptionSpec::new("action", OptionKind::Choice(&["terminate", "fiq"]), ""),
    OptionSpec::new("hostdev", OptionKind::HostDevice, "").repeatable(),
    OptionSpec::new("batch", OptionKind::Number { min: 0, max: u64::MAX }, "").not_yet(),
];

fn at(start: u32) -> Place {
    Place { source: 1, start, end: start + 1 }
}

fn parse(words: &[(&'static str, Option<&'static str>)]) -> Result<Options, Vec<OptionError>> {
    let given = words.iter().zip(0..).map(|((name, argument), n)| Given { name, argument: *argument, place: at(n) });
    Options::parse(SPECS, given, &crate::testkit::PlainNumbers)
}

#[test]
fn each_kind_arrives_typed_with_its_place() {
    let options = parse(&[
        ("legacy", None),
        ("length", Some("0x1000")),
        ("gicr", Some("4096")),
        ("action", Some("fiq")),
        ("hostdev", Some(">-")),
    ])
    .unwrap();
    assert!(options.has("legacy"));
    assert_eq!(options.size("length"), Some(0x1000));
    assert_eq!(options.address("gicr"), Some(Ipa(4096)));
    assert_eq!(options.text("action"), Some("fiq"));
    assert_eq!(options.place("gicr"), Some(at(2)));
    let console = options.host_devices("hostdev").next().unwrap();
    assert!(console.is_console());
    assert_eq!((console.direction, console.place), (Direction::Output, Some(at(4))));
}

#[test]
fn an_option_asked_for_under_another_type_is_not_there() {
    let options = parse(&[("length", Some("1"))]).unwrap();
    assert_eq!(options.number("length"), None);
    assert_eq!(options.address("length"), None);
    assert_eq!(options.text("length"), None);
}

#[test]
fn the_last_one_wins_unless_each_counts() {
    let options =
        parse(&[("version", Some("2")), ("version", Some("3")), ("create", Some("a")), ("create", Some("b"))]).unwrap();
    assert_eq!(options.number("version"), Some(3));
    assert_eq!(options.place("version"), Some(at(1)));
    assert!(options.texts("create").eq(["a", "b"]));
}

#[test]
fn a_default_is_there_without_a_place() {
    let options = parse(&[]).unwrap();
    assert_eq!(options.number("version"), Some(3));
    assert_eq!(options.place("version"), None);
    assert!(!options.has("legacy"));
}

#[test]
fn an_option_that_is_required_is_missed_once() {
    static SPECS: &[OptionSpec] = &[OptionSpec::new("rate", OptionKind::Number { min: 1, max: 9 }, "").required()];
    let parse = |argument: Option<&str>| {
        let given = argument.map(|_| Given { name: "rate", argument, place: at(7) });
        Options::parse(SPECS, given, &crate::testkit::PlainNumbers)
    };
    let wrong = |argument| {
        let errors = parse(argument).unwrap_err();
        errors.into_iter().map(|error| (error.message, error.place)).collect::<Vec<_>>()
    };
    assert_eq!(wrong(None), [("option `rate` is missing".to_string(), None)]);
    assert_eq!(wrong(Some("0")), [("`rate 0`: must be from 1 to 9".to_string(), Some(at(7)))]);
    assert_eq!(parse(Some("2")).unwrap().number("rate"), Some(2));
}

#[test]
fn everything_wrong_is_reported_at_once_where_it_is() {
    let errors = parse(&[
        ("version", Some("4")),
        ("legacy", Some("yes")),
        ("gicr", None),
        ("batch", Some("5")),
        ("bogus", None),
        ("action", Some("explode")),
        ("length", Some("long")),
        ("hostdev", Some(">")),
    ])
    .unwrap_err();
    let expected = [
        "`version 4`: must be from 2 to 3",
        "`legacy` takes no argument",
        "`gicr` needs an argument",
        "option `batch` is known, not supported yet",
        "unknown option `bogus`",
        "`action explode`: must be one of: terminate, fiq",
        "`length long`: not a number",
        "`hostdev >`: `>` names no back end: expected NAME, <NAME or >NAME",
    ];
    assert_eq!(errors.len(), expected.len());
    for ((error, message), n) in errors.iter().zip(expected).zip(0..) {
        assert_eq!(error.message, message);
        assert_eq!(error.place, Some(at(n)));
    }
}

#[test]
fn back_ends_say_which_way_bytes_go() {
    for (text, direction, name) in [
        ("<in", Direction::Input, "in"),
        (">out", Direction::Output, "out"),
        ("both", Direction::Both, "both"),
        ("-", Direction::Both, "-"),
        (">|gzip", Direction::Output, "|gzip"),
    ] {
        let device = HostDevice::parse(text, None).unwrap();
        assert_eq!((device.direction, device.name.as_str()), (direction, name));
        assert_eq!(device.to_string(), text);
    }
    assert!(HostDevice::parse("", None).is_err());
}
