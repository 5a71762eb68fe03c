//! `tracelogger`: from the rings to a file in RAM.
//!
//! Answers for: the rings' memory, the thread that empties them while it records, the capture's file and its end. Does not
//! answer for: the form of the capture (`trace`), how it is packed (`host::file`).
//!
//! The thread has the priority of the host's threads that work for VMs. Where vCPUs are more important, their CPUs' rings
//! fill up meanwhile, and what is lost is counted.

use super::{CHOSEN, SLOTS, choose};
use crate::cpu::{self, PerCpu};
use crate::files::{self, Full, Room};
use crate::frames::{self, Frames, Owner};
use crate::sync::{Lock, Rank};
use crate::thread::{self, Thread};
use crate::{qvm, startup};
use ::trace::{Event, HOST, Header, Record, Ring, What, bytes, lost};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use host::file::{Packer, harmless};
use host::shell;
use sched::State;
use types::{Frequency, PAGE_SIZE, Ticks, VcpuId};
use vm::dump::Sink;

/// From one look at the rings to the next, and how long vCPUs have to leave their guests at the end, in microseconds.
const LOOK: u64 = 10_000;

/// What packing takes of the hypervisor's memory, in pages, with some to spare.
const PACKING: usize = 128;

/// What the file is called if nobody says: `trace.events`, `trace-1.events` and so on.
const NAME: &str = "trace";
const EXTENSION: &str = "events";

/// The thread, from the moment it is started until the next one is.
static LOGGER: Lock<Option<Arc<Thread>>> = Lock::new(Rank::Trace, None);
/// It records, or is about to.
static IS_RECORDING: AtomicBool = AtomicBool::new(false);
/// It is to come to an end.
static IS_OVER: AtomicBool = AtomicBool::new(false);
/// Events in the file so far.
static EVENTS: AtomicU64 = AtomicU64::new(0);

/// A CPU's ring and its memory.
struct Buffer {
    cpu: &'static PerCpu,
    ring: Ring<'static>,
    /// Dropped behind the ring.
    _memory: Frames,
}

/// What is about to be recorded.
struct Logger {
    name: String,
    frequency: Frequency,
    begin: Ticks,
    end: Ticks,
    /// The file may grow to half of what is free: VMs want to be started, too.
    limit: u64,
    /// Stays where it is: CPUs have the rings' addresses.
    buffers: Box<[Buffer]>,
    lost: u64,
}

