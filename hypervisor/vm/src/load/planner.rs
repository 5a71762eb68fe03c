//! From the `load` options to a plan.
//!
//! Answers for: what each file is taken for, the order in which places are given away, and where the guest starts. What
//! has an address of its own gets it first; then kernels, then other files, then the initrd, then the device tree. Does
//! not answer for: copying.

use super::{
    BlobKind, Item, Load, LoadError, LoadInput, LoadPlan, Piece, Problem, UserTree,
    executable::Executable,
    format::{self, Contents, Format},
    image::{self, Image},
    place::{Conflict, End, Map, Owner},
};
use crate::Files;
use alloc::{string::String, vec, vec::Vec};
use types::{Address as _, Ipa, PAGE_SIZE, Range};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// A device tree has at most 2 MiB and crosses no 2 MiB boundary (booting.rst, section 2).
const TREE_LIMIT: u64 = 2 * MIB;
/// What the generated tree of the largest VM needs, generously.
const TREE_GENERATED: u64 = 64 * 1024;
/// With less than this there is no use trying.
const TREE_LEAST: u64 = 16 * 1024;
/// The initrd lies with the kernel in one window of this size that begins at a multiple of 1 GiB (booting.rst, section 3).
const INITRD_WINDOW: u64 = 32 * GIB;

/// What a file is taken for.
enum Role {
    Kernel(Image),
    Executable(Executable),
    /// Not recognised, and run if nothing else is.
    Raw,
    Data,
    Initrd,
    Tree,
}

/// A file with its role and its length, unpacked.
struct Blob {
    role: Role,
    packed: bool,
    length: u64,
}

pub(super) struct Planner<'a> {
    input: &'a LoadInput<'a>,
    map: Map,
    /// What each of the loads is; `None` if that is not known because of an error.
    blobs: Vec<Option<Blob>>,
    /// Where each has been put.
    places: Vec<Option<Range<Ipa>>>,
    /// The load that says where the device tree goes.
    tree: Option<usize>,
    errors: Vec<LoadError>,
}

impl<'a> Planner<'a> {
    pub(super) fn new(input: &'a LoadInput<'a>) -> Self {
        Self {
            input,
            map: Map::new(input.ram.iter().chain(input.rom).copied(), input.reserved.to_vec()),
            blobs: Vec::new(),
            places: vec![None; input.loads.len()],
            tree: None,
            errors: Vec::new(),
        }
    }

    pub(super) fn plan(mut self, files: &dyn Files) -> Result<LoadPlan, Vec<LoadError>> {
        for (index, load) in self.input.loads.iter().enumerate() {
            let blob = examine(load, files).map_err(|problem| self.fail(Some(index), problem)).ok();
            self.blobs.push(blob);
        }
        self.place_addressed();
        let trees: Vec<(usize, &Load)> =
            self.of_role(|role| matches!(role, Role::Tree)).map(|(index, load, _)| (index, load)).collect();
        let tree_at = trees.iter().rev().find_map(|(index, load)| Some((Some(*index), load.address?)));
        let tree_at = self.input.tree_at.map(|address| (None, address)).or(tree_at);
        let tree_space = self.tree_space();
        let tree = tree_at.and_then(|(index, address)| self.place_tree_at(index, address, tree_space));
        self.place_kernels();
        self.place_others();
        let initrd = self.place_initrd();
        let tree = if tree_at.is_some() { tree } else { self.place_tree(tree_space) };
        let entry = self.entry();
        match (tree, entry) {
            (Some(tree), Some(entry)) if self.errors.is_empty() => Ok(LoadPlan {
                entry,
                device_tree_at: tree.start(),
                device_tree_space: tree.length(),
                initrd,
                user_trees: trees.iter().map(|&(load, tree)| UserTree { load, path: tree.path.clone() }).collect(),
                items: self.items(),
            }),
            _ => Err(self.errors),
        }
    }

    fn fail(&mut self, load: Option<usize>, problem: Problem) {
        self.errors.push(LoadError { load, other: None, problem });
    }

