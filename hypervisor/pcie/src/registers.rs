//! Offsets and bits of configuration space.
//!
//! Answers for: names. PCI Express Base Specification, 7.5.1 (headers), 7.5.3 (PCI Express), 7.7 (MSI, MSI-X), 7.5.2 (power
//! management), 7.7.7 (ACS), 7.8.6 (Resizable BAR), 7.8.7 (ARI), 9.3.3 (SR-IOV); Advanced Features as in the ECN for conventional PCI.

pub(crate) const VENDOR: u16 = 0x00;
pub(crate) const DEVICE: u16 = 0x02;
pub(crate) const COMMAND: u16 = 0x04;
pub(crate) const STATUS: u16 = 0x06;
pub(crate) const REVISION: u16 = 0x08;
pub(crate) const HEADER_TYPE: u16 = 0x0e;
pub(crate) const BAR0: u16 = 0x10;
pub(crate) const CAPABILITIES_POINTER: u16 = 0x34;
pub(crate) const INTERRUPT_PIN: u16 = 0x3d;
/// Type 0 only.
pub(crate) const SUBSYSTEM_VENDOR: u16 = 0x2c;
pub(crate) const SUBSYSTEM: u16 = 0x2e;
pub(crate) const EXPANSION_ROM: u16 = 0x30;
/// Type 1 only.
pub(crate) const PRIMARY_BUS: u16 = 0x18;
pub(crate) const SECONDARY_BUS: u16 = 0x19;
pub(crate) const SUBORDINATE_BUS: u16 = 0x1a;
pub(crate) const IO_BASE: u16 = 0x1c;
pub(crate) const IO_LIMIT: u16 = 0x1d;
pub(crate) const MEMORY_BASE: u16 = 0x20;
pub(crate) const MEMORY_LIMIT: u16 = 0x22;
pub(crate) const PREFETCHABLE_BASE: u16 = 0x24;
pub(crate) const PREFETCHABLE_LIMIT: u16 = 0x26;
pub(crate) const PREFETCHABLE_BASE_UPPER: u16 = 0x28;
pub(crate) const PREFETCHABLE_LIMIT_UPPER: u16 = 0x2c;
pub(crate) const IO_BASE_UPPER: u16 = 0x30;
pub(crate) const IO_LIMIT_UPPER: u16 = 0x32;
pub(crate) const BRIDGE_EXPANSION_ROM: u16 = 0x38;
pub(crate) const BRIDGE_CONTROL: u16 = 0x3e;

pub(crate) mod command {
    pub(crate) const MEMORY: u16 = 1 << 1;
    pub(crate) const BUS_MASTER: u16 = 1 << 2;
    pub(crate) const INTERRUPT_DISABLE: u16 = 1 << 10;
}

/// There is a list of capabilities (7.5.1.1.4).
pub(crate) const STATUS_CAPABILITIES: u16 = 1 << 4;
pub(crate) const MULTI_FUNCTION: u8 = 1 << 7;
pub(crate) const SECONDARY_BUS_RESET: u16 = 1 << 6;

/// Numbers of capabilities (PCI Code and ID Assignment Specification, 2 and 3).
pub(crate) mod id {
    pub(crate) const POWER_MANAGEMENT: u8 = 0x01;
    pub(crate) const MSI: u8 = 0x05;
    pub(crate) const EXPRESS: u8 = 0x10;
    pub(crate) const MSI_X: u8 = 0x11;
    pub(crate) const ADVANCED_FEATURES: u8 = 0x13;
    pub(crate) const ACCESS_CONTROL: u16 = 0x000d;
    pub(crate) const ARI: u16 = 0x000e;
    pub(crate) const ATS: u16 = 0x000f;
    pub(crate) const SRIOV: u16 = 0x0010;
    pub(crate) const RESIZABLE: u16 = 0x0015;
    pub(crate) const VIRTUAL_RESIZABLE: u16 = 0x0024;
}

/// Of the capability PCI Express.
pub(crate) mod express {
    pub(crate) const CAPABILITIES: u16 = 0x02;
    pub(crate) const DEVICE_CAPABILITIES: u16 = 0x04;
    pub(crate) const DEVICE_CONTROL: u16 = 0x08;
    pub(crate) const DEVICE_STATUS: u16 = 0x0a;
    pub(crate) const DEVICE_CAPABILITIES_2: u16 = 0x24;
    pub(crate) const DEVICE_CONTROL_2: u16 = 0x28;
    pub(crate) const FLR_CAPABLE: u32 = 1 << 28;
    pub(crate) const INITIATE_FLR: u16 = 1 << 15;
    pub(crate) const TRANSACTIONS_PENDING: u16 = 1 << 5;
    pub(crate) const ARI_FORWARDING: u16 = 1 << 5;
}

/// Of Advanced Features.
pub(crate) mod advanced {
    pub(crate) const CAPABILITIES: u16 = 0x03;
    pub(crate) const CONTROL: u16 = 0x04;
    pub(crate) const STATUS: u16 = 0x05;
    pub(crate) const TRANSACTIONS_PENDING_CAPABLE: u8 = 1 << 0;
    pub(crate) const FLR_CAPABLE: u8 = 1 << 1;
    pub(crate) const INITIATE_FLR: u8 = 1 << 0;
    pub(crate) const TRANSACTIONS_PENDING: u8 = 1 << 0;
}

/// Of MSI and MSI-X: both have Message Control at 2.
pub(crate) mod message {
    pub(crate) const CONTROL: u16 = 0x02;
    pub(crate) const MSI_ENABLE: u16 = 1 << 0;
    pub(crate) const MSIX_ENABLE: u16 = 1 << 15;
    pub(crate) const MSIX_FUNCTION_MASK: u16 = 1 << 14;
    pub(crate) const TABLE: u16 = 0x04;
    pub(crate) const PENDING: u16 = 0x08;
}

/// Of Access Control Services.
pub(crate) mod access_control {
    pub(crate) const CAPABILITY: u16 = 0x04;
    pub(crate) const CONTROL: u16 = 0x06;
    pub(crate) const SOURCE_VALIDATION: u16 = 1 << 0;
    pub(crate) const REQUEST_REDIRECT: u16 = 1 << 2;
    pub(crate) const COMPLETION_REDIRECT: u16 = 1 << 3;
    pub(crate) const UPSTREAM_FORWARDING: u16 = 1 << 4;
}

/// Of SR-IOV.
pub(crate) mod sriov {
    pub(crate) const CONTROL: u16 = 0x08;
    pub(crate) const TOTAL: u16 = 0x0e;
    pub(crate) const NUMBER: u16 = 0x10;
    pub(crate) const FIRST_OFFSET: u16 = 0x14;
    pub(crate) const STRIDE: u16 = 0x16;
    pub(crate) const DEVICE: u16 = 0x1a;
    pub(crate) const SUPPORTED_PAGE_SIZES: u16 = 0x1c;
    pub(crate) const SYSTEM_PAGE_SIZE: u16 = 0x20;
    pub(crate) const BAR0: u16 = 0x24;
    pub(crate) const ENABLE: u16 = 1 << 0;
    pub(crate) const MEMORY: u16 = 1 << 3;
    pub(crate) const ARI_CAPABLE_HIERARCHY: u16 = 1 << 4;
}
