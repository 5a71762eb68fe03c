//! Which function has which addresses.
//!
//! Answers for: giving BARs, and the windows of bridges above them, addresses out of the host's windows. What firmware has given stays,
//! if it is sound; if not all of the rest fits then, all is given anew; if it does not fit even so, the largest is left out until it does.
//! Does not answer for: what BARs want (`bar`). Everything is decided first, then written: nothing decodes meanwhile.

mod arena;

use crate::{
    Bar, Flaw, Function, Place, Space, Trouble,
    bar::{self, BarKind},
    bridge::{GRANULE, Window},
    flaw,
    registers::{self, sriov},
    scan::Hierarchy,
};
use alloc::{vec, vec::Vec};
use arena::{Arena, align_up};
use machine::{PciHost, PciSpace};
use types::Pa;

/// Which of a bridge's windows something is in; on the host's own bus, whether it can be above 4 GiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pool {
    Narrow,
    Wide,
}

const POOLS: [Pool; 2] = [Pool::Narrow, Pool::Wide];

/// What gets addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    /// The n-th BAR of a function.
    Bar(usize, usize),
    /// All that the n-th BAR of its virtual functions needs.
    Virtual(usize, usize),
    /// A window of a bridge.
    Window(usize, Pool),
}

#[derive(Clone, Copy, Debug)]
struct Item {
    what: What,
    pool: Pool,
    size: u64,
    /// A power of two.
    align: u64,
    /// What firmware has set; 0 if nothing.
    current: u64,
    /// As large as firmware has set a window.
    current_size: u64,
}

/// Which of a function's BARs are left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Left {
    own: bool,
    virtual_: bool,
}

struct Plan<'a> {
    functions: &'a [Function],
    /// For each function those on the bus behind it; the last are those on the host's bus.
    behind: Vec<Vec<usize>>,
    /// Whether a function's bus can have prefetchable addresses above 4 GiB; the last is the host's.
    is_wide: Vec<bool>,
    left: Vec<Left>,
    /// What firmware has set: of each function its BARs', its virtual functions', in the order of the records.
    current: Vec<(Vec<u64>, Vec<u64>)>,
    placed: Vec<(Item, u64)>,
}

/// Gives all functions addresses, and switches on that they answer there.
pub(crate) fn assign(root: Space<'_>, host: &PciHost, found: &mut Hierarchy) {
    let mut plan = Plan::new(root, &found.functions);
    let (mut keeps, mut missing) = (true, Vec::new());
    // Each round leaves something out, or is the last.
    loop {
        match plan.attempt(host, keeps) {
            Ok(()) => break,
            Err(_) if keeps => keeps = false,
            Err(item) => {
                let Some(culprit) = plan.largest_behind(item) else { break };
                missing.push(culprit);
                plan.leave_out(culprit);
            }
        }
    }
    let placed = core::mem::take(&mut plan.placed);
    for (what, size) in missing {
        let (What::Bar(n, bar) | What::Virtual(n, bar)) = what else { continue };
        if let Some(function) = found.functions.get(n) {
            let index = bars(function, what).get(bar).map_or(0, |bar| bar.index);
            flaw::note(&mut found.troubles, function.address, Flaw::NoRoom { bar: index, size });
        }
    }
    for bridge in found.functions.iter_mut().filter_map(|function| function.bridge.as_mut()) {
        (bridge.memory, bridge.prefetchable) = (None, None);
    }
    for (item, at) in placed {
        note(host, &mut found.functions, item, at);
    }
    for function in &mut found.functions {
        write(root.other(function.address), function, &mut found.troubles);
    }
}

fn bars(function: &Function, what: What) -> &[Bar] {
    match what {
        What::Virtual(..) => function.capabilities.sriov.as_ref().map_or(&[], |sriov| &sriov.bars),
        _ => &function.bars,
    }
}

impl<'a> Plan<'a> {
    fn new(root: Space<'_>, functions: &'a [Function]) -> Self {
        let host = functions.len();
        let mut behind = vec![Vec::new(); host.saturating_add(1)];
        let mut is_wide = vec![true; host.saturating_add(1)];
        let mut current = Vec::new();
        for (n, function) in functions.iter().enumerate() {
            // Behind a bridge is later in the list.
            let above =
                function.above.and_then(|above| functions.iter().take(n).position(|other| other.address == above));
            let above = above.unwrap_or(host);
            let wide = is_wide.get(above).is_some_and(|wide| *wide);
            behind.get_mut(above).into_iter().for_each(|list: &mut Vec<usize>| list.push(n));
            is_wide
                .get_mut(n)
                .into_iter()
                .for_each(|own| *own = wide && function.bridge.is_some_and(|bridge| bridge.is_wide));
            let space = root.other(function.address);
            let own = function.bars.iter().map(|bar| bar.read(space, registers::BAR0));
            let sriov = function.capabilities.sriov.iter();
            let virtual_ = sriov.flat_map(|sriov| {
                let first = sriov.offset.saturating_add(sriov::BAR0);
                sriov.bars.iter().map(move |bar| bar.read(space, first))
            });
            current.push((own.collect(), virtual_.collect()));
        }
        Self { functions, behind, is_wide, left: vec![Left::default(); host], current, placed: Vec::new() }
    }

