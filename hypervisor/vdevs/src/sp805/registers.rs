//! The SP805's registers by name and bit (DDI 0270, chapter 3 "Programmers Model").

use bitflags::bitflags;

/// Offsets of the registers.
pub(super) mod offset {
    /// WdogLoad: what the counter begins with.
    pub(crate) const LOAD: u64 = 0x000;
    /// WdogValue: the counter.
    pub(crate) const VALUE: u64 = 0x004;
    /// WdogControl.
    pub(crate) const CONTROL: u64 = 0x008;
    /// WdogIntClr: a store of anything clears the interrupt and loads the counter.
    pub(crate) const CLEAR: u64 = 0x00c;
    /// WdogRIS, raw interrupt status.
    pub(crate) const RAW_INTERRUPT: u64 = 0x010;
    /// WdogMIS, masked interrupt status.
    pub(crate) const MASKED_INTERRUPT: u64 = 0x014;
    /// WdogLock.
    pub(crate) const LOCK: u64 = 0xc00;
    /// WdogITCR, integration test control.
    pub(crate) const TEST_CONTROL: u64 = 0xf00;
    /// WdogITOP, integration test output set.
    pub(crate) const TEST_OUTPUT: u64 = 0xf04;
}

/// What opens WdogLock.
pub(super) const UNLOCK: u32 = 0x1acc_e551;

/// WdogPeriphID0-3 (part 0x805, designer 0x41, revision 1) and WdogPCellID0-3.
pub(super) const IDENTIFICATION: [u8; 8] = [0x05, 0x18, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

bitflags! {
    /// WdogControl (3.3.3).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Control: u32 {
        /// INTEN: the counter counts, and its interrupt shows.
        const INTERRUPT = 1 << 0;
        /// RESEN: the reset shows.
        const RESET = 1 << 1;
    }

    /// WdogITOP (3.4.2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Outputs: u32 {
        /// WDOGRES.
        const RESET = 1 << 0;
        /// WDOGINT.
        const INTERRUPT = 1 << 1;
    }
}
