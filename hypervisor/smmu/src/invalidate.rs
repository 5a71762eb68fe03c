//! Making an SMMU forget translations that have been taken out of a stage 2 (IHI 0070, 3.21.1, 4.4).
//!
//! Answers for: which commands cover which addresses, by ranges where the SMMU has them, and never more than
//! [`MAX_COMMANDS`]: what would take more is all of the VM's. Does not answer for: the tables; they have changed, and the
//! change is published, before the procedure is carried out.

use crate::{Command, Features, Procedure, Range, Reach, Step};
use arrayvec::ArrayVec;
use types::{Ipa, PAGE_SIZE};

/// Most invalidations by address in one procedure.
pub const MAX_COMMANDS: usize = 16;

/// `SCALE` has 5 bits, `NUM + 1` is at most 32 (4.4.1.1).
const MAX_SCALE: u32 = 31;
const MAX_NUM: u64 = 32;
/// `TG`: 4 KiB.
const GRANULE: u8 = 1;

/// What an SMMU may have kept of translations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Walks {
    /// Descriptors of tables, too, not only those of pages and blocks.
    pub tables: bool,
    /// Combinations with a guest's stage 1.
    pub nested: bool,
}

/// What makes an SMMU forget its translations of `range` for the VM `vmid`.
pub(crate) fn procedure(vmid: u16, range: types::Range<Ipa>, walks: Walks, features: &Features) -> Procedure {
    let mut procedure = Procedure::default();
    if range.is_empty() {
        return procedure;
    }
    let Some(reaches) = reaches(range, !walks.tables, features.range_invalidation) else {
        procedure.then_all([Step::Issue(Command::TlbiS12Vmall { vmid }), Step::Synchronize]);
        return procedure;
    };
    for reach in reaches {
        procedure.then(Step::Issue(Command::TlbiS2Ipa { vmid, reach }));
    }
    procedure.then(Step::Synchronize);
    // One without stage 1 takes no such command (4.4.2), and has nothing combined.
    if walks.nested && features.stage1 {
        // Combined entries are not found by an address of the VM's (4.4.3.1), and only once stage 2 is clean can no new ones
        // be made from it.
        procedure.then_all([Step::Issue(Command::TlbiNhAll { vmid }), Step::Synchronize]);
    }
    procedure
}

/// What makes an SMMU forget what it has kept of a guest's stage 1, and of combinations with it: as much as the guest has `asked` for, or
/// more. Context descriptors are those of the machine's streams; whatever else is asked for is of the VM `vmid`, and in a form that every SMMU takes: a command
/// that it did not take would fail those of others.
pub(crate) fn stage1(vmid: u16, asked: &[Command], features: &Features) -> Procedure {
    let mut procedure = Procedure::default();
    let most = if features.asid16 { u16::MAX } else { u8::MAX.into() };
    for command in asked {
        procedure.then(Step::Issue(match *command {
            Command::CfgiCdAll { stream } => Command::CfgiCdAll { stream },
            // With ASIDs of 8 bits the upper ones are RES0 (4.4), and there is nothing to be found by them.
            Command::TlbiNhAsid { asid, .. } | Command::TlbiNhVa { asid, .. } if asid > most => {
                Command::TlbiNhAll { vmid }
            }
            Command::TlbiNhAsid { asid, .. } => Command::TlbiNhAsid { vmid, asid },
            Command::TlbiNhVa { asid, reach, .. } => match usable(reach, features) {
                Some(reach) => Command::TlbiNhVa { vmid, asid, reach },
                None => Command::TlbiNhAsid { vmid, asid },
            },
            Command::TlbiNhVaa { reach, .. } => match usable(reach, features) {
                Some(reach) => Command::TlbiNhVaa { vmid, reach },
                None => Command::TlbiNhAll { vmid },
            },
            _ => Command::TlbiNhAll { vmid },
        }));
    }
    procedure.then(Step::Synchronize);
    procedure
}

/// A guest's reach in a form that is nowhere reserved (4.4.1.1), and reaches as far. `None` if there is none.
fn usable(reach: Reach, features: &Features) -> Option<Reach> {
    let Some(range) = reach.range else { return Some(reach) };
    if !features.range_invalidation || range.granule != GRANULE {
        return None;
    }
    // Levels are a hint, of which some are reserved.
    let range = Range { level: 0, ..range };
    Some(Reach { range: (range.scale != 0 || range.num != 0).then_some(range), ..reach })
}

