//! Who may have how many pages of RAM. A page has 4 KiB everywhere here.
//!
//! Answers for: the sums: what is free, what of it has been promised to whom ([`Ledger`]), and how much of its RAM a VM has and may
//! have ([`Entitlement`]). Does not answer for: which pages those are, nor for what is in them (the kernel's `frames` and
//! `guest_memory`). The policy is that of docs/design/033-balloon.md.
//!
//! A guest with a balloon gives pages back. As many of them as it may want again at any time stay promised to it: they are free, and
//! nobody else gets them. So a guest that keeps to what it has been told always gets its memory, and one that does not takes nothing
//! but what nobody has been promised.

use types::VmId;

/// For whom pages are taken, or for whom they are given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The hypervisor: it gets the last page that has not been promised.
    Host,
    /// A VM, a file, shared memory: it gets nothing of what the hypervisor keeps for itself.
    Anyone,
    /// A VM, out of what has been promised to it.
    Promised(VmId),
}

/// Pages that nobody has, and how many of them have been promised. Sums only: no page is promised in particular.
#[derive(Debug)]
pub struct Ledger<const VMS: usize> {
    /// Pages that nobody has, promised or not.
    unused: usize,
    /// Pages that the hypervisor keeps for itself.
    reserve: usize,
    promised: [usize; VMS],
    /// Of all VMs together; never more than there are unused.
    sum: usize,
}

impl<const VMS: usize> Ledger<VMS> {
    /// No pages yet; of those to come the hypervisor keeps `reserve`.
    #[must_use]
    pub const fn new(reserve: usize) -> Self {
        Self { unused: 0, reserve, promised: [0; VMS], sum: 0 }
    }

    /// Pages that nobody has and nobody has been promised.
    #[must_use]
    pub const fn free(&self) -> usize {
        self.unused.saturating_sub(self.sum)
    }

    /// Pages that nobody has and some VM has been promised.
    #[must_use]
    pub const fn promised(&self) -> usize {
        self.sum
    }

    /// Whether so many pages may be taken.
    #[must_use]
    pub fn may_take(&self, pages: usize, claim: Claim) -> bool {
        let most = match claim {
            Claim::Host => self.free(),
            Claim::Anyone => self.free().saturating_sub(self.reserve),
            Claim::Promised(vm) => self.promised.get(vm.index()).copied().unwrap_or(0),
        };
        pages <= most
    }

    /// Pages are taken, which [`Ledger::may_take`] has allowed, under the same lock; what was not allowed leaves sums at zero, not
    /// below.
    pub fn take(&mut self, pages: usize, claim: Claim) {
        self.unused = self.unused.saturating_sub(pages);
        if let Claim::Promised(vm) = claim {
            self.release(vm, pages);
        }
    }

    /// Nobody has these pages any more. What was taken out of a promise, or is given back to be promised, is promised.
    pub fn give(&mut self, pages: usize, claim: Claim) {
        self.unused = self.unused.saturating_add(pages);
        if let Claim::Promised(vm) = claim
            && let Some(promised) = self.promised.get_mut(vm.index())
        {
            *promised = promised.saturating_add(pages);
            self.sum = self.sum.saturating_add(pages);
        }
    }

    /// Promises a VM so many pages more, out of those that [`Claim::Anyone`] could take. Says whether there are so many; if not,
    /// nothing is promised.
    #[must_use]
    pub fn promise(&mut self, vm: VmId, pages: usize) -> bool {
        let possible = self.may_take(pages, Claim::Anyone);
        if possible && let Some(promised) = self.promised.get_mut(vm.index()) {
            *promised = promised.saturating_add(pages);
            self.sum = self.sum.saturating_add(pages);
        }
        possible
    }

    /// A VM has been promised so many pages less; no less than none.
    pub fn release(&mut self, vm: VmId, pages: usize) {
        if let Some(promised) = self.promised.get_mut(vm.index()) {
            let less = pages.min(*promised);
            *promised = promised.saturating_sub(less);
            self.sum = self.sum.saturating_sub(less);
        }
    }
}

