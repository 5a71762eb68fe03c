//! Queues that are full, that stop, that overflow, that never answer; and streams that are not to be had.

use super::world::{PATIENCE, STREAMS, World};
use super::{Model, Outcome};
use crate::registers::{
    CMDQ_CONS_OFFSET, CMDQ_PROD_OFFSET, CR0ACK_OFFSET, EVENTQ_PROD_OFFSET, GBPA_OFFSET, GERROR_OFFSET, GERRORN_OFFSET,
    IRQ_CTRLACK_OFFSET,
};
use crate::{
    Command, CommandError, GlobalErrors, Kind, Procedure, Progress, Registers, Step, Trouble, Walks, close, turn_off,
};
use std::cell::{Cell, RefCell};
use std::vec::Vec;
use types::{Ipa, Range, Ticks};

fn world() -> World {
    World::new(1, |_| {}, None)
}

/// Forgets all of VM 1.
fn forget() -> Procedure {
    let mut procedure = Procedure::default();
    procedure.then_all([Step::Issue(Command::TlbiS12Vmall { vmid: 1 }), Step::Synchronize]);
    procedure
}

/// Nobody has started it; time goes on when it is looked at.
fn closed(model: &mut Model) -> Result<(), Trouble> {
    let (now, model) = (Cell::new(0), RefCell::new(model));
    let clock = || {
        model.borrow_mut().tick();
        now.set(now.get() + 1);
        Ticks(now.get())
    };
    close(&mut Shared(&model), clock, PATIENCE)
}

struct Shared<'a>(&'a RefCell<&'a mut Model>);

impl Registers for Shared<'_> {
    fn get(&mut self, offset: usize) -> u32 {
        self.0.borrow_mut().get(offset)
    }

    fn set(&mut self, offset: usize, value: u32) {
        self.0.borrow_mut().set(offset, value);
    }
}