/// Begins to record, in a thread of its own.
///
/// # Errors
/// Why that cannot be.
pub(crate) fn start(wanted: &shell::Record<'_>) -> Result<(), &'static str> {
    if IS_RECORDING.load(Ordering::SeqCst) {
        return Err("one is being recorded already; `tracelogger stop` ends it");
    }
    let last = LOGGER.lock().take();
    if let Some(last) = last {
        thread::join(&last);
    }
    let logger = Logger::new(wanted)?;
    *CHOSEN.lock() = Some(wanted.vms.iter().copied().map(String::from).collect());
    IS_OVER.store(false, Ordering::SeqCst);
    EVENTS.store(0, Ordering::Relaxed);
    IS_RECORDING.store(true, Ordering::SeqCst);
    let work = move || {
        logger.run();
        IS_RECORDING.store(false, Ordering::SeqCst);
        crate::shell::notify();
    };
    match thread::spawn("tracelogger".into(), startup::host_parameters(startup::PRIORITY), work) {
        Ok(thread) => {
            *LOGGER.lock() = Some(thread);
            Ok(())
        }
        Err(_) => {
            *CHOSEN.lock() = None;
            files::abandon(files::HOST);
            IS_RECORDING.store(false, Ordering::SeqCst);
            Err(NO_MEMORY)
        }
    }
}

const NO_MEMORY: &str = "not enough RAM is left";

/// Ends what is being recorded. Says whether anything was.
pub(crate) fn stop() -> bool {
    IS_OVER.store(true, Ordering::SeqCst);
    if let Some(thread) = &*LOGGER.lock() {
        thread::notify(thread);
    }
    is_recording()
}

/// Whether a trace is being recorded.
pub(crate) fn is_recording() -> bool {
    IS_RECORDING.load(Ordering::SeqCst)
}

/// Events in the file so far.
pub(crate) fn progress() -> u64 {
    EVENTS.load(Ordering::Relaxed)
}

fn free_memory() -> u64 {
    frames::statistics().0 as u64 * PAGE_SIZE
}

impl Logger {
    /// With a ring for each CPU, and a file.
    fn new(wanted: &shell::Record<'_>) -> Result<Self, &'static str> {
        let frequency = el2::cpu::counter_frequency().ok_or("the counter's frequency is unknown")?;
        let pages = (wanted.kibibytes << 10) / PAGE_SIZE as usize;
        let mut buffers = Vec::new();
        for cpu in cpu::online() {
            let memory = frames::allocate(pages, 1, Owner::Files).ok_or(NO_MEMORY)?;
            if frames::statistics().0 < PACKING {
                return Err(NO_MEMORY);
            }
            let words = memory.range().length() as usize / size_of::<AtomicU64>();
            let first = memory.start().0 as *const AtomicU64;
            // SAFETY: page frames of the buffer's own, mapped at their address; they are given back after the ring is gone.
            let words: &'static [AtomicU64] = unsafe { core::slice::from_raw_parts(first, words) };
            let ring = Ring::new(words).ok_or(NO_MEMORY)?;
            buffers.push(Buffer { cpu, ring, _memory: memory });
        }
        let name = match wanted.file.map(harmless) {
            Some(name) => {
                if files::create(&name, files::HOST) {
                    Ok(name)
                } else {
                    Err(name)
                }
            }
            None => files::create_any("", NAME, EXTENSION, files::HOST),
        };
        let name = name.map_err(|_| "there is a file of that name; `rm` takes it away")?;
        let begin = el2::cpu::counter();
        let length = wanted.milliseconds.map_or(Ticks::NEVER, |time| frequency.microseconds(time.saturating_mul(1000)));
        let end = begin.saturating_add(length);
        Ok(Self { name, frequency, begin, end, limit: free_memory() / 2, buffers: buffers.into(), lost: 0 })
    }

    /// Records until it is over.
    fn run(mut self) {
        let mut room = Room::new(files::HOST);
        let mut packer = Packer::new(&mut room);
        let recorded = self.record(&mut packer);
        let finished = recorded.and_then(|()| packer.finish());
        match finished.map(|size| files::finish(files::HOST, size, room.checksum())) {
            Ok(Some(about)) => log::info!(
                "traced to `{}`: {} events, {} lost, packed {} KiB",
                self.name,
                progress(),
                self.lost,
                about.packed >> 10
            ),
            _ => {
                files::abandon(files::HOST);
                log::error!("no trace: {NO_MEMORY}");
            }
        }
    }

    fn record(&mut self, file: &mut dyn Sink<Error = Full>) -> Result<(), Full> {
        let header = Header { frequency: self.frequency, start: self.begin, cpus: self.buffers.len() as u64 };
        file.bytes(&header.encode())?;
        self.attach();
        let collected = self.introduce(file).and_then(|()| self.collect(file));
        self.detach();
        collected?;
        self.drain(file)?;
        // What was lost last comes out behind the last record. Nobody writes any more.
        let missing: u64 = self.buffers.iter().map(|buffer| buffer.ring.lost_at_the_end()).sum();
        let at = el2::cpu::counter();
        let last = Event { at, cpu: 0, vm: HOST, vcpu: VcpuId(0), what: What::Lost(missing) };
        self.put(&last.encode(), file)
    }

    /// From now on CPUs record, and vCPUs are followed.
    fn attach(&self) {
        for buffer in &self.buffers {
            if let Some(slot) = SLOTS.get(buffer.cpu.id.index()) {
                slot.ring.store(ptr::from_ref(&buffer.ring).cast_mut(), Ordering::SeqCst);
            }
            buffer.cpu.trace(true);
        }
        choose_all();
    }

    /// The same undone. vCPUs are given a moment to leave their guests, so that what they did there is recorded.
    fn detach(&self) {
        *CHOSEN.lock() = None;
        choose_all();
        let end = el2::cpu::counter().saturating_add(self.frequency.microseconds(LOOK));
        while el2::cpu::counter() < end {
            thread::sleep_until(end);
        }
        for buffer in &self.buffers {
            buffer.cpu.trace(false);
            if let Some(slot) = SLOTS.get(buffer.cpu.id.index()) {
                slot.detach();
            }
        }
    }

    /// Records what there is, and what the CPUs do as of now.
    fn introduce(&mut self, file: &mut dyn Sink<Error = Full>) -> Result<(), Full> {
        let mut result = Ok(());
        for qvm in qvm::all() {
            super::introduce_vm(&qvm);
            qvm.look(|compartment| {
                if let Some(partition) = compartment.partition() {
                    super::introduce_vcpus(&qvm, partition.threads());
                }
            });
            self.drain(file)?;
        }
        thread::for_each(|thread, status| {
            super::introduce_thread(thread);
            if let State::Running(cpu) = status.state {
                // As of the beginning: what has become of it since then is recorded.
                let (at, what) = (self.begin, What::Running(thread.index()));
                super::write(&Event { at, cpu: cpu.0 as u8, vm: HOST, vcpu: VcpuId(0), what });
            }
            // There may be more names than there is room.
            if result.is_ok() {
                result = self.drain(file);
            }
        });
        result
    }

    /// Takes records out of the rings until the time is over, somebody says so, or the file is large enough.
    fn collect(&mut self, file: &mut dyn Sink<Error = Full>) -> Result<(), Full> {
        let look = self.frequency.microseconds(LOOK);
        while el2::cpu::counter() < self.end && !IS_OVER.load(Ordering::SeqCst) {
            self.drain(file)?;
            if free_memory() < self.limit {
                log::warn!("the trace ends before its time: it has taken half of the RAM that there was");
                break;
            }
            thread::sleep_until(el2::cpu::counter().saturating_add(look).min(self.end));
        }
        Ok(())
    }

    fn drain(&mut self, file: &mut dyn Sink<Error = Full>) -> Result<(), Full> {
        for place in 0..self.buffers.len() {
            // No more than the ring holds: who writes may be faster than this.
            for _ in 0..self.buffers[place].ring.capacity() {
                let Some(record) = self.buffers[place].ring.read() else { break };
                self.put(&record, file)?;
            }
        }
        Ok(())
    }

    fn put(&mut self, record: &Record, file: &mut dyn Sink<Error = Full>) -> Result<(), Full> {
        self.lost += lost(record);
        EVENTS.store(progress() + 1, Ordering::Relaxed);
        file.bytes(&bytes(record))
    }
}

fn choose_all() {
    for qvm in qvm::all() {
        qvm.look(|compartment| choose(&qvm.name, compartment.partition()));
    }
}
