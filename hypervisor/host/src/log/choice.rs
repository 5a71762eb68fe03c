//! Which messages VMs want logged.

use super::limit::hash;
use vm::config::Messages;

/// One for each VM there can be on the console, and as many for devices.
const CHOICES: usize = 2 * crate::console::MAX_VMS as usize;

/// The choices of those VMs and devices that have made one, by the hash of the VM's name, or of `VM/DEVICE`.
pub(super) struct Choices([Option<(u64, Messages)>; CHOICES]);

impl Choices {
    pub(super) const fn new() -> Self {
        Self([None; CHOICES])
    }

    pub(super) fn set(&mut self, vm: &str, messages: Option<Messages>) {
        let hash = hash(vm);
        let own = |place: &&mut Option<(u64, Messages)>| place.is_some_and(|(other, _)| other == hash);
        if let Some(place) = self.0.iter_mut().find(own) {
            *place = None;
        }
        if let Some(place) = self.0.iter_mut().find(|place| place.is_none()) {
            *place = messages.map(|messages| (hash, messages));
        }
    }

    /// The choice of the VM or the device that is called this.
    pub(super) fn get(&self, name: &str) -> Option<Messages> {
        let hash = hash(name);
        self.0.iter().flatten().find(|(other, _)| *other == hash).map(|(_, messages)| *messages)
    }

    /// Whether there is a VM that wants messages of this type.
    pub(super) fn any(&self, kind: &str) -> bool {
        self.0.iter().flatten().any(|(_, Messages { console, slog })| console.union(*slog).contains(kind))
    }
}
