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
fn options_of_a_vdev_are_its_own() {
    let document = good("vdev pl011 loc 0x1c090000 intr gic:37 hostdev <a hostdev >b legacy name uart");
    assert_eq!(document.statements[0].settings.len(), 6);
    bad("vdev gic hostdev x", &["`hostdev`", "vdev gic"]);
    bad("vdev pl011 batch 3", &["`batch` of `vdev pl011`: known, not supported yet"]);
}

#[test]
fn what_is_not_there_is_named_with_what_was_meant() {
    bad("vdev pl01 loc 0x1000", &["no vdev `pl01`", "did you mean `pl011`?", "a.qvmconf:1:6"]);
    bad("vdev shmem create a,4K allow b", &["known, not supported yet"]);
    bad("vdev hpet", &["x86"]);
    bad("rma 128M", &["`rma`", "did you mean `ram`?"]);
    bad("set exit-on-hlat off", &["did you mean `exit-on-halt`?"]);
    bad("set fdt-dump-file x", &["known, not supported yet"]);
    bad("pass loc mem:0x1000,0x1000,rw intr gic:40", &["`pass`: known, not supported yet"]);
    bad("dump /tmp", &["`dump`: known, not supported yet"]);
}

#[test]
fn a_missing_argument_does_not_eat_the_next_option() {
    let (document, shown) = read("ram cpu sched 3");
    assert!(shown.contains("`ram` wants a range before `cpu`"), "{shown}");
    assert_eq!(document.statements.len(), 1);
    bad("cpu sched", &["ends here"]);
}

#[test]
fn a_word_in_the_wrong_place_says_where_it_belongs() {
    bad("sched 3", &["applies to a `cpu`"]);
    bad("initrd ram 3M", &["`initrd` says what a `load` brings"]);
    assert_eq!(good("initrd load x").statements[0].prefix, Some(Keyword::Initrd));
}

#[test]
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
