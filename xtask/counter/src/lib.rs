//! A plugin for QEMU that counts how often each instruction of the hypervisor's image is executed, and how many
//! instructions the guests execute meanwhile.
//!
//! Answers for: exact counts, as a text file. Does not answer for: what they mean (`cargo xtask bench`). Follows QEMU's
//! `docs/devel/tcg-plugins` and the declarations of `qemu-plugin.h`, version 2 of the interface, which QEMU 9.0 and later
//! accept. Speaking to a program in C takes `unsafe`; nothing of this is part of the hypervisor.
//!
//! Arguments: `begin=ADDRESS,end=ADDRESS` (where the image is, hexadecimal), `out=FILE`, and `stop=ADDRESS` if the count
//! is to end, and QEMU with it, when a guest reaches that address. What is executed outside the image before the first
//! instruction inside is the emulator's boot code and counts for nobody. The file has one line `guest N`, and for each
//! instruction of the image `boot ADDRESS N` (before the first instruction of a guest) and `run ADDRESS N` (from then on).

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fmt::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// `qemu_plugin_id_t`.
type PluginId = u64;
/// `QEMU_PLUGIN_CB_NO_REGS`: the callback looks at no register.
const NO_REGISTERS: c_int = 0;
/// Bytes of an A64 instruction.
const INSTRUCTION: u64 = 4;

/// `struct qemu_plugin_tb`: a stretch of translated code. Only ever behind a pointer.
#[repr(C)]
#[derive(Debug)]
pub struct Block {
    opaque: [u8; 0],
}

/// `struct qemu_plugin_insn`. Only ever behind a pointer.
#[repr(C)]
#[derive(Debug)]
pub struct Instruction {
    opaque: [u8; 0],
}

type OnExecution = extern "C" fn(cpu: c_uint, data: *mut c_void);

unsafe extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: PluginId, callback: extern "C" fn(PluginId, *mut Block));
    fn qemu_plugin_register_atexit_cb(id: PluginId, callback: extern "C" fn(PluginId, *mut c_void), data: *mut c_void);
    fn qemu_plugin_tb_n_insns(block: *const Block) -> usize;
    fn qemu_plugin_tb_vaddr(block: *const Block) -> u64;
    fn qemu_plugin_tb_get_insn(block: *const Block, index: usize) -> *mut Instruction;
    fn qemu_plugin_insn_vaddr(instruction: *const Instruction) -> u64;
    fn qemu_plugin_register_vcpu_tb_exec_cb(block: *mut Block, callback: OnExecution, flags: c_int, data: *mut c_void);
    fn qemu_plugin_register_vcpu_insn_exec_cb(
        instruction: *mut Instruction,
        callback: OnExecution,
        flags: c_int,
        data: *mut c_void,
    );
}

/// The version of the interface that this plugin speaks; QEMU looks for the symbol.
// SAFETY: no other symbol of that name is in the library; QEMU expects an `int`.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "QEMU looks for this name")]
pub static qemu_plugin_version: c_int = 2;

/// How far the machine has come.
const NOTHING_YET: u8 = 0;
const BOOTING: u8 = 1;
const GUESTS_RUN: u8 = 2;

struct Counter {
    begin: u64,
    end: u64,
    stop: Option<u64>,
    out: String,
    phase: AtomicU8,
    guest: AtomicU64,
    /// One for each instruction of the image: how often it was executed.
    executed: Vec<AtomicU64>,
    /// What of that was before the first instruction of a guest.
    boot: Vec<AtomicU64>,
}

static COUNTER: OnceLock<Counter> = OnceLock::new();

impl Counter {
    fn parse(arguments: &[String]) -> Option<Counter> {
        let value = |name: &str| arguments.iter().find_map(|argument| argument.strip_prefix(name));
        let address = |name: &str| u64::from_str_radix(value(name)?.trim_start_matches("0x"), 16).ok();
        let (begin, end) = (address("begin=")?, address("end=")?);
        let length = usize::try_from(end.checked_sub(begin)? / INSTRUCTION).ok()?;
        Some(Counter {
            begin,
            end,
            stop: address("stop="),
            out: value("out=")?.to_string(),
            phase: AtomicU8::new(NOTHING_YET),
            guest: AtomicU64::new(0),
            executed: zeroes(length),
            boot: zeroes(length),
        })
    }

    fn index(&self, address: u64) -> Option<usize> {
        let offset = (self.begin..self.end).contains(&address).then(|| address - self.begin)?;
        usize::try_from(offset / INSTRUCTION).ok()
    }

