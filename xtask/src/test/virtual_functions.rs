//! A network card's virtual functions (SR-IOV) under Linux' own drivers, in VMs.
//!
//! Answers for: the physical function's driver serving them in one VM, a virtual one's working in another and in the same, and either VM's
//! end while the other goes on. Does not answer for: making them (`pci_host`), other functions (`functions`).

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::Test;
use super::bare_pci::{ECHO, every_order_is_done};
use super::functions::{linux, machine};
use super::machine::{Case, Session};
use super::scene::Scene;
use crate::qemu::device::{Device, Kind};

/// Linux boots, twice as slow as alone.
const BOOT: Duration = Duration::from_secs(240);
const SOON: Duration = Duration::from_secs(90);
const PROMPT: &str = "bulkhead# ";

/// The card, and its second virtual function, by their places.
const WHOLE: &str = "pass loc pci:0x8086/0x10c9";
const PART: &str = "pass loc pci:0:17.2";

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::hypervisor(
            "functions/virtual",
            "a VM serves virtual functions, another VM sends by one, and each outlives the other",
            two,
        ),
        Test::hypervisor(
            "functions/virtual-again",
            "a VM with a virtual function starts again and again while the card is reset",
            again,
        ),
        Test::hypervisor("functions/virtual-same", "a VM serves a virtual function that is its own", same),
    ]
}

fn card() -> Vec<Device> {
    vec![Device::new(Kind::Igb(ECHO.into()))]
}

/// A scene with virtual functions, and a Linux VM of this name that is passed `more` and does `orders`.
fn add(scene: &mut Scene, name: &str, orders: &str, more: &str) -> Result<()> {
    let mut own = Scene::new();
    linux(&mut own, true, ("", orders), more)?;
    let text = own.text("linux.qvmconf").replace("system linux", &format!("system {name}"));
    scene.take_files(own).file(&format!("{name}.qvmconf"), text.into());
    Ok(())
}

fn two(case: &Case) -> Result<()> {
    let mut scene = Scene::interactive();
    add(&mut scene, "whole", "functions igb 2; sleep 3600", WHOLE)?;
    add(&mut scene, "part", "net igbvf 1; while sleep 2; do passed net igbvf 1; done", PART)?;
    scene.line("pci virtual 00:01.0 2");
    let mut session = scene.session(case, &machine(card()))?;
    session.expect("pci: 0000:00:01.0 has made 0000:00:11.0, 0000:00:11.2", SOON)?;
    session.expect(PROMPT, SOON)?;
    start(&mut session, "whole", "passed: functions igb 2: ok, 2 at no place of this bus")?;
    start(&mut session, "part", "part| passed: net igbvf 1: ok")?;
    let text = session.text();
    ensure!(text.contains("VM `whole` has 0000:00:01.0, and by PCI function 0000:00:11.2 all that"), "nobody is told");
    session.send("status whole\r")?;
    session.expect("serves 2 virtual functions", SOON)?;
    session.send("pci virtual 00:01.0 1\r")?;
    session.expect("pci: error: the shell cannot have PCI function 0000:00:01.0: VM `whole` has it", SOON)?;
    // Nobody serves it: the network is dead, and nothing else.
    end(&mut session, "whole")?;
    session.expect("part| passed: net igbvf 1: FAILED", SOON)?;
    start(&mut session, "whole", "whole| passed: functions igb 2: ok")?;
    session.expect("part| passed: net igbvf 1: ok", SOON)?;
    // And again by one that knows nothing of it.
    end(&mut session, "part")?;
    start(&mut session, "part", "part| passed: net igbvf 1: ok")?;
    ensure!(!session.text().contains("is not mapped"), "an SMMU has caught something");
    end(&mut session, "part")?;
    end(&mut session, "whole")?;
    // The physical function's owner has gone: the log says that nothing will come of it.
    session.send("qvm @part.qvmconf &\r")?;
    session.expect("PCI function 0000:00:11.2 works only while somebody has 0000:00:01.0: nobody does", SOON)?;
    session.expect("part| passed: net igbvf 1: FAILED", BOOT)?;
    // Nor does somebody at the console reset it under a VM.
    session.send("pci reset 00:01.0\r")?;
    session.expect("pci: error: the shell cannot have PCI function 0000:00:11.2: VM `part` has it", SOON)?;
    session.send("shutdown -f\r")?;
    session.expect_end(SOON)
}

fn start(session: &mut Session, name: &str, says: &str) -> Result<()> {
    session.send(&format!("qvm @{name}.qvmconf &\r"))?;
    session.expect(says, BOOT)
}

fn end(session: &mut Session, name: &str) -> Result<()> {
    session.send(&format!("slay -s QUIT {name}\r"))?;
    session.expect(&format!("qvm: {name} ended: code 3 ("), SOON)
}

/// A short VM lives again and again; whatever it does with its function when the card is reset, the next life has it. Another short one has the
/// card, which is reset at its start and its end. Between resets there is time: QEMU does not survive that somebody touches the function's table
/// of messages in the very moment in which it takes it away.
fn again(case: &Case) -> Result<()> {
    let mut scene = Scene::interactive();
    scene.vm("part", "hello", "2M", &format!("on-exit always,1000/60\ncmdline ticks=1\n{PART}"))?;
    scene.vm("whole", "hello", "2M", &format!("cmdline ticks=1\n{WHOLE}"))?;
    scene.line("pci virtual 00:01.0 2");
    let mut session = scene.session(case, &machine(card()))?;
    session.expect("pci: 0000:00:01.0 has made 0000:00:11.0, 0000:00:11.2", SOON)?;
    session.send("qvm @part.qvmconf &\r")?;
    session.expect("starting it again (2)", SOON)?;
    for _ in 0..8 {
        session.send("qvm @whole.qvmconf &\r")?;
        session.expect("qvm: whole ended: code 0 (shut down)", SOON)?;
        thread::sleep(Duration::from_millis(150));
    }
    let last = session.text().matches("starting it again (").count();
    session.expect(&format!("starting it again ({})", last + 3), SOON)?;
    let text = session.text();
    ensure!(!text.contains("code 65") && !text.contains("code 64"), "a life did not begin");
    ensure!(!text.contains("is not at rest"), "the function was not at rest after a life");
    session.send("shutdown -f\r")?;
    session.expect_end(SOON)
}

fn same(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    scene.line("pci virtual 00:01.0 2");
    let orders = "functions igb 1 + net igbvf 1";
    add(&mut scene, "both", orders, &format!("{WHOLE}\n{}", PART.replace("17.2", "17.0")))?;
    scene.line("qvm @both.qvmconf");
    let ran = scene.run(case, &machine(card()), None, 6)?;
    every_order_is_done(&ran.text, &["functions igb 1: ok, 1 at no place of this bus", "net igbvf 1: ok"])?;
    ensure!(!ran.text.contains("and by PCI function"), "a VM is told of itself");
    ensure!(!ran.text.contains("is not mapped"), "an SMMU has caught something");
    Ok(())
}
