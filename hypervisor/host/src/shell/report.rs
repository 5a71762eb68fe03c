//! What `pidin` and `top` show.
//!
//! Answers for: making lines of at most 80 characters out of what the kernel has counted. Does not answer for: counting.

mod pci;

pub use pci::{BarInfo, FunctionInfo, pci};

use crate::switch::Counts;
use alloc::{format, string::String, vec::Vec};
use core::fmt::{self, Write};
use vdev::Mac;
use vm::lifecycle::State;

/// Why guests are left, in the order of [`VmInfo::exits`].
pub const REASONS: [&str; 6] = ["irq", "call", "mmio", "sysreg", "wfx", "other"];

/// A VM, as it stands.
#[derive(Clone, Copy, Debug)]
pub struct VmInfo<'a> {
    /// Its number on the console.
    pub number: u8,
    /// Its name.
    pub name: &'a str,
    /// Where it is in its life.
    pub state: State,
    /// How many vCPUs it has.
    pub vcpus: usize,
    /// Its RAM and ROM, in KiB.
    pub memory: u64,
    /// How often it has been restarted.
    pub restarts: u32,
    /// Since it was started last, in nanoseconds.
    pub uptime: u64,
    /// What its vCPUs have used of the CPUs since then, the hypervisor's work for them included, in nanoseconds.
    pub cpu_time: u64,
    /// Whether a device that it has of the machine reaches all memory.
    pub is_uncontained: bool,
    /// How often its vCPUs have left the guest since then, by reason.
    pub exits: [u64; REASONS.len()],
}

/// A thread, as it stands.
#[derive(Clone, Copy, Debug)]
pub struct ThreadInfo<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its VM's number on the console; `None` if it is the host's.
    pub vm: Option<u8>,
    /// Its priority.
    pub priority: u8,
    /// Its policy, by the letter that a configuration has for it: `r`, `f`, `s`.
    pub policy: char,
    /// What it does: `running`, `ready`, what it waits for.
    pub state: &'a str,
    /// The CPU where it runs or ran last.
    pub cpu: u16,
    /// What it has used of the CPUs, in nanoseconds.
    pub cpu_time: u64,
}

/// Where the memory is, in KiB.
#[derive(Clone, Copy, Debug)]
pub struct MemoryInfo {
    /// All RAM.
    pub total: u64,
    /// What nobody has, and nobody has been promised.
    pub free: u64,
    /// What nobody has because it has been promised to VMs that have given it back.
    pub promised: u64,
    /// What the hypervisor has for itself.
    pub hypervisor: u64,
    /// How much of that is its heap.
    pub heap: u64,
    /// How much of the heap is in use.
    pub heap_used: u64,
    /// What files have.
    pub files: u64,
    /// What VMs share with each other and with the host.
    pub shared: u64,
}

/// A disk of the machine, or a part of one.
#[derive(Clone, Debug)]
pub struct DiskInfo {
    /// Its name, without `/dev/`.
    pub name: String,
    /// Its size in sectors of 512 bytes.
    pub sectors: u64,
    /// What else there is to say of it.
    pub about: String,
    /// Who has it.
    pub holders: Vec<String>,
}

/// A card of the machine, or a port of a network.
#[derive(Clone, Debug)]
pub struct NetInfo {
    /// Its address.
    pub mac: Mac,
    /// Whether its link is up: a card's to whatever is outside.
    pub is_up: bool,
    /// What has come through it.
    pub counts: Counts,
    /// Who it is, and what it is connected to.
    pub about: String,
}

/// An SMMU of the machine.
#[derive(Clone, Debug)]
pub struct SmmuInfo {
    /// Its name.
    pub name: String,
    /// Where it is, and what it does.
    pub about: String,
    /// How many events it has recorded.
    pub events: u64,
    /// How often some were lost.
    pub lost: u64,
    /// The streams that have a device, or have had events.
    pub streams: Vec<StreamInfo>,
    /// Events of streams that are not among these.
    pub others: u64,
}

/// A stream of an SMMU.
#[derive(Clone, Debug)]
pub struct StreamInfo {
    /// Its number.
    pub stream: u32,
    /// How many events it has had.
    pub events: u64,
    /// What is behind it, and who has it.
    pub about: String,
}

