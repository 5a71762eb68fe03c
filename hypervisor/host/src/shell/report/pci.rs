//! What `pidin pci` shows.

use super::memory;
use alloc::{format, string::String, vec::Vec};
use core::fmt::{self, Write};

/// A function of the machine's PCI Express.
#[derive(Clone, Debug)]
pub struct FunctionInfo {
    /// Segment, bus, device, function.
    pub address: String,
    /// Vendor ID and Device ID.
    pub ids: (u16, u16),
    /// Functions of one group have one owner.
    pub group: u16,
    /// How it is reset.
    pub reset: &'static str,
    /// Its pin's interrupt.
    pub interrupt: Option<u32>,
    /// Whether it may do DMA as far as it is concerned.
    pub is_master: bool,
    /// Who has it.
    pub owner: String,
    /// What it is, and what it has.
    pub about: String,
    /// Its BARs.
    pub bars: Vec<BarInfo>,
}

/// A BAR.
#[derive(Clone, Debug)]
pub struct BarInfo {
    /// Which.
    pub index: u8,
    /// Where it is for CPUs; `None`: nowhere.
    pub at: Option<u64>,
    /// Bytes.
    pub size: u64,
    /// What it is.
    pub kind: &'static str,
}

/// `pidin pci`: of each function a line, one with what it is, and one for each BAR.
///
/// # Errors
/// If `out` fails.
pub fn pci(all: &[FunctionInfo], out: &mut dyn Write) -> fmt::Result {
    out.write_str("FUNCTION     DEVICE    GROUP RESET   IRQ DMA OWNER\n")?;
    all.iter().try_for_each(|info| {
        let FunctionInfo { address, ids: (vendor, device), group, reset, .. } = info;
        let interrupt = info.interrupt.map_or_else(|| "-".into(), |interrupt| format!("{interrupt}"));
        let master = if info.is_master { "on" } else { "off" };
        let owner = &info.owner;
        writeln!(
            out,
            "{address} {vendor:04x}:{device:04x} {group:>5} {reset:6} {interrupt:>4} {master:3} {owner:.33}"
        )?;
        writeln!(out, "    {:.76}", info.about)?;
        info.bars.iter().try_for_each(|BarInfo { index, at, size, kind }| {
            let at = at.map_or_else(|| "no address".into(), |at| format!("{at:#x}"));
            let size = if *size < 1024 { format!("{size}") } else { memory(size >> 10) };
            writeln!(out, "    BAR {index} {at:<18} {size:>5} {kind}")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(all: &[FunctionInfo]) -> String {
        let mut text = String::new();
        pci(all, &mut text).unwrap();
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        text
    }

    #[test]
    fn pidin_pci_says_what_there_is_and_who_has_it() {
        let bar = |index, at, size| BarInfo { index, at, size, kind: "memory" };
        let function = FunctionInfo {
            address: "0000:01:00.0".into(),
            ids: (0x8086, 0x10d3),
            group: 3,
            reset: "FLR",
            interrupt: Some(35),
            is_master: true,
            owner: "VM `linux`".into(),
            about: "Ethernet 020000, 5 MSI-X".into(),
            bars: [bar(0, Some(0x1000_0000), 0x2_0000), bar(2, None, 0x20)].into(),
        };
        let expected = "
FUNCTION     DEVICE    GROUP RESET   IRQ DMA OWNER
0000:01:00.0 8086:10d3     3 FLR      35 on  VM `linux`
    Ethernet 020000, 5 MSI-X
    BAR 0 0x10000000          128K memory
    BAR 2 no address            32 memory
";
        assert_eq!(text(core::slice::from_ref(&function)), expected[1..]);
        let long = "x".repeat(99);
        let most = FunctionInfo {
            address: "ffff:ff:1f.7".into(),
            group: u16::MAX,
            reset: "AF FLR",
            interrupt: Some(1019),
            is_master: false,
            owner: long.clone(),
            about: long,
            bars: [BarInfo { index: 5, at: Some(u64::MAX), size: 1 << 62, kind: "prefetchable memory, 64 bit" }].into(),
            ..function
        };
        text(&[most]);
        assert_eq!(text(&[]).lines().count(), 1);
    }
}
