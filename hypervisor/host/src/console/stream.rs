//! What is between the console and somebody who prints.
//!
//! Answers for: the two queues, and for saying when the console's thread has something to do ([`Bell`]). Does not answer
//! for: what happens to the bytes ([`super::Multiplexer`]), the devices of a VM ([`super::Terminal`]).

use super::ring::Ring;
use alloc::{boxed::Box, sync::Arc};
use core::{
    fmt,
    sync::atomic::{AtomicBool, AtomicU8, Ordering},
};
use vdev::Taken;

/// Bytes of output that wait for the console.
pub(super) const OUTPUT: usize = 4096;
/// Bytes of input that wait for the guest: more than a line, so that a pasted one arrives whole.
pub(super) const INPUT: usize = 1024;

/// When the console's thread should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Urgency {
    /// Within a millisecond or so: a byte was written. More are likely to follow, and cost less together.
    Soon = 1,
    /// At once: a queue is half full.
    Now = 2,
}

/// How streams call the console's thread: rung when a queue becomes non-empty and when it becomes half full, not for every
/// byte.
#[derive(Debug, Default)]
pub struct Bell {
    /// 0, or an [`Urgency`].
    rung: AtomicU8,
    /// What was last told to whoever asked.
    told: AtomicU8,
}

impl Bell {
    /// Asks for the thread.
    pub fn ring(&self, urgency: Urgency) {
        self.rung.fetch_max(urgency as u8, Ordering::Release);
    }

    /// What has to be done after an exit that produced output ([`vdev::Effects::output`]), if it has not been said before.
    #[inline(always)]
    pub fn answer(&self) -> Option<Urgency> {
        let rung = self.rung.load(Ordering::Acquire);
        if rung == self.told.load(Ordering::Relaxed) { None } else { self.tell(rung) }
    }

    #[cold]
    #[inline(never)]
    fn tell(&self, rung: u8) -> Option<Urgency> {
        match (self.told.fetch_max(rung, Ordering::Relaxed), rung) {
            (told, rung) if told >= rung => None,
            (_, rung) if rung == Urgency::Now as u8 => Some(Urgency::Now),
            _ => Some(Urgency::Soon),
        }
    }

    /// Asks for the thread at once, whatever has been said before: whoever was told last may have died before it could do
    /// what it was told.
    pub(super) fn insist(&self) {
        self.told.store(0, Ordering::Relaxed);
        self.ring(Urgency::Now);
    }

    /// Whether the thread has been asked for and has not looked since.
    pub(super) fn is_rung(&self) -> bool {
        self.rung.load(Ordering::Acquire) != 0
    }

    /// The thread is about to look, and sees everything that was rung for until now.
    pub(super) fn quiet(&self) {
        self.told.store(0, Ordering::Relaxed);
        self.rung.swap(0, Ordering::AcqRel);
    }
}

/// The two queues between whoever prints and the console.
///
/// No lock: a VM's thread may die at any instruction, and the console goes on. One party prints and reads what was typed
/// ([`super::Terminal`] makes one of a VM's devices), the other is the console, under its lock.
pub struct Stream {
    output: Ring<OUTPUT>,
    input: Ring<INPUT>,
    /// A byte was refused since the queue was last drained.
    starved: AtomicBool,
    bell: Arc<Bell>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

impl Stream {
    /// With empty queues. It is never given back: the multiplexer uses it again.
    pub(super) fn leaked(bell: Arc<Bell>) -> &'static Self {
        Box::leak(Box::new(Self { output: Ring::new(), input: Ring::new(), starved: AtomicBool::new(false), bell }))
    }

    /// How many bytes [`Stream::write`] takes. After 0, and after a write that was refused, the console says when there is
    /// space again ([`super::Progress::relieved`]).
    #[inline]
    pub fn space(&self) -> usize {
        match self.output.space() {
            0 => self.starve(),
            space => space,
        }
    }

    /// Says that there was no space, and how much there is now: the console may have drained the queue before it could know.
    #[cold]
    fn starve(&self) -> usize {
        self.starved.store(true, Ordering::SeqCst);
        self.output.space()
    }

    /// Prints a byte. If it says [`Taken::Ring`], somebody has to answer the bell.
    #[inline]
    pub fn write(&self, byte: u8) -> Taken {
        // Once, or twice if space has come in between.
        loop {
            match self.output.push(byte) {
                Some(1) => self.bell.ring(Urgency::Soon),
                Some(length) if length == OUTPUT / 2 => self.bell.ring(Urgency::Now),
                Some(_) => return Taken::Yes,
                None if self.starve() == 0 => return Taken::No,
                None => continue,
            }
            return Taken::Ring;
        }
    }

