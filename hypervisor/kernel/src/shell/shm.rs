//! `shm`: carrying out what is to be done with shared memory.

use super::{Output, Shell};
use crate::shared::{self, HostClient};
use crate::thread;
use alloc::vec;
use host::shared::{Keeper, RegionInfo};
use host::shell::Shm;
use types::{AccessSize, Ipa, PAGE_SIZE, Ticks};
use vdev::{GuestMemory, RegionError, RegionName};

/// How often a value is looked at that somebody waits for: guests need not say that they have changed it. In microseconds.
const LOOK: u64 = 10_000;

/// Bytes in a line of what is shown.
const LINE: usize = 16;

pub(super) fn carry_out(shell: &mut Shell, command: Shm, out: Output<'_>) {
    match command {
        Shm::List => list(out),
        Shm::Create { name, pages } => match shared::keep(name, pages, Keeper::Host) {
            Ok(there) if there != pages => {
                let _ = writeln!(out, "shell: `{name}` is there already, with {} KiB", kibibytes(there));
            }
            Ok(_) => {}
            Err(_) => {
                let _ = writeln!(out, "shell: no memory for `{name}`, or too many regions");
            }
        },
        Shm::Delete(name) => {
            if !shared::release(name) {
                let _ = writeln!(out, "shell: there is no region `{name}` that was made here");
            }
        }
        Shm::Read { name, offset, bytes } => show(name, offset, bytes, out),
        Shm::Write { name, offset, value } => {
            with_memory(name, out, |memory| memory.store(Ipa(offset), AccessSize::Word, value.into()).is_ok());
        }
        Shm::Wait { name, offset, value, milliseconds } => wait(shell, name, offset, value, milliseconds, out),
        Shm::Notify { name, clients } => notify(name, clients, out),
    }
}

fn kibibytes(pages: u32) -> u64 {
    u64::from(pages) * (PAGE_SIZE >> 10)
}

fn list(out: Output<'_>) {
    let _ = writeln!(out, "       KiB CLIENTS KEPT NAME");
    for RegionInfo { name, pages, clients, kept_by_host } in (0..).map_while(shared::info) {
        let kept = if kept_by_host { "yes" } else { "no" };
        let _ = writeln!(out, "{:10} {:7} {kept:4} {name}", kibibytes(pages), clients.count_ones());
    }
}

/// Does something with a region's memory, or says why not: `work` returns whether its addresses are in the region.
fn with_memory(name: RegionName, out: Output<'_>, work: impl FnOnce(&dyn GuestMemory) -> bool) {
    match shared::memory(&name) {
        None => {
            let _ = writeln!(out, "shell: there is no region `{name}`");
        }
        Some((memory, pages)) if !work(&*memory) => {
            let _ = writeln!(out, "shell: `{name}` has {} KiB", kibibytes(pages));
        }
        Some(_) => {}
    }
}

/// Bytes in hexadecimal, lowest address first, and as text.
fn show(name: RegionName, offset: u64, bytes: u64, out: Output<'_>) {
    let mut contents = vec![0; bytes as usize];
    let mut known = false;
    with_memory(name, out, |memory| {
        known = memory.read(Ipa(offset), &mut contents).is_ok();
        known
    });
    for (line, at) in contents.chunks(LINE).zip((offset..).step_by(LINE)).filter(|_| known) {
        let _ = write!(out, "{at:08x} ");
        line.iter().for_each(|byte| _ = write!(out, " {byte:02x}"));
        let _ = write!(out, "{:1$}  ", "", 3 * (LINE - line.len()));
        let text = line.iter().map(|byte| if byte.is_ascii_graphic() { *byte as char } else { '.' });
        text.for_each(|character| _ = out.write_char(character));
        let _ = writeln!(out);
    }
}

fn notify(name: RegionName, clients: u16, out: Output<'_>) {
    match HostClient::join(&name) {
        None => {
            let _ = writeln!(out, "shell: there is no region `{name}`");
        }
        Some(Err(_)) => {
            let _ = writeln!(out, "shell: `{name}` has too many clients for the shell to be one");
        }
        Some(Ok(client)) if client.notify(clients) == 0 => {
            let _ = writeln!(out, "shell: none of these is a client of `{name}`");
        }
        Some(Ok(_)) => {}
    }
}

/// Until the word has the value, or somebody has had enough. As a client of the region, as soon as there is one, so that
/// guests can hurry it.
fn wait(shell: &mut Shell, name: RegionName, offset: u64, value: u32, limit: Option<u64>, out: Output<'_>) {
    let frequency = el2::cpu::counter_frequency();
    let ticks = |microseconds| frequency.map_or(Ticks(0), |frequency| frequency.microseconds(microseconds));
    let end = limit.map_or(Ticks::NEVER, |limit| el2::cpu::counter().saturating_add(ticks(limit.saturating_mul(1000))));
    let mut client = None;
    loop {
        if client.is_none() {
            match HostClient::join(&name) {
                Some(Err(RegionError::TooManyClients)) | None => {}
                Some(joined) => client = joined.ok(),
            }
        }
        if let Some(client) = &client {
            client.look();
        }
        if let Some((memory, pages)) = shared::memory(&name) {
            match memory.load(Ipa(offset), AccessSize::Word) {
                Ok(now) if now == u64::from(value) => return,
                Ok(_) => {}
                Err(_) => {
                    let _ = writeln!(out, "shell: `{name}` has {} KiB", kibibytes(pages));
                    return;
                }
            }
        }
        let now = el2::cpu::counter();
        if now >= end {
            let _ = writeln!(out, "shell: not waiting any longer for `{name}`");
            return;
        }
        if shell.is_interrupted() {
            return;
        }
        thread::sleep_until(now.saturating_add(ticks(LOOK)).min(end));
        shell.bury();
    }
}