#[test]
fn one_that_is_not_to_be_used_is_closed() {
    // As somebody has left it: on, with streams that are let through.
    let mut model = Model::new(1);
    assert_eq!(closed(&mut model), Ok(()));
    assert!(!model.is_translating());
    assert_eq!(model.get(GBPA_OFFSET), 1 << 20, "ABORT, and the update is done");
    assert_eq!((model.get(CR0ACK_OFFSET) & 0x1f, model.get(IRQ_CTRLACK_OFFSET) & 7), (0, 0));
    assert_eq!(model.get(GERROR_OFFSET), model.get(GERRORN_OFFSET));
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn one_that_is_turned_off_aborts_what_it_has_let_through() {
    let mut world = world();
    assert_eq!(world.attach(0, STREAMS[0]), Ok(()));
    let model = &mut world.machine.borrow_mut().model;
    turn_off(model);
    while model.is_translating() {
        model.tick();
    }
    assert_eq!(model.transact(STREAMS[0], 0x10), Outcome::Aborted(0));
}

#[test]
fn one_that_does_not_even_close_is_told_of() {
    struct Nothing;
    impl Registers for Nothing {
        fn get(&mut self, _: usize) -> u32 {
            u32::MAX
        }
        fn set(&mut self, _: usize, _: u32) {}
    }
    let now = Cell::new(0);
    let clock = || {
        now.set(now.get() + 1);
        Ticks(now.get())
    };
    let late = close(&mut Nothing, clock, PATIENCE);
    assert!(matches!(late, Err(Trouble::Late(Step::Await { register: GBPA_OFFSET, .. }))), "{late:?}");
    assert_eq!(now.get(), PATIENCE.0 + 1);
}

fn finish(world: &World, procedure: &mut Procedure) -> Progress {
    let machine = &mut *world.machine.borrow_mut();
    for now in 0..PATIENCE.0 + 10 {
        let progress = machine.smmu.advance(procedure, Ticks(now), &mut machine.model);
        if progress != Progress::Waiting {
            return progress;
        }
        machine.model.tick();
    }
    panic!("it waits for ever");
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn more_commands_than_the_queue_has_room_for_go_through_it() {
    let world = world();
    let walks = Walks { tables: true, nested: true };
    // 12 commands, through a queue of 4.
    let range = Range::new(Ipa(0x1000), 0xaaa_aaaa_a000).unwrap();
    let mut procedure = world.machine.borrow().smmu.invalidate(1, range, walks);
    assert!(procedure.steps().len() > 8);
    assert_eq!(finish(&world, &mut procedure), Progress::Done);
    for _ in 0..20 {
        assert_eq!(finish(&world, &mut forget()), Progress::Done, "round and round");
    }
}

/// Gives a stream to VM 1, as far as `steps`, and takes it away in between; then goes on, if it is to.
fn overtaken(steps: usize, goes_on: bool) -> Outcome {
    let mut world = world();
    assert_eq!(world.attach(0, STREAMS[0]), Ok(()));
    world.map(0, 0x10);
    let stage2 = crate::Stage2 {
        vtcr: world.vms[0].stage2.layout().vtcr(pagetable::VmidSize::Bits16),
        root: world.vms[0].stage2.root(),
    };
    let owner = world.vms[0].owner.clone();
    let machine = world.machine.clone();
    let mut given = world.streams.attach(STREAMS[0], &owner, &stage2, None, &machine.borrow().smmu).unwrap();
    let all = given.steps.clone();
    given.steps.truncate(steps);
    assert_eq!(finish(&world, &mut given), Progress::Done);
    given.steps = all;
    let mut taken = world.streams.detach(STREAMS[0], &owner, true, &machine.borrow().smmu).unwrap();
    assert_eq!(finish(&world, &mut taken), Progress::Done);
    if goes_on || world.streams.is_current(&given) {
        assert_eq!(finish(&world, &mut given), Progress::Done);
    }
    machine.borrow_mut().model.transact(STREAMS[0], 0x10)
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn a_change_that_another_has_overtaken_is_abandoned_wherever_it_is() {
    for steps in 0..12 {
        assert!(matches!(overtaken(steps, false), Outcome::Aborted(_)), "after {steps} steps");
    }
    assert!(
        (0..12).any(|steps| !matches!(overtaken(steps, true), Outcome::Aborted(0))),
        "else this test shows nothing"
    );
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn who_is_kept_from_it_for_long_does_not_find_the_smmu_late() {
    let world = world();
    let machine = &mut *world.machine.borrow_mut();
    let mut procedure =
        machine.smmu.invalidate(1, Range::new(Ipa(0x1000), 0x1000).unwrap(), Walks { tables: true, nested: true });
    let mut now = 0;
    // The SMMU has long done what it has been told by the time that anybody looks.
    while machine.smmu.advance(&mut procedure, Ticks(now), &mut machine.model) == Progress::Waiting {
        now += PATIENCE.0 + 1;
        (0..100).for_each(|_| machine.model.tick());
    }
    assert!(procedure.is_done());
}

#[test]
fn what_somebody_elses_command_has_spoilt_is_done_again() {
    let world = world();
    world.machine.borrow_mut().model.rejects = Some(Command::TlbiS12Vmall { vmid: 1 }.encode()[0]);
    let mut procedure = forget();
    assert!(matches!(finish(&world, &mut procedure), Progress::Failed(Trouble::Command(_))));
    world.machine.borrow_mut().model.rejects = None;
    assert!(procedure.again());
    assert_eq!(finish(&world, &mut procedure), Progress::Done);
    assert!(!procedure.again(), "there is no need");
}

#[test]
fn a_command_that_is_not_taken_is_skipped_and_told() {
    let world = world();
    let command = Command::TlbiS12Vmall { vmid: 1 };
    world.machine.borrow_mut().model.rejects = Some(command.encode()[0]);
    let mut procedure = forget();
    let expected = Trouble::Command(CommandError::Ill(Some(command)));
    assert_eq!(finish(&world, &mut procedure), Progress::Failed(expected));
    assert!(!procedure.is_done());
    assert_eq!(finish(&world, &mut procedure), Progress::Failed(expected), "it does not begin again");
    // What comes behind is not harmed.
    let mut next = Procedure::default();
    next.then_all([Step::Issue(Command::CfgiAll), Step::Synchronize]);
    assert_eq!(finish(&world, &mut next), Progress::Done);
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn a_failed_detachment_leaves_the_stream_where_it_is() {
    let mut world = world();
    assert_eq!(world.attach(0, STREAMS[0]), Ok(()));
    world.machine.borrow_mut().model.rejects = Some(Command::CfgiSte { stream: STREAMS[0], leaf: true }.encode()[0]);
    assert_eq!(world.detach(0, STREAMS[0], false), Ok(()));
    assert!(world.machine.borrow().trouble.is_some());
    let refused = world.attach(1, STREAMS[0]).unwrap_err();
    assert_eq!(
        std::string::ToString::to_string(&refused),
        "`device0` (stream 0x8) belongs to `vm1`: `vm2` cannot have it, too"
    );
    world.machine.borrow_mut().model.rejects = None;
    assert_eq!(world.detach(0, STREAMS[0], false), Ok(()));
    assert_eq!(world.attach(1, STREAMS[0]), Ok(()));
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn an_smmu_that_does_not_answer_is_given_up_in_time() {
    let world = world();
    world.machine.borrow_mut().model.is_stuck = true;
    assert_eq!(finish(&world, &mut forget()), Progress::Failed(Trouble::Late(Step::Synchronize)));
    // The queue of 4 has two commands of the procedure above; there is no room for these.
    let mut procedure = Procedure::default();
    procedure.then_all([Step::Issue(Command::CfgiAll), Step::Issue(Command::CfgiAll), Step::Issue(Command::CfgiAll)]);
    assert_eq!(finish(&world, &mut procedure), Progress::Failed(Trouble::Late(Step::Issue(Command::CfgiAll))));
}

#[test]
fn an_smmu_that_says_that_it_is_ahead_is_not_believed() {
    let world = world();
    {
        let model = &mut world.machine.borrow_mut().model;
        let ahead = model.get(CMDQ_PROD_OFFSET).wrapping_add(3) & 7;
        model.is_stuck = true;
        model.force(CMDQ_CONS_OFFSET, ahead);
    }
    assert_eq!(finish(&world, &mut forget()), Progress::Failed(Trouble::Nonsense));
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn other_reasons_to_stop_are_told_and_tried_again() {
    for (code, error) in [(2, CommandError::Abt), (3, CommandError::AtcInvSync), (9, CommandError::Other(9))] {
        let world = world();
        {
            let model = &mut world.machine.borrow_mut().model;
            let cons = model.get(CMDQ_CONS_OFFSET) & 0xf_ffff;
            let gerror = model.get(GERROR_OFFSET) ^ 1;
            model.force(CMDQ_CONS_OFFSET, cons | code << 24);
            model.force(GERROR_OFFSET, gerror);
        }
        assert_eq!(finish(&world, &mut forget()), Progress::Failed(Trouble::Command(error)));
        assert_eq!(finish(&world, &mut forget()), Progress::Done);
    }
}

#[test]
fn events_come_out_in_order_and_lost_ones_are_counted() {
    let world = world();
    let machine = &mut *world.machine.borrow_mut();
    let record = |stream: u64| [0x04 | stream << 32, 0, 0, 0];
    let mut taken = Vec::new();
    // The queue has room for 4; 7 and 8 are lost.
    for stream in 1..=8 {
        machine.model.record(record(stream));
        if stream == 2 {
            taken.extend(machine.smmu.events.take(&mut machine.model).map(|event| event.stream));
            taken.extend(machine.smmu.events.take(&mut machine.model).map(|event| event.stream));
            assert_eq!(machine.smmu.events.take(&mut machine.model), None);
        }
    }
    while let Some(event) = machine.smmu.events.take(&mut machine.model) {
        assert_eq!(event.kind, Kind::BadSte);
        taken.push(event.stream);
    }
    assert_eq!(taken, [1, 2, 3, 4, 5, 6]);
    assert_eq!((machine.smmu.events.recorded(), machine.smmu.events.overflows()), (6, 1));
    // The overflow has been acknowledged, so that a second one is noticed.
    for stream in 0..6 {
        machine.model.record(record(stream));
    }
    while machine.smmu.events.take(&mut machine.model).is_some() {}
    assert_eq!((machine.smmu.events.recorded(), machine.smmu.events.overflows()), (10, 2));
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn an_event_queue_that_cannot_be_is_emptied() {
    let world = world();
    let machine = &mut *world.machine.borrow_mut();
    machine.model.force(EVENTQ_PROD_OFFSET, 6);
    assert_eq!(machine.smmu.events.take(&mut machine.model), None);
    assert_eq!((machine.smmu.events.recorded(), machine.smmu.events.overflows()), (0, 1));
    machine.model.record([0x04 | 5 << 32, 0, 0, 0]);
    assert_eq!(machine.smmu.events.take(&mut machine.model).map(|event| event.stream), Some(5));
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn global_errors_are_acknowledged_but_the_command_queues() {
    let world = world();
    let machine = &mut *world.machine.borrow_mut();
    let gerrorn = machine.model.get(GERRORN_OFFSET);
    machine.model.force(GERROR_OFFSET, gerrorn ^ (1 | 1 << 2 | 1 << 8));
    let both = GlobalErrors { failed: true, events_lost: true };
    assert_eq!(machine.smmu.global_errors(&mut machine.model), both);
    assert_eq!(machine.model.get(GERRORN_OFFSET), gerrorn ^ (1 << 2 | 1 << 8));
    assert_eq!(machine.smmu.global_errors(&mut machine.model), GlobalErrors::default());
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn a_device_that_is_let_through_is_let_through_by_name_only() {
    let mut world = world();
    assert_eq!(world.attach(0, STREAMS[3]), Ok(()));
    assert_eq!(world.detach(0, STREAMS[3], false), Ok(()));
    let owner = world.vms[0].owner.clone();
    let machine = &mut *world.machine.borrow_mut();
    let mut procedure = world.streams.bypass(STREAMS[3], &owner, &machine.smmu).unwrap();
    let _ = machine.run(&mut procedure, super::world::Purpose::Attach);
    assert_eq!(machine.model.transact(STREAMS[3], 0x10), Outcome::Passed);
    assert!(world.streams.bypass(STREAMS[0], &owner, &machine.smmu).is_err());
}
