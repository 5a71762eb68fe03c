//! The command line that people script on, seen from outside: exit statuses and messages.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::Test;
use super::guests::configuration;
use super::machine::Case;
use crate::workspace::root;

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::hypervisor(
            "interface/status",
            "the status is the first code that is not zero, in the configurations' order",
            status,
        ),
        Test::hypervisor("interface/timeout", "124 when the time is over, and no QEMU stays behind", timeout),
        Test::hypervisor("interface/missing", "65 and a caret for a file that is not there", missing),
        Test::bare("interface/unsupported", "64 for what is not supported yet", unsupported),
    ]
}

/// Runs this very tool; its status and all that it says.
fn tool(arguments: &[&str]) -> Result<(i32, String)> {
    let output = Command::new(std::env::current_exe()?)
        .args(arguments)
        .current_dir(root())
        .stdin(Stdio::null())
        .output()
        .context("cannot run this tool")?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok((output.status.code().unwrap_or(-1), text))
}

fn expect(arguments: &[&str], status: i32, texts: &[&str]) -> Result<()> {
    let (found, text) = tool(arguments)?;
    if found != status {
        bail!("status {found}, expected {status}, of {arguments:?}:\n{text}");
    }
    match texts.iter().find(|expected| !text.contains(**expected)) {
        Some(expected) => bail!("`{expected}` is not said by {arguments:?}:\n{text}"),
        None => Ok(()),
    }
}

fn status(case: &Case) -> Result<()> {
    let good = case.file("good.qvmconf", configuration("good", "hello", 1, ""))?;
    let bad = case.file("bad.qvmconf", configuration("bad", "abuser", 1, "nowhere"))?;
    let (good, bad) = (good.display().to_string(), bad.display().to_string());
    expect(&["qemu", "--batch", "--timeout", "120", &good], 0, &["qvm: good ended: code 0 ("])?;
    expect(&["qemu", "--batch", "--timeout", "120", &good, &bad], 5, &["qvm: bad ended: code 5 ("])
}

fn timeout(case: &Case) -> Result<()> {
    let file = case.file("forever.qvmconf", configuration("forever", "hello", 1, "forever"))?;
    expect(&["qemu", "--batch", "--timeout", "8", &file.display().to_string()], 124, &["--timeout is over"])
}

fn missing(case: &Case) -> Result<()> {
    let file = case.file("missing.qvmconf", configuration("missing", "no-such-guest", 1, ""))?;
    expect(&["qemu", "--batch", &file.display().to_string()], 65, &["missing.qvmconf:4:", "no-such-guest.elf", "^"])?;
    expect(&["check", &file.display().to_string()], 65, &["missing.qvmconf:4:", "^"])
}

fn unsupported(_: &Case) -> Result<()> {
    expect(&["qemu", "--board", "rpi4"], 64, &["not supported yet"])?;
    expect(&["qemu", "--gic", "2"], 64, &["not supported yet"])
}
