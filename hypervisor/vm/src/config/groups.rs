//! Names that configurations use for parts of the host: clusters of CPUs, and adaptive partitions of their time.
//!
//! Answers for: the two lists, which names may be in them, and the clusters that a machine has by itself. Does not answer for:
//! who defines the rest (the start-up script), and what a partition guarantees (the scheduler).

use super::is_name;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use types::{CpuId, CpuSet, Mpidr};

/// The place of the partition that holds all who name none.
pub const SYSTEM_PARTITION: usize = 0;

/// As in the original.
const SYSTEM: &str = "System";

/// QNX: each CPU is a cluster by itself, under this name and its number.
const ONE_CPU: &str = "_cpu-";

/// Most names of each kind.
const MAX_GROUPS: usize = 64;

/// Clusters and partitions by name.
#[derive(Clone, Debug)]
pub struct Groups {
    clusters: Vec<(String, CpuSet)>,
    partitions: Vec<String>,
}

/// Why a name cannot be defined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GroupError {
    /// It is no name.
    BadName,
    /// There is one of this name.
    Taken,
    /// There are as many as there can be.
    TooMany,
    /// It would have no CPU, or one that the machine has not.
    NoCpu,
}

impl fmt::Display for GroupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadName => "a name has up to 32 letters, digits, `-`, `_` and `.`, and does not begin with `_cpu-`",
            Self::Taken => "there is one of this name already",
            Self::TooMany => "there are too many",
            Self::NoCpu => "the machine has not got all of these CPUs",
        })
    }
}

impl core::error::Error for GroupError {}

impl Groups {
    /// What a machine with these CPUs has by itself: `cluster0` and so on, CPUs that share all but the lowest level of
    /// affinity; and the partition `System`.
    #[must_use]
    pub fn new(cpus: &[Mpidr]) -> Self {
        // DDI 0487, MPIDR_EL1.MT: cores that could have several threads have their number at level 1, and 0 at level 0.
        let is_threaded = cpus.len() > 1 && cpus.iter().all(|cpu| cpu.0 & 0xff == 0);
        let level = if is_threaded { 0xff } else { 0 } << 8 | 0xff;
        let mut affinities: Vec<(u64, CpuSet)> = Vec::new();
        for (number, cpu) in (0..).zip(cpus) {
            let affinity = cpu.0 & !level;
            match affinities.iter_mut().find(|(other, _)| *other == affinity) {
                Some((_, set)) => set.insert(CpuId(number)),
                None => affinities.push((affinity, CpuSet::of(CpuId(number)))),
            }
        }
        let named = |(number, (_, set))| (format!("cluster{number}"), set);
        Self { clusters: (0_u32..).zip(affinities).map(named).collect(), partitions: [SYSTEM.to_string()].into() }
    }

    /// Defines a cluster of a machine with `count` CPUs.
    ///
    /// # Errors
    /// When the name or a CPU cannot be.
    pub fn define_cluster(&mut self, name: &str, cpus: CpuSet, count: usize) -> Result<(), GroupError> {
        check(name, self.clusters.len(), self.clusters().any(|other| other == name))?;
        if cpus.is_empty() || cpus.intersection(CpuSet::first(count)) != cpus {
            return Err(GroupError::NoCpu);
        }
        self.clusters.push((name.to_string(), cpus));
        Ok(())
    }

    /// Whether a partition of this name could be defined.
    ///
    /// # Errors
    /// When it could not.
    pub fn check_partition(&self, name: &str) -> Result<(), GroupError> {
        check(name, self.partitions.len(), self.partition(name).is_some())
    }

    /// Defines a partition. Its place is how many there have been.
    ///
    /// # Errors
    /// When the name cannot be.
    pub fn define_partition(&mut self, name: &str) -> Result<(), GroupError> {
        self.check_partition(name)?;
        self.partitions.push(name.to_string());
        Ok(())
    }

