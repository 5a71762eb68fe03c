//! Cards: images of them, and what is installed on a partition.
//!
//! Answers for: the same image each time, what is refused, and a partition that is left as it was found. That loaders find
//! everything on a card, and whole, is for the tests of `loader` to show.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Test;
use super::interface::expect;
use super::machine::Case;
use crate::card::disk;
use crate::workspace::{find_program, output, root};

const HELLO: &str = "guests/hello/hello.qvmconf";

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::bare("card/image", "made twice, the image is the same; what must not be written to is refused", image),
        Test::bare("card/install", "onto a partition and off it again, which is as it was", install),
    ]
}

/// Makes an image of a card for `board` with the guest `hello`; the folder's name is the case's.
pub(super) fn make(board: &str, out: &Path, more: &[&str]) -> Result<()> {
    let out = out.to_str().context("a path that is no text")?;
    let mut arguments = vec!["image", "--board", board, "--out", out, "--force", HELLO];
    arguments.extend(more);
    expect(&arguments, 0, &["bulkhead.img", "boot.tar", "dd if="])
}

fn image(case: &Case) -> Result<()> {
    let (once, again) = (case.path("once.img"), case.path("again.img"));
    make("generic", &once, &[])?;
    make("generic", &again, &["--size", "64M"])?;
    if fs::read(&once)? != fs::read(&again)? {
        bail!("two images with the same contents differ");
    }
    check_file_system(case, &once)?;
    firmware(case)?;
    let (there, folder) = (once.display().to_string(), case.path("").display().to_string());
    let refuse = |out: &str, more: &[&str], text: &str| {
        let mut arguments = vec!["image", "--board", "generic", "--out", out, HELLO];
        arguments.extend(more);
        expect(&arguments, 64, &[text])
    };
    refuse(&there, &[], "is there already")?;
    refuse(&folder, &["--force"], "is not a regular file")?;
    refuse("/dev/null", &["--force"], "is not a regular file")?;
    refuse(&there, &["--force", "--firmware", &folder], "this board has neither")?;
    expect(&["image", "--board", "generic", "--out", &there, "--size", "63M"], 2, &["of 64M to 32G"])?;
    // A size that some contents do not fit in.
    let large = case.file("large.bin", vec![0x5a; 80 << 20])?;
    let text = format!("system large\nram 0x80000000,128M\ncpu\ndata load 0x80000000,{}\n", large.display());
    let configuration = case.file("large.qvmconf", text)?.display().to_string();
    refuse(&there, &["--force", "--size", "64M", &configuration], "MiB are needed")?;
    fs::remove_file(large)?;
    if fs::read(&once)? != fs::read(&again)? {
        bail!("an image was changed by a command that was refused");
    }
    Ok(())
}

/// The vendor's files are taken from a folder, all of them; without one the user is told.
fn firmware(case: &Case) -> Result<()> {
    let (folder, card) = (case.path("firmware"), case.path("rpi4.img"));
    fs::create_dir_all(folder.join("overlays"))?;
    let names = ["start4.elf", "fixup4.dat", "bcm2711-rpi-4-b.dtb", "overlays/disable-bt.dtbo"];
    for name in names {
        fs::write(folder.join(name), format!("what stands for {name}"))?;
    }
    make("rpi4", &card, &["--firmware", &folder.display().to_string()])?;
    for name in names {
        if disk::read(&card, name)? != fs::read(folder.join(name))? {
            bail!("{name} is not on the card as it is in the folder");
        }
    }
    if disk::read(&card, "config.txt")? != fs::read(root().join("boards/rpi4/config.txt"))? {
        bail!("config.txt is not the board's");
    }
    check_file_system(case, &card)?;
    let (card, folder) = (card.display().to_string(), case.path("").display().to_string());
    let arguments = ["image", "--board", "rpi4", "--force", "--out", &card, HELLO];
    expect(&arguments, 0, &["the vendor's start4.elf, fixup4.dat, bcm2711-rpi-4-b.dtb are not part of Bulkhead"])?;
    expect(&[&arguments[..], &["--firmware", &folder]].concat(), 64, &["there is no start4.elf"])
}

/// Has the file system looked at by the tool that others look at theirs with, where there is one.
fn check_file_system(case: &Case, card: &Path) -> Result<()> {
    // Users that are not root do not have it in their PATH.
    let aside = Some(PathBuf::from("/sbin/fsck.fat")).filter(|path| path.is_file());
    let Some(checker) = find_program("fsck.fat").or(aside) else { return Ok(()) };
    let start = usize::try_from(disk::START)?;
    let card = fs::read(card)?;
    let partition = case.file("partition.img", card.get(start..).unwrap_or_default())?;
    output(Command::new(checker).args(["-n", "-v"]).arg(&partition))?;
    Ok(fs::remove_file(partition)?)
}

fn install(case: &Case) -> Result<()> {
    let boot = case.path("boot");
    let _ = fs::remove_dir_all(&boot);
    fs::create_dir_all(&boot)?;
    let to = boot.display().to_string();
    let arguments = ["install", "--board", "generic", "--to", &to];
    let with = |more: &[&'static str]| [&arguments[..], more].concat();
    expect(&with(&[HELLO]), 64, &["is it a boot partition?"])?;
    expect(&with(&["--undo"]), 64, &["nothing is installed"])?;
    expect(&["install", "--board", "generic", "--to", "/nowhere/at/all", HELLO], 64, &["there is no folder"])?;
    // What somebody boots from it already.
    fs::create_dir(boot.join("extlinux"))?;
    fs::write(boot.join("extlinux/extlinux.conf"), "default linux\n")?;
    fs::write(boot.join("vmlinuz"), "a kernel")?;
    expect(&with(&[HELLO]), 0, &["kept the extlinux/extlinux.conf", "bulkhead.img", "Unmount"])?;
    for name in ["bulkhead.img", "boot.tar"] {
        if !boot.join(name).is_file() {
            bail!("{name} is not there");
        }
    }
    let installed = fs::read_to_string(boot.join("extlinux/extlinux.conf"))?;
    if !installed.contains("boot.tar") {
        bail!("the loader's configuration is not ours");
    }
    expect(&with(&["--undo"]), 0, &["put the old extlinux/extlinux.conf back", "took 3 files off"])?;
    let mut left: Vec<String> = fs::read_dir(&boot)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    left.sort();
    if left != ["extlinux", "vmlinuz"] || fs::read_to_string(boot.join("extlinux/extlinux.conf"))? != "default linux\n"
    {
        bail!("the partition is not as it was: {left:?}");
    }
    Ok(())
}
