//! Tests that need no emulated machine: the portable crates on the PC, under Miri, and against random input.
//!
//! Answers for: calling the tools. The fuzz targets are built here as `cargo fuzz` builds them (coverage instrumentation
//! and the address sanitizer), so that it need not be installed; to look at a finding with `cargo fuzz` works too.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::Test;
use crate::setup;
use crate::workspace::{Toolchain, cargo, describe, find_program, root, target};

/// Crates that Miri can run within minutes. Not `machine` and `vm`, whose tests are whole trees and whole VMs; not
/// `virtio`, whose oracle maps memory and whose queues go round for longer; not `plan9`, whose clients use up their fids; not `pcie`,
/// whose properties scan whole hosts; not `its` and `vsmmu`, whose models take long.
const MIRI: &[&str] =
    &["types", "qvmconf", "pagetable", "smmu", "sched", "trace", "vdev", "vgic", "pci", "vdevs", "example", "host"];
/// Tests read the clock (property tests do), and leak what lives as long as the hypervisor.
const MIRI_FLAGS: &str = "-Zmiri-disable-isolation -Zmiri-ignore-leaks";
/// How long each fuzz target runs.
const FUZZ_SECONDS: u32 = 10;
const FUZZ_FOLDER: &str = "hypervisor/fuzz";
/// The PC's own triple: the sanitizer has no use for another.
const FUZZ_TARGET: &str = "x86_64-unknown-linux-gnu";
/// What `cargo fuzz` passes to the compiler.
const FUZZ_FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Zsanitizer=address --cfg fuzzing -Cdebug-assertions \
    -Ccodegen-units=1";

/// The tests of this file.
pub(super) fn tests() -> Result<Vec<Test>> {
    let mut tests =
        vec![Test::host("pc", "unit, conversation and whole-VM tests of all crates that run on a PC", |log| {
            run(cargo(Toolchain::Pinned).args(["test", "--quiet"]), log)
        })];
    for name in MIRI {
        tests.push(Test::host(format!("miri/{name}"), "the crate's tests under Miri", move |log| miri(name, log)));
    }
    for name in fuzz_targets()? {
        let about = "a fuzz target for some seconds";
        tests.push(Test::host(format!("fuzz/{name}"), about, move |log| fuzz(&name, log)));
    }
    Ok(tests)
}

/// How long a tool may take, in seconds: many times what it takes. Where there is no `timeout(1)` it takes what it takes.
const TOOL_SECONDS: u32 = 900;

/// Runs a command with all its output in `log`.
fn run(command: &Command, log: &mut File) -> Result<()> {
    let mut command = limited(command);
    let shown = describe(&command);
    let status = command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?)
        .status()
        .with_context(|| format!("cannot run {shown}"))?;
    // What `timeout` says of itself.
    if matches!(status.code(), Some(124 | 137)) {
        bail!("{shown} was not done after {TOOL_SECONDS} s");
    }
    if !status.success() {
        bail!("{shown} failed ({status})");
    }
    Ok(())
}

/// The same command, ended with all that it has started if it takes too long.
fn limited(command: &Command) -> Command {
    let mut limited = match find_program("timeout") {
        Some(timeout) => {
            let mut limited = Command::new(timeout);
            limited.args(["--kill-after=5", &TOOL_SECONDS.to_string()]).arg(command.get_program());
            limited
        }
        None => Command::new(command.get_program()),
    };
    limited.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        limited.current_dir(folder);
    }
    limited
}

fn miri(package: &str, log: &mut File) -> Result<()> {
    setup::miri()?;
    let mut command = cargo(Toolchain::Nightly);
    // A property test runs once here: Miri is a thousand times slower, and looks for something else.
    command.env("PROPTEST_CASES", "1").env("MIRIFLAGS", MIRI_FLAGS);
    command.args(["miri", "test", "--quiet", "-p", package, "--lib"]);
    command.arg("--target-dir").arg(target().join("miri"));
    run(&command, log)
}

/// The targets that the fuzz workspace declares.
fn fuzz_targets() -> Result<Vec<String>> {
    let folder = root().join(FUZZ_FOLDER).join("fuzz_targets");
    let mut names = Vec::new();
    if let Ok(entries) = fs::read_dir(folder) {
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
            }
        }
    }
    names.sort();
    Ok(names)
}

fn fuzz(name: &str, log: &mut File) -> Result<()> {
    setup::nightly()?;
    setup::cxx_compiler()?;
    let built = target().join("fuzz");
    let mut command = cargo(Toolchain::Nightly);
    command.current_dir(root().join(FUZZ_FOLDER)).env("RUSTFLAGS", FUZZ_FLAGS);
    command.args(["build", "--release", "--target", FUZZ_TARGET, "--bin", name, "--target-dir"]).arg(&built);
    run(&command, log)?;
    let corpus = built.join("corpus").join(name);
    fs::create_dir_all(&corpus)?;
    // The same seed and no older corpus than that of the last run: what fails fails again.
    let mut command = Command::new(built.join(FUZZ_TARGET).join("release").join(name));
    command.args(["-seed=1", "-timeout=10", "-rss_limit_mb=2048", &format!("-max_total_time={FUZZ_SECONDS}")]);
    command.arg(format!("-artifact_prefix={}/{name}-", built.display())).arg(&corpus);
    let seeds = root().join(FUZZ_FOLDER).join("seeds").join(name);
    if seeds.is_dir() {
        command.arg(seeds);
    }
    run(&command, log).with_context(|| format!("the input that did it is {}/{name}-*", built.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threat_model_has_a_row_for_each_fuzz_target_and_each_can_be_built() {
        let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
        let (model, package) = (read("hypervisor/docs/threat-model.md"), read("hypervisor/fuzz/Cargo.toml"));
        let (_, table) = model.split_once("\n## The fuzz targets\n").unwrap();
        let rows: Vec<&str> = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        let targets = fuzz_targets().unwrap();
        for target in &targets {
            assert!(rows.contains(&target.as_str()), "{target}");
            assert!(package.contains(&format!("path = \"fuzz_targets/{target}.rs\"")), "{target}");
        }
        assert_eq!(rows.len(), targets.len(), "{rows:?}");
    }
}
