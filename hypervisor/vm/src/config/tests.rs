use super::*;
use crate::assemble::{AssembleError, Subject};
use crate::controller::Its;
use alloc::vec;
use qvmconf::SporadicServer;
use std::collections::HashMap;
use types::Range;
use types::{CpuId, CpuSet, IntId, Mpidr};
use vgic::Version;

mod devices;
mod memory;
mod pass;
mod pci;
mod rest;

/// Other files than the configuration.
struct Archive(HashMap<&'static str, &'static str>);

impl Files for Archive {
    fn file(&self, path: &str) -> Option<&[u8]> {
        self.0.get(path).map(|text| text.as_bytes())
    }
}

/// What comes of a text: a meaning or none, and what is said about it.
fn read_all(text: &str, files: &Archive, limits: Limits<'_>) -> (Option<Configuration>, String) {
    let mut sources = Sources::new();
    let root = sources.add_file("vms/guest.qvmconf", text.as_bytes());
    let document = qvmconf::parse(&mut sources, &[root], &mut Includes(files), &vocabulary(::vdevs::CATALOGUE));
    match build(&document, &sources, ::vdevs::CATALOGUE, limits) {
        Ok((configuration, warnings)) => (Some(configuration), sources.render_all(&warnings).to_string()),
        Err(diagnostics) => (None, sources.render_all(&diagnostics).to_string()),
    }
}

fn read(text: &str) -> (Option<Configuration>, String) {
    read_all(text, &Archive(HashMap::new()), Limits::default())
}

/// The meaning of a text that is right.
fn good(text: &str) -> Configuration {
    let (configuration, said) = read(text);
    assert_eq!(said, "");
    configuration.unwrap()
}

/// The first lines of what is said about a text that is wrong: `LINE:COLUMN: error: MESSAGE`.
fn errors(text: &str) -> Vec<String> {
    let (configuration, said) = read(text);
    assert!(configuration.is_none(), "nothing wrong with {text}: {said}");
    let line = |line: &str| Some(line.strip_prefix("vms/guest.qvmconf:")?.trim().to_string());
    said.lines().filter_map(line).collect()
}

/// Just one mistake, with these words in the message that points to it and in what goes with it.
fn bad(text: &str, words: &[&str]) {
    let (configuration, said) = read(text);
    assert!(configuration.is_none(), "nothing wrong with {text}: {said}");
    assert_eq!(said.matches(" error: ").count(), 1, "{said}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in\n{said}");
    }
}

fn range(start: u64, length: u64) -> Range<Ipa> {
    Range::new(Ipa(start), length).unwrap()
}

const RAM: &str = "ram 0x80000000,16M\n";

#[test]
fn the_least_there_can_be_gets_the_defaults() {
    let Configuration { description, cpus, exit_on_halt, messages, .. } = good("ram 16M");
    assert_eq!(description.name, "guest", "the file's name");
    assert_eq!(description.ram, [range(0x8000_0000, 16 << 20)]);
    assert_eq!((description.vcpus, cpus.len()), (1, 1), "no `cpu` is one");
    assert_eq!(cpus[0], CpuConfig { priority: 10, policy: CpuPolicy::RoundRobin, runmask: None, partition: 0 });
    assert_eq!(
        (description.controller.distributor, description.controller.redistributors),
        (Ipa(0x0800_0000), Ipa(0x080a_0000))
    );
    assert_eq!(description.policy, Unsupported::default());
    assert_eq!((description.entry, description.counter_offset), (None, None));
    assert!(exit_on_halt && messages.is_none() && description.cmdline.is_none());
    assert!(description.vdevs.is_empty() && description.loads.is_empty() && description.rom.is_empty());
}

