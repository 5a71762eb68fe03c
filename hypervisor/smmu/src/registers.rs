//! The registers of the Non-secure programming interface, by name, offset and bit (IHI 0070, chapter 6).
//!
//! Answers for: where they are and what their bits are called, for who programs an SMMU and for who plays one. Does not answer for:
//! reaching them ([`crate::Registers`]). 64-bit registers are written as two halves, the low one at the offset (6.2).

#![expect(missing_docs, reason = "what the macro makes of its descriptions are no documentation comments")]

use tock_registers::register_bitfields;

/// `SMMU_IDR0`.
pub const IDR0_OFFSET: usize = 0x0000;
/// `SMMU_IDR1`.
pub const IDR1_OFFSET: usize = 0x0004;
/// `SMMU_IDR3`.
pub const IDR3_OFFSET: usize = 0x000c;
/// `SMMU_IDR5`.
pub const IDR5_OFFSET: usize = 0x0014;
/// `SMMU_IIDR`.
pub const IIDR_OFFSET: usize = 0x0018;
/// `SMMU_CR0`.
pub const CR0_OFFSET: usize = 0x0020;
/// `SMMU_CR0ACK`.
pub const CR0ACK_OFFSET: usize = 0x0024;
/// `SMMU_CR1`.
pub const CR1_OFFSET: usize = 0x0028;
/// `SMMU_CR2`.
pub const CR2_OFFSET: usize = 0x002c;
/// `SMMU_GBPA`.
pub const GBPA_OFFSET: usize = 0x0044;
/// `SMMU_IRQ_CTRL`.
pub const IRQ_CTRL_OFFSET: usize = 0x0050;
/// `SMMU_IRQ_CTRLACK`.
pub const IRQ_CTRLACK_OFFSET: usize = 0x0054;
/// `SMMU_GERROR`.
pub const GERROR_OFFSET: usize = 0x0060;
/// `SMMU_GERRORN`.
pub const GERRORN_OFFSET: usize = 0x0064;
/// `SMMU_GERROR_IRQ_CFG0`, 64 bits: where the message of an error interrupt goes; 0 is the wire.
pub const GERROR_IRQ_CFG0_OFFSET: usize = 0x0068;
/// `SMMU_STRTAB_BASE`, 64 bits.
pub const STRTAB_BASE_OFFSET: usize = 0x0080;
/// `SMMU_STRTAB_BASE_CFG`.
pub const STRTAB_BASE_CFG_OFFSET: usize = 0x0088;
/// `SMMU_CMDQ_BASE`, 64 bits.
pub const CMDQ_BASE_OFFSET: usize = 0x0090;
/// `SMMU_CMDQ_PROD`.
pub const CMDQ_PROD_OFFSET: usize = 0x0098;
/// `SMMU_CMDQ_CONS`.
pub const CMDQ_CONS_OFFSET: usize = 0x009c;
/// `SMMU_EVENTQ_BASE`, 64 bits.
pub const EVENTQ_BASE_OFFSET: usize = 0x00a0;
/// `SMMU_EVENTQ_IRQ_CFG0`, 64 bits: where the message of the event queue's interrupt goes; 0 is the wire.
pub const EVENTQ_IRQ_CFG0_OFFSET: usize = 0x00b0;
/// `SMMU_EVENTQ_PROD`, in page 1.
pub const EVENTQ_PROD_OFFSET: usize = 0x1_00a8;
/// `SMMU_EVENTQ_CONS`, in page 1.
pub const EVENTQ_CONS_OFFSET: usize = 0x1_00ac;
/// Bytes of pages 0 and 1 of the registers, which every SMMU has.
pub const REGISTERS_LENGTH: u64 = 0x2_0000;

