//! Recorded schedules: one sentence of the policy each.

use super::*;
use crate::{Parameters, Priority, RemoveError, ShareId, SpawnError, State};

const SLICE: Ticks = Ticks(100);
const CPU0: CpuId = CpuId(0);
const CPU1: CpuId = CpuId(1);

/// A scheduler whose CPUs are all online and idle.
fn online(cpus: usize) -> Scheduler {
    let mut scheduler = Scheduler::new(cpus, SLICE, 16);
    for cpu in 0..cpus as u16 {
        let choice = scheduler.pick(CpuId(cpu), false, Ticks(0));
        assert_eq!(choice, Choice { thread: None, until: Ticks::NEVER, vacate: false, kick: CpuSet::EMPTY });
    }
    scheduler
}

fn spawn(scheduler: &mut Scheduler, priority: u8, policy: Policy, affinity: CpuSet) -> ThreadId {
    let priority = Priority::new(priority).unwrap();
    scheduler.spawn(Parameters { priority, policy, affinity, share: ShareId::SYSTEM }).unwrap()
}

/// A round-robin thread that may run anywhere.
fn robin(scheduler: &mut Scheduler, priority: u8) -> ThreadId {
    spawn(scheduler, priority, Policy::RoundRobin, CpuSet(u64::MAX))
}

fn run(scheduler: &mut Scheduler, cpu: CpuId, now: u64) -> Option<ThreadId> {
    scheduler.pick(cpu, false, Ticks(now)).thread
}

/// Spawns and wakes a thread on `cpu` and lets it run there.
fn running(scheduler: &mut Scheduler, cpu: CpuId, priority: u8) -> ThreadId {
    let thread = spawn(scheduler, priority, Policy::RoundRobin, CpuSet::of(cpu));
    assert_eq!(scheduler.wake(thread, Ticks(0)), Some(cpu));
    assert_eq!(run(scheduler, cpu, 0), Some(thread));
    thread
}

#[test]
fn a_spawned_thread_waits_for_its_first_wake() {
    let mut scheduler = online(1);
    let thread = robin(&mut scheduler, 10);
    assert_eq!(run(&mut scheduler, CPU0, 0), None);
    assert_eq!(scheduler.status(thread, Ticks(0)).unwrap().state, State::Blocked);
    assert_eq!(scheduler.wake(thread, Ticks(0)), Some(CPU0));
    assert_eq!(scheduler.status(thread, Ticks(0)).unwrap().state, State::Ready);
    assert_eq!(run(&mut scheduler, CPU0, 0), Some(thread));
    assert_eq!(scheduler.status(thread, Ticks(0)).unwrap().state, State::Running(CPU0));
}

#[test]
fn a_thread_alone_at_its_priority_has_no_time_limit() {
    let mut scheduler = online(1);
    let (low, high) = (robin(&mut scheduler, 5), robin(&mut scheduler, 10));
    assert_eq!(scheduler.wake(low, Ticks(0)), Some(CPU0));
    assert_eq!(scheduler.wake(high, Ticks(0)), Some(CPU0));
    let choice = scheduler.pick(CPU0, false, Ticks(0));
    assert_eq!((choice.thread, choice.until), (Some(high), Ticks::NEVER));
}

#[test]
fn equals_take_turns_of_one_slice() {
    let mut scheduler = online(1);
    let threads = [(); 3].map(|()| robin(&mut scheduler, 10));
    for thread in threads {
        let _ = scheduler.wake(thread, Ticks(0));
    }
    let mut now = Ticks(0);
    for turn in 0..12 {
        let choice = scheduler.pick(CPU0, false, now);
        assert_eq!(choice.thread, Some(threads[turn % 3]));
        assert_eq!(choice.until, Ticks(now.0 + SLICE.0));
        now = choice.until;
    }
    assert_eq!(scheduler.status(threads[0], now).unwrap().run_time, Ticks(400));
    assert_eq!(scheduler.status(threads[1], now).unwrap().run_time, Ticks(400));
}

#[test]
fn an_early_pick_leaves_the_rest_of_the_slice() {
    let mut scheduler = online(1);
    let threads = [(); 2].map(|()| robin(&mut scheduler, 10));
    for thread in threads {
        let _ = scheduler.wake(thread, Ticks(0));
    }
    assert_eq!(run(&mut scheduler, CPU0, 0), Some(threads[0]));
    let choice = scheduler.pick(CPU0, false, Ticks(30));
    assert_eq!((choice.thread, choice.until), (Some(threads[0]), Ticks(100)));
}

