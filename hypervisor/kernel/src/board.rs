//! What a board says about itself.
//!
//! Answers for: the few things a device tree does not tell, the vdevs an image contains, and how the machine is reset or
//! switched off. A board is a small binary that fills in a [`Board`] and names it in [`crate::entry!`].

use core::sync::atomic::{AtomicPtr, Ordering};
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
    /// Where a PL011 is that firmware has set up, for the one message that there is no device tree to say so.
    pub console: Option<Pa>,
    /// A generator of random numbers, if the board has one: 64 bits, or `None` while it has none to give.
    pub entropy: Option<fn() -> Option<u64>>,
    /// What to do for a reset beyond asking firmware (PSCI SYSTEM_RESET), if there is anything.
    pub reset: Option<fn()>,
    /// What to do to switch off beyond asking firmware (PSCI SYSTEM_OFF), if there is anything.
    pub power_off: Option<fn()>,
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

/// The vdevs of this image.
pub(crate) fn factories() -> &'static [&'static Factory] {
    installed().map_or(&[], |board| board.factories)
}

/// The board's name.
pub(crate) fn name() -> &'static str {
    installed().map_or("?", |board| board.name)
}

/// Where random numbers come from: the CPU, or the board's own generator.
pub(crate) fn entropy() -> Option<fn() -> Option<u64>> {
    let cpus: fn() -> Option<u64> = el2::cpu::random;
    if el2::cpu::has_random_numbers() { Some(cpus) } else { installed()?.entropy }
}

/// Resets the machine: the last step of the global safe state. Does not return.
pub(crate) fn reset() -> ! {
    el2::firmware::system_reset();
    if let Some(reset) = installed().and_then(|board| board.reset) {
        reset();
    }
    el2::cpu::park()
}

/// Switches the machine off. Does not return.
pub(crate) fn power_off() -> ! {
    el2::firmware::system_off();
    if let Some(power_off) = installed().and_then(|board| board.power_off) {
        power_off();
    }
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
