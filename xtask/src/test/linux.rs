//! Debian's kernel, unmodified: on the bare machine, in VMs of all sizes, beside others, and with somebody typing.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Test;
use super::guests::configuration as bare_metal;
use super::machine::{Case, PATIENCE};
use crate::configuration::Configuration;
use crate::qemu::machine::Machine;
use crate::setup;
use crate::workspace::root;

/// vCPUs of the VM, CPUs of the machine, its model.
const SIZES: [(u32, u32, &str); 7] = [
    (1, 2, "cortex-a72"),
    (2, 2, "cortex-a72"),
    (4, 2, "cortex-a72"),
    (4, 4, "cortex-a72"),
    (1, 2, "max"),
    (2, 2, "max"),
    (4, 4, "max"),
];
/// What the guest runs: the timer's interrupts twice, with each of up to four CPUs kept busy between: an idle one has no ticks.
const COUNT_INTERRUPTS: &str = "grep arch_timer /proc/interrupts; for cpu in 1 2 3 4; do yes >/dev/null & done; \
    sleep 1; grep arch_timer /proc/interrupts; killall yes";
const PROMPT: &str = "# ";

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    let mut tests = vec![
        Test::bare("bare/linux", "kernel and initial file system on a machine without hypervisor", bare),
        Test::hypervisor("linux/poweroff-and-reboot", "`poweroff -f` and `reboot -f` end the VM with code 0", ends),
        Test::hypervisor(
            "linux/three",
            "two Linux VMs and a bare-metal one at once; one ends, the others go on",
            three,
        ),
        Test::hypervisor("linux/stolen-time", "a VM that shares its CPU sees in /proc/stat what is taken", stolen_time),
        Test::hypervisor(
            "linux/debugger",
            "Debian's gdb watches memory, breaks and steps with the CPU's help",
            debugger,
        ),
        Test::hypervisor(
            "linux/profiler",
            "Debian's perf counts cycles and instructions; `set pmu off` hides them",
            profiler,
        ),
        Test::hypervisor("linux/entropy", "random numbers come by firmware calls and with the tree", entropy),
        Test::hypervisor("linux/shell", "the demo: a shell that takes typing, beside `hello`", shell),
    ];
    for (vcpus, cpus, model) in SIZES {
        let name = format!("linux/{vcpus}-on-{cpus}-{model}");
        tests.push(Test::hypervisor(name, "reaches /init; every vCPU's timer ticks", move |case| {
            boot(case, vcpus, cpus, model)
        }));
    }
    tests
}

/// The text of a configuration that runs `commands` in a Linux guest.
pub(super) fn configuration(system: &str, vcpus: u32, commands: &str) -> String {
    let cpus = "cpu\n".repeat(vcpus as usize);
    format!(
        "system {system}\nram 0x80000000,256M\n{cpus}load ../../guests/linux/Image\n\
         initrd load ../../guests/linux/initramfs.cpio.gz\n\
         cmdline \"console=ttyAMA0 bulkhead.run=\\\"{commands}\\\"\"\nvdev pl011 loc 0x1c090000 intr gic:37\n"
    )
}

fn bare(case: &Case) -> Result<()> {
    setup::linux_guest()?;
    let command_line = format!("console=ttyAMA0 quiet bulkhead.run=\"{COUNT_INTERRUPTS}\"");
    let text = case.bare(&Machine::default(), setup::LINUX_IMAGE, Some(setup::LINUX_INITRAMFS), &command_line)?;
    every_cpu_ticks(text.lines(), 2)
}

fn boot(case: &Case, vcpus: u32, cpus: u32, model: &str) -> Result<()> {
    boot_on(case, vcpus, &Machine { cpus, cpu: model.into(), ..Machine::default() })
}

/// Boots with two vCPUs on a machine of another kind.
pub(super) fn two_vcpus(case: &Case, machine: &Machine) -> Result<()> {
    boot_on(case, 2, machine)
}

fn boot_on(case: &Case, vcpus: u32, machine: &Machine) -> Result<()> {
    setup::linux_guest()?;
    let commands = format!("{COUNT_INTERRUPTS}; dmesg | grep MBI");
    let file = case.file("linux.qvmconf", configuration("linux", vcpus, &commands))?;
    let ran = case.batch(machine, &[file])?;
    ran.expect_status(0)?.expect(&format!("linux| Linux guest: {vcpus} CPU(s)"))?;
    if machine.gic == 3 {
        ran.expect("GICv3: MBI range [64:95]")?.expect("GICv3: Using MBI frame 0x0000000008000000")?;
    }
    every_cpu_ticks(ran.of("linux"), vcpus as usize)
}

