//! Who has sent the SGIs of a vCPU: a GICv2 keeps an SGI pending for each sender, and shows the guest whose it takes.
//!
//! Answers for: senders of pending SGIs, and the sender of the one that is in a list register or active. Does not answer for:
//! the state of the interrupts (`bank`), which is that of all senders together.
//!
//! Follows IHI 0048, "Software-generated interrupts", `GICD_SPENDSGIR<n>`, and `GICH_LR<n>.CPUID`. A list register has one sender.
//! While there is another one, its end is reported, and the next is delivered then.

use crate::bank::{Bank, Change};
use crate::registers::lr;
use crate::word::{bit, low};

/// Where the sender is in a list register that is not hardware-linked, as IHI 0048 has it: GICH_LR<n>.CPUID.
const SENDER_SHIFT: u32 = lr::PHYSICAL_SHIFT;

/// The senders of each SGI.
#[derive(Debug, Default)]
pub(crate) struct Senders {
    /// Whose are pending in memory, one bit for each vCPU. The bank has a latch while there is one.
    pending: [u8; 16],
    /// Whose is in the list register, or active.
    current: [u8; 16],
}

impl Senders {
    fn pending_of(&self, sgi: u32) -> u8 {
        self.pending.get(sgi as usize).copied().unwrap_or(0)
    }

    fn current_of(&self, sgi: u32) -> u8 {
        self.current.get(sgi as usize).copied().unwrap_or(0)
    }

    /// Whether anybody's `sgi` is pending in memory.
    pub(crate) fn has(&self, sgi: u32) -> bool {
        self.pending_of(sgi) != 0
    }

    /// Whose `sgi` is pending, one bit for each vCPU: a byte of `GICD_SPENDSGIR<n>`.
    pub(crate) fn read(&self, sgi: u32, bank: &Bank) -> u8 {
        let in_list = if bank.carried & bit(sgi) != 0 { 1_u8.wrapping_shl(self.current_of(sgi).into()) } else { 0 };
        self.pending_of(sgi) | in_list
    }

    /// `sgi` becomes pending for these senders. The one in the list register may have been acknowledged meanwhile: if it has not,
    /// it becomes one again with what comes now, when the list registers are written anew.
    #[inline]
    pub(crate) fn add(&mut self, sgi: u32, senders: u8, bank: &mut Bank) -> Change {
        let new = senders & !self.pending_of(sgi);
        if let Some(pending) = self.pending.get_mut(sgi as usize)
            && new != 0
        {
            *pending |= new;
            bank.latch |= bit(sgi);
            return Change { pending: bit(sgi), ..Change::default() };
        }
        Change::default()
    }

    /// `sgi` is not pending any more for these senders.
    pub(crate) fn remove(&mut self, sgi: u32, senders: u8, bank: &mut Bank) -> Change {
        let (in_list, index) = (self.read(sgi, bank) & !self.pending_of(sgi) & senders, bit(sgi));
        if let Some(pending) = self.pending.get_mut(sgi as usize) {
            *pending &= !senders;
            if *pending == 0 {
                bank.latch &= !index;
            }
        }
        if in_list == 0 {
            return Change::default();
        }
        bank.carried &= !index;
        Change { resync: index, ..Change::default() }
    }

    /// Pending interrupt `index` has been moved into a list register: what to write there besides.
    #[inline(never)]
    pub(crate) fn take(&mut self, index: u32, bank: &mut Bank) -> u64 {
        let (Some(pending), Some(current)) =
            (self.pending.get_mut(index as usize), self.current.get_mut(index as usize))
        else {
            return 0;
        };
        // The lowest of at most eight.
        *current = u8::try_from(pending.trailing_zeros()).unwrap_or(0) & 7;
        *pending &= pending.wrapping_sub(1);
        let sender = u64::from(*current).wrapping_shl(SENDER_SHIFT);
        if *pending == 0 {
            return sender;
        }
        bank.latch |= bit(index);
        sender | lr::EOI
    }

    /// Interrupt `index` is active: what of its sender is in its list register.
    pub(crate) fn shown(&self, index: u32) -> u64 {
        u64::from(self.current_of(index)).wrapping_shl(SENDER_SHIFT)
    }

    /// Interrupt `index` leaves its list register, which holds `value`, before the bank takes it.
    pub(crate) fn fold(&mut self, index: u32, value: u64, bank: &Bank) {
        if value & lr::PENDING != 0
            && bank.carried & bit(index) != 0
            && let Some(pending) = self.pending.get_mut(index as usize)
        {
            *pending |= bit(low(value.wrapping_shr(SENDER_SHIFT)) & 7).to_le_bytes().first().copied().unwrap_or(0);
        }
    }
}
