use super::*;
use crate::assemble::{AssembleError, Subject};
use crate::controller::Its;
use alloc::vec;
use qvmconf::SporadicServer;
use std::collections::HashMap;
use types::Range;
use types::{CpuId, CpuSet, IntId, Mpidr};
use vgic::Version;

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
fn the_file_of_a_device_is_found_from_the_folder_of_the_text() {
    let file = |text: &str| {
        let vdevs = good(text).description.vdevs;
        vdevs[0].options.text("file").map(str::to_string)
    };
    assert_eq!(file("ram 1M vdev cfi-flash file vars.fd").as_deref(), Some("vms/vars.fd"));
    assert_eq!(file("ram 1M vdev cfi-flash file ../vars.fd").as_deref(), Some("vars.fd"));
    assert_eq!(file("ram 1M vdev cfi-flash file /boot/vars.fd").as_deref(), Some("boot/vars.fd"));
    assert_eq!(file("ram 1M vdev cfi-flash"), None);
    bad("ram 1M vdev cfi-flash file ../../vars.fd", &["1:28: error: `vdev cfi-flash`: `file ../../vars.fd`: "]);
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
fn memory_without_a_start_is_above_the_highest_before_it() {
    let memory = |text| {
        let Description { ram, rom, .. } = good(text).description;
        [ram, rom].concat()
    };
    assert_eq!(
        memory("ram 0x90000000,1M ram 0x80000000,1M ram 2M"),
        [range(0x9000_0000, 1 << 20), range(0x8000_0000, 1 << 20), range(0x9010_0000, 2 << 20)]
    );
    assert_eq!(memory("rom 0,64K ram 1M"), [range(0x1_0000, 1 << 20), range(0, 0x1_0000)]);
}

#[test]
fn memory_without_a_start_keeps_out_of_what_is_reserved() {
    let text = "ram 1M ram 1M reserve loc 0x80180000,4K reserve loc 0x80181000,100";
    assert_eq!(
        good(text).description.ram,
        [range(0x8000_0000, 1 << 20), range(0x8018_2000, 1 << 20)],
        "wherever the reservation stands, and behind its last page"
    );
}

#[test]
fn memory_is_made_of_whole_pages_and_does_not_wrap() {
    bad("ram 0x80000800,1M", &["1:5: error: ", "not whole pages", "multiples of 4K"]);
    bad("ram 0x80000000,1M rom 0x1000,100", &["not whole pages"]);
    bad("ram 0", &["a region of no bytes"]);
    bad("ram 0xfffffffffffff000,8K", &["0x2000 bytes from 0xfffffffffffff000 on run over the end"]);
    bad("ram 1M reserve loc 0xffffffffffffffff,2", &["run over the end"]);
    bad("ram 1M ram 0xffffffffffffffff", &["run over the end"]);
}

#[test]
fn there_are_limits_to_regions() {
    let many = |count| "ram 4K ".repeat(count);
    assert_eq!(good(&many(64)).description.ram.len(), 64);
    bad(&many(65), &["more than 64 regions"]);
    let reserves: String = (0..65).map(|n| format!("reserve loc {:#x},4K ", n << 12)).collect();
    bad(&format!("{RAM}{reserves}"), &["more than 64 reserved regions"]);
}

#[test]
fn memory_comes_before_what_is_loaded_into_it() {
    bad("load x\nram 1M", &["1:1: error: ", "`load` before any `ram` or `rom`"]);
    bad("ram 0x80000000,1M load 0x90000010,x ram 0x90000000,1M", &["`load` to 0x90000010 before the memory"]);
    good("ram 0x80000000,1M load 0x80000010,x ram 0x90000000,1M load y load 0x90000000,z");
}

#[test]
fn a_vm_without_ram_is_none() {
    bad("system a rom 4K", &["vms/guest.qvmconf: error: the VM has no `ram`", "hint: as in"]);
}

#[test]
fn one_mistake_is_one_message() {
    // Each of these could make others look wrong.
    bad("ram 0x80000000,12Q load x", &["`12Q` is no size"]);
    bad("ram load x", &["`ram` wants"]);
    bad("rma 128M load x", &["did you mean `ram`?"]);
    bad("ram 1M vdev pl01 loc 0x1c090000 intr gci:37 hostdev >-", &["there is no vdev `pl01`"]);
    bad("ram 1M vdev pl011 intr gic:37 loc 1c090000", &["write 0x1c090000"]);
    bad("ram 1M vdev smmu loc 0x1c0d0000 intr gic:41", &["known, not supported yet"]);
    bad("ram 1M pass loc mem:0x1000,0x1000,rw=0x2000 intr gic:40,u", &["`pass`: known, not supported yet"]);
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
fn two_things_at_one_address_are_both_named() {
    let uart = "vdev pl011 loc 0x1c090000 intr gic:37\n";
    bad(
        "ram 0x80000000,1M ram 0x800ff000,1M",
        &[
            "1:23: error: `ram` at 0x800ff000-0x801fefff overlaps `ram` at 0x80000000-0x800fffff",
            "1:5: note: the other one",
        ],
    );
    bad(&format!("{RAM}rom 0x80800000,4K"), &["2:5: error: `rom`", "overlaps `ram`"]);
    bad(&format!("{RAM}{uart}vdev pl011 loc 0x1c090800"), &["3:1: error: `vdev pl011` at 0x1c090800", "2:1: note"]);
    bad(
        &format!("{RAM}vdev pl011 loc 0x80fff000 name uart"),
        &["`vdev pl011 name uart` at 0x80fff000", "overlaps `ram`"],
    );
    bad(&format!("vdev pl011 loc 0x80fff000\n{RAM}"), &["2:5: error: `ram` at", "overlaps `vdev pl011`", "1:1: note"]);
    bad("ram 0x8000000,64K", &["1:5: error: ", "the interrupt controller's distributor", "overlaps", "vdev gic loc"]);
    bad(&format!("{RAM}vdev pl011 loc 0x080b0000"), &["the interrupt controller's redistributors"]);
    bad(&format!("{RAM}vdev gic loc 0x80ff0000"), &["2:1: error: the interrupt controller's distributor", "1:5: note"]);
    bad(&format!("{RAM}vdev gic loc 0x10000000 gicr 0x10000000"), &["redistributors at", "overlaps", "distributor at"]);
}

#[test]
fn every_vcpu_has_a_redistributor_that_takes_room() {
    let text = |cpus: usize| format!("{RAM}vdev pl011 loc 0x080e0000 {}", "cpu ".repeat(cpus));
    good(&text(2));
    bad(&text(3), &["redistributors at 0x80a0000-0x80fffff"]);
}

#[test]
fn things_that_touch_are_not_at_one_address() {
    good("ram 0x80000000,1M rom 0x80100000,4K vdev pl011 loc 0x80101000 vdev pl011 loc 0x80102000");
}

#[test]
fn every_one_of_many_overlaps_is_reported() {
    let found =
        errors("ram 0x80000000,1M\nvdev pl011 loc 0x80000000\nvdev pl011 loc 0x80001000\nvdev pl011 loc 0x80002000");
    assert_eq!(found.iter().filter(|line| line.contains(" error: ")).count(), 3, "{found:#?}");
}

#[test]
fn what_the_configuration_places_itself_in_reserved_space_is_worth_a_warning() {
    let (configuration, said) = read(&format!("{RAM}reserve loc 0x1c000000,1M\nvdev pl011 loc 0x1c090000 intr gic:37"));
    assert!(configuration.is_some());
    assert!(said.contains("3:1: warning: `vdev pl011` at 0x1c090000-0x1c090fff is in 0x1c000000-0x1c0fffff"), "{said}");
    assert!(said.contains("2:13: note: reserved here"), "{said}");
    let (configuration, said) = read(&format!("{RAM}reserve intr gic:37\nvdev pl011 loc 0x1c090000 intr gic:37"));
    assert!(configuration.is_some() && said.contains("3:32: warning: interrupt 37 is reserved"), "{said}");
}

#[test]
fn what_nobody_placed_cannot_be_in_reserved_space() {
    bad(&format!("{RAM}reserve loc 0x08000000,4K"), &["2:13: error: ", "cannot be reserved", "vdev gic loc"]);
    bad(&format!("{RAM}reserve intr pic:37"), &["no interrupt controller `pic`"]);
    bad(&format!("{RAM}reserve cpu"), &["`reserve` of nothing"]);
}

#[test]
fn an_interrupt_is_a_shared_line_of_the_controller_there_is() {
    let uart = |intr: &str| format!("{RAM}vdev pl011 loc 0x1c090000 intr {intr}");
    assert_eq!(good(&uart("gic:32")).description.vdevs[0].interrupt, Some(IntId(32)));
    assert_eq!(good(&uart("gic:1019")).description.vdevs[0].interrupt, Some(IntId(1019)));
    for line in ["gic:0", "gic:31", "gic:1020", "gic:4294967295"] {
        bad(&uart(line), &["2:32: error: ", "is no shared interrupt", "32 to 1019"]);
    }
    bad(&uart("gci:37"), &["there is no interrupt controller `gci`", "did you mean `gic:37`?"]);
    bad(&uart("ioapic:37"), &["there is no interrupt controller `ioapic`", "is called `gic`"]);
    let (shared, said) = read(&format!("{}\nvdev pl011 loc 0x1c0a0000 intr gic:32", uart("gic:32")));
    assert_eq!(shared.unwrap().description.vdevs[1].interrupt, Some(IntId(32)));
    assert!(
        said.contains("warning: `vdev pl011`: interrupt 32 is shared") && said.contains("also used here"),
        "{said}"
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
fn an_interrupt_controller_stands_before_the_devices_that_name_it() {
    let uart = "vdev pl011 loc 0x1c090000 intr gic:37\n";
    good(&format!("{RAM}vdev gic version 3\n{uart}"));
    bad(
        &format!("{RAM}{uart}vdev gic version 3"),
        &["2:32: error: `vdev pl011`: `gic:37`", "stands before", "3:1: note: it is here"],
    );
    good(&format!("{RAM}vdev pl011 loc 0x1c090000 vdev gic version 3"));
    good(&format!("{RAM}vdev gic name pic vdev pl011 loc 0x1c090000 intr pic:37"));
    bad(&format!("{RAM}vdev gic name pic {uart}"), &["no interrupt controller `gic`", "did you mean `pic:37`?"]);
    bad(&format!("{RAM}vdev gic vdev gic"), &["a second interrupt controller", "the first one"]);
}

#[test]
fn a_controller_is_of_a_version_and_at_multiples_of_its_frames() {
    let version = |text: &str| good(&format!("{RAM}vdev gic {text}")).description.controller.version;
    for (text, expected) in [
        ("", None),
        ("version 2", Some(Version::V2)),
        ("version 3", Some(Version::V3)),
        ("gicr 0x10010000", Some(Version::V3)),
        ("loc 0x2c001000 gicc 0x2c002000", Some(Version::V2)),
        ("loc 0x2c001000 gicc 0x2c002000 version 2", Some(Version::V2)),
    ] {
        assert_eq!(version(text), expected, "{text}");
    }
    bad(&format!("{RAM}vdev gic version 2 gicr 0x10010000"), &["2:25: error: `gicr`: a GICv2 has none"]);
    bad(&format!("{RAM}vdev gic version 3 msi 0x8020000,64,32"), &["`msi`: a GICv3 has none"]);
    for (wrong, why) in [
        ("0x8020000,64", "three numbers are wanted"),
        ("0x8020000,64,32,1", "three numbers are wanted"),
        ("0x8020800,64,32", "no frame can be at 0x8020800: it is a page of 4K"),
        ("0x8020000,16,32", "not all shared interrupts"),
        ("0x8020000,64,0", "not all shared interrupts"),
        ("0x8020000,1000,32", "not all shared interrupts"),
        ("0x8020000,x,32", "error"),
        ("0x8020000,64,5000000000", "too many"),
    ] {
        bad(&format!("{RAM}vdev gic msi {wrong}"), &[why]);
    }
    bad(&format!("{RAM}vdev gic msi 0x8010000,64,32"), &["frame for messages", "overlaps", "CPU interface"]);
    let taken = format!("{RAM}vdev gic msi 0x8020000,64,32 vdev pl011 loc 0x1c090000 intr gic:70");
    bad(&taken, &["interrupt 70 is one for messages", "by this"]);
    bad(&format!("{RAM}vdev gic version 3 gicc 0x10010000"), &["2:25: error: `gicc`: a GICv3 has none"]);
    bad(&format!("{RAM}vdev gic loc 0x10001000"), &["no distributor can be at 0x10001000", "multiples of 64K"]);
    bad(&format!("{RAM}vdev gic gicr 0x10001000"), &["2:15: error: no redistributor can be at 0x10001000"]);
    bad(&format!("{RAM}vdev gic gicc 0x10000800"), &["2:15: error: no CPU interface can be at 0x10000800"]);
    bad(&format!("{RAM}vdev gic intr gic:40"), &["`vdev gic` raises no interrupt"]);
}

#[test]
fn an_its_is_of_a_gicv3_and_has_to_know_how_many_interrupts_it_translates() {
    let controller = |text: &str| good(&format!("{RAM}vdev gic {text}")).description.controller;
    let its = controller("its 0x8080000 num-lpis 64");
    assert_eq!((its.version, its.its), (Some(Version::V3), Some(Its { at: Ipa(0x808_0000), lpis: 64 })));
    assert_eq!(controller("version 3").its, None);
    controller("its 0x8080000 num-lpis 8192");
    let wrong = |text: &str, says: &[&str]| bad(&format!("{RAM}vdev gic {text}"), says);
    wrong("its 0x8080000", &["2:14: error: `its` needs `num-lpis`", "as in `its 0x08080000 num-lpis 256`"]);
    wrong("num-lpis 64", &["2:19: error: `num-lpis`: there is no `its`", "as in `its"]);
    wrong("its 0x8080000 num-lpis 0", &["must be from 1 to 8192"]);
    wrong("its 0x8080000 num-lpis 8193", &["must be from 1 to 8192"]);
    wrong("its 0x8061000 num-lpis 64", &["2:14: error: no ITS can be at 0x8061000", "multiples of 64K"]);
    wrong("its 0x8090000 num-lpis 64", &["interrupt translation service", "overlaps", "redistributors"]);
    // Both sides are named.
    let both = ["2:24: error: `its`: a GICv2 has none", "2:18: note: it is one by this", "are of version 3"];
    wrong("version 2 its 0x8080000 num-lpis 64", &both);
    wrong(
        "its 0x8080000 num-lpis 64 gicc 0x8010000",
        &["2:14: error: `its`: a GICv2", "2:41: note: it is one by this"],
    );
    wrong("version 3 msi 0x8020000,64,32", &["2:24: error: `msi`: a GICv3", "2:18: note: it is one by this"]);
}

#[test]
fn a_device_says_where_it_is_in_a_space_that_there_is() {
    let placed = good(&format!("{RAM}vdev pl011 intr gic:37")).description;
    assert_eq!((placed.vdevs[0].location, placed.vdevs[0].interrupt), (Some(Ipa(0x1d00_0000)), Some(IntId(37))));
    assert_eq!(good(&format!("{RAM}vdev wdt-sp805")).description.vdevs[0].location, Some(Ipa(0x1c0f_0000)));
    assert_eq!(good(&format!("{RAM}vdev wdt-sp805 loc 0x1000")).description.vdevs[0].location, Some(Ipa(0x1000)));
    bad(&format!("{RAM}vdev wdt-sp805\nvdev wdt-sp805"), &["3:1: error: `vdev wdt-sp805`", "the other one"]);
    bad(&format!("{RAM}vdev pl011 loc io:0x3f8"), &["`io:` is for x86"]);
    bad(&format!("{RAM}vdev pl011 loc pci:0:1"), &["2:16: error: `vdev pl011` is no device of the PCI bus"]);
    bad(&format!("{RAM}vdev pci-dummy loc 0x1c090000"), &["2:20: error: `vdev pci-dummy` is on the PCI bus only"]);
    // Not as well that a place in memory would want an `intr`.
    bad(&format!("{RAM}vdev virtio-entropy loc pci:32"), &["2:25: error: ", "`32` is no PCI device"]);
    bad(&format!("{RAM}vdev pl011 loc 0x1c090004"), &["2:16: error: no device can be at 0x1c090004"]);
    bad(&format!("{RAM}vdev pl011 loc 0xfffffffffffff008"), &["runs over the end of the address space"]);
}

#[test]
fn the_options_of_a_device_are_checked_by_its_factory() {
    bad(&format!("{RAM}vdev pl011 loc 0x1c090000 hostdev >"), &["2:35: error: ", "names no back end"]);
    bad(&format!("{RAM}vdev gic version 4"), &["2:18: error: ", "must be from 2 to 3"]);
    bad(&format!("{RAM}vdev gic gicr 10000000000000000000000"), &["does not fit in 64 bits"]);
    bad(&format!("{RAM}vdev pl011 loc 0x1c090000 baud 115200"), &["`baud` is neither an option of `vdev pl011`"]);
}

/// Options may stand on lines of their own: the line that is shown does not say whose they are.
#[test]
fn what_is_wrong_with_a_device_names_the_device_the_option_and_the_line() {
    let device = |options: &str| format!("{RAM}vdev sp804\nloc 0x1c110000\n{options}");
    bad(&device("frequency 5"), &["4:11: error: `vdev sp804`: `frequency 5`: must be from 1000 to 1000000000"]);
    bad(&device("frequency 1x"), &["4:11: error: `vdev sp804`: `frequency 1x`: `x` is not a digit"]);
    bad(&device("speed 5"), &["4:1: error: `speed` is neither an option of `vdev sp804`", "options are frequency"]);
    bad(&device("frequenzy 5"), &["4:1: error: `frequenzy`", "hint: did you mean `frequency`?"]);
    bad(&device("intr gic:31"), &["4:6: error: `vdev sp804`: `gic:31` is no shared", "32 to 1019"]);
    bad(&device("intr pic:34"), &["4:6: error: `vdev sp804`: there is no interrupt controller `pic`"]);
    bad(&format!("{RAM}vdev watch\nloc 0x1c110000"), &["2:1: error: `vdev watch`: option `vm` is missing"]);
    bad(&format!("{RAM}vdev progress\nloc 0x1c110000\nintr gic:34"), &["4:6: error: `vdev progress` raises no"]);
    bad(&format!("{RAM}vdev qvmterm\nloc 0x1c110000"), &["3:5: error: `vdev qvmterm` has no registers"]);
    let both = format!("{RAM}vdev pl011 name one\nloc 0x1c090000\nvdev sp804\nloc 0x1c090ff8");
    bad(
        &both,
        &["4:1: error: `vdev sp804` at 0x1c090ff8", "overlaps `vdev pl011 name one`", "2:1: note: the other one"],
    );
}

#[test]
fn devices_are_told_apart() {
    let uart = |n: u64, more: &str| format!("vdev pl011 loc {:#x} {more}\n", 0x1c09_0000 + (n << 12));
    let names =
        |text: String| -> Vec<String> { good(&text).description.vdevs.into_iter().map(|vdev| vdev.name).collect() };
    assert_eq!(names([RAM, &uart(0, ""), &uart(1, ""), &uart(2, "")].concat()), ["pl011", "pl011-2", "pl011-3"]);
    assert_eq!(
        names([RAM, &uart(0, ""), &uart(1, "name pl011"), &uart(2, "name a:b/c.d")].concat()),
        ["pl011-2", "pl011", "a:b/c.d"],
        "a name that was given is never taken by one that was not"
    );
    bad(&[RAM, &uart(0, "name a"), &uart(1, "name a")].concat(), &["two devices are called `a`", "the other one"]);
    bad(&[RAM, &uart(0, "name \"a b\"")].concat(), &["`a b` cannot name a device"]);
    bad(&[RAM, "vdev gic name uart ", &uart(0, "name uart")].concat(), &["two devices are called `uart`"]);
}

#[test]
fn what_a_guest_knows_devices_by_is_theirs_alone() {
    let files = |name: &str, tag: &str| format!("vdev virtio-9p name {name} hostdev /share tag {tag}\n");
    good(&[RAM, &files("a", "one"), &files("b", "two")].concat());
    bad(
        &[RAM, &files("a", "one"), &files("b", "two"), &files("c", "one")].concat(),
        &["`vdev virtio-9p name c` and `vdev virtio-9p name a` have the same `tag`, `one`", "the other one"],
    );
    bad(&[RAM, "vdev virtio-9p hostdev / tag x\n"].concat(), &["`hostdev /`: the path names nothing in the archive"]);
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
        for example in examples {
            good(&format!("{RAM}{example}"));
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

#[test]
fn what_is_left_open_is_found_out_of_everybodys_way() {
    let vdevs = |text: &str| {
        let list = good(&format!("{RAM}{text}")).description.vdevs;
        list.iter().map(|vdev| (vdev.location.unwrap().0, vdev.interrupt.map(|intid| intid.0))).collect::<Vec<_>>()
    };
    assert_eq!(vdevs("vdev pl011 vdev pl011"), [(0x1d00_0000, Some(64)), (0x1d01_0000, Some(65))]);
    // One that says where it is and not which interrupt has none.
    assert_eq!(vdevs("vdev pl011 loc 0x1d000000 vdev pl011"), [(0x1d00_0000, None), (0x1d01_0000, Some(64))]);
    let reserved = "reserve loc 0x1d000000,0x20000 intr gic:64 vdev pl011 loc 0x1c090000 intr gic:65 vdev pl011";
    assert_eq!(vdevs(reserved), [(0x1c09_0000, Some(65)), (0x1d02_0000, Some(66))]);
    assert_eq!(vdevs("vdev trace"), [(0x1d00_0000, None)], "it has no interrupt");
    let gic = "vdev gic loc 0x1d000000 gicr 0x1d010000 vdev pl011";
    assert_eq!(vdevs(gic), [(0x1d03_0000, Some(64))]);
}

#[test]
fn a_vdev_says_how_its_threads_are_scheduled_what_is_logged_and_whether_it_reports() {
    let text = "vdev pl011 sched 30f log error,debug set debug off vdev pl011 name two sched 12 set debug on";
    let configuration = good(&format!("{RAM}{text}"));
    let [one, two] = configuration.description.vdevs.as_slice() else { panic!() };
    let schedule = |vdev: &crate::assemble::VdevDescription| vdev.schedule.map(|it| (it.priority, it.fifo));
    assert_eq!((schedule(one), one.reports), (Some((30, true)), false));
    assert_eq!((schedule(two), two.reports), (Some((12, false)), true));
    let [(name, filters)] = configuration.device_messages.as_slice() else { panic!() };
    assert_eq!((name.as_str(), filters.contains("debug"), filters.contains("warn")), ("pl011", true, false));
    bad(&format!("{RAM}set debug off"), &["2:1: error: `set debug` says something about a vdev"]);
    bad(&format!("{RAM}vdev pl011 sched 0"), &["`sched`"]);
    bad(&format!("{RAM}vdev pl011 sched 20,10,4,1000000,500000 s"), &["a vdev's threads have no budget"]);
    bad(&format!("{RAM}vdev pl011 log loud"), &["`log`"]);
}

#[test]
fn with_safety_there_are_no_examples() {
    good(&format!("{RAM}safety qualified vdev pl011 vdev shmem vdev wdt-sp805"));
    bad(
        &format!("{RAM}vdev qvmterm\nsafety qualified"),
        &["2:1: error: `vdev qvmterm` is not `qualified`", "which this asks for"],
    );
    bad(&format!("{RAM}safety selected"), &["`safety`"]);
}

mod pci;
