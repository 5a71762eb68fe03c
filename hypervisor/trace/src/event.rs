//! Events, and the record that each of them is: four little-endian words.
//!
//! | Word | Bits | |
//! |---|---|---|
//! | 0 | 55:0 | when: the system counter, which is 56 bits wide or wraps after longer than anybody waits (DDI 0487, "The Generic Timer") |
//! | | 63:56 | the CPU |
//! | 1 | 9:0, 14:10 | number and class, as in the header of the original's events |
//! | | 23:16 | the VM's number on the console, [`HOST`] if it is about none |
//! | | 29:24 | the vCPU |
//! | | 31:30 | how the guest was left: `types::RawExitKind` |
//! | | 63:32 | the first argument |
//! | 2, 3 | | the others |

use types::{RawExitKind, Ticks, VcpuId};

/// The VM's number of what is not about a VM: that of the shell.
pub const HOST: u8 = 0;

/// Bytes of a name in one record.
pub const NAME_PART: usize = 16;

/// Bytes of a record.
pub const RECORD: usize = 32;

/// An event as it is recorded.
pub type Record = [u64; RECORD / 8];

/// Something that has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When: the system counter.
    pub at: Ticks,
    /// The CPU where it was noticed.
    pub cpu: u8,
    /// The VM that it is about, by its number on the console, or [`HOST`].
    pub vm: u8,
    /// Which of its vCPUs; 0 if it is not about one.
    pub vcpu: VcpuId,
    /// What.
    pub what: What,
}

/// What can happen. Threads go by their index in the scheduler's table, which is used again: what was named last counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// So many events found no room in the ring before this one (class 1, number 32: our own). The last event of a capture is
    /// one, with what was lost at the end, if anything.
    Lost(u64),
    /// A host interrupt was taken (class 3, number 1: `_TRACE_INT_ENTRY`).
    Interrupt(u32),
    /// A thread runs on this CPU from now on; `None`: the CPU waits (class 4, number 1: `STATE_RUNNING`).
    Running(Option<u16>),
    /// A thread that was blocked is ready (class 4, number 2: `STATE_READY`).
    Ready(u16),
    /// A VM's name, 16 bytes at a time (class 4, number 192: a process was created).
    VmName {
        /// Which 16 bytes of it.
        part: u16,
        /// Those; zeroes fill the last.
        text: [u8; NAME_PART],
    },
    /// A thread's name, likewise (class 4, number 320: a thread is named).
    ThreadName {
        /// The thread.
        thread: u16,
        /// Which 16 bytes of it.
        part: u16,
        /// Those.
        text: [u8; NAME_PART],
    },
    /// The guest has said something (`vdev trace`; class 6, number 0).
    User {
        /// Its own number for that.
        number: u32,
        /// The value that it wrote.
        value: u64,
        /// The thread of its vCPU.
        thread: u16,
    },
    /// The guest was entered here (class 10, number 0).
    Entry {
        /// Its program counter.
        pc: u64,
    },
    /// The guest was left (class 10, number 1).
    Exit {
        /// By which vector.
        kind: RawExitKind,
        /// `ESR_EL2` of a synchronous exception or an SError: the reason.
        syndrome: u32,
        /// The guest's program counter.
        pc: u64,
        /// The guest-physical address of an abort, the virtual one of a store that stage 2 forbids; X0, which says which call it is, if
        /// it is none.
        payload: u64,
    },
    /// This thread runs the vCPU (class 10, number 2): once for each vCPU that is followed.
    VcpuCreated {
        /// The thread.
        thread: u16,
    },
    /// The guest can see that this interrupt is pending (class 10, number 3).
    Asserted(u32),
    /// It is pending no more: the guest has taken it, or it was withdrawn, or has gone to another vCPU (class 10, number 4).
    Deasserted(u32),
    /// A timer of the guest's, by its interrupt, is to fire (class 10, number 5).
    TimerArmed {
        /// The timer's interrupt.
        timer: u32,
        /// When, as the system counter will be then.
        at: Ticks,
    },
    /// It has fired: its interrupt has become pending (class 10, number 6).
    TimerFired {
        /// The timer's interrupt.
        timer: u32,
    },
}

const AT_BITS: u32 = 56;
const AT: u64 = (1 << AT_BITS) - 1;
/// The index that no thread has.
const NOBODY: u32 = u32::MAX;

/// A number within a class, as it stands in a header.
const fn id(class: u16, number: u16) -> u16 {
    class << 10 | number
}