    /// The CPUs of a cluster of a machine with `count` CPUs.
    #[must_use]
    pub fn cluster(&self, name: &str, count: usize) -> Option<CpuSet> {
        if let Some(number) = name.strip_prefix(ONE_CPU) {
            let number: u16 = number.parse().ok()?;
            return (usize::from(number) < count).then(|| CpuSet::of(CpuId(number)));
        }
        self.clusters.iter().find(|(other, _)| other == name).map(|(_, cpus)| *cpus)
    }

    /// The place of a partition.
    #[must_use]
    pub fn partition(&self, name: &str) -> Option<usize> {
        self.partitions().position(|other| other == name)
    }

    /// All clusters, but for the one that each CPU is.
    pub fn clusters(&self) -> impl Iterator<Item = &str> + Clone {
        self.clusters.iter().map(|(name, _)| name.as_str())
    }

    /// All partitions, by place.
    pub fn partitions(&self) -> impl Iterator<Item = &str> + Clone {
        self.partitions.iter().map(String::as_str)
    }
}

fn check(name: &str, count: usize, is_taken: bool) -> Result<(), GroupError> {
    if !is_name(name) || name.starts_with(ONE_CPU) {
        return Err(GroupError::BadName);
    }
    if is_taken {
        return Err(GroupError::Taken);
    }
    if count >= MAX_GROUPS { Err(GroupError::TooMany) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_of_one_affinity_are_a_cluster() {
        let clusters = |cpus: &[u64]| {
            let groups = Groups::new(&cpus.iter().map(|affinity| Mpidr(*affinity)).collect::<Vec<_>>());
            groups.clusters.iter().map(|(name, set)| (name.clone(), set.0)).collect::<Vec<_>>()
        };
        let expected = |sets: &[u64]| (0..).zip(sets).map(|(n, set)| (format!("cluster{n}"), *set)).collect::<Vec<_>>();
        assert_eq!(clusters(&[0, 1, 2, 3]), expected(&[0b1111]));
        assert_eq!(clusters(&[0x100, 0x101, 0, 1, 2, 3]), expected(&[0b11, 0b11_1100]), "two big, four little");
        assert_eq!(clusters(&[0, 0x100, 0x200, 0x1_0000]), expected(&[0b111, 0b1000]), "cores with threads");
        assert_eq!(clusters(&[0]), expected(&[1]));
    }

    #[test]
    fn each_cpu_is_a_cluster() {
        let groups = Groups::new(&[Mpidr(0), Mpidr(1)]);
        assert_eq!(groups.cluster("_cpu-1", 2), Some(CpuSet(0b10)));
        for wrong in ["_cpu-2", "_cpu-", "_cpu-x", "_cpu", "cluster1"] {
            assert_eq!(groups.cluster(wrong, 2), None, "{wrong}");
        }
    }

    #[test]
    fn names_are_defined_once() {
        let mut groups = Groups::new(&[Mpidr(0), Mpidr(1)]);
        assert_eq!(groups.define_cluster("fast", CpuSet(0b10), 2), Ok(()));
        assert_eq!(groups.cluster("fast", 2), Some(CpuSet(0b10)));
        assert_eq!(groups.define_cluster("fast", CpuSet(0b01), 2), Err(GroupError::Taken));
        assert_eq!(groups.define_cluster("slow", CpuSet(0b100), 2), Err(GroupError::NoCpu));
        assert_eq!(groups.define_cluster("none", CpuSet::EMPTY, 2), Err(GroupError::NoCpu));
        assert_eq!(groups.define_cluster("_cpu-7", CpuSet(1), 2), Err(GroupError::BadName));
        assert_eq!(groups.define_partition("a b"), Err(GroupError::BadName));
        assert_eq!(groups.define_partition("System"), Err(GroupError::Taken));
        assert_eq!(groups.define_partition("drivers"), Ok(()));
        assert_eq!((groups.partition("System"), groups.partition("drivers")), (Some(SYSTEM_PARTITION), Some(1)));
        for number in 2..MAX_GROUPS {
            assert_eq!(groups.define_partition(&format!("p{number}")), Ok(()));
        }
        assert_eq!(groups.define_partition("more"), Err(GroupError::TooMany));
    }
}