#[test]
fn every_option_arrives() {
    let configuration = good(
        "system full ram 0x80000000,1M rom 0,4K
         cpu sched 20f runmask 0,2 cpu sched 8o
         load 0x80000000,a.bin initrd load /b fdt load ../c guest load d data load e
         cmdline \"quiet splash\" entry 0x80001000
         set exit-on-halt off set counter-offset 5
         unsupported instruction ignore unsupported register abort unsupported reference fail
         logger fatal,debug slog logger info none
         reserve loc 0x20000000,64K intr pic:99
         vdev gic loc 0x30000000 gicr 0x30100000 name pic
         vdev pl011 loc 0x1c090000 intr pic:37 hostdev >- name uart",
    );
    let Configuration { description, cpus, exit_on_halt, messages, .. } = &configuration;
    assert_eq!(description.name, "full");
    assert_eq!(description.rom, [range(0, 4096)]);
    assert_eq!(description.reserved, [range(0x2000_0000, 65536)]);
    assert_eq!(description.reserved_interrupts, [IntId(99)]);
    let runmask = CpuSet::of(CpuId(0)).union(CpuSet::of(CpuId(2)));
    assert_eq!(
        cpus[..],
        [
            CpuConfig { priority: 20, policy: CpuPolicy::Fifo, runmask: Some(runmask), partition: 0 },
            CpuConfig { priority: 8, policy: CpuPolicy::RoundRobin, runmask: None, partition: 0 },
        ]
    );
    let loads: Vec<_> = description.loads.iter().map(|load| (load.kind, load.address, load.path.as_str())).collect();
    assert_eq!(
        loads,
        [
            (BlobKind::Detect, Some(Ipa(0x8000_0000)), "vms/a.bin"),
            (BlobKind::Initrd, None, "b"),
            (BlobKind::Fdt, None, "c"),
            (BlobKind::Guest, None, "vms/d"),
            (BlobKind::Data, None, "vms/e"),
        ]
    );
    assert_eq!(description.cmdline.as_deref(), Some("quiet splash"));
    assert_eq!((description.entry, description.counter_offset), (Some(Ipa(0x8000_1000)), Some(5)));
    let Unsupported { instruction, reference, register } = description.policy;
    assert_eq!((instruction, reference, register), (Action::Ignore, Action::Fail, Action::Abort));
    assert!(!exit_on_halt);
    assert!(messages.is_some_and(|messages| messages.slog.contains("debug") && !messages.slog.contains("info")));
    assert_eq!(
        (description.controller.distributor, description.controller.redistributors),
        (Ipa(0x3000_0000), Ipa(0x3010_0000))
    );
    let uart = &description.vdevs[0];
    assert_eq!((uart.name.as_str(), uart.location, uart.interrupt), ("uart", Some(Ipa(0x1c09_0000)), Some(IntId(37))));
    assert_eq!(uart.factory.name, "pl011");
}

#[test]
fn all_ones_is_the_counter_offset_of_a_guest_whose_counter_starts_at_zero() {
    assert_eq!(good("ram 1M set counter-offset 0xffffffffffffffff").description.counter_offset, None);
    assert_eq!(good("ram 1M set counter-offset 0").description.counter_offset, Some(0));
}

#[test]
fn the_tree_has_a_place_of_its_own_if_it_is_given_one() {
    assert_eq!(good("ram 1M").description.tree_at, None);
    let configuration = good("ram 0x40000000,1M set fdt-address 0x40000000");
    assert_eq!(configuration.description.tree_at, Some(Ipa(0x4000_0000)));
    // What `load` finds wrong with it is shown where it stands.
    let error =
        AssembleError { subject: Subject::Tree, other: None, place: None, message: "not there".into(), hint: None };
    assert!(configuration.spans.diagnostic(&error).span.is_some());
    assert!(good("ram 1M").spans.diagnostic(&error).span.is_none());
    bad("ram 1M set fdt-address 40000000", &["1:24: error: ", "write 0x40000000"]);
}

#[test]
fn the_last_of_what_is_said_twice_counts() {
    let text = "system a ram 1M cmdline x cpu sched 8 sched 6 set exit-on-halt off set exit-on-halt on cmdline y";
    let configuration = good(text);
    assert_eq!(configuration.description.cmdline.as_deref(), Some("y"));
    assert_eq!(configuration.cpus[0].priority, 6);
    assert!(configuration.exit_on_halt);
}

#[test]
fn one_mistake_is_one_message() {
    // Each of these could make others look wrong.
    bad("ram 0x80000000,12Q load x", &["`12Q` is no size"]);
    bad("ram load x", &["`ram` wants"]);
    bad("rma 128M load x", &["did you mean `ram`?"]);
    bad("ram 1M vdev pl01 loc 0x1c090000 intr gci:37 hostdev >-", &["there is no vdev `pl01`"]);
    bad("ram 1M vdev pl011 intr gic:37 loc 1c090000", &["write 0x1c090000"]);
    bad("ram 1M vdev virtio-snd loc 0x1c0d0000 intr gic:41", &["known, not supported yet"]);
    bad("ram 1M pass loc mem:0x1000,0x800,rwn intr gic:40,u", &["is not whole pages"]);
}

