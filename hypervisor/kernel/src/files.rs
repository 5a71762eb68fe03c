//! Files in RAM.
//!
//! Answers for: the list of files, and the memory that they are in: page frames of nobody's VM, so that a file outlives the
//! VM that it came from; never the last of the machine's RAM (`frames`); sending them over the console. Does not answer for:
//! what is in them, how it is packed and what the lines look like (`host::file`).

use crate::frames::{self, Frames, Owner};
use crate::sync::{Lock, Rank};
use crate::{console, thread};
use alloc::string::String;
use alloc::vec::Vec;
use core::ptr;
use host::file::transfer::{self, Checksum};
use host::file::{Store, names};
use types::{PAGE_SIZE, VmId};

/// Pages that a file grows by.
const GROWTH: usize = 16;
const PIECE: usize = GROWTH * PAGE_SIZE as usize;

/// Lines that are sent before others on the console have their turn.
const BURST: usize = 16;

/// Bytes that are copied with interrupts masked.
const STEP: usize = 4096;

/// The writer that is no VM: the host. No VM has this number.
pub(crate) const HOST: VmId = VmId(u16::MAX);

struct File {
    name: String,
    about: About,
    /// The VM whose thread is writing it; there is at most one for each.
    writer: Option<VmId>,
    pieces: Vec<Frames>,
}

/// How large a file is, and what it is known by.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct About {
    /// Bytes, unpacked.
    pub(crate) size: u64,
    /// Bytes as it is kept.
    pub(crate) packed: u64,
    /// Over those.
    pub(crate) checksum: u32,
}

static FILES: Lock<Vec<File>> = Lock::new(Rank::Files, Vec::new());

/// A new file, still without content, that a thread of `writer` is going to write. Says whether the name was free.
pub(crate) fn create(name: &str, writer: VmId) -> bool {
    abandon(writer);
    let mut files = FILES.lock();
    let free = files.iter().all(|file| file.name != name);
    if free {
        files.push(File { name: name.into(), about: About::default(), writer: Some(writer), pieces: Vec::new() });
    }
    free
}

/// The same under the first of the names of files about `subject` that nobody has; that, or the last that was tried.
pub(crate) fn create_any(folder: &str, subject: &str, extension: &'static str, writer: VmId) -> Result<String, String> {
    let mut last = String::new();
    for name in names(folder, subject, extension) {
        if create(&name, writer) {
            return Ok(name);
        }
        last = name;
    }
    Err(last)
}

/// There is no room for more, or no more time.
#[derive(Debug)]
pub(crate) struct Full;

/// Appends to the file that `writer` is writing.
fn append(writer: VmId, bytes: &[u8]) -> Result<(), Full> {
    for step in bytes.chunks(STEP) {
        let mut files = FILES.lock();
        let file = files.iter_mut().find(|file| file.writer == Some(writer)).ok_or(Full)?;
        let at = file.about.packed as usize;
        while file.pieces.len() * PIECE < at + step.len() {
            file.pieces.push(frames::allocate(GROWTH, 1, Owner::Files).ok_or(Full)?);
        }
        let (first, rest) = step.split_at(step.len().min(PIECE - at % PIECE));
        for (at, part) in [(at, first), (at + first.len(), rest)] {
            if let Some(piece) = file.pieces.get(at / PIECE) {
                let to = (piece.start().0 as usize + at % PIECE) as *mut u8;
                // SAFETY: within frames of this file's, which only this module reaches, under the lock; `part` ends with
                // the piece.
                unsafe { ptr::copy_nonoverlapping(part.as_ptr(), to, part.len()) };
            }
        }
        file.about.packed += step.len() as u64;
    }
    Ok(())
}

/// The memory of the file that somebody is writing, with what becomes known of it on the way.
pub(crate) struct Room {
    writer: VmId,
    packed: u64,
    checksum: Checksum,
}

impl Room {
    pub(crate) fn new(writer: VmId) -> Self {
        Self { writer, packed: 0, checksum: Checksum::default() }
    }

    /// Bytes so far.
    pub(crate) fn packed(&self) -> u64 {
        self.packed
    }

    /// Over those.
    pub(crate) fn checksum(&self) -> u32 {
        self.checksum.value()
    }
}

impl Store for &mut Room {
    type Error = Full;

    fn append(&mut self, bytes: &[u8]) -> Result<(), Full> {
        self.packed += bytes.len() as u64;
        self.checksum = self.checksum.with(bytes);
        append(self.writer, bytes)
    }
}

/// The file that `writer` is writing is complete.
pub(crate) fn finish(writer: VmId, size: u64, checksum: u32) -> Option<About> {
    let mut files = FILES.lock();
    let file = files.iter_mut().find(|file| file.writer == Some(writer))?;
    file.writer = None;
    file.about = About { size, checksum, ..file.about };
    Some(file.about)
}

/// Takes away what `writer` has begun and not completed.
pub(crate) fn abandon(writer: VmId) {
    let unfinished = take(|file| file.writer == Some(writer));
    drop(unfinished);
}

/// Takes a file away. Says whether there was one of that name.
pub(crate) fn remove(name: &str) -> bool {
    take(|file| file.name == name && file.writer.is_none()).is_some()
}

fn take(which: impl Fn(&File) -> bool) -> Option<File> {
    let mut files = FILES.lock();
    let place = files.iter().position(which)?;
    Some(files.remove(place))
}

/// All complete files.
pub(crate) fn list() -> Vec<(String, About)> {
    let files = FILES.lock();
    files.iter().filter(|file| file.writer.is_none()).map(|file| (file.name.clone(), file.about)).collect()
}

/// Reads what a complete file is kept as, from `at` on; how much there was.
pub(crate) fn read(name: &str, at: u64, into: &mut [u8]) -> usize {
    let files = FILES.lock();
    let Some(file) = files.iter().find(|file| file.name == name && file.writer.is_none()) else { return 0 };
    let (mut done, left) = (0, file.about.packed.saturating_sub(at));
    let wanted = left.min(into.len() as u64) as usize;
    while done < wanted {
        let at = at as usize + done;
        let length = (wanted - done).min(PIECE - at % PIECE);
        let Some(piece) = file.pieces.get(at / PIECE) else { break };
        let from = (piece.start().0 as usize + at % PIECE) as *const u8;
        // SAFETY: as in `append`; `length` ends with the piece, and with `into`.
        unsafe { ptr::copy_nonoverlapping(from, into.as_mut_ptr().wrapping_add(done), length) };
        done += length;
    }
    done
}

/// Sends a complete file over the console, as long as `go_on` says so. Says whether there was one of that name.
pub(crate) fn send(name: &str, mut go_on: impl FnMut() -> bool) -> bool {
    let Some((_, about)) = list().into_iter().find(|(other, _)| other == name) else { return false };
    print(&transfer::begin(name, about.size, about.packed, about.checksum));
    let (mut at, mut number) = (0, 0);
    while at < about.packed && go_on() {
        let mut lines = String::new();
        for _ in 0..BURST {
            let mut bytes = [0; transfer::LINE];
            let count = read(name, at, &mut bytes);
            if count > 0 {
                lines.push_str(&transfer::data(number, &bytes[..count]));
                lines.push('\n');
                at += count as u64;
                number += 1;
            }
        }
        print(&lines);
    }
    print(&transfer::end(name));
    true
}

/// Prints lines when nothing else of the host's waits: others have their turn in between.
fn print(lines: &str) {
    while console::with(|multiplexer| multiplexer.offer(lines)) == Some(false) {
        thread::sleep_until(console::pause());
    }
}
