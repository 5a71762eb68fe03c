use super::*;
use alloc::vec;

fn vocabulary() -> Vocabulary {
    let option = |name, takes_argument, repeatable| VdevOption { name, takes_argument, repeatable };
    Vocabulary {
        vdevs: vec![
            VdevWords { name: "gic", options: vec![option("version", true, false)] },
            VdevWords { name: "pl011", options: vec![option("hostdev", true, true), option("legacy", false, false)] },
        ],
    }
}

struct One(&'static str, &'static str);

impl Loader for One {
    fn load(&mut self, path: &str) -> Option<Vec<u8>> {
        (path == self.0).then(|| self.1.as_bytes().to_vec())
    }
}

fn read(text: &str) -> (Document, String) {
    read_with(text, &mut NoFiles)
}

fn read_with(text: &str, loader: &mut dyn Loader) -> (Document, String) {
    let mut sources = Sources::new();
    let root = sources.add_file("vms/a.qvmconf", text.as_bytes());
    let document = parse(&mut sources, &[root], loader, &vocabulary());
    let shown = sources.render_all(&document.diagnostics).to_string();
    (document, shown)
}

fn good(text: &str) -> Document {
    let (document, shown) = read(text);
    assert!(document.diagnostics.is_empty(), "{shown}");
    document
}

/// One error, with these words in it.
fn bad(text: &str, words: &[&str]) {
    let (document, shown) = read(text);
    assert_eq!(document.diagnostics.iter().count(), 1, "{shown}");
    for word in words {
        assert!(shown.contains(word), "no {word:?} in\n{shown}");
    }
}

#[test]
fn an_option_that_is_neither_does_not_end_the_context() {
    // The original's own example: `cpu sched 8 ram 32m` equals `cpu ram 32m sched 8`.
    let (one, other) = (good("cpu sched 8 ram 32m"), good("cpu ram 32m sched 8"));
    let cpu = |document: &Document| document.statements.iter().find(|s| s.keyword == Keyword::Cpu).cloned().unwrap();
    assert_eq!(cpu(&one).settings[0].value(), cpu(&other).settings[0].value());
}