#[test]
fn an_equal_that_comes_later_makes_a_limit() {
    let mut scheduler = online(1);
    let first = running(&mut scheduler, CPU0, 10);
    let second = robin(&mut scheduler, 10);
    // The first has had 40 of its slice, unlimited so far.
    assert_eq!(scheduler.wake(second, Ticks(40)), Some(CPU0));
    let early = robin(&mut scheduler, 10);
    assert_eq!(scheduler.wake(early, Ticks(40)), None, "it is coming already");
    let choice = scheduler.pick(CPU0, false, Ticks(40));
    assert_eq!((choice.thread, choice.until), (Some(first), Ticks(100)));
    // A third one need not tell anybody: the limit is there.
    let third = robin(&mut scheduler, 10);
    assert_eq!(scheduler.wake(third, Ticks(50)), None);
    assert_eq!(run(&mut scheduler, CPU0, 100), Some(second));
}

#[test]
fn a_fifo_thread_is_not_limited_by_its_equals() {
    let mut scheduler = online(1);
    let fifo = spawn(&mut scheduler, 10, Policy::Fifo, CpuSet::of(CPU0));
    let other = robin(&mut scheduler, 10);
    assert_eq!(scheduler.wake(fifo, Ticks(0)), Some(CPU0));
    assert_eq!(run(&mut scheduler, CPU0, 0), Some(fifo));
    assert_eq!(scheduler.wake(other, Ticks(0)), None);
    let choice = scheduler.pick(CPU0, false, Ticks(100_000));
    assert_eq!((choice.thread, choice.until), (Some(fifo), Ticks::NEVER));
    assert_eq!(scheduler.pick(CPU0, true, Ticks(100_000)).thread, Some(other));
}

#[test]
fn a_preempted_thread_goes_to_the_front_and_keeps_the_rest_of_its_slice() {
    let mut scheduler = online(1);
    let (first, second) = (robin(&mut scheduler, 10), robin(&mut scheduler, 10));
    let urgent = robin(&mut scheduler, 20);
    let _ = scheduler.wake(first, Ticks(0));
    let _ = scheduler.wake(second, Ticks(0));
    assert_eq!(run(&mut scheduler, CPU0, 0), Some(first));
    assert_eq!(scheduler.wake(urgent, Ticks(30)), Some(CPU0));
    assert_eq!(run(&mut scheduler, CPU0, 30), Some(urgent));
    scheduler.block(CPU0, Ticks(50));
    let choice = scheduler.pick(CPU0, false, Ticks(50));
    assert_eq!((choice.thread, choice.until), (Some(first), Ticks(120)));
}

#[test]
fn a_yield_lets_equals_run_and_nobody_below() {
    let mut scheduler = online(1);
    let (a, b, low) = (robin(&mut scheduler, 10), robin(&mut scheduler, 10), robin(&mut scheduler, 9));
    for thread in [a, b, low] {
        let _ = scheduler.wake(thread, Ticks(0));
    }
    assert_eq!(run(&mut scheduler, CPU0, 0), Some(a));
    assert_eq!(scheduler.pick(CPU0, true, Ticks(1)).thread, Some(b));
    assert_eq!(scheduler.pick(CPU0, true, Ticks(2)).thread, Some(a));
    scheduler.block(CPU0, Ticks(3));
    assert_eq!(run(&mut scheduler, CPU0, 3), Some(b));
    assert_eq!(scheduler.pick(CPU0, true, Ticks(4)).thread, Some(b));
    // That one was for nothing, and is over.
    let _ = scheduler.wake(a, Ticks(5));
    assert_eq!(run(&mut scheduler, CPU0, 5), Some(b));
}

