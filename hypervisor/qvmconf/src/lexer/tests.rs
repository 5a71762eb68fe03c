use super::*;
use alloc::string::ToString;
use alloc::vec;
use proptest::prelude::*;

fn lexed(text: &[u8]) -> (Vec<Token>, Diagnostics, Sources) {
    let mut sources = Sources::new();
    let id = sources.add_file("t", text);
    let mut diagnostics = Diagnostics::new();
    let tokens = lex(&sources, id, &mut diagnostics);
    (tokens, diagnostics, sources)
}

fn words(text: &str) -> Vec<String> {
    let (tokens, diagnostics, _) = lexed(text.as_bytes());
    assert!(diagnostics.is_empty(), "{diagnostics:?}");
    tokens.into_iter().map(|token| token.text).collect()
}

fn error(text: &str) -> (Vec<String>, String) {
    let (tokens, diagnostics, sources) = lexed(text.as_bytes());
    let found: Vec<_> = diagnostics.into_iter().collect();
    assert_eq!(found.len(), 1, "{found:?}");
    let place = sources.location(found[0].span.unwrap());
    (
        tokens.into_iter().map(|token| token.text).collect(),
        format!("{}:{}: {}", place.line, place.column, found[0].message),
    )
}

#[test]
fn white_space_of_any_kind_separates_words() {
    assert_eq!(words(" cpu\tsched\r\n8\x0b\x0cram\r32m\n"), ["cpu", "sched", "8", "ram", "32m"]);
    assert_eq!(words("\u{feff}system x"), ["system", "x"]);
    assert_eq!(words(""), [""; 0]);
}

#[test]
fn a_comment_runs_to_the_end_of_its_line() {
    assert_eq!(words("# all\nram 32m # \"not a string\nrom 1m#tail\n#"), ["ram", "32m", "rom", "1m"]);
    assert_eq!(words("name \"a#b\""), ["name", "a#b"]);
}

#[test]
fn quotes_hold_white_space_together() {
    assert_eq!(words("cmdline \"console=ttyAMA0  quiet\" cpu"), ["cmdline", "console=ttyAMA0  quiet", "cpu"]);
    assert_eq!(words("hostdev >\"|gzip >x.gz\"tail"), ["hostdev", ">|gzip >x.gztail"]);
    assert_eq!(words("cmdline \"\""), ["cmdline", ""]);
}

#[test]
fn a_backslash_at_the_end_of_a_line_continues_the_string() {
    assert_eq!(words("cmdline \"a \\\n  b\\\r\nc\""), ["cmdline", "a   bc"]);
}

#[test]
fn backslashes_escape_quotes_and_themselves_and_nothing_else() {
    assert_eq!(words(r#""say \"hi\" c:\\x \x41""#), [r#"say "hi" c:\x \x41"#]);
    assert_eq!(words(r"a\b"), [r"a\b"]);
}

#[test]
fn a_string_ends_on_its_line() {
    let (found, message) = error("cmdline \"console=\nram 32m");
    assert_eq!(message, "1:9: the string has no end");
    assert_eq!(found, ["cmdline", "console=", "ram", "32m"]);
    assert_eq!(error("cmdline \"").1, "1:9: the string has no end");
    assert_eq!(error("cmdline \"\\").1, "1:9: the string has no end");
    assert_eq!(error("cmdline \"x\r\ny").0, ["cmdline", "x", "y"]);
}

#[test]
fn control_characters_are_reported_once_a_run() {
    let (found, message) = error("ram\n3\0\x012m");
    assert_eq!(message, "2:2: control character U+0000");
    assert_eq!(found, ["ram", "32m"]);
    assert_eq!(
        error("ram \x7f 1m"),
        (vec!["ram".to_string(), "1m".to_string()], "1:5: control character U+007F".into())
    );
    assert_eq!(error("\"a\x07b\"").1, "1:3: control character U+0007");
}

#[test]
fn text_in_another_encoding_is_refused_where_it_starts() {
    let (tokens, diagnostics, sources) = lexed(b"ram 1m # \xe4\n");
    assert!(tokens.is_empty());
    let found: Vec<_> = diagnostics.into_iter().collect();
    assert_eq!(found[0].message, "not UTF-8 text");
    assert_eq!(sources.location(found[0].span.unwrap()).column, 10);
}

#[test]
#[cfg_attr(miri, ignore = "megabytes of text take Miri a minute")]
fn sizes_are_bounded() {
    let (tokens, diagnostics, _) = lexed("a ".repeat(MAX_WORDS + 5).as_bytes());
    assert_eq!(tokens.len(), MAX_WORDS);
    assert!(diagnostics.has_errors());
    let (tokens, diagnostics, _) = lexed("ä".repeat(MAX_WORD).as_bytes());
    assert_eq!(tokens[0].text.len(), MAX_WORD);
    assert!(diagnostics.has_errors());
}

#[test]
fn the_first_word_of_a_line_is_known_as_such() {
    let (tokens, ..) = lexed(b"cpu sched 8 # x\n\n  ram 1M\r\ncmdline \"a\\\nb\" rom");
    let first: Vec<_> = tokens.iter().filter(|token| token.starts_line).map(|token| token.text.as_str()).collect();
    assert_eq!(first, ["ram", "cmdline"], "and nobody asks about the very first");
}

#[test]
fn spans_cover_the_quotes() {
    let (tokens, _, sources) = lexed(b"  >\"a b\"c # x");
    assert_eq!(sources.text(tokens[0].span), ">\"a b\"c");
    assert!(tokens[0].quoted);
}

proptest! {
    #[test]
    fn any_bytes_give_ordered_spans_within_the_text(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (tokens, diagnostics, sources) = lexed(&bytes);
        let length = sources.get(SourceId::default()).unwrap().text().len();
        let mut last = 0;
        for token in &tokens {
            prop_assert!(last <= token.span.start as usize && token.span.start < token.span.end);
            prop_assert!(token.span.end as usize <= length);
            last = token.span.end as usize;
        }
        for diagnostic in diagnostics.iter() {
            let span = diagnostic.span.unwrap();
            prop_assert!(span.start <= span.end && span.end as usize <= length);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
    fn syntax_like_text_gives_ordered_spans(text in "[ \\t\\r\\n\"\\\\#@a-c\u{0}ä]{0,80}") {
        let (tokens, _, sources) = lexed(text.as_bytes());
        for token in &tokens {
            // A word is found in its span again, but for quotes and escapes.
            let covered = sources.text(token.span);
            prop_assert!(!covered.is_empty());
            if !token.quoted && !covered.contains('\0') {
                prop_assert_eq!(covered, &token.text);
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
    fn quoted_words_come_back(list in prop::collection::vec("[^\\p{Cc}]{0,20}", 0..10)) {
        let text: Vec<String> = list.iter().map(|word| quote(word)).collect();
        prop_assert_eq!(words(&text.join(" ")), list);
    }
}
