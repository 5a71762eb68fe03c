//! Where things are, and how the tools of the Rust toolchain are called.
//!
//! Answers for: the folders of the checkout and the one way to run `cargo`. Does not answer for: what is built
//! (`artifacts`).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The target triple of everything that runs without an operating system.
pub(crate) const BARE_METAL: &str = "aarch64-unknown-none-softfloat";

/// The top folder of the checkout.
pub(crate) fn root() -> PathBuf {
    // Cargo sets the variable when it runs the tool; a copied binary knows where it was built.
    let package =
        std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    match package.parent() {
        Some(root) if root.join("xtask").is_dir() => root.to_path_buf(),
        _ => Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf),
    }
}

/// The folder for what the tool makes. Configurations name files in it (`../../target/guests/hello.elf`), so it does not
/// follow `CARGO_TARGET_DIR`.
pub(crate) fn target() -> PathBuf {
    root().join("target")
}

/// A `cargo` command at the top of the checkout. With `nightly`, of the nightly toolchain.
pub(crate) fn cargo(toolchain: Toolchain) -> Command {
    let mut command = match toolchain {
        // The `cargo` that runs this tool is of the pinned toolchain.
        Toolchain::Pinned => Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())),
        Toolchain::Nightly => {
            let mut command = Command::new("rustup");
            command.args(["run", "nightly", "cargo"]);
            // Both speak for the pinned toolchain and would win over the name above.
            command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
            command
        }
    };
    command.current_dir(root());
    command
}

/// Which toolchain a command is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// That of `rust-toolchain.toml`.
    Pinned,
    /// For Miri and fuzzing, which stable does not have.
    Nightly,
}

/// Runs a command whose output the user sees; anything but success is an error that names it.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", describe(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", describe(command));
    }
    Ok(())
}

/// Runs a command for its standard output; its errors go to the user's terminal.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(std::process::Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", describe(command)))?;
    if !output.status.success() {
        bail!("{} failed ({})", describe(command), output.status);
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("{} printed something that is not text", describe(command)))
}

/// The command as a user would type it.
pub(crate) fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| quoted(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "-_./=,:+@%".contains(character);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// The first executable file of that name in `PATH`.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|candidate| candidate.is_file())
}

/// `path` as seen from the top of the checkout, for messages.
pub(crate) fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_holds_the_workspace() {
        assert!(root().join("rust-toolchain.toml").is_file());
    }

    #[test]
    fn a_command_is_shown_as_it_would_be_typed() {
        assert_eq!(describe(Command::new("qemu").args(["-m", "2G", "a b", "it's"])), "qemu -m 2G 'a b' 'it'\\''s'");
    }
}
