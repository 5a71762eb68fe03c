//! Debian's U-Boot, UEFI and GRUB images: what guests begin with, and what the tests load the hypervisor with.
//!
//! Answers for: the files in `target/guests/firmware` and `target/loaders`. Does not answer for: what a VM has to be for
//! the former (`hypervisor/docs/firmware.md`).

use std::fs;

use anyhow::{Context, Result};

use super::packages::{PrivateClient, unpack, write_whole};
use crate::workspace::{root, target};

/// U-Boot, as configurations name it from the top of the checkout.
pub(crate) const U_BOOT: &str = "target/guests/firmware/u-boot.bin";
/// UEFI, likewise.
pub(crate) const UEFI: &str = "target/guests/firmware/QEMU_EFI.fd";
/// GRUB, which UEFI starts, likewise.
pub(crate) const GRUB: &str = "target/guests/firmware/grubaa64.efi";
/// U-Boot for the Raspberry Pi 4, which loads the hypervisor.
pub(crate) const U_BOOT_RPI4: &str = "target/loaders/u-boot-rpi4.bin";

/// Each image, its package, and where it is in that.
const IMAGES: [(&str, &str, &str); 4] = [
    (U_BOOT, "u-boot-qemu", "usr/lib/u-boot/qemu_arm64/u-boot.bin"),
    (UEFI, "qemu-efi-aarch64", "usr/share/qemu-efi-aarch64/QEMU_EFI.fd"),
    (GRUB, "grub-efi-arm64-bin", "usr/lib/grub/arm64-efi/monolithic/grubaa64.efi"),
    (U_BOOT_RPI4, "u-boot-rpi", "usr/lib/u-boot/rpi_4/u-boot.bin"),
];

/// Makes sure that the images are there; quick when they are.
pub(crate) fn ensure() -> Result<()> {
    let state = target().join("firmware");
    fs::create_dir_all(&state)?;
    let lock = fs::File::create(state.join("lock"))?;
    lock.lock().context("cannot lock the folder of the firmware")?;
    if IMAGES.iter().all(|(image, ..)| root().join(image).is_file()) {
        return Ok(());
    }
    let packages = state.join("packages");
    PrivateClient::new(&state.join("apt"))?.download(&IMAGES.map(|(_, package, _)| package), &packages)?;
    for (image, package, path) in IMAGES {
        write_whole(&root().join(image), &unpack(&packages, &format!("{package}_"), |found| found == path)?)?;
    }
    Ok(())
}