#[test]
fn a_thread_that_blocked_last_stays_on_its_cpu_until_that_runs_another() {
    let mut scheduler = online(2);
    let thread = robin(&mut scheduler, 10);
    let _ = scheduler.wake(thread, Ticks(0));
    assert_eq!(run(&mut scheduler, CPU0, 0), Some(thread));
    scheduler.block(CPU0, Ticks(1));
    assert_eq!(run(&mut scheduler, CPU0, 1), None);
    assert_eq!(scheduler.status(thread, Ticks(1)).unwrap().resident, Some(CPU0));
    // Woken, it can only be had where its registers are.
    assert_eq!(scheduler.wake(thread, Ticks(2)), Some(CPU0));
    assert_eq!(run(&mut scheduler, CPU1, 2), None);
    assert_eq!(run(&mut scheduler, CPU0, 2), Some(thread));
    // When its CPU runs another, it is free.
    scheduler.block(CPU0, Ticks(3));
    let other = spawn(&mut scheduler, 5, Policy::RoundRobin, CpuSet::of(CPU0));
    assert_eq!(scheduler.wake(other, Ticks(3)), Some(CPU0));
    assert_eq!(run(&mut scheduler, CPU0, 3), Some(other));
    assert_eq!(scheduler.status(thread, Ticks(3)).unwrap().resident, None);
    assert_eq!(scheduler.wake(thread, Ticks(4)), Some(CPU1), "it goes where nothing runs");
}

#[test]
fn a_resident_thread_that_is_not_taken_is_sent_elsewhere() {
    let mut scheduler = online(2);
    let floating = robin(&mut scheduler, 10);
    let _ = scheduler.wake(floating, Ticks(0));
    assert_eq!(run(&mut scheduler, CPU0, 0), Some(floating));
    scheduler.block(CPU0, Ticks(0));
    let pinned = spawn(&mut scheduler, 20, Policy::RoundRobin, CpuSet::of(CPU0));
    assert_eq!(scheduler.wake(floating, Ticks(1)), Some(CPU0));
    assert_eq!(scheduler.wake(pinned, Ticks(1)), Some(CPU0));
    let choice = scheduler.pick(CPU0, false, Ticks(1));
    assert_eq!((choice.thread, choice.kick), (Some(pinned), CpuSet::of(CPU1)));
    assert_eq!(run(&mut scheduler, CPU1, 1), Some(floating));
}

#[test]
fn a_resident_thread_that_may_no_longer_run_there_makes_the_cpu_leave_its_stack() {
    let mut scheduler = online(2);
    let thread = running(&mut scheduler, CPU0, 10);
    scheduler.block(CPU0, Ticks(0));
    assert_eq!(run(&mut scheduler, CPU0, 0), None);
    assert_eq!(scheduler.set_affinity(thread, CpuSet::of(CPU1)), Ok(None));
    assert_eq!(scheduler.wake(thread, Ticks(1)), Some(CPU0));
    let choice = scheduler.pick(CPU0, false, Ticks(1));
    assert_eq!(choice, Choice { thread: None, until: Ticks::NEVER, vacate: true, kick: CpuSet::of(CPU1) });
    assert_eq!(run(&mut scheduler, CPU1, 1), Some(thread));
}

#[test]
fn a_running_thread_that_is_moved_leaves_at_the_next_pick() {
    let mut scheduler = online(2);
    let thread = running(&mut scheduler, CPU0, 10);
    assert_eq!(scheduler.set_affinity(thread, CpuSet::of(CPU1)), Ok(Some(CPU0)));
    let choice = scheduler.pick(CPU0, false, Ticks(1));
    assert_eq!((choice.thread, choice.vacate, choice.kick), (None, true, CpuSet::of(CPU1)));
    assert_eq!(run(&mut scheduler, CPU1, 1), Some(thread));
}

#[test]
fn only_a_blocked_thread_whose_stack_nobody_uses_can_be_removed() {
    let mut scheduler = online(1);
    let thread = running(&mut scheduler, CPU0, 10);
    assert_eq!(scheduler.remove(thread), Err(RemoveError::NotBlocked));
    assert_eq!(scheduler.evict(thread), None, "a running thread cannot be evicted");
    scheduler.block(CPU0, Ticks(0));
    assert_eq!(run(&mut scheduler, CPU0, 0), None);
    assert_eq!(scheduler.remove(thread), Err(RemoveError::Resident));
    assert_eq!(scheduler.evict(thread), Some(CPU0));
    assert!(scheduler.pick(CPU0, false, Ticks(1)).vacate);
    assert_eq!(scheduler.remove(thread), Ok(()));
    assert_eq!(scheduler.remove(thread), Err(RemoveError::NoThread));
}