    /// Those that are of a role, with their index.
    fn of_role(&self, wanted: impl Fn(&Role) -> bool) -> impl Iterator<Item = (usize, &'a Load, &Blob)> {
        let known = self.input.loads.iter().zip(&self.blobs).enumerate();
        known
            .filter_map(|(index, (load, blob))| Some((index, load, blob.as_ref()?)))
            .filter(move |(_, _, blob)| wanted(&blob.role))
    }

    /// Takes a range for a load, or notes why not.
    fn take(&mut self, index: usize, range: Option<Range<Ipa>>, size: u64) -> Option<Range<Ipa>> {
        let load = self.input.loads.get(index)?;
        let Some(range) = range else {
            self.fail(Some(index), Problem::NoRoom { what: load.path.clone(), size });
            return None;
        };
        self.claim(range, Owner::Load(index)).then(|| {
            if let Some(place) = self.places.get_mut(index) {
                *place = Some(range);
            }
            range
        })
    }

    fn claim(&mut self, range: Range<Ipa>, owner: Owner) -> bool {
        let Err(conflict) = self.map.claim(range, owner) else { return true };
        let (load, what) = self.name(owner);
        let error = match conflict {
            Conflict::Outside => LoadError { load, other: None, problem: Problem::Outside(what, range) },
            Conflict::Taken(by, other_at) => {
                let (other_load, other) = self.name(by);
                LoadError { load, other: other_load, problem: Problem::Overlap { what, at: range, other, other_at } }
            }
        };
        self.errors.push(error);
        false
    }

    fn name(&self, owner: Owner) -> (Option<usize>, String) {
        match owner {
            Owner::Load(index) => {
                (Some(index), self.input.loads.get(index).map(|load| load.path.clone()).unwrap_or_default())
            }
            Owner::DeviceTree => (self.tree, "the device tree".into()),
        }
    }

    /// What the configuration or the file itself has an address for.
    fn place_addressed(&mut self) {
        for (index, load) in self.input.loads.iter().enumerate() {
            let Some(Some(blob)) = self.blobs.get(index) else { continue };
            let (size, address) = match (&blob.role, load.address) {
                (Role::Executable(executable), address) => {
                    let executable = executable.clone();
                    self.place_executable(index, load, &executable, address);
                    continue;
                }
                (Role::Tree, _) | (_, None) => continue,
                (Role::Kernel(image), Some(address)) => {
                    let text_offset = image.text_offset;
                    let base = address.as_u64().checked_sub(text_offset);
                    if base.is_none_or(|base| !Ipa(base).is_aligned(image::BASE_ALIGNMENT)) {
                        let path = load.path.clone();
                        self.fail(Some(index), Problem::Misaligned { path, address, text_offset });
                        continue;
                    }
                    (image.memory, address)
                }
                (_, Some(address)) => (blob.length, address),
            };
            self.take(index, Range::new(address, size), size);
        }
    }

    fn place_executable(&mut self, index: usize, load: &Load, executable: &Executable, address: Option<Ipa>) {
        if address.is_some() && !executable.relocatable {
            return self.fail(Some(index), Problem::FixedAddress(load.path.clone()));
        }
        let bias = bias(executable, address);
        let mut lowest: Option<Range<Ipa>> = None;
        for segment in &executable.segments {
            let range = Range::new(Ipa(segment.address.wrapping_add(bias)), segment.memory);
            let Some(range) = self.take(index, range, segment.memory) else { return };
            lowest = lowest.filter(|lowest| lowest.start() < range.start()).or(Some(range));
        }
        if let Some(place) = self.places.get_mut(index) {
            *place = lowest;
        }
    }

    /// A kernel without an address: at the lowest base in RAM, as old ones lose what is below (booting.rst, section 4).
    fn place_kernels(&mut self) {
        let kernels =
            self.of_role(|role| matches!(role, Role::Kernel(_))).filter(|(_, load, _)| load.address.is_none());
        let kernels: Vec<(usize, Image)> = kernels
            .filter_map(
                |(index, _, blob)| if let Role::Kernel(image) = &blob.role { Some((index, *image)) } else { None },
            )
            .collect();
        for (index, image) in kernels {
            let found = self.lowest(image.memory, image::BASE_ALIGNMENT, image.text_offset);
            self.take(index, found, image.memory);
        }
    }