const LOST: u16 = id(1, 32);
const INTERRUPT: u16 = id(3, 1);
const RUNNING: u16 = id(4, 1);
const READY: u16 = id(4, 2);
const VM_NAME: u16 = id(4, 192);
const THREAD_NAME: u16 = id(4, 320);
const USER: u16 = id(6, 0);
const ENTRY: u16 = id(10, 0);
const EXIT: u16 = id(10, 1);
const VCPU_CREATED: u16 = id(10, 2);
const ASSERTED: u16 = id(10, 3);
const DEASSERTED: u16 = id(10, 4);
const TIMER_ARMED: u16 = id(10, 5);
const TIMER_FIRED: u16 = id(10, 6);

impl Event {
    /// As it is recorded.
    #[must_use]
    #[inline(never)]
    pub fn encode(&self) -> Record {
        let words = |text: [u8; NAME_PART]| {
            let both = u128::from_le_bytes(text);
            (low(both), low(both >> 64))
        };
        let mut kind = RawExitKind::Synchronous;
        let (id, first, (second, third)) = match self.what {
            What::Lost(count) => (LOST, 0, (count, 0)),
            What::Interrupt(intid) => (INTERRUPT, intid, (0, 0)),
            What::Running(thread) => (RUNNING, thread.map_or(NOBODY, u32::from), (0, 0)),
            What::Ready(thread) => (READY, thread.into(), (0, 0)),
            What::VmName { part, text } => (VM_NAME, u32::from(part) << 16, words(text)),
            What::ThreadName { thread, part, text } => {
                (THREAD_NAME, u32::from(part) << 16 | u32::from(thread), words(text))
            }
            What::User { number, value, thread } => (USER, number, (value, thread.into())),
            What::Entry { pc } => (ENTRY, 0, (pc, 0)),
            What::Exit { kind: how, syndrome, pc, payload } => {
                kind = how;
                (EXIT, syndrome, (pc, payload))
            }
            What::VcpuCreated { thread } => (VCPU_CREATED, thread.into(), (0, 0)),
            What::Asserted(intid) => (ASSERTED, intid, (0, 0)),
            What::Deasserted(intid) => (DEASSERTED, intid, (0, 0)),
            What::TimerArmed { timer, at } => (TIMER_ARMED, timer, (at.0, 0)),
            What::TimerFired { timer } => (TIMER_FIRED, timer, (0, 0)),
        };
        let header = u64::from(id)
            | u64::from(self.vm) << 16
            | u64::from(self.vcpu.0 & 63) << 24
            | (kind as u64) << 30
            | u64::from(first) << 32;
        [self.at.0 & AT | u64::from(self.cpu) << AT_BITS, header, second, third]
    }

    /// The event that was recorded as this; `None` if it is none that there is.
    #[must_use]
    pub fn decode(&[when, header, second, third]: &Record) -> Option<Self> {
        let [first_low, first_high] = [half(header >> 32), half(header >> 48)];
        let first = u32::from(first_high) << 16 | u32::from(first_low);
        let text = (u128::from(third) << 64 | u128::from(second)).to_le_bytes();
        let kind = match header >> 30 & 3 {
            0 => RawExitKind::Synchronous,
            1 => RawExitKind::Irq,
            2 => RawExitKind::Fiq,
            _ => RawExitKind::SError,
        };
        let what = match half(header & 0x7fff) {
            LOST => What::Lost(second),
            INTERRUPT => What::Interrupt(first),
            RUNNING if first == NOBODY => What::Running(None),
            RUNNING => What::Running(Some(first_low)),
            READY => What::Ready(first_low),
            VM_NAME => What::VmName { part: first_high, text },
            THREAD_NAME => What::ThreadName { thread: first_low, part: first_high, text },
            USER => What::User { number: first, value: second, thread: half(third) },
            ENTRY => What::Entry { pc: second },
            EXIT => What::Exit { kind, syndrome: first, pc: second, payload: third },
            VCPU_CREATED => What::VcpuCreated { thread: first_low },
            ASSERTED => What::Asserted(first),
            DEASSERTED => What::Deasserted(first),
            TIMER_ARMED => What::TimerArmed { timer: first, at: Ticks(second) },
            TIMER_FIRED => What::TimerFired { timer: first },
            _ => return None,
        };
        let [vm, _] = half(header >> 16).to_le_bytes();
        let [.., cpu] = when.to_le_bytes();
        Some(Self { at: Ticks(when & AT), cpu, vm, vcpu: VcpuId(half(header >> 24 & 63)), what })
    }
}