#[test]
fn an_identifier_never_names_a_later_thread() {
    let mut scheduler = online(1);
    let old = robin(&mut scheduler, 10);
    scheduler.remove(old).unwrap();
    let new = robin(&mut scheduler, 10);
    assert_eq!(old.index(), new.index());
    assert_eq!(scheduler.wake(old, Ticks(0)), None);
    assert_eq!(scheduler.status(old, Ticks(0)), None);
    assert_eq!(scheduler.wake(new, Ticks(0)), Some(CPU0));
}

#[test]
fn a_wake_before_the_block_is_not_lost() {
    let mut scheduler = online(1);
    let thread = running(&mut scheduler, CPU0, 10);
    assert_eq!(scheduler.wake(thread, Ticks(1)), None);
    scheduler.block(CPU0, Ticks(2));
    assert_eq!(run(&mut scheduler, CPU0, 2), Some(thread));
    scheduler.block(CPU0, Ticks(3));
    assert_eq!(run(&mut scheduler, CPU0, 3), None, "one wake undoes one block");
}

#[test]
fn two_wakes_in_a_row_call_two_idle_cpus() {
    let mut scheduler = online(2);
    let (a, b) = (robin(&mut scheduler, 10), robin(&mut scheduler, 10));
    let first = scheduler.wake(a, Ticks(0)).unwrap();
    let second = scheduler.wake(b, Ticks(0)).unwrap();
    assert_ne!(first, second);
}

#[test]
fn a_woken_thread_prefers_its_last_cpu_then_an_idle_one_then_the_least_urgent() {
    let mut scheduler = online(3);
    let thread = robin(&mut scheduler, 10);
    let _ = running(&mut scheduler, CPU0, 4);
    let _ = running(&mut scheduler, CPU1, 3);
    let on_2 = running(&mut scheduler, CpuId(2), 20);
    assert_eq!(scheduler.wake(thread, Ticks(0)), Some(CPU1), "the least urgent");
    assert_eq!(run(&mut scheduler, CPU1, 0), Some(thread));
    scheduler.block(CPU1, Ticks(1));
    assert!(run(&mut scheduler, CPU1, 1).is_some());
    scheduler.block(CpuId(2), Ticks(1));
    assert_eq!(run(&mut scheduler, CpuId(2), 1), None);
    assert_eq!(scheduler.wake(thread, Ticks(2)), Some(CpuId(2)), "an idle one");
    assert_eq!(run(&mut scheduler, CpuId(2), 2), Some(thread));
    scheduler.block(CpuId(2), Ticks(3));
    scheduler.block(CPU0, Ticks(3));
    assert_eq!(scheduler.wake(on_2, Ticks(3)), Some(CpuId(2)));
    assert_eq!(run(&mut scheduler, CpuId(2), 3), Some(on_2));
    scheduler.block(CpuId(2), Ticks(4));
    assert_eq!(run(&mut scheduler, CPU0, 4), None);
    assert_eq!(run(&mut scheduler, CpuId(2), 4), None);
    assert_eq!(scheduler.wake(thread, Ticks(5)), Some(CpuId(2)), "its last, though CPU 0 is idle too");
}

#[test]
fn a_thread_pushed_aside_by_a_pinned_one_is_sent_to_an_idle_cpu() {
    let mut scheduler = online(2);
    let floating = robin(&mut scheduler, 10);
    assert_eq!(scheduler.wake(floating, Ticks(0)), Some(CPU0));
    assert_eq!(run(&mut scheduler, CPU0, 0), Some(floating));
    let pinned = spawn(&mut scheduler, 20, Policy::RoundRobin, CpuSet::of(CPU0));
    assert_eq!(scheduler.wake(pinned, Ticks(1)), Some(CPU0));
    assert_eq!(scheduler.pick(CPU0, false, Ticks(1)).kick, CpuSet::of(CPU1));
    assert_eq!(run(&mut scheduler, CPU1, 1), Some(floating));
}

#[test]
fn nobody_waits_for_a_cpu_that_is_not_there_yet() {
    let mut scheduler = Scheduler::new(2, SLICE, 4);
    assert_eq!(run(&mut scheduler, CPU0, 0), None);
    let threads = [(); 3].map(|()| robin(&mut scheduler, 10));
    assert_eq!(scheduler.wake(threads[0], Ticks(0)), Some(CPU0));
    assert_eq!(scheduler.wake(threads[1], Ticks(0)), None);
    assert_eq!(run(&mut scheduler, CPU1, 1), Some(threads[0]), "it helps as soon as it is");
}

