//! Configurations: whatever bytes they are made of, there is a meaning whose parts do not contradict each other, or there
//! are errors, and every place that is pointed at is in the text.
//!
//! The first NUL ends the configuration itself; behind it is the file that it may include as `@b`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use qvmconf::{Diagnostics, Document, Sources, Span};
use types::{Ipa, PAGE_SIZE, Range};
use vm::Files;
use vm::config::{Configuration, Includes, Limits};

struct Archive<'a>(&'a [u8]);

impl Files for Archive<'_> {
    fn file(&self, path: &str) -> Option<&[u8]> {
        (path == "a/b").then_some(self.0)
    }
}

fuzz_target!(|data: &[u8]| {
    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (text, rest) = data.split_at(end);
    let archive = Archive(rest.get(1..).unwrap_or_default());
    let mut sources = Sources::new();
    let root = sources.add_file("a/a.qvmconf", text);
    let vocabulary = vm::config::vocabulary(vdevs::CATALOGUE);
    let document = qvmconf::parse(&mut sources, &[root], &mut Includes(&archive), &vocabulary);
    check_places(&document, &sources);
    match vm::config::build(&document, &sources, vdevs::CATALOGUE, Limits { cpus: Some(4), groups: None }) {
        Ok((configuration, warnings)) => {
            assert!(!document.diagnostics.has_errors() && !warnings.has_errors());
            check_rendering(&warnings, &sources);
            check_meaning(&configuration);
        }
        Err(diagnostics) => {
            assert!(diagnostics.has_errors());
            check_rendering(&diagnostics, &sources);
        }
    }
});

fn check_places(document: &Document, sources: &Sources) {
    let check = |span| assert_place(span, sources);
    for statement in &document.statements {
        check(statement.span);
        statement.arguments.iter().for_each(|argument| check(argument.span));
        for setting in &statement.settings {
            check(setting.span);
            check(setting.value_span());
        }
    }
}

fn check_rendering(diagnostics: &Diagnostics, sources: &Sources) {
    for diagnostic in diagnostics.iter() {
        diagnostic
            .span
            .into_iter()
            .chain(diagnostic.notes.iter().map(|note| note.span))
            .for_each(|span| assert_place(span, sources));
        assert!(!diagnostic.message.is_empty());
    }
    let shown = sources.render_all(diagnostics).to_string();
    assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
}

fn assert_place(span: Span, sources: &Sources) {
    let text = sources.get(span.source).expect("a source").text();
    assert!(span.start <= span.end && span.end as usize <= text.len(), "{span:?}");
    assert!(text.is_char_boundary(span.start as usize) && text.is_char_boundary(span.end as usize), "{span:?}");
}

/// What `assemble` and the kernel rely on.
fn check_meaning(configuration: &Configuration) {
    let description = &configuration.description;
    assert!(!description.name.is_empty() && description.name.len() <= 32);
    assert!(description.vcpus >= 1 && description.vcpus == configuration.cpus.len());
    assert!(configuration.cpus.iter().all(|cpu| cpu.priority > 0 && cpu.runmask.is_none_or(|mask| !mask.is_empty())));
    assert!(!description.ram.is_empty());
    let memory = description.ram.iter().chain(&description.rom);
    assert!(memory.clone().all(|range| !range.is_empty() && range.is_aligned(PAGE_SIZE)));
    let devices = description.vdevs.iter().filter_map(|vdev| Range::new(vdev.location?, vdev.factory.region_size));
    let mut places: Vec<Range<Ipa>> = memory.copied().chain(devices).collect();
    places.extend(description.controller.claims(description.vcpus).filter_map(|(_, range)| range));
    places.sort_by_key(Range::start);
    assert!(places.windows(2).all(|pair| !pair[0].overlaps(&pair[1])), "{places:?}");
    let mut interrupts: Vec<u32> = description.vdevs.iter().filter_map(|vdev| Some(vdev.interrupt?.0)).collect();
    interrupts.sort_unstable();
    assert!(interrupts.windows(2).all(|pair| pair[0] != pair[1]));
    assert!(interrupts.iter().all(|intid| (32..1020).contains(intid)));
    let mut names: Vec<&str> = description.vdevs.iter().map(|vdev| vdev.name.as_str()).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    for load in &description.loads {
        let whole = !load.path.is_empty() && load.path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        assert!(whole, "{:?}", load.path);
    }
}