#[test]
fn all_mistakes_are_found_at_once_and_told_in_the_order_of_the_text() {
    let text = "system a/b
ram 0x80000000,1M
ram 0x80080000,1M
cpu sched 300
cpu runmask 16
frobnicate 3
vdev pl011 loc 0x80000000 intr gic:5
vdev pl011 loc 0x1c090000 intr pic:37
vdev pl011 intr gic:1020
entry 10000
load ../../x
unsupported register explode
set counter-ofset 3";
    let found = errors(text);
    let places: Vec<_> =
        found.iter().filter(|line| line.contains("error")).map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(
        places,
        ["1:8", "3:5", "4:11", "5:13", "6:1", "7:1", "7:32", "8:32", "9:17", "10:7", "11:6", "12:22", "13:5"],
        "{found:#?}"
    );
}

#[test]
fn what_becomes_of_a_vm_that_has_ended_is_a_policy() {
    let Configuration { on_exit, dryrun, dump, .. } = good(RAM);
    assert_eq!((on_exit, dryrun, dump), (OnExit::default(), false, None));
    let on_exit = good(&format!("{RAM}on-exit never on-exit on-failure,3/10,reset")).on_exit;
    assert_eq!(on_exit, OnExit { when: When::OnFailure, limit: (3, 10), then: Then::Reset });
    bad(&format!("{RAM}on-exit always,3"), &["2:9: error: `3` is no number of times", "as in never, on-failure"]);
    assert!(good(&format!("{RAM}dryrun")).dryrun);
    assert_eq!(good(&format!("{RAM}dump /dumps")).dump.as_deref(), Some("/dumps"));
    bad(&format!("{RAM}dump \"|gzip >x\""), &["2:6: error: there are no commands here"]);
}

#[test]
fn loggers_add_up_and_none_takes_away_from_the_console() {
    let messages = |loggers: &str| {
        let messages = good(&format!("{RAM}{loggers}")).messages?;
        let names = |set: qvmconf::LogFilters| {
            let names = qvmconf::LogFilters::NAMES.into_iter().filter(|name| set.contains(name));
            names.collect::<Vec<_>>().join(" ")
        };
        Some((names(messages.console), names(messages.slog)))
    };
    let both = |console: &str, slog: &str| Some((console.to_string(), slog.to_string()));
    assert_eq!(messages(""), None);
    assert_eq!(messages("logger error stderr logger debug,info slog"), both("error", "info debug"));
    assert_eq!(messages("logger error stderr logger info stdout"), both("error info", ""));
    assert_eq!(messages("logger debug slog"), both("", "debug"), "any destination replaces the default");
    assert_eq!(messages("logger error,warn stdout logger warn none"), both("error", ""));
    assert_eq!(messages("logger error,warn slog logger warn none"), both("", "error warn"));
    assert_eq!(messages("logger info none"), both("fatal internal error warn", ""), "of what there is without any");
}

#[test]
fn clusters_and_partitions_are_the_hosts() {
    let mut groups = Groups::new(&[Mpidr(0), Mpidr(1), Mpidr(0x100)]);
    groups.define_partition("drivers").unwrap();
    let limits = Limits { cpus: Some(3), groups: Some(&groups) };
    let cpu = |text: &str| {
        let (configuration, said) = read_all(&format!("{RAM}cpu {text}"), &Archive(HashMap::new()), limits);
        (configuration.map(|it| it.cpus[0]), said)
    };
    assert_eq!(cpu("cluster cluster0").0.unwrap().runmask, Some(CpuSet(0b011)));
    assert_eq!(cpu("cluster _cpu-2 partition drivers").0.unwrap().runmask, Some(CpuSet(0b100)));
    assert_eq!(cpu("partition drivers").0.unwrap().partition, 1);
    assert_eq!(cpu("partition System").0.unwrap().partition, 0);
    let (none, said) = cpu("cluster cluster2");
    assert!(none.is_none() && said.contains("the host has no cluster `cluster2`"), "{said}");
    assert!(said.contains("There are cluster0, cluster1"), "{said}");
    let (none, said) = cpu("partition nobody");
    assert!(none.is_none() && said.contains("there is no adaptive partition `nobody`"), "{said}");
    assert!(said.contains("there are System, drivers"), "{said}");
    let (none, said) = cpu("cluster cluster0 runmask 1");
    assert!(none.is_none() && said.contains("`runmask` and `cluster` both say where it runs"), "{said}");
    // On a PC nobody knows which there are.
    let cpus = good("ram 1M cpu cluster fast partition drivers").cpus;
    assert_eq!((cpus[0].runmask, cpus[0].partition), (None, 0));
}

