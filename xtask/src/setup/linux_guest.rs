//! The Linux guest: Debian's arm64 kernel, and an initial file system around its busybox.
//!
//! Answers for: `target/guests/linux/Image` and `target/guests/linux/initramfs.cpio.gz`, out of packages in
//! `target/linux-guest`, and the device tree of the Raspberry Pi 4 that comes with that kernel. Does not answer for: what the guest does once it runs (`guests/linux/init`).

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::libraries::{self, Content, Contents};
use super::packages::{PrivateClient, newest, read_package, unpack, write_whole};
use crate::cpio::{self, Entry};
use crate::workspace::{output, root, run, target};

/// The kernel, as configurations name it from the top of the checkout.
pub(crate) const IMAGE: &str = "target/guests/linux/Image";
/// The initial file system, likewise.
pub(crate) const INITRAMFS: &str = "target/guests/linux/initramfs.cpio.gz";

/// The Raspberry Pi 4's device tree, likewise.
pub(crate) const RPI4_TREE: &str = "target/guests/linux/bcm2711-rpi-4-b.dtb";

/// The same with a debugger and a profiler, and the libraries that they need: for the tests of what they use.
pub(crate) const INITRAMFS_WITH_TOOLS: &str = "target/guests/linux/tools.cpio";

/// The same with the kernel's drivers for virtio devices and what is used by means of them.
pub(crate) const INITRAMFS_WITH_DRIVERS: &str = "target/guests/linux/drivers.cpio";

/// The same with fio.
pub(crate) const INITRAMFS_WITH_FIO: &str = "target/guests/linux/fio.cpio";

/// The same with socat.
pub(crate) const INITRAMFS_WITH_SOCKETS: &str = "target/guests/linux/sockets.cpio";

/// That with fio, and with drivers for PCI and what has their devices work.
pub(crate) const INITRAMFS_WITH_PCI: &str = "target/guests/linux/pci.cpio";

/// The same without fio, which takes long to load.
pub(crate) const INITRAMFS_WITH_PCI_ALONE: &str = "target/guests/linux/pci-alone.cpio";

/// The package that always depends on the newest kernel.
const KERNEL_META_PACKAGE: &str = "linux-image-arm64";
/// What the names of its packages begin with.
const KERNEL_PACKAGE: &str = "linux-image-";
const BUSYBOX_PACKAGE: &str = "busybox-static";
/// Packages of the second initial file system, and their programs.
const GUEST_TOOLS: [&str; 2] = ["gdb-minimal", "linux-perf"];
const GUEST_PROGRAMS: [&str; 2] = ["usr/bin/gdb", "usr/bin/perf"];
/// The same for what is used by means of drivers.
const DRIVER_TOOLS: [&str; 2] = ["e2fsprogs", "iperf3"];
const DRIVER_PROGRAMS: [&str; 2] = ["sbin/mke2fs", "usr/bin/iperf3"];
/// The same for what exercises disks, which needs far more libraries.
const DISK_TOOLS: [&str; 1] = ["fio"];
const DISK_PROGRAMS: [&str; 1] = ["usr/bin/fio"];
/// The same for what speaks by sockets of all kinds.
const SOCKET_TOOLS: [&str; 1] = ["socat"];
const SOCKET_PROGRAMS: [&str; 1] = ["usr/bin/socat"];
/// Where the libraries of packages are, and where they go.
const LIBRARIES: [&str; 2] = ["lib/aarch64-linux-gnu/", "usr/lib/aarch64-linux-gnu/"];
/// What loads them, as every program names it.
const LOADER: &str = "lib/ld-linux-aarch64.so.1";
/// Modules of the kernel's, which the initial file system has beside it: drivers of vdevs that are not built in.
const MODULES: [&str; 3] = ["sp805_wdt.ko", "gpio_keys.ko", "evdev.ko"];

/// Those of the initial file system with drivers, each after those that it needs.
const DRIVERS: [&str; 25] = [
    "virtio_mmio.ko",
    "virtio_pci_modern_dev.ko",
    "virtio_pci_legacy_dev.ko",
    "virtio_pci.ko",
    "virtio_blk.ko",
    "virtio_console.ko",
    "virtio-rng.ko",
    "failover.ko",
    "net_failover.ko",
    "virtio_net.ko",
    "virtio_balloon.ko",
    "virtio_input.ko",
    "vsock.ko",
    "vmw_vsock_virtio_transport_common.ko",
    "vmw_vsock_virtio_transport.ko",
    "netfs.ko",
    "fscache.ko",
    "9pnet.ko",
    "9pnet_virtio.ko",
    "9p.ko",
    "crc32c_generic.ko",
    "crc16.ko",
    "mbcache.ko",
    "jbd2.ko",
    "ext4.ko",
];