    /// One try. The error is what there was no room for.
    fn attempt(&mut self, host: &PciHost, keeps: bool) -> Result<(), Item> {
        let needs = self.needs();
        self.placed.clear();
        let mut arenas = root_arenas(host);
        let mut open = vec![(self.functions.len(), core::mem::take(&mut arenas))];
        // A bridge is opened once, after it has been placed.
        while let Some((bus, mut arenas)) = open.pop() {
            let mut items = self.items(bus, &needs);
            items.sort_by_key(|item| core::cmp::Reverse(item.align));
            let (fixed, free): (Vec<Item>, Vec<Item>) =
                items.iter().partition(|item| keeps && take_current(&mut arenas, item));
            let mut here: Vec<(Item, u64, u64)> =
                fixed.into_iter().map(|item| (item, item.current, item.current_size.max(item.size))).collect();
            for item in free {
                let at = take(&mut arenas, &item).ok_or(item)?;
                here.push((item, at, item.size));
            }
            for n in self.behind.get(bus).into_iter().flatten() {
                let windows = here.iter().filter_map(|(item, at, size)| match item.what {
                    What::Window(bridge, pool) if bridge == *n => Some(Arena::new(pool == Pool::Wide, *at, *size)),
                    _ => None,
                });
                let windows: Vec<Arena> = windows.collect();
                if !windows.is_empty() {
                    open.push((*n, windows));
                }
            }
            self.placed.extend(here.into_iter().map(|(item, at, size)| (Item { size, ..item }, at)));
        }
        Ok(())
    }

    /// What each bridge needs of either kind, with alignment. What is behind comes later in the list.
    fn needs(&self) -> Vec<[(u64, u64); 2]> {
        let mut needs = vec![[(0, GRANULE); 2]; self.functions.len()];
        for (n, function) in self.functions.iter().enumerate().rev() {
            if function.bridge.is_some() {
                let mut items = self.items(n, &needs);
                items.sort_by_key(|item| core::cmp::Reverse(item.align));
                let need = POOLS.map(|pool| pack(items.iter().filter(|item| item.pool == pool)));
                needs.get_mut(n).into_iter().for_each(|own| *own = need);
            }
        }
        needs
    }

    /// What is wanted on the bus behind `bus`.
    fn items(&self, bus: usize, needs: &[[(u64, u64); 2]]) -> Vec<Item> {
        let wide = self.is_wide.get(bus).is_some_and(|wide| *wide);
        let is_root = bus == self.functions.len();
        let mut items = Vec::new();
        for n in self.behind.get(bus).into_iter().flatten().copied() {
            let Some((function, left)) = self.functions.get(n).zip(self.left.get(n)) else { continue };
            let Some((own, virtual_)) = self.current.get(n) else { continue };
            let pool = |kind: BarKind| {
                let may = kind.is_wide() && (is_root || wide && kind.is_prefetchable());
                if may { Pool::Wide } else { Pool::Narrow }
            };
            let item = |what, bar: &Bar, times: u64, current: u64| Item {
                what,
                pool: pool(bar.kind),
                size: bar.room().saturating_mul(times),
                align: bar.room(),
                current,
                current_size: 0,
            };
            let bars = function.bars.iter().zip(own).enumerate().filter(|(_, (bar, _))| !bar.kind.is_io() && !left.own);
            items.extend(bars.map(|(i, (bar, current))| item(What::Bar(n, i), bar, 1, *current)));
            if let Some(sriov) = &function.capabilities.sriov {
                let bars = sriov.bars.iter().zip(virtual_).enumerate().filter(|_| !left.own && !left.virtual_);
                let total = sriov.total.into();
                items.extend(bars.map(|(i, (bar, current))| item(What::Virtual(n, i), bar, total, *current)));
            }
            if let Some((bridge, needs)) = function.bridge.zip(needs.get(n)) {
                for (pool, (size, align)) in POOLS.into_iter().zip(*needs).filter(|(_, (size, _))| *size > 0) {
                    let firmware = if pool == Pool::Wide { bridge.prefetchable } else { bridge.memory };
                    let current = firmware.map_or((0, 0), |window| {
                        (window.first, window.last.saturating_sub(window.first).saturating_add(1))
                    });
                    let what = What::Window(n, pool);
                    items.push(Item { what, pool, size, align, current: current.0, current_size: current.1 });
                }
            }
        }
        items
    }

    /// The largest thing that wants addresses of what an item is, and its size.
    fn largest_behind(&self, item: Item) -> Option<(What, u64)> {
        let needs = self.needs();
        let What::Window(bridge, pool) = item.what else { return Some((item.what, item.size)) };
        let (mut open, mut largest) = (vec![bridge], None);
        while let Some(bus) = open.pop() {
            for item in self.items(bus, &needs).into_iter().filter(|item| item.pool == pool) {
                match item.what {
                    What::Window(bridge, _) => open.push(bridge),
                    _ if largest.is_none_or(|(_, size)| item.size > size) => largest = Some((item.what, item.size)),
                    _ => {}
                }
            }
        }
        largest
    }