#[test]
fn the_last_of_a_repeated_option_counts() {
    let document = good("cpu sched 8 sched 6 cpu");
    assert_eq!(document.statements.len(), 2);
    assert_eq!(document.statements[0].settings.len(), 1);
    assert!(document.statements[1].settings.is_empty());
    let document = good("system a unsupported register fail unsupported register ignore unsupported reference abort");
    assert_eq!(document.statements.len(), 3);
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn options_of_a_vdev_are_its_own() {
    let document = good("vdev pl011 loc 0x1c090000 intr gic:37 hostdev <a hostdev >b legacy name uart");
    assert_eq!(document.statements[0].settings.len(), 6);
    bad("vdev gic hostdev x", &["`hostdev`", "vdev gic"]);
    bad("vdev pl011 batch 3", &["`batch` of `vdev pl011`: known, not supported yet"]);
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn what_is_not_there_is_named_with_what_was_meant() {
    bad("vdev pl01 loc 0x1000", &["no vdev `pl01`", "did you mean `pl011`?", "a.qvmconf:1:6"]);
    bad("vdev shmem create a,4K allow b", &["known, not supported yet"]);
    bad("vdev hpet", &["x86"]);
    bad("rma 128M", &["`rma`", "did you mean `ram`?"]);
    bad("set exit-on-hlat off", &["did you mean `exit-on-halt`?"]);
    bad("set fdt-dump-file x", &["known, not supported yet"]);
    bad("pass loc mem:0x1000,0x1000,rwz", &["`z` is no attribute", "a.qvmconf:1:30"]);
}

#[test]
fn a_missing_argument_does_not_eat_the_next_option() {
    let (document, shown) = read("ram cpu sched 3");
    assert!(shown.contains("`ram` wants a range before `cpu`"), "{shown}");
    assert_eq!(document.statements.len(), 1);
    bad("cpu sched", &["ends here"]);
}

#[test]
fn an_option_of_a_vdev_is_named_with_it() {
    bad("vdev pl011\n  loc intr gic:37", &["`loc` of `vdev pl011` wants an argument before `intr`"]);
    bad("vdev pl011\n  hostdev", &["`hostdev` of `vdev pl011` wants an argument, and the configuration ends here"]);
    bad("vdev pl011 loc 3Q", &["`loc` of `vdev pl011`: "]);
    // What opens the next context is nobody's.
    bad("vdev pl011 loc 0x1000 ram cpu", &["`ram` wants"]);
}

#[test]
fn a_word_in_the_wrong_place_says_where_it_belongs() {
    bad("sched 3", &["applies to a `cpu`, a `vdev`, and there is none here"]);
    bad("loc 0x1000,4K,rwn", &["`loc` applies to a `reserve`, a `pass`, a `vdev`, and there is none here"]);
    bad("runmask 1", &["`runmask` applies to a `cpu`, and there is none here"]);
    bad("\"ram\" 3M", &["`ram` is not an option", "it is one without quotes"]);
    bad("initrd ram 3M", &["`initrd` says what a `load` brings"]);
    assert_eq!(good("initrd load x").statements[0].prefix, Some(Keyword::Initrd));
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn all_mistakes_are_reported_in_one_go() {
    let (document, shown) = read("ram 0x80000000,128Q\ncpu sched 300\nvdev nothing loc 3\nload");
    assert_eq!(document.diagnostics.iter().count(), 4, "{shown}");
}

#[test]
fn files_include_files_and_not_themselves() {
    let (document, shown) = read_with("@more.conf", &mut One("vms/more.conf", "ram 1M"));
    assert_eq!(document.statements.len(), 1, "{shown}");
    let (_, shown) = read_with("@a.qvmconf", &mut One("vms/a.qvmconf", "ram 1M"));
    assert!(shown.contains("includes itself"), "{shown}");
    let (_, shown) = read_with("@../../etc", &mut NoFiles);
    assert!(shown.contains("error"), "{shown}");
    let (_, shown) = read_with("@nothing", &mut NoFiles);
    assert!(shown.contains("no file `vms/nothing`"), "{shown}");
}

#[test]
fn system_is_expected_first() {
    let (document, shown) = read("ram 1M system late");
    assert!(!document.diagnostics.has_errors() && shown.contains("move it to the top"), "{shown}");
}

#[test]
fn a_later_name_overrides_the_first_without_a_word() {
    let document = good("system a ram 1M system b");
    assert_eq!(document.statements.len(), 2);
    assert_eq!(document.statements[1].value(), &Value::Text("b".into()));
}

#[test]
fn the_policy_of_a_sporadic_server_may_be_a_word_of_its_own() {
    for text in ["cpu sched 20,10,3,1000000,500000 s ram 1M", "cpu sched 20,10,3,1000000,500000s ram 1M"] {
        let document = good(text);
        let value = document.statements[0].setting(Keyword::Sched).unwrap().value();
        let Value::Scheduling(crate::Scheduling { policy: crate::SchedulingPolicy::Sporadic(_), .. }) = value else {
            panic!("{value:?}")
        };
        assert_eq!(document.statements.len(), 2);
    }
    bad("cpu sched 20,10,3,1000000 s ram 1M", &["a sporadic server has five numbers", "PERIOD,BUDGET s"]);
    bad("cpu sched 20 s ram 1M", &["`s` is not an option"]);
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn options_of_a_vdev_that_is_not_here_yet_are_known_all_the_same() {
    bad("vdev virtio-blk hostdev /dev/hd0 legacy threads 4 loc 0x1c0d0000 intr gic:41 name x", &["`vdev virtio-blk`"]);
    let (document, shown) = read("vdev virtio-blk hostdve /dev/hd0\nrma 3M");
    assert_eq!(document.diagnostics.iter().count(), 3, "{shown}");
    assert!(
        shown.contains("neither an option of `vdev virtio-blk`") && shown.contains("did you mean `hostdev`?"),
        "{shown}"
    );
    assert!(shown.contains("did you mean `ram`?"), "{shown}");
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn the_options_of_a_vdev_that_nobody_knows_are_not_judged() {
    bad("vdev frobnicator colour blue loc 0x1000 intr x ram 1M", &["no vdev `frobnicator`", "there are gic, pl011"]);
}

#[test]
fn a_word_in_quotes_is_no_option() {
    bad("\"ram\" 1M", &["`ram` is not an option"]);
    bad("system a \"@b\"", &["`@b` is not an option"]);
}

#[test]
fn files_are_not_included_without_end() {
    struct Endless;
    impl Loader for Endless {
        fn load(&mut self, path: &str) -> Option<Vec<u8>> {
            // Each file includes another one twice.
            let next = path.len();
            Some(format!("@{0} @{0}", "x".repeat(next)).into_bytes())
        }
    }
    let mut sources = Sources::new();
    let root = sources.add_file("a", b"@b");
    let document = parse(&mut sources, &[root], &mut Endless, &vocabulary());
    assert!(document.diagnostics.has_errors());
    assert!(sources.len() <= 1 + super::includes::MAX_INCLUDES);
}

#[test]
#[cfg_attr(miri, ignore = "tens of thousands of words take Miri minutes")]
fn there_is_an_end_to_the_words_of_all_files_together() {
    let (_, shown) = read_with(&"@b ".repeat(10), &mut One("vms/b", &"cpu ".repeat(5000).leak()[..]));
    assert_eq!(shown.matches("words in all").count(), 1, "{shown}");
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn every_word_of_the_table_is_understood_or_refused_by_name() {
    for row in ROWS {
        // The context it needs, the word, and no argument: what is said must be about this word.
        let opener = row.within.opener().map_or("", |opener| if opener == "vdev" { "vdev pl011" } else { opener });
        let (document, shown) = read(&format!("{opener} {}", row.spelling));
        let fine = document.diagnostics.is_empty();
        assert!(fine || shown.contains(&format!("`{}`", row.spelling)) || shown.contains("`pass`"), "{row}: {shown}");
        if row.status != Status::Supported {
            assert!(shown.contains(&row.status.to_string()), "{row}: {shown}");
        }
    }
}

// Millions of steps: too many for Miri, and the fuzz target does the same to this crate's end.
#[cfg(not(miri))]
mod random {
    use super::*;
    use proptest::prelude::*;

    fn word() -> impl Strategy<Value = String> {
        let words: Vec<String> = ROWS.iter().map(|row| row.spelling.to_string()).collect();
        let arguments = [
            "0x80000000,1M",
            "1M",
            "gic:37",
            "gic",
            "pl011",
            "shmem",
            "0x1000",
            "8",
            "20,10,3,4,5",
            "s",
            "a.bin",
            "yes",
            "exit-on-halt",
            "register",
            "ignore",
            "fatal,info",
            "slog",
            "@more.conf",
            "@a.qvmconf",
            "\"a b\"",
            "\"",
            "#",
            "nothing",
            "hostdev",
            "version",
            "\n",
            "\0",
        ];
        prop_oneof![
            proptest::sample::select(words),
            proptest::sample::select(arguments.map(String::from).to_vec()),
            "\\PC{1,6}",
        ]
    }

    proptest! {
        /// Whatever words in whatever order: there is an end, and every place is in the text.
        #[test]
        fn any_words_give_a_document_whose_places_are_in_the_text(words in proptest::collection::vec(word(), 0..30)) {
            let mut sources = Sources::new();
            let root = sources.add_file("vms/a.qvmconf", words.join(" ").as_bytes());
            let mut more = One("vms/more.conf", "cpu sched 3 @more.conf vdev pl011 loc");
            let document = parse(&mut sources, &[root], &mut more, &vocabulary());
            let inside = |span: Span| {
                let length = sources.get(span.source).map_or(0, |source| source.text().len());
                span.start <= span.end && span.end as usize <= length
            };
            for statement in &document.statements {
                prop_assert!(inside(statement.span) && inside(statement.value_span()));
                prop_assert!(statement.settings.iter().all(|setting| inside(setting.span) && inside(setting.value_span())));
            }
            for diagnostic in document.diagnostics.iter() {
                prop_assert!(diagnostic.span.is_none_or(inside), "{diagnostic:?}");
            }
            prop_assert!(!sources.render_all(&document.diagnostics).to_string().contains('\0'));
        }

        /// A document written out again says the same.
        #[test]
        fn what_was_understood_can_be_written_and_read_again(words in proptest::collection::vec(word(), 0..30)) {
            let (first, _) = read(&words.join(" "));
            let text = written(&first);
            let (again, shown) = read(&text);
            prop_assert_eq!(written(&again), text, "{}", shown);
        }
    }

    fn written(document: &Document) -> String {
        let mut words: Vec<String> = Vec::new();
        for statement in &document.statements {
            let spelling = |keyword| ROWS.iter().find(|row| row.keyword == keyword).unwrap().spelling.to_string();
            words.extend(statement.prefix.map(spelling));
            words.push(spelling(statement.keyword));
            words.extend(statement.arguments.iter().map(|argument| crate::quote(&argument.text)));
            for setting in &statement.settings {
                words.push(match setting.name {
                    SettingName::Keyword(keyword) => spelling(keyword),
                    SettingName::Vdev(name) | SettingName::Variable(name) => name.to_string(),
                });
                words.extend(setting.argument.iter().map(|argument| crate::quote(&argument.text)));
            }
        }
        words.join(" ")
    }
}
