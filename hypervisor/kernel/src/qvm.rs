//! The VMs there are, each with the host's thread that looks after it: what a `qvm` process and its parent are in the
//! original.
//!
//! Answers for: the list of VMs and their names, signals, ending and starting again by the configuration's policy, the record
//! of the last end. Does not answer for: one life of a VM (`compartment`), who sends signals (`shell`).

mod ends;

pub(crate) use ends::{last_sequence, next_end};

use crate::compartment::{Compartment, Requests};
use crate::passed::UNCONTAINED;
use crate::sync::{Lock, Rank};
use crate::thread::{self, Thread};
use crate::{board, console, shell, smmuman, startup, trace};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use host::console::{Stream, VmNumber};
use host::restart::{Decision, Restarts};
use host::shell::Signal;
use qvmconf::Sources;
use sched::{Parameters, Policy};
use spin::Once;
use types::{PAGE_SIZE, Ticks, VmId};
use vdev::{Cause, DeviceId};
use vm::assemble::{AssembleError, Reach, Schedule};
use vm::config::{Configuration, Messages};
use vm::lifecycle::EndRecord;

/// Most VMs: as many as the console can tell apart.
const MAX_VMS: u32 = 64;

bitflags::bitflags! {
    /// Signals that wait, and what else the shell wants.
    struct Wanted: u32 {
        const TERM = 1 << 0;
        const QUIT = 1 << 1;
        const USR1 = 1 << 2;
        const USR2 = 1 << 3;
    }
}

/// A VM, from its first life to the end of its last.
pub(crate) struct Qvm {
    pub(crate) name: String,
    pub(crate) number: VmNumber,
    pub(crate) configuration: Configuration,
    sources: Sources,
    id: Number,
    wanted: AtomicU32,
    /// It has been asked to end by SIGTERM or SIGINT, in this life.
    asked: AtomicBool,
    /// How often it was started again.
    restarts: AtomicU32,
    /// When its present life began.
    begun: AtomicU64,
    stream: Lock<&'static Stream>,
    life: Lock<Option<Arc<Compartment>>>,
    keeper: Once<Arc<Thread>>,
    /// Where the next dump goes, if somebody has said so.
    dump_file: Lock<Option<String>>,
    /// How much of a dump is done, in per cent; [`NO_DUMP`] if none has been asked for.
    dumped: AtomicU32,
}

/// See [`Qvm::dumped`].
const NO_DUMP: u32 = u32::MAX;

static QVMS: Lock<Vec<Arc<Qvm>>> = Lock::new(Rank::Qvms, Vec::new());

/// Numbers of VMs in use.
static NUMBERS: Lock<u128> = Lock::new(Rank::Numbers, 0);

/// The number of a VM, its own until dropped.
struct Number(VmId);

impl Number {
    /// `None` if there are too many VMs.
    fn new() -> Option<Self> {
        let mut used = NUMBERS.lock();
        let free = used.trailing_ones();
        if free >= MAX_VMS {
            return None;
        }
        *used |= 1 << free;
        Some(Self(VmId(free as u16)))
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        *NUMBERS.lock() &= !(1 << self.0.0);
    }
}

/// Starts a VM: puts it on the console and gives it a thread that looks after it, which is returned.
pub(crate) fn start(configuration: Configuration, sources: Sources) -> Option<(Arc<Qvm>, Arc<Thread>)> {
    let name = configuration.description.name.clone();
    let Some(id) = Number::new() else {
        refuse(&name, Cause::Fatal, "too many VMs");
        return None;
    };
    let Some((number, stream)) = console::with(|multiplexer| multiplexer.attach(&name)).flatten() else {
        refuse(&name, Cause::Fatal, "too many VMs on the console");
        return None;
    };
    console::log().choose(&name, configuration.messages);
    choose_for_devices(&name, &configuration, true);
    let qvm = Arc::new(Qvm {
        name,
        number,
        configuration,
        sources,
        id,
        wanted: AtomicU32::new(0),
        asked: AtomicBool::new(false),
        restarts: AtomicU32::new(0),
        begun: AtomicU64::new(0),
        stream: Lock::new(Rank::Compartment, stream),
        life: Lock::new(Rank::Life, None),
        keeper: Once::new(),
        dump_file: Lock::new(Rank::Compartment, None),
        dumped: AtomicU32::new(NO_DUMP),
    });
    QVMS.lock().push(Arc::clone(&qvm));
    trace::introduce_vm(&qvm);
    tell_watchers();
    let mine = Arc::clone(&qvm);
    match thread::spawn(format!("qvm {}", qvm.name), startup::host_parameters(startup::PRIORITY), move || keep(&mine)) {
        Ok(thread) => Some((qvm, thread)),
        Err(error) => {
            qvm.leave(&EndRecord::new(Cause::Fatal, None, None, format_args!("no thread: {error:?}")));
            None
        }
    }
}