/// Fails unless the two counts of the timer's interrupts have grown in every column.
fn every_cpu_ticks<'a>(lines: impl Iterator<Item = &'a str>, cpus: usize) -> Result<()> {
    let counts: Vec<Vec<u64>> =
        lines.filter(|line| line.contains("arch_timer") && line.contains("GIC")).map(columns).collect();
    let [before, after] = counts.as_slice() else { bail!("{} lines of counts, not 2", counts.len()) };
    if before.len() != cpus || after.len() != cpus {
        bail!("counts of {} and {} CPUs, not {cpus}", before.len(), after.len());
    }
    if before.iter().zip(after).any(|(before, after)| after <= before) {
        bail!("a timer stands still: {before:?} {after:?}");
    }
    Ok(())
}

/// The counts of a line of /proc/interrupts: the numbers between the colon and the name of the controller.
fn columns(line: &str) -> Vec<u64> {
    let words = line.split_once(':').map_or("", |(_, rest)| rest).split_whitespace();
    words.map_while(|word| word.parse().ok()).collect()
}

fn ends(case: &Case) -> Result<()> {
    setup::linux_guest()?;
    for command in ["poweroff -f", "reboot -f"] {
        let file = case.file("linux.qvmconf", configuration("linux", 1, command))?;
        case.batch(&Machine::default(), &[file])?.expect_status(0)?.expect("qvm: linux ended: code 0 (")?;
    }
    Ok(())
}

fn three(case: &Case) -> Result<()> {
    setup::linux_guest()?;
    let files = [
        case.file("first.qvmconf", configuration("first", 2, "uname -a"))?,
        case.file(
            "second.qvmconf",
            configuration("second", 2, &format!("sleep 3; {COUNT_INTERRUPTS}; echo still here")),
        )?,
        case.file("hello.qvmconf", bare_metal("hello", "hello", 1, ""))?,
    ];
    let ran = case.batch(&Machine::default(), &files)?;
    ran.expect_status(0)?.expect("second| still here")?.expect("hello| hello: good-bye")?;
    let end_of =
        |name: &str| ran.text.find(&format!("qvm: {name} ended: code 0 (")).context(format!("{name} did not end"));
    if end_of("first")? > end_of("second")? {
        bail!("the VMs ended in the wrong order for this test");
    }
    every_cpu_ticks(ran.of("second"), 2)
}

/// Two VMs that both want the only CPU for some seconds.
fn stolen_time(case: &Case) -> Result<()> {
    const BUSY: &str = "timeout 4 sh -c 'while :; do :; done'";
    setup::linux_guest()?;
    let watch = format!("dmesg | grep -i stolen; grep '^cpu ' /proc/stat; {BUSY}; grep '^cpu ' /proc/stat");
    let files = [
        case.file("watcher.qvmconf", configuration("watcher", 1, &watch))?,
        case.file("neighbour.qvmconf", configuration("neighbour", 1, &format!("{BUSY}; {BUSY}")))?,
    ];
    let ran = case.batch(&Machine { cpus: 1, ..Machine::default() }, &files)?;
    ran.expect_status(0)?.expect("using stolen time PV")?;
    // User, nice, system, idle, waiting for a disk, interrupts, soft interrupts, steal; in hundredths of a second.
    let steal = |line: &str| line.split_whitespace().nth(8).and_then(|count| count.parse::<u64>().ok());
    let lines = ran.of("watcher").filter_map(|line| line.trim().strip_prefix("cpu ").map(|_| steal(line.trim())));
    match lines.collect::<Vec<_>>().as_slice() {
        [Some(before), Some(after)] if *after > before + 100 => Ok(()),
        counts => bail!("stolen before and after a busy neighbour: {counts:?}"),
    }
}

/// The configuration with another initial file system.
pub(super) fn with_initramfs(vcpus: u32, commands: &str, file: &str) -> String {
    configuration("linux", vcpus, commands).replace("initramfs.cpio.gz", file)
}

/// The configuration with the debugger and the profiler in the initial file system.
fn with_tools(commands: &str, more: &str) -> String {
    with_initramfs(1, commands, "tools.cpio").replace("256M", "512M") + more
}