    /// Anything else without an address: at the first free page.
    fn place_others(&mut self) {
        let others = self.of_role(|role| matches!(role, Role::Raw | Role::Data));
        let others: Vec<(usize, u64)> =
            others.filter(|(_, load, _)| load.address.is_none()).map(|(index, _, blob)| (index, blob.length)).collect();
        for (index, length) in others {
            let found = self.lowest(length, PAGE_SIZE, 0);
            self.take(index, found, length);
        }
    }

    fn lowest(&self, size: u64, alignment: u64, offset: u64) -> Option<Range<Ipa>> {
        self.input.ram.iter().find_map(|ram| self.map.free(*ram, size, alignment, offset, End::Low))
    }

    fn place_initrd(&mut self) -> Option<Range<Ipa>> {
        let initrds: Vec<(usize, &Load, u64)> = self
            .of_role(|role| matches!(role, Role::Initrd))
            .map(|(index, load, blob)| (index, load, blob.length))
            .collect();
        for (index, _, _) in initrds.iter().skip(1) {
            self.fail(Some(*index), Problem::SecondInitrd);
        }
        let (index, load, length) = initrds.first().copied()?;
        if load.address.is_none() {
            let found = self.input.ram.first().and_then(|ram| {
                let kernel = self.kernel().unwrap_or(*ram).start();
                let limit = kernel.align_down(GIB).checked_add(INITRD_WINDOW).unwrap_or(ram.end());
                let window = Range::between(ram.start(), ram.end().min(limit));
                // Whole pages, so that a guest can give them back without losing a neighbour.
                self.map.free(window, length.checked_next_multiple_of(PAGE_SIZE)?, PAGE_SIZE, 0, End::High)
            });
            let found = found.and_then(|range| Range::new(range.start(), length));
            return self.take(index, found, length);
        }
        self.places.get(index).copied()?
    }

    /// Where the first recognised kernel is.
    fn kernel(&self) -> Option<Range<Ipa>> {
        let (index, _, _) = self.of_role(|role| matches!(role, Role::Kernel(_))).next()?;
        self.places.get(index).copied()?
    }

    fn tree_space(&self) -> u64 {
        let users = self.of_role(|role| matches!(role, Role::Tree)).map(|(_, _, blob)| blob.length);
        let needed = users.fold(TREE_GENERATED, |sum, length| sum.saturating_add(length.saturating_mul(2)));
        needed.checked_next_power_of_two().unwrap_or(TREE_LIMIT).min(TREE_LIMIT)
    }

    /// The device tree at the high end of the first RAM. A power of two at a multiple of itself crosses no larger one.
    fn place_tree(&mut self, space: u64) -> Option<Range<Ipa>> {
        let mut size = space;
        while size >= TREE_LEAST {
            let found = self.input.ram.iter().find_map(|ram| self.map.free(*ram, size, size, 0, End::High));
            if let Some(range) = found {
                return self.claim(range, Owner::DeviceTree).then_some(range);
            }
            size >>= 1;
        }
        self.fail(None, Problem::NoRoom { what: "the device tree".into(), size: TREE_LEAST });
        None
    }

    fn place_tree_at(&mut self, load: Option<usize>, address: Ipa, space: u64) -> Option<Range<Ipa>> {
        self.tree = load;
        if !address.is_aligned(8) {
            self.fail(load, Problem::TreeAddress(address));
            return None;
        }
        let boundary = address.checked_add(1).and_then(|next| next.align_up(TREE_LIMIT)).unwrap_or(address);
        let range = Range::between(address, boundary);
        let range = Range::new(address, range.length().min(space))?;
        self.claim(range, Owner::DeviceTree).then_some(range)
    }

