//! What a board says about itself.
//!
//! Answers for: the few things a device tree does not tell, the vdevs an image contains, and how the machine is reset or
//! switched off. A board is a small binary that fills in a [`Board`] and names it in [`crate::entry!`].

use crate::start;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use drivers::{BeginDisk, Device, Mmio};
use machine::{ConsoleKind, DeviceWindow, Tree};
use spin::Once;
use types::Pa;
use vdev::Factory;

/// A board. One per image, static.
#[derive(Debug)]
pub struct Board {
    /// Its name, as users know it.
    pub name: &'static str,
    /// The vdevs that configurations can name: usually `vdevs::CATALOGUE`, or that with the board's own behind it
    /// ([`crate::factories!`]). A table that makes no sense does not compile ([`vdev::check_factories`]).
    pub factories: &'static [&'static Factory],
    /// The serial port that firmware has set up, for the one message that there is no device tree to say so.
    pub console: Option<FirstConsole>,
    /// The drivers of its own: of those that the machine has the device for, the first that can is asked for random numbers,
    /// and each for a reset and to switch off, where firmware cannot (PSCI SYSTEM_RESET, SYSTEM_OFF), and for its disk.
    pub devices: &'static [&'static Device],
}

/// A serial port that nobody needs to look for.
#[derive(Clone, Copy, Debug)]
pub struct FirstConsole {
    /// Which driver.
    pub kind: ConsoleKind,
    /// Where its registers begin.
    pub registers: Pa,
}

impl Board {
    /// Makes sure that what it says makes sense, when it is compiled.
    ///
    /// # Panics
    /// If it does not.
    pub const fn check(&self) {
        vdev::check_factories(self.factories);
    }
}

static BOARD: AtomicPtr<Board> = AtomicPtr::new(core::ptr::null_mut());

pub(crate) fn install(board: &'static Board) {
    BOARD.store(core::ptr::from_ref(board).cast_mut(), Ordering::Release);
}

fn installed() -> Option<&'static Board> {
    // SAFETY: null, or the static that `install` was given.
    unsafe { BOARD.load(Ordering::Acquire).as_ref() }
}

/// Whether there is firmware to call. Where there is none, the call itself may be undefined.
static HAS_PSCI: AtomicBool = AtomicBool::new(false);

/// Says what the device tree says about firmware.
pub(crate) fn set_psci(has: bool) {
    HAS_PSCI.store(has, Ordering::Relaxed);
}

/// A device that is there.
struct Attached {
    device: &'static Device,
    registers: Mmio,
    window: DeviceWindow,
}

/// The devices that are there.
static ATTACHED: Once<Vec<Attached>> = Once::new();

/// Looks for the devices that the board has drivers for.
pub(crate) fn attach(tree: &Tree<'_>) {
    let devices = installed().map_or(&[][..], |board| board.devices);
    if devices.is_empty() {
        return;
    }
    let mut attached = Vec::new();
    for (device, window) in devices.iter().zip(tree.find_devices(&wanted())) {
        if let Some(window) = window.filter(|window| start::try_map_device(window.registers)) {
            // SAFETY: a device by the device tree, mapped just now; this is its only driver.
            let registers = unsafe { Mmio::of(&window.registers) };
            if let Some(start) = device.start {
                start(&registers);
            }
            attached.push(Attached { device, registers, window });
        }
    }
    ATTACHED.call_once(|| attached);
}

/// What its devices are compatible with.
pub(crate) fn wanted() -> Vec<&'static [&'static str]> {
    installed().map_or(&[][..], |board| board.devices).iter().map(|device| device.compatible).collect()
}

/// What the devices that are there can do of one thing, in the order of the board.
fn able<F: Copy>(what: impl Fn(&Device) -> Option<F>) -> impl Iterator<Item = (F, &'static Mmio)> {
    ATTACHED.get().into_iter().flatten().filter_map(move |found| Some((what(found.device)?, &found.registers)))
}

/// The devices that are disks, and where they are.
pub(crate) fn disks() -> impl Iterator<Item = (BeginDisk, &'static Mmio, DeviceWindow)> {
    let attached = ATTACHED.get().into_iter().flatten();
    attached.filter_map(|found| Some((found.device.disk?, &found.registers, found.window)))
}

/// The vdevs of this image.
pub(crate) fn factories() -> &'static [&'static Factory] {
    installed().map_or(&[], |board| board.factories)
}

/// The board's name.
pub(crate) fn name() -> &'static str {
    installed().map_or("?", |board| board.name)
}

/// Where random numbers come from: the CPU, or a device of the board.
pub(crate) fn entropy() -> Option<fn() -> Option<u64>> {
    if el2::cpu::has_random_numbers() {
        return Some(el2::cpu::random);
    }
    able(|device| device.entropy).next().map(|_| entropy_of_device as _)
}

/// Random numbers of a device that has some. It may be in use, by this CPU itself if that has been interrupted: then there are
/// none now.
fn entropy_of_device() -> Option<u64> {
    static USED: AtomicBool = AtomicBool::new(false);
    if USED.swap(true, Ordering::Acquire) {
        return None;
    }
    let random = able(|device| device.entropy).next().and_then(|(entropy, registers)| entropy(registers));
    USED.store(false, Ordering::Release);
    random
}

/// Resets the machine: the last step of the global safe state. Does not return.
pub(crate) fn reset() -> ! {
    if HAS_PSCI.load(Ordering::Relaxed) {
        el2::firmware::system_reset();
    }
    able(|device| device.reset).for_each(|(reset, registers)| reset(registers));
    el2::cpu::park()
}

/// Switches the machine off. Does not return.
pub(crate) fn power_off() -> ! {
    if HAS_PSCI.load(Ordering::Relaxed) {
        el2::firmware::system_off();
    }
    able(|device| device.power_off).for_each(|(power_off, registers)| power_off(registers));
    el2::cpu::park()
}

/// Makes a [`Board`] the one that this image starts.
#[macro_export]
macro_rules! entry {
    ($board:expr) => {
        const _: () = $board.check();

        /// Called by the boot code, on the boot CPU, MMU off.
        #[unsafe(no_mangle)]
        extern "C" fn kernel_boot(tree: u64, slide: u64) -> ! {
            $crate::start(&$board, tree, slide)
        }
    };
}