/// How many events this record says were lost: none, if it is about anything else.
#[must_use]
pub const fn lost(&[_, header, count, _]: &Record) -> u64 {
    if half(header & 0x7fff) == LOST { count } else { 0 }
}

/// The low 64 bits.
fn low(value: u128) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = value.to_le_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// The low 16 bits.
const fn half(value: u64) -> u16 {
    let [a, b, ..] = value.to_le_bytes();
    u16::from_le_bytes([a, b])
}

/// The records' bytes, in the order in which a capture has them.
#[must_use]
pub fn bytes(record: &Record) -> [u8; RECORD] {
    let mut bytes = [0; RECORD];
    for (to, from) in bytes.chunks_mut(8).zip(record) {
        to.copy_from_slice(&from.to_le_bytes());
    }
    bytes
}

/// The 16 bytes of a name that are recorded as its part `part`, from 0; `None` behind the last. An empty name has one part.
#[must_use]
pub fn name_part(name: &str, part: u16) -> Option<[u8; NAME_PART]> {
    let rest = name.as_bytes().get(usize::from(part).saturating_mul(NAME_PART)..)?;
    let mut text = [0; NAME_PART];
    text.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    (part == 0 || !rest.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// One of each kind, with bits in every field.
    pub(crate) fn samples() -> Vec<Event> {
        let text = *b"0123456789abcdef";
        let whats = [
            What::Lost(u64::MAX),
            What::Interrupt(1023),
            What::Running(None),
            What::Running(Some(511)),
            What::Ready(0xfffe),
            What::VmName { part: 1, text },
            What::ThreadName { thread: 0xabcd, part: 0xffff, text },
            What::User { number: u32::MAX, value: u64::MAX, thread: 7 },
            What::Entry { pc: u64::MAX },
            What::Exit { kind: RawExitKind::SError, syndrome: u32::MAX, pc: 1 << 63, payload: 1 << 62 },
            What::Exit { kind: RawExitKind::Irq, syndrome: 0, pc: 4, payload: 0 },
            What::VcpuCreated { thread: 3 },
            What::Asserted(8192),
            What::Deasserted(0),
            What::TimerArmed { timer: 27, at: Ticks::NEVER },
            What::TimerFired { timer: 30 },
        ];
        let event = |what| Event { at: Ticks(AT), cpu: 255, vm: 255, vcpu: VcpuId(63), what };
        whats.into_iter().map(event).collect()
    }

    #[test]
    fn every_kind_of_event_comes_back_as_it_went() {
        for event in samples() {
            assert_eq!(Event::decode(&event.encode()), Some(event));
            assert_eq!(lost(&event.encode()), if let What::Lost(count) = event.what { count } else { 0 });
        }
    }

    #[test]
    fn the_header_is_that_of_the_original() {
        let exit = What::Exit { kind: RawExitKind::Synchronous, syndrome: 0x5a00_0000, pc: 8, payload: 9 };
        let event = Event { at: Ticks(5), cpu: 1, vm: 2, vcpu: VcpuId(3), what: exit };
        assert_eq!(event.encode(), [1 << 56 | 5, 0x5a00_0000_0302_2801, 8, 9]);
        let fields = |id: u16| (id >> 10, id & 0x3ff);
        assert_eq!(fields(TIMER_FIRED), (10, 6), "the hypervisor's class");
        assert_eq!(fields(THREAD_NAME), (4, (4 + 1) << 6), "_NTO_TRACE_PROCTHREAD_NAME");
    }

    #[test]
    fn names_of_any_length_are_whole_in_their_parts() {
        for length in [0, 1, 15, 16, 17, 32, 100] {
            let name: std::string::String = (0..length).map(|n| char::from(b'a' + n % 26)).collect();
            let parts: Vec<_> = (0..).map_while(|part| name_part(&name, part)).collect();
            assert_eq!(parts.len(), usize::from(length).div_ceil(NAME_PART).max(1));
            let joined: Vec<u8> = parts.into_iter().flatten().filter(|byte| *byte != 0).collect();
            assert_eq!(joined, name.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn whatever_is_understood_is_recorded_the_same_way(record: Record) {
            if let Some(event) = Event::decode(&record) {
                prop_assert_eq!(Event::decode(&event.encode()), Some(event));
            }
        }
    }
}