/// `None` if they would be too many.
fn reaches(range: types::Range<Ipa>, leaf: bool, has_ranges: bool) -> Option<ArrayVec<Reach, MAX_COMMANDS>> {
    let mut address = range.start().align_down(PAGE_SIZE).0;
    let mut pages = range.end().align_up(PAGE_SIZE)?.0.checked_sub(address)?.checked_div(PAGE_SIZE)?;
    let mut reaches = ArrayVec::new();
    while pages > 0 {
        let scale = if has_ranges { pages.trailing_zeros().min(MAX_SCALE) } else { 0 };
        let units = pages.wrapping_shr(scale);
        let num = match units % MAX_NUM {
            _ if !has_ranges => 1,
            0 => MAX_NUM,
            rest => rest,
        };
        let range = Range {
            granule: GRANULE,
            scale: u8::try_from(scale).ok()?,
            num: u8::try_from(num.checked_sub(1)?).ok()?,
            level: 0,
        };
        // One page is no range: without a level that is Reserved (4.4.1.1).
        let range = (scale != 0 || num != 1).then_some(range);
        reaches.try_push(Reach { address, leaf, range }).ok()?;
        let done = num.wrapping_shl(scale);
        address = address.checked_add(done.checked_mul(PAGE_SIZE)?)?;
        pages = pages.checked_sub(done)?;
    }
    Some(reaches)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::testing::FEATURES;
    use alloc::{vec, vec::Vec};
    use proptest::prelude::*;

    const LEAVES: Walks = Walks { tables: false, nested: false };

    fn range(start: u64, length: u64) -> types::Range<Ipa> {
        types::Range::new(Ipa(start), length).unwrap()
    }

    fn commands(procedure: &Procedure) -> Vec<Command> {
        let command = |step: &Step| match step {
            Step::Issue(command) => Some(*command),
            _ => None,
        };
        procedure.steps().iter().filter_map(command).collect()
    }

    #[test]
    fn a_page_is_one_command_and_a_wait() {
        let reach = Reach { address: 0x8000_0000, leaf: true, range: None };
        let expected = [Step::Issue(Command::TlbiS2Ipa { vmid: 3, reach }), Step::Synchronize];
        assert_eq!(procedure(3, range(0x8000_0000, 4096), LEAVES, &FEATURES).steps(), expected);
        assert_eq!(procedure(3, range(0x8000_0010, 1), LEAVES, &FEATURES).steps(), expected, "rounded to pages");
        assert!(procedure(3, range(0x8000_0000, 0), LEAVES, &FEATURES).is_done());
    }

    #[test]
    fn combined_entries_are_forgotten_after_stage_2_and_not_together_with_it() {
        let nested = Walks { nested: true, tables: true };
        let reach = Reach { address: 0x8000_0000, leaf: false, range: None };
        assert_eq!(
            procedure(3, range(0x8000_0000, 4096), nested, &FEATURES).steps(),
            [
                Step::Issue(Command::TlbiS2Ipa { vmid: 3, reach }),
                Step::Synchronize,
                Step::Issue(Command::TlbiNhAll { vmid: 3 }),
                Step::Synchronize
            ]
        );
    }

    #[test]
    fn one_without_stage_1_is_not_asked_about_it() {
        let nested = Walks { nested: true, tables: false };
        let features = Features { stage1: false, ..FEATURES };
        let range = range(0x8000_0000, 4096);
        assert_eq!(procedure(3, range, nested, &features).steps(), procedure(3, range, LEAVES, &features).steps());
    }

    #[test]
    fn a_guest_s_invalidations_are_its_own_vms() {
        let range = |granule, scale, num, level| Some(Range { granule, scale, num, level });
        let reach = |range| Reach { address: 0x5000, leaf: true, range };
        let of = |command, features: &Features| commands(&stage1(3, &[command], features));
        let va = |asid, range| Command::TlbiNhVa { vmid: 3, asid, reach: reach(range) };
        let asked = |range| Command::TlbiNhVa { vmid: 99, asid: 7, reach: reach(range) };
        assert_eq!(of(asked(None), &FEATURES), [va(7, None)]);
        assert_eq!(of(asked(range(1, 2, 3, 3)), &FEATURES), [va(7, range(1, 2, 3, 0))]);
        assert_eq!(of(asked(range(1, 0, 0, 2)), &FEATURES), [va(7, None)], "Reserved without a level");
        assert_eq!(of(asked(range(2, 2, 3, 1)), &FEATURES), [Command::TlbiNhAsid { vmid: 3, asid: 7 }]);
        let short = Features { asid16: false, ..FEATURES };
        let by_asid = |asid| Command::TlbiNhAsid { vmid: 99, asid };
        assert_eq!(of(by_asid(0xff), &short), [Command::TlbiNhAsid { vmid: 3, asid: 0xff }]);
        assert_eq!(of(by_asid(0x100), &short), [Command::TlbiNhAll { vmid: 3 }]);
        assert_eq!(of(by_asid(0x100), &FEATURES), [Command::TlbiNhAsid { vmid: 3, asid: 0x100 }]);
        let long = Command::TlbiNhVa { vmid: 99, asid: 0xff00, reach: reach(None) };
        assert_eq!(of(long, &short), [Command::TlbiNhAll { vmid: 3 }]);
        let without = Features { range_invalidation: false, ..FEATURES };
        assert_eq!(of(asked(range(1, 2, 3, 0)), &without), [Command::TlbiNhAsid { vmid: 3, asid: 7 }]);
        let all = [Command::TlbiNhAll { vmid: 3 }];
        assert_eq!(of(Command::TlbiNhVaa { vmid: 99, reach: reach(range(1, 2, 3, 0)) }, &without), all);
        let vaa = Command::TlbiNhVaa { vmid: 3, reach: reach(None) };
        assert_eq!(of(Command::TlbiNhVaa { vmid: 99, reach: reach(None) }, &FEATURES), [vaa]);
        assert_eq!(
            of(Command::TlbiNhAsid { vmid: 99, asid: 7 }, &FEATURES),
            [Command::TlbiNhAsid { vmid: 3, asid: 7 }]
        );
        assert_eq!(of(Command::CfgiCdAll { stream: 8 }, &FEATURES), [Command::CfgiCdAll { stream: 8 }]);
        for other in [Command::TlbiNsnhAll, Command::CfgiAll, Command::TlbiS12Vmall { vmid: 99 }, Command::TlbiEl2All] {
            assert_eq!(of(other, &FEATURES), all, "no other VM's");
        }
        assert_eq!(stage1(3, &[], &FEATURES).steps(), [Step::Synchronize]);
    }

    #[test]
    fn without_ranges_much_is_everything() {
        let features = Features { range_invalidation: false, ..FEATURES };
        let few = commands(&procedure(3, range(0, 16 << 12), LEAVES, &features));
        assert_eq!(few.len(), MAX_COMMANDS);
        assert!(
            few.iter().all(|command| matches!(command, Command::TlbiS2Ipa { reach: Reach { range: None, .. }, .. }))
        );
        let many = commands(&procedure(3, range(0, 17 << 12), LEAVES, &features));
        assert_eq!(many, vec![Command::TlbiS12Vmall { vmid: 3 }]);
    }

    #[test]
    fn a_gigabyte_is_one_range() {
        let commands = commands(&procedure(3, range(1 << 30, 1 << 30), LEAVES, &FEATURES));
        let [
            Command::TlbiS2Ipa {
                reach: Reach { range: Some(Range { granule: 1, scale: 18, num: 0, level: 0 }), .. },
                ..
            },
        ] = commands[..]
        else {
            panic!("{commands:?}");
        };
    }

    proptest! {
        #[test]
    #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
        fn what_is_reached_is_the_range_without_gap(start in 0u64..1 << 36, pages in 1u64..1 << 36, ranges: bool) {
            let pages = if ranges { pages } else { pages % 24 + 1 };
            let Some(reaches) = reaches(range(start << 12, pages << 12), true, ranges) else {
                prop_assert!(!ranges && pages > MAX_COMMANDS as u64, "ranges always suffice");
                return Ok(());
            };
            let mut next = start << 12;
            for reach in reaches {
                prop_assert_eq!(reach.address, next);
                next += match reach.range {
                    None => 4096,
                    Some(range) => {
                        prop_assert!(range.num < 32 && range.scale < 32 && (range.num, range.scale) != (0, 0));
                        (u64::from(range.num) + 1) << range.scale << 12
                    }
                };
            }
            prop_assert_eq!(next, (start + pages) << 12);
        }
    }
}
