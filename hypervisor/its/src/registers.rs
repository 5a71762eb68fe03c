//! Registers by name and bit (IHI 0069, "The ITS register map", "The GIC Redistributor register map").

use tock_registers::register_bitfields;

/// How much of the address space its registers take: the control frame and that of `GITS_TRANSLATER`.
pub const REGISTERS_LENGTH: u64 = 0x2_0000;
/// Where devices store their EventIDs.
pub const TRANSLATER_OFFSET: u64 = 0x1_0040;

pub(crate) const CTLR_OFFSET: usize = 0x0000;
pub(crate) const TYPER_OFFSET: usize = 0x0008;
pub(crate) const CBASER_OFFSET: usize = 0x0080;
pub(crate) const CWRITER_OFFSET: usize = 0x0088;
pub(crate) const CREADR_OFFSET: usize = 0x0090;
pub(crate) const BASER_OFFSET: usize = 0x0100;
pub(crate) const PIDR2_OFFSET: usize = 0xffe8;
/// How many `GITS_BASER<n>` there are.
pub(crate) const BASERS: usize = 8;

pub(crate) const GICR_CTLR_OFFSET: usize = 0x0000;
pub(crate) const GICR_TYPER_OFFSET: usize = 0x0008;
pub(crate) const GICR_PROPBASER_OFFSET: usize = 0x0070;
pub(crate) const GICR_PENDBASER_OFFSET: usize = 0x0078;

/// `Shareability`: Inner Shareable; what is written there and not kept reads as 0, Non-shareable.
pub(crate) const INNER_SHAREABLE: u64 = 1;
/// `InnerCache`: Normal, read- and write-allocate, write-back; and Normal, Non-cacheable.
pub(crate) const WRITE_BACK: u64 = 7;
pub(crate) const NON_CACHEABLE: u64 = 1;

register_bitfields![u32,
    pub(crate) CTLR [
        Enabled OFFSET(0) NUMBITS(1) [],
        Quiescent OFFSET(31) NUMBITS(1) [],
    ],
    pub(crate) PIDR2 [
        ArchRev OFFSET(4) NUMBITS(4) [],
    ],
    pub(crate) GICR_CTLR [
        EnableLPIs OFFSET(0) NUMBITS(1) [],
        RWP OFFSET(3) NUMBITS(1) [],
    ],
];

register_bitfields![u64,
    pub(crate) TYPER [
        Physical OFFSET(0) NUMBITS(1) [],
        ITT_entry_size OFFSET(4) NUMBITS(4) [],
        ID_bits OFFSET(8) NUMBITS(5) [],
        Devbits OFFSET(13) NUMBITS(5) [],
        PTA OFFSET(19) NUMBITS(1) [],
        HCC OFFSET(24) NUMBITS(8) [],
        CIDbits OFFSET(32) NUMBITS(4) [],
        CIL OFFSET(36) NUMBITS(1) [],
    ],
    pub(crate) CBASER [
        Size OFFSET(0) NUMBITS(8) [],
        Shareability OFFSET(10) NUMBITS(2) [],
        InnerCache OFFSET(59) NUMBITS(3) [],
        Valid OFFSET(63) NUMBITS(1) [],
    ],
    pub(crate) CREADR [
        Stalled OFFSET(0) NUMBITS(1) [],
        Offset OFFSET(5) NUMBITS(15) [],
    ],
    pub(crate) BASER [
        Size OFFSET(0) NUMBITS(8) [],
        Page_Size OFFSET(8) NUMBITS(2) [],
        Shareability OFFSET(10) NUMBITS(2) [],
        Entry_Size OFFSET(48) NUMBITS(5) [],
        Type OFFSET(56) NUMBITS(3) [
            Devices = 1,
            Collections = 4,
        ],
        InnerCache OFFSET(59) NUMBITS(3) [],
        Indirect OFFSET(62) NUMBITS(1) [],
        Valid OFFSET(63) NUMBITS(1) [],
    ],
    pub(crate) GICR_TYPER [
        PLPIS OFFSET(0) NUMBITS(1) [],
        Processor_Number OFFSET(8) NUMBITS(16) [],
    ],
    pub(crate) GICR_PROPBASER [
        IDbits OFFSET(0) NUMBITS(5) [],
        InnerCache OFFSET(7) NUMBITS(3) [],
        Shareability OFFSET(10) NUMBITS(2) [],
    ],
    pub(crate) GICR_PENDBASER [
        InnerCache OFFSET(7) NUMBITS(3) [],
        Shareability OFFSET(10) NUMBITS(2) [],
        PTZ OFFSET(62) NUMBITS(1) [],
    ],
];