/// Those for devices by PCI, likewise.
const PCI_DRIVERS: [&str; 20] = [
    "crct10dif_common.ko",
    "crct10dif_generic.ko",
    "crc-t10dif.ko",
    "crc64.ko",
    "crc64_rocksoft_generic.ko",
    "crc64-rocksoft.ko",
    "t10-pi.ko",
    "nvme-core.ko",
    "nvme.ko",
    "scsi_common.ko",
    "scsi_mod.ko",
    "libata.ko",
    "libahci.ko",
    "ahci.ko",
    "sd_mod.ko",
    "e1000e.ko",
    "i2c-algo-bit.ko",
    "igb.ko",
    "igbvf.ko",
    "crc32c_generic.ko",
];

/// Where the guest's files end up.
pub(crate) fn folder() -> PathBuf {
    target().join("guests/linux")
}

/// The guest's shell, which is all of its other programs too.
pub(crate) fn shell() -> PathBuf {
    state().join("busybox")
}

fn state() -> PathBuf {
    target().join("linux-guest")
}

/// Where packages are that were downloaded.
fn packages() -> PathBuf {
    state().join("packages")
}

/// Makes sure that kernel and initial file system are there; quick when they are.
pub(crate) fn ensure() -> Result<()> {
    let image = root().join(IMAGE);
    let busybox = shell();
    // Tests run side by side, and so may this tool: one of them downloads, the others wait for it.
    fs::create_dir_all(state())?;
    let lock = fs::File::create(state().join("lock"))?;
    lock.lock().context("cannot lock the folder of the Linux guest")?;
    if !image.is_file() || !busybox.is_file() {
        download(&image, &busybox)?;
    }
    let modules = MODULES.map(|module| state().join(module));
    let tree = root().join(RPI4_TREE);
    unpack_kernel(&modules.iter().chain([&tree]).map(PathBuf::as_path).collect::<Vec<_>>())?;
    let init = root().join("guests/linux/init");
    let initramfs = root().join(INITRAMFS);
    let parts: Vec<&Path> = [&init, &busybox].into_iter().chain(&modules).map(PathBuf::as_path).collect();
    if is_older(&initramfs, &parts) {
        let modules = modules.iter().map(fs::read).collect::<Result<Vec<_>, _>>()?;
        let content = build_initramfs(&fs::read(&init)?, &fs::read(&busybox)?, &modules)?;
        write_whole(&initramfs, &content)?;
    }
    Ok(())
}

/// Makes sure that these files, of the kernel's package by their names, are there.
fn unpack_kernel(files: &[&Path]) -> Result<()> {
    let (image, busybox) = (root().join(IMAGE), shell());
    if !files.iter().any(|file| is_older(file, &[&image])) {
        return Ok(());
    }
    // Of the package that is there, or of one that is.
    if newest(&packages(), KERNEL_PACKAGE).is_err() {
        download(&image, &busybox)?;
    }
    let mut missing: Vec<&Path> = files.to_vec();
    let mut written = Ok(());
    read_package(&newest(&packages(), KERNEL_PACKAGE)?, &mut |path, content| {
        let wanted = |file: &&Path| file.file_name() == Path::new(path).file_name();
        if let (Some(place), Content::File(bytes), true) = (missing.iter().position(wanted), content, written.is_ok()) {
            written = write_whole(missing.swap_remove(place), &bytes);
        }
    })?;
    written?;
    ensure!(missing.is_empty(), "the kernel's package has no {}", missing[0].display());
    Ok(())
}