    /// `entry` before all; else the entry of the first `guest load`, of the first recognised image, or the first
    /// unrecognised file's first byte.
    fn entry(&mut self) -> Option<Ipa> {
        let given = self.input.entry;
        let guest = self
            .of_role(|role| matches!(role, Role::Kernel(_) | Role::Executable(_) | Role::Raw))
            .find(|(_, load, _)| load.kind == BlobKind::Guest);
        let recognised = || self.of_role(|role| matches!(role, Role::Kernel(_) | Role::Executable(_))).next();
        let chosen = guest.or_else(recognised).or_else(|| self.of_role(|role| matches!(role, Role::Raw)).next());
        let load = chosen.as_ref().map(|(index, _, _)| *index);
        let entry = match (given, chosen) {
            (Some(entry), _) => entry,
            (None, Some((_, load, Blob { role: Role::Executable(executable), .. }))) => {
                Ipa(executable.entry.wrapping_add(bias(executable, load.address)))
            }
            // Not placed: that is an error already.
            (None, Some((index, _, _))) => self.places.get(index).copied()??.start(),
            (None, None) => {
                // If there are files whose role is not known, they may have been what to start.
                if self.blobs.iter().all(Option::is_some) {
                    self.fail(None, Problem::NoEntry);
                }
                return None;
            }
        };
        let instruction = Range::new(entry, 4);
        if !entry.is_aligned(4) || !instruction.is_some_and(|instruction| self.map.contains(&instruction)) {
            // An executable outside the memory is an error already.
            if self.errors.is_empty() {
                self.fail(if given.is_some() { None } else { load }, Problem::BadEntry(entry));
            }
            return None;
        }
        Some(entry)
    }

    fn items(&self) -> Vec<Item> {
        let placed = self.of_role(|role| !matches!(role, Role::Tree));
        placed
            .filter_map(|(index, load, blob)| {
                let place = self.places.get(index).copied()??;
                let pieces = match &blob.role {
                    Role::Executable(executable) => {
                        let bias = bias(executable, load.address);
                        let pieces = executable.segments.iter().map(|segment| Piece {
                            from: segment.offset,
                            length: segment.length,
                            to: Ipa(segment.address.wrapping_add(bias)),
                        });
                        pieces.filter(|piece| piece.length != 0).collect()
                    }
                    _ => vec![Piece { from: 0, length: blob.length, to: place.start() }],
                };
                let path = load.path.clone();
                Some(Item { load: index, path, packed: blob.packed, length: blob.length, pieces })
            })
            .collect()
    }
}

/// What has to be added to the addresses of an executable to have its lowest one at `address`.
fn bias(executable: &Executable, address: Option<Ipa>) -> u64 {
    let lowest = executable.segments.iter().map(|segment| segment.address).min();
    match (address, lowest) {
        (Some(address), Some(lowest)) => address.as_u64().wrapping_sub(lowest),
        _ => 0,
    }
}

fn examine(load: &Load, files: &dyn Files) -> Result<Blob, Problem> {
    let file = files.file(&load.path).ok_or_else(|| Problem::NoFile(load.path.clone()))?;
    if file.is_empty() {
        return Err(Problem::Empty(load.path.clone()));
    }
    let plain = |role| Blob { role, packed: false, length: Contents::plain(file).length() };
    match load.kind {
        BlobKind::Data => return Ok(plain(Role::Data)),
        // The guest unpacks it itself.
        BlobKind::Initrd => return Ok(plain(Role::Initrd)),
        BlobKind::Fdt => return Ok(plain(Role::Tree)),
        BlobKind::Detect if format::is_device_tree(file) => return Ok(plain(Role::Tree)),
        BlobKind::Detect | BlobKind::Guest => {}
    }
    let wrong = |error| Problem::Format(load.path.clone(), error);
    let contents = Contents::unpacked(file).map_err(wrong)?;
    let role = match format::detect(&contents).map_err(wrong)? {
        Format::Image(image) => Role::Kernel(image),
        Format::Elf(executable) => Role::Executable(executable),
        // Packed, but nothing that is known: data for the guest, unless they are said to be what it runs.
        Format::Unknown if contents.is_packed() && load.kind == BlobKind::Detect => return Ok(plain(Role::Data)),
        Format::Unknown => Role::Raw,
    };
    let length = contents.length();
    if length == 0 {
        return Err(Problem::Empty(load.path.clone()));
    }
    Ok(Blob { role, packed: contents.is_packed(), length })
}
