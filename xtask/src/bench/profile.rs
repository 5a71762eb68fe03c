//! Where the hypervisor's instructions go: exact counts by QEMU's plugin of `xtask/counter`.
//!
//! Answers for: a run under the plugin, what is read from its counts (shares, kinds of instructions, functions). Does not
//! answer for: budgets. Encodings follow the Arm Architecture Reference Manual (DDI 0487), C4.1, "System instructions".

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSegment, ObjectSymbol, SymbolKind};

use crate::artifacts::{self, Board};
use crate::configuration::Configuration;
use crate::gdb::load_address;
use crate::image;
use crate::qemu::machine::Machine;
use crate::qemu::{Mode, batch, pack};
use crate::workspace::target;

const LIMIT: Duration = Duration::from_secs(600);

/// How often each instruction of the image was executed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Profile {
    /// By address as linked, before the first instruction of a guest; all CPUs.
    boot: BTreeMap<u64, u64>,
    /// Instructions of guests.
    pub(super) guest: u64,
    /// By address as linked, from the first guest instruction on.
    executed: BTreeMap<u64, u64>,
}

/// What an instruction costs more than others on silicon.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Kinds {
    /// `MRS`, `MSR`.
    pub(super) system_register: u64,
    /// `ISB`, `DSB`, `DMB`.
    pub(super) barrier: u64,
    /// `TLBI`.
    pub(super) tlb: u64,
    /// `ERET`: how often a guest was entered, or EL2 itself resumed.
    pub(super) returns: u64,
}

impl Profile {
    /// Runs VMs under the plugin until they have ended, or a guest reaches `stop`.
    pub(super) fn take(board: &Board, machine: &Machine, vms: &[Configuration], stop: Option<u64>) -> Result<Profile> {
        Profile::take_as(Mode::Batch, board, machine, vms, stop)
    }

    /// The same in another mode.
    pub(super) fn take_as(
        mode: Mode,
        board: &Board,
        machine: &Machine,
        vms: &[Configuration],
        stop: Option<u64>,
    ) -> Result<Profile> {
        Ok(Profile::in_vms(mode, board, machine, vms, stop)?.0)
    }

    /// The same, and what was printed meanwhile.
    pub(super) fn in_vms(
        mode: Mode,
        board: &Board,
        machine: &Machine,
        vms: &[Configuration],
        stop: Option<u64>,
    ) -> Result<(Profile, String)> {
        Profile::of_archive(board, machine, pack(vms, mode, &[])?.path(), stop)
    }

    /// The same for an archive that there is already.
    pub(super) fn of_archive(
        board: &Board,
        machine: &Machine,
        archive: &Path,
        stop: Option<u64>,
    ) -> Result<(Profile, String)> {
        let content = fs::read(&board.image)?;
        let begin = load_address(image::text_offset(&content).context("not an arm64 Image")?);
        let linked_at = image::linked_at(&fs::read(&board.elf)?)?;
        let image = begin..begin + content.len() as u64;
        count(machine, image, linked_at, stop, |machine| machine.boot(&board.image, archive))
    }

    /// Counts what a kernel executes without a hypervisor: all of it is a guest's but its first instruction, for the boot code of the
    /// emulator is nobody's. `boot` starts the machine.
    pub(super) fn on_bare(
        machine: &Machine,
        kernel: &Path,
        boot: impl FnOnce(&Machine) -> Result<Command>,
    ) -> Result<(Profile, String)> {
        let begin = load_address(image::text_offset(&fs::read(kernel)?).context("not an arm64 Image")?);
        count(machine, begin..begin + 4, begin, None, boot)
    }

    /// Reads what the plugin wrote; `moved_by` is added to each address.
    fn parse(text: &str, moved_by: u64) -> Result<Profile> {
        let mut profile = Profile::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let (part, address, count) = match words.as_slice() {
                ["guest", count] => {
                    profile.guest = count.parse()?;
                    continue;
                }
                ["boot", address, count] => (&mut profile.boot, address, count),
                ["run", address, count] => (&mut profile.executed, address, count),
                _ => bail!("a line of the counts has another form: {line}"),
            };
            let address = u64::from_str_radix(address.trim_start_matches("0x"), 16)?;
            part.insert(address.wrapping_add(moved_by), count.parse()?);
        }
        Ok(profile)
    }

    /// Instructions of the hypervisor before the first of a guest.
    pub(super) fn boot(&self) -> u64 {
        self.boot.values().sum()
    }

    /// This run up to the first instruction of a guest.
    pub(super) fn of_boot(self) -> Profile {
        Profile { executed: self.boot, ..Profile::default() }
    }

    /// What this run executed more than `other`: their start and their end are the same.
    pub(super) fn without(mut self, other: &Profile) -> Profile {
        for (address, count) in &mut self.executed {
            *count = count.saturating_sub(other.executed.get(address).copied().unwrap_or(0));
        }
        self.guest = self.guest.saturating_sub(other.guest);
        self
    }

    /// Instructions of the hypervisor from the first guest instruction on.
    pub(super) fn hypervisor(&self) -> u64 {
        self.executed.values().sum()
    }

    /// The hypervisor's instructions in percent of the guests'.
    pub(super) fn share(&self) -> f64 {
        self.hypervisor() as f64 * 100.0 / self.guest.max(1) as f64
    }

    /// How many of the executed instructions are of which kind.
    pub(super) fn kinds(&self, elf: &[u8]) -> Result<Kinds> {
        let file = object::File::parse(elf)?;
        let mut kinds = Kinds::default();
        for segment in file.segments() {
            let data = segment.data()?;
            for (&address, count) in self.executed.range(segment.address()..segment.address() + data.len() as u64) {
                let offset = (address - segment.address()) as usize;
                if let Some(&[a, b, c, d]) = data.get(offset..offset + 4) {
                    kinds.add(u32::from_le_bytes([a, b, c, d]), *count);
                }
            }
        }
        Ok(kinds)
    }

    /// The functions that execute most, with their instructions, the most expensive first.
    pub(super) fn functions(&self, elf: &[u8]) -> Result<Vec<(String, u64)>> {
        let file = object::File::parse(elf)?;
        let mut starts: BTreeMap<u64, String> = BTreeMap::new();
        for symbol in file.symbols().filter(|symbol| matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Unknown)) {
            let name = symbol.name().unwrap_or_default();
            // `$x` and `$d` mark code and data ("Mapping symbols", ELF for the Arm 64-bit architecture), two underscores the
            // boundaries of sections. Code in assembly has no type.
            if !name.starts_with(['$', '.']) && !name.starts_with("__") {
                starts.insert(symbol.address(), format!("{:#}", rustc_demangle::demangle(name)));
            }
        }
        let mut functions: BTreeMap<&str, u64> = BTreeMap::new();
        for (address, count) in &self.executed {
            let name = starts.range(..=address).next_back().map_or("?", |(_, name)| name.as_str());
            *functions.entry(name).or_default() += count;
        }
        let mut functions: Vec<(String, u64)> =
            functions.into_iter().map(|(name, count)| (name.to_string(), count)).collect();
        functions.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        Ok(functions)
    }
}

