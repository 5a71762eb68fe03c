//! QEMU's edu as a weapon: a driver that has the device do DMA to wherever it is told.
//!
//! Answers for: a test of the device and of all its interrupts; DMA by order, and what came of it as far as this guest can see: what the
//! device says, and whether its own memory has changed. Does not answer for: other VMs' memory, which `guest-canary` watches.
//!
//! Orders are the words of the command line, with numbers behind them, decimal or `0x`:
//!
//! | | |
//! |---|---|
//! | `test` | identification, liveness, a factorial, the line, a message, DMA from and to a piece of own memory full of a pattern |
//! | `sizes` | accesses of all sizes: which it takes; and then with the registers of another edu, if there is one, at the same place |
//! | `lines` | this edu and another one interrupt by their lines, one after the other and both |
//! | `write ADDRESS LENGTH` | by DMA, at most 1 MiB |
//! | `read ADDRESS` | 64 bytes by DMA, and says what they are |
//! | `sweep FROM TO STEP` | writes 64 bytes at each, at most 4096 times |
//! | `again ADDRESS LENGTH` | writes without end, until somebody ends this VM; a line for each of the first ten, then for each hundredth |
//! | `last ADDRESS LENGTH` | orders it and powers off, before the device begins |
//! | `stale` | writes a page of its own, gives it back by its memory balloon, and writes it again |
//! | `stale ADDRESS` | the same with a page that is given back by others: waits for a line on the console in between |
//! | `race ROUNDS` | has it write a page and, about when it does, gives that page and those around it back by its memory balloon |
//! | `wait MILLISECONDS` | |
//! | `listen` | takes orders from the console, a line each; `end` ends that |
//!
//! ADDRESS may be `own`, which is in the piece of memory with the pattern. Addresses wrap around as the device's do.

#![no_std]
#![no_main]

mod balloon;
mod orders;
mod tests;
mod weapon;

use guest_rt::edu::Edu;
use guest_rt::machine::Machine;
use guest_rt::tree::Tree;
use guest_rt::{entry, println};

use orders::Orders;
use weapon::Weapon;

entry!(main);

fn main(machine: &'static Machine) {
    // SAFETY: where the boot protocol has put the tree, which nobody writes.
    let Ok(tree) = (unsafe { Tree::at(machine.tree.start as usize) }) else { return };
    let Some(edu) = Edu::find(tree) else { return println!("edu: there is none") };
    println!("edu: {:#010x} at function {:#x}", edu.identification(), edu.function.number);
    match Weapon::new(machine, tree, edu) {
        Some(weapon) => Orders::new(machine.arguments).obey(&weapon),
        None => println!("edu: FAILED: no memory for a pattern, or DMA that never ends"),
    }
    println!("edu: good-bye");
}
