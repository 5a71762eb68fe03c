//! A VM's RAM as something that its guest can give pages of back.

use types::{Ipa, Range};

/// Most pages of one [`Balloon::give_back`], which is done with interrupts masked.
pub const GIVE_BACK_PAGES: u64 = 16;

/// How much of its RAM a guest has, in pages of 4 KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// All of it.
    pub size: u64,
    /// What the host wants it to make do with.
    pub wanted: u64,
    /// What it has: all but what it has given back and not touched since.
    pub present: u64,
}

/// The host's end of a memory balloon. When the host wants another size the device is woken ([`crate::Wake::Backend`]). For devices
/// and their workers; neither call waits for anybody.
pub trait Balloon: Send + Sync {
    /// How things stand.
    fn holding(&self) -> Holding;

    /// Takes pages away from the guest, [`GIVE_BACK_PAGES`] at most; what is left of a longer range is the guest's. Says how many
    /// went: not those that are no RAM of the VM's, or have gone before. When the guest touches one again it has a page of zeroes, if
    /// the host has one; else the VM ends.
    fn give_back(&self, pages: Range<Ipa>) -> u64;
}