/// `log`: which messages of devices are logged, as long as there is the VM.
fn choose_for_devices(name: &str, configuration: &Configuration, alive: bool) {
    for (device, filters) in &configuration.device_messages {
        let messages = Messages { console: *filters, ..Messages::default() };
        console::log().choose(&format!("{name}/{device}"), alive.then_some(messages));
    }
}

/// The end of a VM that never was on the console.
pub(crate) fn refuse(name: &str, cause: Cause, detail: &str) {
    console::with(|multiplexer| multiplexer.refused(&host::end_line(name, cause, detail)));
}

/// The life of the host's thread that looks after a VM: one life of the VM after the other.
fn keep(qvm: &Arc<Qvm>) {
    if let Some(me) = thread::current_shared() {
        qvm.keeper.call_once(|| me);
    }
    let mut restarts = Restarts::new(qvm.configuration.on_exit);
    loop {
        let (end, is_gone) = qvm.live();
        let (why, consequence) = if is_gone {
            ("started again too often", "not once more")
        } else {
            restarts.get_stuck();
            ("what its last life had is lost", "so it is not started again")
        };
        let asked = qvm.asked.swap(false, Ordering::SeqCst) || qvm.configuration.dryrun;
        match restarts.after(end.cause, asked, seconds()) {
            Decision::Again { number } => qvm.begin_again(&end, number),
            Decision::Stay => {
                if restarts.is_exhausted() {
                    log::error!(target: &qvm.origin(), "{why}, {consequence}");
                }
                return qvm.leave(&end);
            }
            Decision::ResetBoard => {
                qvm.leave(&end);
                log::error!(target: &qvm.origin(), "{why}; the board is reset");
                console::flush();
                board::reset();
            }
        }
    }
}

fn seconds() -> u64 {
    el2::cpu::counter_frequency().map_or(0, |frequency| frequency.to_nanoseconds(el2::cpu::counter()) / 1_000_000_000)
}

fn end_line(name: &str, end: &EndRecord) -> String {
    // What the guest wanted needs no explanation.
    let detail = if end.cause.code() == 0 && end.vcpu.is_some() { String::new() } else { format!("{end}") };
    let separator = if detail.is_empty() || end.note.is_empty() { "" } else { "; " };
    host::end_line(name, end.cause, &format!("{detail}{separator}{}", end.note))
}

/// What there is left of the machine, for people, for `cargo xtask bench`, and for the tests that it all comes back.
pub(crate) fn report_memory(vm: &str, does: &str) {
    let kibibytes = |pages: usize| pages as u64 * (PAGE_SIZE >> 10);
    let (free, total) = crate::frames::statistics();
    let kernel = crate::frames::Owner::Kernel.pages();
    let (used, size) = crate::heap::statistics();
    log::debug!(
        "{vm} {does}: {} of {} KiB RAM free, {} KiB the hypervisor's, of them {} KiB heap, {used} bytes in use",
        kibibytes(free),
        kibibytes(total),
        kibibytes(kernel),
        size >> 10
    );
}

/// Those of that name: nobody keeps two VMs from having the same.
pub(crate) fn named(name: &str) -> Vec<Arc<Qvm>> {
    all().into_iter().filter(|qvm| qvm.name == name).collect()
}

/// Whether there is one of that name.
pub(crate) fn exists(name: &str) -> bool {
    QVMS.lock().iter().any(|qvm| qvm.name == name)
}

/// All of them.
pub(crate) fn all() -> Vec<Arc<Qvm>> {
    QVMS.lock().clone()
}

/// Remembers an end, and tells those who watch.
fn note_end(name: &str, end: &EndRecord) {
    ends::note(name, end);
    tell_watchers();
}

/// Has every VM look what has become of those that it watches.
fn tell_watchers() {
    for qvm in all() {
        qvm.look(|compartment| compartment.request(Requests::NEWS));
    }
}

/// Asks something of the VM that has this number on the console. From an interrupt, too.
pub(crate) fn request(number: VmNumber, requests: Requests) {
    if number == VmNumber::SHELL {
        shell::notify();
    } else if let Some(qvm) = QVMS.lock().iter().find(|qvm| qvm.number == number)
        && let Some(compartment) = &*qvm.life.lock()
    {
        compartment.request(requests);
    }
}

