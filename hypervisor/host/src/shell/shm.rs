//! `shm`: shared memory at the shell.
//!
//! Answers for: what can be done with regions by hand, and in a script. Does not answer for: doing it (the kernel).

use super::{
    CommandError, Word,
    argument::{milliseconds, size},
    command::Call,
};
use alloc::format;
use types::PAGE_SIZE;
use vdev::RegionName;

/// Something to do with shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shm {
    /// List the regions.
    List,
    /// Make a region, which stays until it is deleted.
    Create {
        /// Its name.
        name: RegionName,
        /// Its size in pages of 4 KiB.
        pages: u32,
    },
    /// Let go of a region that was made here: it goes with its last client.
    Delete(RegionName),
    /// Show bytes of it.
    Read {
        /// Which region.
        name: RegionName,
        /// From here on.
        offset: u64,
        /// So many, at most [`MOST_SHOWN`].
        bytes: u64,
    },
    /// Store a word of 32 bits.
    Write {
        /// Which region.
        name: RegionName,
        /// Where: a multiple of 4.
        offset: u64,
        /// What.
        value: u32,
    },
    /// Go on when a word of 32 bits has this value.
    Wait {
        /// Which region; there need not be one yet.
        name: RegionName,
        /// Where: a multiple of 4.
        offset: u64,
        /// What is waited for.
        value: u32,
        /// For how long; `None`: as long as it takes.
        milliseconds: Option<u64>,
    },
    /// Tell clients of it to look.
    Notify {
        /// Which region.
        name: RegionName,
        /// A bit for each.
        clients: u16,
    },
}

/// Most bytes that are shown at once.
pub const MOST_SHOWN: u64 = 4096;

pub(super) const ARGUMENTS: &str = "[create|delete|read|write|wait|notify NAME ...]";

/// `shm ...`.
pub(super) fn read(call: &Call<'_, '_>) -> Result<Shm, CommandError> {
    let Some((verb, words)) = call.words.split_first() else { return Ok(Shm::List) };
    match (verb.text, words) {
        ("create", [named]) => {
            let (name, size) = named.text.split_once(',').ok_or_else(|| usage(verb, "create NAME,SIZE"))?;
            let bytes = qvmconf::size(size).map_err(|error| named.error(format!("`{size}`: {error}")))?;
            let pages = u32::try_from(bytes.div_ceil(PAGE_SIZE)).ok().filter(|pages| *pages > 0);
            let pages = pages.ok_or_else(|| named.error(format!("no region has {bytes} bytes")))?;
            Ok(Shm::Create { name: region(&Word { text: name, ..*named })?, pages })
        }
        ("delete", [name]) => Ok(Shm::Delete(region(name)?)),
        ("read", [name, offset, bytes @ ..]) if bytes.len() <= 1 => {
            let bytes = bytes.first().map_or(Ok(4), size)?.clamp(1, MOST_SHOWN);
            Ok(Shm::Read { name: region(name)?, offset: size(offset)?, bytes })
        }
        ("write", [name, at, value]) => {
            Ok(Shm::Write { name: region(name)?, offset: offset(at)?, value: word(value)? })
        }
        ("wait", [name, at, value, limit @ ..]) if limit.len() <= 1 => {
            let limit = limit.first().map(milliseconds).transpose()?;
            Ok(Shm::Wait { name: region(name)?, offset: offset(at)?, value: word(value)?, milliseconds: limit })
        }
        ("notify", [name, clients @ ..]) if clients.len() <= 1 => {
            let mask = clients.first().map_or(Ok(u16::MAX.into()), size)?;
            let none = || call.first.error("clients are 16 bits, one each");
            Ok(Shm::Notify { name: region(name)?, clients: u16::try_from(mask).map_err(|_| none())? })
        }
        ("create", _) => Err(usage(verb, "create NAME,SIZE")),
        ("delete", _) => Err(usage(verb, "delete NAME")),
        ("read", _) => Err(usage(verb, "read NAME OFFSET [BYTES]")),
        ("write", _) => Err(usage(verb, "write NAME OFFSET VALUE")),
        ("wait", _) => Err(usage(verb, "wait NAME OFFSET VALUE [SECONDS]")),
        ("notify", _) => Err(usage(verb, "notify NAME [CLIENTS]")),
        (other, _) => {
            let known = ["create", "delete", "read", "write", "wait", "notify"];
            let hint = qvmconf::nearest(other, known).map_or_else(|| "`help shm`".into(), |near| format!("`{near}`?"));
            Err(verb.error(format!("`shm {other}` is unknown; {hint}")))
        }
    }
}

fn usage(verb: &Word<'_>, form: &str) -> CommandError {
    verb.error(format!("usage: `shm {form}`"))
}

fn region(word: &Word<'_>) -> Result<RegionName, CommandError> {
    let bad = || word.error(format!("`{}` cannot name a region: 1 to 32 printing characters", word.text));
    RegionName::new(word.text.as_bytes()).ok_or_else(bad)
}

fn word(word: &Word<'_>) -> Result<u32, CommandError> {
    let value = size(word)?;
    u32::try_from(value).map_err(|_| word.error(format!("`{}` does not fit 32 bits", word.text)))
}

fn offset(word: &Word<'_>) -> Result<u64, CommandError> {
    let offset = size(word)?;
    let aligned = offset.is_multiple_of(4);
    if aligned { Ok(offset) } else { Err(word.error(format!("`{}` is no multiple of 4", word.text))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::{self, Command};
    use alloc::string::ToString;

    fn typed(text: &str) -> Shm {
        match shell::read(text).unwrap().unwrap() {
            Command::Shm(shm) => shm,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_form_can_be_typed() {
        let name = RegionName::new(b"a").unwrap();
        assert_eq!(typed("shm"), Shm::List);
        assert_eq!(typed("shm create a,6K"), Shm::Create { name, pages: 2 });
        assert_eq!(typed("shm delete a"), Shm::Delete(name));
        assert_eq!(typed("shm read a 0x10"), Shm::Read { name, offset: 16, bytes: 4 });
        assert_eq!(typed("shm read a 1 1M"), Shm::Read { name, offset: 1, bytes: MOST_SHOWN });
        assert_eq!(typed("shm write a 4 0xffffffff"), Shm::Write { name, offset: 4, value: u32::MAX });
        assert_eq!(typed("shm wait a 0 7"), Shm::Wait { name, offset: 0, value: 7, milliseconds: None });
        let milliseconds = Some(1500);
        assert_eq!(typed("shm wait a 0 7 1.5"), Shm::Wait { name, offset: 0, value: 7, milliseconds });
        assert_eq!(typed("shm notify a"), Shm::Notify { name, clients: u16::MAX });
        assert_eq!(typed("shm notify a 0x3"), Shm::Notify { name, clients: 3 });
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, message) in [
            ("shm create a", "shell: usage: `shm create NAME,SIZE`"),
            ("shm create a,0", "shell: no region has 0 bytes"),
            ("shm create ,4K", "shell: `` cannot name a region: 1 to 32 printing characters"),
            ("shm delete", "shell: usage: `shm delete NAME`"),
            ("shm write a 2 1", "shell: `2` is no multiple of 4"),
            ("shm write a 0 0x100000000", "shell: `0x100000000` does not fit 32 bits"),
            ("shm wiat a", "shell: `shm wiat` is unknown; `wait`?"),
            ("shm notify a 0x10000", "shell: clients are 16 bits, one each"),
        ] {
            assert_eq!(shell::read(text).unwrap_err().to_string(), message, "{text}");
        }
    }
}