#[test]
fn a_sporadic_server_arrives() {
    let server = SporadicServer { low: 5, max_replenishments: 4, period: 10_000_000, budget: 2_000_000 };
    let cpus = good("ram 1M cpu sched 20,5,4,10000000,2000000 s cpu sched 20,5,4,10000000,2000000s runmask 0").cpus;
    for cpu in cpus {
        assert_eq!((cpu.priority, cpu.policy), (20, CpuPolicy::Sporadic(server)));
    }
}

#[test]
#[cfg_attr(miri, ignore = "thousands of words take Miri minutes")]
fn there_are_limits_to_devices_and_vcpus() {
    let uarts =
        |count: u64| (0..count).map(|n| format!("vdev pl011 loc {:#x} ", 0x1000_0000 + (n << 12))).collect::<String>();
    assert_eq!(good(&format!("{RAM}{}", uarts(256))).description.vdevs.len(), 256);
    bad(&format!("{RAM}{}", uarts(257)), &["more than 256 devices"]);
    assert_eq!(good(&format!("{RAM}{}", "cpu ".repeat(64))).cpus.len(), 64);
    bad(&format!("{RAM}{}", "cpu ".repeat(65)), &["more than 64 vCPUs"]);
}

#[test]
fn a_vcpu_runs_on_cpus_that_the_host_has() {
    let runmask = |text: &str, cpus| {
        read_all(&format!("{RAM}cpu runmask {text}"), &Archive(HashMap::new()), Limits { cpus, groups: None })
    };
    assert!(runmask("0,1", Some(2)).0.is_some());
    let (configuration, said) = runmask("0,2", Some(2));
    assert!(configuration.is_none() && said.contains("2:13: error: the host has no CPU 2"), "{said}");
    assert!(said.contains("its CPUs are 0 to 1"), "{said}");
    assert!(runmask("15", None).0.is_some(), "on a PC nobody knows how many there are");
    assert!(runmask("16", None).0.is_none(), "more than any host has");
}

#[test]
fn a_vm_has_a_name_that_can_stand_before_a_line() {
    assert_eq!(good("system a-Z_0.9 ram 1M").description.name, "a-Z_0.9");
    bad(&format!("system \"\" {RAM}"), &["`` cannot name a VM"]);
    bad(&format!("system a/b {RAM}"), &["1:8: error: `a/b` cannot name a VM", "letters, digits"]);
    bad(&format!("system {} {RAM}", "a".repeat(33)), &["cannot name a VM"]);
    let nameless = |path| {
        let mut sources = Sources::new();
        let root = sources.add_file(path, RAM.as_bytes());
        let document = qvmconf::parse(&mut sources, &[root], &mut qvmconf::NoFiles, &Vocabulary::default());
        build(&document, &sources, &[], Limits::default()).unwrap().0.description.name
    };
    assert_eq!(nameless("vms/my guest!.qvmconf"), "myguest");
    assert_eq!(nameless("vms/!!!.qvmconf"), "vm");
}

#[test]
fn a_name_that_comes_late_is_worth_a_warning() {
    let (configuration, said) = read("ram 1M\nsystem late");
    assert_eq!(configuration.unwrap().description.name, "late");
    assert!(said.contains("2:1: warning: `system` stands first"), "{said}");
}

#[test]
fn files_are_found_from_the_folder_of_the_text_that_names_them() {
    let files = Archive(HashMap::from([("lib/kernel.conf", "load Image\ninitrd load /boot/initrd")]));
    let (configuration, said) = read_all("ram 1M\n@../lib/kernel.conf\nload ./../x/./y", &files, Limits::default());
    assert_eq!(said, "");
    let paths: Vec<_> = configuration.unwrap().description.loads.into_iter().map(|load| load.path).collect();
    assert_eq!(paths, ["lib/Image", "boot/initrd", "x/y"]);
    bad(&format!("{RAM}load ../../x"), &["2:6: error: `../../x`: the path leads out of the archive"]);
    bad(&format!("{RAM}load ../vms/.."), &["names nothing in the archive"]);
}

#[test]
fn mistakes_in_an_included_file_are_shown_there() {
    let files = Archive(HashMap::from([("vms/memory.conf", "\n  ram 3Q\n")]));
    let (configuration, said) = read_all("@memory.conf load x", &files, Limits::default());
    assert!(configuration.is_none());
    assert_eq!(
        said.lines().next(),
        Some("vms/memory.conf:2:7: error: `ram`: `3Q` is no size: `Q` is not a digit"),
        "{said}"
    );
}