    /// Prints as many bytes as there is space for: how many, and what has become of them. Not all: as [`Stream::write`] that was
    /// refused.
    pub fn append(&self, bytes: &[u8]) -> (usize, Taken) {
        let (mut done, mut taken) = (0_usize, Taken::No);
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            let (count, length) = self.output.append(rest);
            if count == 0 {
                if self.starve() == 0 {
                    break;
                }
                continue;
            }
            done = done.saturating_add(count);
            // How many there were when the first of these came, less what has been taken since.
            let before = length.saturating_sub(count);
            taken = taken.and(if before < OUTPUT / 2 && length >= OUTPUT / 2 {
                self.bell.ring(Urgency::Now);
                Taken::Ring
            } else if before == 0 {
                self.bell.ring(Urgency::Soon);
                Taken::Ring
            } else {
                Taken::Yes
            });
        }
        (done, taken)
    }

    /// The next byte that was typed.
    pub fn read(&self) -> Option<u8> {
        self.input.pop()
    }

    /// Something is typed. What the guest has left unread and does not fit is dropped.
    pub(super) fn type_in(&self, byte: u8) {
        let _dropped = self.input.push(byte);
    }

    /// Behind which of all its output the stream is now.
    pub(super) fn end(&self) -> usize {
        self.output.end()
    }

    /// Whether output before `end` waits.
    pub(super) fn has_output(&self, end: usize) -> bool {
        self.output.before(end) != 0
    }

    /// Takes output that waits, up to `end`. The second value is `true` when somebody who was refused may go on.
    pub(super) fn take_output(&self, into: &mut [u8], end: usize) -> (usize, bool) {
        let count = self.output.take(into, end);
        // Half a queue at a time: a wake for every byte of space would cost more than the byte.
        let relieved = self.starved.load(Ordering::SeqCst) && self.output.space() >= OUTPUT / 2;
        if relieved {
            self.starved.store(false, Ordering::SeqCst);
        }
        (count, relieved)
    }

    /// Whoever printed is gone for good, and another may come: forgets what was typed for the first.
    pub(super) fn hand_over(&self) {
        self.input.clear();
        self.starved.store(false, Ordering::SeqCst);
    }

    /// As new, for somebody else.
    pub(super) fn clear(&self) {
        self.hand_over();
        self.output.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{vec, vec::Vec};

    fn stream() -> (&'static Stream, Arc<Bell>) {
        let bell = Arc::new(Bell::default());
        (Stream::leaked(bell.clone()), bell)
    }

    /// As much output as `into` takes.
    fn take(stream: &Stream, into: &mut [u8]) -> (usize, bool) {
        stream.take_output(into, stream.end())
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri takes minutes to fill a ring of atomics")]
    fn the_bell_is_rung_for_the_first_byte_and_at_half_full_and_no_more() {
        let (stream, bell) = stream();
        let mut answers = Vec::new();
        for n in 1..=OUTPUT {
            let taken = stream.write(0);
            // Whoever is not told to need not look.
            assert_eq!(taken == Taken::Ring, n == 1 || n == OUTPUT / 2);
            if let Some(urgency) = bell.answer() {
                answers.push((n, urgency));
            }
        }
        assert_eq!(answers, [(1, Urgency::Soon), (OUTPUT / 2, Urgency::Now)]);
        bell.quiet();
        assert_eq!(bell.answer(), None);
        while take(stream, &mut [0; 64]).0 > 0 {}
        assert_eq!(stream.write(0), Taken::Ring);
        assert_eq!(bell.answer(), Some(Urgency::Soon));
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri takes minutes to fill a ring of atomics")]
    fn many_bytes_at_once_ring_when_the_first_comes_and_at_half_full_and_say_what_did_not_fit() {
        let (stream, bell) = stream();
        assert_eq!((stream.append(&[]), bell.answer()), ((0, Taken::No), None));
        assert_eq!((stream.append(&[1; 10]), bell.answer()), ((10, Taken::Ring), Some(Urgency::Soon)));
        assert_eq!((stream.append(&[2; 10]), bell.answer()), ((10, Taken::Yes), None));
        assert_eq!((stream.append(&[3; OUTPUT / 2]), bell.answer()), ((OUTPUT / 2, Taken::Ring), Some(Urgency::Now)));
        let rest = OUTPUT / 2 - 20;
        assert_eq!(stream.append(&[4; OUTPUT]), (rest, Taken::Yes));
        assert_eq!(stream.append(&[5; 3]), (0, Taken::No));
        let (mut all, mut some, mut relieved) = (Vec::new(), [0; 100], 0);
        while let (count @ 1.., relief) = take(stream, &mut some) {
            all.extend_from_slice(&some[..count]);
            relieved += u32::from(relief);
        }
        let expected = [&[1; 10][..], &[2; 10], &[3; OUTPUT / 2], &vec![4; rest]].concat();
        assert_eq!((all == expected, relieved), (true, 1), "and whoever was refused hears of space, once");
        // One that fills it at once asks for the thread at once.
        bell.quiet();
        assert_eq!((stream.append(&[6; OUTPUT]), bell.answer()), ((OUTPUT, Taken::Ring), Some(Urgency::Now)));
    }

    #[test]
    fn whoever_insists_is_heard_though_the_same_was_told_to_somebody_who_died() {
        let (_, bell) = stream();
        bell.ring(Urgency::Now);
        assert_eq!(bell.answer(), Some(Urgency::Now));
        bell.ring(Urgency::Now);
        assert_eq!(bell.answer(), None);
        bell.insist();
        assert_eq!(bell.answer(), Some(Urgency::Now));
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri takes minutes to fill a ring of atomics")]
    fn who_was_refused_hears_of_space_once_when_the_queue_is_half_empty() {
        let (stream, _) = stream();
        while stream.write(0).is_taken() {}
        assert_eq!(stream.space(), 0);
        let mut relieved = Vec::new();
        for n in 0..OUTPUT / 64 {
            if take(stream, &mut [0; 64]).1 {
                relieved.push(n);
            }
        }
        assert_eq!(relieved, [OUTPUT / 64 / 2 - 1]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri takes minutes to fill a ring of atomics")]
    fn a_guest_that_does_not_read_makes_typing_vanish_not_wait() {
        let (stream, _) = stream();
        (0..2 * INPUT).for_each(|_| stream.type_in(b'x'));
        assert_eq!((0..2 * INPUT).filter_map(|_| stream.read()).count(), INPUT);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri takes minutes to fill a ring of atomics")]
    fn nothing_of_one_who_had_it_before_is_left() {
        let (stream, _) = stream();
        while stream.write(b'a').is_taken() {}
        stream.type_in(b'b');
        stream.clear();
        assert_eq!((stream.space(), stream.read(), take(stream, &mut [0; 8])), (OUTPUT, None, (0, false)));
    }
}