impl Qvm {
    /// One life: its end, and whether nothing of it is left.
    fn live(self: &Arc<Self>) -> (EndRecord, bool) {
        self.begun.store(el2::cpu::counter().0, Ordering::Relaxed);
        let compartment = Compartment::new(self.id.0, self);
        *self.life.lock() = Some(Arc::clone(&compartment));
        let all_gone = compartment.live();
        let mut end = compartment.end();
        // From here on nobody finds it any more; whoever had found it has let go of it with the lock.
        *self.life.lock() = None;
        self.end_dump();
        // A thread that is left may still use interrupts, but its devices reach nothing any more.
        let released = if all_gone { compartment.release_devices() } else { smmuman::take_back(&compartment) };
        if let Err(why) = &released {
            log::error!(target: &self.origin(), "{why}");
            end = end.with(format_args!("{why}"));
        }
        if compartment.partition().is_some() && self.configuration.description.has_device(Reach::Everything) {
            end = end.with(format_args!("{UNCONTAINED}"));
        }
        let is_gone = all_gone && released.is_ok();
        if is_gone {
            // SAFETY: its threads and devices are gone, and nobody else looks at it but under the lock above.
            unsafe { compartment.take_down() };
            drop(compartment);
            report_memory(&self.name, "is gone");
        } else {
            // Somewhere a CPU or a device may still use it.
            core::mem::forget(compartment);
        }
        (end, is_gone)
    }

    /// Its next life begins: the end of the last one is reported, and what it prints comes behind that.
    fn begin_again(&self, end: &EndRecord, number: u32) {
        self.restarts.store(number, Ordering::Relaxed);
        note_end(&self.name, end);
        let report = format!("{}; starting it again ({number})", end_line(&self.name, end));
        if let Some(stream) = console::with(|multiplexer| multiplexer.restarted(self.number, &report)) {
            *self.stream.lock() = stream;
        }
    }

    pub(crate) fn origin(&self) -> String {
        format!("vm:{}", self.name)
    }

    /// It has ended for good.
    fn leave(&self, end: &EndRecord) {
        console::log().choose(&self.name, None);
        choose_for_devices(&self.name, &self.configuration, false);
        QVMS.lock().retain(|other| other.number != self.number);
        note_end(&self.name, end);
        let line = end_line(&self.name, end);
        console::with(|multiplexer| multiplexer.ended(self.number, &line));
        shell::notify();
    }

    /// Whether it has ended for good.
    pub(crate) fn has_left(&self) -> bool {
        !QVMS.lock().iter().any(|other| core::ptr::eq(&**other, self))
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let wanted = match signal {
            Signal::Term | Signal::Int => Wanted::TERM,
            Signal::Quit => Wanted::QUIT,
            Signal::Usr1 => Wanted::USR1,
            Signal::Usr2 => Wanted::USR2,
        };
        self.wanted.fetch_or(wanted.bits(), Ordering::SeqCst);
        self.notify();
    }

    /// Carries out the signals that have come.
    pub(crate) fn take_signals(&self, compartment: &Compartment) {
        let wanted = Wanted::from_bits_retain(self.wanted.swap(0, Ordering::SeqCst));
        if wanted.contains(Wanted::USR1) {
            compartment.request(Requests::STATUS);
        }
        if wanted.contains(Wanted::USR2) {
            match self.configuration.dump {
                Some(_) if self.dumped().is_some() => {}
                Some(_) => self.begin_dump(compartment, None),
                None => log::warn!(target: &self.origin(), "no dump: its configuration has no `dump`"),
            }
        }
        if wanted.contains(Wanted::TERM) {
            let again = self.asked.swap(true, Ordering::SeqCst);
            if again || compartment.partition().is_none() {
                compartment.record(EndRecord::new(Cause::Terminated, None, None, format_args!("")));
            } else {
                compartment.request(Requests::BUTTON);
            }
        }
        if wanted.contains(Wanted::QUIT) {
            compartment.record(EndRecord::new(Cause::PowerCut, None, None, format_args!("")));
        }
    }

    /// A device asks for a dump, in a thread of the VM's; `hold` keeps the vCPUs out of their guests if it begins now. Says whether
    /// there is one to wait for.
    pub(crate) fn dump_for_device(&self, compartment: &Compartment, hold: impl FnOnce()) -> bool {
        let wanted = self.configuration.dump.is_some();
        match (wanted, self.dumped()) {
            (false, _) => log::warn!(target: &self.origin(), "no dump: its configuration has no `dump`"),
            (true, Some(_)) => {}
            (true, None) => {
                hold();
                self.begin_dump(compartment, None);
            }
        }
        wanted
    }