/// `pidin smmu`: for each SMMU a line with what it is, and one for each stream that there is something to say of; all others are
/// refused.
///
/// # Errors
/// If `out` fails.
pub fn smmus(all: &[SmmuInfo], out: &mut dyn Write) -> fmt::Result {
    out.write_str("SMMU             EVENTS      LOST\n")?;
    all.iter().try_for_each(|SmmuInfo { name, about, events, lost, streams, others }| {
        writeln!(out, "{name:13}{}{}", count(*events), count(*lost))?;
        writeln!(out, "    {about:.76}")?;
        streams.iter().try_for_each(|StreamInfo { stream, events, about }| {
            let stream = format!("{stream:#x}");
            writeln!(out, "    {stream:<9}{}          {about:.45}", count(*events))
        })?;
        match others {
            0 => Ok(()),
            others => writeln!(out, "    others   {}", count(*others)),
        }
    })
}

/// An ITS of the machine.
#[derive(Clone, Debug)]
pub struct ItsInfo {
    /// Its name.
    pub name: String,
    /// Where it is, or why it is not used.
    pub about: String,
    /// Who has vectors there.
    pub senders: Vec<SenderInfo>,
}

/// Something that sends messages to an ITS.
#[derive(Clone, Debug)]
pub struct SenderInfo {
    /// Its DeviceID.
    pub device: u32,
    /// How many vectors it has.
    pub vectors: u32,
    /// How many messages have come.
    pub messages: u64,
    /// Whose it is.
    pub about: String,
}

/// `pidin its`: for each ITS a line with what it is, and one for each device that has vectors there; and, if there were any, how many
/// messages came that nobody took.
///
/// # Errors
/// If `out` fails.
pub fn its(all: &[ItsInfo], dropped: u64, out: &mut dyn Write) -> fmt::Result {
    out.write_str("ITS             VECTORS  MESSAGES\n")?;
    for ItsInfo { name, about, senders } in all {
        writeln!(out, "{name:8}{about:.72}")?;
        for SenderInfo { device, vectors, messages, about } in senders {
            let device = format!("{device:#x}");
            writeln!(out, "    {device:<9}{}{}  {about:.42}", count((*vectors).into()), count(*messages))?;
        }
    }
    match dropped {
        0 => Ok(()),
        dropped => writeln!(out, "    dropped            {}", count(dropped)),
    }
}

/// A count in ten columns, the first of them empty; what is more than anybody counts to in millions.
fn count(count: u64) -> String {
    match count {
        0..=999_999_999 => format!(" {count:9}"),
        _ => format!(" {:8}M", (count / 1_000_000).min(99_999_999)),
    }
}

/// `pidin net`: two lines for each card and port, and one above all: SENT and RECEIVED are as whoever is there sees it, which at a
/// card is the outside.
///
/// # Errors
/// If `out` fails.
pub fn net(all: &[NetInfo], out: &mut dyn Write) -> fmt::Result {
    out.write_str("ADDRESS           LINK      SENT  RECEIVED      LOST  TOO LONG    FORGED\n")?;
    all.iter().try_for_each(|NetInfo { mac, is_up, counts, about }| {
        let Counts { sent, received, full, undivided, forged } = *counts;
        write!(out, "{mac} {:4}", if *is_up { "up" } else { "down" })?;
        [sent, received, full, undivided, forged].into_iter().try_for_each(|it| out.write_str(&count(it)))?;
        writeln!(out, "\n    {about:.76}")
    })
}

/// `pidin disks`: a line for each disk and partition and behind it who has it, and one above all.
///
/// # Errors
/// If `out` fails.
pub fn disks(disks: &[DiskInfo], out: &mut dyn Write) -> fmt::Result {
    out.write_str("NAME         SIZE\n")?;
    disks.iter().try_for_each(|DiskInfo { name, sectors, about, holders }| {
        writeln!(out, "{name:11} {:>5} {about:.59}", memory(sectors / 2))?;
        holders.iter().try_for_each(|holder| writeln!(out, "{:18} {holder:.61}", ""))
    })
}