#[test]
fn options_of_a_command_line_go_on_where_the_file_ends() {
    let mut sources = Sources::new();
    let file = sources.add_file("vms/guest.qvmconf", b"system guest ram 1M cpu sched 8");
    let line = sources.add_text("command line", "", "sched 9 cmdline \"a b\" system other");
    let document = qvmconf::parse(&mut sources, &[file, line], &mut qvmconf::NoFiles, &Vocabulary::default());
    let (configuration, warnings) = build(&document, &sources, &[], Limits::default()).unwrap();
    assert!(warnings.is_empty(), "{}", sources.render_all(&warnings));
    assert_eq!(configuration.cpus[0].priority, 9);
    assert_eq!(configuration.description.cmdline.as_deref(), Some("a b"));
    assert_eq!(configuration.description.name, "other");
}

#[test]
fn errors_of_assembly_are_shown_where_their_subject_stands() {
    let text = "ram 0x80000000,1M\nload a\nvdev pl011 loc 0x1c090000\nvdev gic version 3\nentry 0x1000";
    let spans = good(text).spans;
    let mut sources = Sources::new();
    sources.add_file("g", text.as_bytes());
    let shown = |subject, other, place| {
        let error = AssembleError { subject, other, place, message: "wrong".to_string(), hint: Some("right") };
        sources.render(&spans.diagnostic(&error)).to_string()
    };
    assert!(shown(Subject::Ram(0), None, None).starts_with("g:1:5: error: wrong\n"));
    assert!(shown(Subject::Vdev(0), None, None).starts_with("g:3:1: error: wrong\n"));
    assert!(shown(Subject::InterruptController, None, None).starts_with("g:4:1: error: wrong\n"));
    assert!(shown(Subject::Entry, None, None).starts_with("g:5:7: error: wrong\n"));
    assert!(shown(Subject::Load(0), Some(Subject::Ram(0)), None).contains("g:1:5: note: the other one\n"));
    assert!(shown(Subject::Vm, None, None).starts_with("g: error: wrong\n    hint: right\n"));
    let place = vdev::Place { source: 0, start: 18, end: 22 };
    assert!(shown(Subject::Vm, None, Some(place)).starts_with("g:2:1: error: wrong\n"));
}

#[test]
fn the_table_of_devices_in_the_documentation_is_that_of_the_factories() {
    let supports = |vdev: &str, option: Option<&str>| {
        let factory = ::vdevs::CATALOGUE.iter().find(|factory| factory.name == vdev);
        let works = |name| {
            let named = |spec: &&vdev::OptionSpec| spec.name == name && spec.status == OptionStatus::Supported;
            factory.is_some_and(|factory| factory.options.iter().any(|spec| named(&spec)))
        };
        option.map_or(factory.is_some(), works)
    };
    let table = qvmconf::words::VdevReference(supports).to_string();
    let shown = include_str!("../../../docs/qvmconf.md")
        .split_once("<!-- vdevs: generated -->\n")
        .and_then(|(_, rest)| rest.split_once("<!-- end -->"))
        .map(|(table, _)| table);
    assert_eq!(
        shown.map(str::trim),
        Some(table.trim()),
        "docs/qvmconf.md is out of date: put between its marks what stands on the right"
    );
}

#[test]
fn every_example_of_a_manual_page_is_right() {
    for factory in ::vdevs::CATALOGUE {
        let examples: Vec<&str> = factory.about.lines().filter_map(|line| line.strip_prefix("    ")).collect();
        assert!(!examples.is_empty(), "{}", factory.name);
        let mut before = String::new();
        for example in examples {
            // What is passed is there for the vdev behind it.
            if example.starts_with("pass ") {
                before.push_str(&format!("{example}\n"));
                continue;
            }
            good(&format!("{RAM}{before}{example}"));
            assert!(example.starts_with(&format!("vdev {}", factory.name)), "{example}");
        }
    }
}

#[test]
fn every_option_of_every_device_is_in_the_table_of_words() {
    let unknown: Vec<_> = ::vdevs::CATALOGUE
        .iter()
        .flat_map(|factory| factory.options.iter().map(move |option| (factory.name, option.name)))
        .filter(|(vdev, option)| qvmconf::words::KnownVdev::find(vdev).and_then(|vdev| vdev.option(option)).is_none())
        .collect();
    assert_eq!(unknown, vec![]);
}