    /// Asks for a dump, to this file or where its configuration says.
    fn begin_dump(&self, compartment: &Compartment, file: Option<String>) {
        *self.dump_file.lock() = file;
        self.dumped.store(0, Ordering::SeqCst);
        compartment.request(Requests::DUMP);
    }

    /// Asks for a dump of its present life. Says whether there is one; a dump that goes on is enough.
    pub(crate) fn dump(&self, file: Option<&str>) -> bool {
        let begin = |compartment: &Compartment| {
            if self.dumped().is_none() {
                self.begin_dump(compartment, file.map(host::file::harmless));
            }
        };
        self.look(begin).is_some()
    }

    /// Where the dump goes that has been asked for, unless its configuration says.
    pub(crate) fn dump_file(&self) -> Option<String> {
        self.dump_file.lock().clone()
    }

    /// Notes how much of the dump is done, in per cent.
    pub(crate) fn set_dumped(&self, percent: u32) {
        self.dumped.store(percent, Ordering::SeqCst);
    }

    /// There is no dump, or no more of it.
    pub(crate) fn end_dump(&self) {
        self.dumped.store(NO_DUMP, Ordering::SeqCst);
        shell::notify();
    }

    /// How much of a dump is done, in per cent. `None`: there is none.
    pub(crate) fn dumped(&self) -> Option<u32> {
        Some(self.dumped.load(Ordering::SeqCst)).filter(|percent| *percent != NO_DUMP)
    }

    /// Has the thread that looks after it look.
    pub(crate) fn notify(&self) {
        if let Some(keeper) = self.keeper.get() {
            thread::notify(keeper);
        }
    }

    pub(crate) fn keeper(&self) -> Option<Arc<Thread>> {
        self.keeper.get().cloned()
    }

    pub(crate) fn stream(&self) -> &'static Stream {
        *self.stream.lock()
    }

    /// How each vCPU's thread is scheduled.
    pub(crate) fn vcpu_parameters(&self) -> Vec<Parameters> {
        self.configuration.cpus.iter().map(startup::parameters).collect()
    }

    /// How the threads of a device and of its workers are scheduled.
    pub(crate) fn service_parameters(&self, device: DeviceId) -> Parameters {
        let vdev = self.configuration.description.vdevs.get(usize::from(device.0));
        match vdev.and_then(|vdev| vdev.schedule) {
            Some(Schedule { priority, fifo }) => Parameters {
                policy: if fifo { Policy::Fifo } else { Policy::RoundRobin },
                ..startup::host_parameters(priority)
            },
            // No more than the guest has: one that always has something for its devices to do would keep others from their CPU.
            None => startup::host_parameters(self.vcpu_priority()),
        }
    }

    /// The priority of its most urgent vCPU.
    fn vcpu_priority(&self) -> u8 {
        self.configuration.cpus.iter().map(|cpu| cpu.priority).max().unwrap_or(startup::PRIORITY)
    }

    /// The priority of the VM's own thread while the guest runs: what devices do for the guest is as urgent as the guest is.
    pub(crate) fn priority(&self) -> u8 {
        self.vcpu_priority().max(startup::PRIORITY)
    }

    /// Shows what is wrong with the configuration.
    pub(crate) fn complain(&self, errors: &[AssembleError]) -> (Cause, String) {
        let mut diagnostics = qvmconf::Diagnostics::new();
        diagnostics.extend(errors.iter().map(|error| self.configuration.spans.diagnostic(error)));
        startup::print(&format!("{}", self.sources.render_all(&diagnostics)));
        (Cause::Configuration, String::new())
    }

    /// Keeps its vCPUs out of their guests, or lets them in again. `None`: it does not run.
    pub(crate) fn pause(&self, pause: bool) -> Option<bool> {
        self.life.lock().as_ref()?.partition().map(|partition| partition.pause(pause))
    }

    /// Its present life, if it lives.
    pub(crate) fn life(&self) -> Option<Arc<Compartment>> {
        self.life.lock().clone()
    }

    /// Looks at its present life, if it lives.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&Compartment) -> R) -> Option<R> {
        self.life.lock().as_ref().map(|compartment| look(compartment))
    }

    pub(crate) fn restarts(&self) -> u32 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// When its present life began.
    pub(crate) fn begun(&self) -> Ticks {
        Ticks(self.begun.load(Ordering::Relaxed))
    }
}