    fn image_executes(&self, index: usize) {
        if self.phase.load(Ordering::Relaxed) == NOTHING_YET {
            self.phase.store(BOOTING, Ordering::Relaxed);
        }
        if let Some(count) = self.executed.get(index) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn guest_executes(&self, instructions: u64) {
        match self.phase.load(Ordering::Relaxed) {
            NOTHING_YET => return,
            BOOTING => {
                self.phase.store(GUESTS_RUN, Ordering::Relaxed);
                for (boot, count) in self.boot.iter().zip(&self.executed) {
                    boot.store(count.load(Ordering::Relaxed), Ordering::Relaxed);
                }
            }
            _ => {}
        }
        self.guest.fetch_add(instructions, Ordering::Relaxed);
    }

    fn report(&self) {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "guest {}", self.guest.load(Ordering::Relaxed));
        let addresses = (self.begin..self.end).step_by(INSTRUCTION as usize);
        for ((address, count), boot) in addresses.zip(&self.executed).zip(&self.boot) {
            let count = count.load(Ordering::Relaxed);
            let boot = boot.load(Ordering::Relaxed).min(count);
            if boot > 0 {
                let _ = writeln!(text, "boot {address:#x} {boot}");
            }
            if count > boot {
                let _ = writeln!(text, "run {address:#x} {}", count - boot);
            }
        }
        if let Err(error) = std::fs::write(&self.out, text) {
            eprintln!("instruction counter: {}: {error}", self.out);
        }
    }
}

fn zeroes(length: usize) -> Vec<AtomicU64> {
    (0..length).map(|_| AtomicU64::new(0)).collect()
}

/// QEMU calls this when it loads the plugin.
///
/// # Safety
/// `arguments` points to `count` C strings, as QEMU promises.
// SAFETY: no other symbol of that name is in the library; the signature is that of the interface.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: PluginId,
    _machine: *const c_void,
    count: c_int,
    arguments: *const *const c_char,
) -> c_int {
    let mut texts = Vec::new();
    for index in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: the caller has `count` pointers here.
        let slot = unsafe { arguments.add(index) };
        // SAFETY: as above.
        let pointer = unsafe { *slot };
        // SAFETY: each points to a C string that lives as long as this call.
        texts.push(unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned());
    }
    let Some(counter) = Counter::parse(&texts) else {
        eprintln!("instruction counter: expected begin=ADDRESS,end=ADDRESS,out=FILE[,stop=ADDRESS]");
        return 1;
    };
    if COUNTER.set(counter).is_err() {
        return 1;
    }
    // SAFETY: `id` is what QEMU gave us, and a function outlives the plugin.
    unsafe { qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation) };
    // SAFETY: as above; there is no data.
    unsafe { qemu_plugin_register_atexit_cb(id, on_exit, std::ptr::null_mut()) };
    0
}

extern "C" fn on_translation(_id: PluginId, block: *mut Block) {
    let Some(counter) = COUNTER.get() else { return };
    // SAFETY: QEMU lends the block for the time of this call.
    let start = unsafe { qemu_plugin_tb_vaddr(block) };
    // SAFETY: as above.
    let length = unsafe { qemu_plugin_tb_n_insns(block) };
    if counter.index(start).is_none() {
        let callback = if counter.stop == Some(start) { on_stop } else { on_guest_block };
        // SAFETY: as above; the data is a number, not a pointer.
        unsafe { qemu_plugin_register_vcpu_tb_exec_cb(block, callback, NO_REGISTERS, number(length)) };
        return;
    }
    for index in 0..length {
        // SAFETY: the index is below the number of instructions of the block.
        let instruction = unsafe { qemu_plugin_tb_get_insn(block, index) };
        // SAFETY: lent with the block.
        let address = unsafe { qemu_plugin_insn_vaddr(instruction) };
        if let Some(index) = counter.index(address) {
            // SAFETY: as above; the data is a number, not a pointer.
            unsafe {
                qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_image_instruction, NO_REGISTERS, number(index));
            }
        }
    }
}

/// A number where the interface passes a pointer through.
fn number(value: usize) -> *mut c_void {
    std::ptr::without_provenance_mut(value)
}

extern "C" fn on_image_instruction(_cpu: c_uint, index: *mut c_void) {
    if let Some(counter) = COUNTER.get() {
        counter.image_executes(index.addr());
    }
}

extern "C" fn on_guest_block(_cpu: c_uint, length: *mut c_void) {
    if let Some(counter) = COUNTER.get() {
        counter.guest_executes(length.addr() as u64);
    }
}

extern "C" fn on_stop(_cpu: c_uint, _length: *mut c_void) {
    if let Some(counter) = COUNTER.get() {
        counter.report();
    }
    std::process::exit(0);
}

extern "C" fn on_exit(_id: PluginId, _data: *mut c_void) {
    if let Some(counter) = COUNTER.get() {
        counter.report();
    }
}