/// Makes sure that the initial file system with drivers is there.
pub(crate) fn ensure_drivers() -> Result<()> {
    ensure()?;
    let lock = fs::File::create(state().join("lock"))?;
    lock.lock().context("cannot lock the folder of the Linux guest")?;
    let drivers = DRIVERS.map(|driver| state().join(driver));
    unpack_kernel(&drivers.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;
    let (made, plain) = (root().join(INITRAMFS_WITH_DRIVERS), root().join(INITRAMFS));
    let sources: Vec<&Path> = [&plain].into_iter().chain(&drivers).map(PathBuf::as_path).collect();
    if !is_older(&made, &sources) {
        return Ok(());
    }
    let mut archive = programs("apt-drivers", &DRIVER_TOOLS, &DRIVER_PROGRAMS)?;
    archive.extend(modules("virtio", &drivers)?);
    // The kernel unpacks one archive after the other; a packed one may follow at any place.
    archive.extend(fs::read(&plain)?);
    write_whole(&made, &archive)
}

/// An archive of modules in the folder `lib/modules/NAME`, with the list of them in their order.
fn modules(name: &str, files: &[PathBuf]) -> Result<Vec<u8>> {
    let contents = files.iter().map(fs::read).collect::<Result<Vec<_>, _>>()?;
    let names: Vec<_> = files.iter().filter_map(|file| file.file_name()?.to_str()).collect();
    let folder = format!("lib/modules/{name}");
    let (order_at, order) = (format!("{folder}/order"), names.join("\n") + "\n");
    let places: Vec<String> = names.iter().map(|name| format!("{folder}/{name}")).collect();
    let folders = ["lib", "lib/modules", &folder].map(|folder| (folder, Entry::Folder));
    let files = places.iter().zip(&contents).map(|(place, content)| (place.as_str(), Entry::Executable(content)));
    let order = [(order_at.as_str(), Entry::Executable(order.as_bytes()))];
    Ok(cpio::archive(&folders.into_iter().chain(files).chain(order).collect::<Vec<_>>()))
}

/// Makes sure that the initial file system with drivers for PCI is there.
pub(crate) fn ensure_pci() -> Result<()> {
    ensure_fio()?;
    let lock = fs::File::create(state().join("lock"))?;
    lock.lock().context("cannot lock the folder of the Linux guest")?;
    let drivers = PCI_DRIVERS.map(|driver| state().join(driver));
    unpack_kernel(&drivers.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;
    let script = root().join("guests/linux/passed");
    for (made, beside) in [(INITRAMFS_WITH_PCI, INITRAMFS_WITH_FIO), (INITRAMFS_WITH_PCI_ALONE, INITRAMFS)] {
        let (made, beside) = (root().join(made), root().join(beside));
        let sources: Vec<&Path> = [&script, &beside].into_iter().chain(&drivers).map(PathBuf::as_path).collect();
        if !is_older(&made, &sources) {
            continue;
        }
        let mut archive = modules("pci", &drivers)?;
        archive
            .extend(cpio::archive(&[("bin", Entry::Folder), ("bin/passed", Entry::Executable(&fs::read(&script)?))]));
        archive.extend(fs::read(&beside)?);
        write_whole(&made, &archive)?;
    }
    Ok(())
}

/// Makes sure that the initial file system with tools is there.
pub(crate) fn ensure_tools() -> Result<()> {
    ensure()?;
    let lock = fs::File::create(state().join("lock"))?;
    lock.lock().context("cannot lock the folder of the Linux guest")?;
    let (made, plain) = (root().join(INITRAMFS_WITH_TOOLS), root().join(INITRAMFS));
    if !is_older(&made, &[&plain]) {
        return Ok(());
    }
    let mut archive = programs("apt", &GUEST_TOOLS, &GUEST_PROGRAMS)?;
    // The kernel unpacks one archive after the other; a packed one may follow at any place.
    archive.extend(fs::read(&plain)?);
    write_whole(&made, &archive)
}

/// Makes sure that the initial file system with fio is there.
pub(crate) fn ensure_fio() -> Result<()> {
    ensure_more(INITRAMFS_WITH_FIO, "apt-fio", &DISK_TOOLS, &DISK_PROGRAMS)
}

/// Makes sure that the initial file system with socat is there.
pub(crate) fn ensure_sockets() -> Result<()> {
    ensure_more(INITRAMFS_WITH_SOCKETS, "apt-sockets", &SOCKET_TOOLS, &SOCKET_PROGRAMS)
}

/// Makes sure that an initial file system with drivers and these programs is there.
fn ensure_more(made: &str, client: &str, packages: &[&str], names: &[&str]) -> Result<()> {
    ensure_drivers()?;
    let lock = fs::File::create(state().join("lock"))?;
    lock.lock().context("cannot lock the folder of the Linux guest")?;
    let (made, drivers) = (root().join(made), root().join(INITRAMFS_WITH_DRIVERS));
    if !is_older(&made, &[&drivers]) {
        return Ok(());
    }
    let mut archive = programs(client, packages, names)?;
    archive.extend(fs::read(&drivers)?);
    write_whole(&made, &archive)
}

/// An archive of programs out of these packages, and of the libraries that they need. What is downloaded is kept by `client`.
fn programs(client: &str, packages: &[&str], programs: &[&str]) -> Result<Vec<u8>> {
    let apt = PrivateClient::new(&state().join(client))?;
    eprintln!("setup: downloading {} and what they need ...", packages.join(", "));
    run(apt
        .command("apt-get")
        .args(["-q", "-y", "--no-install-recommends", "--download-only", "install"])
        .args(packages)
        .stdout(std::io::stderr()))?;
    let mut files = Contents::new();
    for entry in fs::read_dir(state().join(client).join("cache/archives"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            read_package(&path, &mut |name, content| {
                let library = LIBRARIES.into_iter().find_map(|folder| name.strip_prefix(folder));
                // Some have libraries of their own in a folder of theirs, which they find themselves; here all are in one.
                let library = library.map(|library| library.strip_prefix("ceph/").unwrap_or(library));
                if programs.contains(&name) {
                    files.insert(name.to_string(), content);
                } else if let Some(library) =
                    library.filter(|library| !library.contains('/') && library.contains(".so"))
                {
                    files.insert(format!("{}{library}", LIBRARIES[0]), content);
                }
            })?;
        }
    }
    libraries::archive(&files, programs, LIBRARIES[0], LOADER)
}

/// Whether `made` is missing or older than one of the files it is made of.
fn is_older(made: &Path, sources: &[&Path]) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    let Some(made) = time(made) else { return true };
    sources.iter().any(|source| time(source).is_none_or(|source| source > made))
}

fn download(image: &Path, busybox: &Path) -> Result<()> {
    let client = PrivateClient::new(&state().join("apt"))?;
    let depends = output(client.command("apt-cache").args(["--important", "depends", KERNEL_META_PACKAGE]))?;
    let kernel =
        kernel_package(&depends).with_context(|| format!("{KERNEL_META_PACKAGE} depends on no kernel: {depends:?}"))?;
    client.download(&[&kernel, BUSYBOX_PACKAGE], &packages())?;
    eprintln!("setup: unpacking ...");
    let unpack =
        |package: &str, path: &str| unpack(&packages(), &format!("{package}_"), |found| found.starts_with(path));
    write_whole(image, &unpack(&kernel, "boot/vmlinuz-")?)?;
    write_whole(busybox, &unpack(BUSYBOX_PACKAGE, "bin/busybox")?)
}

/// The kernel that `apt-cache depends` names for the meta package.
fn kernel_package(depends: &str) -> Option<String> {
    let mut names = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    names.find(|name| name.starts_with("linux-image-")).map(str::to_string)
}

/// The initial file system: busybox, `init`, the kernel's modules, and the folders that `init` fills.
fn build_initramfs(init: &[u8], busybox: &[u8], modules: &[Vec<u8>]) -> Result<Vec<u8>> {
    let names = MODULES.map(|module| format!("lib/modules/{module}"));
    let modules = names.iter().zip(modules).map(|(name, module)| (name.as_str(), Entry::Executable(module)));
    let entries = [
        ("bin", Entry::Folder),
        ("bin/busybox", Entry::Executable(busybox)),
        ("bin/sh", Entry::Link("busybox")),
        ("dev", Entry::Folder),
        // The kernel opens it for `init` before anything could be mounted.
        ("dev/console", Entry::Device(5, 1)),
        ("dev/null", Entry::Device(1, 3)),
        ("etc", Entry::Folder),
        ("init", Entry::Executable(init)),
        ("lib", Entry::Folder),
        ("lib/modules", Entry::Folder),
        ("proc", Entry::Folder),
        ("root", Entry::Folder),
        ("sbin", Entry::Folder),
        ("sys", Entry::Folder),
        ("tmp", Entry::Folder),
        ("usr", Entry::Folder),
        ("usr/bin", Entry::Folder),
        ("usr/sbin", Entry::Folder),
    ];
    // Folders come before what is in them.
    let archive = cpio::archive(&entries.into_iter().chain(modules).collect::<Vec<_>>());
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&archive)?;
    Ok(encoder.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_behind_the_meta_package_is_found() {
        let text = "linux-image-arm64\n  Depends: linux-image-6.1.0-41-arm64\n";
        assert_eq!(kernel_package(text).as_deref(), Some("linux-image-6.1.0-41-arm64"));
        assert_eq!(kernel_package("linux-image-arm64\n"), None);
    }

    #[test]
    fn the_initial_file_system_is_the_same_every_time() {
        let once = build_initramfs(b"#!/bin/sh\n", b"program", &[b"module".to_vec()]).unwrap();
        assert_eq!(once, build_initramfs(b"#!/bin/sh\n", b"program", &[b"module".to_vec()]).unwrap());
        assert_eq!(&once[..2], &[0x1f, 0x8b]);
    }

    #[test]
    fn what_is_made_is_made_again_when_a_source_is_newer() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        assert!(is_older(&old, &[]));
        fs::write(&old, "").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(&new, "").unwrap();
        assert!(is_older(&old, &[&new]));
        assert!(!is_older(&new, &[&old]));
    }
}
