//! A driver that goes, and another that comes, while a service is about to look.

use super::*;
use crate::Features;
use crate::testing::{Driver, Offered};
use alloc::{string::String, vec};
use core::cell::RefCell;
use types::{Ipa, Lock};
use vdev::testkit::{Lines, Ram, Rig};
use vdev::{Deadlines, Effects, Identity, PulseSink, Services};

const RAM: u64 = 0x8000_0000;

struct Nowhere;

impl PulseSink for Nowhere {
    fn send(&self, _: u8) {}
}

impl Signals for Nowhere {
    fn used(&self, _: u16, _: &mut Context<'_>) {}
    fn changed(&self, _: &mut Context<'_>) {}
}

#[derive(Debug, PartialEq, Eq)]
enum Did {
    Begun(Features),
    Found(bool),
}

/// Takes what there is, and says what happened in which order.
struct Witness(Arc<Lock<Vec<Did>>>);

impl Service for Witness {
    fn begin(&mut self, features: Features) {
        self.0.lock().push(Did::Begun(features));
    }

    fn serve(&mut self, work: &mut Serving<'_, '_>) -> Next {
        let mut request = Request::new(4);
        let found = work.pop(&mut request);
        self.0.lock().push(Did::Found(found));
        if found { Next::Again } else { Next::Idle }
    }
}

#[test]
fn a_service_never_has_a_request_of_a_driver_that_it_does_not_know_of() {
    let (old, new) = (Features::VERSION_1, Features::VERSION_1 | Features::EVENT_IDX);
    let (ram, lines) = (Ram::new(Ipa(RAM), 0x1000), Lines::default());
    let log = Arc::<Lock<Vec<Did>>>::default();
    let (lane, state) = (Shared::<Lane>::default(), Arc::new(State::new(Arc::new(Nowhere), 1)));
    let mut post = Post::new(Box::new(Witness(log.clone())), 0..1, core::slice::from_ref(&lane), &state);

    // What the device does when a driver comes, with a request already there.
    let come = |features: Features, context: &mut Context<'_>| {
        let (layout, end) = Driver::place(RAM, 4);
        ram.write(Ipa(RAM), &vec![0; (end - RAM) as usize]).unwrap();
        let buffer = Offered { address: end, length: 4, writable: true };
        Driver::new(features, layout).offer(&ram, &[buffer], None).unwrap();
        state.start(features);
        lane.with(context, |lane, _| lane.open(Queue::new(features, &layout).unwrap(), &state));
        state.note(0);
    };
    let clock = Rig::clock();
    let identity = Identity { line: None, origin: String::new(), deadlines: Deadlines::new(clock, Arc::default()) };
    let services = Services { now: Ticks(0), memory: &ram, interrupts: &lines };
    let with_context = |work: &mut dyn FnMut(&mut Context<'_>)| {
        work(&mut Context::new(&services, &identity, &mut Effects::default()));
    };
    with_context(&mut |context| come(old, context));

    // The first time that the service wants something, another driver has just come.
    let first = RefCell::new(true);
    let gate = |work: &mut dyn FnMut(&mut Context<'_>)| {
        if first.replace(false) {
            with_context(&mut |context| {
                state.stop();
                lane.with(context, |lane, _| lane.close());
                state.forget();
                come(new, context);
            });
        }
        with_context(work);
    };
    let mut step = || post.step(&mut Work::new(Ticks(0), &ram, &gate, &Nowhere));
    assert_eq!(step(), Step::Again, "the new driver has notified");
    assert_eq!(step(), Step::Again);
    assert_eq!(step(), Step::Wait);
    let expected = [Did::Begun(old), Did::Found(false), Did::Begun(new), Did::Found(true), Did::Found(false)];
    assert_eq!(*log.lock(), expected);
}

/// Takes all that there is, and says how many those were.
struct Greedy(Arc<Lock<Vec<usize>>>);

impl Service for Greedy {
    fn serve(&mut self, work: &mut Serving<'_, '_>) -> Next {
        let mut request = Request::new(4);
        let mut count = 0;
        while work.pop(&mut request) {
            work.complete(&request).unwrap();
            count += 1;
        }
        self.0.lock().push(count);
        Next::Idle
    }
}

#[test]
fn a_device_that_is_held_finishes_what_it_has_and_takes_no_more() {
    let (ram, lines) = (Ram::new(Ipa(RAM), 0x1000), Lines::default());
    let log = Arc::<Lock<Vec<usize>>>::default();
    let (lane, state) = (Shared::<Lane>::default(), Arc::new(State::new(Arc::new(Nowhere), 1)));
    let mut post = Post::new(Box::new(Greedy(log.clone())), 0..1, core::slice::from_ref(&lane), &state);
    let clock = Rig::clock();
    let identity = Identity { line: None, origin: String::new(), deadlines: Deadlines::new(clock, Arc::default()) };
    let services = Services { now: Ticks(0), memory: &ram, interrupts: &lines };
    let with_context = |work: &mut dyn FnMut(&mut Context<'_>)| {
        work(&mut Context::new(&services, &identity, &mut Effects::default()));
    };
    let (layout, end) = Driver::place(RAM, 4);
    let mut driver = Driver::new(Features::VERSION_1, layout);
    for _ in 0..3 {
        driver.offer(&ram, &[Offered { address: end, length: 4, writable: true }], None).unwrap();
    }
    state.start(Features::VERSION_1);
    with_context(&mut |context| {
        lane.with(context, |lane, _| lane.open(Queue::new(Features::VERSION_1, &layout).unwrap(), &state));
    });
    state.note(0);
    // As soon as it has looked once it is held.
    let gate = |work: &mut dyn FnMut(&mut Context<'_>)| {
        with_context(work);
        state.hold(true);
    };
    let mut step = || post.step(&mut Work::new(Ticks(0), &ram, &gate, &Nowhere));
    assert_eq!(step(), Step::Wait);
    state.note(0);
    assert_eq!((step(), log.lock().clone()), (Step::Wait, vec![1]), "a note stays");
    assert!(state.hold(false), "it was held");
    assert_eq!((step(), log.lock().clone()), (Step::Wait, vec![1, 1]));
    assert!(driver.take_used(&ram).is_some() && driver.take_used(&ram).is_some() && driver.take_used(&ram).is_none());
}
