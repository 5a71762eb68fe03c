//! The interrupt controller and the devices: their places, interrupts, options and names.

use super::*;

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
fn a_vm_has_one_smmu() {
    let smmu = |at: &str, line: u32| format!("vdev smmu loc {at} intr gic:{line}\n");
    let one = format!("{RAM}{}", smmu("0x1d000000", 60));
    good(&one);
    bad(&format!("{one}{}", smmu("0x1d100000", 61)), &["3:1: error: a second SMMU", "2:1: note: the first one"]);
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
