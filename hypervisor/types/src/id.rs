//! Who is who: CPUs, VMs, vCPUs, interrupts.

use core::fmt;

/// Most physical CPUs that one image can run on.
pub const MAX_CPUS: usize = 16;

/// Most vCPUs of one VM. One redistributor frame pair each; affinity level 0 alone numbers them up to 16, so vCPU `n` has
/// Aff0 = `n % 16`, Aff1 = `n / 16` (see [`Mpidr`]).
pub const MAX_VCPUS: usize = 64;

macro_rules! index {
    ($(#[$doc:meta])* $name:ident, $label:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        #[repr(transparent)]
        pub struct $name(pub u16);

        impl $name {
            /// As an index into a table with one entry each.
            #[must_use]
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($label, "{}"), self.0)
            }
        }
    };
}

index! {
    /// A physical CPU, numbered in the order of the host's device tree; the boot CPU is wherever it stands there.
    CpuId, "cpu"
}
index! {
    /// A vCPU within its VM, in the order of the `cpu` options; 0 boots.
    VcpuId, "vcpu"
}
index! {
    /// A VM, for as long as it exists. Not a VMID: those are recycled with a generation, see the kernel.
    VmId, "vm"
}

macro_rules! set {
    ($(#[$doc:meta])* $name:ident of $id:ident, $max:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
        pub struct $name(pub u64);

        impl $name {
            /// Nobody.
            pub const EMPTY: Self = Self(0);

            /// Just this one; nobody if it is out of range.
            #[must_use]
            pub const fn of(id: $id) -> Self {
                if id.index() < $max { Self(1 << id.index()) } else { Self(0) }
            }

            /// Numbers 0 to `count - 1`.
            #[must_use]
            pub const fn first(count: usize) -> Self {
                if count >= 64 { Self(u64::MAX) } else { Self((1 << count) - 1) }
            }

            /// Whether nobody is in it.
            #[must_use]
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }

            /// How many are in it.
            #[must_use]
            pub const fn count(self) -> usize {
                self.0.count_ones() as usize
            }

            /// Whether `id` is in it.
            #[must_use]
            pub const fn contains(self, id: $id) -> bool {
                self.0 & Self::of(id).0 != 0
            }

            /// Adds `id`.
            pub const fn insert(&mut self, id: $id) {
                self.0 |= Self::of(id).0;
            }

            /// Takes `id` out.
            pub const fn remove(&mut self, id: $id) {
                self.0 &= !Self::of(id).0;
            }

            /// Those in either.
            #[must_use]
            pub const fn union(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// Those in both.
            #[must_use]
            pub const fn intersection(self, other: Self) -> Self {
                Self(self.0 & other.0)
            }

            /// Those in `self` and not in `other`.
            #[must_use]
            pub const fn without(self, other: Self) -> Self {
                Self(self.0 & !other.0)
            }

            /// All in it, lowest number first.
            pub fn iter(self) -> impl Iterator<Item = $id> {
                let mut rest = self.0;
                core::iter::from_fn(move || {
                    let lowest = u16::try_from(rest.checked_ilog2().map(|_| rest.trailing_zeros())?).ok()?;
                    rest &= rest.wrapping_sub(1);
                    Some($id(lowest))
                })
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_set().entries(self.iter()).finish()
            }
        }

        static_assertions::const_assert!($max <= 64);
    };
}

set! {
    /// Some physical CPUs.
    CpuSet of CpuId, MAX_CPUS
}
set! {
    /// Some vCPUs of one VM.
    VcpuSet of VcpuId, MAX_VCPUS
}

/// The affinity fields of `MPIDR_EL1` (bits 39:32 and 23:0), other bits zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(transparent)]
pub struct Mpidr(pub u64);

impl Mpidr {
    /// The bits that hold affinity levels 3, 2, 1, 0.
    pub const AFFINITY: u64 = 0xff_00ff_ffff;

    /// The affinity in a value of `MPIDR_EL1`, of a device tree's `reg` or of a PSCI `target_cpu`.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value & Self::AFFINITY)
    }

    /// The affinity that vCPU `id` shows its guest.
    #[must_use]
    pub const fn of_vcpu(id: VcpuId) -> Self {
        Self(((id.0 as u64 / 16) << 8) | (id.0 as u64 % 16))
    }

    /// The vCPU that shows this affinity, if it is one of a VM with `count` vCPUs. Bits outside the affinity fields make
    /// it nobody's: PSCI wants them zero.
    #[must_use]
    pub fn to_vcpu(self, count: usize) -> Option<VcpuId> {
        let (level1, level0) = ((self.0 >> 8) & 0xff, self.0 & 0xff);
        let id = VcpuId(u16::try_from(level1.checked_mul(16)?.checked_add(level0)?).ok()?);
        (id.index() < count && Self::of_vcpu(id) == self).then_some(id)
    }
}