    fn leave_out(&mut self, (what, _): (What, u64)) {
        match what {
            What::Bar(n, _) => self.left.get_mut(n).into_iter().for_each(|left| left.own = true),
            What::Virtual(n, _) => self.left.get_mut(n).into_iter().for_each(|left| left.virtual_ = true),
            What::Window(..) => {}
        }
    }
}

/// Size and alignment of a window for `items`, the most aligned first.
fn pack<'i>(items: impl Iterator<Item = &'i Item>) -> (u64, u64) {
    let (mut end, mut most) = (0, GRANULE);
    for item in items {
        let start = align_up(end, item.align).unwrap_or(u64::MAX);
        (end, most) = (start.saturating_add(item.size), most.max(item.align));
    }
    (align_up(end, GRANULE).unwrap_or(u64::MAX), most)
}

/// What the host has.
fn root_arenas(host: &PciHost) -> Vec<Arena> {
    let memory = host.windows.iter().filter(|window| window.space != PciSpace::Io);
    memory.map(|window| Arena::new(is_high(window.bus, window.cpu.length()), window.bus, window.cpu.length())).collect()
}

/// Whether some of it needs more than 32 bits.
fn is_high(start: u64, length: u64) -> bool {
    start.saturating_add(length) > 1 << 32
}

/// Wide things are above 4 GiB if there is room, and narrow ones never.
fn take(arenas: &mut [Arena], item: &Item) -> Option<u64> {
    let mut take = |wide| {
        arenas.iter_mut().filter(|arena| arena.is_wide == wide).find_map(|arena| arena.take(item.size, item.align))
    };
    match item.pool {
        Pool::Wide => take(true).or_else(|| take(false)),
        Pool::Narrow => take(false),
    }
}

/// Takes what firmware has set, if that is sound.
fn take_current(arenas: &mut [Arena], item: &Item) -> bool {
    let size = item.current_size.max(item.size);
    let is_large_enough = item.current_size == 0 || item.current_size >= item.size;
    let is_aligned = item.current != 0 && item.current & item.align.wrapping_sub(1) == 0;
    let fits = |arena: &&mut Arena| item.pool == Pool::Wide || !arena.is_wide;
    is_large_enough && is_aligned && arenas.iter_mut().filter(fits).any(|arena| arena.take_at(item.current, size))
}

/// Notes in the records what has been decided.
fn note(host: &PciHost, functions: &mut [Function], item: Item, at: u64) {
    let (What::Bar(n, _) | What::Virtual(n, _) | What::Window(n, _)) = item.what;
    let Some(function) = functions.get_mut(n) else { return };
    match item.what {
        What::Bar(_, bar) => function.bars.get_mut(bar).into_iter().for_each(|bar| bar.place = place(host, at)),
        What::Virtual(_, bar) => {
            let bars = function.capabilities.sriov.iter_mut().flat_map(|sriov| sriov.bars.get_mut(bar));
            bars.for_each(|bar| bar.place = place(host, at));
        }
        What::Window(_, pool) => {
            let window = Window { first: at, last: at.saturating_add(item.size).saturating_sub(1) };
            if let Some(bridge) = &mut function.bridge {
                let own = if pool == Pool::Wide { &mut bridge.prefetchable } else { &mut bridge.memory };
                *own = Some(window);
            }
        }
    }
}

/// Where CPUs have an address of the bus.
fn place(host: &PciHost, bus: u64) -> Option<Place> {
    let windows = host.windows.iter().filter(|window| window.space != PciSpace::Io);
    let mut places = windows.filter_map(|window| {
        let into = bus.checked_sub(window.bus).filter(|into| *into < window.cpu.length())?;
        Some(Place { bus, cpu: Pa(window.cpu.start().0.checked_add(into)?) })
    });
    places.next()
}

/// Sets a function's registers as its record says.
fn write(space: Space<'_>, function: &mut Function, troubles: &mut Vec<Trouble>) {
    if let Some(bridge) = &function.bridge {
        bridge.write_windows(space);
    }
    if let Err(index) = bar::write_all(space, registers::BAR0, &function.bars) {
        flaw::note(troubles, space.address, Flaw::BarStuck(index));
        function.bars.iter_mut().for_each(|bar| bar.place = None);
        // It does not decode, whatever they say.
        let _ = bar::write_all(space, registers::BAR0, &function.bars);
    }
    if let Some(sriov) = &mut function.capabilities.sriov {
        let first = sriov.offset.saturating_add(sriov::BAR0);
        if let Err(index) = bar::write_all(space, first, &sriov.bars) {
            flaw::note(troubles, space.address, Flaw::BarStuck(index));
            sriov.bars.iter_mut().for_each(|bar| bar.place = None);
        }
    }
    space.set_half(registers::COMMAND, function.command_at_rest());
}
