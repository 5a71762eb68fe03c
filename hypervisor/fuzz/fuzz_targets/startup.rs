//! The start-up script: whatever stands in it, there are commands whose words are where they say, or errors.

#![no_main]

use host::startup::{Command, Part, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|script: &[u8]| {
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
});
