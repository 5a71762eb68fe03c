//! Who has which function.
//!
//! Answers for: one owner for each function and for all of its group, and naming both where there would be two. Does not answer for: who an
//! owner is, and when it ends (the kernel).

use crate::{Function, Hierarchy};
use alloc::{format, string::String, vec::Vec};
use pci_types::PciAddress;

#[derive(Clone, Debug)]
struct Claim<O> {
    owner: O,
    name: String,
    function: PciAddress,
}

/// Everything that somebody has; `O` says who that is.
#[derive(Clone, Debug)]
pub struct Owners<O> {
    list: Vec<Claim<O>>,
}

impl<O> Owners<O> {
    /// Nobody has anything.
    #[must_use]
    pub const fn new() -> Self {
        Self { list: Vec::new() }
    }
}

impl<O> Default for Owners<O> {
    fn default() -> Self {
        Self::new()
    }
}

impl<O: PartialEq + Copy> Owners<O> {
    /// The functions at `wanted`, of the `functions` that there are, are those of `owner` from now on, or none is.
    ///
    /// # Errors
    /// Whatever keeps it from having one of them, for each; other owners by name.
    pub fn claim(
        &mut self,
        functions: &[Function],
        owner: O,
        name: &str,
        wanted: &[PciAddress],
    ) -> Result<(), Vec<(PciAddress, String)>> {
        let refused = |(n, address): (usize, &PciAddress)| {
            let is_twice = wanted.iter().take(n).any(|other| other == address);
            let why = if is_twice {
                Some(format!("{name} wants it twice"))
            } else {
                self.refusal(functions, owner, *address)
            };
            Some((*address, format!("{name} cannot have PCI function {address}: {}", why?)))
        };
        let refusals: Vec<(PciAddress, String)> = wanted.iter().enumerate().filter_map(refused).collect();
        if !refusals.is_empty() {
            return Err(refusals);
        }
        self.list.extend(wanted.iter().map(|function| Claim { owner, name: name.into(), function: *function }));
        Ok(())
    }

    /// Why `owner` cannot have the function at `address`, if it cannot: part of a sentence that names who has it, or what it cannot be kept
    /// apart from.
    #[must_use]
    pub fn refusal(&self, functions: &[Function], owner: O, address: PciAddress) -> Option<String> {
        let Some(function) = functions.iter().find(|function| function.address == address) else {
            return Some("there is none".into());
        };
        if function.is_bridging() {
            return Some(format!("the hypervisor has it: it is a {}", function.class.name()));
        }
        if let Some(claim) = self.list.iter().find(|claim| claim.function == address) {
            return Some(format!("{} has it", claim.name));
        }
        let is_mate = |claim: &&Claim<O>| {
            let mate = || functions.iter().find(|function| function.address == claim.function);
            claim.owner != owner && mate().is_some_and(|mate| is_same_group(mate, function))
        };
        self.list.iter().find(is_mate).map(|claim| {
            format!(
                "{} has {}, and the two cannot be kept apart (group {})",
                claim.name, claim.function, function.group
            )
        })
    }

    /// The name of the owner of a function, if it has one.
    #[must_use]
    pub fn of(&self, address: PciAddress) -> Option<&str> {
        self.list.iter().find(|claim| claim.function == address).map(|claim| claim.name.as_str())
    }

    /// Whether nobody but who has `address`, if anybody, has one of `others`.
    ///
    /// # Errors
    /// The first that somebody else has, and that one's name.
    pub fn only(
        &self,
        address: PciAddress,
        others: impl Iterator<Item = PciAddress>,
    ) -> Result<(), (PciAddress, &str)> {
        let own = self.list.iter().find(|claim| claim.function == address).map(|claim| claim.owner);
        for other in others {
            let theirs = self.list.iter().find(|claim| claim.function == other && Some(claim.owner) != own);
            if let Some(claim) = theirs {
                return Err((other, &claim.name));
            }
        }
        Ok(())
    }

    /// What `owner` has.
    pub fn owned(&self, owner: O) -> impl Iterator<Item = PciAddress> {
        self.list.iter().filter(move |claim| claim.owner == owner).map(|claim| claim.function)
    }

    /// It is no more, and has nothing.
    pub fn release(&mut self, owner: O) {
        self.list.retain(|claim| claim.owner != owner);
    }
}

fn is_same_group(one: &Function, other: &Function) -> bool {
    one.address.segment() == other.address.segment() && one.group == other.group
}

impl Hierarchy {
    /// The number of groups.
    #[must_use]
    pub fn groups(&self) -> u16 {
        self.functions.iter().map(|function| function.group.saturating_add(1)).max().unwrap_or(0)
    }
}
