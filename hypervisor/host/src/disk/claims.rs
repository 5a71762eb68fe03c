//! Who has which part of which real disk.
//!
//! Answers for: one writer or any number of readers of each sector. Does not answer for: where partitions are
//! ([`super::partition()`]), nor when somebody who has something is no more (the kernel).

use super::{Extent, RealName, Which};
use alloc::{format, string::String, vec::Vec};
use core::fmt;

/// A device of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The VM's name.
    pub vm: String,
    /// The device's.
    pub device: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vdev `{}` of VM `{}`", self.device, self.vm)
    }
}

/// Something that a device has of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// As it is called.
    pub name: RealName,
    /// Where that is.
    pub extent: Extent,
    /// Whether it may be written.
    pub writes: bool,
    /// Who has it.
    pub holder: Holder,
}

/// Everything that somebody has, each with who that is in the kernel's terms: `O`.
#[derive(Debug)]
pub struct Claims<O> {
    list: Vec<(O, Claim)>,
}

impl<O: PartialEq> Claims<O> {
    /// Nobody has anything.
    #[must_use]
    pub const fn new() -> Self {
        Self { list: Vec::new() }
    }

    /// One more. All of a disk overlaps with each of its partitions, and those may overlap among themselves.
    ///
    /// # Errors
    /// Who has it, if that is somebody who would have to be alone, or this one would.
    pub fn add(&mut self, owner: O, claim: Claim) -> Result<(), String> {
        let conflicts = |other: &&Claim| {
            let is_shared = other.name.disk == claim.name.disk && other.extent.overlaps(&claim.extent);
            is_shared && (other.writes || claim.writes)
        };
        if let Some(other) = self.iter().find(conflicts) {
            return Err(conflict(&claim, other));
        }
        self.list.try_reserve(1).map_err(|_| String::from("there is no memory left"))?;
        self.list.push((owner, claim));
        Ok(())
    }

    /// It is no more, and has nothing.
    pub fn release(&mut self, owner: &O) {
        self.list.retain(|(other, _)| other != owner);
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Claim> {
        self.list.iter().map(|(_, claim)| claim)
    }
}

impl<O: PartialEq> Default for Claims<O> {
    fn default() -> Self {
        Self::new()
    }
}

/// Who is in whose way, and what could be done.
fn conflict(claim: &Claim, other: &Claim) -> String {
    let Claim { name, holder, .. } = claim;
    let has = if other.writes { "writes to" } else { "reads" };
    let what = match (other.name == *name, other.name.which == Which::Whole || name.which == Which::Whole) {
        (true, _) => String::from("it"),
        (false, true) => format!("/dev/{}", other.name),
        (false, false) => format!("/dev/{}, which overlaps", other.name),
    };
    let advice = if other.writes { "" } else { "; `<` is for reading only" };
    format!("{holder} cannot have /dev/{name}: {} {has} {what}{advice}", other.holder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claim(name: &str, first: u64, count: u64, writes: bool, vm: &str) -> Claim {
        let holder = Holder { vm: vm.into(), device: "root".into() };
        Claim { name: RealName::parse(name).unwrap(), extent: Extent { first, count }, writes, holder }
    }

    #[test]
    fn a_writer_is_alone_and_readers_are_not() {
        let mut claims = Claims::new();
        claims.add(1, claim("hd0p1", 10, 10, true, "a")).unwrap();
        claims.add(2, claim("hd0p2", 20, 10, true, "b")).unwrap();
        assert_eq!(
            claims.add(3, claim("hd0p1", 10, 10, false, "c")).unwrap_err(),
            "vdev `root` of VM `c` cannot have /dev/hd0p1: vdev `root` of VM `a` writes to it"
        );
        assert_eq!(
            claims.add(3, claim("hd0", 0, 100, false, "c")).unwrap_err(),
            "vdev `root` of VM `c` cannot have /dev/hd0: vdev `root` of VM `a` writes to /dev/hd0p1"
        );
        assert_eq!(
            claims.add(1, claim("hd0p3", 15, 10, false, "a")).unwrap_err(),
            "vdev `root` of VM `a` cannot have /dev/hd0p3: vdev `root` of VM `a` writes to /dev/hd0p1, which overlaps"
        );
        claims.add(3, claim("hd1", 0, 100, false, "c")).unwrap();
        claims.add(4, claim("hd1p1", 1, 10, false, "d")).unwrap();
        assert_eq!(
            claims.add(5, claim("hd1p1", 1, 10, true, "e")).unwrap_err(),
            "vdev `root` of VM `e` cannot have /dev/hd1p1: vdev `root` of VM `c` reads /dev/hd1; `<` is for reading only"
        );
    }

    #[test]
    fn what_is_released_can_be_had_again() {
        let mut claims = Claims::new();
        claims.add(1, claim("hd0", 0, 100, true, "a")).unwrap();
        assert!(claims.add(2, claim("hd0t178", 10, 10, true, "b")).is_err());
        claims.release(&2);
        assert_eq!(claims.iter().count(), 1);
        claims.release(&1);
        claims.add(2, claim("hd0t178", 10, 10, true, "b")).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
        fn no_sector_ever_has_a_writer_and_somebody_else(
            steps in prop::collection::vec((0..2_u32, 0..30_u64, 1..30_u64, any::<bool>(), 0..6_u32, any::<bool>()), 0..60)
        ) {
            let mut claims = Claims::new();
            for (disk, first, count, writes, owner, releases) in steps {
                if releases {
                    claims.release(&owner);
                    continue;
                }
                let new = claim(&format!("hd{disk}p1"), first, count, writes, "x");
                let others = |sector: u64| claims.iter().filter(move |other| {
                    let Extent { first, count } = other.extent;
                    other.name.disk == disk && (first..first + count).contains(&sector)
                });
                let is_free = (first..first + count).all(|sector| {
                    if writes { others(sector).count() == 0 } else { others(sector).all(|other| !other.writes) }
                });
                prop_assert_eq!(claims.add(owner, new).is_ok(), is_free);
            }
        }
    }
}
