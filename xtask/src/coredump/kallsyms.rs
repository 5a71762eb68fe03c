//! The symbols that a Linux kernel has in its own memory.
//!
//! Answers for: finding the tables behind /proc/kallsyms in a dump, without knowing the kernel, and reading them. They are
//! written by `scripts/kallsyms.c` of Linux; understood are those with 32-bit offsets from a base (`KALLSYMS_BASE_RELATIVE`,
//! what AArch64 has), in the order of 4.6 to 6.3 and in that since 6.4. Does not answer for: modules.
//!
//! What is found may be something else that a guest has put there: every length and every place is checked.

use anyhow::{Context, Result, ensure};

use super::Core;

/// The tokens for the digits stand for themselves, in the order of their codes: how the table of tokens is found.
const DIGITS: &[u8] = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00";
/// Tokens in the table, and the number of the first digit's.
const TOKENS: usize = 256;
const FIRST_DIGIT: usize = b'0' as usize;
/// Bytes before and behind the table of tokens in which the others are.
const BEFORE: u64 = 16 << 20;
const BEHIND: u64 = 8 << 20;
/// Bytes that are searched at a time.
const WINDOW: usize = 4 << 20;
/// How many symbols there can be.
const SYMBOLS: std::ops::Range<usize> = 256..4 << 20;
/// Symbols for each marker.
const MARKED: usize = 256;

/// Symbols by address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Symbols(pub(super) Vec<Symbol>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Symbol {
    pub(super) address: u64,
    /// As `nm` shows it.
    pub(super) kind: char,
    pub(super) name: String,
}

impl Symbols {
    fn new(mut symbols: Vec<Symbol>) -> Symbols {
        symbols.sort_by_key(|symbol| symbol.address);
        Symbols(symbols)
    }

    /// Reads lines of address, kind and name; modules are left out.
    pub(super) fn from_text(text: &str) -> Result<Symbols> {
        let mut symbols = Vec::new();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some(address), Some(kind), Some(name), None) =
                (words.next(), words.next(), words.next(), words.next())
            else {
                continue;
            };
            let address = u64::from_str_radix(address, 16).with_context(|| format!("no line of kallsyms: {line}"))?;
            symbols.push(Symbol { address, kind: kind.chars().next().unwrap_or('?'), name: name.into() });
        }
        ensure!(symbols.iter().any(|symbol| symbol.address != 0), "all addresses are 0: sysctl kernel.kptr_restrict");
        Ok(Symbols::new(symbols))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The address of a name.
    pub(super) fn address(&self, name: &str) -> Option<u64> {
        self.0.iter().find(|symbol| symbol.name == name).map(|symbol| symbol.address)
    }

    /// Name and offset of what is at an address of the kernel's own.
    pub(super) fn name(&self, address: u64) -> Option<String> {
        let last = self.0.partition_point(|symbol| symbol.address <= address).checked_sub(1)?;
        let symbol = self.0.get(last).filter(|_| last + 1 < self.0.len())?;
        Some(format!("{}+{:#x}", symbol.name, address - symbol.address))
    }
}

/// Looks for the tables in the dumped memory.
pub(crate) fn find(core: &Core) -> Option<Symbols> {
    let finder = memchr::memmem::Finder::new(DIGITS);
    for segment in &core.segments {
        let mut at = 0;
        while at < segment.size {
            let length = (segment.size - at).min((WINDOW + DIGITS.len()) as u64);
            let mut window = vec![0; length as usize];
            core.physical(segment.address + at, &mut window)?;
            for place in finder.find_iter(&window) {
                let digits = at + place as u64;
                let first = digits.saturating_sub(BEFORE) & !0xfff;
                let mut around = vec![0; (segment.size.min(digits + BEHIND) - first) as usize];
                core.physical(segment.address + first, &mut around)?;
                if let Some(symbols) = read(&around, (digits - first) as usize) {
                    return Some(symbols);
                }
            }
            at += WINDOW as u64;
        }
    }
    None
}