/// How much of its RAM a VM has, and how much it may have at any time. In pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entitlement {
    size: u64,
    entitled: u64,
    present: u64,
    lends: bool,
}

impl Entitlement {
    /// A VM that has all of its RAM, `size` pages, and may have it. One that `lends` is promised nothing of what it gives back.
    #[must_use]
    pub const fn new(size: u64, lends: bool) -> Self {
        Self { size, entitled: size, present: size, lends }
    }

    /// All of its RAM, in pages.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// What it is to make do with, in pages: at most [`Entitlement::size`].
    #[must_use]
    pub const fn entitled(&self) -> u64 {
        self.entitled
    }

    /// What it has now, in pages: at most [`Entitlement::size`], and more than it is entitled to until its guest has given that back.
    #[must_use]
    pub const fn present(&self) -> u64 {
        self.present
    }

    /// What has to be promised to it, in pages, so that it can have what it may have.
    #[must_use]
    pub const fn owed(&self) -> u64 {
        if self.lends { 0 } else { self.entitled.saturating_sub(self.present) }
    }

    /// The same VM, which may have so many pages from now on; more than all there are it cannot have.
    #[must_use]
    pub fn with_entitled(self, pages: u64) -> Self {
        Self { entitled: pages.min(self.size), ..self }
    }

    /// So many of its pages go. Says how many of them are to be promised to it.
    pub fn leave(&mut self, pages: u64) -> u64 {
        let before = self.owed();
        self.present = self.present.saturating_sub(pages);
        self.owed().saturating_sub(before)
    }