/// Who sends a message on a bus: for a PCI function its bus in bits 15 to 8, device in 7 to 3 and function in 2 to 0 (PCI Express
/// Base Specification, "Requester ID"). The DeviceID of an ITS.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct RequesterId(pub u16);

/// An interrupt's number as the GIC counts them (IHI 0069, "INTIDs"): 0–15 SGI, 16–31 PPI, 32–1019 SPI, from 8192 on LPI.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct IntId(pub u32);

impl IntId {
    /// First shared peripheral interrupt.
    pub const FIRST_SPI: u32 = 32;
    /// First number that is not an SPI.
    pub const END_SPI: u32 = 1020;
    /// The EL1 virtual timer's private interrupt on every machine that follows the Base System Architecture.
    pub const VIRTUAL_TIMER: Self = Self(27);
    /// Overflows of the performance monitors.
    pub const MONITORS: Self = Self(23);
    /// The EL1 physical timer's.
    pub const PHYSICAL_TIMER: Self = Self(30);
    /// The EL2 physical timer's.
    pub const HYPERVISOR_TIMER: Self = Self(26);
    /// The GIC's maintenance interrupt.
    pub const MAINTENANCE: Self = Self(25);

    /// Whether it is software generated.
    #[must_use]
    pub const fn is_sgi(self) -> bool {
        self.0 < 16
    }

    /// Whether it belongs to one CPU: SGI or PPI.
    #[must_use]
    pub const fn is_private(self) -> bool {
        self.0 < Self::FIRST_SPI
    }

    /// Whether it is shared by all CPUs.
    #[must_use]
    pub const fn is_spi(self) -> bool {
        self.0 >= Self::FIRST_SPI && self.0 < Self::END_SPI
    }
}

impl fmt::Display for IntId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "INTID {}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_iterate_from_the_lowest() {
        let mut set = VcpuSet::EMPTY;
        set.insert(VcpuId(63));
        set.insert(VcpuId(2));
        set.insert(VcpuId(64)); // out of range: nobody
        assert!(set.iter().eq([VcpuId(2), VcpuId(63)]));
        set.remove(VcpuId(2));
        assert_eq!(set.count(), 1);
        assert!(CpuSet::first(2).iter().eq([CpuId(0), CpuId(1)]));
    }

    #[test]
    fn affinity_maps_both_ways_and_rejects_strangers() {
        for n in 0..64 {
            let id = VcpuId(n);
            assert_eq!(Mpidr::of_vcpu(id).to_vcpu(64), Some(id));
        }
        assert_eq!(Mpidr::of_vcpu(VcpuId(4)).to_vcpu(4), None);
        assert_eq!(Mpidr(16).to_vcpu(64), None, "Aff0 beyond 15 is nobody, although 16 would fit");
        assert_eq!(Mpidr(0x8000_0000).to_vcpu(64), None);
        assert_eq!(Mpidr(u64::MAX).to_vcpu(64), None);
        assert_eq!(Mpidr::new(0x8000_0001), Mpidr(1));
    }
}