#[test]
fn a_lowered_thread_makes_way() {
    let mut scheduler = online(1);
    let (a, b) = (robin(&mut scheduler, 10), robin(&mut scheduler, 8));
    let _ = scheduler.wake(a, Ticks(0));
    let _ = scheduler.wake(b, Ticks(0));
    assert_eq!(run(&mut scheduler, CPU0, 0), Some(a));
    assert_eq!(scheduler.set_priority(a, Priority::new(7).unwrap()), Some(CPU0));
    assert_eq!(run(&mut scheduler, CPU0, 1), Some(b));
    assert_eq!(scheduler.set_priority(a, Priority::new(9).unwrap()), Some(CPU0));
    assert_eq!(run(&mut scheduler, CPU0, 2), Some(a));
}

#[test]
fn a_ready_thread_can_leave_its_equals_from_any_place_among_them() {
    for place in 0..4 {
        let mut scheduler = online(1);
        let mut threads = alloc::vec::Vec::from([(); 4].map(|()| robin(&mut scheduler, 10)));
        for &thread in &threads {
            let _ = scheduler.wake(thread, Ticks(0));
        }
        let raised = threads.remove(place);
        assert_eq!(scheduler.set_priority(raised, Priority::new(70).unwrap()), Some(CPU0));
        let late = robin(&mut scheduler, 10);
        let _ = scheduler.wake(late, Ticks(0));
        // The raised one, the others in their order, the one that came last, nobody.
        let order = [&[raised], &threads[..], &[late]].concat();
        for expected in order {
            assert_eq!(run(&mut scheduler, CPU0, 1), Some(expected), "place {place}");
            scheduler.block(CPU0, Ticks(1));
        }
        assert_eq!(run(&mut scheduler, CPU0, 1), None);
    }
}

#[test]
fn times_add_up() {
    let mut scheduler = online(1);
    let (a, b) = (robin(&mut scheduler, 10), robin(&mut scheduler, 20));
    let _ = scheduler.wake(a, Ticks(0));
    assert_eq!(run(&mut scheduler, CPU0, 5), Some(a));
    let _ = scheduler.wake(b, Ticks(10));
    assert_eq!(run(&mut scheduler, CPU0, 12), Some(b));
    scheduler.block(CPU0, Ticks(20));
    assert_eq!(run(&mut scheduler, CPU0, 21), Some(a));
    let (a, b) = (scheduler.status(a, Ticks(25)).unwrap(), scheduler.status(b, Ticks(25)).unwrap());
    assert_eq!((a.run_time, a.waiting_time), (Ticks(7 + 4), Ticks(5 + 9)));
    assert_eq!((b.run_time, b.waiting_time), (Ticks(8), Ticks(2)));
}

#[test]
fn errors_name_what_is_wrong() {
    let mut scheduler = Scheduler::new(2, SLICE, 1);
    let parameters = Parameters {
        priority: Priority::LOWEST,
        policy: Policy::Fifo,
        affinity: CpuSet(0b1100),
        share: ShareId::SYSTEM,
    };
    assert_eq!(scheduler.spawn(parameters), Err(SpawnError::NoCpu));
    let parameters = Parameters { affinity: CpuSet(0b1110), ..parameters };
    let thread = scheduler.spawn(parameters).unwrap();
    assert_eq!(scheduler.status(thread, Ticks(0)).unwrap().parameters.affinity, CpuSet::of(CPU1));
    assert_eq!(scheduler.spawn(parameters), Err(SpawnError::TooManyThreads));
    assert_eq!(Priority::new(0), None);
}

#[test]
fn affinities_are_given_back() {
    let mut scheduler = Scheduler::new(16, SLICE, 100);
    let affinity = |n: u64| CpuSet(n * 3 + 1);
    for round in 0..2 {
        let threads: alloc::vec::Vec<_> =
            (0..64).map(|n| spawn(&mut scheduler, 1, Policy::Fifo, affinity(round * 64 + n))).collect();
        let one_more = Parameters {
            priority: Priority::LOWEST,
            policy: Policy::Fifo,
            affinity: affinity(5000),
            share: ShareId::SYSTEM,
        };
        assert_eq!(scheduler.spawn(one_more), Err(SpawnError::TooManyAffinities));
        for thread in threads {
            scheduler.remove(thread).unwrap();
        }
    }
}