    /// A page has come back, out of the promise if anything was owed before.
    pub fn come_back(&mut self) {
        self.present = self.present.saturating_add(1).min(self.size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const VMS: usize = 3;
    const RESERVE: usize = 8;

    #[test]
    fn what_is_promised_is_nobody_elses() {
        let mut ledger = Ledger::<2>::new(10);
        ledger.give(100, Claim::Anyone);
        assert!(ledger.promise(VmId(0), 50));
        assert_eq!((ledger.free(), ledger.promised()), (50, 50));
        assert!(ledger.may_take(40, Claim::Anyone) && !ledger.may_take(41, Claim::Anyone));
        assert!(ledger.may_take(50, Claim::Host) && !ledger.may_take(51, Claim::Host));
        assert!(ledger.may_take(50, Claim::Promised(VmId(0))) && !ledger.may_take(51, Claim::Promised(VmId(0))));
        assert!(!ledger.may_take(1, Claim::Promised(VmId(1))) && !ledger.may_take(1, Claim::Promised(VmId(2))));
        assert!(!ledger.promise(VmId(1), 41), "the hypervisor's own is not promised");
        ledger.take(30, Claim::Promised(VmId(0)));
        assert_eq!((ledger.free(), ledger.promised()), (50, 20));
        ledger.give(30, Claim::Promised(VmId(0)));
        assert_eq!((ledger.free(), ledger.promised()), (50, 50));
        ledger.release(VmId(0), 60);
        assert_eq!((ledger.free(), ledger.promised()), (100, 0));
    }

    #[test]
    fn a_vm_is_owed_what_it_lacks_of_what_it_may_have() {
        let mut vm = Entitlement::new(100, false);
        assert_eq!(vm.leave(30), 30, "given back without being asked");
        vm = vm.with_entitled(80);
        assert_eq!(vm.owed(), 10);
        assert_eq!(vm.leave(5), 5);
        vm.come_back();
        assert_eq!((vm.present(), vm.owed()), (66, 14));
        vm = vm.with_entitled(40);
        assert_eq!((vm.owed(), vm.leave(26)), (0, 0), "down to what it may have it gives for good");
        assert_eq!(vm.leave(1), 1);
        assert_eq!(vm.with_entitled(1000).entitled(), 100);
        let mut lender = Entitlement::new(100, true);
        assert_eq!((lender.leave(70), lender.owed()), (0, 0));
    }

    /// What happens: a VM gives pages, touches pages, is told how many it may have, begins anew.
    #[derive(Clone, Debug)]
    enum Event {
        Give {
            vm: usize,
            pages: u64,
        },
        Touch {
            vm: usize,
            pages: u64,
        },
        Entitle {
            vm: usize,
            pages: u64,
        },
        /// Somebody takes what there is, or gives all of it back.
        Others {
            take: bool,
            pages: usize,
        },
    }

    fn event() -> impl Strategy<Value = Event> {
        let (vm, pages) = (0..VMS, 0..120_u64);
        prop_oneof![
            (vm.clone(), pages.clone()).prop_map(|(vm, pages)| Event::Give { vm, pages }),
            (vm.clone(), pages.clone()).prop_map(|(vm, pages)| Event::Touch { vm, pages }),
            (vm, pages).prop_map(|(vm, pages)| Event::Entitle { vm, pages }),
            (any::<bool>(), 0..200_usize).prop_map(|(take, pages)| Event::Others { take, pages }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 256 }, ..ProptestConfig::default() })]

        /// Whatever guests do: the pages add up, the hypervisor's are there, and a VM that has less than it may have gets a page.
        #[test]
        #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
        fn nobody_loses_what_he_has_been_promised(events in vec(event(), 0..200)) {
            const TOTAL: usize = 400;
            let mut ledger = Ledger::<VMS>::new(RESERVE);
            ledger.give(TOTAL, Claim::Anyone);
            let mut vms = [Entitlement::new(100, false), Entitlement::new(100, false), Entitlement::new(100, true)];
            for _ in &vms {
                prop_assert!(ledger.may_take(100, Claim::Anyone));
                ledger.take(100, Claim::Anyone);
            }
            let mut others = 0;
            for event in events {
                match event {
                    Event::Give { vm, pages } => {
                        let pages = pages.min(vms[vm].present());
                        let kept = vms[vm].leave(pages);
                        ledger.give(kept as usize, Claim::Promised(VmId(vm as u16)));
                        ledger.give((pages - kept) as usize, Claim::Anyone);
                    }
                    Event::Touch { vm, pages } => {
                        for _ in 0..pages.min(vms[vm].size() - vms[vm].present()) {
                            let owed = vms[vm].owed() > 0;
                            let claim = if owed { Claim::Promised(VmId(vm as u16)) } else { Claim::Anyone };
                            let there = ledger.may_take(1, claim);
                            prop_assert!(there || !owed, "a promise is not kept");
                            if there {
                                ledger.take(1, claim);
                                vms[vm].come_back();
                            }
                        }
                    }
                    Event::Entitle { vm, pages } => {
                        let (now, next) = (vms[vm].owed(), vms[vm].with_entitled(pages));
                        let more = next.owed().saturating_sub(now) as usize;
                        if ledger.promise(VmId(vm as u16), more) {
                            ledger.release(VmId(vm as u16), now.saturating_sub(next.owed()) as usize);
                            vms[vm] = next;
                        }
                    }
                    Event::Others { take: true, pages } if ledger.may_take(pages, Claim::Anyone) => {
                        ledger.take(pages, Claim::Anyone);
                        others += pages;
                    }
                    Event::Others { take: false, .. } => ledger.give(core::mem::take(&mut others), Claim::Anyone),
                    Event::Others { .. } => {}
                }
                let present: u64 = vms.iter().map(Entitlement::present).sum();
                prop_assert_eq!(ledger.free() + ledger.promised() + others + present as usize, TOTAL);
                prop_assert_eq!(ledger.promised() as u64, vms.iter().map(Entitlement::owed).sum::<u64>());
                prop_assert!(ledger.free() >= RESERVE);
            }
        }
    }
}
