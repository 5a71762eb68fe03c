//! The shell: whatever stands in the start-up script, there are commands whose words are where they say, or errors; and
//! whatever is typed, there are lines of text that are read, and nothing but known sequences goes to the terminal.

#![no_main]

use host::shell::{Command, Completions, Editor, Named, Part, parse, read};
use libfuzzer_sys::fuzz_target;

struct Names;

impl Completions for Names {
    fn each(&self, named: Named, offer: &mut dyn FnMut(&str)) {
        let names: &[&str] = match named {
            Named::Vm => &["linux", "linux-rt", "grün"],
            Named::Vdev => &["pl011"],
            Named::File => &["vms/linux.qvmconf", "vms/grün.qvmconf", "hello.qvmconf"],
        };
        names.iter().copied().for_each(offer);
    }
}

fn script(script: &[u8]) {
    let lines: Vec<&[u8]> = script.split(|byte| *byte == b'\n').collect();
    match parse(script) {
        Ok(steps) => {
            for step in steps {
                let Command::Qvm(qvm) = step.command else { continue };
                assert!(!qvm.parts.is_empty());
                for part in qvm.parts {
                    let (Part::File(word) | Part::Inline(word)) = part;
                    assert_eq!(word.line, step.line);
                    let line = std::str::from_utf8(lines[word.line - 1]).expect("a command is text");
                    let behind: String = line.chars().skip(word.column - 1).collect();
                    let behind = behind.trim_start_matches(['@', '/']);
                    assert!(behind.starts_with(word.text.trim_start_matches(['@', '/'])), "{word:?} in {line:?}");
                }
            }
        }
        Err(errors) => {
            assert!(!errors.is_empty() && errors.len() <= 20);
            assert!(errors.iter().all(|error| (1..=lines.len()).contains(&error.line) && error.column >= 1));
        }
    }
}

/// Whether a terminal is sent nothing but text, line breaks, the bell, and the sequences of the editor.
fn is_harmless(out: &str) -> bool {
    let mut characters = out.chars();
    while let Some(character) = characters.next() {
        let fine = match character {
            '\x1b' => {
                characters.next() == Some('[')
                    && characters.by_ref().find(|c| !c.is_ascii_digit()).is_some_and(|last| "HJKD".contains(last))
            }
            character => !character.is_control() || "\r\n\x07".contains(character),
        };
        if !fine {
            return false;
        }
    }
    true
}

fn typed(bytes: &[u8]) {
    let mut editor = Editor::default();
    for byte in bytes {
        let mut out = String::new();
        let line = editor.press(*byte, &Names, &mut out);
        assert!(out.len() < 4096 && is_harmless(&out), "{out:?}");
        let Some(line) = line else { continue };
        assert!(line.len() <= 512 && !line.chars().any(char::is_control), "{line:?}");
        if let Err(error) = read(&line) {
            assert!(error.column >= 1 && error.column <= line.chars().count(), "{error:?} in {line:?}");
        }
    }
}

fuzz_target!(|data: &[u8]| {
    script(data);
    typed(data);
});