/// `pidin`: a line for each VM, and one above.
///
/// # Errors
/// If `out` fails.
pub fn vms(vms: &[VmInfo<'_>], out: &mut dyn Write) -> fmt::Result {
    out.write_str(" # STATE       VCPU   MEM RST   UPTIME CPU TIME NAME\n")?;
    vms.iter().try_for_each(|vm| {
        let VmInfo { number, name, state, vcpus, restarts, .. } = vm;
        let (memory, uptime, used) = (memory(vm.memory), time(vm.uptime), time(vm.cpu_time));
        let warning = if vm.is_uncontained { " (uncontained: reaches all memory)" } else { "" };
        writeln!(out, "{number:2} {state:11} {vcpus:4} {memory:>5} {restarts:3} {uptime:>8} {used:>8} {name}{warning}")
    })
}

/// `pidin NAME`: the same for one VM, and how often it has left the guest.
///
/// # Errors
/// If `out` fails.
pub fn vm(vm: &VmInfo<'_>, out: &mut dyn Write) -> fmt::Result {
    vms(core::slice::from_ref(vm), out)?;
    out.write_str("exits:")?;
    REASONS.iter().zip(vm.exits).try_for_each(|(reason, count)| write!(out, " {count} {reason}"))?;
    out.write_str("\n")
}

/// `pidin threads`: a line for each thread, and one above.
///
/// # Errors
/// If `out` fails.
pub fn threads(threads: &[ThreadInfo<'_>], out: &mut dyn Write) -> fmt::Result {
    out.write_str("VM PRIO STATE      CPU CPU TIME NAME\n")?;
    threads.iter().try_for_each(|thread| {
        let ThreadInfo { name, priority, policy, state, cpu, .. } = thread;
        match thread.vm {
            Some(number) => write!(out, "{number:2}")?,
            None => out.write_str(" -")?,
        }
        writeln!(out, " {priority:3}{policy} {state:10} {cpu:3} {:>8} {name:.48}", time(thread.cpu_time))
    })
}

/// `pidin memory`: where the memory is, the VMs' last.
///
/// # Errors
/// If `out` fails.
pub fn memory_map(memory: &MemoryInfo, vms: &[VmInfo<'_>], out: &mut dyn Write) -> fmt::Result {
    let MemoryInfo { total, free, promised, hypervisor, heap, heap_used, files, shared } = memory;
    writeln!(out, "       KiB\n{total:10} RAM\n{free:10} free\n{promised:10} promised to VMs")?;
    writeln!(out, "{hypervisor:10} hypervisor ({heap} heap, {heap_used} of it in use)")?;
    writeln!(out, "{files:10} files\n{shared:10} shared by VMs")?;
    vms.iter().try_for_each(|vm| writeln!(out, "{:10} {}", vm.memory, vm.name))
}

/// `top`: what VMs have done between two looks at them, `nanoseconds` apart: per cent of a CPU, and exits a second. A VM
/// that was not there before, or has been restarted, has begun with nothing.
///
/// # Errors
/// If `out` fails.
pub fn top(before: &[VmInfo<'_>], now: &[VmInfo<'_>], nanoseconds: u64, out: &mut dyn Write) -> fmt::Result {
    out.write_str(" CPU%")?;
    REASONS.iter().try_for_each(|reason| write!(out, " {reason:>6}"))?;
    out.write_str(" NAME\n")?;
    now.iter().try_for_each(|vm| {
        let same =
            |other: &&VmInfo<'_>| (other.number, other.name, other.restarts) == (vm.number, vm.name, vm.restarts);
        let before = before.iter().find(same);
        let permille = rate(vm.cpu_time, before.map_or(0, |before| before.cpu_time), 1000, nanoseconds);
        match permille {
            0..=9999 => write!(out, "{:3}.{}", permille / 10, permille % 10)?,
            _ => write!(out, "{:5}", permille / 10)?,
        }
        let exits = before.map_or([0; REASONS.len()], |before| before.exits);
        vm.exits.iter().zip(exits).try_for_each(|(now, before)| {
            match rate(*now, before, 1_000_000_000, nanoseconds) {
                rate @ 0..=999_999 => write!(out, " {rate:6}"),
                rate => write!(out, " {:5}k", rate / 1000),
            }
        })?;
        writeln!(out, " {}", vm.name)
    })
}

/// How much came in `nanoseconds`, for each `unit` of them.
fn rate(now: u64, before: u64, unit: u64, nanoseconds: u64) -> u64 {
    let came = u128::from(now.saturating_sub(before)).saturating_mul(u128::from(unit));
    let rate = came.checked_div(u128::from(nanoseconds)).unwrap_or(0);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// Five characters at most, up to 9999 GiB.
fn memory(kibibytes: u64) -> String {
    match kibibytes {
        0..=9999 => format!("{kibibytes}K"),
        10_000..=10_238_976 => format!("{}M", kibibytes >> 10),
        _ => format!("{}G", kibibytes >> 20),
    }
}

/// Eight characters at most, up to 99 hours: seconds as long as they are few, then hours, minutes and seconds.
fn time(nanoseconds: u64) -> String {
    let seconds = nanoseconds / 1_000_000_000;
    if seconds < 1000 {
        format!("{seconds}.{:03}", nanoseconds / 1_000_000 % 1000)
    } else {
        format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const LINUX: VmInfo<'static> = VmInfo {
        number: 1,
        name: "linux",
        state: State::Running,
        vcpus: 2,
        memory: 128 << 10,
        restarts: 0,
        uptime: 12_345_678_900,
        cpu_time: 3_210_000_000,
        is_uncontained: false,
        exits: [10, 20, 30, 40, 50, 6],
    };
    const LONG: VmInfo<'static> = VmInfo {
        number: 63,
        name: "a-name-of-32-characters-and-more",
        state: State::Terminating,
        vcpus: 16,
        memory: 24 << 20,
        restarts: 999,
        uptime: 359_999_000_000_000,
        cpu_time: 1_000_000_000_000,
        is_uncontained: false,
        exits: [u64::MAX; 6],
    };

    fn text(report: impl FnOnce(&mut dyn Write) -> fmt::Result) -> String {
        let mut text = String::new();
        report(&mut text).unwrap();
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        text
    }

    #[test]
    fn a_vm_whose_device_reaches_everything_is_told_by_its_line() {
        let mut text = String::new();
        vms(&[VmInfo { is_uncontained: true, ..LINUX }, LINUX], &mut text).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[1].ends_with(" linux (uncontained: reaches all memory)") && lines[2].ends_with(" linux"),
            "{text}"
        );
    }

    #[test]
    fn pidin_shows_a_line_for_each_vm() {
        let expected = "
 # STATE       VCPU   MEM RST   UPTIME CPU TIME NAME
 1 running        2  128M   0   12.345    3.210 linux
63 terminating   16   24G 999 99:59:59  0:16:40 a-name-of-32-characters-and-more
";
        assert_eq!(text(|out| vms(&[LINUX, LONG], out)), expected[1..]);
        let expected = "
 # STATE       VCPU   MEM RST   UPTIME CPU TIME NAME
 1 running        2  128M   0   12.345    3.210 linux
exits: 10 irq 20 call 30 mmio 40 sysreg 50 wfx 6 other
";
        assert_eq!(text(|out| vm(&LINUX, out)), expected[1..]);
    }

    #[test]
    fn pidin_threads_shows_whose_they_are_and_what_they_do() {
        let host = ThreadInfo {
            name: "console",
            vm: None,
            priority: 40,
            policy: 'r',
            state: "blocked",
            cpu: 0,
            cpu_time: 1_500_000,
        };
        let long = "a-name-of-32-characters-and-more/vcpu15";
        let vcpu =
            ThreadInfo { name: long, vm: Some(63), priority: 255, policy: 'f', state: "running", cpu: 15, ..host };
        let expected = "
VM PRIO STATE      CPU CPU TIME NAME
 -  40r blocked      0    0.001 console
63 255f running     15    0.001 a-name-of-32-characters-and-more/vcpu15
";
        assert_eq!(text(|out| threads(&[host, vcpu], out)), expected[1..]);
    }

    #[test]
    fn pidin_memory_says_who_has_it() {
        let memory = MemoryInfo {
            total: 1 << 20,
            free: 800_000,
            promised: 4096,
            hypervisor: 2048,
            heap: 512,
            heap_used: 300,
            files: 64,
            shared: 8,
        };
        let expected = "
       KiB
   1048576 RAM
    800000 free
      4096 promised to VMs
      2048 hypervisor (512 heap, 300 of it in use)
        64 files
         8 shared by VMs
    131072 linux
";
        assert_eq!(text(|out| memory_map(&memory, &[LINUX], out)), expected[1..]);
    }

    #[test]
    fn pidin_disks_says_what_there_is_and_who_has_it() {
        let disk = |name: &str, sectors, about: &str, holders: &[&str]| DiskInfo {
            name: name.into(),
            sectors,
            about: about.into(),
            holders: holders.iter().map(|holder| (*holder).into()).collect(),
        };
        let all = [
            disk("hd0", 131_072, "GPT", &[]),
            disk("hd0p1", 32_768, "from sector 2048 on", &["vdev `root` of VM `linux` writes"]),
            disk("hd1t178.1", 1 << 40, &"x".repeat(99), &["y".repeat(99).as_str()]),
        ];
        let expected = "
NAME         SIZE
hd0           64M GPT
hd0p1         16M from sector 2048 on
                   vdev `root` of VM `linux` writes
";
        assert_eq!(text(|out| disks(&all[..2], out)), expected[1..]);
        assert_eq!(text(|out| disks(&all, out)).lines().count(), 6);
    }

    #[test]
    fn pidin_net_says_who_is_where_and_what_has_come_through() {
        let counts = Counts { sent: 12, received: 345_678, full: 1, undivided: 0, forged: 2 };
        let card = NetInfo {
            mac: Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]),
            is_up: true,
            counts,
            about: "/dev/net0, uplink of /dev/vswitch0, group 0".into(),
        };
        let expected = "
ADDRESS           LINK      SENT  RECEIVED      LOST  TOO LONG    FORGED
52:54:00:12:34:56 up          12    345678         1         0         2
    /dev/net0, uplink of /dev/vswitch0, group 0
";
        assert_eq!(text(|out| net(core::slice::from_ref(&card), out)), expected[1..]);
        let most = Counts { sent: u64::MAX, received: u64::MAX, full: u64::MAX, undivided: u64::MAX, forged: 1 << 40 };
        let long = NetInfo { is_up: false, counts: most, about: "x".repeat(99), ..card };
        assert!(text(|out| net(&[long], out)).contains("down "));
    }

    #[test]
    fn pidin_smmu_says_whose_streams_are_and_how_often_they_have_failed() {
        let stream = |stream, events, about: &str| StreamInfo { stream, events, about: about.into() };
        let smmu = SmmuInfo {
            name: "smmu0".into(),
            about: "at 0x9050000, 65536 streams".into(),
            events: 345,
            lost: 2,
            streams: vec![stream(8, 0, "disk: confined by smmuman"), stream(0x1234, 340, "nobody's: refused")],
            others: 5,
        };
        let expected = "
SMMU             EVENTS      LOST
smmu0               345         2
    at 0x9050000, 65536 streams
    0x8               0          disk: confined by smmuman
    0x1234          340          nobody's: refused
    others            5
";
        assert_eq!(text(|out| smmus(core::slice::from_ref(&smmu), out)), expected[1..]);
        let long = "x".repeat(99);
        let most = SmmuInfo {
            name: "smmu100".into(),
            about: long.clone(),
            events: u64::MAX,
            lost: 1 << 40,
            streams: vec![stream(u32::MAX, u64::MAX, &long)],
            others: u64::MAX,
        };
        text(|out| smmus(&[most], out));
        assert_eq!(text(|out| smmus(&[], out)).lines().count(), 1);
    }

    #[test]
    fn pidin_its_says_who_sends_and_how_often() {
        let sender = SenderInfo { device: 8, vectors: 33, messages: 1200, about: "linux".into() };
        let working = ItsInfo { name: "its0".into(), about: "at 0x8080000".into(), senders: vec![sender] };
        let failed = ItsInfo { name: "its1".into(), about: "x".repeat(99), senders: vec![] };
        let expected = "
ITS             VECTORS  MESSAGES
its0    at 0x8080000
    0x8              33      1200  linux
    dropped                     7
";
        assert_eq!(text(|out| its(core::slice::from_ref(&working), 7, out)), expected[1..]);
        let all = text(|out| its(&[working, failed], 0, out));
        assert!(!all.contains("dropped") && all.lines().all(|line| line.len() <= 80));
    }

    #[test]
    fn top_shows_what_has_come_since() {
        let now = VmInfo { cpu_time: LINUX.cpu_time + 1_999_000_000, exits: [10, 1020, 31, 4_000_040, 50, 6], ..LINUX };
        let expected = "
 CPU%    irq   call   mmio sysreg    wfx  other NAME
 99.9      0    500      0  2000k      0      0 linux
";
        assert_eq!(text(|out| top(&[LINUX], &[now], 2_000_000_000, out)), expected[1..]);
        // It has been started anew in between, and what is counted begins with nothing.
        let again = VmInfo { restarts: 1, cpu_time: 500_000_000, exits: [1, 0, 0, 0, 0, 2], ..LINUX };
        let expected = "
 CPU%    irq   call   mmio sysreg    wfx  other NAME
 50.0      1      0      0      0      0      2 linux
";
        assert_eq!(text(|out| top(&[LINUX], &[again], 1_000_000_000, out)), expected[1..]);
        assert_eq!(text(|out| top(&[], &[again], 0, out)).lines().nth(1).unwrap().trim_start().get(..3), Some("0.0"));
        text(|out| {
            top(&[], &[VmInfo { exits: [99_999_999; 6], cpu_time: 15_999_000_000, ..LONG }], 1_000_000_000, out)
        });
    }

    #[test]
    fn sizes_and_times_keep_to_their_columns() {
        for (kibibytes, shown) in
            [(4, "4K"), (9999, "9999K"), (10_240, "10M"), (10_238_976, "9999M"), (10_485_760, "10G")]
        {
            assert_eq!(memory(kibibytes), shown);
        }
        for (seconds, shown) in [(0, "0.000"), (999, "999.000"), (1000, "0:16:40"), (360_000, "100:00:00")] {
            assert_eq!(time(seconds * 1_000_000_000), shown);
        }
    }
}
