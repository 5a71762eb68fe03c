//! The vdevs that Debian's kernel has drivers for, each with that driver.

use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};

use super::Test;
use super::linux::configuration;
use super::machine::{Case, PATIENCE};
use crate::configuration::Configuration;
use crate::qemu::machine::Machine;
use crate::setup;

/// Loads the driver of the watchdog and has it kicked twice a second; it bites after two seconds without.
const KICK: &str = "insmod /lib/modules/sp805_wdt.ko; cat /sys/class/watchdog/watchdog0/identity; \
                    watchdog -T 2 -t 500ms /dev/watchdog0";
/// How far the guest's clock may be from the PC's, in seconds: the guest has to boot.
const BOOT: u64 = 240;

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::hypervisor("linux/ser8250", "console and early console on a 16550A, both ways of addressing it", ser8250),
        Test::hypervisor("linux/watchdog", "sp805_wdt kicks, then starves: code 4", watchdog),
        Test::hypervisor("linux/watchdog-pause", "a paused VM is not bitten, and is when it does not go on", pause),
        Test::hypervisor("linux/clocks", "rtc-pl031 tells and sets the time and has an alarm; sp804 counts", clocks),
        Test::hypervisor("linux/progress", "stages of a start in the log; the smallest device at the end", progress),
    ]
}

fn ser8250(case: &Case) -> Result<()> {
    setup::linux_guest()?;
    let commands = "dmesg | grep -e 16550A -e bootconsole; grep ttyS0 /proc/interrupts; seq 2000 | sed 's/^/line /'";
    for (early, more) in [("=uart8250,mmio,0x1c090000", ""), ("", "reg-shift 2")] {
        let text = configuration("linux", 2, commands)
            .replace("ttyAMA0", &format!("ttyS0 earlycon{early}"))
            .replace("vdev pl011", &format!("vdev ser8250 {more}"));
        let ran = case.batch(&Machine::default(), &[case.file("linux.qvmconf", text)?])?;
        ran.expect_status(0)?.expect("is a 16550A")?.expect("bootconsole [")?;
        // The interrupt has come, and no line is missing.
        let counts = ran.of("linux").find(|line| line.ends_with("ttyS0") && line.contains("GIC")).unwrap_or_default();
        if !counts.split_whitespace().skip(1).take(2).any(|count| count.parse().is_ok_and(|count: u32| count > 0)) {
            bail!("no interrupt: {counts}");
        }
        let lines: Vec<String> = (1..=2000).map(|n| format!("line {n}")).collect();
        if !ran.of("linux").map(str::trim).filter(|line| line.starts_with("line ")).eq(lines.iter().map(String::as_str))
        {
            bail!("not all lines have come, or not in order");
        }
    }
    Ok(())
}

fn watchdog(case: &Case) -> Result<()> {
    setup::linux_guest()?;
    let commands = format!("{KICK}; sleep 8; echo still here; killall -9 watchdog; sleep 60; echo too late");
    let text = configuration("linux", 1, &commands) + "vdev wdt-sp805 frequency 1000000\n";
    let ran = case.batch(&Machine::default(), &[case.file("linux.qvmconf", text)?])?;
    ran.expect_status(4)?
        .expect("linux| sp805-wdt")?
        .expect("linux| still here")?
        .expect("the watchdog bites")?
        .expect("qvm: linux ended: code 4 (watchdog")?;
    if ran.of("linux").any(|line| line.trim() == "too late") {
        bail!("the watchdog does not bite");
    }
    Ok(())
}

fn pause(case: &Case) -> Result<()> {
    setup::linux_guest()?;
    // The kernel shows its command line, which is not to be taken for what is waited for.
    let commands =
        format!("{KICK}; sleep 3; echo kick$((6*7)); sleep 8; killall -9 watchdog; echo starve$((6*7)); sleep 60");
    let text = configuration("linux", 1, &commands) + "vdev wdt-sp805\n";
    let vm = Configuration::read(&case.file("linux.qvmconf", text)?, "", None)?;
    let soon = Duration::from_secs(60);
    let mut session = case.session(&Machine::default(), &[vm])?;
    session.expect("kick42", PATIENCE)?;
    session.send("\x1d0")?;
    session.send("pause linux\rstatus linux\r")?;
    session.expect("paused; heap", soon)?;
    // Four times what it takes to be bitten.
    sleep(Duration::from_secs(8));
    session.send("resume linux\r")?;
    session.expect("starve42", soon)?;
    session.expect("the watchdog bites", soon)?;
    session.expect("qvm: linux ended: code 4 (", soon)?;
    session.send("\x1dqq")?;
    session.expect_end(soon)
}

fn clocks(case: &Case) -> Result<()> {
    setup::linux_guest()?;
    let commands = "cd /sys/class/rtc/rtc0; echo name $(cat name); echo seconds $(cat since_epoch); \
                    echo date $(date +%s); echo +3 > wakealarm; sleep 5; grep rtc-pl031 /proc/interrupts; \
                    date -s @2000000000 > /dev/null; hwclock -u -w; sleep 2; echo set $(cat since_epoch); \
                    cd /sys/devices/system/clocksource/clocksource0; cat available_clocksource; \
                    echo arm,sp804 > current_clocksource; sleep 2; echo by $(cat current_clocksource); \
                    echo later $(date +%s)";
    let text = configuration("linux", 1, commands)
        + "vdev pl031 loc 0x1c170000 intr gic:36\nvdev sp804 loc 0x1c110000 intr gic:34\n";
    let ran = case.batch(&Machine::default(), &[case.file("linux.qvmconf", text)?])?;
    ran.expect_status(0)?.expect("linux| name rtc-pl031")?.expect("linux| by arm,sp804")?;
    let number = |word: &str| {
        let rest = |line: &str| line.trim().strip_prefix(word)?.trim().parse::<u64>().ok();
        ran.of("linux").find_map(rest).unwrap_or_default()
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    for word in ["seconds", "date"] {
        if number(word).abs_diff(now) > BOOT {
            bail!("{word} {}, and here it is {now}", number(word));
        }
    }
    for (word, least) in [("set", 2_000_000_001), ("later", 2_000_000_003)] {
        if !(least..least + 60).contains(&number(word)) {
            bail!("{word} {}", number(word));
        }
    }
    let alarm = ran.of("linux").find(|line| line.contains("GIC") && line.contains("rtc-pl031")).unwrap_or_default();
    if alarm.split_whitespace().nth(1).is_none_or(|count| count == "0") {
        bail!("no alarm: {alarm}");
    }
    Ok(())
}

fn progress(case: &Case) -> Result<()> {
    setup::linux_guest()?;
    let commands = "devmem 0x1c0a0000; devmem 0x1c0a0004 32 1; sleep 3; devmem 0x1c0a0004 32 2; devmem 0x1c0a0004";
    let text = configuration("linux", 1, commands)
        + "vdev progress loc 0x1c0a0000 stages init,shell timeout 1\nvdev qvmterm message \"the end of it\"\n";
    let ran = case.batch(&Machine::default(), &[case.file("linux.qvmconf", text)?])?;
    ran.expect_status(0)?
        .expect("linux| 0x53475250")?
        .expect("stage 1 (init) after ")?
        .expect("no sign of life for 1 s in stage 1 (init)")?
        .expect("stage 2 (shell) after ")?
        .expect("linux| 0x00000002")?
        .expect("the VM ends: the end of it")?;
    Ok(())
}