/// Reads the tables around the digits of the table of tokens, which are at `digits`. `memory` begins at a page.
fn read(memory: &[u8], digits: usize) -> Option<Symbols> {
    // Behind the digits the rest of the tokens, and then their places.
    let mut end = digits;
    for _ in FIRST_DIGIT..TOKENS {
        end += memory.get(end..)?.iter().take(64).position(|byte| *byte == 0)? + 1;
    }
    let index_at = end.next_multiple_of(8);
    let places: Vec<usize> = halves(memory.get(index_at..index_at + 2 * TOKENS)?).collect();
    let table = digits.checked_sub(*places.get(FIRST_DIGIT)?)?;
    let mut tokens = Vec::new();
    for place in &places {
        let token = memory.get(table + place..end)?;
        tokens.push(token.get(..token.iter().position(|byte| *byte == 0)?)?);
    }
    // The count is in front of the names; for a wrong one they do not end where the markers say.
    let lowest = table.saturating_sub(BEFORE as usize);
    let (count_at, names) = (lowest..table).rev().filter(|at| at.is_multiple_of(8)).find_map(|at| {
        let count = long(memory, at).and_then(|count| usize::try_from(count).ok())?;
        Some((at, names(memory, at + 8, table, count)?))
    })?;
    let offsets = |at: usize, base_at: usize| {
        let base = long(memory, base_at).filter(|base| base >> 48 == 0xffff)?;
        let offsets: Vec<u64> = words(memory.get(at..at + 4 * names.len())?).collect();
        offsets.is_sorted().then_some((base, offsets))
    };
    let size = (4 * names.len()).next_multiple_of(8);
    let behind = index_at + 2 * TOKENS;
    let before = count_at.checked_sub(8).and_then(|base| offsets(base.checked_sub(size)?, base));
    let (base, offsets) = before.or_else(|| offsets(behind, behind + size))?;
    let mut symbols = Vec::new();
    for (name, offset) in names.iter().zip(offsets) {
        let mut text = Vec::new();
        name.iter()
            .for_each(|token| text.extend_from_slice(tokens.get(usize::from(*token)).unwrap_or(&b"?".as_slice())));
        let text = String::from_utf8(text).ok()?;
        let mut characters = text.chars();
        let kind = characters.next()?;
        symbols.push(Symbol { address: base.checked_add(offset)?, kind, name: characters.as_str().into() });
    }
    Some(Symbols::new(symbols))
}

/// The packed names from `at` on, if there are `count` of them and the markers behind say where every 256th is.
fn names(memory: &[u8], at: usize, limit: usize, count: usize) -> Option<Vec<&[u8]>> {
    if !SYMBOLS.contains(&count) {
        return None;
    }
    let (mut names, mut marked, mut place) = (Vec::new(), Vec::new(), at);
    for number in 0..count {
        if number % MARKED == 0 {
            marked.push((place - at) as u64);
        }
        let first = usize::from(*memory.get(place)?);
        // From 128 on the length has a second byte.
        let (length, header) = match first & 0x80 {
            0 => (first, 1),
            _ => (first & 0x7f | usize::from(*memory.get(place + 1)?) << 7, 2),
        };
        let start = place + header;
        place = start + length;
        if length == 0 || place > limit {
            return None;
        }
        names.push(memory.get(start..place)?);
    }
    let markers = place.next_multiple_of(8);
    let found = words(memory.get(markers..markers + 4 * marked.len())?);
    found.eq(marked).then_some(names)
}

fn long(memory: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(memory.get(at..at + 8)?.try_into().ok()?))
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.chunks_exact(4).map(|word| word.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

fn halves(bytes: &[u8]) -> impl Iterator<Item = usize> {
    bytes.chunks_exact(2).map(|half| half.iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte)))
}