fn debugger(case: &Case) -> Result<()> {
    setup::linux_guest_with_tools()?;
    // On the first instructions of a program without symbols: one step; a breakpoint two instructions on; and a word of
    // the stack that will soon be written.
    let script = "gdb -nx -batch -ex starti -ex 'set $from=(long)$pc' -ex stepi -ex 'p (long)$pc-$from' \
                  -ex 'hbreak *($from+12)' -ex continue -ex 'p (long)$pc-$from' -ex 'watch -l *(long*)($sp-16)' \
                  -ex continue -ex 'info breakpoints' --args busybox true";
    let file = case.file("linux.qvmconf", with_tools(script, ""))?;
    let ran = case.batch(&Machine::default(), &[file])?;
    ran.expect_status(0)?.expect("linux| $1 = 4")?.expect("linux| $2 = 12")?.expect("Hardware watchpoint 2:")?;
    let lines: Vec<&str> = ran.of("linux").map(str::trim).collect();
    if !lines.iter().any(|line| line.starts_with("New value = ")) {
        bail!("the watchpoint was not hit");
    }
    if lines.iter().filter(|line| line.contains("breakpoint already hit 1 time")).count() != 2 {
        bail!("not each of the two was hit once");
    }
    Ok(())
}

/// QEMU counts instructions only if its own time does.
fn profiler(case: &Case) -> Result<()> {
    setup::linux_guest_with_tools()?;
    let count = "perf stat -e cycles:u,instructions:u,instructions:k busybox true 2>&1; dmesg | grep -i perfevents";
    let machine = Machine { cpus: 1, count_instructions: true, ..Machine::default() };
    let ran = case.batch(&machine, &[case.file("linux.qvmconf", with_tools(count, ""))?])?;
    ran.expect_status(0)?.expect("armv8_pmuv3")?;
    for event in ["cycles:u", "instructions:u", "instructions:k"] {
        let number = |line: &str| line.trim().strip_suffix(event)?.trim().replace(',', "").parse::<u64>().ok();
        // perf adds how much that is for each cycle.
        let of = ran.of("linux").filter_map(|line| number(line.split('#').next().unwrap_or(line))).next();
        if of.is_none_or(|count| count < 1000) {
            bail!("{event}: {of:?}");
        }
    }
    let hidden = with_tools("dmesg | grep '[h]w perfevents' || echo no monitors", "set pmu off\n");
    let ran = case.batch(&Machine::default(), &[case.file("hidden.qvmconf", hidden)?])?;
    ran.expect_status(0)?.expect("linux| no monitors")?;
    Ok(())
}

fn entropy(case: &Case) -> Result<()> {
    setup::linux_guest()?;
    let look = "ls /sys/bus/platform/devices; ls /proc/device-tree/chosen; dmesg | grep -i -e crng -e kaslr";
    let file = case.file("linux.qvmconf", configuration("linux", 1, look))?;
    let ran = case.batch(&Machine { cpu: "max".into(), ..Machine::default() }, &[file])?;
    ran.expect_status(0)?
        .expect("smccc_trng")?
        .expect("[    0.000000] random: crng init done")?
        .expect("KASLR enabled")?;
    Ok(())
}

/// What a newcomer sees and types.
fn shell(case: &Case) -> Result<()> {
    setup::linux_guest()?;
    let vms = [
        Configuration::read(&root().join("guests/linux/linux.qvmconf"), "", None)?,
        Configuration::read(&root().join("guests/hello/hello.qvmconf"), "cmdline forever", None)?,
    ];
    let soon = Duration::from_secs(30);
    let mut session = case.session(&Machine::default(), &vms)?;
    session.expect("Linux guest: 2 CPU(s)", PATIENCE)?;
    session.expect(PROMPT, soon)?;
    session.send("echo $((6*7))\r")?;
    session.expect("42", soon)?;
    session.expect("hello| hello: tick", soon)?;
    session.send("sleep 1000\r")?;
    session.expect("sleep 1000", soon)?;
    // Not before the shell has given the terminal to the program: to its line editor Ctrl-C is a key like any other.
    std::thread::sleep(Duration::from_secs(2));
    session.send("\x03")?;
    session.expect(PROMPT, soon)?;
    session.send("poweroff -f\r")?;
    session.expect("qvm: linux ended: code 0 (", soon)?;
    // The next VM has the foreground now: its lines come as they are.
    session.expect("hello: tick", soon)?;
    session.send("\x1dqq")?;
    session.expect_end(soon)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = " 11:        410        387     GICv3  27 Level     arch_timer";

    #[test]
    fn columns_are_the_counts_only() {
        assert_eq!(columns(BEFORE), [410, 387]);
    }

    #[test]
    fn a_timer_that_stands_still_is_noticed() {
        let after = " 11:        500        387     GICv3  27 Level     arch_timer";
        assert!(every_cpu_ticks([BEFORE, after].into_iter(), 2).is_err());
        let after = " 11:        500        388     GICv3  27 Level     arch_timer";
        assert!(every_cpu_ticks([BEFORE, after].into_iter(), 2).is_ok());
        assert!(every_cpu_ticks([BEFORE, after].into_iter(), 4).is_err());
        assert!(every_cpu_ticks([BEFORE].into_iter(), 2).is_err());
    }
}