/// Runs a machine under the plugin. `image`: what is not the guests', which is linked at `linked_at`.
fn count(
    machine: &Machine,
    image: Range<u64>,
    linked_at: u64,
    stop: Option<u64>,
    boot: impl FnOnce(&Machine) -> Result<Command>,
) -> Result<(Profile, String)> {
    let plugin = artifacts::plugin()?;
    let out = target().join("images").join(format!("counts-{}", std::process::id()));
    let stop = stop.map_or(String::new(), |address| format!(",stop={address:#x}"));
    let Range { start, end } = image;
    let plugin = format!("{},begin={start:#x},end={end:#x},out={}{stop}", plugin.display(), out.display());
    let mut machine = machine.clone();
    machine.more.extend(["-plugin".to_string(), plugin]);
    let mut text = Vec::new();
    let outcome = batch::run(boot(&machine)?, Some(LIMIT), &mut text)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let counts = fs::read_to_string(&out);
    let _ = fs::remove_file(&out);
    match counts {
        Ok(counts) if !outcome.late => Ok((Profile::parse(&counts, linked_at.wrapping_sub(start))?, text)),
        _ => bail!("the machine did not come to its end:\n{text}"),
    }
}

impl Kinds {
    fn add(&mut self, instruction: u32, count: u64) {
        // `SYS` with CRn 8 or 9 is TLBI.
        let is_tlbi = instruction & 0xfff8_0000 == 0xd508_0000 && matches!(instruction >> 12 & 0xf, 8 | 9);
        if instruction & 0xffd0_0000 == 0xd510_0000 {
            self.system_register += count;
        } else if is_tlbi {
            self.tlb += count;
        } else if instruction & 0xffff_f000 == 0xd503_3000 {
            self.barrier += count;
        } else if instruction == 0xd69f_03e0 {
            self.returns += count;
        }
    }
}

/// The entry point of a program: where a guest that starts it arrives.
pub(super) fn entry_point(program: &Path) -> Result<u64> {
    let content = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    Ok(object::File::parse(&*content)?.entry())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_and_moved_to_where_the_image_is_linked() {
        let profile =
            Profile::parse("guest 2000\nboot 0x40200000 100\nrun 0x40200000 3\nrun 0x40200004 1\n", 0x1000).unwrap();
        assert_eq!((profile.boot(), profile.guest, profile.hypervisor()), (100, 2000, 4));
        assert_eq!(profile.executed.first_key_value(), Some((&0x4020_1000, &3)));
        assert!((profile.share() - 0.2).abs() < 1e-9);
        assert!(Profile::parse("nonsense", 0).is_err());
    }

    #[test]
    fn what_two_runs_have_in_common_can_be_left_out() {
        let long = Profile::parse("guest 50\nrun 0x0 7\nrun 0x4 3\n", 0).unwrap();
        let short = Profile::parse("guest 20\nrun 0x0 5\nrun 0x8 9\n", 0).unwrap();
        let difference = long.without(&short);
        assert_eq!((difference.guest, difference.hypervisor()), (30, 5));
    }

    #[test]
    fn kinds_are_told_by_their_encoding() {
        let mut kinds = Kinds::default();
        kinds.add(0xd538_4240, 2); // mrs x0, currentel
        kinds.add(0xd51c_1100, 3); // msr hcr_el2, x0
        kinds.add(0xd503_3fdf, 5); // isb
        kinds.add(0xd503_3b9f, 7); // dsb ish
        kinds.add(0xd50c_831f, 11); // tlbi vmalle1is
        kinds.add(0xd69f_03e0, 13); // eret
        kinds.add(0xd503_207f, 17); // wfi
        kinds.add(0xd50b_7e20, 19); // dc civac, x0
        assert_eq!(kinds, Kinds { system_register: 5, barrier: 12, tlb: 11, returns: 13 });
    }
}
