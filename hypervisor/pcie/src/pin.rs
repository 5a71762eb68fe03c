//! Which pin a pin is further up.
//!
//! Answers for: the way of a function's INTx through bridges (PCI Express, 2.2.8.1, Table 2-20; PCI-to-PCI Bridge Architecture Specification, 9.1).
//! Does not answer for: which interrupt that is (`machine::PciInterrupts`).

use crate::Function;
use pci_types::PciAddress;

/// The function on the host's own bus by which the pin of the one at `address` arrives, and as which pin; none if it has none.
#[must_use]
pub fn pin_at_host(functions: &[Function], address: PciAddress) -> Option<(PciAddress, u8)> {
    let find = |address| functions.iter().find(|function| function.address == address);
    let mut function = find(address)?;
    let mut pin = function.pin?;
    // A bus number is lower above; 256 is more than there are.
    for _ in 0..256 {
        let Some(above) = function.above.and_then(find) else { break };
        // With ARI, the device number is 0 (6.13).
        let device = if function.capabilities.ari.is_some() { 0 } else { function.address.device() };
        // INTA is 1.
        pin = (pin.saturating_sub(1).saturating_add(device) & 3).saturating_add(1);
        function = above;
    }
    Some((function.address, pin))
}