register_bitfields! [u32,
    /// `SMMU_IDR0` (6.3.1): what is implemented.
    pub IDR0 [
        /// Two-level stream tables: 1.
        ST_LEVEL OFFSET(27) NUMBITS(2) [],
        /// Terminated transactions are aborted, always; otherwise a context descriptor may have them read zero.
        TERM_MODEL OFFSET(26) NUMBITS(1) [],
        /// How faulting transactions may be treated.
        STALL_MODEL OFFSET(24) NUMBITS(2) [StallAndTerminate = 0, Terminate = 1, Stall = 2],
        /// Byte order of translation tables.
        TTENDIAN OFFSET(21) NUMBITS(2) [Mixed = 0, Little = 2, Big = 3],
        /// Two-level tables of context descriptors.
        CD2L OFFSET(19) NUMBITS(1) [],
        /// VMIDs of 16 bits.
        VMID16 OFFSET(18) NUMBITS(1) [],
        /// Page request interface.
        PRI OFFSET(16) NUMBITS(1) [],
        /// WFE events for `CMD_SYNC`.
        SEV OFFSET(14) NUMBITS(1) [],
        /// Messages instead of wires.
        MSI OFFSET(13) NUMBITS(1) [],
        /// ASIDs of 16 bits.
        ASID16 OFFSET(12) NUMBITS(1) [],
        /// Address translation services of PCI Express.
        ATS OFFSET(10) NUMBITS(1) [],
        /// EL2's own stage 1.
        HYP OFFSET(9) NUMBITS(1) [],
        /// It takes part in the CPUs' broadcast invalidations.
        BTM OFFSET(5) NUMBITS(1) [],
        /// Its accesses to tables and queues are coherent with the CPUs' caches.
        COHACC OFFSET(4) NUMBITS(1) [],
        /// Formats of translation tables: bit 1 is VMSAv8-64.
        TTF OFFSET(2) NUMBITS(2) [],
        /// Stage 1.
        S1P OFFSET(1) NUMBITS(1) [],
        /// Stage 2.
        S2P OFFSET(0) NUMBITS(1) [],
    ],
    /// `SMMU_IDR1` (6.3.2): sizes.
    pub IDR1 [
        /// The stream table's place is fixed.
        TABLES_PRESET OFFSET(30) NUMBITS(1) [],
        /// The queues' places are fixed.
        QUEUES_PRESET OFFSET(29) NUMBITS(1) [],
        /// A stream table entry can override memory types; if not, the fields that would do it are RES0.
        ATTR_TYPES_OVR OFFSET(27) NUMBITS(1) [],
        /// Logarithm of the longest command queue.
        CMDQS OFFSET(21) NUMBITS(5) [],
        /// Logarithm of the longest event queue.
        EVENTQS OFFSET(16) NUMBITS(5) [],
        /// Bits of a SubstreamID.
        SSIDSIZE OFFSET(6) NUMBITS(5) [],
        /// Bits of a StreamID.
        SIDSIZE OFFSET(0) NUMBITS(6) [],
    ],
    /// `SMMU_IDR3` (6.3.4).
    pub IDR3 [
        /// Invalidation of ranges, and hints of the level.
        RIL OFFSET(10) NUMBITS(1) [],
    ],
    /// `SMMU_IDR5` (6.3.6).
    pub IDR5 [
        /// 4 KiB granule.
        GRAN4K OFFSET(4) NUMBITS(1) [],
        /// Output address size.
        OAS OFFSET(0) NUMBITS(3) [],
    ],
    /// `SMMU_IIDR` (6.3.7): whose it is, and which.
    pub IIDR [
        /// The product.
        ProductID OFFSET(20) NUMBITS(12) [],
        /// The x of rxpy.
        Variant OFFSET(16) NUMBITS(4) [],
        /// The y of rxpy.
        Revision OFFSET(12) NUMBITS(4) [],
        /// JEP106 code.
        Implementer OFFSET(0) NUMBITS(12) [
            Arm = 0x43b
        ],
    ],
    /// `SMMU_CR0` (6.3.9) and, once a change has taken effect, `SMMU_CR0ACK` (6.3.10).
    pub CR0 [
        /// Translated traffic is checked against the stream table.
        ATSCHK OFFSET(4) NUMBITS(1) [],
        /// Commands are consumed.
        CMDQEN OFFSET(3) NUMBITS(1) [],
        /// Events are recorded.
        EVENTQEN OFFSET(2) NUMBITS(1) [],
        /// Page requests are recorded.
        PRIQEN OFFSET(1) NUMBITS(1) [],
        /// Traffic is translated; if not, `SMMU_GBPA` says what becomes of it.
        SMMUEN OFFSET(0) NUMBITS(1) [],
    ],
    /// `SMMU_CR1` (6.3.11): how tables and queues are accessed.
    pub CR1 [
        /// Shareability of tables.
        TABLE_SH OFFSET(10) NUMBITS(2) [Inner = 3],
        /// Outer cacheability of tables.
        TABLE_OC OFFSET(8) NUMBITS(2) [WriteBack = 1],
        /// Inner cacheability of tables.
        TABLE_IC OFFSET(6) NUMBITS(2) [WriteBack = 1],
        /// Shareability of queues.
        QUEUE_SH OFFSET(4) NUMBITS(2) [Inner = 3],
        /// Outer cacheability of queues.
        QUEUE_OC OFFSET(2) NUMBITS(2) [WriteBack = 1],
        /// Inner cacheability of queues.
        QUEUE_IC OFFSET(0) NUMBITS(2) [WriteBack = 1],
    ],
    /// `SMMU_CR2` (6.3.12).
    pub CR2 [
        /// The CPUs' broadcast invalidations are not heeded.
        PTM OFFSET(2) NUMBITS(1) [],
        /// Traffic of streams beyond the table is recorded.
        RECINVSID OFFSET(1) NUMBITS(1) [],
        /// EL2 has ASIDs.
        E2H OFFSET(0) NUMBITS(1) [],
    ],
    /// `SMMU_GBPA` (6.3.14): traffic while `SMMUEN` is 0.
    pub GBPA [
        /// Written as 1 with a new value; reads as 1 until that has taken effect.
        UPDATE OFFSET(31) NUMBITS(1) [],
        /// It is aborted.
        ABORT OFFSET(20) NUMBITS(1) [],
    ],
    /// `SMMU_IRQ_CTRL` (6.3.16) and `SMMU_IRQ_CTRLACK` (6.3.18).
    pub IRQ_CTRL [
        /// The event queue's interrupt.
        EVENTQ_IRQEN OFFSET(2) NUMBITS(1) [],
        /// The interrupt for global errors.
        GERROR_IRQEN OFFSET(0) NUMBITS(1) [],
    ],
    /// `SMMU_GERROR` (6.3.19) and `SMMU_GERRORN` (6.3.20): an error is active where the two differ (7.5).
    pub GERROR [
        /// The SMMU has failed as a whole: service failure mode.
        SFM_ERR OFFSET(8) NUMBITS(1) [],
        /// The message of an error interrupt was aborted.
        MSI_GERROR_ABT_ERR OFFSET(7) NUMBITS(1) [],
        /// The message of the PRI queue was aborted.
        MSI_PRIQ_ABT_ERR OFFSET(6) NUMBITS(1) [],
        /// The message of the event queue was aborted.
        MSI_EVENTQ_ABT_ERR OFFSET(5) NUMBITS(1) [],
        /// The message of a `CMD_SYNC` was aborted.
        MSI_CMDQ_ABT_ERR OFFSET(4) NUMBITS(1) [],
        /// Access to the PRI queue was aborted.
        PRIQ_ABT_ERR OFFSET(3) NUMBITS(1) [],
        /// Access to the event queue was aborted: events may be lost.
        EVENTQ_ABT_ERR OFFSET(2) NUMBITS(1) [],
        /// The command queue stands still; `SMMU_CMDQ_CONS.ERR` says why.
        CMDQ_ERR OFFSET(0) NUMBITS(1) [],
    ],
    /// `SMMU_STRTAB_BASE_CFG` (6.3.25).
    pub STRTAB_BASE_CFG [
        /// Format of the stream table.
        FMT OFFSET(16) NUMBITS(2) [Linear = 0, TwoLevel = 1],
        /// Where the StreamID is split between the levels.
        SPLIT OFFSET(6) NUMBITS(5) [],
        /// Bits of StreamID that the table has room for.
        LOG2SIZE OFFSET(0) NUMBITS(6) [],
    ],
    /// `SMMU_CMDQ_CONS` (6.3.28).
    pub CMDQ_CONS [
        /// Why consumption has stopped.
        ERR OFFSET(24) NUMBITS(7) [],
        /// The next command to be consumed, with its wrap bit.
        RD OFFSET(0) NUMBITS(20) [],
    ],
    /// `SMMU_EVENTQ_PROD` (6.3.95) and, with `OVACKFLG` and `RD`, `SMMU_EVENTQ_CONS` (6.3.96).
    pub EVENTQ_PROD [
        /// Toggled when events are lost because the queue is full; acknowledged by the same value in the other register (7.4).
        OVFLG OFFSET(31) NUMBITS(1) [],
        /// Where the next event goes, with its wrap bit.
        WR OFFSET(0) NUMBITS(20) [],
    ],
];

/// `SMMU_STRTAB_BASE.RA`, `SMMU_CMDQ_BASE.RA`, `SMMU_EVENTQ_BASE.WA`: a hint to allocate in caches.
pub const BASE_ALLOCATE: u64 = 1 << 62;
